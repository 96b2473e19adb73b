package manager_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
)

// badSource is an image that cannot be made.
type badSource struct{ imageReader }

func (badSource) Chunks(func(core.ChunkRef, []byte) error) error { return errDisk }

// TestReplace: what is replaced goes when what comes is on record, and not before.
func TestReplace(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		old := r.create(r.entity("x", newJob("a", 400)))
		r.progressed("a", 50)
		r.goal(old[0], core.GoalSuspend)
		r.suspended(old[0], core.CauseNone)

		bad := r.entity("x", newJob("b", 20))
		bad.Image = badSource{}
		if _, err := r.manager.Replace(t.Context(), old, []manager.NewEntity{bad}); !errors.Is(err, errDisk) {
			t.Errorf("replaced by what cannot be made: %v", err)
		}
		r.lock(func() { r.failCommits = 1 })
		good := []manager.NewEntity{r.entity("x", newJob("b", 20))}
		if _, err := r.manager.Replace(t.Context(), old, good); !errors.Is(err, errDisk) {
			t.Errorf("replaced without a record: %v", err)
		}
		r.lock(func() {
			if len(r.specs) != 1 || r.jobs[1].Phase.Final() || len(r.images[old[0]]) == 0 {
				t.Errorf("left of the old run: %v %v %v", r.specs, r.jobs, r.images)
			}
		})
		r.goal(old[0], core.GoalRun) // it can still go on
		r.progressed("a", 100)
		r.goal(old[0], core.GoalSuspend)
		r.suspended(old[0], core.CauseNone)

		ids, err := r.manager.Replace(t.Context(), old, good)
		if err != nil || len(ids) != 1 {
			t.Fatalf("%v, %v", ids, err)
		}
		r.lock(func() {
			if _, there := r.specs[old[0]]; there || len(r.images[old[0]]) != 0 {
				t.Errorf("the old run is there: %v %v", r.specs, r.images)
			}
		})
		r.ends(core.JobCompleted, "b")
		if err := r.manager.SetGoal(t.Context(), old[0], core.GoalRun); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("goal of what was replaced: %v", err)
		}
		if _, err := r.manager.Replace(t.Context(), []core.EntityID{99}, good); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("nobody replaced: %v", err)
		}
		time.Sleep(time.Second)
	})
}
