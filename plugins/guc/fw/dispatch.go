package fw

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// kernelBytesMax bounds the kernels that are kept; beyond it all are dropped
// and read again when needed.
const kernelBytesMax = 64 << 20

// kernelCache keeps kernels whose digest was verified, as copies: the host may
// change its memory, a kernel under a digest never changes.
type kernelCache struct {
	held  map[kernelKey]core.Kernel
	bytes int
}

// kernelKey names a verified kernel.
type kernelKey struct {
	digest core.Digest
	format string
}

// startBatch starts the dispatch that a batch command names and reports whether
// something now runs; a dispatch that is done already is passed over. Errors
// are *unmapped, *core.FaultError, or say what is malformed.
func (f *Firmware) startBatch(in *instance, cmd abi.Command, dwords uint32) (bool, error) {
	space, err := f.addressSpace(in.g)
	if err != nil {
		return false, err
	}
	memory := reader{arena: f.cfg.Arena, space: space, virtual: cmd.Virtual}
	at, half, err := memory.read(cmd.Address, hw.DispatchSize)
	if err != nil {
		return false, err
	}
	if at%hw.DispatchAlign != 0 {
		return false, fmt.Errorf("dispatch descriptor at %#x is not aligned", cmd.Address)
	}
	r := &run{at: at, dwords: dwords}
	d, err := hw.DecodeDispatch(half)
	if err == nil {
		r.base, err = hw.ReadReport(f.cfg.Arena, at, d.Count)
	}
	// From here on the descriptor can be blamed.
	in.run, r.count = r, d.Count
	if err != nil {
		r.base = hw.Report{}
		return false, err
	}
	if r.base.Done == d.Count {
		in.run = nil
		return false, nil
	}
	work, err := f.dispatch(in.g, d, r.base.Done, memory)
	if err != nil {
		return false, err
	}
	r.base.Status, r.base.Cause, r.base.Detail = hw.StatusRunning, hw.CauseNone, ""
	f.report(in, r.base)
	f.note("ENG", func(w []uint32) string {
		return fmt.Sprintf("guc_id=%d runs job %d from workgroup %d on, %d left", w[0], wide(w[1:]), wide(w[3:]), wide(w[5:]))
	}, uint32(in.g.id), uint32(d.Job), uint32(d.Job>>32), uint32(work.First), uint32(work.First>>32), uint32(work.Count), uint32(work.Count>>32))
	in.g.regs.Store(abi.RegRingHead, in.head)
	exec, err := f.startEngine(in.g, work, func() {
		r.ended.Store(true)
		f.steps.Raise()
	})
	if err != nil {
		var fe *core.FaultError
		var u *unmapped
		if !errors.As(err, &fe) && !errors.As(err, &u) {
			err = &core.FaultError{Cause: core.CauseDevice, Detail: err.Error()}
		}
		return false, err
	}
	r.exec = exec
	f.counters.Batches++
	in.sampleAt = f.cfg.Clock.Now() + f.cfg.SampleInterval
	if in.preempting && !in.arbOff {
		exec.Stop()
	}
	return true, nil
}

// wide joins the halves of a number in a trace.
func wide(w []uint32) uint64 { return uint64(w[0]) | uint64(w[1])<<32 }

// dispatch reads what a descriptor names and makes the engine's order for the
// part of the range that is not done.
func (f *Firmware) dispatch(g *guContext, d hw.Dispatch, done uint64, memory reader) (engine.Dispatch, error) {
	kernel, err := f.kernel(d, memory)
	if err != nil {
		return engine.Dispatch{}, err
	}
	visible := slices.DeleteFunc(slices.Clone(memory.space), func(m hw.Mapping) bool { return m.Private })
	work := engine.Dispatch{
		Kernel: kernel, Entry: d.Entry, Grid: d.Grid, Group: d.Group,
		First: d.First + done, Count: d.Count - done,
		Job: core.JobID(d.Job), Epoch: core.Epoch(d.Epoch),
	}
	if d.ArgsCount > 0 {
		_, slots, err := memory.read(d.ArgsAddress, uint64(d.ArgsCount)*hw.ArgSize)
		if err != nil {
			return engine.Dispatch{}, err
		}
		args, err := hw.DecodeArgs(slices.Clone(slots))
		if err != nil {
			return engine.Dispatch{}, err
		}
		for i, a := range args {
			if a.Buffer {
				if _, err := visible.Resolve(a.Bits, 1); err != nil {
					return engine.Dispatch{}, &unmapped{fmt.Errorf("argument %d: %w", i, err)}
				}
			}
			work.Args = append(work.Args, engine.Arg{Buffer: a.Buffer, Bits: a.Bits})
		}
	}
	for _, m := range visible {
		b, err := f.cfg.Arena.Bytes(m.Device, m.Size)
		if err != nil {
			return engine.Dispatch{}, &unmapped{err}
		}
		work.Segments = append(work.Segments, engine.Segment{
			Address: m.Address, Size: m.Size, Bytes: b, File: f.cfg.Arena.Fd(), Offset: int64(m.Device)})
	}
	work.Space = f.engineSpace(g, visible)
	return work, nil
}

// engineSpace numbers the context's address space for the engine, anew when
// the mappings that kernels see have changed.
func (f *Firmware) engineSpace(g *guContext, visible hw.Space) uint64 {
	if g.space != 0 && slices.Equal(g.segments, visible) {
		return g.space
	}
	if g.space != 0 {
		f.cfg.Engine.Forget(g.space)
	}
	f.spaces++
	g.space, g.segments = f.spaces, visible
	return g.space
}

// kernel returns the kernel of a dispatch, verified. Errors are *unmapped or
// *core.FaultError.
func (f *Firmware) kernel(d hw.Dispatch, memory reader) (core.Kernel, error) {
	key := kernelKey{core.Digest(d.Digest), d.Format}
	if k, ok := f.kernels.held[key]; ok && uint64(len(k.Code)) == d.KernelSize {
		return k, nil
	}
	_, code, err := memory.read(d.KernelAddress, d.KernelSize)
	if err != nil {
		return core.Kernel{}, err
	}
	k := core.Kernel{Digest: key.digest, Format: d.Format, Code: slices.Clone(code)}
	if core.DigestOf(k.Code) != k.Digest {
		return core.Kernel{}, &core.FaultError{Cause: core.CauseKernel, Detail: "kernel in memory does not have its digest"}
	}
	if f.kernels.held == nil || f.kernels.bytes+len(k.Code) > kernelBytesMax {
		f.kernels = kernelCache{held: map[kernelKey]core.Kernel{}}
	}
	f.kernels.held[key] = k
	f.kernels.bytes += len(k.Code)
	return k, nil
}

// reader reads memory by the kind of address that a batch command uses.
type reader struct {
	arena   *hw.Arena
	space   hw.Space
	virtual bool
}

// read returns the device address and the bytes of [addr, addr+size). Errors
// are *unmapped.
func (r reader) read(addr, size uint64) (uint64, []byte, error) {
	if r.virtual {
		device, err := r.space.Resolve(addr, size)
		if err != nil {
			return 0, nil, &unmapped{err}
		}
		addr = device
	}
	if addr < hw.MemoryBase {
		return 0, nil, &unmapped{fmt.Errorf("device address %#x: %w", addr, hw.ErrBounds)}
	}
	b, err := r.arena.Bytes(addr, size)
	if err != nil {
		return 0, nil, &unmapped{err}
	}
	return addr, b, nil
}
