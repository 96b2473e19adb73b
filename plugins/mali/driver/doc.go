// Package driver is the host side of the mali backend: what the panthor driver
// does for GPUs with a command stream frontend. It implements sdk.Device and
// sdk.Entity, and reaches the firmware through device memory, registers,
// doorbells and interrupts only. What comes from there is not trusted.
//
// A group owns queues and takes a CSG slot to run. There are fewer slots, and
// fewer address spaces, than groups: a tick (tick.go) asks the firmware how the
// resident groups are, lets core/arbiter choose who gets the slots, suspends
// who leaves and starts or resumes who comes. An entity is a group with one
// queue; Group, for tests and for other front ends, has several.
//
// All state belongs to one goroutine, which calls Step. Every wait is an
// expectation (wait.go): a condition that is looked at after each interrupt and
// a last time at its deadline. Whoever does not answer in time is answered with
// a GPU reset (reset.go); only when that fails the device is given up.
//
// A group has one state, and what may happen to it is the table in
// state.go. What is wanted of it (suspended, its end, a job taken out) is
// kept beside; the tick works towards it.
//
// Who is guilty: the first job of a group whose own descriptor, a CS_FAULT, a
// CS_FATAL of its stream or an MMU fault in its address space says so, or that
// ended no workgroup in time although it was on an endpoint of a living
// firmware. Who had begun and lost its state in a reset is a victim; who was
// suspended cleanly, or had not begun, goes on.
//
// What the firmware saved of a group is used only by the firmware, and only if
// it takes it: when a RESUME fails, the group starts anew from the portable part,
// the cursors in the dispatch reports and the buffers.
//
// Rejected: strict priorities as panthor has them (jobs here last for days, and
// who waits must come on), taking a cancelled job out of a running ring, keeping a
// resident group's timer running while others have the endpoints.
package driver
