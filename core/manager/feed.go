package manager

import (
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// feed submits the recorded jobs of an entity to its scheduler, in order, as
// far as the jobs they come after have a durable outcome and there is room. A
// held job holds the later ones of its entity.
func (d *device) feed(r *entityRecord) {
	for r != nil && r.fed < len(r.jobs) {
		j := r.jobs[r.fed]
		wait, unmet := d.manager.awaits(j.spec)
		if wait {
			return
		}
		err := d.step(&sched.Event{
			Kind: sched.EventSubmit, Spec: j.spec, OnRecord: true, Unmet: unmet, LongRunning: d.longRunning(j.spec),
		})
		if errors.Is(err, core.ErrFull) {
			return // the next outcome of the entity makes room
		}
		r.fed++
		if err != nil {
			// The job was checked when it was applied; only a bug of ours comes here.
			d.log.Error("job not submitted", "entity", r.spec.Name, "job", j.spec.Name, "error", err)
			continue
		}
		d.signalForeign(j.spec)
	}
}

// flush has the result files written when every job of an entity has its
// outcome and no job of it did so: the last one failed, or the files were asked
// for later.
func (d *device) flush(r *entityRecord) {
	if len(r.jobs) == 0 || r.state.Flush || r.state.Goal == core.GoalClose {
		return
	}
	states := make([]*core.JobState, len(r.jobs))
	for i, j := range r.jobs {
		if !j.state.Phase.Final() {
			return
		}
		states[i] = &j.state
	}
	if !filesDue(&r.spec, &r.state, states, r.jobs[len(r.jobs)-1].spec.Seq) {
		return
	}
	if err := d.step(&sched.Event{Kind: sched.EventFlush, Entity: r.spec.ID}); err != nil {
		d.log.Error("result files not asked for", "entity", r.spec.Name, "error", err)
	}
}

// feedAll looks at every entity again, after the outcome of a job elsewhere.
func (d *device) feedAll() {
	for _, r := range d.records {
		d.feed(r)
	}
}

// outcome takes the durable outcome of a job and lets those go on that come after it.
func (m *Manager) outcome(id core.JobID, phase core.JobPhase) {
	m.mu.Lock()
	m.mu.outcomes[id] = phase
	awaited := m.mu.awaited[id]
	devices := m.devicesLocked()
	m.mu.Unlock()
	if !awaited {
		return
	}
	for _, d := range devices {
		d.do(d.feedAll)
	}
}

// awaits reports whether a job still waits for another's outcome, or which of
// them did not complete.
func (m *Manager) awaits(spec *core.JobSpec) (wait bool, unmet string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range spec.After {
		phase, known := m.mu.outcomes[id]
		if name, recorded := m.mu.jobNames[id]; !known && recorded {
			wait = true
			continue
		} else if !known && unmet == "" {
			unmet = fmt.Sprintf("job %d, which it comes after, was removed", id)
			continue
		} else if phase != core.JobCompleted && unmet == "" {
			unmet = fmt.Sprintf("job %s, which it comes after, is %s", name, phase)
		}
	}
	return wait && unmet == "", unmet
}
