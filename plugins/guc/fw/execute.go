package fw

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// instance is one logical engine and what is on it.
type instance struct {
	index uint32
	// g is the context on it, nil when none is; run is its dispatch. Between
	// two passes of a Step a context on an engine always has a dispatch. A
	// dispatch without a context was given up and is waited for.
	g   *guContext
	run *run

	// level, toIdle and quantumAt (never: no quantum) hold for this switch-in.
	level     uint32
	toIdle    bool
	quantumAt time.Duration
	// since is the switch-in, stamp the context's timestamp then, in ticks.
	since time.Duration
	stamp uint64
	// The ring as read at the switch-in; head and tail are byte offsets.
	ring       hw.Words
	head, tail uint32
	// arbOff: the ring switched arbitration off, the context cannot be preempted.
	arbOff bool

	// preempting: asked to leave until preemptAt; rotate: because its quantum expired.
	preempting, rotate bool
	preemptAt          time.Duration
	// aborting: the engine is being reset until abortAt.
	aborting bool
	abortAt  time.Duration
	sampleAt time.Duration
}

// run is one execution of a dispatch descriptor.
type run struct {
	exec  engine.Execution
	ended atomic.Bool
	// at is the descriptor's device address, count its range.
	at, count uint64
	// dwords is the length of the batch command at the ring's head.
	dwords uint32
	// base is what earlier executions of the descriptor did.
	base hw.Report
}

// tick is the unit of the context timestamp.
const tick = time.Microsecond

// switchIn puts a context onto a free instance and executes its ring up to the
// first batch. It may be off again when this returns.
func (f *Firmware) switchIn(in *instance, g *guContext) {
	now := f.cfg.Clock.Now()
	f.counters.SwitchIns++
	*in = instance{index: in.index, g: g, level: g.queuedAt, toIdle: g.policies.toIdle,
		since: now, stamp: g.timestamp(), quantumAt: never, preemptAt: never, sampleAt: never}
	g.on = in
	f.noteEngine("on", in)
	if q := microseconds(g.policies.quantumUS, f.cfg.QuantumMin); q > 0 {
		in.quantumAt = now + max(q-g.used, 0)
	}
	if err := f.loadRing(in); err != nil {
		f.fault(in, hw.CauseDescriptor, err.Error())
		return
	}
	f.advance(in)
}

// noteEngine traces what happens between a context and its engine.
func (f *Firmware) noteEngine(what string, in *instance) {
	f.note("ENG", func(w []uint32) string { return fmt.Sprintf("guc_id=%d %s engine %d.%d", w[0], what, w[1], w[2]) },
		uint32(in.g.id), uint32(in.g.class.class), in.index)
}

// loadRing reads the ring registers of the context image.
func (f *Firmware) loadRing(in *instance) error {
	regs := in.g.regs
	control := regs.Load(abi.RegRingControl)
	size := control&^uint32(hw.PageSize-1) + uint32(hw.PageSize)
	start := uint64(regs.Load(abi.RegRingStart))
	in.head, in.tail = regs.Load(abi.RegRingHead), regs.Load(abi.RegRingTail)
	if control&abi.RingControlValid == 0 || size&(size-1) != 0 || size > abi.RingHeadMask+4 ||
		start%hw.PageSize != 0 || start < hw.MemoryBase || in.head%4 != 0 || in.head >= size {
		return fmt.Errorf("ring registers: start %#x control %#x head %#x", start, control, in.head)
	}
	ring, err := f.cfg.Arena.Words(start, size/4)
	if err != nil {
		return fmt.Errorf("ring: %w", err)
	}
	in.ring = ring
	return nil
}

// advance executes ring commands until the ring is empty, a batch has started,
// or the context has left the engine. With arbitration on, a context that was
// asked to leave does so before a batch, inside one (the engine's business), and
// at an arbitration check; never between the end of a batch and its seqno.
func (f *Firmware) advance(in *instance) {
	size := in.ring.Len() * 4
	for {
		if in.tail >= size || in.tail%abi.RingTailAlign != 0 {
			f.fault(in, hw.CauseDescriptor, fmt.Sprintf("ring tail %#x of %#x", in.tail, size))
			return
		}
		if in.head == in.tail {
			f.switchOut(in)
			return
		}
		var window [4]uint32
		left := (in.tail - in.head) & (size - 1) / 4
		n := min(left, uint32(len(window)))
		for i := range n {
			window[i] = in.ring.Load((in.head/4 + i) % in.ring.Len())
		}
		cmd, dwords, err := abi.DecodeCommand(window[:n])
		if err != nil {
			f.fault(in, hw.CauseDescriptor, err.Error())
			return
		}
		leave := in.preempting && !in.arbOff
		if leave && cmd.Op == abi.OpBatchStart {
			f.switchOut(in)
			return
		}
		started, err := f.command(in, cmd, uint32(dwords))
		if err != nil {
			f.faultError(in, err)
			return
		}
		if started {
			return
		}
		in.head = (in.head + uint32(dwords)*4) % size
		if leave && cmd.Op == abi.OpArbCheck {
			f.skipNoops(in)
			f.switchOut(in)
			return
		}
	}
}

// skipNoops moves the head over padding, so that a context with nothing else
// left does not count as one with work.
func (f *Firmware) skipNoops(in *instance) {
	size := in.ring.Len() * 4
	for in.head != in.tail && in.ring.Load(in.head/4) == 0 {
		in.head = (in.head + 4) % size
	}
}

// command executes one ring command and reports whether a batch was started.
// Errors are a *unmapped or say what is malformed.
func (f *Firmware) command(in *instance, cmd abi.Command, dwords uint32) (started bool, err error) {
	switch cmd.Op {
	case abi.OpNoop, abi.OpArbCheck:
	case abi.OpArbOnOff:
		in.arbOff = !cmd.On
	case abi.OpUserInterrupt:
		f.counters.Interrupts++
		f.interrupt(irqUser, uint64(in.g.id))
	case abi.OpStoreDataImm, abi.OpFlush:
		return false, f.store(in, cmd, cmd.Value)
	case abi.OpStoreRegister:
		if cmd.Register != abi.RegisterTimestamp {
			return false, fmt.Errorf("store of register %#x", cmd.Register)
		}
		return false, f.store(in, cmd, uint32(f.ticks(in)))
	case abi.OpBatchStart:
		return f.startBatch(in, cmd, dwords)
	default:
		return false, fmt.Errorf("command %#x in a ring", cmd.Op)
	}
	return false, nil
}

// store writes one word to the memory that a command names.
func (f *Firmware) store(in *instance, cmd abi.Command, v uint32) error {
	addr := cmd.Address
	if !cmd.GGTT {
		space, err := f.addressSpace(in.g)
		if err != nil {
			return err
		}
		if addr, err = space.Resolve(cmd.Address, 4); err != nil {
			return &unmapped{err}
		}
	}
	if addr < hw.MemoryBase {
		return &unmapped{fmt.Errorf("store to %#x: %w", addr, hw.ErrBounds)}
	}
	if err := f.cfg.Arena.Store32(addr, v); err != nil {
		return &unmapped{err}
	}
	return nil
}

// ticks returns the context's timestamp now.
func (f *Firmware) ticks(in *instance) uint64 {
	return in.stamp + uint64((f.cfg.Clock.Now()-in.since)/tick)
}

// switchOut saves a context that leaves its engine between two commands, and
// queues it again if it has work.
func (f *Firmware) switchOut(in *instance) {
	g, rotate := in.g, in.rotate
	used := time.Duration(0)
	if in.quantumAt != never && !rotate && f.cfg.CarryQuantum {
		used = g.used + f.cfg.Clock.Now() - in.since
	}
	f.save(in)
	g.used = 0
	if g.disables > 0 {
		f.disabled(g)
		return
	}
	if g.pending() {
		g.used = used
		f.queue(g, !rotate)
	}
}

// queue makes a context wait for an engine of its class.
func (f *Firmware) queue(g *guContext, front bool) {
	g.waitsSince = f.cfg.Clock.Now()
	g.class.push(g, front)
}

// save writes head and timestamp into the context image and frees the instance.
func (f *Firmware) save(in *instance) {
	g := in.g
	f.noteEngine("off", in)
	g.regs.Store(abi.RegRingHead, in.head)
	g.setTimestamp(f.ticks(in))
	g.ran += f.cfg.Clock.Now() - in.since
	g.on = nil
	*in = instance{index: in.index}
}

// progress is what the descriptor of a running dispatch should say now.
func (f *Firmware) progress(in *instance) hw.Report {
	if in.run.exec == nil {
		return in.run.base
	}
	return order.Progress(in.run.base, in.run.count, in.run.exec)
}

// report writes a descriptor's firmware half; the address was checked when the
// dispatch was started.
func (f *Firmware) report(in *instance, r hw.Report) {
	_ = hw.WriteReport(f.cfg.Arena, in.run.at, r)
}

// sample shows the host how far a running dispatch is.
func (f *Firmware) sample(in *instance) {
	r := f.progress(in)
	_ = hw.WriteProgress(f.cfg.Arena, in.run.at, r.Done, r.Executed, r.ExecutedTime)
	in.g.setTimestamp(f.ticks(in))
}

// finishEnded handles the executions that have ended since the last pass.
func (f *Firmware) finishEnded() bool {
	worked := f.reap()
	for _, c := range f.classes {
		for _, in := range c.instances {
			if in.g != nil && in.run != nil && in.run.ended.Load() {
				f.finish(in)
				worked = true
			}
		}
	}
	return worked
}

// finish takes in the result of an execution: the ring goes on, the context
// leaves the engine, or it is at fault.
func (f *Firmware) finish(in *instance) {
	r, err := order.Settle(in.run.base, in.run.count, in.run.exec)
	in.run.base, in.run.exec = r, nil
	switch {
	case in.aborting:
		f.fault(in, hw.CauseHang, hangDetail)
	case err != nil:
		f.engineFault(in, err)
	case r.Done == in.run.count:
		r.Status = hw.StatusDone
		f.report(in, r)
		in.head = (in.head + in.run.dwords*4) % (in.ring.Len() * 4)
		in.run = nil
		in.sampleAt = never
		f.advance(in)
	case in.preempting:
		r.Status = hw.StatusPreempted
		f.report(in, r)
		in.run = nil
		f.switchOut(in)
	default:
		f.fault(in, hw.CauseEngine, fmt.Sprintf("ended after %d of %d workgroups", r.Done, in.run.count))
	}
}
