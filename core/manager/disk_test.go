package manager_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestCommitFails: whatever commit fails, the manager says so to who asked,
// rebuilds, and goes on with the instance that lives.
func TestCommitFails(t *testing.T) {
	for at := time.Duration(0); at < 60*time.Millisecond; at += 2 * time.Millisecond {
		t.Run(at.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				e := r.entity("x", newJob("a", 10), newJob("b", 10), flushed(newJob("c", 20)))
				e.Spec.Properties.Checkpoint = 9 * time.Millisecond
				r.create(e)
				time.Sleep(at)
				r.lock(func() { r.failCommits = 1 })
				r.within(10*time.Second, "a commit that fails", func() bool {
					r.mu.Lock()
					defer r.mu.Unlock()
					return r.failCommits == 0 || len(r.jobs) == 3 && r.jobs[3].Phase.Final()
				})
				r.lock(func() { r.failCommits = 0 })
				r.ends(core.JobCompleted, "a", "b", "c")
				r.executed(0, "a", "b", "c")
			})
		})
	}
}

// TestDiskFullForLong: many commits in a row fail. The instance lives on, requests
// are answered with the reason, and looking is still possible.
func TestDiskFullForLong(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 20_000)))[0]
		p := r.process()
		r.progressed("a", 20)
		r.lock(func() { r.failCommits = 1 << 30 })
		time.Sleep(5 * time.Second)
		if _, err := r.manager.Entities(t.Context()); err != nil {
			t.Errorf("look: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := r.manager.SetGoal(ctx, id, core.GoalSuspend); err == nil {
			t.Error("a goal was acknowledged that is not on record")
		}
		r.lock(func() { r.failCommits = 0 })
		r.within(2*time.Minute, "the manager goes on", func() bool {
			return r.manager.SetGoal(t.Context(), id, core.GoalRun) == nil
		})
		if r.process() != p {
			t.Error("the instance was given up because the disk was full")
		}
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
	})
}

// TestGoneWhileDiskFull: the end of an instance is not forgotten because its
// record could not be written.
func TestGoneWhileDiskFull(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 120)
		p := r.process()
		r.lock(func() { r.failCommits = 3 })
		r.kill(p)
		time.Sleep(10 * time.Second)
		r.lock(func() { r.failCommits = 0 })
		r.ends(core.JobCompleted, "a")
		r.executed(70, "a")
	})
}

func TestSaveFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 200)))[0]
		r.lock(func() { r.failSaves = 1 })
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
		_ = id
	})
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 200)))[0]
		r.lock(func() { r.failSaves = 3 })
		if s := r.suspended(id, core.CauseImage); !strings.Contains(s.Error, "disk full") {
			t.Errorf("the reason is %q", s.Error)
		}
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a")
	})
}

// TestImageOfOtherBuffers: an instance cannot replace the last good image by one
// that does not have the buffers of the entity.
func TestImageOfOtherBuffers(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 200)))[0]
		r.lock(func() { r.strange = 3 })
		if s := r.suspended(id, core.CauseImage); !strings.Contains(s.Error, "other buffers") || s.Generation != 1 {
			t.Errorf("image %d, the reason is %q", s.Generation, s.Error)
		}
		r.lock(func() {
			for gen, image := range r.images[id] {
				if len(image.header.Buffers) != 0 {
					t.Errorf("image %d has buffers %v", gen, image.header.Buffers)
				}
			}
		})
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a")
	})
}

func TestImageCorrupt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ids := r.create(r.entity("x", newJob("a", 300)), r.entity("y", newJob("b", 300)))
		r.progressed("a", 120)
		r.lock(func() { r.corrupt[ids[0]] = true })
		r.kill(r.process())
		if s := r.suspended(ids[0], core.CauseImage); !strings.Contains(s.Error, "corrupt") {
			t.Errorf("the reason is %q", s.Error)
		}
		r.ends(core.JobCompleted, "b")
		if r.started != 2 {
			t.Errorf("%d instances: a bad image disturbed the others", r.started)
		}
	})
}

func TestOutputFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		e := r.entity("x", flushed(newJob("a", 30)))
		e.Spec.Saves = []core.SaveSpec{{Buffer: "out", Path: "/out"}}
		r.lock(func() { r.failOutput = errDisk })
		id := r.create(e)[0]
		if s := r.suspended(id, core.CauseOutput); !strings.Contains(s.Error, "/out") {
			t.Errorf("the reason is %q", s.Error)
		}
		r.lock(func() { r.failOutput = nil })
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
		if got := r.file("/out", "a"); got != 30 {
			t.Errorf("the file holds %d, want 30", got)
		}
	})
}
