package driver

// slots hands out a scarce kind of slot (event slots, VM slots) among queues.
// A queue holds one only while it has commands in its ring, and gets its previous one
// again if nobody had it since; otherwise the one that was free for longest.
type slots struct {
	// first is the number of the first slot.
	first uint32
	list  []slot
	uses  uint64
}

// slot is one of them.
type slot struct {
	// owner is who has it, or had it last.
	owner *queue
	held  bool
	// freed orders the free ones.
	freed uint64
}

func newSlots(first, count uint32) slots { return slots{first: first, list: make([]slot, count)} }

// take gives q a slot, one of which is free. fresh says that it is not the one it had before.
func (s *slots) take(q *queue, previous uint32) (number uint32, fresh bool) {
	best := -1
	for i := range s.list {
		c := &s.list[i]
		switch {
		case c.held:
		case c.owner == q && s.first+uint32(i) == previous:
			c.held = true
			return previous, false
		case best < 0 || c.freed < s.list[best].freed:
			best = i
		}
	}
	s.list[best].owner, s.list[best].held = q, true
	return s.first + uint32(best), true
}

// give frees a slot; its owner is remembered.
func (s *slots) give(number uint32) {
	c := &s.list[number-s.first]
	s.uses++
	c.held, c.freed = false, s.uses
}

// forget lets nobody find q as the previous owner, and returns the slot that it had last.
func (s *slots) forget(q *queue) (number uint32, had bool) {
	for i := range s.list {
		if s.list[i].owner == q {
			s.list[i].owner = nil
			return s.first + uint32(i), true
		}
	}
	return 0, false
}

// holder returns who holds a slot now; nil for nobody.
func (s *slots) holder(number uint32) *queue {
	if q := s.owner(number); q != nil && s.list[number-s.first].held {
		return q
	}
	return nil
}

// owner returns who holds a slot, or had it last; nil for nobody.
func (s *slots) owner(number uint32) *queue {
	i := number - s.first
	if i >= uint32(len(s.list)) {
		return nil
	}
	return s.list[i].owner
}

// held counts the slots that are taken.
func (s *slots) held() int { return s.count(func(c slot) bool { return c.held }) }

// free reports whether take would find a slot.
func (s *slots) free() bool { return s.held() < len(s.list) }

// remembered counts the slots that somebody has, or had last and is there still.
func (s *slots) remembered() int { return s.count(func(c slot) bool { return c.owner != nil }) }

func (s *slots) count(is func(slot) bool) int {
	count := 0
	for _, c := range s.list {
		if is(c) {
			count++
		}
	}
	return count
}
