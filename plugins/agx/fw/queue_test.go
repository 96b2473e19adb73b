package fw_test

import (
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// queue is a work queue of the test host.
type queue struct {
	h                  *host
	uuid, slot, level  uint32
	vm                 uint32
	info               abi.VA
	ringState          hw.Words
	ring               abi.VA
	notifier           abi.VA
	threshold          hw.Words
	context            abi.VA
	write, value       uint32
	fresh              bool
	last, lastSequence abi.VA
}

// queue makes a work queue on an event slot, in a VM of its own unless that exists.
func (h *host) queue(level, slot, vm uint32) *queue {
	h.Helper()
	q := &queue{h: h, uuid: h.uuid, slot: slot, level: level, vm: vm, fresh: true}
	h.uuid++
	state := h.alloc(abi.ClassShared, abi.RingStateSize)
	q.ringState = h.words(state, abi.RingStateSize)
	q.ringState.Store(abi.RingStateItems, abi.QueueItems)
	q.ring = h.alloc(abi.ClassPrivate, abi.QueueItems*abi.QueueItemSize)
	threshold := h.alloc(abi.ClassShared, abi.ThresholdSize)
	q.threshold = h.words(threshold, abi.ThresholdSize)
	q.notifier = h.place(abi.ClassPrivate, &abi.Notifier{Threshold: threshold, Generation: q.uuid})
	list := h.alloc(abi.ClassShared, h.abi.Size(&abi.NotifierList{}))
	h.write(list, &abi.NotifierList{Next: list})
	q.context = h.place(abi.ClassShared, abi.NewGpuContext())
	q.info = h.place(abi.ClassPrivate, &abi.QueueInfo{RingState: state, Ring: q.ring, NotifierList: list, EventSlot: -1,
		Scratch: h.alloc(abi.ClassPrivate, abi.QueueScratchSize), Priority: abi.ComputePriority(level), UUID: q.uuid, Context: q.context})
	q.value = h.stamp(slot)
	h.bind(vm)
	return q
}

// end is the message that destroys the queue's context, with what the firmware wrote there.
func (q *queue) end() *abi.DestroyContext {
	q.h.Helper()
	var c abi.GpuContext
	if err := q.h.abi.Decode(q.h.bytes(q.context, q.h.abi.Size(&c)), &c); err != nil {
		q.h.Fatal(err)
	}
	return &abi.DestroyContext{Unk23: abi.GpuContextUnk23, Index0: c.Index0, Index1: c.Index1, Unk4: c.Unk4, Context: q.context}
}

// bind gives a VM its address space: one buffer, the kernels, and the objects.
func (h *host) bind(vm uint32) {
	h.Helper()
	at := uint64(spacesAt + vm*0x1000)
	if err := hw.WriteSpace(h.arena, at, hw.Space{
		{Address: bufferVA, Device: buffersAt + uint64(vm)*hw.Granule, Size: hw.Granule},
		{Address: kernelVA, Device: kernelsAt, Size: hw.Granule, Private: true},
		{Address: workVA, Device: objectsAt, Size: 32 << 20, Private: true},
	}); err != nil {
		h.Fatal(err)
	}
	if err := h.arena.Store64(tableAt+abi.ContextEntry(vm), abi.EncodeTTBR(vm, at)); err != nil {
		h.Fatal(err)
	}
}

func (h *host) stamp(slot uint32) uint32 {
	return h.words(h.stamps, abi.Slots*abi.StampSize).Load(slot)
}
func (h *host) fwStamp(slot uint32) uint32 {
	return h.words(h.fwStamps, abi.Slots*abi.StampSize).Load(slot)
}

func (h *host) setStamps(slot, value uint32) {
	h.words(h.stamps, abi.Slots*abi.StampSize).Store(slot, value)
	h.words(h.fwStamps, abi.Slots*abi.StampSize).Store(slot, value)
}

// dispatch writes a descriptor for a script of so many workgroups and returns
// its device address.
func (h *host) dispatch(script string, workgroups uint32) uint64 {
	h.Helper()
	kernel, held := h.kernels[script]
	if !held {
		kernel = uint64(len(h.kernels)) * 256
		h.kernels[script] = kernel
		copy(h.bytes(abi.Address(abi.ClassShared, kernelsAt+kernel), 256), script)
	}
	args, _ := h.alloc(abi.ClassGPUShared, hw.ArgSize).Device()
	b, _ := h.arena.Bytes(args, hw.ArgSize)
	if err := hw.EncodeArgs(b, []hw.Arg{{Buffer: true, Bits: bufferVA}}); err != nil {
		h.Fatal(err)
	}
	at, _ := h.alloc(abi.ClassGPUShared, hw.DispatchSize).Device()
	d := hw.Dispatch{KernelAddress: kernelVA + kernel, KernelSize: uint64(len(script)), Digest: digest([]byte(script)), Format: "test", Entry: "main",
		ArgsAddress: workVA + args - objectsAt, ArgsCount: 1, Grid: [3]uint32{workgroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Count: uint64(workgroups)}
	b, _ = h.arena.Bytes(at, hw.DispatchSize)
	if err := d.Encode(b); err != nil {
		h.Fatal(err)
	}
	return at
}

// report reads a descriptor's report.
func (h *host) report(at uint64, count uint64) hw.Report {
	h.Helper()
	r, err := hw.ReadReport(h.arena, at, count)
	if err != nil {
		h.Fatal(err)
	}
	return r
}

// command makes a RunCompute for a descriptor, with what change makes of it and
// of its sequence, and puts it into the ring.
func (q *queue) command(work uint64, change func(*abi.RunCompute, *[]abi.Operation)) uint32 {
	h := q.h
	h.Helper()
	q.value += abi.StampStep
	va := h.alloc(abi.ClassGPUReadOnly, h.abi.Size(&abi.RunCompute{}))
	job, _ := h.abi.RunComputeTimestamps()
	rc := abi.RunCompute{VMSlot: q.vm, Notifier: q.notifier, Stream: workVA + work - objectsAt,
		Meta:  abi.JobMeta{Stamp: h.stamps + abi.VA(q.slot*4), FwStamp: h.fwStamps + abi.VA(q.slot*4), Value: q.value, Slot: q.slot, UUID: q.uuid},
		Start: h.alloc(abi.ClassShared, 8), Stop: h.alloc(abi.ClassShared, 8)}
	ops := []abi.Operation{
		&abi.StartCompute{Queue: q.info, VMSlot: q.vm, UUID: q.uuid},
		&abi.Timestamp{Start: true, Update: va + abi.VA(job)},
		&abi.WaitForIdle{},
		&abi.Timestamp{Update: va + abi.VA(job) + 8},
		&abi.FinalizeCompute{Queue: q.info, VMSlot: q.vm, FwStamp: rc.Meta.FwStamp, Value: q.value},
		&abi.RetireStamp{},
	}
	if change != nil {
		change(&rc, &ops)
	}
	var sequence []byte
	for _, o := range ops {
		sequence = h.abi.AppendOp(sequence, o)
	}
	rc.Sequence, rc.SequenceSize = h.alloc(abi.ClassPrivate, uint32(len(sequence))), uint32(len(sequence))
	copy(h.bytes(rc.Sequence, rc.SequenceSize), sequence)
	h.write(va, &rc)
	q.push(va)
	q.last, q.lastSequence = va, rc.Sequence
	return q.value
}

// push puts an item into the ring without telling anybody.
func (q *queue) push(va abi.VA) {
	w := q.h.words(q.ring+abi.VA(q.write*abi.QueueItemSize), abi.QueueItemSize)
	w.Store(0, uint32(va))
	w.Store(1, uint32(va>>32))
	q.write = (q.write + 1) % abi.QueueItems
}

// barrier puts a barrier for another queue's value into the ring.
func (q *queue) barrier(other *queue, value uint32) {
	q.push(q.h.place(abi.ClassPrivate, &abi.Barrier{WaitStamp: q.h.fwStamps + abi.VA(other.slot*4), WaitValue: value, WaitSlot: other.slot,
		StampSelf: q.value + abi.StampStep, UUID: abi.BarrierUUID}))
}

// expect raises the threshold by n.
func (q *queue) expect(n uint32) { q.threshold.Store(0, q.threshold.Load(0)+n) }

// message is what a kick puts into the pipe.
func (q *queue) message() *abi.RunWorkQueue {
	m := &abi.RunWorkQueue{Pipe: uint32(abi.PipeCompute), Queue: q.info, Write: q.write, Slot: q.slot, New: q.fresh}
	q.fresh = false
	return m
}

// kick tells the firmware about everything in the ring.
func (q *queue) kick() {
	h := q.h
	h.Helper()
	q.ringState.Store(abi.RingStateWrite, q.write)
	if _, err := h.pipes[q.level].Send(h.abi.Bytes(q.message())); err != nil {
		h.Fatal(err)
	}
	h.send(abi.DoorbellMessage(abi.PipeDoorbell(abi.PipeCompute, q.level)))
	h.step()
}

// submit puts one dispatch into the ring, expects one notification and kicks.
func (q *queue) submit(script string, workgroups uint32) (work uint64, value uint32) {
	q.h.Helper()
	work = q.h.dispatch(script, workgroups)
	value = q.command(work, nil)
	q.expect(1)
	q.kick()
	return work, value
}
