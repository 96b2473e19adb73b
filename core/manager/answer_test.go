package manager_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
)

// slowDisk takes longer than one job of a busy entity and less than its jobs in
// flight: there is always something to commit.
const slowDisk = 3 * time.Millisecond

// busy makes an entity that is suspended, and one beside it that never leaves
// the disk alone.
func (r *rig) busy() core.EntityID {
	r.t.Helper()
	var jobs []manager.NewJob
	for i := range 2000 {
		jobs = append(jobs, newJob(fmt.Sprint("b", i), 1))
	}
	quiet := r.create(r.entity("quiet", newJob("a", 10_000)))[0]
	r.lock(func() { r.latency = slowDisk })
	busy := r.entity("busy", jobs...)
	busy.Spec.Properties.Checkpoint = time.Hour
	r.create(busy)
	r.within(time.Minute, "the busy one is under way", func() bool { return r.outcome("b20").Phase.Final() })
	return quiet
}

// TestAnswerBesideABusyEntity: a request is answered when it is on record, not
// when nothing else is under way.
func TestAnswerBesideABusyEntity(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		quiet := r.busy()
		ctx, cancel := context.WithTimeout(t.Context(), 10*slowDisk)
		defer cancel()
		if err := r.manager.SetGoal(ctx, quiet, core.GoalSuspend); err != nil {
			t.Errorf("suspend: %v", err)
		}
		if r.state(quiet).Goal != core.GoalSuspend {
			t.Error("answered before it was on record")
		}
		if err := r.manager.WaitAway(t.Context(), quiet); err != nil {
			t.Error(err)
		}
		if err := r.manager.Remove(t.Context(), []core.EntityID{quiet}); err != nil {
			t.Error(err)
		}
		if r.outcome("b1999").Phase.Final() {
			t.Error("the busy entity has ended before the quiet one was removed")
		}
		r.ends(core.JobCompleted, "b1999")
	})
}

// TestAllAreAskedBeforeOneAnswers: the goals of several entities are on record
// together.
func TestAllAreAskedBeforeOneAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var entities []manager.NewEntity
		for i := range 20 {
			entities = append(entities, r.entity(fmt.Sprint("e", i), newJob(fmt.Sprint("a", i), 10_000)))
		}
		ids := r.create(entities...)
		r.progressed("a19", 1)
		r.lock(func() { r.latency = time.Second })
		begun := time.Now()
		if err := r.manager.SetGoals(t.Context(), ids, core.GoalSuspend); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 4*time.Second {
			t.Errorf("20 goals took %v at 1 s a commit", took)
		}
		r.lock(func() { r.latency = time.Millisecond })
		for _, id := range ids {
			r.suspended(id, core.CauseNone)
		}
	})
}

// TestGoalsOutliveARefusedCommit: what must not be lost is asked again after a
// commit that failed; what is wrong is said.
func TestGoalsOutliveARefusedCommit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 400)))[0]
		r.progressed("a", 50)
		p := r.process()
		r.lock(func() { r.failCommits = 3 })
		go func() {
			time.Sleep(20 * time.Second)
			r.lock(func() { r.failCommits = 0 })
		}()
		if err := r.manager.SetGoals(t.Context(), []core.EntityID{id}, core.GoalSuspend); err != nil {
			t.Fatal(err)
		}
		r.suspended(id, core.CauseNone)
		if r.process() != p {
			t.Error("the instance was given up because the disk was full")
		}
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
		if err := r.manager.SetGoals(t.Context(), []core.EntityID{id, 99}, core.GoalClose); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("goal of nobody: %v", err)
		}
		other := r.create(r.entity("y", newJob("b", 10)))[0]
		r.lock(func() { r.failCommits = 1 << 30 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.manager.SetGoals(ctx, []core.EntityID{other}, core.GoalSuspend); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a disk that stays full: %v", err)
		}
		r.lock(func() { r.failCommits = 0 })
	})
}
