// Package driver is the host side of the agx backend: it submits work to the
// firmware of Apple's GPUs as the Asahi driver does, one compute work queue per
// entity, and implements sdk.Device and sdk.Entity.
//
// It reaches the firmware through device memory, the mailbox and the
// interrupt, and through nothing else. What happens on the other side is
// not trusted: every message is validated, what makes no sense is logged and
// dropped, and no wait is without a bound. This firmware cannot be restarted: when it crashes,
// or does not answer, the device is given up (Config.Failed) and the process replaced.
//
// All state belongs to one goroutine (host.Loop). A queue, the driver's half
// of an entity, has one state, and what may happen to it is the table in transitions.go. What is
// wanted of it (suspended, its end, another priority) is kept beside, and settle brings the state closer to it.
//
// Nothing can be preempted: a command that was kicked runs to its end. So the work of a job is
// cut into commands that are short (slice.go), and few of them are in the rings at any time (kick.go):
// together no more than the slice target, over all queues. A suspend stops kicking and waits for what is there.
//
// A command is done when its stamp says so and its descriptor agrees. The
// firmware's event only says when to look, and a poll looks anyway.
//
// Who is guilty: the command that the fault register's VM slot, the time-out's event slot, a
// channel error or its own descriptor names. Whoever else was on the GPU when it was halted is a victim. What
// was not begun runs on by itself.
//
// Rejected: a gate of barriers in front of every command (it costs an event slot, and nothing removes a
// barrier that is never satisfied), killing by unmapping (it halts everybody), one deep ring per
// entity as the vendor has it (a suspend would wait for the rings of all others).
package driver
