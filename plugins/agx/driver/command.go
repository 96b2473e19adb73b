package driver

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// command is one piece of a job in a ring.
type command struct {
	job   *job
	first uint64
	count uint64
	// value is the stamp that says that it is done, vm the slot it was kicked with.
	value, vm uint32
	// slot is its dispatch descriptor, block its private memory.
	slot  uint32
	block uint64
	// cost is what it was thought to take; probe says that nobody knew.
	cost  time.Duration
	probe bool
	// tail says that it is the last one of its job.
	tail  bool
	fault *fault
	// doubted says that its stamp was seen without its work.
	doubted bool
}

// fault is what a halt or a channel error said of a command.
type fault struct {
	guilty bool
	cause  core.Cause
	detail string
}

// compose writes descriptor, RunCompute and microsequence of a command. Errors
// wrap core.ErrInvalid.
func (q *queue) compose(c *command) error {
	d, w, j := q.d, q.work, c.job
	slot := host.SlotAt(q.slots, c.slot)
	dispatch := j.dispatch
	dispatch.First, dispatch.Count = c.first, c.count
	if err := host.WriteDispatch(d.config.Arena, slot, dispatch, j.args); err != nil {
		return err
	}
	q.counter++
	times := abi.Address(abi.ClassShared, w.shared+timesOffset+uint64(c.slot)*timesSize)
	run := abi.RunCompute{
		Counter: q.counter, VMSlot: c.vm, Notifier: w.notifier(),
		Stream: slot.Virtual, End: slot.Virtual + hw.DispatchSize,
		Sequence: abi.Address(abi.ClassPrivate, c.block+sequenceOffset), EncoderID: q.uuid,
		Meta: abi.JobMeta{
			NoPreemption: 1, Stamp: d.stampVA(abi.ClassShared, d.lay.stamps, q.slot), FwStamp: d.stampVA(abi.ClassPrivate, d.lay.fwStamps, q.slot),
			Value: c.value, Slot: q.slot, FlushStamps: 1, UUID: q.uuid, EventSeq: uint32(q.eventSeq),
		},
		Start: times, Stop: times + 8,
	}
	sequence := q.sequence(c, &run)
	run.SequenceSize = uint32(len(sequence))
	bytes, err := d.config.Arena.Bytes(c.block, blockSize)
	if err != nil {
		return err
	}
	clear(bytes)
	copy(bytes[sequenceOffset:], sequence)
	q.eventSeq++
	return d.abi.Encode(bytes, &run)
}

// sequence is the firmware's program of a command: start, wait, finalize, retire,
// with a timestamp on both sides of the work.
func (q *queue) sequence(c *command, run *abi.RunCompute) []byte {
	a, info := q.d.abi, q.work.queueInfo()
	command := abi.Address(abi.ClassGPUReadOnly, c.block)
	pointers, _ := a.RunComputeTimestamps()
	start := abi.Timestamp{Start: true, Update: command + abi.VA(pointers), Queue: info, UUID: q.uuid}
	stop := abi.Timestamp{Update: command + abi.VA(pointers) + 8, Queue: info, UUID: q.uuid}
	var s []byte
	s = a.AppendOp(s, &abi.StartCompute{Queue: info, VMSlot: c.vm, EventGeneration: q.uuid, EventSeq: q.eventSeq, UUID: q.uuid})
	s = a.AppendOp(s, &start)
	s = a.AppendOp(s, &abi.WaitForIdle{})
	s = a.AppendOp(s, &stop)
	s = a.AppendOp(s, &abi.FinalizeCompute{
		Queue: info, VMSlot: c.vm, FwStamp: run.Meta.FwStamp, Value: c.value, Restart: -int32(len(s)),
	})
	return a.AppendOp(s, &abi.RetireStamp{})
}

func (d *Driver) stampVA(class abi.Class, stamps uint64, slot uint32) abi.VA {
	return abi.Address(class, stamps+uint64(slot)*abi.StampSize)
}

// stamp reads the shared stamp of a slot; the low bits mean nothing.
func (d *Driver) stamp(slot uint32) uint32 {
	return d.load32(d.lay.stamps+uint64(slot)*abi.StampSize) &^ (abi.StampStep - 1)
}

// report reads what the firmware wrote of a command.
func (q *queue) readReport(c *command) (hw.Report, error) {
	return hw.ReadReport(q.d.config.Arena, host.SlotAt(q.slots, c.slot).Device, c.count)
}
