package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// What events mean at moments that the other tests pass by. Each test begins
// with a Core rebuilt from one record, and looks at single batches.

// moment is a Core with entity 1.
type moment struct {
	t    *testing.T
	core *Core
	out  Batch
	now  core.Instant
}

// newMoment rebuilds a Core from the record of an entity in its first epoch with
// jobs of nine workgroups; change adjusts the record. The batch of the
// restore is in out.
func newMoment(t *testing.T, config Config, jobs int, change func(*core.EntityRecord)) *moment {
	t.Helper()
	m := &moment{t: t, core: New(config), now: 10}
	rec := core.EntityRecord{
		Spec: core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeLongRunning},
		State: core.EntityState{ID: 1, Goal: core.GoalRun, Residency: core.Resident, Epoch: 1, Generation: 1,
			Commands: 1},
	}
	for i := range jobs {
		spec := bedJobSpec(1, core.JobSeq(i+1), 9)
		rec.Jobs = append(rec.Jobs, core.JobRecord{Spec: spec, State: core.JobState{ID: spec.ID, Entity: 1, Phase: core.JobQueued}})
	}
	if change != nil {
		change(&rec)
	}
	m.step(Event{Kind: EventRestore, Record: &rec})
	return m
}

// inRing puts the job into the ring by the command after the last one.
func inRing(rec *core.EntityRecord, i int) {
	rec.State.Commands++
	rec.Jobs[i].State.Phase, rec.Jobs[i].State.Run, rec.Jobs[i].State.Epoch = core.JobDispatched, rec.State.Commands, 1
}

func (m *moment) step(ev Event) *Batch {
	m.t.Helper()
	ev.Now = m.now
	if err := m.core.Step(&ev, &m.out); err != nil {
		m.t.Fatal(err)
	}
	if err := m.core.Check(); err != nil {
		m.t.Fatal(err)
	}
	return &m.out
}

func (m *moment) report(ev core.BackendEvent) *Batch {
	m.t.Helper()
	if ev.Entity == 0 {
		ev.Entity = 1
	}
	if ev.Epoch == 0 {
		ev.Epoch = m.core.entities[1].state.Epoch
	}
	return m.step(Event{Kind: EventBackend, Backend: &ev})
}

// up opens a session with an instance that took all commands up to applied.
func (m *moment) up(applied core.CommandSeq) *Batch {
	m.t.Helper()
	return m.step(Event{Kind: EventUp, Held: []Held{{Entity: 1, Epoch: 1, Applied: applied}}})
}

func (m *moment) nothingSent(when string) {
	m.t.Helper()
	if len(m.out.Commands)+len(m.out.Effects) != 0 {
		m.t.Errorf("%s: commands %+v, effects %+v", when, m.out.Commands, m.out.Effects)
	}
}

// sent returns the kinds of the commands of the last batch.
func (m *moment) sent() (kinds []core.CommandKind) {
	for _, c := range m.out.Commands {
		kinds = append(kinds, c.Kind)
	}
	return kinds
}

// TestNothingIsSentBeforeTheSession: what is under way is settled first.
func TestNothingIsSentBeforeTheSession(t *testing.T) {
	for _, residency := range []core.Residency{core.Resident, core.Suspended} {
		m := newMoment(t, Config{}, 2, func(rec *core.EntityRecord) {
			rec.State.Residency = residency
			inRing(rec, 0)
		})
		m.nothingSent("restore")
		m.step(Event{Kind: EventMessage, Entity: 1, MessageID: 1, Message: core.MessageBackend})
		m.nothingSent("message")
		m.step(Event{Kind: EventStop, Entity: 1})
		m.nothingSent("stop")
		m.step(Event{Kind: EventStart, Entity: 1})
		m.nothingSent("start")
		m.step(Event{Kind: EventGoal, Entity: 1, Goal: core.GoalClose})
		m.nothingSent("close")
		if m.up(2); len(m.out.Commands) == 0 {
			t.Errorf("%s: nothing is sent when the session opens", residency)
		}
	}
}

// TestClosedWhileResuming: no job is sent between the end of the resume and the destroy.
func TestClosedWhileResuming(t *testing.T) {
	m := newMoment(t, Config{}, 2, func(rec *core.EntityRecord) {
		rec.State.Residency, rec.State.Commands, rec.State.Pending = core.Resuming, 2, 2
	})
	m.up(2)
	m.step(Event{Kind: EventGoal, Entity: 1, Goal: core.GoalClose})
	m.report(core.BackendEvent{Kind: core.EventMessageDone, Seq: 1, Command: 2})
	if kinds := m.sent(); len(kinds) != 1 || kinds[0] != core.CommandDestroy {
		t.Errorf("sent %v, want the destroy alone", kinds)
	}
}

// TestStopWhileLeaving: nothing follows a destroy, not even the barrier of a stop.
func TestStopWhileLeaving(t *testing.T) {
	m := newMoment(t, Config{}, 1, func(rec *core.EntityRecord) { inRing(rec, 0) })
	m.up(2)
	m.step(Event{Kind: EventGoal, Entity: 1, Goal: core.GoalClose})
	m.step(Event{Kind: EventStop, Entity: 1})
	m.nothingSent("stop")
}

// TestPropertiesWhileLeaving: a change that waited for the one before does not
// follow the destroy.
func TestPropertiesWhileLeaving(t *testing.T) {
	m := newMoment(t, Config{}, 1, func(rec *core.EntityRecord) { inRing(rec, 0) })
	m.up(2)
	m.step(Event{Kind: EventProperties, Entity: 1, Properties: core.Properties{Priority: core.PriorityHigh}})
	first := m.out.Commands[0].Seq
	m.step(Event{Kind: EventProperties, Entity: 1, Properties: core.Properties{Priority: core.PriorityLow}})
	m.step(Event{Kind: EventGoal, Entity: 1, Goal: core.GoalClose})
	m.report(core.BackendEvent{Kind: core.EventMessageDone, Seq: 1, Command: first})
	m.nothingSent("answer to the first change")
}

// TestRestoredCloseEndsAtOnce: an entity that was to be closed and is on no
// instance needs no session for it.
func TestRestoredCloseEndsAtOnce(t *testing.T) {
	m := newMoment(t, Config{}, 2, func(rec *core.EntityRecord) {
		rec.State.Goal, rec.State.Residency = core.GoalClose, core.Away
	})
	if len(m.out.Jobs) != 2 || m.out.Jobs[0].Phase != core.JobKilled || len(m.out.Entities) != 1 || !m.out.Entities[0].Closed {
		t.Errorf("jobs %+v, entities %+v", m.out.Jobs, m.out.Entities)
	}
}

// TestInstanceThatLostAnEntity: an instance that does not hold what it held makes
// a victim, which is created anew.
func TestInstanceThatLostAnEntity(t *testing.T) {
	m := newMoment(t, Config{}, 1, func(rec *core.EntityRecord) { inRing(rec, 0) })
	m.step(Event{Kind: EventUp})
	if kinds := m.sent(); len(kinds) != 1 || kinds[0] != core.CommandCreate || m.out.Commands[0].Epoch != 2 {
		t.Errorf("sent %+v, want a create in epoch 2", m.out.Commands)
	}
}

// TestStartIsOfOneEpoch: who executed in an epoch that is over is not to blame
// for a late preemption, and may be missing in an image, before it starts anew.
func TestStartIsOfOneEpoch(t *testing.T) {
	begin := func(t *testing.T) *moment {
		m := newMoment(t, Config{Preempt: time.Second, MinRun: -1}, 1, func(rec *core.EntityRecord) { inRing(rec, 0) })
		m.up(2)
		m.report(core.BackendEvent{Kind: core.EventStarted, Seq: 1, Job: 101})
		m.step(Event{Kind: EventGone})
		m.step(Event{Kind: EventUp})
		m.report(core.BackendEvent{Kind: core.EventApplied, Seq: 2, Command: m.out.Commands[0].Seq})
		m.step(Event{Kind: EventGoal, Entity: 1, Goal: core.GoalSuspend})
		return m
	}
	t.Run("blame", func(t *testing.T) {
		m := begin(t)
		m.now = m.now.Add(2 * time.Second)
		m.step(Event{Kind: EventTick})
		if len(m.out.Effects) != 1 || m.out.Effects[0].Kind != EffectRestart {
			t.Fatalf("effects %+v, want a restart", m.out.Effects)
		}
		for _, j := range m.out.Jobs {
			if j.Stopping != "" {
				t.Errorf("job %d is blamed: %s", j.ID, j.Stopping)
			}
		}
	})
	t.Run("image", func(t *testing.T) {
		m := begin(t)
		m.report(core.BackendEvent{Kind: core.EventMessageDone, Seq: 3, Command: m.core.entities[1].state.Pending})
		if len(m.out.Effects) != 1 || m.out.Effects[0].Kind != EffectSave {
			t.Fatalf("effects %+v, want a save", m.out.Effects)
		}
		f := m.out.Effects[0]
		m.step(Event{Kind: EventSaved, Entity: 1, Epoch: f.Epoch, Generation: f.Generation})
		if got := m.core.entities[1].state.Generation; got != f.Generation {
			t.Errorf("generation %d, want %d: the image was not taken", got, f.Generation)
		}
	})
}

// TestBarrierIsOfOneEpoch: a job with a file due that ends while its entity is
// away is no barrier any more.
func TestBarrierIsOfOneEpoch(t *testing.T) {
	m := newMoment(t, Config{}, 2, func(rec *core.EntityRecord) {
		rec.Spec.OnFailure = core.OnFailureContinue
		rec.Jobs[0].Spec.Flush = true
		inRing(rec, 0)
	})
	m.up(2)
	m.step(Event{Kind: EventGone})
	m.step(Event{Kind: EventCancel, Entity: 1, Job: 101})
	m.step(Event{Kind: EventUp})
	m.report(core.BackendEvent{Kind: core.EventApplied, Seq: 1, Command: m.out.Commands[0].Seq})
	if kinds := m.sent(); len(kinds) != 1 || kinds[0] != core.CommandRun || m.out.Commands[0].Job != 102 {
		t.Errorf("sent %+v, want job 102", m.out.Commands)
	}
}

// TestAnswersToNothing: a plugin that answers a command that was never sent has no effect.
func TestAnswersToNothing(t *testing.T) {
	m := newMoment(t, Config{}, 1, func(rec *core.EntityRecord) { inRing(rec, 0) })
	m.up(2)
	for kind := core.EventApplied; kind <= core.EventProgress; kind++ {
		if kind == core.EventDeviceHealth || kind == core.EventEntityLost {
			continue // they answer nothing
		}
		for _, command := range []core.CommandSeq{0, 1, 99} {
			m.report(core.BackendEvent{Kind: kind, Seq: 1, Command: command})
			m.nothingSent("report")
			if e := m.core.entities[1]; e.state.Residency != core.Resident || e.jobs[0].state.Phase != core.JobDispatched {
				t.Errorf("report kind %d, command %d: entity %s, job %s", kind, command, e.state.Residency, e.jobs[0].state.Phase)
			}
		}
	}
}
