package sched

import (
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestOnRecordHasAnOutcome: whatever is wrong with a job that is on record, it is
// not refused: a big one runs alone, one that waits for what it may not wait for
// ends dependency-failed, and the later ones follow their policy.
func TestOnRecordHasAnOutcome(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*core.JobSpec)
		phase  core.JobPhase
		cause  core.Cause
	}{
		{"oversize", credits(9), core.JobCompleted, core.CauseNone},
		{"long-running", depends("", core.Fence{Timeline: 2, Seq: 1}), core.JobDependencyFailed, core.CauseDependency},
		{"of nothing yet", depends("", core.Fence{Timeline: 3, Seq: 4}), core.JobDependencyFailed, core.CauseDependency},
		{"of itself", depends("", core.Fence{Timeline: 1, Seq: 1}), core.JobDependencyFailed, core.CauseDependency},
		{"of no job", depends("", core.Fence{}), core.JobDependencyFailed, core.CauseDependency},
		{"policy", depends("whatever", core.Fence{Timeline: 9, Seq: 1}), core.JobDependencyFailed, core.CauseDependency},
		{"empty", func(s *core.JobSpec) { s.Grid = [3]uint32{} }, core.JobFailed, core.CauseRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newBed(bedConfig, core.EntitySpec{ID: 1, OnFailure: core.OnFailureContinue},
				core.EntitySpec{ID: 2, Mode: core.ModeLongRunning}, core.EntitySpec{ID: 3})
			r.start()
			r.mustSubmit(t, bedJobSpec(2, 1, 3), bedJobSpec(3, 1, 3))
			bad, later := bedJobSpec(1, 1, 3, c.change), bedJobSpec(1, 2, 3)
			for _, s := range []*core.JobSpec{bad, later} {
				r.must(t, Event{Kind: EventSubmit, Spec: s, OnRecord: true})
				r.jobSpecs = append(r.jobSpecs, s)
			}
			r.finish()
			r.check(t, 101, c.phase, c.cause)
			r.check(t, 102, core.JobCompleted, core.CauseNone)
			r.clean(t)
		})
	}
}

// TestFlushOutlivesAnEarlierFile: files that are asked for are due when every job
// has its outcome, although an image with files is written before.
func TestFlushOutlivesAnEarlierFile(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 3, func(s *core.JobSpec) { s.Flush = true }), bedJobSpec(1, 2, 3))
	r.quiet()
	r.must(t, Event{Kind: EventFlush, Entity: 1})
	r.execute(1, 3)
	r.quiet()
	r.tick(bedConfig.MinRun)
	r.quiet()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
	if s := r.entities[1]; !s.Flush || s.Filed != 1 {
		t.Errorf("after the first file: due %t, filed up to %d", s.Flush, s.Filed)
	}
	r.finish()
	r.tick(bedConfig.MinRun)
	r.quiet()
	r.check(t, 102, core.JobCompleted, core.CauseNone)
	if s := r.entities[1]; s.Flush || s.Filed != 2 {
		t.Errorf("at the end: due %t, filed up to %d", s.Flush, s.Filed)
	}
	r.clean(t)
}

// TestGuiltyBetweenJobs: an entity that is guilty while none of its jobs can be
// named is banned when its policy says so: at once, or at the last of its faults.
func TestGuiltyBetweenJobs(t *testing.T) {
	for _, policy := range []core.OnFailure{core.OnFailureStop, core.OnFailureContinue} {
		r := newBed(bedConfig, core.EntitySpec{ID: 1, OnFailure: policy})
		r.start()
		for life := range uint32(bedConfig.FaultsMax) {
			r.mustSubmit(t, bedJobSpec(1, core.JobSeq(life+1), 3))
			r.finish()
			r.report(core.BackendEvent{
				Kind: core.EventEntityLost, Entity: 1, Epoch: r.entities[1].Epoch, Guilty: true, Cause: core.CauseTrap,
			})
			r.quiet()
			s := r.entities[1]
			last := policy == core.OnFailureStop || life+1 == bedConfig.FaultsMax
			if s.Banned != last || s.Faults != life+1 {
				t.Fatalf("%s: banned %t after %d faults", policy, s.Banned, s.Faults)
			}
			if last {
				break
			}
		}
		r.clean(t)
	}
}
