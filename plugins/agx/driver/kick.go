package driver

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// commandsPerKick is the vendor's limit of one submission.
const commandsPerKick = 64

// The rule by which commands get into the rings:
//
//   - All commands in all rings together are to take no more than the slice target, so that
//     any ring is empty that much later. What nobody knows counts as half of it.
//   - One command is always allowed, whatever it takes.
//   - Next is who has the strongest level, and among equals who was kicked longest ago.
//   - When that one has to wait, for time, an event slot or a VM slot, nobody else gets ahead of it: what is in
//     the rings runs out, and with it everything that is waited for comes back.
//   - While a queue is to leave, nobody is kicked who would go before it: none of its level or a stronger one.

// enlist notes whether a queue has something that can be kicked.
func (d *Driver) enlist(q *queue) {
	if q.kickable() {
		d.ready[q] = struct{}{}
	} else {
		delete(d.ready, q)
	}
}

// kickable reports whether the queue has something to be cut into a command, and may.
func (q *queue) kickable() bool {
	if q.state != idle && q.state != busy || q.wantsHold() || q.destroy || q.lost {
		return false
	}
	if len(q.commands) >= int(q.d.config.Depth) || len(q.slotsFree) == 0 {
		return false
	}
	if len(q.commands) > 0 && q.commands[len(q.commands)-1].probe {
		return false // What is not known yet goes alone.
	}
	return q.nextJob() != nil
}

// nextJob is the first job with workgroups that are in no command.
func (q *queue) nextJob() *job {
	for _, j := range q.jobs {
		if j.left > 0 && !j.cancel {
			return j
		}
	}
	return nil
}

// kickAll fills the rings and tells the firmware.
func (d *Driver) kickAll() {
	if d.phase != phaseUp || d.recovery.active() {
		return
	}
	for d.loop.Failure() == nil {
		q := d.chosen()
		if q == nil || !d.issue(q) {
			break
		}
	}
	d.sendKicks()
}

// chosen returns who is next; nil when nobody can be kicked.
func (d *Driver) chosen() *queue {
	barred := d.barred()
	var best *queue
	for q := range d.ready {
		level := levels[q.priority]
		if level <= barred {
			continue
		}
		if best == nil || level < levels[best.priority] || level == levels[best.priority] && q.before(best) {
			best = q
		}
	}
	return best
}

// before orders queues of one level.
func (q *queue) before(other *queue) bool {
	if q.turn != other.turn {
		return q.turn < other.turn
	}
	return q.uuid < other.uuid
}

// barred is the weakest level of those that are leaving; 0, which nobody has, when nobody is.
func (d *Driver) barred() uint32 {
	weakest := uint32(0)
	for q := range d.active {
		if q.state == draining || q.state == killed {
			weakest = max(weakest, q.level())
		}
	}
	return weakest
}

// level is that of what it has in the ring, which another priority does not change.
func (q *queue) level() uint32 {
	if q.work != nil {
		return q.work.level
	}
	return levels[q.priority]
}

// issue puts one more command of q into its ring; false when q has to wait.
func (d *Driver) issue(q *queue) bool {
	j := q.nextJob()
	count, cost, probe := q.rates.plan(j.key, j.left, d.config.Slice)
	if d.load > 0 && d.load+cost > d.config.Slice {
		return false
	}
	q.widen()
	if d.full(q.work) || !q.hold() {
		return false
	}
	block, err := d.takeBlock()
	if err != nil {
		q.unhold()
		d.starve(q, err)
		return false
	}
	slot := q.slotsFree[len(q.slotsFree)-1]
	c := &command{job: j, first: j.next(), count: count, vm: q.vm, slot: slot, block: block, cost: cost, probe: probe, tail: count == j.left, value: q.value + abi.StampStep}
	if err := q.compose(c); err != nil {
		d.dropBlock(block)
		q.unhold()
		d.fail(fmt.Errorf("compose command of job %d: %w", j.id, err)) // It was checked when it was accepted.
		return false
	}
	if !q.advance(kick) {
		d.dropBlock(block)
		q.unhold()
		return false
	}
	q.slotsFree = q.slotsFree[:len(q.slotsFree)-1]
	if len(q.commands) == 0 {
		d.begin(q)
	}
	q.value = c.value
	q.commands = append(q.commands, c)
	q.unsent++
	j.left -= count
	j.commands++
	d.load += cost
	d.turns++
	q.turn = d.turns
	d.push(q.work, abi.Address(abi.ClassGPUReadOnly, block))
	d.enlist(q)
	if len(q.commands) == 1 {
		q.note()
	}
	return true
}

// starve handles command blocks that are not there: what is in the rings, and the flush, bring them back. With
// neither, the count of blocks is wrong (reserveBlocks).
func (d *Driver) starve(q *queue, err error) {
	if d.load > 0 || d.private.flushing || len(d.controls.sent) > 0 || !errors.Is(err, core.ErrFull) {
		return
	}
	d.fail(fmt.Errorf("device memory for commands of entity %d: %w", q.entity, err))
}

// hold gives the queue an event slot and a VM slot, both or none, for as long as
// something of it is in the ring.
func (q *queue) hold() bool {
	if q.held {
		return true
	}
	d := q.d
	if !d.events.free() || !d.vms.free() {
		return false
	}
	slot, _ := d.events.take(q, q.slot)
	vm, fresh := d.vms.take(q, q.vm)
	if fresh {
		d.bind(vm, q.table)
	}
	q.slot, q.vm, q.held = slot, vm, true
	// The slot's value goes on, whoever had it.
	q.completed = d.stamp(slot)
	q.value, q.base, q.recovered = q.completed, q.completed, q.completed
	return true
}

// unhold gives both slots back if nothing is in the ring.
func (q *queue) unhold() {
	if q.held && len(q.commands) == 0 {
		q.held = false
		q.d.events.give(q.slot)
		q.d.vms.give(q.vm)
	}
}

// bind makes a VM slot name an address space; 0 unbinds it.
func (d *Driver) bind(vm uint32, table uint64) {
	d.store64(d.lay.contexts+abi.ContextEntry(vm), abi.EncodeTTBR(vm, table))
}

// begin notes that something of the queue is in the ring: the GPU is to stay awake.
func (d *Driver) begin(q *queue) {
	d.active[q] = struct{}{}
	q.watch = watch{at: d.config.Clock.Now()}
	pending := d.global(abi.GlobalPendingSubmissions)
	d.store32(pending, d.load32(pending)+1)
	d.ring(abi.DoorbellKick)
}

// sendKicks tells the firmware of all new commands. The threshold is raised
// here and not before, so that no command holds back the event of one that it waits for.
func (d *Driver) sendKicks() {
	var unsent []*queue
	for q := range d.active {
		if q.unsent > 0 {
			unsent = append(unsent, q)
		}
	}
	// In the order of their last turns, so that runs are repeatable.
	slices.SortFunc(unsent, func(a, b *queue) int { return int(int64(a.turn - b.turn)) })
	for _, q := range unsent {
		for q.unsent > 0 && d.loop.Failure() == nil {
			if !d.sendKick(q, min(q.unsent, commandsPerKick)) {
				break
			}
		}
	}
}

// sendKick announces the next count commands of a ring; false when the pipe has no room.
func (d *Driver) sendKick(q *queue, count int) bool {
	w := q.work
	p := &d.pipes[w.level]
	full, err := p.sender.Full()
	if err != nil {
		d.fail(fmt.Errorf("pipe %d: %w", w.level, err))
		return false
	}
	now := d.config.Clock.Now()
	if full {
		if p.since == 0 {
			p.since = now
		}
		if now-p.since > d.config.Timeouts.Control {
			d.fail(fmt.Errorf("pipe %d is full for %s", w.level, d.config.Timeouts.Control))
		}
		return false
	}
	p.since = 0
	q.unsent -= count
	w.kicked = (w.kicked + uint32(count)) % abi.QueueItems
	w.threshold += uint64(count)
	d.store64(w.shared+thresholdOffset, w.threshold)
	d.store32(w.word(abi.RingStateWrite), w.kicked)
	return d.tell(q)
}

// tell sends RunWorkQueue for everything that the ring says; a repeat tells nothing new.
func (d *Driver) tell(q *queue) bool {
	w := q.work
	m := abi.RunWorkQueue{Pipe: uint32(abi.PipeCompute), Queue: w.queueInfo(), Write: w.kicked, Slot: q.slot, New: !w.known}
	if _, err := d.pipes[w.level].sender.Send(d.abi.Bytes(&m)); err != nil {
		if !errors.Is(err, abi.ErrNoRoom) {
			d.fail(fmt.Errorf("pipe %d: %w", w.level, err))
		}
		return false
	}
	w.known = true
	p := &d.pipes[w.level]
	p.sent++
	w.told, w.deaf = p.sent, 0
	d.ring(abi.PipeDoorbell(abi.PipeCompute, w.level))
	return true
}

// pipe is the sending end of a compute pipe; since is when it was found full, sent counts its messages.
type pipe struct {
	sender *abi.Sender
	since  time.Duration
	sent   uint64
}

// read counts the messages that the firmware has read.
func (p *pipe) read(ring abi.Ring) uint64 {
	read, write := ring.Indices()
	return p.sent - min(p.sent, uint64((write+ring.Count-read%ring.Count)%ring.Count))
}
