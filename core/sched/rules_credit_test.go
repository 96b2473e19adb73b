package sched

import (
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestCreditsBoundTheRing has jobs of many sizes pass a ring of seven, in either
// mode; the mock fails the test when it holds more.
func TestCreditsBoundTheRing(t *testing.T) {
	t.Run("compute", func(t *testing.T) { creditsBoundTheRing(t, onward) })
	t.Run("long-running", func(t *testing.T) { creditsBoundTheRing(t, longRunning) })
}

func creditsBoundTheRing(t *testing.T, mode func(*core.EntitySpec)) {
	r := newScene(t, Config{Credits: 7})
	e := r.entity(1, mode)
	for id := core.JobID(1); id <= 200; id++ {
		r.submit(e, id, time.Millisecond, credits(1+uint32(id*5)%7))
	}
	full := 0
	for i := 0; r.phase(200) != core.JobCompleted && i < 1000; i++ {
		sum := uint32(0)
		for _, j := range r.dev.rings[e].jobs {
			sum += j.spec.Credits
		}
		if sum == 7 {
			full++
		}
		r.run(time.Millisecond)
	}
	r.want(200, core.JobCompleted)
	if full < 50 {
		t.Errorf("the ring was full %d times only", full)
	}
}

// TestBigJobIsNotOvertaken: one that does not fit holds back smaller ones.
func TestBigJobIsNotOvertaken(t *testing.T) {
	r := newScene(t, Config{Credits: 4})
	e := r.entity(1)
	r.submit(e, 1, 0, credits(2))
	r.submit(e, 2, 0, credits(3))
	r.submit(e, 3, 0, credits(1))
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1}) {
		t.Fatalf("sent %v, want 1 only", got)
	}
	r.advance(e, 1)
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1, 2, 3}) {
		t.Fatalf("sent %v, want 1 2 3", got)
	}
}

// TestCreditsReturnWhenDone: the room is given back with the completion, though
// the outcome still waits for an image.
func TestCreditsReturnWhenDone(t *testing.T) {
	r := newScene(t, Config{Credits: 2})
	e := r.entity(1)
	r.submit(e, 1, 0, credits(2))
	r.submit(e, 2, 0, credits(2))
	r.hold = true
	r.advance(e, 1)
	if got := r.core.entities[e].credits; got != 2 { // those of job 2, sent in the same step
		t.Errorf("%d credits in use", got)
	}
	r.release()
	r.want(2, core.JobDispatched)
	r.submit(e, 3, 0, func(s *core.JobSpec) { s.Flush = true })
	r.dev.flags.holdSave = true
	r.advance(e, 1)
	r.advance(e, 1)
	r.want(3, core.JobFlushing)
	if got := r.core.entities[e].credits; got != 0 {
		t.Errorf("%d credits in use while the image is written", got)
	}
}

// TestCreditsAfterLoss: the ring is empty when an instance ended, and filled
// again in the next epoch.
func TestCreditsAfterLoss(t *testing.T) {
	r := newScene(t, Config{Credits: 2})
	e := r.entity(1)
	for id := core.JobID(1); id <= 4; id++ {
		r.submit(e, id, 0)
	}
	r.restart()
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1, 2, 1, 2}) {
		t.Errorf("sent %v", got)
	}
	if got := r.core.entities[e].credits; got != 2 {
		t.Errorf("%d credits in use, want 2", got)
	}
}

// TestLimitsChangeLive grows and shrinks the ring under load: a job in flight
// keeps what it holds, one that no longer fits runs alone.
func TestLimitsChangeLive(t *testing.T) {
	r := newScene(t, Config{Credits: 4})
	e := r.entity(1)
	r.submit(e, 1, 0, credits(2))
	r.submit(e, 2, 0, credits(4))
	r.submit(e, 3, 0, credits(1))
	r.must(Event{Kind: EventLimits, Credits: 6})
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1, 2}) {
		t.Fatalf("sent %v with room for 6, want 1 2", got)
	}
	r.submit(e, 4, 0, credits(4))
	r.submit(e, 5, 0, credits(1))
	r.must(Event{Kind: EventLimits, Credits: 2})
	r.refused(r.try(e, 9, 0, credits(3)), core.ErrOversize)
	r.advance(e, 1)
	if len(r.sent(e)) != 2 {
		t.Fatalf("sent %v into an overfull ring", r.sent(e))
	}
	r.advance(e, 1)
	r.want(3, core.JobDispatched)
	r.want(4, core.JobQueued)
	r.advance(e, 1)
	r.want(4, core.JobDispatched)
	r.want(5, core.JobQueued)
	r.advance(e, 1)
	r.want(5, core.JobDispatched)
	r.refused(r.step(Event{Kind: EventLimits}), core.ErrInvalid)
}

// TestQueueLimit: thousand unfinished jobs by default, then "full" until one
// has its outcome.
func TestQueueLimit(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	for id := core.JobID(1); id <= DefaultQueueMax; id++ {
		r.submit(e, id, 0)
	}
	r.refused(r.try(e, 2000, 0), core.ErrFull)
	r.advance(e, 1)
	r.submit(e, 2000, 0)
	r.refused(r.try(e, 2001, 0), core.ErrFull)
}

// TestStartIsHeardBeforeTheEnd: listeners hear "dispatched" before any outcome
// of a job that ran, and of each job that did not run its outcome all the same.
func TestStartIsHeardBeforeTheEnd(t *testing.T) {
	r := newScene(t, Config{Credits: 1})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.submit(e, 2, 0)
	r.submit(e, 3, 0)
	r.advance(e, 1)
	r.goal(e, core.GoalClose)
	for id, want := range map[core.JobID][]core.JobPhase{
		1: {core.JobQueued, core.JobDispatched, core.JobCompleted},
		2: {core.JobQueued, core.JobDispatched, core.JobQueued, core.JobKilled},
		3: {core.JobQueued, core.JobKilled},
	} {
		if !slices.Equal(r.phases[id], want) {
			t.Errorf("job %d: heard %v, want %v", id, r.phases[id], want)
		}
	}
}

// TestRunAnswers is what may come back for a run: each answer is explicit.
func TestRunAnswers(t *testing.T) {
	for _, tc := range []struct {
		name  string
		flags mockFlags
		want  core.JobPhase
		cause core.Cause
		text  string
	}{
		{"completed inside run", mockFlags{inside: map[core.JobID]bool{1: true}}, core.JobCompleted, "", ""},
		{"refused", mockFlags{refuse: map[core.JobID]core.Cause{1: core.CauseKernel}}, core.JobFailed, core.CauseKernel, "refused by the mock"},
		{"refused without a cause", mockFlags{refuse: map[core.JobID]core.Cause{1: ""}}, core.JobFailed, core.CauseRefused, "refused by the mock"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{Credits: 1})
			r.dev.flags = tc.flags
			r.dev.reset()
			e := r.entity(1)
			r.submit(e, 1, 0)
			r.wantCause(1, tc.want, tc.cause)
			if r.jobs[1].Error != tc.text || r.core.entities[e].credits != 0 {
				t.Errorf("error %q, %d credits in use", r.jobs[1].Error, r.core.entities[e].credits)
			}
		})
	}
}

// TestErrorIsForwarded: the cause and the sentence of a fault reach the job, the
// entity, later jobs and who depends on them.
func TestErrorIsForwarded(t *testing.T) {
	for _, cause := range []core.Cause{core.CauseTrap, core.CauseHang, core.CauseMemory} {
		r := newScene(t, Config{})
		e, f := r.entity(1), r.entity(2)
		r.submit(e, 1, 0)
		r.submit(e, 2, 0)
		r.submit(f, 3, 0, r.after(2, ""))
		r.fault(e, true, cause)
		r.wantCause(1, core.JobFailed, cause)
		r.wantCause(2, core.JobCancelled, core.CauseEarlier)
		r.wantCause(3, core.JobDependencyFailed, core.CauseDependency)
		s := r.entities[e]
		if r.jobs[1].Error != "fault of the mock" || s.Cause != cause || s.Error == "" || !s.Banned {
			t.Errorf("job: %q, entity: %+v", r.jobs[1].Error, s)
		}
	}
}

// TestOutcomeIsFinal repeats reports after an outcome, from this epoch and the
// one before: nothing changes.
func TestOutcomeIsFinal(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.advance(e, 1)
	before := r.jobs[1]
	for _, kind := range []core.BackendEventKind{core.EventStarted, core.EventCompleted, core.EventCancelled, core.EventRefused, core.EventProgress} {
		for epoch := range core.Epoch(3) {
			r.report(core.BackendEvent{Kind: kind, Entity: e, Epoch: epoch, Job: 1, Command: 2, ExecutedTime: time.Hour, Error: "x"})
		}
	}
	r.must(Event{Kind: EventCancel, Entity: e, Job: 1})
	r.goal(e, core.GoalClose)
	after := r.jobs[1]
	if after.Phase != before.Phase || after.Cause != before.Cause || after.Error != before.Error || after.Finished != before.Finished {
		t.Errorf("outcome %+v became %+v", before, after)
	}
}

// TestCutCoversPrefix: a job's spec is needed until an image holds it and all
// before it; later ones stay for the replay.
func TestCutCoversPrefix(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	for id := core.JobID(1); id <= 3; id++ {
		r.submit(e, id, 10*time.Millisecond)
	}
	r.run(25 * time.Millisecond)
	r.goal(e, core.GoalSuspend)
	if got := r.entities[e].Cut; got != 2 {
		t.Fatalf("cut %d, want 2", got)
	}
	if got := r.jobs[3].Cursor; got != 5 {
		t.Fatalf("cursor %d of job 3, want 5", got)
	}
	r.goal(e, core.GoalRun)
	r.run(10 * time.Millisecond)
	r.want(3, core.JobCompleted)
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1, 2, 3, 3}) {
		t.Errorf("sent %v", got)
	}
}
