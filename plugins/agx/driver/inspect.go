package driver

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
)

// QueueView is what the driver believes of one queue.
type QueueView struct {
	ID     uint32
	Entity core.EntityID
	State  string
	// Slot and VM are the event slot and VM slot it has, or had last; Held says which.
	Slot, VM uint32
	Held     bool
	// Outstanding counts the commands in the ring, Submitted and Completed are stamps.
	Outstanding          int
	Submitted, Completed uint32
	Jobs                 int
	// Table is its address space; 0 before the first job.
	Table uint64
	// Level is the firmware's, Turn when it was kicked last, in commands of the device.
	Level uint32
	Turn  uint64
	// Head is the device address of the first command's descriptor; 0 with an empty ring.
	Head uint64
}

// Queues returns all queues in the order of their ids. For tests and
// simulations, on the goroutine that calls Step.
func (d *Driver) Queues() []QueueView {
	var list []QueueView
	for _, q := range d.ordered() {
		head := uint64(0)
		if len(q.commands) > 0 {
			head = host.SlotAt(q.slots, q.commands[0].slot).Device
		}
		list = append(list, QueueView{ID: q.uuid, Entity: q.entity, State: q.state.String(), Slot: q.slot, VM: q.vm, Held: q.held,
			Outstanding: len(q.commands), Submitted: q.value, Completed: q.completed, Jobs: len(q.jobs), Table: q.table,
			Level: q.level(), Turn: q.turn, Head: head})
	}
	return list
}

// StateView is what the driver has in use.
type StateView struct {
	// EventSlots and VMSlots count those that are held, Active the queues with commands in their ring.
	EventSlots, VMSlots, Active int
	// Remembered counts the slots of both kinds that know who has them or had them last.
	Remembered int
	// Load is what everything in the rings is thought to take.
	Load time.Duration
	// Pending is what the firmware reads: operations under way.
	Pending uint32
	// Recoveries counts the halts, Flushes the flushes of the firmware's cache that only flush.
	Recoveries int
	Flushes    uint64
	// Garbage counts freed pieces of private memory that wait for a flush.
	Garbage int
	// Low and High are the free bytes of device memory; free command blocks count as free.
	Low, High uint64
}

// State returns what is in use. For tests and simulations, on the goroutine that calls Step.
func (d *Driver) State() StateView {
	low, high := d.memory.Available()
	return StateView{
		EventSlots: d.events.held(), VMSlots: d.vms.held(), Active: len(d.active), Remembered: d.events.remembered() + d.vms.remembered(), Load: d.load,
		Pending: d.load32(d.global(abi.GlobalPendingSubmissions)), Recoveries: d.recovery.total, Flushes: d.private.flushes,
		Garbage: len(d.private.garbage), Low: low + blockSize*uint64(len(d.private.blocks)), High: high,
	}
}

// Bindings returns the address space that each VM slot names, 0 for none. For tests and simulations, on the
// goroutine that calls Step.
func (d *Driver) Bindings() (tables [abi.ContextSlots]uint64) {
	if d.lay.contexts == 0 {
		return tables
	}
	for vm := range tables {
		entry, err := d.config.Arena.Load64(d.lay.contexts + abi.ContextEntry(uint32(vm)))
		d.must(err)
		tables[vm], _ = abi.DecodeTTBR(uint32(vm), entry)
	}
	return tables
}

// Up reports whether the device takes work. For tests and simulations, on the goroutine that calls Step.
func (d *Driver) Up() bool { return d.loop.Failure() == nil && d.phase == phaseUp }
