package sched

import (
	"container/heap"

	"github.com/gpuwm/gpuwm/core"
)

// timers is a heap of the entities that are due, by when; each knows its place.
type timers []*entity

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, k int) bool { return t[i].due < t[k].due }
func (t timers) Swap(i, k int) {
	t[i], t[k] = t[k], t[i]
	t[i].slot, t[k].slot = i, k
}
func (t *timers) Push(x any) {
	e := x.(*entity)
	e.slot = len(*t)
	*t = append(*t, e)
}
func (t *timers) Pop() any {
	last := len(*t) - 1
	e := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	return e
}

// set changes when the entity is due; 0 is never.
func (t *timers) set(e *entity, due core.Instant) {
	before := e.due
	switch {
	case due == before:
	case before == 0:
		e.due = due
		heap.Push(t, e)
	case due == 0:
		heap.Remove(t, e.slot)
		e.due = 0
	default:
		e.due = due
		heap.Fix(t, e.slot)
	}
}

func (t timers) next() core.Instant {
	if len(t) == 0 {
		return 0
	}
	return t[0].due
}

// arm sets the entity's timer to the earliest of what it waits for.
func (c *Core) arm(e *entity) {
	due := core.Instant(0)
	earliest := func(at core.Instant) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	earliest(e.answerBy)
	earliest(e.retryAt)
	earliest(e.queueBy)
	earliest(e.silentBy)
	earliest(e.replyBy)
	c.boundWaves(e)
	earliest(e.waveBy)
	if e.state.Residency == core.Resident && c.up && !c.restarting && e.halt == haltNone {
		enough := e.since.Add(c.config.MinRun)
		if image := c.imageDue(e); image != 0 {
			earliest(max(image, enough))
		}
		if e.wantsOff(c) {
			earliest(enough)
		}
	}
	if e.state.Residency == core.Suspended && e.halt == haltNone && e.settledOff() {
		earliest(c.imageDue(e)) // it may be suspended for somebody else for long
	}
	c.timers.set(e, due)
}

// settledOff reports whether a suspended entity waits for nothing but the time of
// its next image.
func (e *entity) settledOff() bool { return !e.imaged && e.retryAt == 0 && e.answerBy == 0 }

// tick does what is due by time. All that is due is found before any of it is
// done, so that its order does not count.
func (c *Core) tick() {
	for len(c.timers) > 0 && c.timers[0].due <= c.now {
		e := c.timers[0]
		c.timers.set(e, 0)
		c.touch(e)
	}
	late := c.lateAlone()
	for _, e := range c.touched {
		if e == late || mutated("blame-late-wave") && e.overdue(c.now) && e.state.Residency == core.Suspending {
			c.latePreemption(e)
		}
		c.due(e)
	}
}

// due does what is due for one entity.
func (c *Core) due(e *entity) {
	if e.answerBy != 0 && e.answerBy <= c.now {
		e.answerBy = 0
		c.restart("no answer from the backend in time while entity " + e.spec.Name + " was " + string(e.state.Residency))
	}
	if e.replyBy != 0 && e.replyBy <= c.now {
		e.replyBy = 0
		c.restart("no answer from the backend in time to a message to entity " + e.spec.Name)
	}
	if e.retryAt != 0 && e.retryAt <= c.now {
		e.retryAt = 0
	}
	c.waveOverdue(e)
	c.queueOverdue(e)
	c.silent(e)
}
