package sched

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"pgregory.net/rapid"
)

// modelStep is one step of a script: what happens, to which entity, and two
// numbers whose meaning depends on it. A script is drawn whole, then run.
type modelStep struct {
	Op      string
	Entity  int
	N, M    int
	Advance time.Duration
}

// modelOps are what a script is made of, each as often as it stands here.
var modelOps = []string{
	"submit", "submit", "submit", "submit", "cancel", "goal", "goal-run", "extend", "message", "preempt", "release",
	"stop", "start", "limits", "signal", "refuse", "lose", "gone", "up", "up", "tick", "save-fail",
	"commit", "commit", "commit", "commit", "commit", "commit", "take", "take", "take", "take", "take",
	"deliver", "deliver", "deliver", "deliver", "deliver", "execute", "execute", "execute", "execute", "progress",
	"save", "save", "health", "flow", "flow", "flow", "flow", "flow",
}

// TestModel draws whole scripts and runs each against the Core and the model:
// after every event both must have sent the same commands, given the same
// outcomes in the same order, answered the same messages, told the same waiters,
// and recorded the same states. It runs 1,000 scripts; for 100,000:
//
//	go test -run TestModel ./core/sched -rapid.checks=100000 -timeout 1h
func TestModel(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	if given := checks.Value.String(); given == checks.DefValue {
		_ = flag.Set("rapid.checks", "1000")
		t.Cleanup(func() { _ = flag.Set("rapid.checks", given) })
	}
	step := rapid.Custom(func(t *rapid.T) modelStep {
		return modelStep{
			Op: rapid.SampledFrom(modelOps).Draw(t, "op"), Entity: rapid.IntRange(0, 2).Draw(t, "entity"),
			N: rapid.IntRange(0, 63).Draw(t, "n"), M: rapid.IntRange(0, 15).Draw(t, "m"),
			Advance: rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, 6 * time.Millisecond, 30 * time.Millisecond, 600 * time.Millisecond}).Draw(t, "advance"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		// The length is drawn by itself: left to itself rapid makes scripts of six steps.
		length := rapid.IntRange(1, 150).Draw(t, "length")
		script := rapid.SliceOfN(step, length, length).Draw(t, "script")
		d := newDuel()
		for i, s := range script {
			d.run(s)
			if d.difference != "" {
				t.Fatalf("step %d %+v: %s", i, s, d.difference)
			}
			if d.tied {
				return
			}
		}
		d.end()
		if d.difference != "" {
			t.Fatalf("at the end: %s", d.difference)
		}
	})
}

// duel runs the Core and the model side by side.
type duel struct {
	bed        *bed
	model      *model
	seen       map[core.EntityID]core.CommandSeq // the highest command sent, to leave out repeats
	records    map[core.EntityID]core.EntityState
	jobs       map[core.JobID]core.JobState
	messages   core.MessageID
	difference string
	// tied ends the comparison without a verdict.
	tied bool
}

func newDuel() *duel {
	d := &duel{
		bed: newBed(bedConfig), model: &model{config: bedConfig.withDefaults(), foreign: map[core.Fence]bool{}},
		seen: map[core.EntityID]core.CommandSeq{}, records: map[core.EntityID]core.EntityState{}, jobs: map[core.JobID]core.JobState{},
	}
	d.bed.onStep = d.compare
	d.bed.addEntity(core.EntitySpec{ID: 1, Mode: core.ModeCompute})
	d.bed.addEntity(core.EntitySpec{ID: 2, Mode: core.ModeCompute, OnFailure: core.OnFailureContinue})
	d.bed.addEntity(core.EntitySpec{ID: 3, Mode: core.ModeLongRunning, OnFailure: core.OnFailureContinue,
		Properties: core.Properties{Checkpoint: 25 * time.Millisecond}})
	d.bed.start()
	return d
}

func (d *duel) run(s modelStep) {
	b := d.bed
	id := core.EntityID(s.Entity + 1)
	b.tick(s.Advance + 1) // no two things happen at the same instant
	switch s.Op {
	case "submit":
		spec := d.spec(id, s)
		if b.step(Event{Kind: EventSubmit, Spec: spec, OnRecord: s.M%4 == 3}) == nil {
			b.jobSpecs = append(b.jobSpecs, spec)
		}
	case "cancel", "extend":
		job := core.JobID(100*uint64(id) + uint64(s.M) + 1)
		if s.Op == "cancel" {
			_ = b.step(Event{Kind: EventCancel, Entity: id, Job: job})
		} else {
			_ = b.step(Event{Kind: EventExtend, Entity: id, Job: job, By: time.Duration(s.N) * time.Millisecond})
		}
	case "goal":
		goals := []core.Goal{core.GoalRun, core.GoalSuspend, core.GoalSuspend, core.GoalRun}
		if s.N == 63 {
			goals[s.M%4] = core.GoalClose
		}
		_ = b.step(Event{Kind: EventGoal, Entity: id, Goal: goals[s.M%4]})
	case "goal-run":
		_ = b.step(Event{Kind: EventGoal, Entity: id, Goal: core.GoalRun})
	case "message":
		d.messages++
		_ = b.step(Event{Kind: EventMessage, Entity: id, MessageID: d.messages, Message: core.MessageBackend, Barrier: Barrier(s.N % 3)})
	case "preempt":
		ev := Event{Kind: EventPreempt, Waiter: uint64(s.M % 3), Away: s.N%4 == 1}
		if s.N%3 != 0 {
			ev.Entities = []core.EntityID{id}
		}
		_ = b.step(ev)
	case "release":
		_ = b.step(Event{Kind: EventRelease, Waiter: uint64(s.M % 3)})
	case "stop":
		if s.N%3 == 0 {
			_ = b.step(Event{Kind: EventStop, Entity: id})
		}
	case "start":
		_ = b.step(Event{Kind: EventStart, Entity: id})
	case "limits":
		_ = b.step(Event{Kind: EventLimits, Credits: uint32(1 + s.N%5)})
	case "signal":
		failure := ""
		if s.N%2 == 0 {
			failure = "job of another device failed"
		}
		_ = b.step(Event{Kind: EventSignal, Fence: core.Fence{Timeline: 9, Seq: core.JobSeq(1 + s.M%4)}, Error: failure})
	default:
		d.device(id, s)
	}
}

// device are the steps that the device, the disk and the instance take.
func (d *duel) device(id core.EntityID, s modelStep) {
	b := d.bed
	switch s.Op {
	case "refuse":
		b.take(true)
	case "lose":
		if s.N%4 < 2 {
			b.lose(id, s.N%4 == 0)
		}
	case "gone":
		if s.N%4 == 0 && b.device != nil {
			b.gone()
		}
	case "up":
		if b.restarts > 0 && b.device != nil {
			b.gone()
		}
		if b.device == nil || s.N%8 == 0 {
			b.start()
		}
	case "save-fail":
		b.save(errDisk, nil)
	case "commit":
		b.commit()
	case "take":
		b.take(false)
	case "deliver":
		b.deliver()
	case "execute":
		b.execute(id, uint64(1+s.N%8))
	case "progress":
		b.progress(id)
	case "save":
		var output error
		if s.N%8 == 0 {
			output = errDisk
		}
		b.save(nil, output)
	case "health":
		if s.N%8 == 0 && b.device != nil {
			b.report(core.BackendEvent{Kind: core.EventDeviceHealth, Error: "overheated"})
		}
	case "flow": // a while in which all goes well
		for range 1 + s.N%16 {
			if !b.commit() && !b.take(false) && !b.deliver() && !b.save(nil, nil) {
				b.execute(id, uint64(1+s.M%4))
			}
		}
	}
}

// spec makes the entity's next job.
func (d *duel) spec(id core.EntityID, s modelStep) *core.JobSpec {
	seq := core.JobSeq(1)
	for _, j := range d.bed.jobSpecs {
		if j.Entity == id {
			seq = j.Seq + 1
		}
	}
	return bedJobSpec(id, seq, uint32(1+s.N%20), func(j *core.JobSpec) {
		j.Credits = uint32(1 + s.M%4)
		j.Flush = s.N%5 == 0
		if s.N%3 == 0 {
			j.Timeout = time.Duration(1+s.M) * time.Millisecond
		}
		if s.N%7 == 0 {
			j.QueueTimeout = 20 * time.Millisecond
		}
		policies := []core.DependencyPolicy{"", core.DependencyFail, core.DependencyCancel, core.DependencyIgnore}
		for k := range s.M % 3 {
			timeline := core.EntityID(1 + (s.N+k)%3)
			if s.N%8 == 0 {
				timeline = 9 // of another device
			}
			back := core.JobSeq(1 + (s.N+s.M)%3)
			last := core.JobSeq(0)
			for _, other := range d.bed.jobSpecs {
				if other.Entity == timeline {
					last = other.Seq
				}
			}
			f := core.Fence{Timeline: timeline, Seq: max(1, last+1-min(last, back))}
			j.Depends = append(j.Depends, core.Dependency{Fence: f, OnFailure: policies[(s.N+k)%4]})
		}
	})
}

// compare gives the model the event that the Core just took, and compares.
func (d *duel) compare(ev *Event, batch *Batch, err error) {
	if d.difference != "" || d.tied {
		return
	}
	ok := d.model.step(ev)
	if next := d.bed.core.Next(); ev.Kind == EventTick && next != 0 && next <= ev.Now {
		d.difference = fmt.Sprintf("after a tick at %d the next is due at %d: who waits for it never sleeps", ev.Now, next)
	}
	d.expect("accepted", ok, err == nil)
	sent, told, states, reply := map[core.EntityID][]string{}, map[core.EntityID][]string{}, map[core.EntityID][]string{}, map[core.EntityID][]string{}
	for _, c := range batch.Commands {
		if c.Seq <= d.seen[c.Entity] {
			continue // repeated in a new session
		}
		d.seen[c.Entity] = c.Seq
		sent[c.Entity] = append(sent[c.Entity], fmt.Sprintf("%d/%d %s", c.Epoch, c.Seq, modelCommand(&c)))
	}
	var ready []string
	for _, n := range batch.Notices {
		switch n.Kind {
		case JobChanged:
			told[n.Entity] = append(told[n.Entity], fmt.Sprintf("job %d %s %s", n.Job, n.Phase, n.Cause))
		case EntityChanged:
			states[n.Entity] = append(states[n.Entity], fmt.Sprintf("%s %s %d", n.State, n.Goal, n.Image))
		case MessageReplied:
			reply[n.Entity] = append(reply[n.Entity], fmt.Sprintf("%d %v", n.Message, n.Error == ""))
		case Stopped:
			reply[n.Entity] = append(reply[n.Entity], "stopped")
		case OrderViolated:
			reply[n.Entity] = append(reply[n.Entity], "violated")
		case PreemptReady:
			ready = append(ready, fmt.Sprint(n.Waiter, n.Error == ""))
		}
	}
	restarts := 0
	for _, f := range batch.Effects {
		if f.Kind == EffectRestart {
			restarts++
		}
	}
	slices.Sort(d.model.ready)
	slices.Sort(ready)
	d.expect("waves told of", fmt.Sprint(d.model.ready), fmt.Sprint(ready))
	d.expect("restarts", d.model.restarts, restarts)
	for _, e := range d.model.entities {
		if len(told) > 1 && tie(e.told, told[e.spec.ID]) {
			d.tied = true
			return
		}
	}
	for _, e := range d.model.entities {
		id := e.spec.ID
		d.expectList(id, "commands", e.sent, sent[id])
		d.expectList(id, "jobs", e.told, told[id])
		d.expectList(id, "states", e.states, states[id])
		d.expectList(id, "answers", e.reply, reply[id])
	}
	d.compareRecords(batch)
}

// tie reports whether two lists of changes differ only in which of two causes came
// first. Jobs of several entities that end by one event have no order among each
// other, so that either is right; the two go separate ways from there.
func tie(model, core []string) bool {
	if len(model) != len(core) || slices.Equal(model, core) {
		return false
	}
	caused := []string{"dependency-failed dependency", "cancelled earlier-job", "cancelled user"}
	for i := range model {
		if model[i] == core[i] {
			continue
		}
		a, b := strings.SplitN(model[i], " ", 3), strings.SplitN(core[i], " ", 3) // "job 101 <phase> <cause>"
		if a[1] != b[1] || !slices.Contains(caused, a[2]) || !slices.Contains(caused, b[2]) {
			return false
		}
	}
	return true
}

// compareRecords compares what a restart would find.
func (d *duel) compareRecords(batch *Batch) {
	for _, s := range batch.Entities {
		d.records[s.ID] = s
	}
	for _, s := range batch.Jobs {
		d.jobs[s.ID] = s
	}
	for _, e := range d.model.entities {
		s := d.records[e.spec.ID]
		if s.ID == 0 {
			continue
		}
		d.expect(fmt.Sprintf("record of entity %d", s.ID),
			fmt.Sprint(e.residency, e.goal, e.epoch, e.generation, e.saving, e.cut, e.halted, e.banned, e.closed, e.faults, e.pending),
			fmt.Sprint(s.Residency, s.Goal, s.Epoch, s.Generation, s.Saving, s.Cut, s.Halted, s.Banned, s.Closed, s.Faults, s.Pending))
		for _, j := range e.jobs {
			r := d.jobs[j.spec.ID]
			if j.spec.Seq <= e.cut {
				r.Run, r.Cancel, r.Cursor = j.run, j.cancel, j.cursor // nobody reads them any more
			}
			d.expect(fmt.Sprintf("record of job %d", j.spec.ID),
				fmt.Sprint(j.phase, j.cause, j.stopping, j.run, j.cancel, j.cursor, j.extended),
				fmt.Sprint(r.Phase, r.Cause, r.Stopping, r.Run, r.Cancel, r.Cursor, r.Extended))
		}
	}
}

func (d *duel) expect(what string, model, got any) {
	if d.difference == "" && model != got {
		d.difference = fmt.Sprintf("%s: the model says %v, the core %v", what, model, got)
	}
}

func (d *duel) expectList(id core.EntityID, what string, model, got []string) {
	d.expect(fmt.Sprintf("%s of entity %d", what, id), strings.Join(model, ", "), strings.Join(got, ", "))
}

func modelCommand(c *core.Command) string {
	switch c.Kind {
	case core.CommandCreate:
		return fmt.Sprintf("create %d", c.Generation)
	case core.CommandRun:
		return fmt.Sprintf("run %d from %d", c.Job, c.First)
	case core.CommandCancel:
		return fmt.Sprintf("cancel %d", c.Job)
	case core.CommandDestroy:
		return "destroy"
	}
	return fmt.Sprintf("message %d", c.Message)
}

// end lets everything heal, and sees that nothing stays without an outcome.
func (d *duel) end() {
	b := d.bed
	for w := range uint64(3) {
		_ = b.step(Event{Kind: EventRelease, Waiter: w})
	}
	for seq := range core.JobSeq(4) {
		_ = b.step(Event{Kind: EventSignal, Fence: core.Fence{Timeline: 9, Seq: seq + 1}})
	}
	for range 3 {
		for _, id := range b.order {
			_ = b.step(Event{Kind: EventStart, Entity: id})
			_ = b.step(Event{Kind: EventGoal, Entity: id, Goal: core.GoalRun})
		}
		b.gone()
		b.start()
		b.finish()
	}
	for range 20 { // pauses before new attempts end
		b.tick(50 * time.Millisecond)
		b.quiet()
	}
	if len(b.problems) > 0 && d.difference == "" {
		d.difference = strings.Join(b.problems, "; ")
	}
	for _, s := range b.jobSpecs {
		d.expect(fmt.Sprintf("job %d has an outcome", s.ID), true, b.jobs[s.ID].Phase.Final())
	}
	for _, e := range d.model.entities {
		d.expect(fmt.Sprintf("messages of entity %d left", e.spec.ID), 0, len(e.messages))
	}
}
