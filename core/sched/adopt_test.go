package sched

import (
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestFailureIsNotAcknowledged: that the device failed is nowhere on record, so
// the plugin keeps its report, and all after it, until the instance has ended.
func TestFailureIsNotAcknowledged(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9))
	r.quiet()
	r.report(core.BackendEvent{Kind: core.EventDeviceHealth, Error: "overheated"})
	r.execute(1, 9)
	for r.deliver() || r.commit() {
	}
	if r.restarts != 1 {
		t.Fatalf("%d restarts", r.restarts)
	}
	r.crash() // before anybody ended the instance
	for r.deliver() || r.commit() {
	}
	if r.restarts != 1 {
		t.Errorf("after the crash %d restarts", r.restarts)
	}
	r.gone()
	r.start()
	r.finish()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
	r.clean(t)
}

// TestAdoptedJobHasNotBegun: a job that began in an earlier life of its entity and
// waits for its turn in this one is not reported, and nobody misses that.
func TestAdoptedJobHasNotBegun(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9))
	r.quiet()
	r.execute(1, 2)
	r.quiet()
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalSuspend})
	r.finish()
	r.checkResidency(t, 1, core.Away)
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalRun})
	r.quiet()
	r.checkResidency(t, 1, core.Resident)
	r.crash()
	r.tick(3 * bedConfig.Silence)
	if r.restarts != 0 {
		t.Errorf("%d restarts while the job has not begun", r.restarts)
	}
	r.execute(1, 1) // now it has
	r.quiet()
	r.crash()
	r.tick(3 * bedConfig.Silence)
	if r.restarts != 1 {
		t.Errorf("%d restarts of an instance that says nothing of a job that began", r.restarts)
	}
}

// TestSentJobWaitsForNoFence: a job that was sent has had its fences. That the
// entity of one is gone from the records does not change that.
func TestSentJobWaitsForNoFence(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1}, core.EntitySpec{ID: 2})
	r.start()
	r.mustSubmit(t, bedJobSpec(2, 1, 3), bedJobSpec(1, 1, 9, depends(core.DependencyFail, core.Fence{Timeline: 2, Seq: 1})))
	r.quiet()
	r.execute(2, 3)
	r.quiet()
	r.execute(1, 1)
	r.must(t, Event{Kind: EventGoal, Entity: 2, Goal: core.GoalClose})
	r.quiet()
	r.must(t, Event{Kind: EventForget, Entity: 2})
	r.order = r.order[:1]
	r.gone()
	r.quiet()
	r.check(t, 101, core.JobQueued, core.CauseNone)
	r.crash()
	r.finish()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
	r.clean(t)
}
