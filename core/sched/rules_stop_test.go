package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// told counts the notices of a kind about an entity or waiter.
func (r *scene) told(kind NoticeKind, e core.EntityID, waiter uint64) int {
	n := 0
	for _, x := range r.notices {
		if x.Kind == kind && x.Entity == e && x.Waiter == waiter {
			n++
		}
	}
	return n
}

func (r *scene) start(e core.EntityID) {
	r.t.Helper()
	r.stopped[e] = false
	r.must(Event{Kind: EventStart, Entity: e})
}

// TestStopIsABarrier: it ends when the last command was carried out, and nothing
// follows, whatever happens, until the start, which goes on with everything. The
// mock fails the test when a command leaves while it holds.
func TestStopIsABarrier(t *testing.T) {
	r := newScene(t, Config{Credits: 2})
	e, f := r.entity(1), r.entity(2)
	r.submit(f, 20, 0)
	r.submit(e, 1, 0)
	r.dev.flags.holdBarrier = true
	r.must(Event{Kind: EventStop, Entity: e})
	r.must(Event{Kind: EventStop, Entity: e}) // a repeat is the same stop
	r.submit(e, 2, 0)
	if r.told(Stopped, e, 0) != 0 || r.scheduled(2) {
		t.Fatal("stopped before the answer, or sent after the stop")
	}
	r.answer()
	if n := r.told(Stopped, e, 0); n != 1 {
		t.Fatalf("told %d times", n)
	}
	r.submit(e, 3, 0, r.after(20, ""))
	r.must(Event{Kind: EventProperties, Entity: e})
	r.mustMessage(e, 1, BarrierNone)
	r.must(Event{Kind: EventCancel, Entity: e, Job: 2})
	r.must(Event{Kind: EventPreempt, Waiter: 1, Entities: []core.EntityID{e}})
	r.must(Event{Kind: EventRelease, Waiter: 1})
	r.advance(f, 1)
	r.advance(e, 1)
	r.want(1, core.JobCompleted) // reports are taken
	r.run(time.Hour)
	r.start(e)
	r.want(2, core.JobCancelled)
	r.wantReplies(1)
	r.want(3, core.JobDispatched)
}

// TestStopEverywhere stops an entity at each residency; each ends with Stopped,
// and goes on after the start.
func TestStopEverywhere(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*scene)
		finish  func(*scene) // when the barrier cannot be answered before
	}{
		{"away", func(r *scene) { r.goal(1, core.GoalSuspend) }, nil},
		{"creating", func(r *scene) { r.dev.flags.holdCreate = true; r.restart() }, (*scene).answer},
		{"resident", func(*scene) {}, nil},
		{"suspending", func(r *scene) { r.dev.flags.holdSuspend = true; r.must(Event{Kind: EventPreempt, Waiter: 1}) }, (*scene).answer},
		{"suspended", func(r *scene) { r.must(Event{Kind: EventPreempt, Waiter: 1}) }, nil},
		{"saving", func(r *scene) { r.dev.flags.holdSave = true; r.goal(1, core.GoalSuspend) }, nil},
		{"resuming", func(r *scene) {
			r.must(Event{Kind: EventPreempt, Waiter: 1})
			r.dev.flags.holdResume = true
			r.must(Event{Kind: EventRelease, Waiter: 1})
		}, (*scene).answer},
		{"leaving", func(r *scene) { r.dev.flags.holdDestroy = true; r.fault(1, false, "") }, (*scene).answer},
		{"away by a crash", func(r *scene) { r.gone() }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{})
			e := r.entity(1)
			r.submit(e, 1, 10*time.Millisecond)
			tc.prepare(r)
			r.must(Event{Kind: EventStop, Entity: e})
			if tc.finish != nil {
				tc.finish(r)
			}
			if n := r.told(Stopped, e, 0); n != 1 {
				t.Fatalf("told %d times", n)
			}
			r.dev.flags = mockFlags{sample: time.Millisecond}
			for _, f := range r.effects {
				if f.Kind == EffectSave {
					r.saved(f)
				}
			}
			r.start(e)
			r.must(Event{Kind: EventRelease, Waiter: 1})
			r.must(Event{Kind: EventUp, Held: r.heldByDevice()})
			r.goal(e, core.GoalRun)
			r.run(time.Second)
			r.want(1, core.JobCompleted)
		})
	}
}

// heldByDevice is what the device says when a session opens.
func (r *scene) heldByDevice() []Held {
	var held []Held
	for _, e := range r.core.order {
		if ring := r.dev.rings[e.spec.ID]; ring != nil {
			held = append(held, Held{Entity: e.spec.ID, Epoch: ring.epoch, Applied: ring.applied})
		}
	}
	return held
}

// TestStopTellsOfAnEnd: the instance may end while the barrier is under way; the
// waiter hears all the same.
func TestStopTellsOfAnEnd(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.dev.flags.holdBarrier = true
	r.must(Event{Kind: EventStop, Entity: e})
	r.gone()
	if n := r.told(Stopped, e, 0); n != 1 {
		t.Fatalf("told %d times", n)
	}
	r.must(Event{Kind: EventUp})
	r.want(1, core.JobQueued)
	r.start(e)
	r.want(1, core.JobDispatched)
}

// TestRecoveryWithoutGuilt is stop and start of everything by a reset: jobs go
// on from the last image, in order, none stays pending, nobody is blamed.
func TestRecoveryWithoutGuilt(t *testing.T) {
	r := newScene(t, Config{Credits: 2})
	var id core.JobID
	for e := core.EntityID(1); e <= 5; e++ {
		r.entity(e)
		for range 4 {
			id++
			r.submit(e, id, 10*time.Millisecond)
		}
	}
	for range 6 {
		r.run(15 * time.Millisecond)
		r.restart()
	}
	r.run(time.Minute)
	for id := core.JobID(1); id <= 20; id++ {
		r.want(id, core.JobCompleted)
	}
	for e, s := range r.entities {
		if s.Faults != 0 || s.Banned || s.Goal != core.GoalRun {
			t.Errorf("entity %d: %+v", e, s)
		}
	}
}

// TestTimersNeverSpin sets up waits that cannot end by time: a preemption and a
// checkpoint while the entity is stopped, while a restart is under way, and
// within the minimum run. Virtual time fails the test if a timer stays due.
func TestTimersNeverSpin(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*scene)
	}{
		{"stopped", func(r *scene) { r.must(Event{Kind: EventStop, Entity: 1}) }},
		{"restarting", func(r *scene) {
			r.dev.flags.holdRestart = true
			r.report(core.BackendEvent{Kind: core.EventDeviceHealth, Error: "lost"})
		}},
		{"minimum run", func(*scene) {}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{MinRun: 50 * time.Millisecond})
			r.entity(1, longRunning, func(s *core.EntitySpec) { s.Properties.Checkpoint = time.Millisecond })
			r.submit(1, 1, 0)
			tc.prepare(r)
			r.run(20 * time.Millisecond)
			r.must(Event{Kind: EventPreempt, Waiter: 1})
			r.run(time.Second)
		})
	}
}

// TestStopOfALostEntity: an entity that is lost answers nothing more. Its stop is
// reached by that, and nothing waits for the answers that were under way, however
// long the entity stays stopped.
func TestStopOfALostEntity(t *testing.T) {
	for name, ends := range map[string]func(*scene){
		"lost": func(r *scene) {
			r.submit(1, 1, 0)
			r.dev.flags.holdBarrier, r.dev.flags.holdMessage = true, true
			r.mustMessage(1, 7, BarrierNone)
			r.must(Event{Kind: EventProperties, Entity: 1, Properties: core.Properties{Priority: core.PriorityHigh}})
			r.must(Event{Kind: EventStop, Entity: 1})
			r.fault(1, false, "")
		},
		"refused": func(r *scene) {
			r.dev.flags.holdCreate, r.dev.flags.holdBarrier = true, true
			r.submit(1, 1, 0)
			r.must(Event{Kind: EventStop, Entity: 1})
			r.report(core.BackendEvent{Kind: core.EventRefused, Entity: 1, Epoch: 1, Command: 1, Error: "no room"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newScene(t, Config{Answer: time.Second})
			r.entity(1)
			ends(r)
			if n := r.told(Stopped, 1, 0); n != 1 {
				t.Errorf("told %d times that it is stopped", n)
			}
			r.dev.unanswered = nil // nothing of it is answered any more
			r.run(time.Minute)
			if n := len(r.restarts()); n != 0 {
				t.Errorf("%d restarts: %q", n, r.restarts())
			}
			r.dev.flags = mockFlags{sample: time.Second}
			delete(r.dev.rings, 1)
			r.start(1)
			r.report(core.BackendEvent{Kind: core.EventDestroyed, Entity: 1, Epoch: 1})
			r.residency(1, core.Resident)
		})
	}
}
