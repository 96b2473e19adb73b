package manager

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// fences knows which job each fence belongs to, so that fences of jobs on one
// device can be signalled on the others: a proxy there is a plain value that
// waits for an EventSignal, sent after the outcome is committed. All fields are
// guarded by Manager.mu.
type fences struct {
	jobs  map[core.Fence]core.JobID
	modes map[core.EntityID]core.Mode
	// wanted are fences that some job depends on.
	wanted map[core.Fence]bool
}

func newFences() fences {
	return fences{
		jobs: make(map[core.Fence]core.JobID), modes: make(map[core.EntityID]core.Mode),
		wanted: make(map[core.Fence]bool),
	}
}

// learn takes over the jobs of an entity.
func (f *fences) learn(rec *core.EntityRecord) {
	f.modes[rec.Spec.ID] = rec.Spec.Mode
	for _, j := range rec.Jobs {
		f.jobs[core.Fence{Timeline: rec.Spec.ID, Seq: j.Spec.Seq}] = j.Spec.ID
		for _, d := range j.Spec.Depends {
			f.wanted[d.Fence] = true
		}
	}
}

// forget drops the fences of a removed entity and returns those that somebody
// still waits for.
func (f *fences) forget(rec *core.EntityRecord) (open []core.Fence) {
	delete(f.modes, rec.Spec.ID)
	for _, j := range rec.Jobs {
		fence := core.Fence{Timeline: rec.Spec.ID, Seq: j.Spec.Seq}
		if f.wanted[fence] && !j.State.Phase.Final() {
			open = append(open, fence)
		}
		delete(f.jobs, fence)
		delete(f.wanted, fence)
	}
	return open
}

// signalled reports whether a fence has its outcome, and why it failed, if so. A
// fence that no job on record has will never be signalled: that is a failure.
func (m *Manager) signalled(fence core.Fence) (bool, string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, known := m.mu.fences.jobs[fence]
	if !known {
		return true, fmt.Sprintf("fence %s belongs to no job", fence)
	}
	phase, final := m.mu.outcomes[id]
	if final && phase != core.JobCompleted {
		return true, fmt.Sprintf("job %s is %s", m.mu.jobNames[id], phase)
	}
	return final, ""
}

// longRunning returns those of a job's dependencies on other devices that belong
// to long-running jobs.
func (d *device) longRunning(spec *core.JobSpec) []core.Fence {
	if len(spec.Depends) == 0 {
		return nil
	}
	m := d.manager
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []core.Fence
	for _, dep := range spec.Depends {
		if m.mu.fences.modes[dep.Fence.Timeline] == core.ModeLongRunning {
			found = append(found, dep.Fence)
		}
	}
	return found
}

// signalForeign tells the schedulers of the fences of other devices that a
// submitted job waits for and that have their outcome already.
func (d *device) signalForeign(spec *core.JobSpec) {
	for _, dep := range spec.Depends {
		if d.records[dep.Fence.Timeline] != nil {
			continue // of this device: the schedulers know it themselves
		}
		if done, failure := d.manager.signalled(dep.Fence); done {
			_ = d.step(&sched.Event{Kind: sched.EventSignal, Fence: dep.Fence, Error: failure})
		}
	}
}

// signalOthers tells the other devices of an outcome, if a job depends on it.
func (m *Manager) signalOthers(from *device, fence core.Fence) {
	m.mu.Lock()
	wanted := m.mu.fences.wanted[fence]
	devices := m.devicesLocked()
	m.mu.Unlock()
	if !wanted {
		return
	}
	done, failure := m.signalled(fence)
	if !done {
		return
	}
	for _, d := range devices {
		if d != from {
			d.do(func() { _ = d.step(&sched.Event{Kind: sched.EventSignal, Fence: fence, Error: failure}) })
		}
	}
}
