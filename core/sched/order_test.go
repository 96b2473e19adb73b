package sched

import (
	"fmt"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

func depends(policy core.DependencyPolicy, fences ...core.Fence) func(*core.JobSpec) {
	return func(s *core.JobSpec) {
		for _, f := range fences {
			s.Depends = append(s.Depends, core.Dependency{Fence: f, OnFailure: policy})
		}
	}
}

// TestPolicyIsTheDependencys: what the failure of a dependency means is the
// dependency's own affair.
func TestPolicyIsTheDependencys(t *testing.T) {
	for _, c := range []struct {
		policy core.DependencyPolicy
		phase  core.JobPhase
		cause  core.Cause
		halted bool
	}{
		{"", core.JobDependencyFailed, core.CauseDependency, true},
		{core.DependencyFail, core.JobDependencyFailed, core.CauseDependency, true},
		{core.DependencyCancel, core.JobCancelled, core.CauseUser, false},
		{core.DependencyIgnore, core.JobCompleted, core.CauseNone, false},
	} {
		t.Run(string(c.policy), func(t *testing.T) {
			r := newBed(bedConfig, core.EntitySpec{ID: 1}, core.EntitySpec{ID: 2})
			r.start()
			r.mustSubmit(t, bedJobSpec(1, 1, 50), bedJobSpec(2, 1, 3, depends(c.policy, core.Fence{Timeline: 1, Seq: 1})))
			r.quiet()
			r.checkResidency(t, 2, core.Away) // nothing to do before the outcome
			r.execute(1, 1)
			r.must(t, Event{Kind: EventCancel, Entity: 1, Job: 101})
			r.finish()
			r.check(t, 101, core.JobCancelled, core.CauseUser)
			r.check(t, 201, c.phase, c.cause)
			if r.entities[2].Halted != c.halted {
				t.Errorf("entity 2 halted: %v, want %v", r.entities[2].Halted, c.halted)
			}
			r.clean(t)
		})
	}
}

// TestDependencyRefused: a fence that could never signal is refused at submit.
func TestDependencyRefused(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1}, core.EntitySpec{ID: 2, Mode: core.ModeLongRunning})
	r.mustSubmit(t, bedJobSpec(2, 1, 1))
	for _, c := range []struct {
		want error
		d    core.Dependency
	}{
		{core.ErrCycle, core.Dependency{Fence: core.Fence{Timeline: 1, Seq: 1}}},
		{core.ErrInvalid, core.Dependency{Fence: core.Fence{Timeline: 2, Seq: 2}}},
		{core.ErrInvalid, core.Dependency{Fence: core.Fence{Timeline: 9, Seq: 1}, OnFailure: "perhaps"}},
		{core.ErrLongRunningFence, core.Dependency{Fence: core.Fence{Timeline: 2, Seq: 1}}},
	} {
		r.refuses(t, c.want, Event{Kind: EventSubmit, Spec: bedJobSpec(1, 1, 1, func(s *core.JobSpec) { s.Depends = []core.Dependency{c.d} })})
	}
	foreign := core.Fence{Timeline: 9, Seq: 1}
	r.refuses(t, core.ErrLongRunningFence, Event{Kind: EventSubmit, LongRunning: []core.Fence{foreign}, Spec: bedJobSpec(1, 1, 1, depends("", foreign))})
	r.must(t, Event{Kind: EventSubmit, LongRunning: []core.Fence{foreign}, Spec: bedJobSpec(2, 2, 1, depends("", foreign))})
}

// TestForeignFenceSignalledOnce: the first outcome of another device's job is
// the one that counts, also for jobs submitted later.
func TestForeignFenceSignalledOnce(t *testing.T) {
	f := core.Fence{Timeline: 9, Seq: 1}
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.must(t, Event{Kind: EventSignal, Fence: f})
	r.must(t, Event{Kind: EventSignal, Fence: f, Error: "no, it failed"})
	r.mustSubmit(t, bedJobSpec(1, 1, 1, depends("", f)))
	r.finish()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
}

// TestOutcomesInOrder: a cancelled queued job waits for the outcomes of its
// predecessors, and not for its own dependencies.
func TestOutcomesInOrder(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 5), bedJobSpec(1, 2, 5, depends("", core.Fence{Timeline: 9, Seq: 1})), bedJobSpec(1, 3, 2))
	r.quiet()
	r.must(t, Event{Kind: EventCancel, Entity: 1, Job: 102})
	r.quiet()
	r.check(t, 102, core.JobQueued, core.CauseNone)
	r.execute(1, 5)
	r.quiet()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
	r.check(t, 102, core.JobCancelled, core.CauseUser)
	r.finish()
	r.checkOrder(t, 1, 101, 102, 103)
	r.clean(t)
}

// TestCancelBehindARunningJob: a job taken out of the ring behind one that
// goes on does not drive the entity off the hardware again and again.
func TestCancelBehindARunningJob(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1, Mode: core.ModeLongRunning})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 100), bedJobSpec(1, 2, 5))
	r.quiet()
	r.execute(1, 1)
	r.must(t, Event{Kind: EventCancel, Entity: 1, Job: 102})
	for range 60 {
		r.quiet()
		r.execute(1, 1)
		r.quiet()
		r.progress(1)
		r.tick(time.Millisecond)
	}
	r.quiet()
	if g := r.entities[1].Generation; g != 2 {
		t.Errorf("image generation %d after one cancel, want 2", g)
	}
	r.check(t, 102, core.JobQueued, core.CauseNone)
	r.finish()
	r.checkOrder(t, 1, 101, 102)
	r.check(t, 102, core.JobCancelled, core.CauseUser)
	r.clean(t)
}

// TestCancelOfARefusedRun: a job that was to be cancelled and then never
// entered the ring ends at once.
func TestCancelOfARefusedRun(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 5))
	for len(r.heard(JobChanged)) < 2 { // queued, dispatched
		if !r.commit() && !r.take(false) {
			r.deliver()
		}
	}
	r.take(true)
	r.must(t, Event{Kind: EventCancel, Entity: 1, Job: 101})
	r.deliver()
	for r.commit() {
	}
	r.check(t, 101, core.JobCancelled, core.CauseUser)
}

// TestExtensionMovesTheTimeout: a verdict of progress moves the timeout, a bounded number of times.
func TestExtensionMovesTheTimeout(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 100, func(s *core.JobSpec) { s.Timeout = 5 * time.Millisecond }))
	r.quiet()
	extend := Event{Kind: EventExtend, Entity: 1, Job: 101, By: 3 * time.Millisecond}
	r.refuses(t, core.ErrInvalid, Event{Kind: EventExtend, Entity: 1, Job: 101})
	r.refuses(t, core.ErrNotFound, Event{Kind: EventExtend, Entity: 1, Job: 102, By: 1})
	r.must(t, extend)
	r.must(t, extend)
	r.refuses(t, core.ErrFull, extend)
	r.tick(10 * time.Millisecond)
	r.execute(1, 11)
	r.quiet()
	r.progress(1)
	r.quiet()
	r.check(t, 101, core.JobDispatched, core.CauseNone) // 11 ms of 5 + 6
	r.execute(1, 1)
	r.progress(1)
	r.finish()
	r.check(t, 101, core.JobTimedOut, core.CauseTimeout)
	if r.jobs[101].Executed != 12 {
		t.Errorf("executed %d workgroups, want 12", r.jobs[101].Executed)
	}
	r.clean(t)
}

// TestOnlyTheFirstWaitCounts: only the wait until a job is sent counts, and not the
// one after its entity came back from a loss.
func TestOnlyTheFirstWaitCounts(t *testing.T) {
	limit := func(s *core.JobSpec) { s.QueueTimeout = 20 * time.Millisecond }
	r := newBed(bedConfig, core.EntitySpec{ID: 1, OnFailure: core.OnFailureContinue})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 60, limit), bedJobSpec(1, 2, 1, limit, depends("", core.Fence{Timeline: 9, Seq: 1})), bedJobSpec(1, 3, 1))
	r.quiet()
	r.execute(1, 1)
	r.gone()
	r.tick(30 * time.Millisecond)
	r.start()
	r.finish()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
	r.check(t, 102, core.JobTimedOut, core.CauseQueueTimeout)
	r.check(t, 103, core.JobCompleted, core.CauseNone)
	if r.entities[1].Faults != 0 {
		t.Error("waiting made the entity guilty")
	}
	r.clean(t)
}

// TestRingShrinks: jobs in flight keep what they hold when the ring shrinks; the
// next ones wait, and a job that fits no more runs alone.
func TestRingShrinks(t *testing.T) {
	credits := func(n uint32) func(*core.JobSpec) { return func(s *core.JobSpec) { s.Credits = n } }
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 2, credits(2)), bedJobSpec(1, 2, 2, credits(2)), bedJobSpec(1, 3, 2, credits(3)), bedJobSpec(1, 4, 2))
	r.quiet()
	ring := func(want ...core.JobID) {
		t.Helper()
		var got []core.JobID
		for _, j := range r.device.entities[1].ring {
			got = append(got, j.spec.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("in the ring: %v, want %v", got, want)
		}
	}
	ring(101, 102)
	r.must(t, Event{Kind: EventLimits, Credits: 1})
	r.refuses(t, core.ErrInvalid, Event{Kind: EventLimits})
	r.refuses(t, core.ErrOversize, Event{Kind: EventSubmit, Spec: bedJobSpec(1, 5, 1, credits(2))})
	r.quiet()
	ring(101, 102)
	r.execute(1, 2)
	r.quiet()
	ring(102)
	r.execute(1, 2)
	r.quiet()
	ring(103) // bigger than the ring, alone
	r.must(t, Event{Kind: EventLimits, Credits: 4})
	r.quiet()
	ring(103, 104)
	r.finish()
	r.checkOrder(t, 1, 101, 102, 103, 104)
	r.clean(t)
}

// TestReplayRefused: when a completed job may not be replayed, its entity is
// rebuilt anew, also when the daemon crashes right after: nothing runs in a
// memory that lacks what was completed.
func TestReplayRefused(t *testing.T) {
	for _, crash := range []bool{false, true} {
		r := newBed(bedConfig, core.EntitySpec{ID: 1})
		r.start()
		r.mustSubmit(t, bedJobSpec(1, 1, 3), bedJobSpec(1, 2, 5))
		r.quiet()
		r.execute(1, 3)
		r.quiet()
		r.check(t, 101, core.JobCompleted, core.CauseNone)
		r.gone()
		r.start()
		for r.entities[1].Residency != core.Resident || len(r.device.queue) == 0 {
			if !r.commit() && !r.take(false) && !r.deliver() {
				t.Fatal("no replay comes")
			}
		}
		r.take(true)
		for r.deliver() || r.commit() {
		}
		if crash {
			r.crash()
		}
		r.finish()
		r.check(t, 102, core.JobCompleted, core.CauseNone)
		if r.entities[1].Epoch != 3 {
			t.Errorf("epoch %d, want the third: rebuilt once for the loss and once for the refusal", r.entities[1].Epoch)
		}
		r.clean(t)
	}
}
