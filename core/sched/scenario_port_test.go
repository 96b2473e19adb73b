package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// phase is what listeners last heard of a job.
func (r *scene) phase(id core.JobID) core.JobPhase {
	if past := r.phases[id]; len(past) > 0 {
		return past[len(past)-1]
	}
	return ""
}

// want fails unless the job is in the phase.
func (r *scene) want(id core.JobID, phase core.JobPhase) {
	r.t.Helper()
	if got := r.phase(id); got != phase {
		r.t.Fatalf("job %d is %q, want %q (record: %+v)", id, got, phase, r.jobs[id])
	}
}

// wantCause is want with the cause of the outcome.
func (r *scene) wantCause(id core.JobID, phase core.JobPhase, cause core.Cause) {
	r.t.Helper()
	r.want(id, phase)
	if got := r.jobs[id].Cause; got != cause {
		r.t.Fatalf("job %d is %s because of %q, want %q", id, phase, got, cause)
	}
}

// scheduled reports whether listeners heard that the job was sent.
func (r *scene) scheduled(id core.JobID) bool {
	for _, p := range r.phases[id] {
		if p == core.JobDispatched {
			return true
		}
	}
	return false
}

// TestScenarioSubmit is number 1: a manual job runs until it is advanced.
func TestScenarioSubmit(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.run(500 * time.Millisecond)
	if !r.scheduled(1) {
		t.Fatal("not scheduled within a second")
	}
	r.want(1, core.JobDispatched)
	if n := r.advance(e, 1); n != 1 {
		t.Fatalf("advanced %d jobs, want 1", n)
	}
	r.want(1, core.JobCompleted)
}

// TestScenarioQueues is numbers 2 to 5 and 10: hundred jobs of a millisecond in
// one or four entities, independent or each after the one before. Rings execute
// side by side here, so that four independent entities take a quarter of the
// time, and a chain exactly its sum.
func TestScenarioQueues(t *testing.T) {
	priorities := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh, core.PriorityNormal}
	for _, tc := range []struct {
		name       string
		entities   int
		chain      bool
		priorities bool
		want       time.Duration
	}{
		{"a queue of jobs in a single entity", 1, false, false, 100 * time.Millisecond},
		{"a chain of dependent jobs", 1, true, false, 100 * time.Millisecond},
		{"several independent entities", 4, false, false, 25 * time.Millisecond},
		{"several entities that depend on each other", 4, true, false, 100 * time.Millisecond},
		{"an entity of each priority", 4, false, true, 25 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{})
			for i := range tc.entities {
				r.entity(core.EntityID(i+1), func(s *core.EntitySpec) {
					if tc.priorities {
						s.Properties.Priority = priorities[i]
					}
				})
			}
			begin := r.now
			for i := range 100 {
				id := core.JobID(i + 1)
				var options []func(*core.JobSpec)
				if tc.chain && i > 0 {
					options = append(options, r.after(id-1, core.DependencyFail))
				}
				r.submit(core.EntityID(i%tc.entities+1), id, time.Millisecond, options...)
			}
			r.run(time.Second)
			last := core.Instant(0)
			for i := range 100 {
				r.want(core.JobID(i+1), core.JobCompleted)
				last = max(last, r.jobs[core.JobID(i+1)].Finished)
			}
			if got := last.Sub(begin); got != tc.want {
				t.Errorf("the last job ended after %s, want %s", got, tc.want)
			}
		})
	}
}

// TestScenarioTimeout is number 7: a job that is never advanced is alive at half
// of its timeout and timed-out after one and a half.
func TestScenarioTimeout(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0, timeout(200*time.Millisecond))
	r.run(100 * time.Millisecond)
	r.want(1, core.JobDispatched)
	r.run(200 * time.Millisecond)
	r.wantCause(1, core.JobTimedOut, core.CauseTimeout)
	if n := r.advance(e, 1); n != 0 {
		t.Errorf("%d jobs were left in the ring", n)
	}
}

// TestScenarioNoHang is the verdict NO_HANG: a job that still makes progress is
// kept past its timeout, and ends as usual afterwards.
func TestScenarioNoHang(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0, timeout(200*time.Millisecond))
	r.run(100 * time.Millisecond)
	r.must(Event{Kind: EventExtend, Entity: e, Job: 1, By: 400 * time.Millisecond})
	r.run(400 * time.Millisecond)
	r.want(1, core.JobDispatched)
	if n := r.advance(e, 1); n != 1 {
		t.Fatalf("advanced %d jobs, want 1", n)
	}
	r.want(1, core.JobCompleted)
	if s := r.jobs[1]; s.Extensions != 1 || s.Extended != 400*time.Millisecond {
		t.Errorf("on record: %d extensions, %s", s.Extensions, s.Extended)
	}
}

// TestScenarioCancel is number 9: the end of an entity ends its job on the
// device, once.
func TestScenarioCancel(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.run(time.Millisecond)
	r.goal(e, core.GoalClose)
	r.wantCause(1, core.JobKilled, core.CauseUser)
	r.must(Event{Kind: EventForget, Entity: e})
	if len(r.dev.rings) != 0 || r.core.Next() != 0 {
		t.Errorf("left: %d rings, timer %d", len(r.dev.rings), r.core.Next())
	}
}

// TestScenarioChangePriority is number 11: priorities change all the time while
// thousand jobs run; nothing is lost.
func TestScenarioChangePriority(t *testing.T) {
	r := newScene(t, Config{})
	levels := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
	for i := range 4 {
		r.entity(core.EntityID(i + 1))
	}
	for i := range 1000 {
		r.submit(core.EntityID(i%4+1), core.JobID(i+1), time.Millisecond)
	}
	for i := 0; r.phase(1000) != core.JobCompleted; i++ {
		if i > 4000 {
			t.Fatal("the last job does not end")
		}
		p := core.Properties{Priority: levels[(i/4+i%4)%3]}
		r.must(Event{Kind: EventProperties, Entity: core.EntityID(i%4 + 1), Properties: p})
		r.run(time.Duration(200+i%4*100) * time.Microsecond)
	}
	for i := range 1000 {
		r.want(core.JobID(i+1), core.JobCompleted)
	}
}

// TestScenarioCredits is number 13: with a ring of one credit the second job is
// sent when the first has ended.
func TestScenarioCredits(t *testing.T) {
	r := newScene(t, Config{Credits: 1})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.submit(e, 2, 0)
	r.run(time.Second)
	if !r.scheduled(1) || r.scheduled(2) {
		t.Fatalf("scheduled: %v %v, want true false", r.scheduled(1), r.scheduled(2))
	}
	if n := r.advance(e, 1); n != 1 || !r.scheduled(2) {
		t.Fatalf("advanced %d, second scheduled %v", n, r.scheduled(2))
	}
	if n := r.advance(e, 1); n != 1 {
		t.Fatalf("advanced %d", n)
	}
	r.want(2, core.JobCompleted)
}

// TestScenarioQueueOverhead is number 14: thousand jobs behind a blocker through
// a ring of one credit take their own time and nothing else.
func TestScenarioQueueOverhead(t *testing.T) {
	r := newScene(t, Config{Credits: 1, QueueMax: 2000})
	e := r.entity(1)
	r.submit(e, 1, 0)
	for i := range 1000 {
		r.submit(e, core.JobID(i+2), time.Millisecond)
	}
	r.run(10 * time.Millisecond)
	begin := r.now
	r.advance(e, 1)
	r.run(5 * time.Second)
	r.want(1001, core.JobCompleted)
	if got := r.jobs[1001].Finished.Sub(begin); got != time.Second {
		t.Errorf("took %s, ideal 1s", got)
	}
}
