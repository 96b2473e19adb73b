package manager_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
	"github.com/gpuwm/gpuwm/core/sched"
)

func TestRunToTheEnd(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		e := r.entity("render", newJob("a", 30), newJob("b", 20), flushed(newJob("c", 10)))
		e.Spec.Saves = []core.SaveSpec{{Buffer: "out", Path: "/out"}}
		id := r.create(e)[0]
		r.ends(core.JobCompleted, "a", "b", "c")
		r.executed(0, "a", "b", "c")
		if got := r.file("/out", "c"); got != 10 {
			t.Errorf("the file holds %d workgroups of the last job, want 10", got)
		}
		views, err := r.manager.Entities(t.Context())
		if err != nil || len(views) != 1 || !views[0].Finished() || views[0].Jobs[2].Done != 10 {
			t.Errorf("view %+v, %v", views, err)
		}
		r.goal(id, core.GoalClose)
		if err := r.manager.WaitAway(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := r.manager.Remove(t.Context(), []core.EntityID{id}); err != nil {
			t.Error(err)
		}
		if err := r.manager.SetGoal(t.Context(), id, core.GoalRun); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("goal of a removed entity: %v", err)
		}
		if len(r.specs)+len(r.jobs)+len(r.images) != 0 {
			t.Errorf("left after the removal: %v %v %v", r.specs, r.jobs, r.images)
		}
	})
}

// TestSuspendAndContinue: a new manager on the same disk goes on where the
// first one stopped, and no workgroup runs twice.
func TestSuspendAndContinue(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ids := r.create(r.entity("x", newJob("a", 400)), r.entity("y", newJob("b", 400)))
		r.progressed("a", 120)
		for _, id := range ids {
			r.goal(id, core.GoalSuspend)
			if err := r.manager.WaitAway(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		r.stop(false)
		if r.live != 0 {
			t.Fatal("a plugin lives after the stop")
		}
		r.start(nil)
		for _, id := range ids {
			r.goal(id, core.GoalRun)
		}
		r.ends(core.JobCompleted, "a", "b")
		r.executed(0, "a", "b")
	})
}

// TestStartGoesOn: what is to run runs after a start without anybody asking.
func TestStartGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 100)
		r.stop(false)
		r.start(nil)
		r.ends(core.JobCompleted, "a")
		r.executed(60, "a")
	})
}

func TestHoldAtStart(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ids := r.create(r.entity("x", newJob("a", 300)), r.entity("y", newJob("b", 300)))
		r.progressed("a", 100)
		r.stop(true)
		r.start(func(rec *core.EntityRecord) bool { return rec.Spec.Name == "x" })
		r.suspended(ids[0], core.CauseNone)
		r.ends(core.JobCompleted, "b")
		if r.outcome("a").Phase.Final() {
			t.Error("a held entity ran")
		}
	})
}

// TestDetachAndAdopt: the instance works on while nobody is there, and nothing
// it reported is lost or doubled.
func TestDetachAndAdopt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 100), newJob("b", 100), newJob("c", 500)))
		r.progressed("a", 50)
		p := r.process()
		r.stop(true)
		time.Sleep(200 * time.Millisecond) // b completes meanwhile
		r.start(nil)
		r.ends(core.JobCompleted, "a", "b", "c")
		if r.process() != p || r.started != 1 {
			t.Errorf("%d instances were started, want the first to be adopted", r.started)
		}
		r.executed(0, "a", "b", "c")
	})
}

// TestCrashAnywhere loses the manager at many moments; commands that were not
// taken are repeated, events that were not acknowledged come again.
func TestCrashAnywhere(t *testing.T) {
	for at := time.Duration(0); at < 40*time.Millisecond; at += time.Millisecond {
		t.Run(at.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.sched.ReplayMax = 20 * time.Millisecond
				e := r.entity("x", newJob("a", 5), newJob("b", 5), flushed(newJob("c", 15)))
				e.Spec.Properties.Checkpoint = 7 * time.Millisecond
				r.create(e)
				time.Sleep(at)
				r.crash()
				time.Sleep(3 * time.Millisecond)
				r.start(nil)
				r.ends(core.JobCompleted, "a", "b", "c")
				r.executed(0, "a", "b", "c")
			})
		})
	}
}

// TestKillAnywhere ends the instance at many moments, with and without the manager.
func TestKillAnywhere(t *testing.T) {
	for at := time.Duration(0); at < 40*time.Millisecond; at += time.Millisecond {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,both=%t", at, both), func(t *testing.T) {
				bubble(t, func(t *testing.T, r *rig) {
					e := r.entity("x", newJob("a", 5), newJob("b", 5), flushed(newJob("c", 15)))
					e.Spec.Properties.Checkpoint = 7 * time.Millisecond
					r.create(e)
					p := r.process()
					time.Sleep(at)
					if both {
						r.crash()
					}
					r.kill(p)
					if both {
						r.start(nil)
					}
					r.ends(core.JobCompleted, "a", "b", "c")
					r.executed(25, "a", "b", "c")
					if r.liveMax != 1 {
						t.Errorf("%d instances lived at once", r.liveMax)
					}
				})
			})
		}
	}
}

func TestAdoptionRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 150)
		r.stop(true)
		r.lock(func() { r.refuse = true })
		r.start(nil)
		r.ends(core.JobCompleted, "a")
		r.executed(70, "a")
		if r.started != 2 || r.liveMax != 1 {
			t.Errorf("%d instances, %d at once; want a second one after the first was ended", r.started, r.liveMax)
		}
	})
}

// TestBackOff: an instance that ends is started again, after rising pauses.
func TestBackOff(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 500)))
		for range 3 {
			p := r.process()
			r.progressed("a", 20)
			r.kill(p)
			begun := time.Now()
			r.within(time.Minute, "another instance", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.live == 1
			})
			if time.Since(begun) < 50*time.Millisecond {
				t.Errorf("started again after %s", time.Since(begun))
			}
		}
		r.ends(core.JobCompleted, "a")
	})
}

// TestCrashLoop: the breaker suspends the entities with the reason; resuming
// closes it.
func TestCrashLoop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.crashAfter = 5 * time.Millisecond
		r.sched.LossesMax = 1000
		r.stop(false)
		r.start(nil)
		id := r.create(r.entity("x", newJob("a", 50)))[0]
		s := r.suspended(id, core.CauseDevice)
		if !strings.Contains(s.Error, "ended 6 times") {
			t.Errorf("the reason is %q", s.Error)
		}
		started := r.started
		time.Sleep(time.Hour)
		if r.started != started {
			t.Errorf("%d instances were started behind an open breaker", r.started-started)
		}
		r.lock(func() { r.crashAfter = 0 })
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a")
	})
}

func TestStartFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lock(func() { r.failStarts = 3 })
		r.create(r.entity("x", newJob("a", 50)))
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
	})
}

// TestLinkBreaks: the stream breaks many times while the instance lives; it is
// opened again, nothing is lost and nothing done twice.
func TestLinkBreaks(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lock(func() { r.saveTime = 20 * time.Millisecond })
		r.create(r.entity("x", newJob("a", 100), newJob("b", 400)))
		p := r.process()
		for range 8 {
			time.Sleep(37 * time.Millisecond)
			r.lock(p.devices["d0"].down)
		}
		r.ends(core.JobCompleted, "a", "b")
		r.executed(0, "a", "b")
		if r.started != 1 {
			t.Errorf("%d instances were started for a broken stream", r.started)
		}
	})
}

// TestLinkBreaksRarely: the bound on reopening is on a minute, not on a life.
func TestLinkBreaksRarely(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		e := r.entity("x", newJob("a", 600_000))
		e.Spec.Properties.Checkpoint = time.Minute
		id := r.create(e)[0]
		p := r.process()
		for range 20 {
			time.Sleep(10 * time.Second)
			r.lock(p.devices["d0"].down)
		}
		if r.process() != p || r.started != 1 {
			t.Errorf("%d instances were started", r.started)
		}
		r.goal(id, core.GoalSuspend)
		r.suspended(id, core.CauseNone)
	})
}

// TestDeviceFails: a new instance; the guilty entity fails, the victim goes on.
func TestDeviceFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ids := r.create(r.entity("bad", newJob("guilty", 300)), r.entity("good", newJob("victim", 300)))
		r.progressed("victim", 120)
		r.lock(func() {
			p := r.processes["fake-1"]
			d := p.devices["d0"]
			h := d.entities[ids[0]]
			h.lost = true
			p.report(d, core.BackendEvent{
				Kind: core.EventEntityLost, Entity: ids[0], Epoch: h.epoch, Job: r.jobSpecs[1].ID, Guilty: true,
				Executed: h.ring[0].ran, Cause: core.CauseHang, Error: "workgroup never ended"})
			p.report(d, core.BackendEvent{Kind: core.EventDeviceHealth, Error: "engine stuck"})
		})
		r.ends(core.JobFailed, "guilty")
		r.ends(core.JobCompleted, "victim")
		if s := r.outcome("guilty"); s.Cause != core.CauseHang {
			t.Errorf("the guilty job's cause is %s", s.Cause)
		}
		if r.started != 2 {
			t.Errorf("%d instances, want a second one", r.started)
		}
		r.executed(70, "victim")
	})
}

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

func TestKernelUploadTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		k := core.Kernel{Digest: core.DigestOf([]byte("k")), Format: "test", Code: []byte("k")}
		j := newJob("a", 10)
		j.Spec.Kernels = map[string]core.Digest{"test": k.Digest}
		e := r.entity("x", j)
		e.Kernels = []core.Kernel{k}
		r.lock(func() { r.dropKernel = 2 })
		r.create(e)
		r.ends(core.JobCompleted, "a")
	})
}

// TestAfter: jobs wait for jobs of other entities, on this device and another.
func TestAfter(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.stop(false)
		r.devices = append(r.devices, core.DeviceSpec{Name: "d1", Backend: "other", Engine: "test"})
		r.start(nil)
		x := r.entity("x", newJob("a", 30), newJob("d", 5, "c"))
		y := r.entity("y", newJob("b", 10, "a"))
		z := r.entity("z", newJob("c", 10, "b"))
		z.Spec.Device = "d1"
		r.create(x, y, z)
		r.ends(core.JobCompleted, "a", "b", "c", "d")
		for _, pair := range [][2]string{{"a", "b"}, {"b", "c"}, {"c", "d"}} {
			if before, after := r.outcome(pair[0]), r.outcome(pair[1]); after.Started < before.Finished {
				t.Errorf("%s started before %s was finished", pair[1], pair[0])
			}
		}
		if _, err := r.manager.Create(t.Context(), []manager.NewEntity{r.entity("w", newJob("e", 1, "nobody"))}); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("after nobody: %v", err)
		}
	})
}

func TestAfterFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		y := r.entity("y", newJob("b", 10, "a"), newJob("c", 10))
		y.Spec.OnFailure = core.OnFailureContinue
		ids := r.create(r.entity("x", newJob("a", 3000)), y)
		r.progressed("a", 20)
		r.goal(ids[0], core.GoalClose)
		r.ends(core.JobKilled, "a")
		r.ends(core.JobDependencyFailed, "b")
		r.ends(core.JobCompleted, "c")
	})
}

// TestAfterRemoved: what comes after a removed job does not wait for ever.
func TestAfterRemoved(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		ids := r.create(r.entity("x", newJob("a", 3000)), r.entity("y", newJob("b", 10, "a")))
		r.progressed("a", 20)
		if err := r.manager.Remove(t.Context(), ids[:1]); !errors.Is(err, core.ErrBusy) {
			t.Errorf("remove an entity on a device: %v", err)
		}
		r.goal(ids[0], core.GoalSuspend)
		r.suspended(ids[0], core.CauseNone)
		if err := r.manager.Remove(t.Context(), ids[:1]); err != nil {
			t.Fatal(err)
		}
		r.ends(core.JobDependencyFailed, "b")
	})
}

// TestThousandsOfJobs: more jobs than the queue takes are fed as room appears.
func TestThousandsOfJobs(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var jobs []manager.NewJob
		var names []string
		for i := range 3000 {
			name := fmt.Sprintf("j%d", i)
			names = append(names, name)
			jobs = append(jobs, newJob(name, 1))
		}
		e := r.entity("x", jobs...)
		e.Spec.Properties.Checkpoint = 10 * time.Second
		r.create(e)
		r.within(10*time.Minute, "all jobs", func() bool { return r.outcome(names[len(names)-1]).Phase.Final() })
		for id, n := range r.ran {
			if n != 1 {
				t.Errorf("job %d ran %d times", id, n)
			}
		}
	})
}

func TestMove(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.stop(false)
		r.devices = append(r.devices, core.DeviceSpec{Name: "d1", Backend: "other", Engine: "test"})
		r.start(nil)
		id := r.create(r.entity("x", newJob("a", 300), newJob("b", 20)))[0]
		r.progressed("a", 100)
		spec := r.specs[id]
		spec.Device = "d1"
		if err := r.manager.Update(t.Context(), spec); !errors.Is(err, core.ErrBusy) {
			t.Errorf("move an entity that is on a device: %v", err)
		}
		if r.specs[id].Device != "d0" {
			t.Error("the refused move is on record")
		}
		r.goal(id, core.GoalSuspend)
		r.suspended(id, core.CauseNone)
		spec.Device = "nowhere"
		if err := r.manager.Update(t.Context(), spec); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("move to nowhere: %v", err)
		}
		spec.Device = "d1"
		r.lock(func() { r.failCommits = 1 })
		if err := r.manager.Update(t.Context(), spec); !errors.Is(err, errDisk) {
			t.Errorf("move that cannot be recorded: %v", err)
		}
		if err := r.manager.Update(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a", "b")
		r.executed(0, "a", "b")
	})
}

func TestUpdateProperties(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 100)))[0]
		r.progressed("a", 20)
		spec := r.specs[id]
		spec.Properties.Priority = core.PriorityHigh
		if err := r.manager.Update(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		r.ends(core.JobCompleted, "a")
		if r.specs[id].Properties.Priority != core.PriorityHigh {
			t.Error("the change is not on record")
		}
	})
}

// TestUnknownDevice: records of a device that is not configured any more stay;
// its instance is ended, its entities wait.
func TestUnknownDevice(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 300)))[0]
		r.progressed("a", 100)
		r.stop(true)
		old := r.devices
		r.devices = []core.DeviceSpec{{Name: "d9", Backend: "other", Engine: "test"}}
		r.start(nil)
		if r.live != 0 {
			t.Error("the instance of the device that is gone lives on")
		}
		r.within(time.Minute, "away", func() bool { return r.state(id).Residency == core.Away })
		time.Sleep(time.Minute)
		if r.outcome("a").Phase.Final() {
			t.Error("a job ended without its device")
		}
		r.stop(false)
		r.devices = old
		r.start(nil)
		r.ends(core.JobCompleted, "a")
		r.executed(70, "a")
	})
}

func TestKill(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 100)
		if err := r.manager.Kill(); err != nil {
			t.Error(err)
		}
		r.stop(false)
		if r.live != 0 {
			t.Error("the plugin lives")
		}
		r.start(nil)
		r.ends(core.JobCompleted, "a")
		r.executed(70, "a")
	})
}

// TestStopped: every request is answered after the stop, and stopping twice is
// stopping once.
func TestStopped(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 3000)))[0]
		r.progressed("a", 20)
		r.stop(false)
		r.stop(false)
		if _, err := r.manager.Entities(t.Context()); err == nil {
			t.Error("entities of a stopped manager")
		}
		if err := r.manager.SetGoal(t.Context(), id, core.GoalRun); err == nil {
			t.Error("goal in a stopped manager")
		}
		if err := r.manager.Remove(t.Context(), []core.EntityID{id}); err == nil {
			t.Error("remove in a stopped manager")
		}
		if err := r.manager.Update(t.Context(), r.specs[id]); err == nil {
			t.Error("update in a stopped manager")
		}
		r.start(nil)
	})
}

// TestStopWhileDiskFull: who waits for a commit is answered when the loop ends.
func TestStopWhileDiskFull(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(r.entity("x", newJob("a", 3000)))[0]
		r.progressed("a", 20)
		r.lock(func() { r.failCommits = 1 << 30 })
		answered := make(chan error, 1)
		go func() { answered <- r.manager.SetGoal(context.Background(), id, core.GoalSuspend) }()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.manager.Stop(ctx, false)
		if err := <-answered; err == nil {
			t.Error("a goal was acknowledged that is not on record")
		}
		r.lock(func() { r.failCommits = 0 })
		r.start(nil)
		r.ends(core.JobCompleted, "a")
	})
}

// TestDetachWhileStarting: who detaches in the middle of an adoption leaves the
// instance alone.
func TestDetachWhileStarting(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 100)
		p := r.process()
		for i := range 5 {
			r.stop(true)
			r.start(nil)
			time.Sleep(time.Duration(2*i) * time.Millisecond)
		}
		r.ends(core.JobCompleted, "a")
		if r.started != 1 || r.process() != p {
			t.Errorf("%d instances were started", r.started)
		}
		r.executed(0, "a")
	})
}

// TestSlowReader: a reader that is behind gets a gap as the last thing before
// what it missed, and nobody waits for it.
func TestSlowReader(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		events := r.manager.Subscribe()
		defer events.Close()
		var jobs []manager.NewJob
		for i := range 400 {
			jobs = append(jobs, newJob(fmt.Sprintf("j%d", i), 1))
		}
		r.create(r.entity("x", jobs...))
		r.ends(core.JobCompleted, "j399")
		synctest.Wait()
		seen, gaps := 0, 0
		var last manager.Event
		for len(events.C) > 0 {
			last = <-events.C
			seen++
			if last.Gap {
				gaps++
			}
		}
		if gaps != 1 || !last.Gap {
			t.Errorf("%d of %d events are gaps, the last %+v; want one, at the end", gaps, seen, last)
		}
		r.create(r.entity("y", newJob("later", 1)))
		r.ends(core.JobCompleted, "later")
		found := false
		for len(events.C) > 0 {
			ev := <-events.C
			found = found || ev.Kind == sched.JobChanged && ev.Phase == core.JobCompleted
		}
		if !found {
			t.Error("no event arrived after the gap")
		}
	})
}
