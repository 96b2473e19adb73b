package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestWhatIsHeard: an answer to what is under way says that the backend is well, a
// refusal too; a repeated answer or one to nothing says nothing.
func TestWhatIsHeard(t *testing.T) {
	for _, c := range []struct {
		name     string
		answer   func(r *scene, m core.CommandSeq) core.BackendEvent
		restarts int
	}{
		{"refusal", func(r *scene, m core.CommandSeq) core.BackendEvent {
			return core.BackendEvent{Kind: core.EventRefused, Command: m, Error: "unknown"}
		}, 0},
		{"reply", func(r *scene, m core.CommandSeq) core.BackendEvent {
			return core.BackendEvent{Kind: core.EventMessageDone, Command: m}
		}, 0},
		{"unknown", func(r *scene, m core.CommandSeq) core.BackendEvent {
			return core.BackendEvent{Kind: core.EventMessageDone, Command: m + 7}
		}, 1},
		{"repeat", func(r *scene, m core.CommandSeq) core.BackendEvent {
			return core.BackendEvent{Kind: core.EventMessageDone, Command: m - 2}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newScene(t, Config{Silence: time.Second, Answer: time.Hour})
			e := r.entity(1)
			r.dev.flags.silent, r.dev.flags.holdMessage, r.dev.flags.holdRestart = true, true, true
			r.submit(e, 1, 0)
			r.mustMessage(e, 1, BarrierNone)
			r.run(900 * time.Millisecond)
			ev := c.answer(r, r.entities[e].Commands)
			ev.Entity, ev.Epoch = e, 1
			r.report(ev)
			r.run(900 * time.Millisecond)
			if n := len(r.restarts()); n != c.restarts {
				t.Errorf("%d restarts, want %d", n, c.restarts)
			}
		})
	}
}
