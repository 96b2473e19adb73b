package sched

import (
	"container/heap"

	"github.com/gpuwm/gpuwm/core"
)

// timers is a heap of entities by when they are due. An entry whose time is not
// the entity's any more is stale and skipped.
type timers []timer

type timer struct {
	at core.Instant
	e  *entity
}

func (t timers) Len() int           { return len(t) }
func (t timers) Less(i, k int) bool { return t[i].at < t[k].at }
func (t timers) Swap(i, k int)      { t[i], t[k] = t[k], t[i] }
func (t *timers) Push(x any)        { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	(*t)[last] = timer{}
	*t = (*t)[:last]
	return x
}

func (t *timers) next() core.Instant {
	for len(*t) > 0 {
		if first := (*t)[0]; first.e.due == first.at {
			return first.at
		}
		heap.Pop(t)
	}
	return 0
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
	if due == e.due {
		return
	}
	e.due = due
	if due != 0 {
		heap.Push(&c.timers, timer{at: due, e: e})
	}
}

// settledOff reports whether a suspended entity waits for nothing but the time of
// its next image.
func (e *entity) settledOff() bool { return !e.imaged && e.retryAt == 0 && e.answerBy == 0 }

func (c *Core) tick() {
	for {
		at := c.timers.next()
		if at == 0 || at > c.now {
			return
		}
		e := heap.Pop(&c.timers).(timer).e
		e.due = 0
		if e.answerBy != 0 && e.answerBy <= c.now {
			e.answerBy = 0
			if e.state.Residency == core.Suspending {
				c.latePreemption(e)
			}
			c.restart("no answer from the backend in time while entity " + e.spec.Name + " was " + string(e.state.Residency))
		}
		if e.replyBy != 0 && e.replyBy <= c.now {
			e.replyBy = 0
			c.restart("no answer from the backend in time to a message to entity " + e.spec.Name)
		}
		if e.retryAt != 0 && e.retryAt <= c.now {
			e.retryAt = 0
		}
		c.queueOverdue(e)
		c.silent(e)
		c.touch(e)
	}
}
