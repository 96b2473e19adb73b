package fw

import (
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// sequence executes a command's microsequence literally, from where it stands to
// where it waits for the pipe, or to its end.
func (f *Firmware) sequence(c *command) {
	for f.injected.doom == nil && !c.dead && c.q.current == c && c.q.state == queueRunning {
		op, size, err := f.abi.DecodeOp(c.sequence[c.at:])
		if err != nil {
			if f.cfg.UnknownOpCrash {
				f.crash(fmt.Sprintf("queue %d: %v", c.q.info.UUID, err))
				return
			}
			f.log(abi.LogError, fmt.Sprintf("queue %d: %v", c.q.info.UUID, err))
			f.stopCommand(c, abi.ChannelUnknown)
			return
		}
		f.say("OP", "uuid=%d %s", c.q.info.UUID, lazy{f.abi, op})
		if _, wait := op.(*abi.WaitForIdle); wait && c.run != nil && c.run.exec != nil {
			return // Parked until the pipe is done.
		}
		c.at += size
		if f.operation(c, op) {
			return
		}
	}
}

// operation executes one operation and reports whether the sequence is over.
func (f *Firmware) operation(c *command, op abi.Operation) bool {
	var err error
	switch op := op.(type) {
	case *abi.StartCompute:
		if op.Queue != c.q.va || op.VMSlot != c.rc.VMSlot || c.started {
			f.misuse("queue %d: StartCompute of queue %#x in vm %d", c.q.info.UUID, uint64(op.Queue), op.VMSlot)
			if f.injected.doom == nil && f.phase == phaseReady {
				f.stopCommand(c, abi.ChannelUnknown)
			}
			return true
		}
		c.started = true
		f.startWork(c)
		return f.halt.active
	case *abi.Timestamp:
		err = f.timestamp(c, op)
	case *abi.WaitForIdle:
	case *abi.FinalizeCompute:
		if op.Value != c.rc.Meta.Value || op.FwStamp != c.rc.Meta.FwStamp {
			f.log(abi.LogWarn, fmt.Sprintf("queue %d: FinalizeCompute of %#x, want %#x", c.q.info.UUID, op.Value, c.rc.Meta.Value))
		}
		err = f.fwStamp(c, op.FwStamp, op.Value)
	case *abi.RetireStamp:
		f.retire(c)
		return true
	case *abi.EndStamp:
		if op.Abort {
			f.stopCommand(c, abi.ChannelAborted)
			return true
		}
		if err = f.fwStamp(c, op.FwStamp, op.Value); err == nil {
			f.retire(c)
			return true
		}
	case *abi.Store:
		if op.Wide {
			err = f.store64(op.Address, op.Value)
		} else {
			err = f.store32(op.Address, uint32(op.Value))
		}
		f.recheck(anySlot)
	case *abi.Read:
		_, err = f.load32(op.Address)
	case *abi.ALU:
		err = f.alu(op)
	}
	if err != nil {
		f.log(abi.LogError, fmt.Sprintf("queue %d: %v", c.q.info.UUID, err))
		f.stopCommand(c, abi.ChannelMemoryError)
		return true
	}
	return false
}

// alu changes a word in memory.
func (f *Firmware) alu(op *abi.ALU) error {
	v, err := f.load32(op.Address)
	if err != nil {
		return err
	}
	switch op.Kind {
	case abi.ALUAnd:
		v &= op.Operand
	case abi.ALUOr:
		v |= op.Operand
	case abi.ALUXor:
		v ^= op.Operand
	case abi.ALULsr:
		v >>= op.Operand
	case abi.ALULsl:
		v <<= op.Operand
	case abi.ALUAdd:
		v += op.Operand
	}
	defer f.recheck(anySlot)
	return f.store32(op.Address, v)
}

// timestamp writes the time, in ticks, to where the pointer at Update points; in
// the command itself the user's timestamp beside it too, in nanoseconds.
func (f *Firmware) timestamp(c *command, op *abi.Timestamp) error {
	pointer, err := f.object(op.Update, 8, "timestamp pointer")
	if err != nil {
		return err
	}
	now := uint64(f.cfg.Clock.Now())
	job, _ := f.abi.RunComputeTimestamps()
	user := abi.VA(0)
	switch op.Update {
	case c.va + abi.VA(job):
		user = c.rc.UserStart
	case c.va + abi.VA(job) + 8:
		user = c.rc.UserStop
	}
	if user != 0 {
		if err := f.store64(user, now); err != nil {
			return err
		}
	}
	if to := vaOf(pointer); to != 0 {
		return f.store64(to, abi.Ticks(now))
	}
	return nil
}

// vaOf reads an address from 8 bytes.
func vaOf(b []byte) abi.VA {
	v := abi.VA(0)
	for i := range b[:8] {
		v |= abi.VA(b[i]) << (8 * i)
	}
	return v
}

// fwStamp writes a firmware stamp; barriers look at it.
func (f *Firmware) fwStamp(c *command, va abi.VA, value uint32) error {
	if err := f.store32(va, value); err != nil {
		return err
	}
	f.say("STAMP", "uuid=%d slot=%d fw=%#x", c.q.info.UUID, c.q.slot, value)
	f.recheck(c.q.slot)
	return nil
}

// retire ends a command: shared stamp, then the done index, then the notifier.
// The event never comes before the stamp.
func (f *Firmware) retire(c *command) {
	q := c.q
	if !f.injectStamp(c) {
		return
	}
	q.finish()
	q.current = nil
	f.offPipe(c)
	f.counters.Retired++
	f.say("CMD", "uuid=%d slot=%d value=%#x is retired", q.info.UUID, q.slot, c.rc.Meta.Value)
	if q.last != nil {
		f.touchCommand(q.last)
	}
	q.last, q.lastValue = c, c.rc.Meta.Value
	f.lastTouch(c)
	f.setState(q, queueIdle)
	f.notifyRetired(c)
	f.advance(q)
}

// touchCommand looks at a retired command once more.
func (f *Firmware) touchCommand(c *command) {
	f.touch(c.va, c.image, "RunCompute")
	f.touch(c.rc.Sequence, c.sequence, "microsequence")
}

// stopCommand ends a command with a channel error; RecoverChannel retires it.
func (f *Firmware) stopCommand(c *command, kind abi.ChannelErrorType) {
	f.leave(c)
	f.offPipe(c)
	f.channelError(c.q, kind, c.rc.Meta.Value)
}

// retireDead ends a command that did not finish as if it had: stamps, done
// index, notifier.
func (f *Firmware) retireDead(c *command) {
	f.counters.Killed++
	_ = f.fwStamp(c, c.rc.Meta.FwStamp, c.rc.Meta.Value) // The address was checked when the command was read.
	f.retire(c)
}
