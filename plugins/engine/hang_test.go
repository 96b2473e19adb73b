package engine_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
)

func TestHang(t *testing.T) {
	now, ended := time.Duration(5), 0
	h := engine.NewHang(func() time.Duration { return now }, func() { ended++ })
	h.Stop()
	now = 12
	if done, took := h.Progress(); done != 0 || took != 7 || ended != 0 {
		t.Errorf("%d workgroups in %d, ended %d times", done, took, ended)
	}
	if _, ok := engine.Execution(engine.Stuck{Execution: h}).(engine.Aborter); ok {
		t.Error("what is stuck can be aborted")
	}
	h.Abort()
	now = 20
	h.Abort()
	if _, took := h.Progress(); took != 7 || ended != 1 || h.Result() != (engine.Result{Executed: 7}) {
		t.Errorf("took %d, ended %d times, %+v", took, ended, h.Result())
	}
}
