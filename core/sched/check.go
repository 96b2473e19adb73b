package sched

import (
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// Check recounts what the Core keeps counted, and returns what is wrong: nil
// unless there is a bug of ours. It looks at everything, so it is for tests and
// the simulation. Call it between two steps.
func (c *Core) Check() error {
	var errs []error
	if len(c.order) != len(c.entities) {
		errs = append(errs, fmt.Errorf("%d entities in order, %d known", len(c.order), len(c.entities)))
	}
	waits := c.countWaits(&errs)
	for _, e := range c.order {
		if c.entities[e.spec.ID] != e {
			errs = append(errs, fmt.Errorf("entity %d is in the order only", e.spec.ID))
		}
		for _, check := range []func(*entity) error{
			c.checkState, checkJobs, c.checkSides, func(e *entity) error { return checkWaits(e, waits) },
		} {
			if err := check(e); err != nil {
				errs = append(errs, fmt.Errorf("entity %d, %s: %w", e.spec.ID, e.state.Residency, err))
			}
		}
	}
	for waiter, w := range c.waves {
		for e := range w.entities {
			if e.waves[waiter] != w || c.entities[e.spec.ID] != e {
				errs = append(errs, fmt.Errorf("wave %d holds entity %d, which knows nothing of it", waiter, e.spec.ID))
			}
		}
	}
	return errors.Join(append(errs, c.checkTimers())...)
}

// Size counts what the Core holds in memory, for tests of leaks.
func (c *Core) Size() int {
	n := len(c.entities) + cap(c.order) + len(c.waiters) + len(c.signals) + len(c.timers) + len(c.waves)
	for _, e := range c.order {
		n += len(e.jobs) + len(e.failed) + len(e.messages) + len(e.waves)
	}
	return n
}

// countWaits counts, for each job, the lists of waiters that it is on.
func (c *Core) countWaits(errs *[]error) map[*job]int {
	waits := make(map[*job]int)
	for f, list := range c.waiters {
		if len(list) == 0 {
			*errs = append(*errs, fmt.Errorf("fence %s has an empty list of waiters", f))
		}
		for _, w := range list {
			waits[w.job]++
			if c.entities[w.job.spec.Entity] != w.job.entity || w.job.final() {
				*errs = append(*errs, fmt.Errorf("fence %s is awaited by job %d, which is gone", f, w.job.spec.ID))
			}
		}
	}
	return waits
}

func checkWaits(e *entity, waits map[*job]int) error {
	for _, j := range e.jobs {
		if j.waits != waits[j] {
			return fmt.Errorf("job %d counts %d dependencies, is on %d lists", j.spec.ID, j.waits, waits[j])
		}
	}
	return nil
}

// checkState compares the fields of the entity's state with each other.
func (c *Core) checkState(e *entity) error {
	s := &e.state
	asked := false
	switch s.Residency {
	case core.Creating, core.Suspending, core.Resuming, core.Leaving:
		asked = true
	case core.Away, core.Resident, core.Suspended, core.Saving:
	default:
		return errors.New("unknown residency")
	}
	switch {
	case asked != (s.Pending != 0) && s.Residency != core.Leaving: // stopped, it leaves without being asked
		return fmt.Errorf("command %d is pending", s.Pending)
	case (s.Residency == core.Saving) != (s.Saving != 0):
		return fmt.Errorf("image %d is being written", s.Saving)
	case s.Banned && !s.Halted:
		return errors.New("banned and not halted")
	case s.Closed && (s.Residency != core.Away || e.unfinished != 0):
		return fmt.Errorf("closed with %d unfinished jobs", e.unfinished)
	case s.Pending > s.Commands || s.PropertiesPending > s.Commands || e.haltSeq > s.Commands:
		return fmt.Errorf("%d commands, %d is pending", s.Commands, s.Pending)
	case e.touched || e.dirty:
		return errors.New("left over for the next step")
	}
	return nil
}

// checkJobs recounts the jobs.
func checkJobs(e *entity) error {
	var unfinished, urgent, barrier int
	var credits uint32
	first := len(e.jobs)
	seq := e.state.Cut
	for i, j := range e.jobs {
		if j.spec.Seq <= seq {
			return fmt.Errorf("job %d out of order", j.spec.ID)
		}
		seq = j.spec.Seq
		if !j.final() {
			unfinished++
			first = min(first, i)
		}
		if j.urgent {
			urgent++
		}
		if j.barrier {
			barrier++
		}
		if j.state.Run != 0 {
			credits += j.spec.Credits
		}
		if err := checkJob(e, j, i); err != nil {
			return fmt.Errorf("job %d, %s: %w", j.spec.ID, j.state.Phase, err)
		}
	}
	switch {
	case e.last < seq:
		return fmt.Errorf("last job is %d, found %d", e.last, seq)
	case e.unfinished != unfinished || e.urgent != urgent || e.barrier != barrier || e.credits != credits:
		return fmt.Errorf("unfinished, urgent, barriers, credits are %d %d %d %d, counted %d %d %d %d",
			e.unfinished, e.urgent, e.barrier, e.credits, unfinished, urgent, barrier, credits)
	case e.first != first || e.next < 0 || e.next > len(e.jobs):
		return fmt.Errorf("first is %d, next is %d of %d jobs, the first unfinished is %d", e.first, e.next, len(e.jobs), first)
	}
	return nil
}

func checkJob(e *entity, j *job, index int) error {
	s := &j.state
	away := e.state.Residency == core.Away
	urgent := s.Phase == core.JobFlushing || s.Phase == core.JobDispatched && s.Stopping != ""
	switch {
	case j.entity != e || j.dirty:
		return errors.New("not of this entity, or left over")
	case j.urgent != urgent:
		return fmt.Errorf("urgent is %t", j.urgent)
	case s.Run != 0 && (index >= e.next || away || s.Epoch != e.state.Epoch || s.Run > e.state.Commands):
		return fmt.Errorf("in the ring by command %d of epoch %d, next is %d", s.Run, s.Epoch, e.next)
	case s.Cancel != 0 && s.Run == 0:
		return errors.New("taken out and not in the ring")
	case s.Cursor > j.spec.Workgroups() || j.done > j.spec.Workgroups():
		return fmt.Errorf("cursor %d, done %d of %d", s.Cursor, j.done, j.spec.Workgroups())
	case j.final() && s.Stopping != "":
		return errors.New("to be stopped after its outcome")
	case away && (s.Phase == core.JobFlushing || s.Phase == core.JobDispatched && s.Stopping == ""):
		return errors.New("on no device")
	case j.barrier && !j.spec.Flush:
		return errors.New("a barrier without a file due")
	}
	return nil
}

// checkSides looks at messages and waves.
func (c *Core) checkSides(e *entity) error {
	for i, m := range e.messages {
		if m.seq != 0 && (i > 0 || e.state.Residency == core.Away) {
			return fmt.Errorf("message %d is under way", m.id)
		}
	}
	for waiter, w := range e.waves {
		if _, in := w.entities[e]; c.waves[waiter] != w || !in {
			return fmt.Errorf("in wave %d, which is gone", waiter)
		}
		if w.told && !w.gaveUp && !e.off() && e.state.Residency != core.Leaving {
			return fmt.Errorf("on the hardware while waiter %d was told it is off", waiter)
		}
	}
	return nil
}

// checkTimers looks for the entities that are due among the timers, for nothing
// else, and at the order.
func (c *Core) checkTimers() error {
	due := 0
	for i, e := range c.timers {
		if i > 0 && e.due < c.timers[(i-1)/2].due {
			return errors.New("timers out of order")
		}
		if e.slot != i {
			return fmt.Errorf("entity %d has timer %d and believes %d", e.spec.ID, i, e.slot)
		}
	}
	for _, e := range c.order {
		if e.due == 0 {
			continue
		}
		due++
		if e.slot >= len(c.timers) || c.timers[e.slot] != e {
			return fmt.Errorf("entity %d is due at %d and no timer says so", e.spec.ID, e.due)
		}
	}
	if due != len(c.timers) {
		return fmt.Errorf("%d timers, %d entities are due", len(c.timers), due)
	}
	return nil
}
