package sched

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/gpuwm/gpuwm/core"
)

// scale is a Core with many entities whose backend, store and listeners answer
// at once and keep nothing.
type scale struct {
	core  *Core
	out   Outbox
	batch Batch
	ev    Event
	be    core.BackendEvent
	now   core.Instant
	cmds  []core.Command
	saves []Effect
	specs []core.JobSpec
	last  []core.JobSeq
}

func (s *scale) Command(c *core.Command) { s.cmds = append(s.cmds, *c) }
func (s *scale) Notice(*Notice)          {}
func (s *scale) Ack(core.EventSeq)       {}
func (s *scale) Effect(f *Effect) {
	if f.Kind == EffectSave {
		s.saves = append(s.saves, *f)
	}
}

func newScale(entities int) *scale {
	s := &scale{core: New(Config{QueueMax: 1 << 20, Answer: time.Hour}), now: 1, last: make([]core.JobSeq, entities+1)}
	s.ev = Event{Kind: EventUp}
	s.step()
	for i := range entities {
		id := core.EntityID(i + 1)
		s.ev = Event{Kind: EventRestore, Record: &core.EntityRecord{
			Spec:  core.EntitySpec{ID: id, Name: "e", Mode: core.ModeCompute},
			State: core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1},
		}}
		s.step()
	}
	return s
}

func (s *scale) step() {
	s.now++
	s.ev.Now = s.now
	if err := s.core.Step(&s.ev, &s.batch); err != nil {
		panic(err)
	}
	s.out.Add(&s.batch)
	s.out.Committed(s.batch.Seq)
	s.out.Release(s)
}

// job submits one job, and answers until the core is quiet.
func (s *scale) job(id core.EntityID) {
	if len(s.specs) == 0 {
		s.specs = make([]core.JobSpec, 1024)
	}
	spec := &s.specs[0]
	s.specs = s.specs[1:]
	s.last[id]++
	spec.ID, spec.Entity, spec.Seq = core.JobID(s.last[id]), id, s.last[id]
	spec.Grid, spec.Credits = [3]uint32{1, 1, 1}, 1
	s.ev = Event{Kind: EventSubmit, Spec: spec}
	s.step()
	for len(s.cmds)+len(s.saves) > 0 {
		if len(s.cmds) == 0 {
			f := s.saves[0]
			s.saves = s.saves[:0]
			s.ev = Event{Kind: EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation}
			s.step()
			continue
		}
		c := s.cmds[0] // one at a time: there is no other under way
		s.cmds = s.cmds[:0]
		s.be = core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job}
		switch c.Kind {
		case core.CommandCreate:
			s.be.Kind = core.EventApplied
		case core.CommandRun:
			s.be.Kind, s.be.Done, s.be.Executed = core.EventCompleted, 1, 1
		}
		s.ev = Event{Kind: EventBackend, Backend: &s.be}
		s.step()
	}
}

// chase returns the nanoseconds of reading an entity and its last job, every
// cache line of both, in the order that next gives: what the memory costs by
// itself. Each address depends on what was read before.
func (s *scale) chase(next func() int) float64 {
	const rounds = 100_000
	sum := uint64(0)
	line := func(base unsafe.Pointer, size uintptr) {
		for off := uintptr(0); off < size; off += 64 {
			sum += uint64(*(*byte)(unsafe.Add(base, off+uintptr(sum&7))))
		}
	}
	begun := time.Now()
	for range rounds {
		e := s.core.entities[core.EntityID(uint64(next()+1)|sum>>63)]
		line(unsafe.Pointer(e), unsafe.Sizeof(*e)-8)
		if n := len(e.jobs); n > 0 {
			line(unsafe.Pointer(e.jobs[n-1]), unsafe.Sizeof(job{})-8)
		}
	}
	spent := time.Since(begun)
	runtime.KeepAlive(sum)
	return float64(spent.Nanoseconds()) / rounds
}

// BenchmarkJob is submit, run, complete through core and outbox, images included,
// for one and for many entities, in turn and in random order. floor-ns/op is what
// reading the lines of one entity and one job once costs in the same order, which
// for many entities is one cache miss after the other; x-floor is the ratio.
// x-budget is the ratio to the budget, where there is one.
func BenchmarkJob(b *testing.B) {
	for _, entities := range []int{1, 1000, 100_000, 1_000_000} {
		s := newScale(entities)
		for i := range entities {
			s.job(core.EntityID(i + 1)) // has the entity created on the device
		}
		runtime.GC()
		orders := []struct {
			name   string
			budget map[int]float64 // in nanoseconds, by entities
			next   func() func() int
		}{
			{"round-robin", map[int]float64{1: 1000, 100_000: 2000}, func() func() int { i := 0; return func() int { i++; return i % entities } }},
			{"random", map[int]float64{100_000: 4000}, func() func() int { r := rand.New(rand.NewPCG(1, 2)); return func() int { return r.IntN(entities) } }},
		}
		for _, order := range orders {
			if entities == 1 && order.name == "random" {
				continue
			}
			b.Run(fmt.Sprintf("%s/entities=%d", order.name, entities), func(b *testing.B) {
				b.ReportAllocs()
				next := order.next()
				for b.Loop() {
					s.job(core.EntityID(next() + 1))
				}
				b.StopTimer()
				floor, each := s.chase(order.next()), float64(b.Elapsed().Nanoseconds())/float64(b.N)
				b.ReportMetric(floor, "floor-ns/op")
				b.ReportMetric(each/floor, "x-floor")
				if budget := order.budget[entities]; budget != 0 {
					b.ReportMetric(each/budget, "x-budget")
				}
			})
		}
	}
}

// idleEntityMax is the budget of an entity without jobs.
const idleEntityMax = 1024

// idleBytes returns the bytes of memory that n idle entities take, each.
func idleBytes(n int) float64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := newScale(n)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(s)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

// BenchmarkIdleEntity reports what each of many idle entities takes.
func BenchmarkIdleEntity(b *testing.B) {
	for _, entities := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("entities=%d", entities), func(b *testing.B) {
			each := 0.0
			for b.Loop() {
				each = idleBytes(entities)
			}
			b.ReportMetric(each, "B/entity")
			b.ReportMetric(each/idleEntityMax, "x-budget")
		})
	}
}

// TestIdleEntity: an idle entity takes memory within its budget, and no goroutine.
func TestIdleEntity(t *testing.T) {
	goroutines := runtime.NumGoroutine()
	if got := idleBytes(20_000); got > idleEntityMax {
		t.Errorf("an idle entity takes %.0f bytes, the budget is %d", got, idleEntityMax)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines more than before", n-goroutines)
	}
}
