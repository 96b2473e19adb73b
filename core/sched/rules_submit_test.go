package sched

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// sent lists the jobs whose run commands left, in order.
func (r *scene) sent(e core.EntityID) []core.JobID {
	var ids []core.JobID
	for _, c := range r.commands {
		if c.Kind == core.CommandRun && c.Entity == e {
			ids = append(ids, c.Job)
		}
	}
	return ids
}

// count returns how many commands of a kind left for an entity; message is 0
// for kinds that are not messages.
func (r *scene) count(e core.EntityID, kind core.CommandKind, message core.MessageKind) int {
	n := 0
	for _, c := range r.commands {
		if c.Entity == e && c.Kind == kind && c.Message == message {
			n++
		}
	}
	return n
}

// refused fails unless the error is the one wanted.
func (r *scene) refused(err, want error) {
	r.t.Helper()
	if !errors.Is(err, want) {
		r.t.Fatalf("error %v, want %v", err, want)
	}
}

func TestRunsInSubmissionOrder(t *testing.T) {
	r := newScene(t, Config{Credits: 4})
	e := r.entity(1)
	var want []core.JobID
	for id := core.JobID(1); id <= 9; id++ {
		r.submit(e, id, time.Millisecond, credits(1+uint32(id)%3))
		want = append(want, id)
	}
	r.run(time.Second)
	if got := r.sent(e); !slices.Equal(got, want) {
		t.Errorf("sent %v, want %v", got, want)
	}
}

func TestSubmitAnswers(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*scene)
		job     func(*core.JobSpec)
		want    error
	}{
		{"no credits", nil, credits(0), core.ErrInvalid},
		{"larger than the ring", nil, credits(5), core.ErrOversize},
		{"no workgroups", nil, func(s *core.JobSpec) { s.Grid[1] = 0 }, core.ErrInvalid},
		{"sequence used", nil, func(s *core.JobSpec) { s.Seq = 1 }, core.ErrInvalid},
		{"full", func(r *scene) { r.submit(1, 2, 0); r.submit(1, 3, 0) }, nil, core.ErrFull},
		{"closed", func(r *scene) { r.goal(1, core.GoalClose) }, nil, core.ErrClosed},
		{"closing", func(r *scene) { r.dev.flags.holdDestroy = true; r.goal(1, core.GoalClose) }, nil, core.ErrClosed},
		{"banned", func(r *scene) { r.fault(1, true, core.CauseTrap) }, nil, core.ErrClosed},
		{"halted", func(r *scene) { r.must(Event{Kind: EventCancel, Entity: 1, Job: 1}); r.halt(1) }, nil, core.ErrClosed},
		{"unknown entity", nil, func(s *core.JobSpec) { s.Entity = 7 }, core.ErrNotFound},
		{"own later fence", nil, awaits(core.Fence{Timeline: 1, Seq: 9}, ""), core.ErrCycle},
		{"own fence", nil, awaits(core.Fence{Timeline: 1, Seq: 2}, ""), core.ErrCycle},
		{"fence to come", nil, awaits(core.Fence{Timeline: 2, Seq: 9}, ""), core.ErrInvalid},
		{"no fence", nil, awaits(core.Fence{}, ""), core.ErrInvalid},
		{"fence without a number", nil, awaits(core.Fence{Timeline: 2}, ""), core.ErrInvalid},
		{"unknown policy", nil, awaits(core.Fence{Timeline: 1, Seq: 1}, "hope"), core.ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{Credits: 4, QueueMax: 3})
			r.entity(1)
			r.entity(2)
			r.submit(1, 1, 0)
			if tc.prepare != nil {
				tc.prepare(r)
			}
			left := len(r.commands) + len(r.notices) + len(r.effects)
			options := []func(*core.JobSpec){}
			if tc.job != nil {
				options = append(options, tc.job)
			}
			r.refused(r.try(1, 50, 0, options...), tc.want)
			if r.batch.Durable() || left != len(r.commands)+len(r.notices)+len(r.effects) {
				t.Error("a refused submit left a trace")
			}
			if _, known := r.core.Live(1, 50); known || r.phase(50) != "" {
				t.Error("the refused job is known")
			}
		})
	}
}

// halt has a job of the entity fail by its dependency.
func (r *scene) halt(e core.EntityID) {
	s := r.spec(e, 40)
	r.last[e]++
	r.must(Event{Kind: EventSubmit, Spec: s, Unmet: "job x is failed"})
	r.wantCause(40, core.JobDependencyFailed, core.CauseDependency)
}

// TestSubmitIsAtomic has two submitters who both took the next sequence number:
// one is refused, and neither order can differ from the sequence.
func TestSubmitIsAtomic(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	a, b := r.spec(e, 1), r.spec(e, 2)
	c := r.spec(e, 3)
	c.Seq = 2
	r.must(Event{Kind: EventSubmit, Spec: c})
	r.refused(r.step(Event{Kind: EventSubmit, Spec: a}), core.ErrInvalid)
	b.Seq = 3
	r.must(Event{Kind: EventSubmit, Spec: b})
	if got := r.sent(e); !slices.Equal(got, []core.JobID{3, 2}) {
		t.Errorf("sent %v", got)
	}
}

func TestSubmitterKeepsItsSpec(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, time.Millisecond)
	spec := r.spec(e, 2, r.after(1, core.DependencyFail), timeout(time.Second))
	before := *spec
	before.Depends = slices.Clone(spec.Depends)
	r.must(Event{Kind: EventSubmit, Spec: spec})
	r.run(time.Millisecond)
	r.fault(e, true, core.CauseTrap)
	r.want(2, core.JobFailed)
	if !reflect.DeepEqual(&before, spec) {
		t.Errorf("spec changed to %+v", spec)
	}
}

// TestSubmitWakesNobody submits behind a job that waits: nothing leaves, for
// that entity or another.
func TestSubmitWakesNobody(t *testing.T) {
	r := newScene(t, Config{Credits: 1})
	e, f := r.entity(1), r.entity(2)
	r.submit(e, 1, 0)
	r.submit(f, 2, 0)
	r.submit(e, 3, 0)
	before := len(r.commands)
	r.submit(e, 4, 0)
	r.submit(e, 5, 0, r.after(2, core.DependencyFail))
	if len(r.commands) != before {
		t.Errorf("%d commands left", len(r.commands)-before)
	}
}

// TestRecordedJobAlwaysEnds submits jobs that are on record to entities that
// take no more: none is stranded.
func TestRecordedJobAlwaysEnds(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*scene)
		want    core.JobPhase
	}{
		{"closed", func(r *scene) { r.goal(1, core.GoalClose) }, core.JobKilled},
		{"closing", func(r *scene) { r.dev.flags.holdDestroy = true; r.goal(1, core.GoalClose) }, core.JobKilled},
		{"banned", func(r *scene) { r.fault(1, true, core.CauseTrap) }, core.JobCancelled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{})
			r.entity(1)
			r.submit(1, 1, 0)
			tc.prepare(r)
			r.last[1]++
			r.must(Event{Kind: EventSubmit, Spec: r.spec(1, 2), OnRecord: true})
			r.answer()
			r.want(2, tc.want)
		})
	}
}
