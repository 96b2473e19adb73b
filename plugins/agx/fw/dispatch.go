package fw

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// run is one execution of a dispatch descriptor.
type run struct {
	exec  engine.Execution
	ended atomic.Bool
	// at is the descriptor's device address, 0 while it is not known; count its range.
	at, count uint64
	// base is what earlier executions of the descriptor did.
	base  hw.Report
	space *space
	// aborted: it was ended in the middle of a workgroup.
	aborted bool
	// seen is the progress at the last look of the watchdog.
	seen uint64
}

// stop asks an execution to end; hard does not wait for the end of a workgroup
// where that is possible.
func (r *run) stop(hard bool) {
	if a, ok := r.exec.(engine.Aborter); hard && ok {
		r.aborted = true
		a.Abort()
		return
	}
	r.exec.Stop()
}

// moved reports whether workgroups have ended since the last call.
func (r *run) moved() bool {
	if r == nil || r.exec == nil {
		return false
	}
	done, _ := r.exec.Progress()
	moved := done != r.seen
	r.seen = done
	return moved
}

// accessError says that an address is not mapped in the VM of a command.
type accessError struct {
	address uint64
	err     error
}

// Error implements error.
func (e *accessError) Error() string { return e.err.Error() }

// startWork starts the dispatch that the command's compute stream names, or what
// the plan makes of it. When nothing runs afterwards, WaitForIdle does not wait.
func (f *Firmware) startWork(c *command) {
	c.run = &run{}
	err := f.prepare(c)
	if err != nil {
		f.workFailed(c, err)
	}
}

// prepare reads the descriptor and starts the engine.
func (f *Firmware) prepare(c *command) error {
	space, err := f.space(c.rc.VMSlot)
	if err != nil {
		return &accessError{c.rc.Stream, err}
	}
	memory := reader{f.cfg.Arena, space}
	at, half, err := memory.read(c.rc.Stream, hw.DispatchSize)
	if err != nil {
		return err
	}
	if at%hw.DispatchAlign != 0 {
		return fmt.Errorf("dispatch descriptor at %#x is not aligned", c.rc.Stream)
	}
	r := c.run
	d, err := hw.DecodeDispatch(half)
	if err == nil {
		r.base, err = hw.ReadReport(f.cfg.Arena, at, d.Count)
	}
	// From here on the descriptor can be blamed.
	r.at, r.count = at, d.Count
	if err != nil {
		r.base = hw.Report{}
		return err
	}
	if r.base.Done == d.Count {
		return nil
	}
	work, err := f.dispatch(c, d, memory)
	if err != nil {
		return err
	}
	r.base.Status, r.base.Cause, r.base.Detail = hw.StatusRunning, hw.CauseNone, ""
	f.report(c, r.base)
	exec, err := f.startEngine(c, work, func() {
		r.ended.Store(true)
		f.steps.Raise()
	})
	if err != nil {
		f.spaces.release(f.cfg.Engine, r.space)
		return err
	}
	if exec == nil {
		f.spaces.release(f.cfg.Engine, r.space)
		return nil // The plan took its place.
	}
	r.exec = exec
	c.sampleAt = f.cfg.Clock.Now() + f.cfg.SampleInterval
	return nil
}

// dispatch makes the engine's order for the part of the range that is not done.
func (f *Firmware) dispatch(c *command, d hw.Dispatch, memory reader) (engine.Dispatch, error) {
	visible := slices.DeleteFunc(slices.Clone(memory.space), func(m hw.Mapping) bool { return m.Private })
	work, err := f.kernels.Order(d, c.run.base.Done, order.Memory{
		Arena: f.cfg.Arena, Visible: visible,
		Read: func(address, size uint64) ([]byte, error) {
			_, b, err := memory.read(address, size)
			return b, err
		},
		Unmapped: func(address uint64, err error) error { return &accessError{address, err} },
	})
	if err == nil {
		c.run.space = f.spaces.acquire(f.cfg.Engine, c.rc.VMSlot, visible)
		work.Space = c.run.space.id
	}
	return work, err
}

// workFailed ends a command whose work could not be started or failed. An
// access and a kernel's misbehaviour fault the GPU; what is malformed, cannot be
// loaded, or is the engine's own failure stops the queue alone.
func (f *Firmware) workFailed(c *command, err error) {
	var access *accessError
	var fe *core.FaultError
	switch {
	case errors.As(err, &access):
		f.blame(c, hw.CauseMemory, err.Error())
		f.fault(c, &abi.MMUFault{Reason: abi.FaultUnmapped, Read: true, VMSlot: uint8(c.rc.VMSlot), Address: access.address})
	case errors.As(err, &fe) && (fe.Cause == core.CauseTrap || fe.Cause == core.CauseMemory):
		f.blame(c, order.CauseOf(fe.Cause), fe.Detail)
		f.fault(c, &abi.MMUFault{Reason: abi.FaultNoAccess, VMSlot: uint8(c.rc.VMSlot)})
	case errors.As(err, &fe):
		f.blame(c, order.CauseOf(fe.Cause), fe.Detail)
		f.stopCommand(c, abi.ChannelDMKill)
	default:
		cause := hw.CauseDescriptor
		if c.run.at == 0 || !errors.Is(err, hw.ErrInvalid) {
			cause = hw.CauseEngine
		}
		f.blame(c, cause, err.Error())
		f.stopCommand(c, abi.ChannelDMKill)
	}
}

// finishEnded goes on with the commands whose execution has ended.
func (f *Firmware) finishEnded() bool {
	worked := false
	for _, c := range slices.Clone(f.running) {
		if c.run != nil && c.run.exec != nil && c.run.ended.Load() && !f.halt.active {
			f.finishWork(c)
			worked = true
		}
	}
	return worked
}

// settle takes in the result of an execution that has ended.
func (f *Firmware) settle(c *command) (hw.Report, error) {
	r, err := order.Settle(c.run.base, c.run.count, c.run.exec)
	c.run.base, c.run.exec = r, nil
	c.sampleAt = never
	f.spaces.release(f.cfg.Engine, c.run.space)
	return r, err
}

// finishWork goes on with a sequence that waited for the pipe.
func (f *Firmware) finishWork(c *command) {
	r, err := f.settle(c)
	switch {
	case err != nil:
		f.workFailed(c, order.FaultOf(err))
	case r.Done == c.run.count:
		r.Status = hw.StatusDone
		f.report(c, r)
		f.sequence(c)
	case c.storeBy != never:
		f.stored(c, r)
	default:
		f.workFailed(c, &core.FaultError{Cause: core.CauseDevice, Detail: fmt.Sprintf("ended after %d of %d workgroups", r.Done, c.run.count)})
	}
}

// progress is what the descriptor of a running dispatch should say now.
func (f *Firmware) progress(c *command) hw.Report {
	if c.run.exec == nil {
		return c.run.base
	}
	return order.Progress(c.run.base, c.run.count, c.run.exec)
}

// report writes a descriptor's firmware half; the address was checked.
func (f *Firmware) report(c *command, r hw.Report) {
	if c.run.at != 0 {
		_ = hw.WriteReport(f.cfg.Arena, c.run.at, r)
	}
}

// blame writes a fault into the descriptor, if the command got that far.
func (f *Firmware) blame(c *command, cause hw.Cause, detail string) {
	r := f.progress(c)
	r.Status, r.Cause, r.Detail = hw.StatusFault, cause, detail
	f.report(c, r)
}

// sample shows the host how far a running dispatch is.
func (f *Firmware) sample(c *command) {
	if c.run == nil || c.run.exec == nil || c.run.at == 0 {
		return
	}
	r := f.progress(c)
	_ = hw.WriteProgress(f.cfg.Arena, c.run.at, r.Done, r.Executed, r.ExecutedTime)
}

// reader reads memory through a VM.
type reader struct {
	arena *hw.Arena
	space hw.Space
}

// read returns the device address and the bytes of [addr, addr+size). Errors
// are *accessError.
func (r reader) read(addr, size uint64) (uint64, []byte, error) {
	device, err := r.space.Resolve(addr, size)
	if err != nil {
		return 0, nil, &accessError{addr, err}
	}
	b, err := r.arena.Bytes(device, size)
	if err != nil {
		return 0, nil, &accessError{addr, err}
	}
	return device, b, nil
}
