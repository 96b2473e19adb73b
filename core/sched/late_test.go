package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestLateWaveBlamesNobody: when several entities are overdue at once it is the
// device that does not answer, or one of them keeps the others from it. Nobody can
// tell which, so all are victims.
func TestLateWaveBlamesNobody(t *testing.T) {
	r := newScene(t, Config{Preempt: time.Second})
	for e := core.EntityID(1); e <= 3; e++ {
		r.entity(e)
		r.submit(e, core.JobID(e), time.Minute)
	}
	r.dev.flags.holdSuspend = true
	r.must(Event{Kind: EventPreempt, Waiter: 1})
	r.run(2 * time.Second)
	r.dev.flags.holdSuspend = false
	r.must(Event{Kind: EventRelease, Waiter: 1})
	if n := len(r.restarts()); n != 1 {
		t.Fatalf("%d restarts", n)
	}
	r.run(2 * time.Minute)
	for e := core.EntityID(1); e <= 3; e++ {
		r.want(core.JobID(e), core.JobCompleted)
		if s := r.entities[e]; s.Faults != 0 || s.Banned {
			t.Errorf("entity %d is blamed: %+v", e, s)
		}
	}
}

// TestLateAloneIsGuilty: the one of a wave that stays while the others have left
// is to blame.
func TestLateAloneIsGuilty(t *testing.T) {
	r := newScene(t, Config{Preempt: time.Second})
	for e := core.EntityID(1); e <= 3; e++ {
		r.entity(e)
		r.submit(e, core.JobID(e), time.Minute)
	}
	r.must(Event{Kind: EventPreempt, Waiter: 1, Entities: []core.EntityID{1, 3}})
	r.dev.flags.holdSuspend = true
	r.must(Event{Kind: EventPreempt, Waiter: 2})
	r.run(2 * time.Second)
	r.wantCause(2, core.JobFailed, core.CauseHang)
	for _, e := range []core.EntityID{1, 3} {
		if s := r.entities[e]; s.Faults != 0 || s.Banned {
			t.Errorf("entity %d is blamed: %+v", e, s)
		}
	}
}

// TestLateWhileTheInstanceIsEnded: a device that failed keeps everybody on the
// hardware; who is late then is a victim.
func TestLateWhileTheInstanceIsEnded(t *testing.T) {
	r := newScene(t, Config{Preempt: time.Second})
	e := r.entity(1)
	r.submit(e, 1, time.Minute)
	r.dev.flags.holdSuspend, r.dev.flags.holdRestart = true, true
	r.must(Event{Kind: EventPreempt, Waiter: 1})
	r.report(core.BackendEvent{Kind: core.EventDeviceHealth, Error: "overheated"})
	r.run(2 * time.Second)
	r.restart()
	if s := r.entities[e]; s.Faults != 0 || s.Banned {
		t.Errorf("blamed: %+v", s)
	}
}

// TestNewSessionAsksAnew: a suspend that is sent again has its own bound anew, no
// shorter one and no longer one.
func TestNewSessionAsksAnew(t *testing.T) {
	for _, c := range []Config{{Preempt: time.Second, Answer: time.Minute}, {Preempt: time.Minute, Answer: time.Second}} {
		r := newScene(t, c)
		e := r.entity(1)
		r.submit(e, 1, 0)
		r.dev.flags.holdSuspend, r.dev.flags.holdRestart = true, true
		r.must(Event{Kind: EventPreempt, Waiter: 1})
		r.must(Event{Kind: EventUp, Held: r.heldByDevice()})
		r.run(c.Preempt - time.Millisecond)
		if n := len(r.restarts()); n != 0 {
			t.Errorf("%+v: too early", c)
		}
		r.run(2 * time.Millisecond)
		if n := len(r.restarts()); n != 1 {
			t.Errorf("%+v: %d restarts after the bound", c, n)
		}
	}
}
