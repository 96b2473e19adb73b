package driver

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// queue is the driver's half of one entity. Everything but progress belongs to
// the driver's goroutine.
type queue struct {
	d      *Driver
	entity core.EntityID
	report sdk.Reporter
	// uuid is the vendor's queue id; it is never used again.
	uuid     uint32
	state    state
	priority core.Priority

	buffers []host.Buffer
	// table is the address space, slots holds the dispatch descriptors, so many; 0 before the first job.
	table, slots uint64
	slotsCount   uint32
	slotsFree    []uint32
	work         *work
	// slot and vm are the event slot and VM slot it has, or had last; held says that it has both.
	slot, vm uint32
	held     bool

	jobs []*job
	// commands are in the ring, oldest first; the firmware was told of all but the last unsent ones.
	commands []*command
	unsent   int
	// last is the most recently retired one: the firmware may touch it once more.
	last *command
	// value is the last stamp value handed out, completed the last one seen, base what the slot
	// had when it was taken, recovered up to where channel errors were dealt with.
	value, completed, base, recovered uint32
	// counter and eventSeq are sequences that images carry on.
	counter, eventSeq uint64
	rates             rates
	// turn is when it was kicked last, in kicks of the device.
	turn uint64

	// What is wanted; settle works towards it.
	suspend bool
	destroy bool
	// relay says that the work queue is to be made anew, for another priority.
	relay bool
	// relaying waits until the firmware has forgotten the old one.
	relaying bool
	// lost says that the work was given up, and reported so unless the end was wanted before.
	lost bool

	suspendWaits []func(error)
	destroyWaits []func(error)
	// deadline bounds the wait for the stamp of a marked command.
	deadline hw.Timer
	watch    watch
	warned   bool

	// progress is what Progress reads, from any goroutine.
	progress struct {
		sync.Mutex
		refs []jobRef
	}
}

// advance moves the queue's state; an illegal event is logged and reports false.
func (q *queue) advance(e event) bool {
	to, err := q.state.next(e)
	if err != nil {
		q.d.log.Warn("illegal work queue event", "entity", q.entity, "slot", q.slot, "error", err)
		return false
	}
	q.state = to
	return true
}

// settle does whatever brings the queue closer to what is wanted, and answers who waits for that.
func (q *queue) settle() {
	for q.d.loop.Failure() == nil && q.act() {
	}
	q.d.enlist(q)
}

// act does one step of settle and reports whether there may be another one.
func (q *queue) act() bool {
	if q.destroy && !q.state.ending() && q.state != wedged {
		q.drop()
		return q.advance(kill)
	}
	q.takeOut()
	switch q.state {
	case idle:
		if q.wantsHold() {
			return q.advance(hold)
		}
	case busy:
		if q.wantsHold() {
			return q.advance(hold)
		}
	case draining:
		if !q.wantsHold() {
			return q.advance(release)
		}
	case suspended:
		if q.relay && !q.relaying {
			if !q.heard() {
				return false
			}
			q.renew()
			return true
		}
		if q.suspend && !q.relaying {
			q.answerSuspends(nil)
		}
		return !q.wantsHold() && q.advance(release)
	case killed:
		if len(q.commands) == 0 && !q.relaying && q.heard() {
			q.end()
		}
	}
	return false
}

// wantsHold reports whether no more commands are to be kicked for now.
func (q *queue) wantsHold() bool { return q.suspend || q.relay || q.relaying }

// renew replaces the work queue by one with the present priority, in the same memory.
func (q *queue) renew() {
	q.relay = false
	old, level := q.work, levels[q.priority]
	if old == nil || old.level == level {
		return
	}
	again := func() { q.work = q.d.fillWork(old.private, old.shared, q.uuid, levels[q.priority]) }
	if !old.known {
		again()
		return
	}
	q.work, q.relaying = nil, true
	q.d.endContext(old, func() {
		again()
		q.relaying = false
		q.settle()
	})
}

// end makes the firmware forget the queue, and frees everything then.
func (q *queue) end() {
	if q.work == nil || !q.work.known {
		if w := q.work; w != nil {
			if err := errors.Join(q.d.memory.FreeLow(w.private), q.d.memory.FreeLow(w.shared)); err != nil {
				q.d.log.Error("device memory leaked", "entity", q.entity, "error", err)
			}
		}
		if q.advance(forget) {
			q.free()
		}
		return
	}
	if !q.advance(sendDestroy) {
		return
	}
	q.unbind() // With its context the firmware forgets the address spaces that no slot names.
	if q.last != nil {
		q.d.discard(garbage{q.last.block, blockSize, true})
		q.last = nil
	}
	q.d.discard(garbage{q.work.private, privateSize, false}, garbage{q.work.shared, sharedSize, false})
	q.d.endContext(q.work, func() {
		if q.advance(destroyed) {
			q.free()
		}
	})
}

// free gives all memory back; the firmware does not know the queue any more.
func (q *queue) free() {
	d := q.d
	q.dropLast()
	q.note()
	q.unbind()
	d.events.forget(q)
	delete(d.queues, q.uuid)
	delete(d.ready, q)
	if q.table != 0 {
		d.private.shares--
	}
	q.freeSlots()
	if err := d.memory.Unplace(q.buffers); err != nil {
		d.log.Error("device memory leaked", "entity", q.entity, "error", err)
	}
	host.Answer(&q.destroyWaits, nil)
}

// unbind lets no VM slot name the queue's address space any more.
func (q *queue) unbind() {
	if vm, had := q.d.vms.forget(q); had {
		q.d.bind(vm, 0)
	}
}

// dropLast frees the command that was kept.
func (q *queue) dropLast() {
	if q.last != nil {
		q.slotsFree = append(q.slotsFree, q.last.slot)
		q.d.dropBlock(q.last.block)
		q.last = nil
	}
}

// drop forgets all jobs; commands in the ring stay until they retire.
func (q *queue) drop() {
	q.jobs = nil
	delete(q.d.ready, q)
	q.note()
}

// lose gives the queue's work up and reports it, with f as the reason.
func (q *queue) lose(c *command, f *fault) {
	if q.lost {
		return
	}
	q.lost = true
	if !q.destroy {
		q.start(c.job)
	}
	id, usage := core.JobID(0), sdk.Usage{}
	if f.guilty {
		id = c.job.id
		usage = q.usage(c.job)
	}
	q.d.log.Warn("work queue lost", "entity", q.entity, "job", id, "slot", q.slot, "cause", f.cause, "detail", f.detail)
	q.drop()
	if !q.destroy {
		q.report.Lost(f.guilty, id, usage, f.cause, f.detail)
	}
	q.answerSuspends(fmt.Errorf("%s: %w", f.detail, core.ErrClosed))
}

// ordered returns the queues in the order of their ids, so that runs are repeatable.
func (d *Driver) ordered() []*queue {
	queues := make([]*queue, 0, len(d.queues))
	for _, q := range d.queues {
		queues = append(queues, q)
	}
	slices.SortFunc(queues, func(a, b *queue) int { return cmp.Compare(a.uuid, b.uuid) })
	return queues
}

// working returns those with commands in their ring, in the same order.
func (d *Driver) working() []*queue {
	queues := make([]*queue, 0, len(d.active))
	for q := range d.active {
		queues = append(queues, q)
	}
	slices.SortFunc(queues, func(a, b *queue) int { return cmp.Compare(a.uuid, b.uuid) })
	return queues
}

// armRetire bounds the wait for the stamp of a marked command.
func (q *queue) armRetire(after time.Duration) {
	if q.deadline != nil {
		q.deadline.Stop()
	}
	q.deadline = q.d.loop.After(after, func() {
		q.deadline = nil
		q.d.scanQueue(q)
		if q.marked() {
			q.d.fail(fmt.Errorf("queue %d: a dead command was not retired in %s", q.uuid, after))
		}
	})
}

// marked reports whether a command in the ring is over, and owes its stamp.
func (q *queue) marked() bool {
	return slices.ContainsFunc(q.commands, func(c *command) bool { return c.fault != nil })
}

func (q *queue) answerSuspends(err error) { host.Answer(&q.suspendWaits, err) }
