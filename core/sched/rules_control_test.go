package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

func (r *scene) residency(e core.EntityID, want core.Residency) {
	r.t.Helper()
	if got := r.entities[e].Residency; got != want {
		r.t.Fatalf("entity %d is %s, want %s", e, got, want)
	}
}

// TestSuspendIsAcknowledged: the request returns at once, the acknowledgement is
// the notice that the entity is away; a resume in between waits for it.
func TestSuspendIsAcknowledged(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.dev.flags.holdSuspend = true
	r.goal(e, core.GoalSuspend)
	r.residency(e, core.Suspending)
	r.goal(e, core.GoalSuspend) // a repeat is the same request
	r.goal(e, core.GoalRun)
	r.goal(e, core.GoalSuspend)
	r.goal(e, core.GoalRun)
	if n := r.count(e, core.CommandMessage, core.MessageSuspend); n != 1 {
		t.Fatalf("%d suspends sent", n)
	}
	if n := r.count(e, core.CommandMessage, core.MessageResume); n != 0 {
		t.Fatal("resumed before the suspend was acknowledged")
	}
	r.answer()
	r.residency(e, core.Resident)
	if n := r.count(e, core.CommandMessage, core.MessageResume); n != 1 {
		t.Fatalf("%d resumes sent", n)
	}
	r.dev.flags.holdSuspend = false
	r.goal(e, core.GoalSuspend)
	r.residency(e, core.Away)
	r.goal(e, core.GoalSuspend)
	r.goal(e, core.GoalRun)
	r.residency(e, core.Resident)
}

// TestSuspendOfIdle: nothing to save and nothing to ask for.
func TestSuspendOfIdle(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.goal(e, core.GoalSuspend)
	if len(r.commands) != 0 {
		t.Errorf("%d commands for an entity that never ran", len(r.commands))
	}
	r.goal(e, core.GoalClose)
	r.refused(r.step(Event{Kind: EventGoal, Entity: e, Goal: core.GoalSuspend}), core.ErrClosed)
	r.refused(r.step(Event{Kind: EventGoal, Entity: e, Goal: core.GoalRun}), core.ErrClosed)
	r.goal(e, core.GoalClose) // a repeat is no error
}

// TestSubmitWhileSuspended: accepted up to the queue limit, sent after the resume.
func TestSubmitWhileSuspended(t *testing.T) {
	r := newScene(t, Config{QueueMax: 3})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.goal(e, core.GoalSuspend)
	r.submit(e, 2, 0)
	r.submit(e, 3, 0)
	r.refused(r.try(e, 4, 0), core.ErrFull)
	if r.scheduled(2) {
		t.Fatal("sent while suspended")
	}
	r.goal(e, core.GoalRun)
	r.want(3, core.JobDispatched)
}

// TestMinimumRun: between a resume and the next suspend the entity executes for
// the configured time; a close does not wait.
func TestMinimumRun(t *testing.T) {
	r := newScene(t, Config{MinRun: 50 * time.Millisecond})
	e := r.entity(1)
	r.submit(e, 1, 0)
	for range 3 {
		begin := r.now
		r.must(Event{Kind: EventPreempt, Waiter: 1})
		r.residency(e, core.Resident)
		r.run(49 * time.Millisecond)
		r.residency(e, core.Resident)
		r.run(time.Millisecond)
		r.residency(e, core.Suspended)
		if got := r.now.Sub(begin); got != 50*time.Millisecond {
			t.Fatalf("off after %s", got)
		}
		r.must(Event{Kind: EventRelease, Waiter: 1})
	}
	r.goal(e, core.GoalClose)
	r.want(1, core.JobKilled)
}

// TestPreemptWave: all are asked at once, told of together, kept off with those
// that come meanwhile, and all come back.
func TestPreemptWave(t *testing.T) {
	r := newScene(t, Config{})
	for e := core.EntityID(1); e <= 4; e++ {
		r.entity(e)
		r.submit(e, core.JobID(e), 0)
	}
	r.goal(4, core.GoalSuspend)
	r.dev.flags.holdSuspend = true
	r.must(Event{Kind: EventPreempt, Waiter: 9})
	for e := core.EntityID(1); e <= 3; e++ {
		r.residency(e, core.Suspending)
	}
	r.refused(r.step(Event{Kind: EventPreempt, Waiter: 9}), core.ErrExists)
	late := r.dev.unanswered[2]
	r.dev.unanswered = r.dev.unanswered[:2]
	r.answer()
	if r.told(PreemptReady, 0, 9) != 0 {
		t.Fatal("told before the last was off")
	}
	r.carryOut(late)
	r.pump()
	if n := r.told(PreemptReady, 0, 9); n != 1 {
		t.Fatalf("told %d times", n)
	}
	r.entity(5) // joins the wave
	r.submit(5, 5, 0)
	r.goal(4, core.GoalRun)
	r.run(time.Hour)
	r.want(5, core.JobQueued)
	r.residency(4, core.Away)
	r.must(Event{Kind: EventRelease, Waiter: 9})
	for e := core.EntityID(1); e <= 5; e++ {
		r.residency(e, core.Resident)
		r.want(core.JobID(e), core.JobDispatched)
	}
	if n := r.told(PreemptReady, 0, 9); n != 1 {
		t.Errorf("told %d times in the end", n)
	}
}

// TestPreemptAlwaysAnswers: whatever becomes of the entity, who waits is told.
func TestPreemptAlwaysAnswers(t *testing.T) {
	for name, end := range map[string]func(*scene){
		"closed":        func(r *scene) { r.goal(1, core.GoalClose) },
		"lost":          func(r *scene) { r.fault(1, false, "") },
		"guilty":        func(r *scene) { r.fault(1, true, core.CauseTrap) },
		"instance gone": func(r *scene) { r.gone() },
		"late":          func(r *scene) { r.run(time.Minute) },
		"stopped":       func(r *scene) { r.run(DefaultAnswer) },
		"never there":   func(*scene) {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newScene(t, Config{Preempt: time.Second})
			e := r.entity(1)
			if name != "never there" {
				r.submit(e, 1, 0)
				r.dev.flags.holdSuspend = true
			}
			if name == "stopped" {
				r.must(Event{Kind: EventStop, Entity: e})
			}
			r.must(Event{Kind: EventPreempt, Waiter: 9, Entities: []core.EntityID{e}})
			if name == "never there" {
				end = func(*scene) {}
			} else if n := r.told(PreemptReady, 0, 9); n != 0 {
				t.Fatal("told too early")
			}
			end(r)
			if name != "instance gone" && name != "late" {
				r.answer()
			}
			if n := r.told(PreemptReady, 0, 9); n != 1 {
				t.Fatalf("told %d times", n)
			}
			for _, n := range r.notices {
				if n.Kind == PreemptReady && (n.Error != "") != (name == "stopped") {
					t.Errorf("told %q", n.Error)
				}
			}
		})
	}
}

// TestOnlyLatePreemptionKills: an entity that does not leave in time is guilty
// of hanging, those beside it are victims and go on; no other failure of a
// control message kills anybody.
func TestOnlyLatePreemptionKills(t *testing.T) {
	for _, mode := range []core.Mode{core.ModeCompute, core.ModeLongRunning} {
		r := newScene(t, Config{Preempt: time.Second, Answer: time.Minute})
		guilty := r.entity(1, func(s *core.EntitySpec) { s.Mode = mode })
		victim := r.entity(2, func(s *core.EntitySpec) { s.Mode = mode })
		r.submit(guilty, 1, 0)
		r.submit(victim, 2, time.Minute)
		r.dev.flags.holdResume = true
		r.must(Event{Kind: EventPreempt, Waiter: 1})
		r.must(Event{Kind: EventRelease, Waiter: 1})
		r.dev.flags.holdResume = false
		r.run(2 * time.Minute) // the resume is not answered: the instance starts again
		if n := len(r.restarts()); n != 1 {
			t.Fatalf("%d restarts", n)
		}
		r.want(1, core.JobDispatched)
		r.dev.flags.holdSuspend = true
		r.must(Event{Kind: EventPreempt, Waiter: 1, Entities: []core.EntityID{guilty}})
		r.run(time.Second)
		r.wantCause(1, core.JobFailed, core.CauseHang)
		r.run(2 * time.Minute)
		r.want(2, core.JobCompleted)
		if s := r.entities[victim]; s.Faults != 0 || s.Banned {
			t.Errorf("victim blamed: %+v", s)
		}
	}
}

// TestControlReplay: when a session is cut while a resume is under way and a
// suspend is wanted already, the resume goes first, under its own number.
func TestControlReplay(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.must(Event{Kind: EventPreempt, Waiter: 1})
	r.dev.flags.holdResume = true
	r.must(Event{Kind: EventRelease, Waiter: 1})
	lost := r.dev.unanswered[0]
	r.dev.unanswered = nil
	r.goal(e, core.GoalSuspend)
	r.dev.flags.holdResume = false
	before := len(r.commands)
	r.must(Event{Kind: EventUp, Held: r.heldByDevice()})
	again := r.commands[before:]
	if len(again) < 2 || again[0].Message != core.MessageResume || again[0].Seq != lost.Seq || again[1].Message != core.MessageSuspend {
		t.Fatalf("sent again: %+v", again)
	}
	r.residency(e, core.Away)
}
