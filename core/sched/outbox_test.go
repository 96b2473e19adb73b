package sched

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// sinkLog writes down what leaves, in order.
type sinkLog []string

func (s *sinkLog) Command(c *core.Command) { *s = append(*s, fmt.Sprintf("command %d", c.Seq)) }
func (s *sinkLog) Effect(f *Effect)        { *s = append(*s, fmt.Sprintf("effect %d", f.Generation)) }
func (s *sinkLog) Notice(n *Notice)        { *s = append(*s, fmt.Sprintf("notice %d", n.Job)) }
func (s *sinkLog) Ack(seq core.EventSeq)   { *s = append(*s, fmt.Sprintf("ack %d", seq)) }

func batchOf(seq uint64, durable bool) *Batch {
	b := &Batch{
		Seq: seq, Ack: core.EventSeq(seq),
		Commands: []core.Command{{Seq: core.CommandSeq(seq)}},
		Effects:  []Effect{{Generation: core.Generation(seq)}},
		Notices:  []Notice{{Job: core.JobID(seq)}},
	}
	if durable {
		b.Jobs = []core.JobState{{ID: 1}}
	}
	return b
}

func (s *sinkLog) want(t *testing.T, o *Outbox, want ...string) {
	t.Helper()
	*s = nil
	o.Release(s)
	if !slices.Equal([]string(*s), want) {
		t.Errorf("released %v, want %v", []string(*s), want)
	}
}

// TestOutboxPersistThenAct: nothing leaves before its batch and all before it
// are committed, and everything leaves once.
func TestOutboxPersistThenAct(t *testing.T) {
	var o Outbox
	var out sinkLog
	o.Add(batchOf(1, false))
	out.want(t, &o, "command 1", "effect 1", "notice 1", "ack 1")
	o.Add(batchOf(2, true))
	o.Add(batchOf(3, false))
	o.Add(batchOf(4, true))
	out.want(t, &o)
	if o.Waiting() != 12 {
		t.Errorf("%d wait, want 12", o.Waiting())
	}
	o.Committed(2)
	out.want(t, &o, "command 2", "command 3", "effect 2", "effect 3", "notice 2", "notice 3", "ack 2", "ack 3")
	out.want(t, &o)
	o.Committed(4)
	out.want(t, &o, "command 4", "effect 4", "notice 4", "ack 4")
	if o.Waiting() != 0 {
		t.Errorf("%d wait after all has left", o.Waiting())
	}
}

// TestOutboxOneCommitForMany: a merged write commits all batches up to its last.
func TestOutboxOneCommitForMany(t *testing.T) {
	var o Outbox
	var out sinkLog
	for seq := range uint64(5) {
		o.Add(batchOf(seq+1, true))
	}
	o.Committed(3)
	out = nil
	o.Release(&out)
	if len(out) != 12 || out[2] != "command 3" {
		t.Errorf("released %v", out)
	}
	o.Committed(3) // a repeat does nothing
	out.want(t, &o)
}

// TestOutboxNewSession: commands and acknowledgements meant for the session
// before do not leave, effects and notices do.
func TestOutboxNewSession(t *testing.T) {
	var o Outbox
	var out sinkLog
	o.Add(batchOf(1, true))
	next := batchOf(2, true)
	next.NewSession = true
	o.Add(next)
	out.want(t, &o)
	o.Committed(2)
	out.want(t, &o, "command 2", "effect 1", "effect 2", "notice 1", "notice 2", "ack 2")
}

// TestVisible goes through the states that users see.
func TestVisible(t *testing.T) {
	run := core.EntityState{Goal: core.GoalRun, Residency: core.Resident}
	away := core.EntityState{Goal: core.GoalRun, Residency: core.Away}
	creating := core.EntityState{Goal: core.GoalRun, Residency: core.Creating}
	checkpoint := core.EntityState{Goal: core.GoalRun, Residency: core.Saving}
	leaving := core.EntityState{Goal: core.GoalSuspend, Residency: core.Saving}
	suspended := core.EntityState{Goal: core.GoalSuspend, Residency: core.Away}
	job := func(p core.JobPhase, cursor uint64) core.JobState { return core.JobState{Phase: p, Cursor: cursor} }
	for _, c := range []struct {
		name   string
		entity core.EntityState
		job    core.JobState
		front  bool
		want   string
	}{
		{"outcome", suspended, job(core.JobCompleted, 0), false, "completed"},
		{"held", run, job(core.JobHeld, 0), true, VisibleBlocked},
		{"not begun", away, job(core.JobQueued, 0), true, VisibleQueued},
		{"not begun, suspended", suspended, job(core.JobQueued, 0), true, VisibleQueued},
		{"behind another", run, job(core.JobDispatched, 0), false, VisibleQueued},
		{"on the device", run, job(core.JobDispatched, 0), true, VisibleRunning},
		{"file awaited", checkpoint, job(core.JobFlushing, 0), true, VisibleRunning},
		{"checkpoint", checkpoint, job(core.JobDispatched, 3), true, VisibleRunning},
		{"suspending", leaving, job(core.JobDispatched, 3), true, VisibleSuspending},
		{"suspended", suspended, job(core.JobQueued, 3), true, VisibleSuspended},
		{"suspended before its first image", suspended, core.JobState{Phase: core.JobQueued, Started: 1}, true, VisibleSuspended},
		{"coming back", creating, job(core.JobQueued, 3), true, VisibleResuming},
		{"to come back", away, job(core.JobQueued, 3), true, VisibleResuming},
	} {
		if got := Visible(&c.entity, &c.job, c.front); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestSentinels requires that every refusal can be told by errors.Is, and that
// a refused event changes nothing on record.
func TestSentinels(t *testing.T) {
	w := newWorld(1)
	w.core = New(Config{Credits: 2, QueueMax: 1})
	entity := func(id core.EntityID, mode core.Mode) Event {
		return Event{Kind: EventRestore, Record: &core.EntityRecord{
			Spec:  core.EntitySpec{ID: id, Name: fmt.Sprintf("e%d", id), Mode: mode},
			State: core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1},
		}}
	}
	job := func(entity core.EntityID, seq core.JobSeq, credits uint32, fences ...core.Fence) Event {
		var depends []core.Dependency
		for _, f := range fences {
			depends = append(depends, core.Dependency{Fence: f})
		}
		return Event{Kind: EventSubmit, Spec: &core.JobSpec{
			ID: core.JobID(100*uint64(entity) + uint64(seq)), Entity: entity, Seq: seq, Grid: [3]uint32{1, 1, 1}, Credits: credits, Depends: depends}}
	}
	must := func(ev Event) {
		t.Helper()
		if ev.Spec != nil {
			w.jobSpecs[ev.Spec.ID] = ev.Spec
		}
		if err := w.step(ev); err != nil {
			t.Fatal(err)
		}
	}
	must(entity(1, core.ModeCompute))
	must(entity(2, core.ModeLongRunning))
	must(entity(3, core.ModeCompute))
	must(Event{Kind: EventGoal, Entity: 3, Goal: core.GoalClose})
	must(job(2, 1, 1))
	for _, c := range []struct {
		name string
		ev   Event
		want error
	}{
		{"closed", job(3, 1, 1), core.ErrClosed},
		{"reopen", Event{Kind: EventGoal, Entity: 3, Goal: core.GoalRun}, core.ErrClosed},
		{"full", job(2, 2, 1), core.ErrFull},
		{"oversize", job(1, 1, 3), core.ErrOversize},
		{"no credits", job(1, 1, 0), core.ErrInvalid},
		{"no such entity", job(9, 1, 1), core.ErrNotFound},
		{"no such job", Event{Kind: EventCancel, Entity: 1, Job: 9}, core.ErrNotFound},
		{"no job", Event{Kind: EventSubmit}, core.ErrInvalid},
		{"no record", Event{Kind: EventRestore}, core.ErrInvalid},
		{"twice", entity(1, core.ModeCompute), core.ErrExists},
		{"own later fence", job(1, 1, 1, core.Fence{Timeline: 1, Seq: 1}), core.ErrCycle},
		{"later fence", job(1, 1, 1, core.Fence{Timeline: 3, Seq: 4}), core.ErrInvalid},
		{"long-running fence", job(1, 1, 1, core.Fence{Timeline: 2, Seq: 1}), core.ErrLongRunningFence},
		{"goal", Event{Kind: EventGoal, Entity: 1, Goal: "fly"}, core.ErrInvalid},
		{"kind", Event{Kind: 99}, core.ErrInvalid},
	} {
		err := w.step(c.ev)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if w.batch.Durable() || len(w.batch.Commands) > 0 {
			t.Errorf("%s: a refused event changed something: %+v", c.name, w.batch)
		}
	}
	must(Event{Kind: EventUp})
	must(job(1, 1, 1))
	if err := w.step(Event{Kind: EventForget, Entity: 1}); !errors.Is(err, core.ErrBusy) {
		t.Errorf("forget an entity that is being created: %v, want %v", err, core.ErrBusy)
	}
}
