// Package sdk is what the author of a vendor backend imports. Implement
// Backend, Device and Entity (backend.go says what each call means and which
// goroutine makes it) and let main call Serve; the rest is done here: the
// handshake, sessions, the order and the repetition of commands, numbering and
// keeping of events, images, kernels, logs, deadlines and the lease.
//
// What a backend may rely on: its Entity methods are called serially, in the
// order of the commands; every context has a deadline; a command is never
// carried out twice; a panic in one of its calls ends the process with a log
// line that names the call. What it must keep: return within the deadline
// (a call that overstays it makes the device report itself as failed), report
// jobs in the order they complete, and report nothing after Destroy returned.
//
// The package's example is a whole backend; `gpuwm plugin new` writes one as a
// module of its own. What crosses the wire stands in docs/plugin-protocol.md.
//
// A plugin outlives its host. It ends by itself when no host was connected for
// the lease time, one minute unless the host said otherwise. Standard output and
// error of the process become log lines and never block.
package sdk
