package sched

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// must, refuses, submit and the checks are what tests written by hand say.
func (r *bed) must(t *testing.T, ev Event) {
	t.Helper()
	if err := r.step(ev); err != nil {
		t.Fatal(err)
	}
}

func (r *bed) refuses(t *testing.T, want error, ev Event) {
	t.Helper()
	if err := r.step(ev); !errors.Is(err, want) {
		t.Fatalf("event %d: error %v, want %v", ev.Kind, err, want)
	}
}

// bedJobSpec returns a specification of a job with n workgroups; change adjusts it.
func bedJobSpec(entity core.EntityID, seq core.JobSeq, n uint32, change ...func(*core.JobSpec)) *core.JobSpec {
	id := core.JobID(100*uint64(entity) + uint64(seq))
	s := &core.JobSpec{ID: id, Entity: entity, Seq: seq, Name: fmt.Sprintf("j%d", id), Grid: [3]uint32{n, 1, 1}, Credits: 1}
	for _, f := range change {
		f(s)
	}
	return s
}

// submit submits a job, its record durable with the submit.
func (r *bed) submit(s *core.JobSpec) error {
	err := r.step(Event{Kind: EventSubmit, Spec: s})
	if err == nil {
		r.jobSpecs = append(r.jobSpecs, s)
	}
	return err
}

func (r *bed) mustSubmit(t *testing.T, specs ...*core.JobSpec) {
	t.Helper()
	for _, s := range specs {
		if err := r.submit(s); err != nil {
			t.Fatal(err)
		}
	}
}

// check compares the phase and cause of a job on record.
func (r *bed) check(t *testing.T, id core.JobID, phase core.JobPhase, cause core.Cause) {
	t.Helper()
	if s := r.jobs[id]; s.Phase != phase || s.Cause != cause {
		t.Fatalf("job %d is %s (%s: %s), want %s (%s)", id, s.Phase, s.Cause, s.Error, phase, cause)
	}
}

func (r *bed) checkOrder(t *testing.T, entity core.EntityID, want ...core.JobID) {
	t.Helper()
	if !slices.Equal(r.outcomes[entity], want) {
		t.Fatalf("outcomes of entity %d came in the order %v, want %v", entity, r.outcomes[entity], want)
	}
}

func (r *bed) checkResidency(t *testing.T, entity core.EntityID, want core.Residency) {
	t.Helper()
	if got := r.entities[entity].Residency; got != want {
		t.Fatalf("entity %d is %s, want %s", entity, got, want)
	}
}

func (r *bed) clean(t *testing.T) {
	t.Helper()
	for _, p := range r.problems {
		t.Error(p)
	}
}

// heard returns the notices of one kind.
func (r *bed) heard(kind NoticeKind) []Notice {
	var ns []Notice
	for _, n := range r.notices {
		if n.Kind == kind {
			ns = append(ns, n)
		}
	}
	return ns
}
