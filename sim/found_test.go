package sim

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// What the simulation found, as scripts of a few steps each.

// recovered is a Core rebuilt from the record of one entity with one job in the
// ring by command 2, whose start is on record.
func recovered(t *testing.T, residency core.Residency, pending core.CommandSeq) (*sched.Core, func(sched.Event) *sched.Batch) {
	t.Helper()
	c := sched.New(sched.Config{Silence: time.Second})
	var out sched.Batch
	step := func(ev sched.Event) *sched.Batch {
		if ev.Now == 0 {
			ev.Now = 10
		}
		if err := c.Step(&ev, &out); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	spec := &core.JobSpec{ID: 1, Entity: 1, Seq: 1, Name: "j", Grid: [3]uint32{9, 1, 1}, Credits: 1}
	goal := core.GoalRun
	if residency == core.Leaving {
		goal = core.GoalClose
	}
	step(sched.Event{Kind: sched.EventRestore, Record: &core.EntityRecord{
		Spec: core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeLongRunning},
		State: core.EntityState{ID: 1, Goal: goal, Residency: residency, Epoch: 1, Generation: 1,
			Commands: max(1, pending), Pending: pending},
		Jobs: []core.JobRecord{{Spec: spec, State: core.JobState{
			ID: 1, Entity: 1, Phase: core.JobDispatched, Run: 2, Epoch: 1, Started: 5,
		}}},
	}})
	return c, step
}

// cancelledReport says how much of the job was executed, as an entity that is destroyed reports it.
func cancelledReport(kind core.BackendEventKind) sched.Event {
	return sched.Event{Kind: sched.EventBackend, Backend: &core.BackendEvent{
		Kind: kind, Seq: 7, Entity: 1, Epoch: 1, Job: 1, Executed: 4,
	}}
}

// TestLeavingKeepsReportsUnderWay: the instance ended the entity already, and
// its reports come after the session opened; what was executed counts.
func TestLeavingKeepsReportsUnderWay(t *testing.T) {
	_, step := recovered(t, core.Leaving, 3)
	if out := step(sched.Event{Kind: sched.EventUp}); len(out.Commands) != 1 || out.Commands[0].Kind != core.CommandDestroy {
		t.Fatalf("commands %+v, want the destroy again", out.Commands)
	}
	step(cancelledReport(core.EventCancelled))
	out := step(sched.Event{Kind: sched.EventBackend, Backend: &core.BackendEvent{
		Kind: core.EventDestroyed, Seq: 8, Entity: 1, Epoch: 1, Command: 3,
	}})
	if len(out.Jobs) != 1 || out.Jobs[0].Executed != 4 {
		t.Errorf("jobs %+v, want 4 workgroups executed", out.Jobs)
	}
}

// TestLeavingRecordsUsage: a report that is acknowledged does not come again, so
// what it counts is on record before.
func TestLeavingRecordsUsage(t *testing.T) {
	for _, kind := range []core.BackendEventKind{core.EventCancelled, core.EventEntityLost} {
		_, step := recovered(t, core.Leaving, 3)
		step(sched.Event{Kind: sched.EventUp, Held: []sched.Held{{Entity: 1, Epoch: 1, Applied: 3}}})
		if out := step(cancelledReport(kind)); out.Ack != 7 || len(out.Jobs) != 1 || out.Jobs[0].InEpoch != 4 {
			t.Errorf("report kind %d: jobs %+v, want 4 workgroups on record", kind, out.Jobs)
		}
	}
}

// TestHangIsFoundAfterRestart: the start of the job is not reported again, its
// silence is a fault all the same.
func TestHangIsFoundAfterRestart(t *testing.T) {
	c, step := recovered(t, core.Resident, 0)
	step(sched.Event{Kind: sched.EventUp, Held: []sched.Held{{Entity: 1, Epoch: 1, Applied: 2}}})
	for range 4 {
		at := c.Next()
		if at == 0 {
			break
		}
		for _, f := range step(sched.Event{Kind: sched.EventTick, Now: at}).Effects {
			if f.Kind == sched.EffectRestart {
				return
			}
		}
	}
	t.Error("a job hangs after a restart and nobody finds out")
}

// TestRecoveredNumberIsNotReused: the number of a run is on record with its job only.
func TestRecoveredNumberIsNotReused(t *testing.T) {
	_, step := recovered(t, core.Resident, 0)
	step(sched.Event{Kind: sched.EventGone})
	out := step(sched.Event{Kind: sched.EventUp})
	if len(out.Commands) != 1 || out.Commands[0].Seq <= 2 {
		t.Errorf("commands %+v, want a create with a number above 2", out.Commands)
	}
}

// TestTurnOfAWholeJob: a job whose workgroups are all in the image has its turn
// without a run; a restart before its file is on disk must not give it another.
func TestTurnOfAWholeJob(t *testing.T) {
	spec := &core.JobSpec{ID: 1, Entity: 1, Seq: 1, Name: "j", Grid: [3]uint32{9, 1, 1}, Credits: 1, Flush: true}
	record := core.EntityRecord{
		Spec:  core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeLongRunning},
		State: core.EntityState{ID: 1, Goal: core.GoalRun, Residency: core.Away, Epoch: 1, Generation: 1, Commands: 2},
		Jobs: []core.JobRecord{{Spec: spec, State: core.JobState{
			ID: 1, Entity: 1, Phase: core.JobQueued, Epoch: 1, Cursor: 9, Started: 5,
		}}},
	}
	var out sched.Batch
	live := func(c *sched.Core, ev sched.Event) {
		t.Helper()
		ev.Now = 10
		if err := c.Step(&ev, &out); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		for _, s := range out.Entities {
			record.State = s
		}
		for _, s := range out.Jobs {
			record.Jobs[0].State = s
		}
	}
	c := sched.New(sched.Config{})
	live(c, sched.Event{Kind: sched.EventRestore, Record: &record})
	live(c, sched.Event{Kind: sched.EventUp})
	live(c, sched.Event{Kind: sched.EventBackend, Backend: &core.BackendEvent{
		Kind: core.EventApplied, Seq: 1, Entity: 1, Epoch: 2, Command: record.State.Pending,
	}})
	if p := record.Jobs[0].State.Phase; p != core.JobFlushing {
		t.Fatalf("the job is %s, want flushing", p)
	}
	// The daemon dies before the suspend message is on record.
	record.State.Residency, record.State.Pending = core.Resident, 0
	c = sched.New(sched.Config{})
	live(c, sched.Event{Kind: sched.EventRestore, Record: &record})
	live(c, sched.Event{Kind: sched.EventUp, Held: []sched.Held{{Entity: 1, Epoch: 2, Applied: record.State.Commands}}})
	if p := record.Jobs[0].State.Phase; p != core.JobFlushing {
		t.Errorf("the job is %s after the restart, want flushing", p)
	}
}
