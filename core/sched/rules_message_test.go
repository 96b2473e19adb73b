package sched

import (
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// message queues one of the backend's own, with its identifier as payload.
func (r *scene) message(e core.EntityID, id core.MessageID, b Barrier) error {
	return r.step(Event{Kind: EventMessage, Entity: e, MessageID: id, Message: core.MessageBackend + 1, Payload: []byte{byte(id)}, Barrier: b})
}

func (r *scene) mustMessage(e core.EntityID, id core.MessageID, b Barrier) {
	r.t.Helper()
	if err := r.message(e, id, b); err != nil {
		r.t.Fatal(err)
	}
}

// replies lists the answered messages, negative those answered with an error.
func (r *scene) replies() []int {
	var ids []int
	for _, n := range r.notices {
		switch {
		case n.Kind != MessageReplied:
		case n.Error != "":
			ids = append(ids, -int(n.Message))
		case !slices.Equal(n.Reply, []byte{byte(n.Message)}):
			r.t.Errorf("message %d got reply %v", n.Message, n.Reply)
		default:
			ids = append(ids, int(n.Message))
		}
	}
	return ids
}

func (r *scene) wantReplies(want ...int) {
	r.t.Helper()
	if got := r.replies(); !slices.Equal(got, want) {
		r.t.Fatalf("replies %v, want %v", got, want)
	}
}

// TestMessagesAreFIFO: one at a time, each answered before the next, in order,
// past jobs that are blocked by a dependency or by credits, with jobs of others
// and its own going on in between.
func TestMessagesAreFIFO(t *testing.T) {
	r := newScene(t, Config{Credits: 1})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.submit(e, 2, 0)
	r.submit(e, 3, 0, awaits(core.Fence{Timeline: 70, Seq: 1}, ""))
	r.dev.flags.holdMessage = true
	for id := core.MessageID(1); id <= 3; id++ {
		r.mustMessage(e, id, BarrierNone)
	}
	if n := r.count(e, core.CommandMessage, core.MessageBackend+1); n != 1 {
		t.Fatalf("%d messages under way, want 1", n)
	}
	r.dev.flags.holdMessage = false
	r.answer()
	r.wantReplies(1, 2, 3)
	r.want(1, core.JobDispatched)
	r.want(3, core.JobQueued)
}

// TestMessageWakesAnIdleEntity: a message needs no job.
func TestMessageWakesAnIdleEntity(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.mustMessage(e, 1, BarrierNone)
	r.wantReplies(1)
}

// TestMessageBarriers: before any later job, and after all earlier ones.
func TestMessageBarriers(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.dev.flags.holdMessage = true
	r.mustMessage(e, 1, BarrierBefore)
	r.submit(e, 2, 0)
	r.want(2, core.JobQueued)
	r.dev.flags.holdMessage = false
	r.answer()
	r.wantReplies(1)
	r.want(2, core.JobDispatched)
	r.mustMessage(e, 2, BarrierAfter)
	r.submit(e, 3, 0)
	r.advance(e, 1)
	r.wantReplies(1)
	r.advance(e, 1)
	r.wantReplies(1, 2)
	r.want(3, core.JobDispatched)
}

// TestMessagesAreHeld: while the entity is stopped or off the hardware messages
// are taken and none is sent; the start brings them all, in order.
func TestMessagesAreHeld(t *testing.T) {
	for _, tc := range []struct {
		name       string
		begin, end Event
	}{
		{"stopped", Event{Kind: EventStop, Entity: 1}, Event{Kind: EventStart, Entity: 1}},
		{"preempted", Event{Kind: EventPreempt, Waiter: 7}, Event{Kind: EventRelease, Waiter: 7}},
		{"suspended", Event{Kind: EventGoal, Entity: 1, Goal: core.GoalSuspend}, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalRun}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{})
			e := r.entity(1)
			r.submit(e, 1, 0)
			r.must(tc.begin)
			for id := core.MessageID(1); id <= 3; id++ {
				r.mustMessage(e, id, BarrierNone)
			}
			r.wantReplies()
			r.stopped[e] = false
			r.must(tc.end)
			r.wantReplies(1, 2, 3)
			r.want(1, core.JobDispatched)
		})
	}
}

// TestMessageOfAnEnd: who waits for an answer gets one, whatever becomes of the entity.
func TestMessageOfAnEnd(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*scene)
		want []int
	}{
		{"close", func(r *scene) { r.goal(1, core.GoalClose); r.answer() }, []int{1, -2}},
		{"ban", func(r *scene) { r.fault(1, true, core.CauseTrap); r.answer() }, []int{1, -2}},
		{"instance gone", func(r *scene) { r.dev.flags.holdMessage = false; r.restart() }, []int{-1, 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{})
			e := r.entity(1)
			r.submit(e, 1, 0)
			r.dev.flags.holdMessage = true
			r.mustMessage(e, 1, BarrierNone)
			r.mustMessage(e, 2, BarrierNone)
			tc.end(r)
			r.wantReplies(tc.want...)
		})
	}
	r := newScene(t, Config{})
	e := r.entity(1)
	r.goal(e, core.GoalClose)
	r.refused(r.message(e, 1, BarrierNone), core.ErrClosed)
	r.refused(r.step(Event{Kind: EventMessage, Entity: r.entity(2), Message: core.MessageSuspend}), core.ErrInvalid)
}

// TestUnansweredMessageIsBounded: a backend that never answers a message, a
// change of properties or a barrier is started again, so that no wait is for ever.
func TestUnansweredMessageIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name  string
		event Event
	}{
		{"message", Event{Kind: EventMessage, Entity: 1, MessageID: 1, Message: core.MessageBackend + 1, Payload: []byte{1}}},
		{"properties", Event{Kind: EventProperties, Entity: 1}},
		{"stop barrier", Event{Kind: EventStop, Entity: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newScene(t, Config{Answer: time.Minute})
			e := r.entity(1)
			r.submit(e, 1, 0)
			r.dev.flags.holdMessage, r.dev.flags.holdBarrier = true, true
			r.must(tc.event)
			r.run(59 * time.Second)
			if n := len(r.restarts()); n != 0 {
				t.Fatalf("%d restarts before the bound", n)
			}
			r.dev.flags.holdMessage = false
			r.run(2 * time.Second)
			if n := len(r.restarts()); n != 1 {
				t.Fatalf("%d restarts after the bound", n)
			}
			r.stopped[e] = false
			r.must(Event{Kind: EventStart, Entity: e})
			r.run(time.Hour)
			r.want(1, core.JobDispatched)
			if n := len(r.restarts()); n != 1 {
				t.Errorf("%d restarts in the end", n)
			}
		})
	}
}

// TestAnsweredMessageIsNotBounded: an answer ends the bound.
func TestAnsweredMessageIsNotBounded(t *testing.T) {
	r := newScene(t, Config{Answer: time.Minute})
	e := r.entity(1)
	r.submit(e, 1, 0)
	for id := core.MessageID(1); id <= 3; id++ {
		r.mustMessage(e, id, BarrierNone)
		r.must(Event{Kind: EventProperties, Entity: e})
		r.run(40 * time.Second)
	}
	r.must(Event{Kind: EventStop, Entity: e})
	r.run(time.Hour)
	if why := r.restarts(); len(why) != 0 {
		t.Errorf("restarted: %v", why)
	}
}

// TestPropertiesCoalesce: any number of changes while one is under way becomes
// one message with the last values.
func TestPropertiesCoalesce(t *testing.T) {
	r := newScene(t, Config{})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.dev.flags.holdMessage = true
	for _, p := range []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityLow, core.PriorityHigh} {
		r.must(Event{Kind: EventProperties, Entity: e, Properties: core.Properties{Priority: p}})
	}
	r.dev.flags.holdMessage = false
	r.answer()
	var got []core.Priority
	for _, c := range r.commands {
		if c.Message == core.MessageSetProperties {
			got = append(got, c.Properties.Priority)
		}
	}
	if !slices.Equal(got, []core.Priority{core.PriorityLow, core.PriorityHigh}) {
		t.Errorf("sent %v, want low high", got)
	}
	r.want(1, core.JobDispatched)
}

// TestControlNeedsNoRoom: with every queue full, suspend, resume, properties and
// close still work.
func TestControlNeedsNoRoom(t *testing.T) {
	r := newScene(t, Config{QueueMax: 2, MessagesMax: 2, Credits: 1})
	e := r.entity(1)
	r.submit(e, 1, 0)
	r.submit(e, 2, 0)
	r.refused(r.try(e, 3, 0), core.ErrFull)
	r.mustMessage(e, 1, BarrierAfter)
	r.mustMessage(e, 2, BarrierAfter)
	r.refused(r.message(e, 3, BarrierNone), core.ErrFull)
	r.goal(e, core.GoalSuspend)
	if s := r.entities[e]; s.Residency != core.Away {
		t.Fatalf("suspend: %+v", s)
	}
	r.goal(e, core.GoalRun)
	r.must(Event{Kind: EventProperties, Entity: e})
	r.must(Event{Kind: EventPreempt, Waiter: 1})
	r.must(Event{Kind: EventRelease, Waiter: 1})
	r.want(1, core.JobDispatched)
	r.goal(e, core.GoalClose)
	if s := r.entities[e]; !s.Closed {
		t.Fatalf("close: %+v", s)
	}
	r.wantReplies(-1, -2)
}
