package sched

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// bench is a Core whose backend and store answer at once.
type bench struct {
	core  *Core
	out   Outbox
	batch Batch
	ev    Event
	be    core.BackendEvent
	specs []core.JobSpec
	last  []core.JobSeq
	cmds  []core.Command
	saves []Effect
	now   core.Instant
}

func (b *bench) Command(c *core.Command) { b.cmds = append(b.cmds, *c) }
func (b *bench) Effect(f *Effect) {
	if f.Kind == EffectSave {
		b.saves = append(b.saves, *f)
	}
}
func (b *bench) Notice(*Notice)    {}
func (b *bench) Ack(core.EventSeq) {}

func newBench(entities int) *bench {
	b := &bench{core: New(Config{Credits: 64, QueueMax: 1 << 20, Answer: time.Hour}), now: 1}
	b.step(Event{Kind: EventUp})
	for i := range entities {
		id := core.EntityID(i + 1)
		rec := core.EntityRecord{
			Spec:  core.EntitySpec{ID: id, Name: "e", Mode: core.ModeCompute},
			State: core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1},
		}
		b.step(Event{Kind: EventRestore, Record: &rec})
	}
	b.last = make([]core.JobSeq, entities+1)
	return b
}

func (b *bench) step(ev Event) {
	b.now++
	b.ev = ev
	b.ev.Now = b.now
	if err := b.core.Step(&b.ev, &b.batch); err != nil {
		panic(err)
	}
	b.out.Add(&b.batch)
	b.out.Committed(b.batch.Seq)
	b.out.Release(b)
}

func (b *bench) report(ev core.BackendEvent) {
	b.be = ev
	b.step(Event{Kind: EventBackend, Backend: &b.be})
}

// answer carries out what the core has sent, until it is quiet.
func (b *bench) answer() {
	for len(b.cmds)+len(b.saves) > 0 {
		cmds, saves := b.cmds, b.saves
		b.cmds, b.saves = nil, nil
		for _, c := range cmds {
			ev := core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job}
			switch c.Kind {
			case core.CommandCreate:
				ev.Kind = core.EventApplied
			case core.CommandRun:
				ev.Kind, ev.Done, ev.Executed = core.EventCompleted, 1, 1
			}
			b.report(ev)
		}
		for _, f := range saves {
			b.step(Event{Kind: EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation})
		}
		if len(b.cmds) == 0 {
			b.cmds = cmds[:0]
		}
	}
}

// job submits a job of one workgroup and sees it completed.
func (b *bench) job(id core.EntityID) {
	if len(b.specs) == 0 {
		b.specs = make([]core.JobSpec, 4096)
	}
	spec := &b.specs[0]
	b.specs = b.specs[1:]
	b.last[id]++
	*spec = core.JobSpec{ID: core.JobID(b.last[id]), Entity: id, Seq: b.last[id], Grid: [3]uint32{1, 1, 1}, Credits: 1}
	b.step(Event{Kind: EventSubmit, Spec: spec})
	b.answer()
}

// BenchmarkJob is submit, run, complete through core and outbox without
// dependencies, images every 10,000 jobs included. The floor of the random
// order is one cache miss after the other over the same memory: it is measured
// beside, by reading an entity's lines in the same order.
func BenchmarkJob(b *testing.B) {
	for _, entities := range []int{1, 1000, 100_000} {
		w := newBench(entities)
		for i := range entities {
			w.job(core.EntityID(i + 1)) // creates the entity on the device
		}
		b.Run(fmt.Sprintf("round-robin/entities=%d", entities), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				w.job(core.EntityID(i%entities + 1))
				i++
			}
		})
		if entities == 1 {
			continue
		}
		b.Run(fmt.Sprintf("random/entities=%d", entities), func(b *testing.B) {
			b.ReportAllocs()
			r := rand.New(rand.NewPCG(1, 2))
			for b.Loop() {
				w.job(core.EntityID(r.IntN(entities) + 1))
			}
			b.StopTimer()
			floor := missFloor(w, entities)
			b.ReportMetric(floor, "floor-ns/op")
		})
	}
}

// missFloor returns the nanoseconds of one dependent pass over an entity's state
// in random order: what the memory costs by itself.
func missFloor(w *bench, entities int) float64 {
	r := rand.New(rand.NewPCG(3, 4))
	const rounds = 200_000
	sum := 0
	begun := time.Now()
	for range rounds {
		e := w.core.entities[core.EntityID(r.IntN(entities)+1)]
		sum += e.unfinished + int(e.state.Epoch) + int(e.due) + e.losses
		if len(e.jobs) > 0 {
			j := e.jobs[len(e.jobs)-1]
			sum += int(j.done) + int(j.state.Finished) + int(j.spec.Credits)
		}
	}
	spent := time.Since(begun)
	runtime.KeepAlive(sum)
	return float64(spent.Nanoseconds()) / rounds
}

// BenchmarkIdleEntity reports the bytes that an idle entity takes.
func BenchmarkIdleEntity(b *testing.B) {
	const entities = 100_000
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		w := newBench(entities)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/entities, "B/entity")
		runtime.KeepAlive(w)
	}
}
