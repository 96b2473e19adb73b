package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// hung is an execution that reaches no end by itself.
type hung struct {
	clock  hw.Clock
	since  time.Duration
	notify func()
	ended  bool
	took   time.Duration
}

// Stop implements engine.Execution: it never comes to the end of a workgroup.
func (h *hung) Stop() {}

// Abort ends it, as a halt of the GPU does.
func (h *hung) Abort() {
	if !h.ended {
		h.ended, h.took = true, h.clock.Now()-h.since
		h.notify()
	}
}

// Progress implements engine.Execution.
func (h *hung) Progress() (uint64, time.Duration) {
	if h.ended {
		return 0, h.took
	}
	return 0, h.clock.Now() - h.since
}

// Result implements engine.Execution.
func (h *hung) Result() engine.Result { return engine.Result{Executed: h.took} }

// stuck can't be aborted either.
type stuck struct{ engine.Execution }
