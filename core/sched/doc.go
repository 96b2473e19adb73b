// Package sched is the schedulers of one device: a pure, deterministic state
// machine. Every entity has a scheduler of its own, 1:1, which tracks the
// entity's dependencies, jobs in flight, in-band messages, images and outcomes;
// the vendor's firmware decides who executes.
//
// A Core is driven by Step: one event in, one batch out. The batch holds the
// states to commit, and the commands, effects and notices that may leave only
// when every batch up to it is committed; Outbox owns that rule. There is no
// goroutine, clock, input/output or log in this package: events carry the time.
//
// The caller must feed a Core from one goroutine, give it the events of the
// backend in order, and after a failed commit throw it away and rebuild it from
// the records with EventRestore, as after a crash.
//
// One sequence serves checkpoint, suspend, cancel, timeout and result files:
// suspend message, confirmed off the hardware, (take the job out,) save the
// image, commit, then resume or destroy. That the image and the outcome are
// committed together is why a job whose partial writes cannot be replayed is
// never half in an image. Rejected: taking a running job out of the ring while
// the entity executes, which leaves a time in which a crash loses its writes.
package sched
