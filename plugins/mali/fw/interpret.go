package fw

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// outcome is what became of one try of an instruction.
type outcome uint8

const (
	// outcomeNext: it retires.
	outcomeNext outcome = iota
	// outcomeStay: it is tried again later, or the stream halted.
	outcomeStay
	// outcomeJumped: it retires, and has set the place to go on.
	outcomeJumped
	// outcomeCalled: it retires when the call returns.
	outcomeCalled
)

// runStreams executes what is due on every stream, and reports whether
// anything happened.
func (f *Firmware) runStreams() bool {
	worked := false
	for _, s := range f.order() {
		worked = s.watchFault() || worked
		worked = s.settle() || worked
		worked = s.run() || worked
		if s.stopping && len(s.dispatches) == 0 && len(s.ops) == 0 {
			s.stopped()
			worked = true
		}
		if f.mcu.frozen || f.mcu.status != abi.MCUEnabled {
			return true
		}
	}
	return worked
}

// order is the streams that have a context, in the order in which they execute.
func (f *Firmware) order() []*stream {
	var all []*stream
	if f.mcu.halting {
		return nil
	}
	for _, g := range f.groups {
		for _, s := range g.streams {
			if s.started {
				all = append(all, s)
			}
		}
	}
	if f.chaos != nil {
		f.chaos.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return all
}

// run executes instructions until their time is used up, or one is blocked.
func (s *stream) run() bool {
	f, now := s.g.f, s.g.f.now()
	if now >= s.insertAt {
		s.insertAt = never
		s.readInsert()
	}
	if s.late != 0 && s.empty() {
		late := s.late
		s.late = 0
		s.fault(late, s.pc())
		return true
	}
	if !s.runnable() || now < s.readyAt || !s.worthATry() {
		return false
	}
	period := max(time.Second/time.Duration(f.cfg.InstructionRate), 1)
	budget := f.cfg.Burst + int(min((now-s.readyAt)/period, catchUpMax))
	worked := false
	for range budget {
		if !s.runnable() {
			break
		}
		waited := s.wait != wait{}
		s.look = false
		if !s.instruction() {
			break
		}
		if waited {
			s.readyAt = now // Waiting is not owed.
		}
		s.readyAt += period
		worked = true
	}
	if worked && s.readyAt < now {
		s.readyAt = now
	}
	return worked
}

// instruction tries the present instruction and reports whether it is over.
func (s *stream) instruction() bool {
	f := s.g.f
	s.popEnded()
	if s.empty() {
		return false
	}
	at := s.pc()
	device, err := f.translate(s.g.as, at, abi.InstructionSize, abi.AccessExecute)
	if err != nil {
		return s.accessFailed(err, true)
	}
	s.stallAt = never
	word := f.load64(device)
	ring := len(s.frames) == 0
	if ring && f.cfg.ExtractAtFetch && !s.fetched {
		s.fetched = true
		s.showExtract()
	}
	i, err := abi.DecodeInstruction(word)
	if err != nil || !s.registersExist(i) {
		f.say("CS", fmt.Sprintf("csg=%d cs=%d bad %s", s.g.slot, s.index, abi.Describe(word)))
		s.fatal(abi.ExceptionInvalidInstruction, at)
		return false
	}
	if s.wait == (wait{}) && s.injectInstruction(i, at) {
		return false
	}
	s.wait = wait{}
	switch s.try(i) {
	case outcomeStay:
		return false
	case outcomeNext:
		s.advance()
	case outcomeJumped:
	case outcomeCalled:
		f.counters.Retired++
		return true
	}
	f.counters.Retired++
	if ring {
		s.retired(word)
	}
	s.popEnded()
	return true
}

// retired traces an instruction of the ring.
func (s *stream) retired(w uint64) {
	if f := s.g.f; f.cfg.Trace != nil {
		f.note("RETIRE", func(w []uint32) string {
			return fmt.Sprintf("csg=%d cs=%d extract=%#x %s", w[0], w[1], w[2], abi.Describe(uint64(w[3])|uint64(w[4])<<32))
		}, s.g.slot, s.index, uint32(s.extract), uint32(w), uint32(w>>32))
	}
}

// advance goes to the next instruction.
func (s *stream) advance() {
	if n := len(s.frames); n > 0 {
		s.frames[n-1].pc += abi.InstructionSize
		return
	}
	s.extract += abi.InstructionSize
	s.fetched = false
	s.showExtract()
	if s.extract == s.insert {
		s.readInsert() // The stream drained: the hardware looks once more.
	}
}

// popEnded returns from the calls that have reached their end; a call from the
// ring retires with it.
func (s *stream) popEnded() {
	for n := len(s.frames); n > 0 && s.frames[n-1].pc == s.frames[n-1].end; n = len(s.frames) {
		s.frames = s.frames[:n-1]
		word := uint64(abi.OpCall) << 56
		if at, err := s.g.f.translate(s.g.as, s.pc(), abi.InstructionSize, abi.AccessExecute); err == nil {
			word = s.g.f.load64(at)
		}
		s.advance()
		if n == 1 {
			s.retired(word)
		}
	}
}

// registersExist reports whether every register that an instruction names is there.
func (s *stream) registersExist(i abi.Instruction) bool {
	for _, r := range [...]uint8{i.Dest, i.Source, i.Source2, i.Address, i.Length} {
		if r >= registersMax {
			return false
		}
	}
	if i.Mask != 0 && (i.Op == abi.OpLoadMultiple || i.Op == abi.OpStoreMultiple) {
		for n := range 16 {
			if i.Mask>>n&1 != 0 && int(i.Dest)+n >= registersMax {
				return false
			}
		}
	}
	return i.Signal < scoreboardsMax && i.Endpoint < scoreboardsMax && i.Other < scoreboardsMax
}

// block says why the present instruction does not go on.
func (s *stream) block(reason abi.BlockedReason, status abi.WaitStatus, pointer, value uint64) {
	s.wait = wait{reason, status, pointer, value}
}

// accessOutcome is accessFailed for the instruction that is being tried.
func (s *stream) accessOutcome(err error) outcome {
	if s.accessFailed(err, false) && !s.halted {
		return outcomeNext
	}
	return outcomeStay
}

// try executes an instruction if it can go on.
func (s *stream) try(i abi.Instruction) outcome {
	switch i.Op {
	case abi.OpNop:
	case abi.OpMove48:
		s.setPair(i.Dest, i.Imm)
	case abi.OpMove32:
		s.regs[i.Dest] = uint32(i.Imm)
	case abi.OpAddImm32:
		s.regs[i.Dest] = s.regs[i.Source] + uint32(i.Imm)
	case abi.OpAddImm64:
		s.setPair(i.Dest, s.pair(i.Source)+i.Imm)
	case abi.OpUMin32:
		s.regs[i.Dest] = min(s.regs[i.Source], s.regs[i.Source2])
	case abi.OpWait:
		if i.Mask&s.busy(nil) != 0 {
			s.block(abi.BlockedScoreboard, abi.WaitStatus{Scoreboards: i.Mask, Source: abi.WaitSourceWait}, 0, 0)
			return outcomeStay
		}
		s.bump(i.Progress)
	case abi.OpBranch:
		return s.branch(i)
	case abi.OpCall, abi.OpJump:
		return s.call(i)
	case abi.OpSetSBEntry:
		s.endpoint, s.other = i.Endpoint, i.Other
	case abi.OpLoadMultiple, abi.OpStoreMultiple:
		return s.transfer(i)
	case abi.OpRunCompute, abi.OpRunComputeIndirect:
		return s.runCompute(i)
	case abi.OpReqResource:
		return s.requestResources(i.Resources)
	case abi.OpFlushCache2, abi.OpSyncAdd32, abi.OpSyncSet32, abi.OpSyncAdd64, abi.OpSyncSet64, abi.OpStoreState,
		abi.OpHeapOperation, abi.OpTracePoint:
		return s.asynchronous(i, i.Signal, i.WaitMask)
	case abi.OpSyncWait32, abi.OpSyncWait64:
		return s.syncWait(i)
	case abi.OpErrorBarrier:
		s.failed, s.failure = false, 0
	case abi.OpProgressStore:
		s.progress = s.pair(i.Source)
	case abi.OpProgressLoad:
		s.setPair(i.Dest, s.progress)
	case abi.OpProgressWait:
		return s.progressWait(i)
	case abi.OpSetExceptionHandler:
		s.handler = [2]uint64{s.pair(i.Address), uint64(s.regs[i.Length])}
	case abi.OpHeapSet:
		s.heap = s.pair(i.Address)
	case abi.OpProtRegion:
		return s.protected()
	default: // Graphics.
		if !s.g.f.cfg.GraphicsLite {
			s.fatal(abi.ExceptionInvalidInstruction, s.pc())
			return outcomeStay
		}
		return s.asynchronous(i, s.endpoint, 0)
	}
	return outcomeNext
}

// bump counts progress.
func (s *stream) bump(progress bool) {
	if !progress {
		return
	}
	s.progress++
	for _, other := range s.g.streams {
		other.look = other.look || other.wait.reason == abi.BlockedProgress
	}
}

// asynchronous issues what goes on beside the stream.
func (s *stream) asynchronous(i abi.Instruction, slot uint8, waitMask uint16) outcome {
	if !s.issue(&op{ins: i, slot: slot, waitMask: waitMask}) {
		s.block(abi.BlockedDeferred, abi.WaitStatus{}, 0, 0)
		return outcomeStay
	}
	if s.halted {
		return outcomeStay
	}
	return outcomeNext
}

// branch compares a register with 0 and goes on elsewhere in the same stream.
func (s *stream) branch(i abi.Instruction) outcome {
	if len(s.frames) == 0 {
		s.fatal(abi.ExceptionInvalidInstruction, s.pc())
		return outcomeStay
	}
	if !i.Condition.Holds(int32(s.regs[i.Source])) {
		return outcomeNext
	}
	top := &s.frames[len(s.frames)-1]
	to := top.pc + abi.InstructionSize + uint64(int64(i.Offset)*abi.InstructionSize)
	if to > top.end {
		s.fatal(abi.ExceptionInvalidPC, to)
		return outcomeStay
	}
	top.pc = to
	return outcomeJumped
}

// call opens a frame, or replaces the present one for a jump, which the ring
// must not do.
func (s *stream) call(i abi.Instruction) outcome {
	to, length := s.pair(i.Address), uint64(s.regs[i.Length])
	jump := i.Op == abi.OpJump
	switch {
	case length%abi.InstructionSize != 0 || to%abi.InstructionSize != 0 || jump && len(s.frames) == 0:
		s.fatal(abi.ExceptionInvalidInstruction, s.pc())
		return outcomeStay
	case jump:
		s.frames[len(s.frames)-1] = frame{to, to + length}
		return outcomeJumped
	case len(s.frames) == framesMax:
		s.fatal(abi.ExceptionCallStack, s.pc())
		return outcomeStay
	}
	s.frames = append(s.frames, frame{to, to + length})
	return outcomeCalled
}
