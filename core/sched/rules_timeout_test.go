package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestSubmissionsMoveNoTimeout: a stream of later jobs does not shield one that
// executes for too long.
func TestSubmissionsMoveNoTimeout(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1, onward)
	r.submit(e, 1, 0, timeout(100*time.Millisecond))
	for id := core.JobID(2); id < 32; id++ {
		r.submit(e, id, 0)
		r.run(5 * time.Millisecond)
	}
	r.wantCause(1, core.JobTimedOut, core.CauseTimeout)
}

// TestTimeoutCountsExecution: neither waiting in the ring nor a suspend counts,
// what was executed before a suspend does.
func TestTimeoutCountsExecution(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, time.Second)
	r.submit(e, 2, 0, timeout(100*time.Millisecond))
	r.run(time.Second) // job 2 waits behind job 1, in the ring
	r.want(2, core.JobDispatched)
	r.run(60 * time.Millisecond)
	r.goal(e, core.GoalSuspend)
	r.run(time.Hour)
	r.goal(e, core.GoalRun)
	r.run(30 * time.Millisecond)
	r.want(2, core.JobDispatched)
	if got := r.jobs[2].ExecutedTime; got != 60*time.Millisecond {
		t.Errorf("%s on record before this epoch, want 60ms", got)
	}
	r.run(30 * time.Millisecond)
	r.wantCause(2, core.JobTimedOut, core.CauseTimeout)
}

// TestTimeoutFallsBackToTheImage: a victim has to do again what was executed since
// its last image, and that does not count twice; what the image holds does.
func TestTimeoutFallsBackToTheImage(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 50*time.Millisecond, timeout(60*time.Millisecond))
	r.run(29 * time.Millisecond)
	r.fault(e, false, core.CauseNone)
	r.run(45 * time.Millisecond)
	r.want(1, core.JobDispatched)
	r.gone() // and once more
	r.must(Event{Kind: EventUp})
	r.run(DefaultRetry + 51*time.Millisecond)
	r.want(1, core.JobCompleted)
	r.submit(e, 2, time.Hour, timeout(60*time.Millisecond))
	r.run(40 * time.Millisecond)
	r.must(Event{Kind: EventPreempt, Waiter: 1, Away: true}) // an image at 40 ms
	r.must(Event{Kind: EventRelease, Waiter: 1})
	r.run(15 * time.Millisecond)
	r.fault(e, false, core.CauseNone)
	r.run(15 * time.Millisecond)
	r.want(2, core.JobDispatched)
	r.run(15 * time.Millisecond)
	r.wantCause(2, core.JobTimedOut, core.CauseTimeout)
	if s := r.jobs[2]; s.ExecutedTime < 80*time.Millisecond {
		t.Errorf("executed %s in all, want more than 80ms", s.ExecutedTime)
	}
}

// TestNoStartNoTimeout: a job that the backend has not begun cannot time out.
func TestNoStartNoTimeout(t *testing.T) {
	r := newScene(t, Config{Answer: 1000 * time.Hour})
	r.dev.flags.holdCreate = true
	e := r.entity(1)
	r.submit(e, 1, 0, timeout(time.Millisecond))
	r.run(time.Hour)
	r.want(1, core.JobQueued)
	r.answer()
	r.want(1, core.JobDispatched)
}

// TestTimeoutOfAnyJob: reports name any job in flight; the one behind the head
// times out alone, the head goes on, and outcomes stay in order.
func TestTimeoutOfAnyJob(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1, onward)
	r.submit(e, 1, 0)
	r.submit(e, 2, 0, timeout(50*time.Millisecond))
	r.submit(e, 3, 0)
	r.report(core.BackendEvent{Kind: core.EventProgress, Entity: e, Epoch: 1, Job: 2, ExecutedTime: time.Second})
	if n := r.count(e, core.CommandCancel, 0); n != 1 {
		t.Fatalf("%d jobs were taken out", n)
	}
	r.want(1, core.JobDispatched)
	r.want(3, core.JobDispatched)
	r.advance(e, 2)
	r.want(1, core.JobCompleted)
	r.wantCause(2, core.JobTimedOut, core.CauseTimeout)
	r.want(3, core.JobCompleted)
}

// TestLateTimeoutReport: a job that completes while it is being taken off the
// hardware completes, at whatever step.
func TestLateTimeoutReport(t *testing.T) {
	for _, step := range []func(*mockFlags){
		func(f *mockFlags) { f.holdSuspend = true },
		func(f *mockFlags) { f.holdCancel = true },
	} {
		r := newScene(t, Config{})
		step(&r.dev.flags)
		e := r.entity(1)
		r.submit(e, 1, 0, timeout(50*time.Millisecond))
		r.run(100 * time.Millisecond)
		r.want(1, core.JobDispatched)
		ring := r.dev.rings[e]
		ring.suspended = false // the report was on its way already
		r.advance(e, 1)
		ring.suspended = true
		r.wantCause(1, core.JobCompleted, "")
		r.dev.flags = mockFlags{sample: time.Second}
		r.answer()
		r.submit(e, 2, time.Millisecond)
		r.run(time.Second)
		r.want(2, core.JobCompleted)
	}
}

// TestExtensionsAreBounded: each verdict moves the timeout by its amount, the
// ninth is refused, as is one for a job that is done or already being ended.
func TestExtensionsAreBounded(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0, timeout(100*time.Millisecond))
	extend := Event{Kind: EventExtend, Entity: e, Job: 1, By: 100 * time.Millisecond}
	for range DefaultExtensionsMax {
		r.run(100 * time.Millisecond)
		r.want(1, core.JobDispatched)
		r.must(extend)
	}
	r.refused(r.step(extend), core.ErrFull)
	r.refused(r.step(Event{Kind: EventExtend, Entity: e, Job: 9, By: 1}), core.ErrNotFound)
	r.dev.flags.holdSuspend = true
	r.run(120 * time.Millisecond)
	r.want(1, core.JobDispatched)
	r.submit(e, 2, 0)
	r.refused(r.step(Event{Kind: EventExtend, Entity: e, Job: 2}), core.ErrInvalid)
	r.answer()
	r.wantCause(1, core.JobTimedOut, core.CauseTimeout)
	r.refused(r.step(extend), core.ErrNotFound)
}

// TestExtensionTooLate: once a job is being ended a verdict does not say that it
// was accepted.
func TestExtensionTooLate(t *testing.T) {
	r := newScene(t, Config{})
	r.dev.flags.holdSuspend = true
	e := r.entity(1)
	r.submit(e, 1, 0, timeout(100*time.Millisecond))
	r.run(200 * time.Millisecond)
	if err := r.step(Event{Kind: EventExtend, Entity: e, Job: 1, By: time.Hour}); err == nil {
		t.Error("an extension was accepted after the timeout")
	}
	if s := r.jobs[1]; s.Extensions != 0 {
		t.Errorf("on record: %d extensions", s.Extensions)
	}
}

// TestIdleNeedsNoTimer: without work there is none.
func TestIdleNeedsNoTimer(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	if at := r.core.Next(); at != 0 {
		t.Fatalf("a fresh entity has a timer at %d", at)
	}
	r.submit(e, 1, time.Millisecond, timeout(time.Second))
	r.run(time.Hour)
	r.want(1, core.JobCompleted)
	if at := r.core.Next(); at != 0 {
		t.Errorf("an idle entity has a timer at %d", at)
	}
}

// TestQueueTimeout: an option of a job; it bounds the wait to be sent, not the work.
func TestQueueTimeout(t *testing.T) {
	r := newScene(t, Config{Credits: 1})
	e := r.entity(1, onward)
	wait := func(s *core.JobSpec) { s.QueueTimeout = 50 * time.Millisecond }
	r.submit(e, 1, 200*time.Millisecond, wait)
	r.submit(e, 2, 0, wait)
	r.submit(e, 3, time.Millisecond)
	r.run(100 * time.Millisecond)
	r.want(2, core.JobQueued) // its outcome waits for those before it
	r.run(200 * time.Millisecond)
	r.want(1, core.JobCompleted)
	r.wantCause(2, core.JobTimedOut, core.CauseQueueTimeout)
	r.want(3, core.JobCompleted)
}

// TestLongRunningHasNoTimeout: work of any length passes, though its spec says
// otherwise, as long as reports come.
func TestLongRunningHasNoTimeout(t *testing.T) {
	r := newScene(t, Config{})
	r.dev.flags.sample = 10 * time.Second
	e := r.entity(1, longRunning)
	r.submit(e, 1, 40*time.Hour, timeout(time.Second))
	r.run(39 * time.Hour)
	r.want(1, core.JobDispatched)
	r.run(2 * time.Hour)
	r.want(1, core.JobCompleted)
}

// TestSilenceIsABackendFault: a job that executes without a report makes the
// instance start again, in both modes, after a resume too, and on an entity that
// was idle for long; nobody is to blame.
func TestSilenceIsABackendFault(t *testing.T) {
	for _, before := range []string{"", "resumed", "idle"} {
		for _, mode := range []func(*core.EntitySpec){longRunning, onward} {
			r := newScene(t, Config{})
			r.dev.flags.holdRestart = true
			e := r.entity(1, mode)
			if before == "idle" {
				r.submit(e, 2, time.Millisecond)
				r.run(time.Hour)
			}
			r.submit(e, 1, 0)
			r.dev.flags.silent = true
			if before == "resumed" {
				r.must(Event{Kind: EventPreempt, Waiter: 1})
				r.run(DefaultSilence)
				r.must(Event{Kind: EventRelease, Waiter: 1})
			}
			if n := len(r.restarts()); n != 0 {
				t.Fatalf("%d restarts too early", n)
			}
			r.run(2*DefaultSilence + time.Second)
			if n := len(r.restarts()); n != 1 {
				t.Fatalf("%s: %d restarts after %s of silence", before, n, 2*DefaultSilence)
			}
			r.restart()
			r.want(1, core.JobDispatched)
			if s := r.entities[e]; s.Faults != 0 || s.Banned {
				t.Errorf("blamed: %+v", s)
			}
		}
	}
}

// restarts lists the restarts that were asked for.
func (r *scene) restarts() []string {
	var why []string
	for _, f := range r.effects {
		if f.Kind == EffectRestart {
			why = append(why, f.Reason)
		}
	}
	return why
}
