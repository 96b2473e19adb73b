package sched

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestRandom drives random worlds: whatever is killed whenever, every job gets
// exactly one outcome, completed jobs are in the final memory exactly once, and
// the count of executed workgroups is right.
func TestRandom(t *testing.T) {
	if s := os.Getenv("GPUWM_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		runSeed(t, seed)
		return
	}
	for seed := range uint64(1500) {
		runSeed(t, seed)
	}
}

func runSeed(t *testing.T, seed uint64) {
	t.Helper()
	w := newWorld(seed)
	w.build()
	for range 400 {
		w.now += core.Instant(w.rand.IntN(int(2 * time.Millisecond)))
		w.act()
		if len(w.problems) > 0 {
			break
		}
	}
	w.heal()
	if len(w.problems) > 0 {
		t.Fatalf("seed %d: %s\nlast steps:\n%s\nreplay: GPUWM_SEED=%d go test -run TestRandom ./core/sched",
			seed, strings.Join(w.problems, "\n"), strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"), seed)
	}
}

// build makes two or three entities with a few jobs each, submitted later.
func (w *world) build() {
	for i := range 2 + w.rand.IntN(2) {
		id := core.EntityID(i + 1)
		spec := core.EntitySpec{ID: id, Name: fmt.Sprintf("e%d", id), Mode: core.ModeLongRunning}
		spec.Properties.Checkpoint = 5 * time.Millisecond
		if w.rand.IntN(2) == 0 {
			spec.Mode, spec.Properties.Checkpoint = core.ModeCompute, 0
		}
		if w.rand.IntN(2) == 0 {
			spec.OnFailure = core.OnFailureContinue
		}
		state := core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1}
		w.specs[id], w.entities[id] = spec, state
		w.images[id] = map[core.Generation]image{1: {mem: map[core.JobID]uint64{}}}
		rec := core.EntityRecord{Spec: spec, State: state}
		if err := w.step(Event{Kind: EventRestore, Record: &rec}); err != nil {
			w.problem("restore: %v", err)
		}
		n := 1 + w.rand.IntN(5)
		for k := range n {
			job := core.JobID(100*i + k + 1)
			w.jobSpecs[job] = &core.JobSpec{
				ID: job, Entity: id, Seq: core.JobSeq(k + 1), Name: fmt.Sprintf("j%d", job),
				Grid: [3]uint32{uint32(1 + w.rand.IntN(30)), 1, 1}, Credits: 1,
				Flush: k == n-1 && w.rand.IntN(2) == 0,
			}
		}
	}
	w.startInstance()
}

func (w *world) act() {
	entity := core.EntityID(1 + w.rand.IntN(len(w.specs)))
	kind := w.rand.IntN(40)
	w.note("%d: action %d entity %d", w.now, kind, entity)
	switch kind {
	case 0, 1:
		w.submitNext(entity)
	case 2:
		w.crashDaemon()
	case 3:
		w.killInstance()
	case 4, 5, 6:
		w.startInstance()
	case 7:
		_ = w.step(Event{Kind: EventGoal, Entity: entity, Goal: core.GoalSuspend})
	case 8, 9:
		_ = w.step(Event{Kind: EventGoal, Entity: entity, Goal: core.GoalRun})
	case 10:
		if w.rand.IntN(40) == 0 {
			_ = w.step(Event{Kind: EventGoal, Entity: entity, Goal: core.GoalClose})
		}
		if w.rand.IntN(4) == 0 {
			w.fault(entity, w.rand.IntN(2) == 0)
		}
	case 11:
		if w.rand.IntN(4) == 0 {
			if jobs := w.jobsOf(entity); len(jobs) > 0 {
				_ = w.step(Event{Kind: EventCancel, Entity: entity, Job: jobs[w.rand.IntN(len(jobs))]})
			}
		}
	case 12:
		_ = w.step(Event{Kind: EventTick})
	case 13:
		_ = w.step(Event{Kind: EventProperties, Entity: entity, Properties: core.Properties{
			Priority: core.PriorityHigh, Checkpoint: w.specs[entity].Properties.Checkpoint}})
	case 14, 15, 16, 17, 18:
		w.commit()
	case 19, 20, 21:
		w.call()
	case 22, 23, 24, 25, 26:
		w.take()
	case 27, 28, 29, 30, 31:
		w.deliver()
	default:
		w.execute(entity)
	}
}

func (w *world) jobsOf(entity core.EntityID) []core.JobID {
	var ids []core.JobID
	for id, s := range w.jobSpecs {
		if _, submitted := w.jobs[id]; submitted && s.Entity == entity {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// submitNext submits the entity's next job; its record is durable with the submit.
func (w *world) submitNext(entity core.EntityID) bool {
	for id := core.JobID(100*(entity-1) + 1); w.jobSpecs[id] != nil; id++ {
		if _, done := w.jobs[id]; done {
			continue
		}
		if err := w.step(Event{Kind: EventSubmit, Spec: w.jobSpecs[id], OnRecord: true}); err != nil {
			w.problem("submit %d: %v", id, err)
		}
		for len(w.pending) > 0 {
			w.commit()
		}
		return true
	}
	return false
}

// heal lets everything finish and checks the end.
func (w *world) heal() {
	if len(w.problems) > 0 {
		return
	}
	for id := range w.specs {
		for w.submitNext(id) {
		}
		_ = w.step(Event{Kind: EventGoal, Entity: id, Goal: core.GoalRun})
	}
	for range 5000 {
		w.now += core.Instant(time.Millisecond)
		w.startInstance()
		for id := range core.EntityID(len(w.specs)) {
			_ = w.step(Event{Kind: EventGoal, Entity: id + 1, Goal: core.GoalRun})
			w.execute(id + 1)
		}
		w.take()
		w.deliver()
		w.deliver()
		w.commit()
		w.commit()
		w.commit()
		w.call()
		_ = w.step(Event{Kind: EventTick})
		if w.settled() || len(w.problems) > 0 {
			break
		}
	}
	for len(w.pending) > 0 {
		w.commit()
	}
	w.checkEnd()
}

func (w *world) settled() bool {
	for id := range w.jobSpecs {
		if !w.jobs[id].Phase.Final() {
			return false
		}
	}
	return len(w.pending) == 0 && len(w.calls) == 0
}

func (w *world) checkEnd() {
	for id, spec := range w.jobSpecs {
		state := w.jobs[id]
		if !state.Phase.Final() {
			e := w.entities[spec.Entity]
			w.problem("job %d ended %s (entity %+v, state %+v)", id, state.Phase, e, state)
			continue
		}
		if state.Phase == core.JobCompleted && state.Executed+state.InEpoch < spec.Workgroups() {
			w.problem("job %d completed with %d of %d executed", id, state.Executed, spec.Workgroups())
		}
		// A closed entity is destroyed without a last word about its jobs.
		if state.Phase == core.JobKilled && state.Executed <= w.ran[id] {
			continue
		}
		if state.Run == 0 && state.Executed != w.ran[id] {
			w.problem("job %d: %d executed on record, %d in truth", id, state.Executed, w.ran[id])
		}
	}
}
