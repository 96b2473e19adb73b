package fw

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

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
		var u *unmapped
		if errors.As(err, &u) {
			return false, err
		}
		return false, order.FaultOf(err)
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

// dispatch makes the engine's order for the part of the range that is not done.
func (f *Firmware) dispatch(g *guContext, d hw.Dispatch, done uint64, memory reader) (engine.Dispatch, error) {
	visible := slices.DeleteFunc(slices.Clone(memory.space), func(m hw.Mapping) bool { return m.Private })
	work, err := f.kernels.Order(d, done, order.Memory{
		Arena: f.cfg.Arena, Visible: visible,
		Read: func(address, size uint64) ([]byte, error) {
			_, b, err := memory.read(address, size)
			return b, err
		},
		Unmapped: func(_ uint64, err error) error { return &unmapped{err} },
	})
	if err == nil {
		work.Space = f.engineSpace(g, visible)
	}
	return work, err
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
