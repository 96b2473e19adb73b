package fw_test

import (
	"testing"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// Instructions by short names.
func move32(r uint8, v uint32) abi.Instruction {
	return abi.Instruction{Op: abi.OpMove32, Dest: r, Imm: uint64(v)}
}
func move48(r uint8, v uint64) abi.Instruction {
	return abi.Instruction{Op: abi.OpMove48, Dest: r, Imm: v}
}
func wait(mask uint16) abi.Instruction { return abi.Instruction{Op: abi.OpWait, Mask: mask} }
func store(r, addr uint8, mask uint16) abi.Instruction {
	return abi.Instruction{Op: abi.OpStoreMultiple, Dest: r, Address: addr, Mask: mask}
}
func load(r, addr uint8, mask uint16) abi.Instruction {
	return abi.Instruction{Op: abi.OpLoadMultiple, Dest: r, Address: addr, Mask: mask}
}
func branch(r uint8, c abi.Condition, offset int16) abi.Instruction {
	return abi.Instruction{Op: abi.OpBranch, Source: r, Condition: c, Offset: offset}
}

// one makes a device with one group of n queues that runs.
func one(t *testing.T, n int, plan string, change func(*fw.Config)) (*host, *group) {
	t.Helper()
	h := newReady(t, plan, change)
	g := h.group(h.vm(1), 0, n)
	g.start()
	return h, g
}

// word is a word of the group's memory.
func (v *vm) word(va uint64) uint32 { return v.h.get(v.at(va)) }

// fault is what the output block says; false when there is no event.
func (q *queue) fault(bit uint32) (abi.Exception, bool) {
	h := q.g.h
	at := uint64(abi.StreamFault)
	if bit == abi.StreamFatalEvent {
		at = abi.StreamFatal
	}
	pending := (h.get(q.blockIn()+abi.StreamReq)^h.get(q.blockOut()+abi.StreamAck))&bit != 0
	return abi.Exception(h.get(q.blockOut() + at)), pending
}

// acknowledge does what a host does with events of a stream: IRQ_ACK before the events.
func (q *queue) acknowledge() {
	h := q.g.h
	h.put(q.g.in()+abi.GroupIRQAck, h.get(q.g.out()+abi.GroupIRQReq))
	in := q.blockIn() + abi.StreamReq
	h.put(in, abi.Acknowledge(h.get(in), h.get(q.blockOut()+abi.StreamAck), abi.StreamEvents))
}

func TestArithmeticAndMemory(t *testing.T) {
	h, g := one(t, 1, "", nil)
	at := g.alloc(256, 64)
	g.queues[0].job(
		move48(0, at), move32(2, 5), move32(3, 9),
		abi.Instruction{Op: abi.OpAddImm32, Dest: 4, Source: 2, Imm: ^uint64(0)},
		abi.Instruction{Op: abi.OpUMin32, Dest: 5, Source: 2, Source2: 3},
		move48(6, 0xFFFF_FFFF), abi.Instruction{Op: abi.OpAddImm64, Dest: 6, Source: 6, Imm: 1},
		store(2, 0, 0b110011), // r2, r3, r6, r7: gaps in memory stay.
		wait(1),
		load(10, 0, 0b10), wait(1),
		store(10, 0, 0), abi.Instruction{Op: abi.OpStoreMultiple, Dest: 11, Address: 0, Mask: 1, Offset: 64},
		abi.Instruction{Op: abi.OpStoreMultiple, Dest: 4, Address: 0, Mask: 0b11, Offset: 68}, wait(1))
	h.run(ms)
	for off, want := range map[uint64]uint32{0: 5, 4: 9, 8: 0, 12: 0, 16: 0, 20: 1, 64: 9, 68: 4, 72: 5} {
		if got := g.word(at + off); got != want {
			t.Errorf("word %d is %d, want %d", off, got, want)
		}
	}
	if g.queues[0].seqno() != 1 {
		t.Error(h.lines())
	}
}

func TestCountedLoop(t *testing.T) {
	h, g := one(t, 1, "", nil)
	at := g.alloc(16, 16)
	const n = 100_000
	g.queues[0].job(move48(0, at), move32(2, 0), move32(3, n),
		abi.Instruction{Op: abi.OpAddImm32, Dest: 2, Source: 2, Imm: 1},
		abi.Instruction{Op: abi.OpSyncSet32, Source: 2, Address: 0},
		abi.Instruction{Op: abi.OpAddImm32, Dest: 3, Source: 3, Imm: ^uint64(0)},
		branch(3, abi.Greater, -4))
	h.run(20 * ms)
	if got := g.word(at); got == 0 || got >= n {
		t.Errorf("the loop is not paced: %d", got)
	}
	raised := h.fw.Counters().Interrupts
	h.run(50 * ms)
	if got := g.word(at); got != n || g.queues[0].seqno() != 1 {
		t.Errorf("count %d, seqno %d", got, g.queues[0].seqno())
	}
	if h.fw.Counters().Interrupts-raised > 10 {
		t.Error("SYNC_UPDATE does not coalesce")
	}
}

func TestCallsNestAndOverflow(t *testing.T) {
	for depth, overflow := range map[int]bool{6: false, 7: false, 8: true} {
		h, g := one(t, 1, "", nil)
		at := g.alloc(8, 8)
		va, length := g.stream(move48(0, at), move32(2, 1), store(2, 0, 1), wait(1))
		for range depth - 1 {
			va, length = g.stream(move48(4, va), move32(6, length), abi.Instruction{Op: abi.OpCall, Address: 4, Length: 6})
		}
		q := g.queues[0]
		q.submit(q.call(va, length)...)
		h.run(ms)
		e, fatal := q.fault(abi.StreamFatalEvent)
		if fatal != overflow || fatal && e != abi.ExceptionCallStack || (g.word(at) == 1) == overflow {
			t.Errorf("%d calls: %s %t", depth, e, fatal)
		}
		if !overflow && q.seqno() != 1 {
			t.Errorf("%d calls do not return", depth)
		}
		if overflow && q.extract() != 5*8 {
			t.Errorf("extract %#x has left the call", q.extract())
		}
	}
}

func TestJumpLinksStreams(t *testing.T) {
	h, g := one(t, 1, "", nil)
	at := g.alloc(8, 8)
	va, length := g.stream(move48(0, at), move32(2, 7), store(2, 0, 1), wait(1))
	q := g.queues[0]
	q.job(move48(4, va), move32(6, length), abi.Instruction{Op: abi.OpJump, Address: 4, Length: 6}, move32(2, 9), store(2, 0, 1))
	h.run(ms)
	if g.word(at) != 7 || q.seqno() != 1 {
		t.Errorf("word %d, seqno %d", g.word(at), q.seqno())
	}
	q.submit(abi.Instruction{Op: abi.OpJump, Address: 4, Length: 6})
	h.run(ms)
	if e, fatal := q.fault(abi.StreamFatalEvent); !fatal || e != abi.ExceptionInvalidInstruction {
		t.Error("the ring jumped")
	}
}

func TestBadInstructions(t *testing.T) {
	for name, c := range map[string]struct {
		i    abi.Instruction
		want abi.Exception
	}{
		"unknown":        {abi.Instruction{Op: 0xFF}, abi.ExceptionInvalidInstruction},
		"graphics":       {abi.Instruction{Op: abi.OpRunIDVS}, abi.ExceptionInvalidInstruction},
		"register":       {move32(96, 0), abi.ExceptionInvalidInstruction},
		"registers":      {store(95, 0, 3), abi.ExceptionInvalidInstruction},
		"scoreboard":     {abi.Instruction{Op: abi.OpSetSBEntry, Endpoint: 8}, abi.ExceptionInvalidInstruction},
		"sync condition": {abi.Instruction{Op: abi.OpSyncWait32, Condition: abi.Equal}, abi.ExceptionInvalidInstruction},
		"queue":          {abi.Instruction{Op: abi.OpProgressWait, Queue: 31}, abi.ExceptionInvalidInstruction},
		"call length":    {abi.Instruction{Op: abi.OpCall, Address: 2, Length: 4}, abi.ExceptionInvalidInstruction},
		"branch":         {branch(2, abi.Always, 100), abi.ExceptionInvalidPC},
		"call nowhere":   {abi.Instruction{Op: abi.OpCall, Address: 6, Length: 5}, abi.ExceptionBus},
	} {
		h, g := one(t, 1, "", nil)
		q := g.queues[0]
		q.job(move32(4, 4), move32(5, 8), move48(6, 0x1234_0000), c.i, wait(1))
		h.run(ms)
		if e, fatal := q.fault(abi.StreamFatalEvent); !fatal || e != c.want || q.seqno() != 0 {
			t.Errorf("%s: %s %t\n%s", name, e, fatal, h.lines())
		}
		if h.reg(abi.RegJobIntRaw)&1 == 0 || h.get(g.out()+abi.GroupIRQReq)&1 == 0 {
			t.Errorf("%s: nobody was told", name)
		}
		g.leave(abi.GroupTerminate, 0)
	}
}

func TestRecoverableFaults(t *testing.T) {
	for name, c := range map[string]struct {
		i    abi.Instruction
		want abi.Exception
	}{
		"load unmapped":  {load(10, 6, 1), abi.ExceptionTranslationPage},
		"store unmapped": {store(10, 6, 1), abi.ExceptionTranslationPage},
		"misaligned":     {load(10, 8, 1), abi.ExceptionAddressRange},
		"sync unmapped":  {abi.Instruction{Op: abi.OpSyncAdd32, Address: 6, Source: 2}, abi.ExceptionTranslationPage},
		"sync odd":       {abi.Instruction{Op: abi.OpSyncSet64, Address: 8, Source: 2}, abi.ExceptionAddressRange},
		"no program":     {abi.Instruction{Op: abi.OpRunCompute, Increment: 1}, abi.ExceptionTranslationPage},
	} {
		h, g := one(t, 1, "", nil)
		q := g.queues[0]
		q.job(move48(6, 0x1234_0000), move48(8, bufferVA+2), c.i, wait(1))
		after := q.insert
		q.job(abi.Instruction{})
		h.run(ms)
		e, fault := q.fault(abi.StreamFaultEvent)
		if !fault || e != c.want || q.extract() != 5*8 || q.seqno() != 0 {
			t.Errorf("%s: %s %t, extract %#x of %#x\n%s", name, e, fault, q.extract(), after, h.lines())
		}
		mmu := c.want.MMU()
		if (h.reg(abi.RegMMUIntRaw)&abi.MMUIntFault(1) != 0) != mmu {
			t.Errorf("%s: MMU interrupt", name)
		}
		if f := abi.DecodeASFault(h.reg(abi.ASBase(1) + abi.RegASFaultStatus)); mmu && f.Exception != c.want {
			t.Errorf("%s: fault status %+v", name, f)
		}
		q.acknowledge()
		h.step()
		h.run(ms)
		if status := h.get(g.at(q.sync) + abi.Sync64Status); q.seqno() != 2 || status != 0 {
			t.Errorf("%s: seqno %d, status %d after the barrier", name, q.seqno(), status)
		}
	}
}

func TestErrorStateReachesTheSyncObject(t *testing.T) {
	for _, kicked := range []bool{false, true} {
		h, g := one(t, 1, "", nil)
		q := g.queues[0]
		q.job(move48(6, 0x1234_0000), load(10, 6, 1))
		h.run(ms)
		if kicked { // As good as an acknowledgement.
			g.kickStreams(1)
			g.kick()
		} else {
			q.acknowledge()
		}
		h.run(ms)
		if q.seqno() != 1 || h.get(g.at(q.sync)+abi.Sync64Status) != 1 {
			t.Errorf("seqno %d, status %d", q.seqno(), h.get(g.at(q.sync)+abi.Sync64Status))
		}
	}
}

func TestReadOnlyMemory(t *testing.T) {
	h, g := one(t, 1, "", nil)
	h.setSpace(1, g.table, hw.Space{{Address: bufferVA, Device: g.buffer, Size: hw.Granule, ReadOnly: true},
		{Address: systemVA, Device: g.system, Size: vmSize, Private: true}})
	q := g.queues[0]
	q.job(move48(6, bufferVA), load(10, 6, 1), wait(1), store(10, 6, 1))
	h.run(ms)
	if e, fault := q.fault(abi.StreamFaultEvent); !fault || e != abi.ExceptionPermissionPage {
		t.Errorf("%s %t", e, fault)
	}
}
