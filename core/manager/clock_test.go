package manager_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestWallClockIsSet: a wall clock that is set, forwards or backwards, while an
// entity leaves its device makes no deadline pass and none late.
func TestWallClockIsSet(t *testing.T) {
	for _, by := range []time.Duration{10 * time.Hour, -10 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				var step atomic.Int64
				r.stop(false)
				r.now = func() time.Time { return time.Now().Add(time.Duration(step.Load())) }
				r.start(nil)
				id := r.create(r.entity("x", newJob("a", 2000)), r.entity("y", newJob("b", 2000)))[0]
				r.progressed("a", 20)
				p := r.process()
				r.lock(func() { r.busyUntil = time.Now().Add(100 * time.Millisecond) })
				r.goal(id, core.GoalSuspend)
				step.Store(int64(by))
				r.suspended(id, core.CauseNone)
				r.goal(id, core.GoalRun)
				generation := r.state(id).Generation
				r.within(time.Second, "a checkpoint", func() bool { return r.state(id).Generation > generation })
				r.ends(core.JobCompleted, "a", "b")
				r.executed(0, "a", "b")
				if r.process() != p {
					t.Error("the instance was given up because of the clock")
				}
			})
		})
	}
}

// TestClockWasAhead: an image that was saved by a clock that ran ahead does not
// stop the checkpoints of the next start.
func TestClockWasAhead(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.stop(false)
		r.now = func() time.Time { return time.Now().Add(10 * time.Hour) }
		r.start(nil)
		id := r.create(r.entity("x", newJob("a", 2000)))[0]
		r.within(time.Second, "a checkpoint", func() bool { return r.state(id).Generation > 1 })
		r.goal(id, core.GoalSuspend)
		r.suspended(id, core.CauseNone)
		r.stop(false)
		r.now = nil
		r.start(nil)
		generation := r.state(id).Generation
		r.goal(id, core.GoalRun)
		r.within(time.Second, "a checkpoint by the right clock", func() bool { return r.state(id).Generation > generation })
		r.ends(core.JobCompleted, "a")
	})
}
