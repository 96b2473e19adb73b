package fw

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// dispatch is one RUN_COMPUTE between its issue and its end.
type dispatch struct {
	// s is nil when its stream is gone.
	s *stream
	// regs, axis and increment are what the instruction found; slot is the
	// scoreboard entry it counts on.
	regs      [abi.ComputeRegisters]uint32
	spd       uint8
	axis      uint8
	increment uint16
	slot      uint8
	// next is the number of workgroups of the descriptor's range that are done.
	next uint64
	// at is the device address of the dispatch descriptor, order the place among
	// equals; both are found anew after a resume.
	at    uint64
	work  hw.Dispatch
	base  hw.Report
	order uint64
	run   *run
	// cores are the endpoints it has now.
	cores uint64
}

// errDispatch is returned when a descriptor and its registers do not fit together.
var errDispatch = errors.New("dispatch")

// runCompute issues a dispatch. In error state it is passed over.
func (s *stream) runCompute(i abi.Instruction) outcome {
	f := s.g.f
	if s.failed && !f.cfg.RunFaulted {
		s.bump(i.Progress)
		return outcomeNext
	}
	if len(s.dispatches) == dispatchesMax {
		s.block(abi.BlockedDeferred, abi.WaitStatus{}, 0, 0)
		return outcomeStay
	}
	d := &dispatch{s: s, spd: i.SPD, axis: i.Axis, increment: i.Increment, slot: s.endpoint}
	copy(d.regs[:], s.regs[:])
	if err := f.find(d, false); err != nil {
		return s.refuse(d, err)
	}
	s.bump(i.Progress)
	f.counters.Dispatches++
	if d.base.Done == d.work.Count {
		return outcomeNext // Its descriptor says that it is done.
	}
	d.next = d.base.Done
	s.dispatches = append(s.dispatches, d)
	return outcomeNext
}

// refuse reports what is wrong with a dispatch, in its descriptor too if there is one.
func (s *stream) refuse(d *dispatch, err error) outcome {
	if asAccess(err) != nil {
		return s.accessOutcome(err)
	}
	s.g.f.say("RUN", fmt.Sprintf("csg=%d cs=%d %v", s.g.slot, s.index, err))
	if d.at != 0 {
		d.base.Status, d.base.Cause, d.base.Detail = hw.StatusFault, hw.CauseDescriptor, err.Error()
		_ = hw.WriteReport(s.g.f.cfg.Arena, d.at, d.base)
	}
	s.fault(abi.ExceptionDataInvalid, d.program())
	return outcomeNext
}

// program is the address of the shader program descriptor.
func (d *dispatch) program() uint64 {
	r := abi.Selected(abi.RegisterSPD, d.spd)
	return uint64(d.regs[r]) | uint64(d.regs[r+1])<<32
}

// find reads the descriptors of a dispatch through its group's address space
// and checks them against the registers. again says that the dispatch came out of
// an image, which knows better than the report how much is done. Errors are *access or wrap errDispatch.
func (f *Firmware) find(d *dispatch, again bool) error {
	as := d.s.g.as
	at, err := f.translate(as, d.program(), abi.ShaderProgramSize, abi.AccessRead)
	if err != nil {
		return err
	}
	b, err := f.cfg.Arena.Bytes(at, abi.ShaderProgramSize)
	if err != nil {
		return fmt.Errorf("%w: %w", errDispatch, err)
	}
	program, err := abi.DecodeShaderProgram(slices.Clone(b))
	if err != nil || program.Stage != abi.StageCompute {
		return fmt.Errorf("%w: shader program of stage %d: %v", errDispatch, program.Stage, err)
	}
	if at, err = f.translate(as, program.Binary, hw.DispatchSize, abi.AccessRead); err != nil {
		return err
	}
	if at%hw.DispatchAlign != 0 {
		return fmt.Errorf("%w: descriptor at %#x is not aligned", errDispatch, program.Binary)
	}
	if b, err = f.cfg.Arena.Bytes(at, hw.DispatchSize); err != nil {
		return fmt.Errorf("%w: %w", errDispatch, err)
	}
	d.at = at
	if d.work, err = hw.DecodeDispatch(b); err != nil {
		return fmt.Errorf("%w: %w", errDispatch, err)
	}
	if d.base, err = hw.ReadReport(f.cfg.Arena, at, d.work.Count); err != nil {
		if !again {
			d.base = hw.Report{}
			return fmt.Errorf("%w: %w", errDispatch, err)
		}
		d.base = hw.Report{}
	}
	if again {
		if d.next > d.work.Count {
			return fmt.Errorf("%w: %d of %d workgroups done", errDispatch, d.next, d.work.Count)
		}
		d.base.Done = d.next
	}
	f.orders++
	d.order = f.orders
	return d.check()
}

// check compares the registers with the descriptor.
func (d *dispatch) check() error {
	if d.increment == 0 || d.axis > 2 {
		return fmt.Errorf("%w: task of %d along axis %d", errDispatch, d.increment, d.axis)
	}
	want := abi.WorkgroupSize{X: d.work.Group[0], Y: d.work.Group[1], Z: d.work.Group[2]}
	have, ok := abi.DecodeWorkgroupSize(d.regs[abi.RegisterGroupSize])
	have.Merge = false
	if !ok || want.Fits() && have != want {
		return fmt.Errorf("%w: workgroups of %v, descriptor has %v", errDispatch, have, want)
	}
	offset, size := [3]uint32(d.regs[abi.RegisterOffset:abi.RegisterSize]), [3]uint32(d.regs[abi.RegisterSize:])
	if offset == [3]uint32{} && size == d.work.Grid {
		return nil // The descriptor's range holds.
	}
	if first, count, ok := linear(offset, size, d.work.Grid); !ok || first != d.work.First || count != d.work.Count {
		return fmt.Errorf("%w: job at %v of %v, descriptor has %d+%d of %v", errDispatch, offset, size, d.work.First, d.work.Count, d.work.Grid)
	}
	return nil
}

// linear is the range of workgroups, x fastest, that a box of the grid covers; false
// when it covers none or more than one.
func linear(offset, size, grid [3]uint32) (first, count uint64, ok bool) {
	count = 1
	for i := range 3 {
		if size[i] == 0 || uint64(offset[i])+uint64(size[i]) > uint64(grid[i]) {
			return 0, 0, false
		}
		if size[i] != grid[i] { // Whatever is slower must be one thick.
			for j := i + 1; j < 3; j++ {
				if size[j] != 1 {
					return 0, 0, false
				}
			}
		}
		count *= uint64(size[i])
	}
	first = (uint64(offset[2])*uint64(grid[1])+uint64(offset[1]))*uint64(grid[0]) + uint64(offset[0])
	return first, count, true
}

// tasks is how many tasks are left: increment workgroups along the axis, the
// axes below it whole.
func (d *dispatch) tasks() uint64 {
	task := uint64(d.increment)
	for i := range d.axis {
		hi, lo := bits.Mul64(task, uint64(d.work.Grid[i]))
		if hi != 0 {
			return 1
		}
		task = lo
	}
	left := d.work.Count - d.next
	if task >= left {
		return 1
	}
	return (left + task - 1) / task
}

// orderOf makes the engine's order for the part of the range that is not done.
// Errors are *access, *core.FaultError, or say what is malformed.
func (f *Firmware) orderOf(d *dispatch) (engine.Dispatch, error) {
	as := d.s.g.as
	a := &f.as[as]
	work, err := f.kernels.Order(d.work, d.next, order.Memory{
		Arena: f.cfg.Arena, Visible: a.visible,
		Read: func(address, size uint64) ([]byte, error) {
			at, err := f.translate(as, address, size, abi.AccessRead)
			if err != nil {
				return nil, err
			}
			return f.cfg.Arena.Bytes(at, size)
		},
		Unmapped: func(address uint64, _ error) error {
			return &access{exception: abi.ExceptionTranslationPage, kind: abi.AccessRead, as: as, address: address}
		},
	})
	if err != nil {
		return engine.Dispatch{}, err
	}
	if a.number == 0 {
		f.spaces++
		a.number = f.spaces
	}
	work.Space = a.number
	return work, nil
}
