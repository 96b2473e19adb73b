// Package driver is the host side of the guc backend: it submits work to the
// GuC firmware as the Xe driver does, one context (guc_id, LRC) per entity,
// and implements sdk.Device and sdk.Entity.
//
// It reaches the firmware through device memory, the register page, the
// doorbell and the interrupt line, and through nothing else. What happens on
// the other side is not trusted: every message is validated, an event that is
// not legal in a context's state is logged and dropped, and a transport that
// breaks ends the device (Config.Failed), never the process.
//
// All state belongs to one goroutine, which calls Step; whoever wants something posts a request and waits. With
// Config.Pump there is no such goroutine: the caller's one drives the whole
// world, which makes runs on a virtual clock exactly repeatable.
//
// A queue (what Xe calls an exec queue: the driver's half of an entity) has one
// state, and what may happen to it is the table in state.go. What is wanted of it (suspended, destroyed, a job taken
// out) is kept beside, and settle sends whatever brings the state closer to it.
//
// Rejected: a goroutine and a lock per entity (orders of messages nobody can
// enumerate), flag bits as Xe has them, removing a cancelled job by patching
// the ring in place (its slot stays taken although the credit was returned).
package driver
