package driver

import (
	"errors"

	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// The memory of an entity beside its buffers is taken when its first job is accepted: dispatch descriptors and
// address space, the firmware's objects, and its share of the command blocks. Nothing that it needs later
// can fail then: who finds no memory is refused, and nobody else notices.
//
// Rings are shallow, so there are few descriptors at first. An entity with more jobs gets more of them, if there
// is memory, when nothing of it is in the ring.
const (
	slotsLeast = uint32(hw.Granule / host.SlotSize)
	// slotsBeside are those of commands that are no job's last one, and of the last one retired: commands take a
	// quarter of the slice target at least, or are that of a probe.
	slotsBeside = 6
)

// lay takes the memory for the queue's work. Errors wrap core.ErrFull.
func (q *queue) lay() error {
	if q.table != 0 {
		return nil
	}
	d := q.d
	if err := d.reserveBlocks(); err != nil {
		return err
	}
	w, err := d.layWork(q.uuid, levels[q.priority])
	if err != nil {
		d.private.shares--
		return err
	}
	if err := q.laySlots(min(slotsLeast, d.config.Depth+1)); err != nil {
		d.private.shares--
		return errors.Join(err, d.memory.FreeLow(w.private), d.memory.FreeLow(w.shared))
	}
	q.work = w
	return nil
}

// laySlots gives the queue count dispatch descriptors, and an address space with them, in place of
// those that it has. Nothing of it is in the ring. Errors wrap core.ErrFull, and nothing has changed then.
func (q *queue) laySlots(count uint32) error {
	d, size := q.d, uint64(count)*host.SlotSize
	slots, err := d.memory.High(size, "dispatch descriptors")
	if err != nil {
		return err
	}
	table, err := d.memory.Map(q.buffers, slots, size)
	if err != nil {
		return errors.Join(err, d.memory.FreeHigh(slots))
	}
	q.unbind()
	q.note() // Nobody looks at the old ones any more.
	q.freeSlots()
	q.slots, q.table, q.slotsCount, q.slotsFree = slots, table, count, nil
	for slot := range count {
		if number := count - 1 - slot; q.last == nil || q.last.slot != number {
			q.slotsFree = append(q.slotsFree, number)
		}
	}
	return nil
}

// freeSlots gives descriptors and address space back.
func (q *queue) freeSlots() {
	if err := errors.Join(q.d.memory.FreeLow(q.table), q.d.memory.FreeHigh(q.slots)); err != nil {
		q.d.log.Error("device memory leaked", "entity", q.entity, "error", err)
	}
}

// widen gives a queue with many jobs more descriptors, if nothing of it is in the ring and there is memory.
func (q *queue) widen() {
	most := q.d.config.Depth + 1
	if want := min(most, uint32(len(q.jobs))+slotsBeside); len(q.commands) > 0 || want <= q.slotsCount {
		return
	}
	if err := q.laySlots(min(most, 2*q.slotsCount+uint32(len(q.jobs)))); err != nil {
		q.d.log.Debug("no more dispatch descriptors", "entity", q.entity, "error", err)
	}
}
