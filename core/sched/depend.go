package sched

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// waiter is a job that waits for a fence, and what its failure means to it.
type waiter struct {
	job    *job
	policy core.DependencyPolicy
}

// admitDependency refuses fences that could never be waited for.
func (c *Core) admitDependency(e *entity, spec *core.JobSpec, d core.Dependency, longRunning []core.Fence) error {
	f := d.Fence
	switch d.OnFailure {
	case "", core.DependencyFail, core.DependencyCancel, core.DependencyIgnore:
	default:
		return fmt.Errorf("fence %s: policy %q: %w", f, d.OnFailure, core.ErrInvalid)
	}
	if f.Timeline == 0 || f.Seq == 0 {
		return fmt.Errorf("fence %s names no job: %w", f, core.ErrInvalid)
	}
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

// await registers all dependencies of a queued job at once. One on the job's own
// entity is met by the order; only its failure counts.
func (c *Core) await(e *entity, j *job) {
	for _, d := range j.spec.Depends {
		if j.state.Stopping != "" {
			return
		}
		signalled, failure := c.signalled(d.Fence)
		switch {
		case !signalled:
			j.waits++
			c.waiters[d.Fence] = append(c.waiters[d.Fence], waiter{j, d.OnFailure})
		case failure != "":
			c.unmet(e, j, d.OnFailure, failure)
		}
	}
}

// unmet applies what the failure of a dependency means.
func (c *Core) unmet(e *entity, j *job, policy core.DependencyPolicy, failure string) {
	if mutated("run-after-failed-dependency") {
		return
	}
	switch policy {
	case core.DependencyIgnore:
	case core.DependencyCancel:
		c.stop(e, j, core.CauseUser, "cancelled because "+failure)
	default:
		c.stop(e, j, core.CauseDependency, failure)
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
	for _, w := range waiting {
		if mutated("forget-waiter") {
			continue
		}
		w.job.waits--
		c.touch(w.job.entity)
		if failure != "" {
			c.unmet(w.job.entity, w.job, w.policy, failure)
		}
	}
}

// foreignSignal takes the outcome of another device's job; the first one counts.
func (c *Core) foreignSignal(f core.Fence, failure string) {
	if _, again := c.signals[f]; again || c.entities[f.Timeline] != nil {
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
	for _, d := range j.spec.Depends {
		left := slices.DeleteFunc(c.waiters[d.Fence], func(w waiter) bool { return w.job == j })
		if len(left) == 0 {
			delete(c.waiters, d.Fence)
		} else {
			c.waiters[d.Fence] = left
		}
	}
	j.waits = 0
}

func (c *Core) dependencyFailed(e *entity, j *job, why string) {
	c.finish(e, j, core.JobDependencyFailed, core.CauseDependency, why)
	c.failed(e, j, false)
}
