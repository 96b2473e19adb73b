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

// aborter is what an execution implements that can be ended in the middle of a
// workgroup. An engine on a CPU cannot do that.
type aborter interface{ Abort() }

// stop asks an execution to end; hard does not wait for the end of a workgroup
// where that is possible.
func (r *run) stop(hard bool) {
	if a, ok := r.exec.(aborter); hard && ok {
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

// dispatch reads what a descriptor names and makes the engine's order for the
// part of the range that is not done.
func (f *Firmware) dispatch(c *command, d hw.Dispatch, memory reader) (engine.Dispatch, error) {
	kernel, err := f.kernel(d, memory)
	if err != nil {
		return engine.Dispatch{}, err
	}
	visible := slices.DeleteFunc(slices.Clone(memory.space), func(m hw.Mapping) bool { return m.Private })
	done := c.run.base.Done
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
					return engine.Dispatch{}, &accessError{a.Bits, fmt.Errorf("argument %d: %w", i, err)}
				}
			}
			work.Args = append(work.Args, engine.Arg{Buffer: a.Buffer, Bits: a.Bits})
		}
	}
	for _, m := range visible {
		b, err := f.cfg.Arena.Bytes(m.Device, m.Size)
		if err != nil {
			return engine.Dispatch{}, &accessError{m.Address, err}
		}
		work.Segments = append(work.Segments, engine.Segment{
			Address: m.Address, Size: m.Size, Bytes: b, File: f.cfg.Arena.Fd(), Offset: int64(m.Device)})
	}
	c.run.space = f.spaces.acquire(f.cfg.Engine, c.rc.VMSlot, visible)
	work.Space = c.run.space.id
	return work, nil
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
		f.blame(c, causeOf(fe.Cause), fe.Detail)
		f.fault(c, &abi.MMUFault{Reason: abi.FaultNoAccess, VMSlot: uint8(c.rc.VMSlot)})
	case errors.As(err, &fe):
		f.blame(c, causeOf(fe.Cause), fe.Detail)
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

// causeOf translates the cause of an engine's fault.
func causeOf(c core.Cause) hw.Cause {
	switch c {
	case core.CauseTrap:
		return hw.CauseTrap
	case core.CauseMemory:
		return hw.CauseMemory
	case core.CauseHang:
		return hw.CauseHang
	case core.CauseKernel:
		return hw.CauseKernel
	}
	return hw.CauseEngine
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
	res := c.run.exec.Result()
	r := f.progress(c)
	r.Executed = max(r.Executed, c.run.base.Executed+res.Done)
	r.Done = c.run.base.Done + min(res.Done, c.run.count-c.run.base.Done)
	r.ExecutedTime = c.run.base.ExecutedTime + max(res.Executed, 0)
	c.run.base, c.run.exec = r, nil
	c.sampleAt = never
	f.spaces.release(f.cfg.Engine, c.run.space)
	return r, res.Err
}

// finishWork goes on with a sequence that waited for the pipe.
func (f *Firmware) finishWork(c *command) {
	r, err := f.settle(c)
	switch {
	case err != nil:
		var fe *core.FaultError
		if !errors.As(err, &fe) {
			err = &core.FaultError{Cause: core.CauseDevice, Detail: err.Error()}
		}
		f.workFailed(c, err)
	case r.Done == c.run.count:
		r.Status = hw.StatusDone
		f.report(c, r)
		f.sequence(c)
	default:
		f.workFailed(c, &core.FaultError{Cause: core.CauseDevice, Detail: fmt.Sprintf("ended after %d of %d workgroups", r.Done, c.run.count)})
	}
}

// progress is what the descriptor of a running dispatch should say now.
func (f *Firmware) progress(c *command) hw.Report {
	r := c.run.base
	if c.run.exec == nil {
		return r
	}
	workgroups, executed := c.run.exec.Progress()
	r.Done += min(workgroups, c.run.count-r.Done)
	r.Executed += workgroups
	r.ExecutedTime += max(executed, 0)
	return r
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
