package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

func TestAsynchronousOperations(t *testing.T) {
	for _, poison := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.PoisonLoads = poison })
		at := g.alloc(64, 64)
		h.put(g.at(at), 42)
		g.queues[0].job(move48(0, at), move32(2, 7),
			load(2, 0, 1),
			abi.Instruction{Op: abi.OpAddImm32, Dest: 4, Source: 2, Imm: 0}, // Not awaited.
			wait(1),
			abi.Instruction{Op: abi.OpAddImm32, Dest: 5, Source: 2, Imm: 0},
			abi.Instruction{Op: abi.OpStoreMultiple, Dest: 4, Address: 0, Mask: 3, Offset: 8},
			move32(5, 99), // A source that changes before the WAIT.
			wait(1))
		h.run(ms)
		early := uint32(7)
		if poison {
			early = 0xDEADBEEF
		}
		if g.word(at+8) != early || g.word(at+12) != 99 {
			t.Errorf("early %#x, changed %d", g.word(at+8), g.word(at+12))
		}
	}
}

func TestDeferredOperations(t *testing.T) {
	h, g := one(t, 1, "", nil)
	at := g.alloc(64, 64)
	c := g.kernel("workgroup=1ms", 3)
	is := append(c.instructions(), move48(60, at), move32(62, 5),
		abi.Instruction{Op: abi.OpSyncSet32, Source: 62, Address: 60, WaitMask: 1, Signal: 3},
		move48(64, at+16), abi.Instruction{Op: abi.OpSyncSet32, Source: 62, Address: 64}, // At once.
		abi.Instruction{Op: abi.OpStoreState, Address: 60, Offset: 32, WaitMask: 1 << 3, Signal: 4, State: abi.StateCycles})
	g.queues[0].job(is...)
	h.run(ms)
	if g.word(at) != 0 || g.word(at+16) != 5 {
		t.Errorf("deferred %d, at once %d", g.word(at), g.word(at+16))
	}
	g.request(abi.GroupStart, abi.GroupStatusUpdate)
	if sb := h.get(g.queues[0].blockOut() + abi.StreamScoreboards); sb != 1|1<<3|1<<4 {
		t.Errorf("scoreboards %#x", sb)
	}
	h.run(3 * ms)
	if g.word(at) != 5 || h.get64(g.at(at+32)) < 1_500_000 || g.queues[0].seqno() != 1 {
		t.Errorf("after: %d, cycles %d", g.word(at), h.get64(g.at(at+32)))
	}
}

func TestDeferralDepth(t *testing.T) {
	for depth, want := range map[int]abi.BlockedReason{0: abi.BlockedScoreboard, 2: abi.BlockedDeferred} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.Deferrals = depth })
		at := g.alloc(8, 8)
		is := append(g.kernel("workgroup=1ms", 3).instructions(), move48(60, at), move32(62, 1))
		for range 3 {
			is = append(is, abi.Instruction{Op: abi.OpSyncAdd32, Source: 62, Address: 60, WaitMask: 1, Signal: 2})
		}
		g.queues[0].job(is...)
		h.run(ms)
		g.request(abi.GroupStart, abi.GroupStatusUpdate)
		if r := abi.BlockedReason(h.get(g.queues[0].blockOut() + abi.StreamBlockedReason)); r != want {
			t.Errorf("%d deferrals: %s", depth, r)
		}
		h.run(3 * ms)
		if g.word(at) != 3 || g.queues[0].seqno() != 1 {
			t.Errorf("%d deferrals: %d", depth, g.word(at))
		}
	}
}

func TestFlushIDs(t *testing.T) {
	h, g := one(t, 1, "", nil)
	flush := func(id uint32) {
		g.queues[0].job(move32(2, id), abi.Instruction{Op: abi.OpFlushCache2, L2: abi.FlushClean, Source: 2, Signal: 2}, wait(4))
		h.run(ms)
	}
	id := h.reg(abi.RegLatestFlush)
	flush(id + 1) // The job's own flush came first: it is this one's id now.
	if h.reg(abi.RegLatestFlush) != id+2 {
		t.Errorf("id %d", h.reg(abi.RegLatestFlush))
	}
	before := h.fw.Counters()
	flush(id)
	if after := h.fw.Counters(); after.FlushesSkipped != before.FlushesSkipped+1 || after.Flushes != before.Flushes+1 {
		t.Error("an old flush was done")
	}
	before = h.fw.Counters()
	flush(0)
	if h.fw.Counters().Flushes != before.Flushes+2 {
		t.Error("id 0 was not flushed")
	}
}

func TestSyncWaits(t *testing.T) {
	h, g := one(t, 2, "", nil)
	at := g.alloc(64, 64)
	a, b := g.queues[0], g.queues[1]
	// Queue 0 waits for a word of the CPU, queue 1 for queue 0.
	a.job(move48(0, at), move32(2, 0), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater})
	b.job(move48(0, a.sync), move48(2, 0), abi.Instruction{Op: abi.OpSyncWait64, Source: 2, Address: 0, Condition: abi.Greater})
	h.run(time.Second)
	if a.seqno()+b.seqno() != 0 {
		t.Error("nobody waits")
	}
	if (h.get(g.in()+abi.GroupReq)^h.get(g.out()+abi.GroupAck))&abi.GroupIdle == 0 {
		t.Error("a group that waits for sync objects is not idle")
	}
	g.request(abi.GroupStart, abi.GroupStatusUpdate)
	out := b.blockOut()
	if s := abi.DecodeWaitStatus(h.get(out + abi.StreamStatusWait)); !s.Sync || !s.Sync64 || s.Condition != abi.Greater ||
		h.get64(out+abi.StreamWaitPointer) != a.sync || abi.BlockedReason(h.get(out+abi.StreamBlockedReason)) != abi.BlockedSync {
		t.Errorf("status %+v", s)
	}
	if h.get(g.out()+abi.GroupStatusState)&abi.GroupStatusIdle == 0 {
		t.Error("STATUS_STATE is not idle")
	}
	h.put(g.at(at), 1)
	h.run(2 * ms)
	if a.seqno() != 1 || b.seqno() != 1 {
		t.Errorf("seqnos %d, %d", a.seqno(), b.seqno())
	}
	a.job(move48(0, at), move32(2, 1), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.LessOrEqual})
	h.run(ms)
	if a.seqno() != 2 {
		t.Error("1 is not <= 1")
	}
}

func TestInheritedFailure(t *testing.T) {
	for _, swapped := range []bool{false, true} {
		for _, reject := range []bool{false, true} {
			h, g := one(t, 1, "", func(c *fw.Config) { c.RejectInherits = swapped })
			at := g.alloc(16, 16)
			h.put(g.at(at), 1)
			h.put(g.at(at)+4, 1)
			q := g.queues[0]
			q.job(move48(0, at), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater, Reject: reject})
			h.run(ms)
			if e, fault := q.fault(abi.StreamFaultEvent); fault != (reject == swapped) || fault && e != abi.ExceptionInherit {
				t.Errorf("reject %t, swapped %t: %s %t", reject, swapped, e, fault)
			}
		}
	}
}

func TestSyncScopes(t *testing.T) {
	h, g := one(t, 2, "", nil)
	at := g.alloc(16, 16)
	g.queues[1].submit(move48(0, at), move32(2, 0), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater})
	h.run(50 * us)
	told := h.get(g.out() + abi.GroupAck)
	g.queues[0].submit(move48(0, at), move32(2, 1), abi.Instruction{Op: abi.OpSyncAdd32, Source: 2, Address: 0, Scope: abi.ScopeGroup})
	h.run(20 * us)
	if !g.queues[1].done() {
		t.Error("the waiter of the group was not woken")
	}
	if (h.get(g.out()+abi.GroupAck)^told)&abi.GroupSyncUpdate != 0 {
		t.Error("the host was told")
	}
}

func TestProgressCounters(t *testing.T) {
	h, g := one(t, 2, "", nil)
	at := g.alloc(16, 16)
	a, b := g.queues[0], g.queues[1]
	b.submit(move48(0, 3), abi.Instruction{Op: abi.OpProgressWait, Source: 0, Queue: 0})
	a.submit(move48(0, 1), abi.Instruction{Op: abi.OpProgressStore, Source: 0}, abi.Instruction{Op: abi.OpWait, Progress: true})
	h.run(ms)
	if b.done() || !a.done() {
		t.Error("2 is at least 3")
	}
	a.submit(abi.Instruction{Op: abi.OpWait, Progress: true}, abi.Instruction{Op: abi.OpProgressLoad, Dest: 2}, move48(4, at), store(2, 4, 1), wait(1))
	h.run(ms)
	if !b.done() || g.word(at) != 3 {
		t.Errorf("progress %d", g.word(at))
	}
}

func TestProtectedModeNeverComes(t *testing.T) {
	h, g := one(t, 1, "", nil)
	q := g.queues[0]
	q.submit(abi.Instruction{Op: abi.OpProtRegion, Imm: 1})
	h.run(time.Second)
	if _, pending := q.fault(abi.StreamProtectedPend); !pending || q.done() {
		t.Error("no PROTM_PEND, or it went on")
	}
	if h.reg(abi.RegJobIntRaw)&1 == 0 {
		t.Error("nobody was told")
	}
	in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
	h.put(in+abi.GlobalReq, h.get(in+abi.GlobalReq)^abi.GlobalProtectedEnter)
	h.ring(0)
	h.run(ms)
	if (h.get(in+abi.GlobalReq)^h.get(out+abi.GlobalAck))&abi.GlobalProtectedEnter == 0 {
		t.Error("PROTM_ENTER was acknowledged")
	}
}

func TestGraphicsLite(t *testing.T) {
	h, g := one(t, 1, "", func(c *fw.Config) { c.GraphicsLite = true })
	at := g.alloc(16, 16)
	q := g.queues[0]
	q.job(abi.Instruction{Op: abi.OpRunFragment, Imm: 7}, wait(1), abi.Instruction{Op: abi.OpFinishFragment}, move48(0, at),
		abi.Instruction{Op: abi.OpHeapSet, Address: 0}, abi.Instruction{Op: abi.OpHeapOperation, Heap: abi.HeapVertexStart, Signal: 1},
		abi.Instruction{Op: abi.OpTracePoint, Signal: 2}, abi.Instruction{Op: abi.OpSetExceptionHandler, Address: 0, Length: 4, Kind: 2})
	h.run(ms)
	if q.seqno() != 1 {
		t.Error(h.lines())
	}
	g.request(abi.GroupStart, abi.GroupStatusUpdate)
	if out := q.blockOut(); h.get(out+abi.StreamHeapVertexStart) != 1 || h.get64(out+abi.StreamHeapAddress) != at {
		t.Error("the heap's counters")
	}
}

func TestDoorbellsAreNeeded(t *testing.T) {
	h, g := one(t, 1, "", nil)
	q := g.queues[0]
	q.write(q.call(q.ringVA, 0)...)
	h.run(time.Second)
	if q.seqno() != 0 {
		t.Error("ran without a doorbell")
	}
	h.ring(2) // Another slot's.
	h.run(ms)
	if q.seqno() != 0 {
		t.Error("ran by another slot's doorbell")
	}
	h.ring(1)
	h.run(ms)
	if q.seqno() != 1 {
		t.Error("did not run")
	}
	q.write(q.call(q.ringVA, 0)...)
	g.kickStreams(1)
	g.kick()
	h.run(ms)
	if q.seqno() != 2 {
		t.Error("did not run by a kick")
	}
}

func TestRingWraps(t *testing.T) {
	h, g := one(t, 1, "", nil)
	q := g.queues[0]
	for i := range uint64(100) { // 32 jobs fill the ring.
		q.job(abi.Instruction{})
		h.run(100 * us)
		if q.seqno() != i+1 {
			t.Fatalf("job %d does not run: extract %#x", i, q.extract())
		}
	}
	if q.insert != 100*128 || !q.done() {
		t.Error("the counters wrapped")
	}
}

func TestInsertThatCannotBe(t *testing.T) {
	for _, refuse := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.RefuseInsert = refuse })
		q := g.queues[0]
		q.write(q.call(q.ringVA, 0)...)
		h.put(q.in+abi.RingInsert+4, 1) // Half of a store.
		h.ring(1)
		if e, fatal := q.fault(abi.StreamFatalEvent); fatal != refuse || fatal && e != abi.ExceptionConfig {
			t.Errorf("refuse %t: %s %t", refuse, e, fatal)
		}
		h.put64(q.in+abi.RingInsert, q.insert)
		h.run(2 * ms)
		if (q.seqno() == 1) == refuse {
			t.Errorf("refuse %t: seqno %d", refuse, q.seqno())
		}
	}
}

func TestStop(t *testing.T) {
	h, g := one(t, 1, "", nil)
	q := g.queues[0]
	q.job(g.kernel("workgroup=1ms", 3).instructions()...)
	h.run(ms / 2)
	state := func(v uint32) {
		h.put(q.blockIn()+abi.StreamReq, abi.SetField(h.get(q.blockIn()+abi.StreamReq), abi.StreamStateMask, v))
		g.kickStreams(1)
		g.kick()
	}
	state(abi.StreamStop)
	if h.get(q.blockOut()+abi.StreamAck)&1 != 1 {
		t.Error("stopped before its work ended")
	}
	h.run(3 * ms)
	if h.get(q.blockOut()+abi.StreamAck)&1 != 0 || q.seqno() != 0 {
		t.Error("not stopped, or fetched on")
	}
	h.put64(q.in+abi.RingExtractInit, q.extract())
	state(abi.StreamStart)
	h.run(ms)
	// The registers are gone, the sync object's address with them.
	if h.get(q.blockOut()+abi.StreamAck)&1 != 1 {
		t.Error("not started again")
	}
}

func TestDisabledAddressSpace(t *testing.T) {
	for _, restored := range []bool{true, false} {
		h, g := one(t, 1, "", nil)
		q := g.queues[0]
		h.setSpace(1, 0, nil)
		q.job(abi.Instruction{})
		h.run(5 * ms)
		if restored {
			g.activate()
		}
		h.run(6 * ms)
		if e, fatal := q.fault(abi.StreamFatalEvent); fatal == restored || fatal && e != abi.ExceptionBus || (q.seqno() == 1) != restored {
			t.Errorf("restored %t: %s %t, seqno %d", restored, e, fatal, q.seqno())
		}
	}
}

func TestTableIsReadWhenTold(t *testing.T) {
	h, g := one(t, 1, "", nil)
	q := g.queues[0]
	if err := hw.WriteSpace(h.arena, g.table, hw.Space{{Address: bufferVA, Device: g.buffer, Size: hw.Granule}}); err != nil {
		t.Fatal(err)
	}
	q.job(abi.Instruction{})
	h.run(ms)
	if q.seqno() != 1 {
		t.Error("the table was read without a command")
	}
	h.set(abi.ASBase(1)+abi.RegASCommand, abi.ASCommandFlushPT)
	h.step()
	q.write(abi.Instruction{})
	h.ring(1)
	h.run(ms)
	if e, fatal := q.fault(abi.StreamFatalEvent); !fatal || e != abi.ExceptionBus {
		t.Errorf("%s %t", e, fatal)
	}
	h.put(g.table, 1)
	h.set(abi.ASBase(1)+abi.RegASCommand, abi.ASCommandUpdate)
	h.step()
	if len(h.fw.Violations()) == 0 {
		t.Error("a malformed table was taken")
	}
}
