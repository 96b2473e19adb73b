package sched

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestKill: from wherever the entity is, all its jobs end killed, in order, none
// before it is confirmed off (the mock checks), none of those queued is sent, and
// neither their dependencies nor their predecessors are waited for by time.
func TestKill(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*scene)
	}{
		{"away", func(r *scene) { r.goal(1, core.GoalSuspend) }},
		{"creating", func(r *scene) { r.dev.flags.holdCreate = true; r.restart() }},
		{"resident", func(*scene) {}},
		{"suspending", func(r *scene) { r.dev.flags.holdSuspend = true; r.goal(1, core.GoalSuspend) }},
		{"suspended", func(r *scene) { r.must(Event{Kind: EventPreempt, Waiter: 1}) }},
		{"saving", func(r *scene) { r.dev.flags.holdSave = true; r.goal(1, core.GoalSuspend) }},
		{"resuming", func(r *scene) {
			r.must(Event{Kind: EventPreempt, Waiter: 1})
			r.dev.flags.holdResume = true
			r.must(Event{Kind: EventRelease, Waiter: 1})
		}},
		{"leaving", func(r *scene) { r.dev.flags.holdDestroy = true; r.fault(1, false, "") }},
		{"no instance", func(r *scene) { r.gone() }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{Credits: 2})
			e := r.entity(1)
			for id := core.JobID(1); id <= 4; id++ {
				r.submit(e, id, 0)
			}
			r.submit(e, 5, 0, awaits(core.Fence{Timeline: 70, Seq: 1}, ""))
			tc.prepare(r)
			before := len(r.sent(e))
			r.goal(e, core.GoalClose)
			r.answer()
			for _, f := range r.effects { // an image that was under way comes too late
				if f.Kind == EffectSave {
					r.must(Event{Kind: EventSaved, Entity: e, Epoch: f.Epoch, Generation: f.Generation})
				}
			}
			var order []core.JobID
			for _, n := range r.notices {
				if n.Kind == JobChanged && n.Phase == core.JobKilled {
					order = append(order, n.Job)
				}
			}
			if !slices.Equal(order, []core.JobID{1, 2, 3, 4, 5}) {
				t.Fatalf("killed in order %v", order)
			}
			if len(r.sent(e)) != before {
				t.Error("a job was sent after the kill")
			}
			if s := r.entities[e]; !s.Closed || s.Residency != core.Away {
				t.Errorf("entity %+v", s)
			}
			r.run(time.Hour)
			r.must(Event{Kind: EventForget, Entity: e})
			if len(r.core.waiters) != 0 || len(r.core.entities) != 0 {
				t.Error("something is left")
			}
		})
	}
}

// TestKillRacingRun kills while the run command still waits for its commit, and
// completes the job while the destroy is under way: the job was killed, once.
func TestKillRacingRun(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.hold = true
	r.submit(e, 2, 0)
	r.goal(e, core.GoalClose)
	if len(r.sent(e)) != 1 {
		t.Fatal("sent before the commit")
	}
	r.dev.flags.holdDestroy = true
	r.release()
	r.advance(e, 1)
	r.answer()
	r.want(1, core.JobKilled)
	r.want(2, core.JobKilled)
}

// TestKillWhileStopped: nothing follows a stop, a destroy neither; it leaves with
// the start. Off the device there is nothing to send, and the kill ends at once.
func TestKillWhileStopped(t *testing.T) {
	r := newScene(t, Config{})
	e, f := r.entity(1), r.entity(2)
	r.submit(e, 1, 0)
	r.submit(f, 2, 0)
	r.goal(f, core.GoalSuspend)
	r.must(Event{Kind: EventStop, Entity: e})
	r.must(Event{Kind: EventStop, Entity: f})
	r.goal(e, core.GoalClose)
	r.goal(f, core.GoalClose)
	r.want(1, core.JobDispatched)
	r.want(2, core.JobKilled)
	r.start(e)
	r.want(1, core.JobKilled)
}

// TestCloseEndsLast: closed is recorded when nothing of the entity can happen
// any more, and only then may it be forgotten.
func TestCloseEndsLast(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.dev.flags.holdDestroy = true
	r.goal(e, core.GoalClose)
	if s := r.entities[e]; s.Closed || s.Residency != core.Leaving {
		t.Fatalf("entity %+v before it is confirmed off", s)
	}
	r.want(1, core.JobDispatched)
	r.refused(r.step(Event{Kind: EventForget, Entity: e}), core.ErrBusy)
	r.answer()
	if s := r.entities[e]; !s.Closed {
		t.Fatalf("entity %+v", s)
	}
	before := len(r.commands)
	r.report(core.BackendEvent{Kind: core.EventCompleted, Entity: e, Epoch: 1, Job: 1})
	r.must(Event{Kind: EventPreempt, Waiter: 1})
	r.must(Event{Kind: EventRelease, Waiter: 1})
	r.restart()
	r.run(time.Hour)
	if len(r.commands) != before {
		t.Error("something happened after the close")
	}
	r.want(1, core.JobKilled)
}

// TestBannedEntityRunsNothing: its jobs in the ring and behind end cancelled with
// that cause, none is sent any more, later ones are refused.
func TestBannedEntityRunsNothing(t *testing.T) {
	r := newScene(t, Config{Credits: 2})
	e := r.entity(1)
	for id := core.JobID(1); id <= 5; id++ {
		r.submit(e, id, 0)
	}
	r.fault(e, true, core.CauseHang)
	r.wantCause(1, core.JobFailed, core.CauseHang)
	for id := core.JobID(2); id <= 5; id++ {
		r.wantCause(id, core.JobCancelled, core.CauseEarlier)
	}
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1, 2}) {
		t.Errorf("sent %v", got)
	}
	r.refused(r.try(e, 6, 0), core.ErrClosed)
}

// TestBanAtTheThirdFault: with `continue` the first two guilty jobs end alone.
func TestBanAtTheThirdFault(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1, onward)
	for id := core.JobID(1); id <= 5; id++ {
		r.submit(e, id, 0, timeout(100*time.Millisecond))
	}
	r.run(150 * time.Millisecond)
	r.wantCause(1, core.JobTimedOut, core.CauseTimeout)
	r.fault(e, true, core.CauseTrap)
	r.wantCause(2, core.JobFailed, core.CauseTrap)
	r.want(3, core.JobDispatched)
	r.run(200 * time.Millisecond)
	r.wantCause(3, core.JobTimedOut, core.CauseTimeout)
	r.wantCause(4, core.JobCancelled, core.CauseEarlier)
	if s := r.entities[e]; s.Faults != 3 || !s.Banned {
		t.Errorf("entity %+v", s)
	}
}

// TestVictimsGoOn: a loss without evidence runs the job again from the last
// image, its executed time kept; outcomes before it are not told twice.
func TestVictimsGoOn(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 10*time.Millisecond)
	r.submit(e, 2, 100*time.Millisecond)
	r.run(50 * time.Millisecond)
	r.fault(e, false, core.CauseNone)
	if got := r.sent(e); !slices.Equal(got, []core.JobID{1, 2, 1, 2}) {
		t.Fatalf("sent %v: completed jobs are replayed to rebuild the buffers", got)
	}
	r.run(time.Second)
	r.want(2, core.JobCompleted)
	if s := r.jobs[2]; s.ExecutedTime != 140*time.Millisecond {
		t.Errorf("executed %s, want 40ms before the loss and 100ms after", s.ExecutedTime)
	}
	if s := r.entities[e]; s.Faults != 0 {
		t.Errorf("blamed: %+v", s)
	}
}

// TestDeviceGoneForGood: an entity that is lost again and again without progress
// is suspended after the bound, with its cause; its jobs wait, no timer runs, and
// a resume tries again.
func TestDeviceGoneForGood(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, time.Second)
	for i := range DefaultLossesMax {
		if r.entities[e].Goal != core.GoalRun {
			t.Fatalf("suspended after %d losses", i)
		}
		r.run(time.Millisecond)
		for r.entities[e].Residency != core.Resident {
			r.run(time.Second)
		}
		r.fault(e, false, core.CauseNone)
	}
	s := r.entities[e]
	if s.Goal != core.GoalSuspend || s.Cause != core.CauseDevice || s.Residency != core.Away {
		t.Fatalf("entity %+v", s)
	}
	if at := r.core.Next(); at != 0 {
		t.Errorf("a timer is set to %d", at)
	}
	r.want(1, core.JobQueued)
	r.goal(e, core.GoalRun)
	r.run(2 * time.Second)
	r.want(1, core.JobCompleted)
}

// TestOutcomeWaitsForConfirmation: with each way off the hardware unanswered, no
// job has an outcome; with the answer it has.
func TestOutcomeWaitsForConfirmation(t *testing.T) {
	for i, tc := range []struct {
		flags mockFlags
		end   func(*scene)
		want  core.JobPhase
	}{
		{mockFlags{holdSuspend: true}, func(r *scene) { r.must(Event{Kind: EventCancel, Entity: 1, Job: 1}) }, core.JobCancelled},
		{mockFlags{holdCancel: true}, func(r *scene) { r.must(Event{Kind: EventCancel, Entity: 1, Job: 1}) }, core.JobCancelled},
		{mockFlags{holdSuspend: true}, func(r *scene) { r.run(time.Second) }, core.JobTimedOut},
		{mockFlags{holdDestroy: true}, func(r *scene) { r.fault(1, true, core.CauseTrap) }, core.JobFailed},
		{mockFlags{holdDestroy: true}, func(r *scene) { r.goal(1, core.GoalClose) }, core.JobKilled},
	} {
		t.Run(fmt.Sprint(i, tc.want), func(t *testing.T) {
			r := newScene(t, Config{})
			tc.flags.sample = 10 * time.Millisecond
			r.dev.flags = tc.flags
			r.entity(1)
			r.submit(1, 1, 0, timeout(200*time.Millisecond))
			tc.end(r)
			r.want(1, core.JobDispatched)
			r.answer()
			r.want(1, tc.want)
		})
	}
}
