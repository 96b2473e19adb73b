package driver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// VM is an address space with buffers, which groups share. Its methods may be called from any goroutine.
type VM struct {
	d       *Driver
	buffers []host.Buffer
	space   *space
}

// NewVM makes an address space with buffers that read as zero.
func (d *Driver) NewVM(buffers ...core.BufferSpec) (*VM, error) {
	placed, err := d.memory.Place(buffers)
	if err != nil {
		return nil, err
	}
	return &VM{d: d, buffers: placed}, nil
}

// Buffer returns where a buffer lies: in device memory, and for the GPU.
func (v *VM) Buffer(i int) host.Buffer { return v.buffers[i] }

// GroupSpec is how a Group is made.
type GroupSpec struct {
	Priority core.Priority
	Queues   []QueueSpec
}

// QueueSpec is one queue: its priority inside the group, and its ring in bytes.
type QueueSpec struct {
	Priority uint8
	RingSize uint32
}

// Group is a group of one or several queues that take raw command streams. The
// core uses entities, which are groups with one queue; tests, and other
// front ends, use this.
type Group struct {
	*group
	vm *VM
}

// GroupState is what panthor says of a group.
type GroupState struct {
	TimedOut, FatalFault, Innocent bool
	FatalQueues                    uint32
}

// NewGroup makes a group in an address space. Errors wrap core.ErrInvalid or core.ErrFull.
func (d *Driver) NewGroup(ctx context.Context, vm *VM, spec GroupSpec) (*Group, error) {
	o := &Group{vm: vm}
	err := d.loop.Call(ctx, "make group", func(done func(error)) { done(o.make(d, spec)) })
	if err != nil {
		return nil, err
	}
	return o, nil
}

func (o *Group) make(d *Driver, spec GroupSpec) error {
	if d.iface == nil {
		return fmt.Errorf("device is not up: %w", core.ErrInvalid)
	}
	most := len(d.iface.groups[0].streams)
	if len(spec.Queues) == 0 || len(spec.Queues) > most {
		return fmt.Errorf("%d queues, want 1 to %d: %w", len(spec.Queues), most, core.ErrInvalid)
	}
	if strides[spec.Priority] == 0 {
		return fmt.Errorf("priority %q: %w", spec.Priority, core.ErrInvalid)
	}
	var sizes []uint32
	for i, q := range spec.Queues {
		if q.Priority > abi.PriorityMax || q.RingSize < abi.RingSizeMin || q.RingSize > abi.RingSizeMax || bits.OnesCount32(q.RingSize) != 1 {
			return fmt.Errorf("queue %d of priority %d with a ring of %d: %w", i, q.Priority, q.RingSize, core.ErrInvalid)
		}
		sizes = append(sizes, q.RingSize)
	}
	g, err := d.newGroup(o, spec.Priority, len(spec.Queues))
	if err != nil {
		return err
	}
	o.group = g
	for i, q := range spec.Queues {
		g.queues[i].priority = q.Priority
	}
	// Every group has its own window of the address space for its rings.
	if o.vm.space == nil {
		d.spaces.shared++
		o.vm.space = &space{key: d.spaces.shared}
	}
	g.space = o.vm.space
	g.space.groups++
	d.check(d.arbiter.Share(g.key, g.space.key))
	return o.layOut(sizes)
}

// windowMax bounds the rings of all groups of one VM: they are mapped where an entity has its descriptors.
const windowMax = 4 << 20

// layOut takes the group's memory out of the VM's window, which is mapped with the first group.
func (o *Group) layOut(sizes []uint32) error {
	d, vm := o.d, o.vm
	if vm.space.table == 0 {
		window, err := d.memory.High(windowMax, "rings")
		if err != nil {
			return err
		}
		if vm.space.table, err = d.memory.Map(vm.buffers, window, windowMax); err != nil {
			return errors.Join(err, d.memory.FreeHigh(window))
		}
		vm.space.window = window
	}
	size := (laySize(sizes) + 63) &^ 63
	at := vm.space.used
	if at+size > windowMax {
		return fmt.Errorf("rings of the address space: %w", core.ErrFull)
	}
	vm.space.used += size
	return o.lay(sizes, vm.space.window+at, host.DescriptorBase+at)
}

// ErrTimeout and ErrCanceled are what panthor's fences carry beside a fault:
// the group made no progress, or died before the job's turn.
var (
	ErrTimeout  = fmt.Errorf("group timed out: %w", core.ErrDeadline)
	ErrCanceled = fmt.Errorf("group is dead: %w", core.ErrClosed)
)

// Submit appends a stream to a queue; finished is called once, on the driver's
// goroutine, when it was executed (nil), went wrong (a *core.FaultError, ErrTimeout) or never will
// be (ErrCanceled). An empty stream is a sync point: it ends with the job before
// it. Errors wrap core.ErrInvalid, core.ErrFull or core.ErrClosed.
func (o *Group) Submit(ctx context.Context, queue int, s Stream, finished func(error)) error {
	return o.d.loop.Call(ctx, "submit", func(done func(error)) { done(o.submitStream(queue, s, finished)) })
}

func (o *Group) submitStream(queue int, s Stream, finished func(error)) error {
	switch {
	case queue < 0 || queue >= len(o.queues):
		return fmt.Errorf("queue %d of %d: %w", queue, len(o.queues), core.ErrInvalid)
	case (s.Size == 0) != (s.Address == 0) || s.Size%abi.InstructionSize != 0 || s.Address%64 != 0 || s.Size >= 1<<32:
		return fmt.Errorf("stream of %d bytes at %#x: %w", s.Size, s.Address, core.ErrInvalid)
	case !o.alive():
		return fmt.Errorf("dead group: %w: %w", core.ErrInvalid, ErrCanceled)
	}
	q := o.queues[queue]
	if s.Size == 0 {
		if len(q.jobs) == 0 {
			finished(nil)
			return nil
		}
		last := q.jobs[len(q.jobs)-1]
		before := last.done
		last.done = func(err error) {
			before(err)
			finished(err)
		}
		return nil
	}
	if !q.room() {
		return fmt.Errorf("ring of queue %d: %w", queue, core.ErrFull)
	}
	q.emit(&job{stream: s, done: finished})
	o.refresh()
	return nil
}

// Fence is where a queue counts its jobs, for the group's streams, and the count with which the last one
// submitted ends. For streams that wait for another queue; on the goroutine that calls Step.
func (o *Group) Fence(queue int) (address, count uint64) {
	return o.queues[queue].syncVA, o.queues[queue].seqno
}

// State returns what panthor's GROUP_GET_STATE does.
func (o *Group) State(ctx context.Context) (s GroupState, err error) {
	err = o.d.loop.Call(ctx, "group state", func(done func(error)) {
		s = GroupState{TimedOut: o.timedout, FatalFault: o.fatal != 0, FatalQueues: o.fatal}
		s.Innocent = o.innocent && o.timedout && o.fatal == 0
		done(nil)
	})
	return s, err
}

// Destroy ends the group, on whatever slot; it returns at once.
func (o *Group) Destroy(ctx context.Context) error {
	return o.d.loop.Call(ctx, "destroy group", func(done func(error)) {
		o.destroy = true
		o.leave()
		done(nil)
	})
}

// Store writes a stream into a buffer of the VM and returns it.
func (v *VM) Store(buffer int, offset uint64, stream []abi.Instruction) (Stream, error) {
	words := make([]byte, 0, len(stream)*abi.InstructionSize)
	for _, i := range stream {
		words = binary.LittleEndian.AppendUint64(words, i.Encode())
	}
	b, err := v.d.config.Arena.Bytes(v.buffers[buffer].Device+offset, uint64(len(words)))
	if err != nil {
		return Stream{}, err
	}
	copy(b, words)
	return Stream{Address: v.buffers[buffer].Virtual + offset, Size: uint64(len(words))}, nil
}

// completed implements owner: a fault is the job's own affair, the group goes on.
func (o *Group) completed(j *job, fault *evidence) { j.done(errOf(fault)) }

// died implements owner: what is left is not executed, and who waits for its sync
// objects is let go.
func (o *Group) died(*evidence) {
	for _, q := range o.queues {
		err := error(ErrCanceled)
		switch {
		case o.fatal&(1<<q.index) != 0:
			err = &core.FaultError{Cause: core.CauseTrap, Detail: "its stream halted"}
		case o.timedout:
			err = ErrTimeout
		}
		jobs := q.jobs
		q.jobs = nil
		if q.sync != 0 {
			o.d.store(q.sync+abi.Sync64Status, ^uint32(0))
			o.d.store64(q.sync, q.seqno)
		}
		for _, j := range jobs {
			if j.fault != nil {
				err = errOf(j.fault)
			}
			j.done(err)
		}
	}
	o.d.recheckBlocked()
}

// vacated implements owner: streams are nobody's to change. After a reset that took
// nothing of the group, they begin anew.
func (o *Group) vacated() {
	if !o.taking {
		return
	}
	o.taking = false
	lists := make([][]*job, len(o.queues))
	for m, q := range o.queues {
		lists[m] = q.jobs
	}
	if !o.restart() {
		return
	}
	for m, q := range o.queues {
		for _, j := range lists[m] {
			q.emit(j)
		}
	}
}

// measured implements owner: nobody counts what raw streams execute.
func (o *Group) measured() (time.Duration, bool) { return 0, false }
