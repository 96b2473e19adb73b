package manager_test

import (
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
)

// dependOn makes a job depend on fences.
func dependOn(j manager.NewJob, fences ...core.Fence) manager.NewJob {
	for _, f := range fences {
		j.Spec.Depends = append(j.Spec.Depends, core.Dependency{Fence: f})
	}
	return j
}

// TestForeignFence: a job waits for a fence of another device, across a crash of
// the manager, and gets its outcome from it.
func TestForeignFence(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.stop(false)
		r.devices = append(r.devices, core.DeviceSpec{Name: "d1", Backend: "other", Engine: "test"})
		r.start(nil)
		x := r.create(r.entity("x", newJob("a", 30), newJob("b", 30)))[0]
		late := r.entity("y", dependOn(newJob("c", 5), core.Fence{Timeline: x, Seq: 1}), dependOn(newJob("d", 5), core.Fence{Timeline: x, Seq: 2}))
		late.Spec.Device = "d1"
		r.create(late)
		r.crash()
		r.start(nil)
		r.ends(core.JobCompleted, "a", "b", "c", "d")
		for _, pair := range [][2]string{{"a", "c"}, {"b", "d"}} {
			if before, after := r.outcome(pair[0]), r.outcome(pair[1]); after.Started < before.Finished {
				t.Errorf("%s started before %s was finished", pair[1], pair[0])
			}
		}
		// One that has its outcome already, and one that nobody will ever signal.
		z := r.entity("z", dependOn(newJob("e", 5), core.Fence{Timeline: x, Seq: 1}), dependOn(newJob("f", 5), core.Fence{Timeline: x, Seq: 9}))
		z.Spec.Device = "d1"
		r.create(z)
		r.ends(core.JobCompleted, "e")
		r.ends(core.JobDependencyFailed, "f")
	})
}

// TestRemovedFence: a job that waits for an entity that is removed does not wait
// for ever.
func TestRemovedFence(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.stop(false)
		r.devices = append(r.devices, core.DeviceSpec{Name: "d1", Backend: "other", Engine: "test"})
		r.start(nil)
		x := r.create(r.entity("x", newJob("a", 1000)))[0]
		y := r.entity("y", dependOn(newJob("b", 5), core.Fence{Timeline: x, Seq: 1}))
		y.Spec.Device = "d1"
		r.create(y)
		if err := r.manager.SetGoal(t.Context(), x, core.GoalSuspend); err != nil {
			t.Fatal(err)
		}
		if err := r.manager.WaitAway(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		if err := r.manager.Remove(t.Context(), []core.EntityID{x}); err != nil {
			t.Fatal(err)
		}
		r.ends(core.JobDependencyFailed, "b")
	})
}
