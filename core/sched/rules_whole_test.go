package sched

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// medley has everything happen to three entities at once.
func medley(r *scene) {
	for e := core.EntityID(1); e <= 3; e++ {
		r.entity(e, onward)
	}
	id := core.JobID(0)
	for round := range 6 {
		for e := core.EntityID(1); e <= 3; e++ {
			id++
			options := []func(*core.JobSpec){timeout(30 * time.Millisecond), credits(1 + uint32(id)%3)}
			if id > 4 {
				options = append(options, r.after(id-4, core.DependencyIgnore))
			}
			r.submit(e, id, time.Duration(id%5)*8*time.Millisecond, options...)
		}
		waiter := uint64(round)
		for k := range uint64(4) {
			r.must(Event{Kind: EventPreempt, Waiter: 100*k + waiter})
		}
		r.run(5 * time.Millisecond)
		for k := range uint64(4) {
			r.must(Event{Kind: EventRelease, Waiter: 100*k + waiter})
		}
		r.mustMessage(2, core.MessageID(round+1), Barrier(round%3))
		r.must(Event{Kind: EventProperties, Entity: 1})
		r.run(20 * time.Millisecond)
		if round == 3 {
			r.restart()
		}
	}
	r.must(Event{Kind: EventStop, Entity: 1})
	r.start(1)
	r.goal(3, core.GoalClose)
	r.run(time.Minute)
}

// TestCommandsAreOneOrder: whatever an entity is asked is one sequence, numbered
// without a gap, so that no call of the backend can overlap another of it.
func TestCommandsAreOneOrder(t *testing.T) {
	r := newScene(t, Config{Credits: 4})
	medley(r)
	last := map[core.EntityID]core.CommandSeq{}
	for _, c := range r.commands {
		if c.Seq != last[c.Entity]+1 {
			t.Errorf("entity %d: command %d after %d", c.Entity, c.Seq, last[c.Entity])
		}
		last[c.Entity] = c.Seq
	}
	if len(r.commands) < 50 {
		t.Errorf("%d commands only", len(r.commands))
	}
}

// TestSameEventsSameTrace: the same events give the same commands and notices.
func TestSameEventsSameTrace(t *testing.T) {
	var first string
	for i := range 5 {
		r := newScene(t, Config{Credits: 4})
		medley(r)
		var trace strings.Builder
		for _, c := range r.commands {
			fmt.Fprintln(&trace, c.Kind, c.Entity, c.Epoch, c.Seq, c.Job, c.First, c.Message)
		}
		for _, n := range r.notices {
			fmt.Fprintln(&trace, n)
		}
		if i == 0 {
			first = trace.String()
		} else if trace.String() != first {
			t.Fatal("another trace")
		}
	}
}

// TestEveryJobHasOneOutcome counts them after everything happened.
func TestEveryJobHasOneOutcome(t *testing.T) {
	r := newScene(t, Config{Credits: 4})
	medley(r)
	r.goal(1, core.GoalClose)
	r.goal(2, core.GoalClose)
	for id := range r.specs {
		outcomes := 0
		for _, p := range r.phases[id] {
			if p.Final() {
				outcomes++
			}
		}
		if outcomes != 1 {
			t.Errorf("job %d has %d outcomes: %v", id, outcomes, r.phases[id])
		}
	}
}

// TestEveryAnswerIsBounded: a create, suspend, resume, cancel or destroy that is
// never answered makes the instance start again, and all goes on.
func TestEveryAnswerIsBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		flags   mockFlags
		provoke func(*scene)
		want    core.JobPhase
	}{
		"create":  {mockFlags{holdCreate: true}, func(*scene) {}, core.JobCompleted},
		"suspend": {mockFlags{holdSuspend: true}, func(r *scene) { r.must(Event{Kind: EventPreempt, Waiter: 1}) }, core.JobFailed},
		"resume": {mockFlags{holdResume: true}, func(r *scene) {
			r.must(Event{Kind: EventPreempt, Waiter: 1})
			r.must(Event{Kind: EventRelease, Waiter: 1})
		}, core.JobCompleted},
		"cancel":  {mockFlags{holdCancel: true}, func(r *scene) { r.must(Event{Kind: EventCancel, Entity: 1, Job: 1}) }, core.JobCancelled},
		"destroy": {mockFlags{holdDestroy: true}, func(r *scene) { r.goal(1, core.GoalClose) }, core.JobKilled},
	} {
		t.Run(name, func(t *testing.T) {
			r := newScene(t, Config{Answer: time.Minute})
			tc.flags.sample = time.Second
			r.dev.flags = tc.flags
			e := r.entity(1)
			r.submit(e, 1, time.Hour)
			tc.provoke(r)
			r.run(59 * time.Second)
			if n := len(r.restarts()); n != 0 {
				t.Fatalf("%d restarts before the bound", n)
			}
			r.dev.flags = mockFlags{sample: time.Second}
			r.run(2 * time.Second)
			if n := len(r.restarts()); n != 1 {
				t.Fatalf("%d restarts after the bound", n)
			}
			r.must(Event{Kind: EventRelease, Waiter: 1})
			r.run(2 * time.Hour)
			r.want(1, tc.want)
		})
	}
}

// TestReasonsCarryNumbers: what a user reads says the limit and what was measured.
func TestReasonsCarryNumbers(t *testing.T) {
	r := newScene(t, Config{Credits: 4, QueueMax: 3, Preempt: 3 * time.Second})
	e, f, g := r.entity(1), r.entity(2), r.entity(3)
	r.submit(e, 1, 0, timeout(200*time.Millisecond))
	r.submit(f, 2, 0, credits(4))
	r.submit(f, 3, 0, func(s *core.JobSpec) { s.QueueTimeout = 50 * time.Millisecond })
	r.submit(g, 4, 0)
	r.submit(g, 5, 0)
	r.submit(g, 6, 0)
	full := r.try(g, 7, 0)
	large := r.try(f, 8, 0, credits(9))
	r.run(300 * time.Millisecond)
	r.advance(f, 1)
	r.dev.flags.holdSuspend = true
	r.must(Event{Kind: EventPreempt, Waiter: 1, Entities: []core.EntityID{g}})
	r.run(4 * time.Second)
	for _, tc := range []struct {
		text string
		want []string
	}{
		{r.jobs[1].Error, []string{"executed for 210ms", "timeout is 200ms"}},
		{r.jobs[3].Error, []string{"waited for 50ms"}},
		{r.jobs[4].Error, []string{"3s"}},
		{full.Error(), []string{"3 unfinished"}},
		{large.Error(), []string{"9 credits", "has 4"}},
	} {
		for _, want := range tc.want {
			if !strings.Contains(tc.text, want) {
				t.Errorf("%q does not say %q", tc.text, want)
			}
		}
	}
}

// TestKillLoop starts clients that are killed at once, while they load, run, are
// suspended or wait, for thousand rounds: nothing is left of any.
func TestKillLoop(t *testing.T) {
	r := newScene(t, Config{Credits: 2})
	for round := range 1000 {
		e := r.entity(core.EntityID(round + 1))
		for k := range 1 + round%4 {
			r.submit(e, core.JobID(10*round+k+1), time.Duration(round%3)*10*time.Millisecond)
		}
		r.run(time.Duration(round%7) * 5 * time.Millisecond)
		r.dev.flags = mockFlags{sample: time.Millisecond, holdSuspend: round%2 == 0, holdSave: round%3 == 0}
		if round%5 == 0 {
			r.goal(e, core.GoalSuspend)
		}
		if round%11 == 0 {
			r.restart()
		}
		r.goal(e, core.GoalClose)
		r.answer()
		for _, f := range r.effects { // an image under way is written to its end first
			if f.Kind == EffectSave {
				r.saved(f)
			}
		}
		r.effects = r.effects[:0]
		for k := range 1 + round%4 {
			if id := core.JobID(10*round + k + 1); !r.phase(id).Final() {
				t.Fatalf("job %d is %s", id, r.phase(id))
			}
		}
		r.must(Event{Kind: EventForget, Entity: e})
	}
	c := r.core
	if n := len(c.entities) + len(c.order) + len(c.waiters) + len(c.waves) + len(r.dev.rings); n != 0 {
		t.Errorf("%d things are left", n)
	}
	if n := len(c.timers); n != 0 {
		t.Errorf("%d timers are left", n)
	}
}
