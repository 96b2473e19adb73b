package manager_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
	"github.com/gpuwm/gpuwm/core/sched"
	"github.com/hashicorp/go-hclog"
)

// rig is a manager on a disk and a machine that outlive it.
type rig struct {
	*machine
	t       *testing.T
	store   *storeView
	manager *manager.Manager
	devices []core.DeviceSpec
	sched   sched.Config
	log     hclog.Logger
	now     func() time.Time
	// wants are the jobs and their workgroups.
	wants map[string]uint64
}

// bubble runs f in a bubble with a rig that is started, and checks at the end
// that nothing is left over and nothing went wrong below.
func bubble(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{
			t: t, wants: map[string]uint64{},
			machine: &machine{disk: newDisk(), processes: map[string]*process{}, ran: map[core.JobID]uint64{}, credits: 8},
			devices: []core.DeviceSpec{{Name: "d0", Backend: "fake", Engine: "test"}},
			log:     hclog.NewNullLogger(),
			sched:   sched.Config{Retry: 100 * time.Millisecond, Answer: 2 * time.Minute},
		}
		r.start(nil)
		f(t, r)
		r.stop(false)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.live != 0 {
			t.Errorf("%d plugin processes live on", r.live)
		}
		if len(r.instances) != 0 {
			t.Errorf("instances on record after the stop: %v", r.instances)
		}
		for _, p := range r.problems {
			t.Error(p)
		}
	})
}

func (r *rig) start(hold func(*core.EntityRecord) bool) {
	r.t.Helper()
	r.store = &storeView{disk: r.disk}
	r.manager = manager.New(manager.Config{
		Store: r.store, Images: imagesView{r.disk}, Launcher: launcherView{r.machine, r.store},
		Output: r.disk.output, Log: r.log, Devices: r.devices, Sched: r.sched, Now: r.now,
	})
	if err := r.manager.Start(r.t.Context(), hold); err != nil {
		r.t.Fatalf("start: %v", err)
	}
}

func (r *rig) stop(detach bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := r.manager.Stop(ctx, detach); err != nil {
		r.t.Errorf("stop: %v", err)
	}
	synctest.Wait()
}

// crash loses the manager: from now on nothing it does arrives.
func (r *rig) crash() {
	r.mu.Lock()
	r.store.dead = true
	for _, p := range r.processes {
		for _, d := range p.devices {
			d.queue = nil
		}
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_ = r.manager.Stop(ctx, true)
	synctest.Wait()
}

// lock runs f on the world.
func (r *rig) lock(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

// entity is one to create: long-running with a checkpoint every 50 ms unless the
// options say otherwise.
func (r *rig) entity(name string, jobs ...manager.NewJob) manager.NewEntity {
	e := manager.NewEntity{
		Spec: core.EntitySpec{
			Name: name, Device: "d0", Mode: core.ModeLongRunning,
			Properties: core.Properties{Checkpoint: 50 * time.Millisecond},
		},
		Image: imageReader{savedImage{memory: []byte("{}")}}, Jobs: jobs,
	}
	for _, j := range jobs {
		r.wants[j.Spec.Name] = j.Spec.Workgroups()
	}
	return e
}

func newJob(name string, workgroups uint32, after ...string) manager.NewJob {
	return manager.NewJob{
		Spec:  core.JobSpec{Name: name, Grid: [3]uint32{workgroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1},
		After: after,
	}
}

// flushed says that the job is complete only with its file.
func flushed(j manager.NewJob) manager.NewJob {
	j.Spec.Flush = true
	return j
}

func (r *rig) create(entities ...manager.NewEntity) []core.EntityID {
	r.t.Helper()
	ids, err := r.manager.Create(r.t.Context(), entities)
	if err != nil {
		r.t.Fatalf("create: %v", err)
	}
	return ids
}

// within lets virtual time pass until f, at most limit.
func (r *rig) within(limit time.Duration, what string, f func() bool) {
	r.t.Helper()
	for begun := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > limit {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.t.Fatalf("%s: not within %s\nentities %+v\njobs %+v\nproblems %v", what, limit, r.states, r.jobs, r.problems)
		}
	}
}

// ends waits until every named job has the outcome.
func (r *rig) ends(outcome core.JobPhase, names ...string) {
	r.t.Helper()
	r.within(10*time.Minute, fmt.Sprintf("jobs %v %s", names, outcome), func() bool {
		for _, name := range names {
			s := r.outcome(name)
			if s.Phase.Final() && s.Phase != outcome {
				r.t.Fatalf("job %s ended %s (%s: %s), want %s", name, s.Phase, s.Cause, s.Error, outcome)
			}
			if s.Phase != outcome {
				return false
			}
		}
		return true
	})
}

// suspended waits until the entity is off the device with that cause.
func (r *rig) suspended(id core.EntityID, cause core.Cause) core.EntityState {
	r.t.Helper()
	r.within(10*time.Minute, fmt.Sprintf("entity %d suspended", id), func() bool {
		s := r.state(id)
		return s.Goal == core.GoalSuspend && s.Residency == core.Away
	})
	s := r.state(id)
	if s.Cause != cause {
		r.t.Fatalf("entity %d suspended with cause %q (%s), want %q", id, s.Cause, s.Error, cause)
	}
	return s
}

func (r *rig) goal(id core.EntityID, goal core.Goal) {
	r.t.Helper()
	if err := r.manager.SetGoal(r.t.Context(), id, goal); err != nil {
		r.t.Fatalf("goal %s of entity %d: %v", goal, id, err)
	}
}

// process returns the process that lives.
func (r *rig) process() *process {
	r.t.Helper()
	var alive *process
	r.within(time.Minute, "a live process", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range r.processes {
			if !p.ended {
				alive = p
			}
		}
		return alive != nil
	})
	return alive
}

func (r *rig) kill(p *process) { r.lock(p.end) }

// executed requires that the jobs ran no workgroup more than they have, or at
// most extra more, and that the record says the truth.
func (r *rig) executed(extra uint64, names ...string) {
	r.t.Helper()
	for _, name := range names {
		s := r.outcome(name)
		r.mu.Lock()
		ran := r.ran[s.ID]
		r.mu.Unlock()
		if got := s.Executed + s.InEpoch; got != ran {
			r.t.Errorf("job %s: %d executed on record, %d in truth", name, got, ran)
		}
		if want := r.wants[name]; ran < want || ran > want+extra {
			r.t.Errorf("job %s: %d workgroups ran, want %d and at most %d more", name, ran, want, extra)
		}
	}
}

// progressed waits until the job has so many workgroups done.
func (r *rig) progressed(name string, done uint64) {
	r.t.Helper()
	r.within(time.Minute, fmt.Sprintf("job %s at %d", name, done), func() bool {
		s := r.outcome(name)
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.ran[s.ID] >= done
	})
}

// file returns what a result file says of a job.
func (r *rig) file(path, job string) uint64 {
	r.t.Helper()
	id := r.outcome(job).ID
	r.mu.Lock()
	defer r.mu.Unlock()
	memory := map[core.JobID]uint64{}
	if err := json.Unmarshal([]byte(r.files[path]), &memory); err != nil {
		r.t.Fatalf("file %s: %v", path, err)
	}
	return memory[id]
}
