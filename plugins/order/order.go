// Package order is how an emulated firmware gives work to an engine, whatever the
// vendor: a dispatch descriptor in device memory becomes an engine's order
// (Kernels.Order), and what the engine says becomes the descriptor's report
// (Progress, Settle).
//
// It knows no ring, no message and no fault of a vendor: how memory is read,
// and what an address that is not mapped is called, is the caller's (Memory).
// It starts nothing. plugins/hw was rejected as its place, because no type of ours
// crosses to the hardware; plugins/engine, because an engine knows no descriptor.
package order

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Memory is the address space that a descriptor is in.
type Memory struct {
	Arena *hw.Arena
	// Visible are the mappings that kernels see.
	Visible hw.Space
	// Read returns the bytes at an address of the kind that the descriptor
	// uses. They are the host's, which may change them meanwhile.
	Read func(address, size uint64) ([]byte, error)
	// Unmapped is the vendor's error of an address that kernels do not see.
	Unmapped func(address uint64, err error) error
}

// bytesMax bounds the kernels that are kept; beyond it all are dropped and read
// again when needed.
const bytesMax = 64 << 20

// Kernels keeps kernels whose digest was verified, as copies: the host may
// change its memory, a kernel under a digest never changes. The zero value keeps none yet.
type Kernels struct {
	held  map[kernelKey]core.Kernel
	bytes int
}

// kernelKey names a verified kernel.
type kernelKey struct {
	digest core.Digest
	format string
}

// Order reads what a descriptor names and makes the engine's order for the part
// of the range that is not done; Space is left to the caller. Errors are those of
// from, a *core.FaultError for a kernel that is not what its digest says, or a
// *hw.DescriptorError.
func (k *Kernels) Order(d hw.Dispatch, done uint64, from Memory) (engine.Dispatch, error) {
	kernel, err := k.kernel(d, from)
	if err != nil {
		return engine.Dispatch{}, err
	}
	work := engine.Dispatch{
		Kernel: kernel, Entry: d.Entry, Grid: d.Grid, Group: d.Group,
		First: d.First + done, Count: d.Count - done,
		Job: core.JobID(d.Job), Epoch: core.Epoch(d.Epoch),
	}
	if work.Args, err = arguments(d, from); err != nil {
		return engine.Dispatch{}, err
	}
	for _, m := range from.Visible {
		b, err := from.Arena.Bytes(m.Device, m.Size)
		if err != nil {
			return engine.Dispatch{}, from.Unmapped(m.Address, err)
		}
		work.Segments = append(work.Segments, engine.Segment{
			Address: m.Address, Size: m.Size, Bytes: b, File: from.Arena.Fd(), Offset: int64(m.Device)})
	}
	return work, nil
}

// arguments reads the argument slots; a buffer must be where kernels see it.
func arguments(d hw.Dispatch, from Memory) ([]engine.Arg, error) {
	if d.ArgsCount == 0 {
		return nil, nil
	}
	slots, err := from.Read(d.ArgsAddress, uint64(d.ArgsCount)*hw.ArgSize)
	if err != nil {
		return nil, err
	}
	decoded, err := hw.DecodeArgs(slices.Clone(slots))
	if err != nil {
		return nil, err
	}
	var args []engine.Arg
	for i, a := range decoded {
		if a.Buffer {
			if _, err := from.Visible.Resolve(a.Bits, 1); err != nil {
				return nil, from.Unmapped(a.Bits, fmt.Errorf("argument %d: %w", i, err))
			}
		}
		args = append(args, engine.Arg{Buffer: a.Buffer, Bits: a.Bits})
	}
	return args, nil
}

// kernel returns the kernel of a dispatch, verified.
func (k *Kernels) kernel(d hw.Dispatch, from Memory) (core.Kernel, error) {
	key := kernelKey{core.Digest(d.Digest), d.Format}
	if held, ok := k.held[key]; ok && uint64(len(held.Code)) == d.KernelSize {
		return held, nil
	}
	code, err := from.Read(d.KernelAddress, d.KernelSize)
	if err != nil {
		return core.Kernel{}, err
	}
	read := core.Kernel{Digest: key.digest, Format: d.Format, Code: slices.Clone(code)}
	if core.DigestOf(read.Code) != read.Digest {
		return core.Kernel{}, &core.FaultError{Cause: core.CauseKernel, Detail: "kernel in memory does not have its digest"}
	}
	if k.held == nil || k.bytes+len(read.Code) > bytesMax {
		*k = Kernels{held: map[kernelKey]core.Kernel{}}
	}
	k.held[key] = read
	k.bytes += len(read.Code)
	return read, nil
}
