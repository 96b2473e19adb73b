package engine

import "time"

// Aborter is what an Execution implements that can be ended in the middle of a
// workgroup. An engine on a CPU cannot do that.
type Aborter interface {
	// Abort ends it now; what the workgroup wrote so far stays. Idempotent.
	Abort()
}

// Hang is an execution that reaches no end by itself, for firmware that is asked
// for one; the engine is not told. Abort ends it, as a reset of the hardware
// does. Its methods belong to one goroutine.
type Hang struct {
	now    func() time.Duration
	since  time.Duration
	notify func()
	ended  bool
	took   time.Duration
}

// NewHang begins one; notify is called by Abort.
func NewHang(now func() time.Duration, notify func()) *Hang {
	return &Hang{now: now, since: now(), notify: notify}
}

// Stop implements Execution: it never comes to the end of a workgroup.
func (h *Hang) Stop() {}

// Abort implements Aborter.
func (h *Hang) Abort() {
	if !h.ended {
		h.ended, h.took = true, h.now()-h.since
		h.notify()
	}
}

// Progress implements Execution.
func (h *Hang) Progress() (uint64, time.Duration) {
	if h.ended {
		return 0, h.took
	}
	return 0, h.now() - h.since
}

// Result implements Execution.
func (h *Hang) Result() Result { return Result{Executed: h.took} }

// Stuck is an execution that can't be aborted.
type Stuck struct{ Execution }
