package driver

import (
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// GroupView is what the driver believes of one group.
type GroupView struct {
	Key   core.EntityID
	State string
	// Entity is that of the group, 0 for a raw one.
	Entity core.EntityID
	// Slot is the CSG slot, -1 for none; Priority its CSG priority there.
	Slot, Priority int
	// Asked says that the slot has not acknowledged everything that was asked of it.
	Asked bool
	// Jobs counts those in its rings, Blocked is the mask of blocked queues.
	Jobs    int
	Blocked uint32
	// Timedout, Fatal, Innocent and Dead are panthor's flags.
	Timedout, Innocent, Dead bool
	Fatal                    uint32
	// Queues are what stands in its ring pages.
	Queues []QueueView
}

// QueueView is one queue: counters of its ring in bytes, and jobs handed out and counted.
type QueueView struct {
	Insert, Extract, Size uint64
	Seqno, Done           uint64
	// First is the entity's first job that is not counted, At the one whose entry the firmware is in; 0 for none.
	First, At core.JobID
}

// Groups returns all groups in the order in which they were made. For tests and
// simulations, on the goroutine that calls Step.
func (d *Driver) Groups() []GroupView {
	var list []GroupView
	for _, g := range d.ordered() {
		v := GroupView{Key: g.key, State: g.state.String(), Slot: -1, Blocked: g.blocked, Timedout: g.timedout, Innocent: g.innocent, Dead: g.buried, Fatal: g.fatal}
		if e, ok := g.owner.(*entity); ok {
			v.Entity = e.id
		}
		if g.slot != nil {
			v.Slot, v.Priority, v.Asked = int(g.slot.index), int(g.slot.priority), g.slot.asked != 0
		}
		for _, q := range g.queues {
			v.Jobs += len(q.jobs)
			if q.pages != 0 {
				v.Queues = append(v.Queues, q.view())
			}
		}
		list = append(list, v)
	}
	return list
}

func (q *queue) view() QueueView {
	v := QueueView{Insert: q.insert, Extract: q.from(), Size: uint64(q.size), Seqno: q.seqno, Done: q.count()}
	if i := slices.IndexFunc(q.jobs, func(j *job) bool { return j.seqno > v.Done }); i >= 0 {
		v.First = q.jobs[i].id
	}
	if i := slices.IndexFunc(q.jobs, func(j *job) bool { return v.Extract < j.end }); i >= 0 {
		v.At = q.jobs[i].id
	}
	return v
}

// Up reports whether the device takes work now. For tests and simulations.
func (d *Driver) Up() bool { return !d.down() || d.phase == phaseOff && d.loop.Failure() == nil }

// Ticks counts the ticks so far. For tests, on the goroutine that calls Step.
func (d *Driver) Ticks() int { return d.tick.count }
