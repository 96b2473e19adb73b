// Package manager owns what acts: a loop for each device, which feeds its
// schedulers with events and lets out what they decide once it is committed; a
// supervisor for each backend, which starts, adopts and ends plugin processes;
// the recovery at the start, which is the only way to start; and the fan-out of
// events.
//
// It decides nothing about jobs (core/sched does), and it knows neither the
// store nor the plugins but through the small interfaces in ports.go.
//
// One goroutine owns each device's state; everybody else posts to its mailbox.
// At most one write of a device is under way: what it decides meanwhile is
// merged into the next, so that a failed commit leaves nothing behind that
// could succeed after it.
package manager
