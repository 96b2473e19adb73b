package sim

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// The kill storm: stormEntities live at once, each killed about stormLife after
// it was created, stormTotal in all.
const (
	stormEntities = 200
	stormTotal    = 20000
	stormLife     = 50 * time.Millisecond
)

// TestKillStorm creates, loads and kills entities at random, in virtual time.
// Afterwards the schedulers hold nothing of them, and neither memory nor
// goroutines have grown.
func TestKillStorm(t *testing.T) {
	s := &storm{t: t, rand: rand.New(rand.NewPCG(1, 1)), core: sched.New(sched.Config{MinRun: -1}), now: 1}
	s.step(sched.Event{Kind: sched.EventUp})
	wave := func(n int) (size int, heap uint64) {
		for range n {
			s.create()
			if len(s.live) >= stormEntities {
				s.kill(s.rand.IntN(len(s.live)))
			}
		}
		for len(s.live) > 0 {
			s.kill(0)
		}
		if err := s.core.Check(); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return s.core.Size(), m.HeapAlloc
	}
	goroutines := runtime.NumGoroutine()
	size, heap := wave(stormTotal / 10)
	sizeAfter, heapAfter := wave(stormTotal)
	if sizeAfter > size+stormEntities {
		t.Errorf("the schedulers held %d things after the first storm, %d after one ten times as long", size, sizeAfter)
	}
	if heapAfter > heap+1<<20 {
		t.Errorf("%d bytes after the first storm, %d after the second", heap, heapAfter)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines before, %d after", goroutines, n)
	}
	if s.outcomes != s.submitted {
		t.Errorf("%d jobs submitted, %d outcomes", s.submitted, s.outcomes)
	}
	runtime.KeepAlive(s)
}

// storm is a backend that answers at once, but for jobs, which it runs or forgets.
type storm struct {
	t                   *testing.T
	rand                *rand.Rand
	core                *sched.Core
	batch               sched.Batch
	now                 core.Instant
	live                []core.EntityID
	last                core.EntityID
	job                 core.JobID
	submitted, outcomes int
	replies             []core.BackendEvent
}

// step gives an event, and the backend's answers to what follows from it.
func (s *storm) step(ev sched.Event) {
	ev.Now = s.now
	if err := s.core.Step(&ev, &s.batch); err != nil {
		s.t.Fatal(err)
	}
	s.take()
	for len(s.replies) > 0 {
		r := s.replies[0]
		s.replies = s.replies[1:]
		next := sched.Event{Kind: sched.EventBackend, Now: s.now, Backend: &r}
		if err := s.core.Step(&next, &s.batch); err != nil {
			s.t.Fatal(err)
		}
		s.take()
	}
}

func (s *storm) take() {
	for i := range s.batch.Notices {
		if n := &s.batch.Notices[i]; n.Kind == sched.JobChanged && n.Phase.Final() {
			s.outcomes++
		}
	}
	for i := range s.batch.Commands {
		c := &s.batch.Commands[i]
		r := core.BackendEvent{Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job}
		switch c.Kind {
		case core.CommandCreate:
			r.Kind = core.EventApplied
		case core.CommandDestroy:
			r.Kind = core.EventDestroyed
		case core.CommandMessage:
			r.Kind = core.EventMessageDone
		case core.CommandRun:
			r.Kind = core.EventStarted
			if s.rand.IntN(3) == 0 {
				r.Kind, r.Done = core.EventCompleted, c.JobSpec.Workgroups()
			}
		default:
			continue
		}
		s.replies = append(s.replies, r)
	}
}

// create adds an entity with a few jobs, which may wait for those of others.
func (s *storm) create() {
	s.now += core.Instant(s.rand.IntN(int(2 * stormLife / stormEntities)))
	s.last++
	id := s.last
	rec := core.EntityRecord{
		Spec:  core.EntitySpec{ID: id, Name: "e", Mode: core.ModeCompute},
		State: core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1},
	}
	s.step(sched.Event{Kind: sched.EventRestore, Record: &rec})
	for seq := range core.JobSeq(1 + s.rand.IntN(4)) {
		s.job++
		spec := &core.JobSpec{ID: s.job, Entity: id, Seq: seq + 1, Name: "j", Grid: [3]uint32{9, 1, 1}, Credits: 1}
		if len(s.live) > 0 && s.rand.IntN(3) == 0 {
			other := s.live[s.rand.IntN(len(s.live))]
			spec.Depends = []core.Dependency{{Fence: core.Fence{Timeline: other, Seq: 1}, OnFailure: core.DependencyIgnore}}
		}
		spec.QueueTimeout = time.Duration(s.rand.IntN(2)) * stormLife
		s.step(sched.Event{Kind: sched.EventSubmit, Spec: spec})
		s.submitted++
	}
	s.live = append(s.live, id)
}

func (s *storm) kill(i int) {
	id := s.live[i]
	s.live = append(s.live[:i], s.live[i+1:]...)
	s.step(sched.Event{Kind: sched.EventGoal, Entity: id, Goal: core.GoalClose})
	s.step(sched.Event{Kind: sched.EventForget, Entity: id})
}
