package arbiter

import "github.com/gpuwm/gpuwm/core"

// Pick says who should hold each slot from now on. held is who holds it
// (0 for nobody), as the hardware has it; its length is the number of slots and may
// change between calls. Who is unknown there has left and must go; who is named
// twice counts in the first slot that it fits. The answer has the same length, is written over want, and
// never moves an entity from one slot to another; 0 says that nobody should hold
// the slot. A second Pick with the first one's answer as held changes nothing
// if nothing was charged and MinRun has not passed.
func (a *Arbiter) Pick(now core.Instant, held, want []core.EntityID) []core.EntityID {
	a.now = max(a.now, now)
	a.adopt(held)
	a.fill()
	a.rejoin()
	a.preempt()
	a.rejoin()
	if a.sharing > 0 { // Who shares with a newcomer may follow it.
		a.fill()
		a.rejoin()
	}
	a.settle()
	want = want[:0]
	for _, e := range a.seats {
		id := core.EntityID(0)
		if e != nil {
			id = e.id
		}
		want = append(want, id)
	}
	return want
}

// adopt takes over what the hardware says. Turns go on as they were.
func (a *Arbiter) adopt(held []core.EntityID) {
	a.previous = a.previous[:0]
	for _, e := range a.seats {
		if e != nil {
			e.slot = nowhere
			a.previous = append(a.previous, e)
		}
	}
	clear(a.seats)
	a.seats = a.seats[:0]
	for slot, id := range held {
		e := a.entities[id]
		if e == nil || e.slot != nowhere || !a.fits(slot, e) {
			a.seats = append(a.seats, nil)
			continue
		}
		a.unline(e)
		e.slot = slot
		a.seats = append(a.seats, e)
	}
	for _, e := range a.previous {
		if e.slot == nowhere && e.runnable {
			a.enqueue(e)
		}
	}
}

// fill gives free slots to the waiting.
func (a *Arbiter) fill() {
	for a.room() {
		e := a.waiting.first([levels]bool{})
		if e == nil {
			return
		}
		slot := a.free(e)
		if slot == nowhere && a.barred(e) {
			return
		}
		a.waiting.remove(e)
		if slot != nowhere {
			a.seat(e, slot)
		} else if !a.setAside(e) {
			return
		}
	}
}

// preempt lets the waiting take slots from holders who must give way.
func (a *Arbiter) preempt() {
	moves := a.config.MovesMax
	if moves == 0 {
		moves = len(a.seats)
	}
	var closed [levels]bool
	for moves > 0 {
		e := a.waiting.first(closed)
		if e == nil {
			return
		}
		slot, barred := a.victim(e)
		switch {
		case slot != nowhere:
			a.waiting.remove(e)
			moves -= a.evict(slot, a.roomFor(e))
			a.seat(e, slot)
		case barred && a.barred(e):
			return
		case !barred:
			// Nobody behind e in its line has less virtual time than e.
			closed[e.level] = true
		default:
			a.waiting.remove(e)
			if !a.setAside(e) {
				return
			}
		}
	}
}

// evict takes a holder off its slot, and all that share its address space unless it may stay taken. It
// returns how many of them were runnable.
func (a *Arbiter) evict(slot int, alone bool) int {
	moved, h := 0, a.seats[slot]
	for s, o := range a.seats {
		if s == slot || o != nil && !alone && mates(h, o) {
			moved += a.take(s)
		}
	}
	return moved
}

// take empties a slot; a runnable holder goes back in line when the Pick is over.
func (a *Arbiter) take(slot int) int {
	h := a.seats[slot]
	a.vacate(slot)
	if !h.runnable {
		return 0
	}
	a.evicted = append(a.evicted, h)
	return 1
}

// victim returns the slot of the holder that gives way to e: of those that must,
// the one with most virtual time. Who got its slot in this Pick is not among them, as
// it came before e. barred says that one would, but e does not fit its slot, or others keep
// the address space that it needs.
func (a *Arbiter) victim(e *entity) (slot int, barred bool) {
	slot = nowhere
	alone := a.sharing == 0 || a.roomFor(e)
	for s, h := range a.seats {
		if h == nil || !h.runnable || !a.yields(h, e) {
			continue
		}
		if !a.fits(s, e) || !alone && !a.allMates(h, func(o *entity) bool { return !o.runnable || a.yields(o, e) }) {
			barred = true
			continue
		}
		if slot == nowhere || h.v.over(a.seats[slot].v) > 0 {
			slot = s
		}
	}
	return slot, barred
}

// yields reports whether a runnable holder must give way to e.
func (a *Arbiter) yields(h, e *entity) bool {
	if a.now.Sub(h.since) < a.config.MinRun && !mutated("preempt-in-min-run") {
		return false
	}
	lead, turn := h.v.over(e.v), a.turn(h)
	spent := h.used >= turn && lead > 0
	return spent || lead >= int64(strides[e.level])*int64(turn)
}

// rejoin puts back in line who was set aside.
func (a *Arbiter) rejoin() {
	for _, e := range a.aside {
		a.waiting.push(e)
	}
	clear(a.aside)
	a.aside = a.aside[:0]
}

// settle puts in line who was evicted, and keeps the bounds.
func (a *Arbiter) settle() {
	for _, e := range a.evicted {
		if !mutated("lose-evicted") {
			a.enqueue(e)
		}
	}
	clear(a.evicted)
	clear(a.previous)
	a.evicted = a.evicted[:0]
	first := a.waiting.first([levels]bool{})
	a.quiet = first == nil
	if first != nil {
		a.lift(first.v - vtime(a.window))
	}
	a.advance()
}

// room says whether a slot may be free for somebody: empty with an address space left or shared, or idle.
func (a *Arbiter) room() bool {
	empty := false
	for _, e := range a.seats {
		switch {
		case e == nil:
			empty = true
		case !e.runnable:
			return true
		}
	}
	return empty && (a.sharing > 0 || a.spare())
}

// free returns the slot e should have: an empty one while there is an address space
// for it, else that of whoever has been idle longest, who may also have to
// go only for its address space, with all that share it.
func (a *Arbiter) free(e *entity) int {
	empty, idle, oldest, alone := nowhere, nowhere, nowhere, a.roomFor(e)
	for s, h := range a.seats {
		if h == nil {
			if empty == nowhere && a.fits(s, e) {
				empty = s
			}
			continue
		}
		if h.runnable || !alone && !a.allMates(h, func(o *entity) bool { return !o.runnable }) {
			continue
		}
		if oldest == nowhere || h.seq < a.seats[oldest].seq {
			oldest = s
		}
		if a.fits(s, e) && (idle == nowhere || h.seq < a.seats[idle].seq) {
			idle = s
		}
	}
	switch {
	case empty != nowhere && alone:
		return empty
	case idle != nowhere:
		a.evict(idle, alone)
		return idle
	case empty != nowhere && oldest != nowhere:
		a.evict(oldest, alone)
		return empty
	}
	return nowhere
}

// vacate takes a holder off its slot.
func (a *Arbiter) vacate(slot int) {
	a.seats[slot].slot = nowhere
	a.seats[slot] = nil
}

// seat begins a turn of e. Who was set aside because it fits another slot only is
// not owed what e gets here.
func (a *Arbiter) seat(e *entity, slot int) {
	a.seats[slot] = e
	e.slot, e.since, e.used = slot, a.now, 0
	for _, x := range a.aside {
		if x.v.over(e.v) < 0 && !a.fits(slot, x) {
			x.v = e.v
		}
	}
}

// setAside keeps e out of line until the phase ends. It returns false when too many are
// there; those of them that fit no slot at all then go behind the next in line,
// for otherwise nobody behind them would ever be looked at.
func (a *Arbiter) setAside(e *entity) bool {
	a.aside = append(a.aside, e)
	if len(a.aside) < AsideMax {
		return true
	}
	next := a.waiting.first([levels]bool{})
	for _, x := range a.aside {
		if next != nil && !a.fitsAny(x) {
			x.v = later(x.v, next.v)
			a.seq++
			x.seq = a.seq
		}
	}
	return false
}

func (a *Arbiter) fitsAny(e *entity) bool {
	for slot := range a.seats {
		if a.fits(slot, e) {
			return true
		}
	}
	return false
}

func (a *Arbiter) fits(slot int, e *entity) bool {
	return a.config.Fits == nil || a.config.Fits(slot, e.id)
}
