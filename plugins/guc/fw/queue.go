package fw

import (
	"iter"
	"time"
)

// queue holds the waiting contexts of one level, first come first. Contexts are
// its links, so that a table full of them costs nothing.
type queue struct {
	first, last *guContext
}

// all yields the contexts in order; the one that was yielded may be removed.
func (q *queue) all() iter.Seq[*guContext] {
	return func(yield func(*guContext) bool) {
		for g := q.first; g != nil; {
			next := g.next
			if !yield(g) {
				return
			}
			g = next
		}
	}
}

func (q *queue) insert(g *guContext, front bool) {
	if front {
		g.prev, g.next = nil, q.first
	} else {
		g.prev, g.next = q.last, nil
	}
	if g.prev != nil {
		g.prev.next = g
	} else {
		q.first = g
	}
	if g.next != nil {
		g.next.prev = g
	} else {
		q.last = g
	}
}

func (q *queue) delete(g *guContext) {
	if g.prev != nil {
		g.prev.next = g.next
	} else {
		q.first = g.next
	}
	if g.next != nil {
		g.next.prev = g.prev
	} else {
		q.last = g.prev
	}
	g.prev, g.next = nil, nil
}

// push queues a context at its own level, at the front or the end.
func (c *engineClass) push(g *guContext, front bool) { c.pushAt(g, g.policies.level, front) }

func (c *engineClass) pushAt(g *guContext, level uint32, front bool) {
	g.queued, g.queuedAt = true, level
	c.ready[level].insert(g, front)
}

// remove takes a queued context out of the queue.
func (c *engineClass) remove(g *guContext) {
	c.ready[g.queuedAt].delete(g)
	g.queued = false
}

// clear empties the queue.
func (c *engineClass) clear() {
	for l := range c.ready {
		for g := range c.ready[l].all() {
			c.remove(g)
		}
	}
}

// promote moves contexts that have waited long enough to the next stronger
// level, if that is switched on.
func (f *Firmware) promote(now time.Duration) {
	if f.cfg.Promote == 0 {
		return
	}
	for _, c := range f.classes {
		for l := uint32(1); l < levels; l++ {
			for g := range c.ready[l].all() {
				if now-g.waitsSince >= f.cfg.Promote {
					c.remove(g)
					c.pushAt(g, l-1, false)
					g.waitsSince = now
				}
			}
		}
	}
}

// promoteAt returns when promote has something to do next.
func (f *Firmware) promoteAt() time.Duration {
	at := never
	if f.cfg.Promote == 0 || f.phase != phaseReady || f.function.state != functionRunning {
		return at
	}
	for _, c := range f.classes {
		for l := 1; l < levels; l++ {
			for g := range c.ready[l].all() {
				at = min(at, g.waitsSince+f.cfg.Promote)
			}
		}
	}
	return at
}
