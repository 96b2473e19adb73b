package arbiter

import "container/heap"

// line is the waiting entities of one priority, least virtual time first. There
// is one per priority because who may preempt a holder depends on the stride: the
// first of each line stands for all behind it.
type line []*entity

func (l line) Len() int           { return len(l) }
func (l line) Less(i, k int) bool { return l[i].before(l[k]) }
func (l line) Swap(i, k int) {
	l[i], l[k] = l[k], l[i]
	l[i].place, l[k].place = i, k
}

func (l *line) Push(x any) {
	e := x.(*entity)
	e.place = len(*l)
	*l = append(*l, e)
}

func (l *line) Pop() any {
	last := len(*l) - 1
	e := (*l)[last]
	(*l)[last] = nil
	*l = (*l)[:last]
	e.place = nowhere
	return e
}

// lines is everybody who is runnable and holds no slot.
type lines [levels]line

func (q *lines) len() int { return len(q[levelHigh]) + len(q[levelNormal]) + len(q[levelLow]) }

func (q *lines) push(e *entity)   { heap.Push(&q[e.level], e) }
func (q *lines) remove(e *entity) { heap.Remove(&q[e.level], e.place) }
func (q *lines) fix(e *entity)    { heap.Fix(&q[e.level], e.place) }

// first returns who is next, leaving out the lines that are closed; nil if nobody.
func (q *lines) first(closed [levels]bool) *entity {
	var best *entity
	for l := range q {
		if closed[l] || len(q[l]) == 0 {
			continue
		}
		if e := q[l][0]; best == nil || e.before(best) {
			best = e
		}
	}
	return best
}

// before orders the waiting: least virtual time, then the higher priority, then
// who has waited longer. No two are equal.
func (e *entity) before(f *entity) bool {
	if mutated("strict-levels") && e.level != f.level {
		return e.level < f.level
	}
	if d := e.v.over(f.v); d != 0 {
		return d < 0
	}
	if e.level != f.level {
		return e.level < f.level
	}
	return e.seq < f.seq
}
