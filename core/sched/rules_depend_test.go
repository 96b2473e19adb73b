package sched

import (
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestDependencyPolicies ends the awaited job in each way, for each policy.
func TestDependencyPolicies(t *testing.T) {
	ends := []struct {
		name      string
		completes bool
		end       func(r *scene)
	}{
		{"completes", true, func(r *scene) { r.advance(1, 1) }},
		{"fails", false, func(r *scene) { r.fault(1, true, core.CauseTrap) }},
		{"is cancelled", false, func(r *scene) { r.must(Event{Kind: EventCancel, Entity: 1, Job: 1}) }},
		{"is killed", false, func(r *scene) { r.goal(1, core.GoalClose) }},
		{"times out", false, func(r *scene) { r.run(2 * time.Second) }},
	}
	for _, tc := range []struct {
		policy core.DependencyPolicy
		want   core.JobPhase
		cause  core.Cause
		next   core.JobPhase // of the job behind it
	}{
		{"", core.JobDependencyFailed, core.CauseDependency, core.JobCancelled},
		{core.DependencyFail, core.JobDependencyFailed, core.CauseDependency, core.JobCancelled},
		{core.DependencyCancel, core.JobCancelled, core.CauseUser, core.JobDispatched},
		{core.DependencyIgnore, core.JobDispatched, "", core.JobDispatched},
	} {
		for _, end := range ends {
			t.Run(string(tc.policy)+" "+end.name, func(t *testing.T) {
				r := newScene(t, Config{})
				r.entity(1)
				r.entity(2)
				r.submit(1, 1, 0, timeout(time.Second))
				r.submit(2, 2, 0, r.after(1, tc.policy))
				r.submit(2, 3, 0)
				r.want(2, core.JobQueued)
				end.end(r)
				if end.completes {
					r.want(2, core.JobDispatched)
					return
				}
				r.wantCause(2, tc.want, tc.cause)
				r.want(3, tc.next)
				if len(r.core.waiters) != 0 {
					t.Errorf("waiters left: %v", r.core.waiters)
				}
			})
		}
	}
}

// TestDependenciesInAnyOrder signals many fences, two of them of one timeline
// and one named twice, last to first: the job runs after the last signal.
func TestDependenciesInAnyOrder(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	var fences []core.Fence
	var options []func(*core.JobSpec)
	for i := range core.JobSeq(4) {
		f := core.Fence{Timeline: 70 + core.EntityID(i/2), Seq: 1 + i}
		fences = append(fences, f)
		options = append(options, awaits(f, ""))
	}
	options = append(options, awaits(fences[0], core.DependencyIgnore))
	r.submit(e, 1, 0, options...)
	for _, f := range slices.Backward(fences) {
		r.want(1, core.JobQueued)
		r.must(Event{Kind: EventSignal, Fence: f})
	}
	r.want(1, core.JobDispatched)
	r.must(Event{Kind: EventSignal, Fence: fences[0], Error: "late"}) // a repeat changes nothing
	r.want(1, core.JobDispatched)
}

// TestForeignFence depends on a job of another device: signalled before the
// submit, after it, and with an error.
func TestForeignFence(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1, onward)
	early, late, bad := core.Fence{Timeline: 70, Seq: 1}, core.Fence{Timeline: 70, Seq: 2}, core.Fence{Timeline: 70, Seq: 3}
	r.must(Event{Kind: EventSignal, Fence: early})
	r.submit(e, 1, 0, awaits(early, ""))
	r.want(1, core.JobDispatched)
	r.submit(e, 2, 0, awaits(late, ""))
	r.submit(e, 3, 0, awaits(bad, ""))
	r.must(Event{Kind: EventSignal, Fence: bad, Error: "job x is failed"})
	r.want(3, core.JobQueued) // its outcome waits for those before it
	r.must(Event{Kind: EventSignal, Fence: late})
	r.want(2, core.JobDispatched)
	r.advance(e, 2)
	r.wantCause(3, core.JobDependencyFailed, core.CauseDependency)
	if got := r.jobs[3].Error; got != "job x is failed" {
		t.Errorf("error %q", got)
	}
}

// TestOwnFence depends on an earlier job of the same entity: the order meets it,
// and only its failure counts.
func TestOwnFence(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*scene)
		want core.JobPhase
	}{
		{"completed", func(r *scene) { r.advance(1, 1) }, core.JobDispatched},
		{"cancelled", func(r *scene) { r.must(Event{Kind: EventCancel, Entity: 1, Job: 1}) }, core.JobDependencyFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{})
			e := r.entity(1, onward)
			r.submit(e, 1, 0)
			r.submit(e, 2, 0, r.after(1, ""))
			tc.end(r)
			r.want(2, tc.want)
		})
	}
}

func TestSignalledFenceNeverWaits(t *testing.T) {
	r := newScene(t, Config{})
	e, f := r.entity(1), r.entity(2, onward)
	r.submit(e, 1, 0)
	r.advance(e, 1)
	r.submit(f, 2, 0, r.after(1, ""))
	r.want(2, core.JobDispatched)
	r.must(Event{Kind: EventCancel, Entity: f, Job: 2})
	r.want(2, core.JobCancelled)
	r.submit(e, 3, 0, r.after(2, core.DependencyIgnore))
	r.want(3, core.JobDispatched)
	r.submit(e, 4, 0, r.after(2, core.DependencyCancel))
	r.advance(e, 1)
	r.want(4, core.JobCancelled)
}

func TestBlockedEntityBlocksNobody(t *testing.T) {
	r := newScene(t, Config{})
	e, f := r.entity(1), r.entity(2)
	r.submit(e, 1, 0, awaits(core.Fence{Timeline: 70, Seq: 1}, ""))
	for id := core.JobID(2); id < 40; id++ {
		r.submit(f, id, time.Millisecond)
	}
	r.run(time.Second)
	r.want(39, core.JobCompleted)
	r.want(1, core.JobQueued)
}

// TestSignalActsThroughTheOutbox: what a signal sets free leaves like anything
// else, after the commit.
func TestSignalActsThroughTheOutbox(t *testing.T) {
	r := newScene(t, Config{})
	e, f := r.entity(1), r.entity(2)
	r.submit(e, 1, 0)
	r.submit(f, 2, 0, r.after(1, ""))
	r.hold = true
	r.advance(e, 1)
	if len(r.sent(f)) != 0 || r.phase(1) != core.JobDispatched {
		t.Fatalf("left before the commit: runs %v, job 1 %s", r.sent(f), r.phase(1))
	}
	r.release()
	r.want(1, core.JobCompleted)
	r.want(2, core.JobDispatched)
}

// TestForgetBlocked drops an entity whose job waits; the signal that comes then
// meets nobody.
func TestForgetBlocked(t *testing.T) {
	r := newScene(t, Config{})
	f := core.Fence{Timeline: 70, Seq: 1}
	e := r.entity(1)
	r.submit(e, 1, 0, awaits(f, ""))
	r.must(Event{Kind: EventForget, Entity: e})
	if len(r.core.waiters) != 0 {
		t.Errorf("waiters left: %v", r.core.waiters)
	}
	before := len(r.commands)
	r.must(Event{Kind: EventSignal, Fence: f})
	if len(r.commands) != before || r.batch.Durable() {
		t.Error("a forgotten entity acted")
	}
}

// TestForgottenEntityStaysForgotten drops one that pauses between attempts to
// create it, with a message waiting: no timer brings it back.
func TestForgottenEntityStaysForgotten(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.fault(e, false, "")
	r.fault(e, false, "")
	r.must(Event{Kind: EventMessage, Entity: e, Message: core.MessageBackend, MessageID: 5})
	r.must(Event{Kind: EventForget, Entity: e})
	before := len(r.commands)
	if at := r.core.Next(); at != 0 {
		t.Errorf("a timer is set to %d", at)
	}
	r.run(time.Hour)
	if len(r.commands) != before {
		t.Errorf("%d commands left", len(r.commands)-before)
	}
}

// TestFencesOutliveEverything: fences are values; the job, its entity and the
// jobs that wait for it may all be forgotten, in any order.
func TestFencesOutliveEverything(t *testing.T) {
	r := newScene(t, Config{})
	e, f := r.entity(1), r.entity(2)
	r.submit(e, 1, 0, awaits(core.Fence{Timeline: 70, Seq: 1}, ""))
	r.submit(f, 2, 0, r.after(1, core.DependencyIgnore))
	r.must(Event{Kind: EventForget, Entity: e}) // it moved to another device
	r.want(2, core.JobQueued)
	r.must(Event{Kind: EventSignal, Fence: core.Fence{Timeline: e, Seq: 1}})
	r.want(2, core.JobDispatched)
	r.submit(f, 3, 0, r.after(1, ""))
	r.want(3, core.JobDispatched) // the proxy of the fence is still there
}

// TestFenceOfMovedEntity: an entity with an outcome on record comes from another
// device; who waits for its fence here is told.
func TestFenceOfMovedEntity(t *testing.T) {
	r := newScene(t, Config{})
	f := r.entity(2)
	fence := core.Fence{Timeline: 1, Seq: 1}
	r.submit(f, 1, 0, awaits(fence, ""))
	spec := &core.JobSpec{ID: 9, Entity: 1, Seq: 1, Name: "j", Grid: [3]uint32{1, 1, 1}, Credits: 1}
	r.must(Event{Kind: EventRestore, Record: &core.EntityRecord{
		Spec:  core.EntitySpec{ID: 1, Mode: core.ModeCompute},
		State: core.EntityState{ID: 1, Goal: core.GoalRun, Residency: core.Away, Generation: 2, Cut: 1},
		Jobs:  []core.JobRecord{{Spec: spec, State: core.JobState{ID: 9, Entity: 1, Phase: core.JobCompleted}}},
	}})
	r.want(1, core.JobDispatched)
}

// TestLongRunningFence: a compute job may not wait for a long-running one, on
// this device or another; everything else may wait for anything.
func TestLongRunningFence(t *testing.T) {
	r := newScene(t, Config{})
	long, short, long2 := r.entity(1, longRunning), r.entity(2), r.entity(3, longRunning)
	r.submit(long, 1, 0)
	r.submit(short, 2, 0)
	r.refused(r.try(short, 3, 0, r.after(1, "")), core.ErrLongRunningFence)
	foreign := core.Fence{Timeline: 70, Seq: 1}
	s := r.spec(short, 4, awaits(foreign, ""))
	r.refused(r.step(Event{Kind: EventSubmit, Spec: s, LongRunning: []core.Fence{foreign}}), core.ErrLongRunningFence)
	r.submit(long2, 5, 0, r.after(1, ""), r.after(2, ""))
	r.advance(long, 1)
	r.advance(short, 1)
	r.want(5, core.JobDispatched)
}
