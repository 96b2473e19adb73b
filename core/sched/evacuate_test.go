package sched

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestEvacuate: who asks entities off the instance is told when every one has
// left it, with its work in an image; they come back with the release and go on
// where they were.
func TestEvacuate(t *testing.T) {
	r := newScene(t, Config{})
	for e := core.EntityID(1); e <= 3; e++ {
		r.entity(e)
		r.submit(e, core.JobID(e), 10*time.Second)
	}
	r.goal(3, core.GoalSuspend) // on no instance, and stays so
	r.run(4 * time.Second)
	generation := r.entities[1].Generation
	r.must(Event{Kind: EventPreempt, Waiter: 5, Away: true})
	for e := core.EntityID(1); e <= 3; e++ {
		r.residency(e, core.Away)
	}
	if got := r.entities[1].Generation; got != generation+1 {
		t.Errorf("left with image %d, want %d", got, generation+1)
	}
	if n := r.told(PreemptReady, 0, 5); n != 1 {
		t.Fatalf("told %d times", n)
	}
	if held := r.heldByDevice(); len(held) != 0 {
		t.Fatalf("the instance holds %v", held)
	}
	r.entity(4) // joins the wave
	r.submit(4, 4, time.Second)
	r.residency(4, core.Away)
	r.must(Event{Kind: EventRelease, Waiter: 5})
	for _, e := range []core.EntityID{1, 2, 4} {
		r.residency(e, core.Resident)
	}
	r.residency(3, core.Away)
	r.run(6*time.Second + time.Millisecond)
	r.want(1, core.JobCompleted)
	r.want(2, core.JobCompleted)
}

// TestEvacuateFromEverywhere: an entity leaves the instance out of every state,
// and a wave that only wants it off the hardware does not keep it.
func TestEvacuateFromEverywhere(t *testing.T) {
	for name, before := range map[string]func(*scene){
		"idle":      func(r *scene) {},
		"executing": func(r *scene) { r.submit(1, 1, time.Minute) },
		"suspended": func(r *scene) { r.submit(1, 1, time.Minute); r.must(Event{Kind: EventPreempt, Waiter: 1}) },
		"suspending": func(r *scene) {
			r.submit(1, 1, time.Minute)
			r.dev.flags.holdSuspend = true
			r.must(Event{Kind: EventPreempt, Waiter: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newScene(t, Config{})
			r.entity(1)
			before(r)
			r.must(Event{Kind: EventPreempt, Waiter: 2, Away: true})
			r.answer()
			r.residency(1, core.Away)
			if n := r.told(PreemptReady, 0, 2); n != 1 {
				t.Fatalf("told %d times", n)
			}
			r.dev.flags.holdSuspend = false
			r.must(Event{Kind: EventRelease, Waiter: 2})
			r.must(Event{Kind: EventRelease, Waiter: 1})
			if name != "idle" {
				r.residency(1, core.Resident)
			}
		})
	}
}
