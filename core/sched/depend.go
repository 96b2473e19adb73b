package sched

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// admitDependency refuses fences that could never be waited for.
func (c *Core) admitDependency(e *entity, spec *core.JobSpec, f core.Fence, longRunning []core.Fence) error {
	if f.Timeline == spec.Entity {
		if f.Seq >= spec.Seq {
			return fmt.Errorf("fence %s is not of an earlier job: %w", f, core.ErrCycle)
		}
		return nil
	}
	other := c.entities[f.Timeline]
	if other != nil && f.Seq > other.last {
		return fmt.Errorf("fence %s does not exist yet: %w", f, core.ErrInvalid)
	}
	if e.spec.Mode == core.ModeCompute &&
		(other != nil && other.spec.Mode == core.ModeLongRunning || slices.Contains(longRunning, f)) {
		return fmt.Errorf("fence %s: %w", f, core.ErrLongRunningFence)
	}
	return nil
}

// await registers all dependencies of a queued job at once.
func (c *Core) await(e *entity, j *job) {
	for _, f := range j.spec.Depends {
		if f.Timeline == e.spec.ID {
			continue // order within the entity guarantees it
		}
		signalled, failure := c.signalled(f)
		switch {
		case !signalled:
			j.waits++
			c.waiters[f] = append(c.waiters[f], j)
		case failure != "":
			c.dependencyFailed(e, j, failure)
			return
		}
	}
}

// signalled looks a fence up.
func (c *Core) signalled(f core.Fence) (bool, string) {
	other := c.entities[f.Timeline]
	if other == nil {
		failure, ok := c.signals[f]
		return ok, failure
	}
	for _, j := range other.jobs {
		if j.spec.Seq == f.Seq {
			if j.final() && j.state.Phase != core.JobCompleted {
				return true, fmt.Sprintf("job %s is %s", j.spec.Name, j.state.Phase)
			}
			return j.final(), ""
		}
	}
	if f.Seq > other.last {
		return false, ""
	}
	if slices.Contains(other.failed, f.Seq) {
		return true, fmt.Sprintf("job %d of entity %s did not complete", f.Seq, other.spec.Name)
	}
	return true, ""
}

// signal tells the waiters of a fence.
func (c *Core) signal(f core.Fence, failure string) {
	waiting := c.waiters[f]
	if waiting == nil {
		return
	}
	delete(c.waiters, f)
	for _, j := range waiting {
		j.waits--
		c.touch(j.entity)
		if failure != "" && j.state.Phase == core.JobQueued {
			c.dependencyFailed(j.entity, j, failure)
		}
	}
}

// foreignSignal takes the outcome of another device's job.
func (c *Core) foreignSignal(f core.Fence, failure string) {
	if c.entities[f.Timeline] != nil {
		return
	}
	c.signals[f] = failure
	c.signal(f, failure)
}

// unwait takes a job off every list of waiters.
func (c *Core) unwait(j *job) {
	if j.waits == 0 {
		return
	}
	for _, f := range j.spec.Depends {
		left := slices.DeleteFunc(c.waiters[f], func(w *job) bool { return w == j })
		if len(left) == 0 {
			delete(c.waiters, f)
		} else {
			c.waiters[f] = left
		}
	}
	j.waits = 0
}

func (c *Core) dependencyFailed(e *entity, j *job, why string) {
	c.finish(e, j, core.JobDependencyFailed, core.CauseDependency, why)
	c.failed(e, j, false)
}
