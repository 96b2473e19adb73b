package sched_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// input reads numbers from fuzzed bytes; when they are used up it gives zeroes.
type input struct{ bytes []byte }

func (in *input) next() uint64 {
	if len(in.bytes) == 0 {
		return 0
	}
	b := in.bytes[0]
	in.bytes = in.bytes[1:]
	return uint64(b)
}

func (in *input) below(n uint64) uint64 { return in.next() % n }

// FuzzStep gives a Core whatever sequence of events the bytes say, from a
// hostile plugin, a confused manager and users at once, with crashes in between:
// it never panics, and its counts and states are right after every step.
func FuzzStep(f *testing.F) {
	f.Add([]byte{1, 1, 0, 2, 1, 1, 15, 0, 17, 1, 1, 1})
	f.Add([]byte("create run started completed suspend save resume destroy"))
	f.Add([]byte{1, 1, 2, 1, 3, 15, 17, 1, 1, 1, 2, 1, 4, 17, 1, 3, 2, 3, 1, 1, 16, 15, 20, 200})
	f.Fuzz(runScript)
}

// TestStepAnything runs random scripts of the fuzz test, the same ones every time.
func TestStepAnything(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for range 3000 {
		script := make([]byte, 50+random.IntN(1500))
		for i := range script {
			script[i] = byte(random.Uint32())
		}
		runScript(t, script)
	}
}

// fuzzConfig has small limits, so that short scripts meet them.
var fuzzConfig = sched.Config{
	Credits: 4, QueueMax: 4, Answer: 50, Preempt: 30, MinRun: 2, Silence: 60, Retry: 3,
	ReplayMax: 40, ReplayJobsMax: 3, LossesMax: 3, SaveTries: 2, ExtensionsMax: 1, MessagesMax: 2,
}

// fuzzRecords are what a Core has had committed, by entity.
type fuzzRecords map[core.EntityID]*core.EntityRecord

// take commits what one step decided.
func (r fuzzRecords) take(ev *sched.Event, err error, out *sched.Batch) {
	switch {
	case err != nil:
	case ev.Kind == sched.EventRestore:
		r[ev.Entity] = &core.EntityRecord{Spec: ev.Record.Spec, State: ev.Record.State}
	case ev.Kind == sched.EventSubmit:
		e := r[ev.Spec.Entity]
		e.Jobs = append(e.Jobs, core.JobRecord{Spec: ev.Spec})
	case ev.Kind == sched.EventForget:
		delete(r, ev.Entity)
	}
	for _, s := range out.Entities {
		if e := r[s.ID]; e != nil {
			e.State = s
		}
	}
	for _, s := range out.Jobs {
		if e := r[s.Entity]; e != nil {
			e.Jobs[slices.IndexFunc(e.Jobs, func(j core.JobRecord) bool { return j.Spec.ID == s.ID })].State = s
		}
	}
}

// restart returns a Core rebuilt from the records.
func (r fuzzRecords) restart(t *testing.T, now core.Instant, out *sched.Batch) *sched.Core {
	c := sched.New(fuzzConfig)
	for _, id := range slices.Sorted(maps.Keys(r)) {
		rec := *r[id]
		ev := sched.Event{Kind: sched.EventRestore, Now: now, Entity: id, Record: &rec}
		if err := c.Step(&ev, out); err != nil {
			t.Fatal(err)
		}
		fuzzRecords{id: r[id]}.take(&sched.Event{}, nil, out)
	}
	return c
}

func runScript(t *testing.T, script []byte) {
	in := &input{bytes: script}
	c := sched.New(fuzzConfig)
	records := make(fuzzRecords)
	var out sched.Batch
	now := core.Instant(1)
	seq := make(map[core.EntityID]core.JobSeq)
	commands := make(map[core.EntityID]core.Command)
	for len(in.bytes) > 0 {
		now += core.Instant(in.below(8))
		if in.below(32) == 31 {
			c = records.restart(t, now, &out)
		}
		ev := fuzzEvent(in, seq, commands)
		ev.Now = now
		err := c.Step(&ev, &out)
		records.take(&ev, err, &out)
		if ev.Kind == sched.EventSubmit && err == nil {
			seq[ev.Spec.Entity] = ev.Spec.Seq
		}
		if ev.Kind == sched.EventRestore && err == nil {
			seq[ev.Entity] = 0
		}
		for i := range out.Commands {
			commands[out.Commands[i].Entity] = out.Commands[i]
		}
		if err := c.Check(); err != nil {
			t.Fatalf("after event kind %d: %v", ev.Kind, err)
		}
		if at := c.Next(); at != 0 && in.below(8) == 0 {
			now = max(now, at)
		}
	}
}

// fuzzEvent reads one event. What a backend says is near the truth half of the
// time, so that scripts get somewhere.
func fuzzEvent(in *input, seq map[core.EntityID]core.JobSeq, commands map[core.EntityID]core.Command) sched.Event {
	ev := sched.Event{
		Kind: sched.EventKind(in.below(uint64(sched.EventTick) + 2)), Entity: core.EntityID(1 + in.below(3)),
		Waiter: in.below(3), Message: core.MessageBackend + core.MessageKind(in.below(2)),
	}
	id := ev.Entity
	ev.Job = core.JobID(uint64(id)*100 + in.below(6))
	ev.Fence = core.Fence{Timeline: core.EntityID(in.below(6)), Seq: core.JobSeq(in.below(6))}
	switch ev.Kind {
	case sched.EventRestore:
		spec := core.EntitySpec{ID: id, Name: "e", Mode: []core.Mode{core.ModeCompute, core.ModeLongRunning}[in.below(2)]}
		spec.OnFailure = []core.OnFailure{core.OnFailureStop, core.OnFailureContinue}[in.below(2)]
		spec.Properties.Checkpoint = time.Duration(in.below(30))
		ev.Record = &core.EntityRecord{Spec: spec, State: core.EntityState{
			ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1,
		}}
	case sched.EventSubmit:
		s := &core.JobSpec{
			ID: core.JobID(uint64(id)*100) + core.JobID(seq[id]+1), Entity: id, Seq: seq[id] + 1, Name: "j",
			Grid: [3]uint32{1 + uint32(in.below(5)), 1, 1}, Credits: uint32(in.below(6)), Flush: in.below(3) == 0,
			Timeout: time.Duration(in.below(20)), QueueTimeout: time.Duration(in.below(40)),
		}
		if in.below(2) == 0 {
			s.Depends = []core.Dependency{{Fence: ev.Fence, OnFailure: core.DependencyCancel}, {Fence: ev.Fence}}
		}
		ev.Spec, ev.OnRecord = s, in.below(2) == 0
	case sched.EventGoal:
		ev.Goal = []core.Goal{core.GoalRun, core.GoalSuspend, core.GoalClose, "nonsense"}[in.below(4)]
	case sched.EventExtend:
		ev.By = time.Duration(in.below(9)) - 1
	case sched.EventMessage:
		ev.Barrier = sched.Barrier(in.below(3))
	case sched.EventPreempt:
		if in.below(2) == 0 {
			ev.Entities = []core.EntityID{id}
		}
	case sched.EventLimits:
		ev.Credits = uint32(in.below(6))
	case sched.EventUp:
		for range in.below(4) {
			c := commands[core.EntityID(1+in.below(4))]
			ev.Held = append(ev.Held, sched.Held{Entity: c.Entity, Epoch: c.Epoch - core.Epoch(in.below(2)), Applied: core.CommandSeq(in.below(12))})
		}
	case sched.EventGone:
		ev.Usage = map[core.UsageKey]uint64{{Job: ev.Job, Epoch: core.Epoch(in.below(4))}: in.next()}
	case sched.EventBackend:
		ev.Backend = fuzzReport(in, commands[id], ev.Job)
	case sched.EventSaved, sched.EventSaveFailed:
		ev.Epoch, ev.Generation = commands[id].Epoch, core.Generation(2+in.below(4))
		ev.ImageJobs = []core.ImageJob{{Job: ev.Job, Cursor: in.next(), Executed: in.next(), ExecutedTime: time.Duration(in.next())}}
		if in.below(4) == 0 {
			ev.OutputError = "no space"
		}
	}
	return ev
}

func fuzzReport(in *input, last core.Command, job core.JobID) *core.BackendEvent {
	ev := &core.BackendEvent{
		Kind: core.BackendEventKind(in.below(uint64(core.EventProgress) + 2)), Seq: core.EventSeq(in.next()),
		Entity: last.Entity, Epoch: last.Epoch, Command: last.Seq, Job: job,
		Done: in.next(), Executed: in.next(), ExecutedTime: time.Duration(in.next()) - 1, Guilty: in.below(2) == 0,
	}
	switch in.below(4) {
	case 0:
		ev.Command = core.CommandSeq(in.below(16))
	case 1:
		ev.Job = last.Job
	case 2:
		ev.Epoch -= core.Epoch(in.below(2))
	}
	return ev
}
