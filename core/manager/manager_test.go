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

// withKernel gives the entity's jobs a kernel.
func withKernel(e manager.NewEntity) manager.NewEntity {
	k := core.Kernel{Digest: core.DigestOf([]byte("k")), Format: "test", Code: []byte("k")}
	e.Kernels = []core.Kernel{k}
	for i := range e.Jobs {
		e.Jobs[i].Spec.Kernels = map[string]core.Digest{"test": k.Digest}
	}
	return e
}

// TestKernelUploadTriedAgain: also when what stands in its way takes seconds.
func TestKernelUploadTriedAgain(t *testing.T) {
	for _, fails := range []int{2, 8} {
		bubble(t, func(t *testing.T, r *rig) {
			r.lock(func() { r.dropKernel = fails })
			r.create(withKernel(r.entity("x", newJob("a", 10))))
			r.ends(core.JobCompleted, "a")
		})
	}
}

// TestKernelUnreadable: a kernel that cannot be read here is not the job's fault.
func TestKernelUnreadable(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		id := r.create(withKernel(r.entity("x", newJob("a", 300))))[0]
		r.create(r.entity("y", newJob("b", 300)))
		r.progressed("a", 120)
		r.lock(func() { r.badKernels = true })
		r.kill(r.process())
		if s := r.suspended(id, core.CauseImage); !strings.Contains(s.Error, "corrupt") {
			t.Errorf("the reason is %q", s.Error)
		}
		r.ends(core.JobCompleted, "b")
		r.lock(func() { r.badKernels = false })
		r.goal(id, core.GoalRun)
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

// TestJobsInACircle: they are refused, over devices and over the order of an entity too.
func TestJobsInACircle(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.stop(false)
		r.devices = append(r.devices, core.DeviceSpec{Name: "d1", Backend: "other", Engine: "test"})
		r.start(nil)
		for _, c := range [][2][]manager.NewJob{
			{{newJob("a", 1, "b")}, {newJob("b", 1, "a")}},
			{{newJob("a", 1, "d")}, {newJob("c", 1, "a"), newJob("d", 1)}},
			{{newJob("a", 1)}, {newJob("b", 1), newJob("c", 1, "c")}},
		} {
			x, y := r.entity("x", c[0]...), r.entity("y", c[1]...)
			y.Spec.Device = "d1"
			if _, err := r.manager.Create(t.Context(), []manager.NewEntity{x, y}); !errors.Is(err, core.ErrCycle) {
				t.Errorf("%v: %v", c, err)
			}
		}
		clear(r.wants)
		r.create(r.entity("x", newJob("a", 1), newJob("b", 1, "c")), r.entity("y", newJob("c", 1, "a")))
		r.ends(core.JobCompleted, "a", "b", "c")
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

// TestStopWaitsForTheCommit: who starts after a stop finds on record all that the
// disk had been given.
func TestStopWaitsForTheCommit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 20)
		r.lock(func() { r.latency = time.Second })
		r.within(time.Minute, "a commit under way", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.writing
		})
		r.stop(true)
		r.lock(func() {
			if r.writing {
				t.Error("stopped, and the disk still writes")
			}
			r.latency = time.Millisecond
		})
		r.start(nil)
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
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
		// The record is there before its event is published.
		synctest.Wait()
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
