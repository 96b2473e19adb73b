package sched

import (
	"fmt"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestSilentBackendIsRestarted: a backend that says nothing of a job that executes is restarted,
// and its entity is a victim; an idle entity may be silent.
func TestSilentBackendIsRestarted(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1, Mode: core.ModeLongRunning})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 3))
	r.finish()
	for range 20 {
		r.tick(100 * time.Millisecond)
		r.quiet()
	}
	if r.entities[1].Epoch != 1 {
		t.Fatal("an idle entity was restarted for its silence")
	}
	r.mustSubmit(t, bedJobSpec(1, 2, 30))
	r.quiet()
	r.execute(1, 1)
	r.quiet()
	for range 5 {
		r.tick(200 * time.Millisecond) // less than the bound, and something is heard each time
		r.progress(1)
	}
	if r.restarts != 0 {
		t.Fatal("restarted although it reports")
	}
	r.tick(299 * time.Millisecond)
	if r.restarts != 0 {
		t.Fatal("restarted too early")
	}
	r.tick(time.Millisecond)
	if r.restarts != 1 {
		t.Fatalf("%d restarts, want 1", r.restarts)
	}
	r.finish()
	r.check(t, 102, core.JobCompleted, core.CauseNone)
	if r.entities[1].Faults != 0 || r.entities[1].Epoch != 2 {
		t.Errorf("faults %d, epoch %d; want a victim in its second life", r.entities[1].Faults, r.entities[1].Epoch)
	}
	r.clean(t)
}

// TestLatePreemptionSparesNeighbours: who does not leave the hardware in time is guilty, its
// neighbours are victims.
func TestLatePreemptionSparesNeighbours(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1, Mode: core.ModeLongRunning}, core.EntitySpec{ID: 2})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9), bedJobSpec(1, 2, 9), bedJobSpec(2, 1, 9))
	r.quiet()
	r.execute(1, 2)
	r.execute(2, 2)
	r.quiet()
	r.tick(6 * time.Millisecond)
	r.must(t, Event{Kind: EventPreempt, Waiter: 1, Entities: []core.EntityID{1}})
	for r.commit() {
	}
	r.device.queue = nil // the suspend is never carried out
	r.tick(bedConfig.Preempt / 2)
	r.progress(2) // the neighbour is well
	r.tick(bedConfig.Preempt / 2)
	r.commit() // who is to blame is on record before the instance is ended
	if r.restarts != 1 {
		t.Fatalf("%d restarts after the bound, want 1", r.restarts)
	}
	r.must(t, Event{Kind: EventRelease, Waiter: 1})
	r.finish()
	r.check(t, 101, core.JobFailed, core.CauseHang)
	r.check(t, 102, core.JobCancelled, core.CauseEarlier)
	r.check(t, 201, core.JobCompleted, core.CauseNone)
	if !r.entities[1].Banned || r.entities[2].Faults != 0 {
		t.Error("the guilty one is to be banned, the victim is not to blame")
	}
	r.clean(t)
}

func (r *bed) say(id core.MessageID, b Barrier) error {
	return r.step(Event{Kind: EventMessage, Entity: 1, MessageID: id, Message: core.MessageBackend, Barrier: b, Payload: fmt.Append(nil, id)})
}

// TestMessagesOverALife: first in, first out; barriers; a limit; held while away; the
// reply that is lost with the instance; close.
func TestMessagesOverALife(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	replies := func(want string) {
		t.Helper()
		r.quiet()
		got := ""
		for _, n := range r.heard(MessageReplied) {
			got += fmt.Sprintf("%d %q %v;", n.Message, n.Reply, n.Error == "")
		}
		if got != want {
			t.Fatalf("replies %s, want %s", got, want)
		}
	}
	r.refuses(t, core.ErrInvalid, Event{Kind: EventMessage, Entity: 1, Message: core.MessageSuspend})
	blocked := bedJobSpec(1, 1, 2, depends("", core.Fence{Timeline: 9, Seq: 1}))
	r.mustSubmit(t, blocked)
	for i, b := range []Barrier{BarrierNone, BarrierAfter, BarrierBefore} {
		if err := r.say(core.MessageID(i+1), b); err != nil {
			t.Fatal(err)
		}
	}
	r.refuses(t, core.ErrFull, Event{Kind: EventMessage, Entity: 1, Message: core.MessageBackend})
	r.mustSubmit(t, bedJobSpec(1, 2, 2))
	replies("") // held: there is no instance
	r.start()
	replies(`1 "re: 1" true;`) // it passes the blocked job
	r.must(t, Event{Kind: EventSignal, Fence: core.Fence{Timeline: 9, Seq: 1}})
	r.quiet()
	if n := len(r.device.entities[1].ring); n != 1 {
		t.Fatalf("%d jobs in the ring, want the first only: the second follows a message", n)
	}
	replies(`1 "re: 1" true;`) // the third stands behind the second, which waits for the job
	r.execute(1, 2)
	replies(`1 "re: 1" true;2 "re: 2" true;3 "re: 3" true;`)
	if n := len(r.device.entities[1].ring); n != 1 {
		t.Fatalf("%d jobs in the ring, want the second", n)
	}
	r.finish()
	r.checkOrder(t, 1, 101, 102)

	r.notices = nil
	for id := range core.MessageID(2) {
		if err := r.say(id+4, BarrierNone); err != nil {
			t.Fatal(err)
		}
	}
	for r.commit() {
	}
	r.gone() // with the reply to the first; the second was not sent
	replies(`4 "" false;`)
	r.start()
	replies(`4 "" false;5 "re: 5" true;`)

	r.notices = nil
	_ = r.say(6, BarrierNone)
	_ = r.say(7, BarrierNone)
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalClose})
	r.refuses(t, core.ErrClosed, Event{Kind: EventMessage, Entity: 1, Message: core.MessageBackend})
	r.quiet()
	if n := len(r.heard(MessageReplied)); n != 2 {
		t.Fatalf("%d answers after the close, want one for each of 2 messages", n)
	}
	r.clean(t)
}

func (r *bed) readies() string {
	got := ""
	for _, n := range r.heard(PreemptReady) {
		got += fmt.Sprintf("%d ", n.Waiter)
	}
	return got
}

// TestWavesHoldUntilAllLetGo: a waiter hears once that all it waits for are off the hardware;
// none of them executes before the release, whoever else lets go; and those that
// are away, or new, do not begin meanwhile.
func TestWavesHoldUntilAllLetGo(t *testing.T) {
	specs := []core.EntitySpec{{ID: 1, Mode: core.ModeLongRunning}, {ID: 2, Mode: core.ModeLongRunning}}
	r := newBed(bedConfig, specs...)
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9), bedJobSpec(2, 1, 9))
	r.quiet()
	r.execute(1, 1)
	r.execute(2, 1)
	r.tick(6 * time.Millisecond)
	r.must(t, Event{Kind: EventPreempt, Waiter: 7, Entities: []core.EntityID{1}})
	r.must(t, Event{Kind: EventPreempt, Waiter: 3})
	r.refuses(t, core.ErrExists, Event{Kind: EventPreempt, Waiter: 3})
	r.refuses(t, core.ErrNotFound, Event{Kind: EventPreempt, Waiter: 4, Entities: []core.EntityID{9}})
	if r.readies() != "" {
		t.Fatal("told before anybody was off")
	}
	r.quiet()
	if got := r.readies(); got != "7 3 " && got != "3 7 " {
		t.Fatalf("told: %s, want 7 and 3 once", got)
	}
	r.addEntity(core.EntitySpec{ID: 3})
	r.mustSubmit(t, bedJobSpec(3, 1, 2))
	r.quiet()
	r.checkResidency(t, 3, core.Away) // it joined the wave of all
	r.must(t, Event{Kind: EventRelease, Waiter: 3})
	r.quiet()
	r.checkResidency(t, 1, core.Suspended) // the other waiter still needs it off
	r.checkResidency(t, 2, core.Resident)
	r.checkResidency(t, 3, core.Resident)
	r.must(t, Event{Kind: EventRelease, Waiter: 7})
	r.must(t, Event{Kind: EventRelease, Waiter: 7}) // a repeat has no effect
	r.finish()
	for _, id := range []core.JobID{101, 201, 301} {
		r.check(t, id, core.JobCompleted, core.CauseNone)
	}
	if g := r.entities[1].Generation; g != 1 {
		t.Errorf("a preemption wrote image %d", g)
	}
	r.clean(t)
}

// TestWaveTakesNoJobsHostage: a job that is cancelled while its entity waits
// off the hardware gets its outcome there, and a checkpoint is taken there.
func TestWaveTakesNoJobsHostage(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1, Mode: core.ModeLongRunning, Properties: core.Properties{Checkpoint: 25 * time.Millisecond}})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9))
	r.quiet()
	r.execute(1, 1)
	r.tick(6 * time.Millisecond)
	r.must(t, Event{Kind: EventPreempt, Waiter: 1})
	r.quiet()
	r.tick(30 * time.Millisecond)
	r.quiet()
	if g := r.entities[1].Generation; g != 2 {
		t.Fatalf("image generation %d while it waits, want 2", g)
	}
	r.must(t, Event{Kind: EventCancel, Entity: 1, Job: 101})
	r.quiet()
	r.check(t, 101, core.JobCancelled, core.CauseUser)
	r.checkResidency(t, 1, core.Suspended)
	r.clean(t)
}

// TestMinimumRunBetweenSuspends: an entity executes for a while between two suspends, unless
// it is closed.
func TestMinimumRunBetweenSuspends(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1, Mode: core.ModeLongRunning}, core.EntitySpec{ID: 2})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9), bedJobSpec(2, 1, 9))
	r.quiet()
	r.tick(4 * time.Millisecond)
	r.must(t, Event{Kind: EventPreempt, Waiter: 1})
	r.must(t, Event{Kind: EventGoal, Entity: 2, Goal: core.GoalClose})
	r.quiet()
	r.checkResidency(t, 1, core.Resident)
	r.checkResidency(t, 2, core.Away)
	if next := r.core.Next(); next != r.now.Add(time.Millisecond) {
		t.Fatalf("next tick in %s, want 1ms", next.Sub(r.now))
	}
	r.tick(time.Millisecond)
	r.quiet()
	r.checkResidency(t, 1, core.Suspended)
}

// stopIn brings a fresh entity with a running job into a residency.
func stopIn(t *testing.T, to core.Residency) *bed {
	t.Helper()
	r := newBed(bedConfig, core.EntitySpec{ID: 1, Mode: core.ModeLongRunning})
	r.mustSubmit(t, bedJobSpec(1, 1, 9))
	for r.commit() {
	}
	if to == core.Away {
		return r
	}
	r.start()
	if to != core.Creating {
		r.quiet()
		r.execute(1, 1)
		r.quiet()
		r.tick(6 * time.Millisecond)
	}
	switch to {
	case core.Suspending, core.Suspended, core.Resuming:
		r.must(t, Event{Kind: EventPreempt, Waiter: 1})
		if to != core.Suspending {
			r.quiet()
		}
		if to == core.Resuming {
			r.must(t, Event{Kind: EventRelease, Waiter: 1})
		}
	case core.Saving, core.Leaving:
		r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalSuspend})
		for len(r.saves) == 0 {
			if !r.commit() && !r.take(false) {
				r.deliver()
			}
		}
		if to == core.Leaving {
			r.save(nil, nil)
			for r.commit() {
			}
		}
	}
	for r.commit() {
	}
	r.checkResidency(t, 1, to)
	return r
}

var residenciesAll = []core.Residency{
	core.Away, core.Creating, core.Resident, core.Suspending, core.Suspended, core.Saving, core.Resuming, core.Leaving,
}

// TestStopInEveryResidency: in every residency a stop ends with one notice, no command
// follows it, and the start lets all go on as if nothing had been.
func TestStopInEveryResidency(t *testing.T) {
	for _, residency := range residenciesAll {
		t.Run(string(residency), func(t *testing.T) {
			r := stopIn(t, residency)
			r.must(t, Event{Kind: EventStop, Entity: 1})
			r.must(t, Event{Kind: EventStop, Entity: 1}) // a repeat has no effect
			r.quiet()
			if n := len(r.heard(Stopped)); n != 1 {
				t.Fatalf("%d Stopped notices, want 1", n)
			}
			commands := r.carried
			r.mustSubmit(t, bedJobSpec(1, 2, 3))
			r.must(t, Event{Kind: EventMessage, Entity: 1, MessageID: 1, Message: core.MessageBackend})
			r.must(t, Event{Kind: EventProperties, Entity: 1, Properties: core.Properties{Priority: core.PriorityHigh}})
			r.must(t, Event{Kind: EventCancel, Entity: 1, Job: 101})
			r.quiet()
			r.lose(1, false) // what reports say is taken, and decided at the start
			r.quiet()
			r.tick(50 * time.Millisecond)
			r.quiet()
			if r.carried != commands {
				t.Fatalf("%d commands left while it was stopped", r.carried-commands)
			}
			r.must(t, Event{Kind: EventStart, Entity: 1})
			r.must(t, Event{Kind: EventStart, Entity: 1})
			r.must(t, Event{Kind: EventRelease, Waiter: 1})
			r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalRun})
			if r.device == nil {
				r.start()
			}
			r.finish()
			r.check(t, 101, core.JobCancelled, core.CauseUser)
			if !r.jobs[102].Phase.Final() {
				t.Errorf("job 102 is %s", r.jobs[102].Phase)
			}
			r.clean(t)
		})
	}
}

// TestStopSurvivesTheInstance: a stop whose barrier was under way when the
// instance ended is reached: nothing can happen any more.
func TestStopSurvivesTheInstance(t *testing.T) {
	for _, residency := range residenciesAll[1:] {
		t.Run(string(residency), func(t *testing.T) {
			r := stopIn(t, residency)
			r.must(t, Event{Kind: EventStop, Entity: 1})
			r.gone()
			for r.commit() {
			}
			if n := len(r.heard(Stopped)); n != 1 {
				t.Fatalf("%d Stopped notices, want 1", n)
			}
			r.start()
			r.quiet()
			r.checkResidency(t, 1, core.Away)
		})
	}
}

// TestLastPropertiesArrive: changes while a message is under way become one, the
// last; an entity that is away gets them with its create.
func TestLastPropertiesArrive(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	r.start()
	r.mustSubmit(t, bedJobSpec(1, 1, 9))
	set := func(p core.Priority) {
		r.must(t, Event{Kind: EventProperties, Entity: 1, Properties: core.Properties{Priority: p}})
		for r.commit() {
		}
	}
	set(core.PriorityLow)
	if p := r.device.queue[0].Properties.Priority; r.device.queue[0].Kind != core.CommandCreate || p != "" {
		t.Fatalf("first command %+v, want the create as it was asked for", r.device.queue[0])
	}
	r.quiet()
	set(core.PriorityNormal)
	set(core.PriorityHigh)
	set(core.PriorityLow)
	var got []core.Priority
	for range 50 {
		if len(r.device.queue) > 0 && r.device.queue[0].Message == core.MessageSetProperties {
			got = append(got, r.device.queue[0].Properties.Priority)
		}
		if !r.take(false) && !r.deliver() {
			r.commit()
		}
	}
	if fmt.Sprint(got) != "[normal low]" {
		t.Errorf("sent %v, want normal and then only the last", got)
	}
	r.clean(t)
}

// TestStaleSave: the answer to a save of an earlier life says nothing of the
// present one, whose image has the same number.
func TestStaleSave(t *testing.T) {
	r := stopIn(t, core.Saving)
	old := r.saves[0]
	r.gone()
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalRun})
	r.start()
	r.quiet()
	r.tick(6 * time.Millisecond)
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalSuspend})
	for len(r.saves) == 0 {
		if !r.commit() && !r.take(false) {
			r.deliver()
		}
	}
	if r.saves[0].Generation != old.Generation || r.saves[0].Epoch == old.Epoch {
		t.Fatalf("saves %+v and %+v, want the same generation in two epochs", old, r.saves[0])
	}
	for _, kind := range []EventKind{EventSaved, EventSaveFailed} {
		r.must(t, Event{Kind: kind, Entity: 1, Epoch: old.Epoch, Generation: old.Generation,
			ImageJobs: []core.ImageJob{{Job: 101, Cursor: 9}}})
		for r.commit() {
		}
		r.checkResidency(t, 1, core.Saving)
	}
	if r.jobs[101].Cursor != 0 {
		t.Errorf("cursor %d from a life that has ended", r.jobs[101].Cursor)
	}
	r.finish()
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalRun})
	r.finish()
	r.check(t, 101, core.JobCompleted, core.CauseNone)
	r.clean(t)
}
