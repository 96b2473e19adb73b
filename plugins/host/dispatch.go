package host

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

const (
	// SlotSize is the room of one dispatch: its descriptor, then its arguments.
	SlotSize = 8 << 10
	// argsOffset is where the arguments begin in a slot.
	argsOffset = hw.DispatchSize
)

// Slot is one of an entity's places for a dispatch: where it lies, and how the GPU names it.
type Slot struct{ Device, Virtual uint64 }

// SlotAt returns the slot with an index, in memory that Map placed at slots.
func SlotAt(slots uint64, index uint32) Slot {
	offset := uint64(index) * SlotSize
	return Slot{Device: slots + offset, Virtual: DescriptorBase + offset}
}

// Dispatch makes the descriptor of a job of an entity with these buffers, without its
// range. It takes the kernel in the first of formats that the job has and that
// is loaded. Errors wrap core.ErrInvalid, core.ErrNotFound or core.ErrUnsupported.
func (m *Memory) Dispatch(job sdk.Job, buffers []Buffer, formats []string) (hw.Dispatch, []hw.Arg, error) {
	kernel, digest, err := m.choose(job.Spec, formats)
	if err != nil {
		return hw.Dispatch{}, nil, err
	}
	args := make([]hw.Arg, len(job.Spec.Args))
	for i, a := range job.Spec.Args {
		args[i] = hw.Arg{Buffer: a.Kind == core.ArgBuffer, Bits: a.Bits}
		if args[i].Buffer {
			at := slices.IndexFunc(buffers, func(b Buffer) bool { return b.Spec.Name == a.Buffer })
			if at < 0 {
				return hw.Dispatch{}, nil, fmt.Errorf("argument %d: no buffer %q: %w", i, a.Buffer, core.ErrInvalid)
			}
			args[i].Bits = buffers[at].Virtual
		}
	}
	return hw.Dispatch{
		KernelAddress: kernel.address, KernelSize: kernel.size, Digest: digest, Format: kernel.format, Entry: job.Spec.Entry,
		ArgsCount: uint32(len(args)), Grid: job.Spec.Grid, Group: job.Spec.Group, Job: uint64(job.Spec.ID), Epoch: uint64(job.Epoch),
	}, args, nil
}

// choose takes the first of formats that the job has and that is loaded.
func (m *Memory) choose(spec *core.JobSpec, formats []string) (loadedKernel, core.Digest, error) {
	for _, format := range formats {
		digest, has := spec.Kernels[format]
		if !has {
			continue
		}
		if k, loaded := m.kernel(digest); loaded {
			return k, digest, nil
		}
		return loadedKernel{}, digest, fmt.Errorf("kernel %s is not loaded: %w", digest, core.ErrNotFound)
	}
	return loadedKernel{}, core.Digest{}, fmt.Errorf("no kernel in a format of the device (%v): %w", formats, core.ErrUnsupported)
}

// CheckDispatch reports what WriteDispatch would refuse. Errors wrap core.ErrInvalid.
func CheckDispatch(dispatch hw.Dispatch, args []hw.Arg) error {
	var bytes [SlotSize]byte
	return encode(bytes[:], Slot{}, dispatch, args)
}

// WriteDispatch writes descriptor and arguments into a slot, with an empty
// report. The firmware must not use the slot. Errors wrap core.ErrInvalid or are the arena's.
func WriteDispatch(a *hw.Arena, slot Slot, dispatch hw.Dispatch, args []hw.Arg) error {
	bytes, err := a.Bytes(slot.Device, SlotSize)
	if err != nil {
		return err
	}
	return encode(bytes, slot, dispatch, args)
}

func encode(bytes []byte, slot Slot, dispatch hw.Dispatch, args []hw.Arg) error {
	dispatch.ArgsAddress = 0
	if len(args) > 0 {
		dispatch.ArgsAddress = slot.Virtual + argsOffset
	}
	clear(bytes[hw.ReportOffset:hw.DispatchSize])
	if err := errors.Join(hw.EncodeArgs(bytes[argsOffset:], args), dispatch.Encode(bytes)); err != nil {
		return fmt.Errorf("%w: %w", core.ErrInvalid, err)
	}
	return nil
}

// FaultCause translates a descriptor's cause into the shared noun.
func FaultCause(c hw.Cause) core.Cause {
	switch c {
	case hw.CauseMemory:
		return core.CauseMemory
	case hw.CauseHang:
		return core.CauseHang
	case hw.CauseKernel:
		return core.CauseKernel
	case hw.CauseDescriptor:
		return core.CauseRefused
	case hw.CauseEngine:
		return core.CauseDevice
	}
	return core.CauseTrap
}

// Image makes an image of an entity's buffers as they lie in memory. It is good until
// they change, and its Chunks fail after the memory was closed. header has everything but the buffers.
func (m *Memory) Image(header core.ImageHeader, buffers []Buffer) (core.ImageSource, error) {
	var contents [][]byte
	for _, b := range buffers {
		bytes, err := m.arena.Bytes(b.Device, b.Spec.Size)
		if err != nil {
			return nil, fmt.Errorf("save: %w", err)
		}
		header.Buffers = append(header.Buffers, b.Spec)
		contents = append(contents, bytes)
	}
	return guarded{memory: m, ImageSource: sdk.BufferImage(header, contents)}, nil
}

// guarded is an image over device memory that outlives neither.
type guarded struct {
	core.ImageSource
	memory *Memory
}

// Chunks implements core.ImageSource.
func (g guarded) Chunks(each func(core.ChunkRef, []byte) error) error {
	if !g.memory.Enter() {
		return fmt.Errorf("read image: %w", g.memory.closed)
	}
	defer g.memory.Leave()
	return g.ImageSource.Chunks(each)
}
