// Package sim runs a whole system from one seed: schedulers, outbox, records,
// a manager, a transport and a plugin instance, in one goroutine and in virtual
// time, under every fault that the parts are built to survive. Two runs of one
// seed take the same steps and have the same hash. It is for tests; nothing
// else imports it.
//
// Real are sched.Core, sched.Outbox and the encoding and reading of records
// (store.Memory). Modelled are:
//
//   - the medium: a write is lost in a crash until it was synced, several are
//     synced as one transaction, and the report of a sync may be lost. A sync
//     may fail, with the bytes on disk or not; every later one fails then until
//     the records were loaded again;
//   - the transport: a stream of commands and one of numbered events in each
//     session. It may delay both as long as it likes, and break. Commands under
//     way are then lost, or arrive late with the number of their session; events
//     come again until they are acknowledged. Within a session commands are
//     doubled, and overtake those of other entities. An event that is missing or
//     overtaken breaks the session, because its number shows it (sdk/host).
//     Left out is a command that is lost, or overtakes one of its own entity,
//     while its session lives: an ordered stream delivers all it was given or
//     ends. Samples of progress are not numbered: they are dropped, doubled and
//     overtaken. Answers about images come beside the stream, in any order
//     across entities. Reports that were taken, of this epoch and of those that
//     are over, are repeated at random;
//   - the plugin: a lane for each entity, which takes commands in order and
//     carries them out when it likes, so that entities overtake each other. It
//     refuses creates, runs, properties and messages, is late, hangs, loses
//     entities (victims and guilty ones), fails as a device, and dies;
//   - the manager: writes, restarts, images, result files, jobs it holds, and a
//     crash between any two steps.
//
// What must hold, and is looked at in every step:
//
//  1. a job has one outcome, told at most once in a life of the daemon, the
//     same in every life, after it is on record, and after those of all earlier
//     jobs of its entity;
//  2. every outcome has its reason: who is cancelled was asked to, or an earlier
//     job failed; who timed out executed that long; a victim is never blamed;
//  3. what was acknowledged is on record after every crash;
//  4. no command leaves before what it needs is on record, and no number is
//     used for two commands;
//  5. the memory of an entity takes every workgroup of a job once, in order of
//     submission, over all restores, and a run begins where the memory ends;
//  6. the credits of the jobs in a ring are within its room, but for one alone,
//     and are given back once;
//  7. messages leave in order, one at a time, each on its side of its barrier,
//     and are answered once;
//  8. no job runs before its dependencies have their outcomes;
//  9. nothing executes while its entity is suspended, or while somebody was
//     told that it is off the hardware; no command follows a stop;
//  10. images are taken of suspended entities only, and the recorded one exists;
//  11. at most one life of an entity is on an instance, and it is the present one;
//  12. a job with a file due is completed only when the file is on disk;
//  13. the schedulers' own counts agree with a recount (sched.Core.Check).
//
// Once the faults stop, every job gets its outcome, every waiter its answer, in
// a bounded number of steps; a last job with a file due has every entity rebuild
// and save its memory, which must hold every completed job whole; and the
// executed counts on record are what the engine really ran.
package sim
