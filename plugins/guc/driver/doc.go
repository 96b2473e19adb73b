// Package driver is the host side of the guc backend: it submits work to the
// GuC firmware as the Xe driver does, one context (guc_id, LRC) per entity,
// and implements sdk.Device and sdk.Entity.
//
// It reaches the firmware through device memory, the register pages, the
// doorbell and the interrupt line, and through nothing else. What happens on
// the other side is not trusted: every message is validated, an event that is
// not legal in a context's state is logged and dropped, and a transport that
// breaks, or a firmware that does not answer, is answered with a GT reset
// (reset.go). Only when that fails, or does not help, the device is given up (Config.Failed).
//
// All state belongs to one goroutine (host.Loop), which calls Step; whoever wants something posts a request and
// waits. With Config.Pump there is no such goroutine: the caller's one drives the
// whole world, which makes runs on a virtual clock exactly repeatable.
//
// A queue (what Xe calls an exec queue: the driver's half of an entity) has one
// state, and what may happen to it is the table in transitions.go. What is wanted of it (suspended, its end, a job taken
// out) is kept beside, and settle sends whatever brings the state closer to it.
//
// Who is guilty: the first job of a context of which the firmware or its own descriptor
// says so, or that executed without an end of a workgroup, or that stayed on the engine
// while a living firmware was told to take it off. Whoever was begun and not ended when the GT
// is reset is a victim. What was not begun goes on by itself; what was is never run again here.
//
// Rejected: a goroutine and a lock per entity (orders of messages nobody can
// enumerate), flag bits as Xe has them, removing a cancelled job by patching
// the ring in place (its slot stays taken although the credit was returned),
// keeping a context that was suspended through a GT reset (Xe does not either).
package driver
