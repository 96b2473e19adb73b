package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

func TestOpenErrorState(t *testing.T) {
	for _, runs := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.RunFaulted = runs })
		at := g.alloc(8, 8)
		k := g.kernel("", 2)
		q := g.queues[0]
		q.job(append([]abi.Instruction{move48(60, 0x1234_0000), load(62, 60, 1)}, append(k.instructions(), move48(60, at), move32(62, 1), store(62, 60, 1), wait(1))...)...)
		h.run(ms)
		q.acknowledge()
		h.step()
		h.run(5 * ms)
		if (k.report().Done == 2) != runs || g.word(at) != 1 || q.seqno() != 1 || h.get(g.at(q.sync)+abi.Sync64Status) != 1 {
			t.Errorf("runs %t: %d done, word %d, status %d", runs, k.report().Done, g.word(at), h.get(g.at(q.sync)+abi.Sync64Status))
		}
	}
}

func TestOpenRegistersAtStart(t *testing.T) {
	for _, kept := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.KeepRegisters = kept })
		at := g.alloc(8, 8)
		q := g.queues[0]
		q.job(move32(50, 7))
		h.run(ms)
		g.leave(abi.GroupTerminate, 0)
		g.start()
		q.job(move48(0, at), store(50, 0, 1), wait(1))
		h.run(ms)
		if got := g.word(at); (got == 7) != kept {
			t.Errorf("kept %t: %d", kept, got)
		}
	}
}

func TestOpenExtract(t *testing.T) {
	for _, early := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.ExtractAtFetch = early })
		q := g.queues[0]
		at := g.alloc(16, 16)
		q.job(move48(0, at), move32(2, 0), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater})
		h.run(ms)
		want := uint64(5 * 8)
		if early {
			want += 8
		}
		if q.extract() != want {
			t.Errorf("early %t: %#x", early, q.extract())
		}
		g.leave(abi.GroupSuspend, 0)
		g.resume()
		h.put(g.at(at), 1)
		h.run(2 * ms)
		if q.seqno() != 1 || !q.done() {
			t.Errorf("early %t: seqno %d, extract %#x", early, q.seqno(), q.extract())
		}
	}
}

func TestOpenBootAcks(t *testing.T) {
	for _, zero := range []bool{false, true} {
		h := newHost(t, "", func(c *fw.Config) { c.BootAcksZero = zero })
		const input = 0x8000 // The first page behind the control blocks.
		h.put(h.shared+input, abi.GlobalPing|abi.GlobalIdleEnable)
		h.powerUp()
		h.start()
		ack := h.get(h.glb(abi.GlobalOutputAddress)+abi.GlobalAck) &^ abi.GlobalEvents
		if zero && ack != 0 || !zero && ack != abi.GlobalPing|abi.GlobalIdleEnable {
			t.Errorf("zero %t: ack %#x", zero, ack)
		}
	}
}

func TestOpenSyncPoll(t *testing.T) {
	for _, never := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) {
			if never {
				c.SyncPoll = -1
			}
		})
		at := g.alloc(16, 16)
		q := g.queues[0]
		q.job(move48(0, at), move32(2, 0), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater})
		h.run(ms)
		h.put(g.at(at), 1)
		h.run(time.Second)
		if (q.seqno() == 0) != never {
			t.Errorf("never %t: seqno %d", never, q.seqno())
		}
		g.kickStreams(1)
		g.kick()
		h.run(ms)
		if q.seqno() != 1 {
			t.Errorf("never %t: a kick does not help", never)
		}
	}
}

func TestOpenEventOrder(t *testing.T) {
	for _, first := range []bool{false, true} {
		h := newReady(t, "", func(c *fw.Config) { c.FatalFirst = first })
		g := h.group(h.vm(1), 0, 1)
		g.queues[0].ringVA = 0x1234_0000
		g.start()
		if e, fatal := g.queues[0].fault(abi.StreamFatalEvent); !fatal || e != abi.ExceptionConfig {
			t.Errorf("%s %t", e, fatal)
		}
		fatalAt, ackAt := 0, 0
		for i, l := range h.trace.Last(100) {
			switch {
			case l.Kind == "FATAL":
				fatalAt = i
			case l.Kind == "CSG_ACK" && l.Text == "csg=0 START":
				ackAt = i
			}
		}
		if (fatalAt < ackAt) != first {
			t.Errorf("first %t: fatal line %d, acknowledgement line %d", first, fatalAt, ackAt)
		}
	}
}

func TestOpenMMUFaults(t *testing.T) {
	for _, fatal := range []bool{false, true} {
		h, g := one(t, 1, "", func(c *fw.Config) { c.MMUFatal = fatal })
		q := g.queues[0]
		q.job(move48(0, 0x1234_0000), load(2, 0, 1), wait(1))
		h.run(ms)
		bit := abi.StreamFaultEvent
		if fatal {
			bit = abi.StreamFatalEvent
		}
		if e, pending := q.fault(bit); !pending || e != abi.ExceptionTranslationPage {
			t.Errorf("fatal %t: %s %t", fatal, e, pending)
		}
	}
}

func TestBadRings(t *testing.T) {
	for name, spoil := range map[string]func(*host, *queue){
		"size":   func(h *host, q *queue) { h.put(q.blockIn()+abi.StreamSize, 5000) },
		"small":  func(h *host, q *queue) { h.put(q.blockIn()+abi.StreamSize, 2048) },
		"input":  func(h *host, q *queue) { h.put64(q.blockIn()+abi.StreamUserInput, 0x5000_0000) },
		"output": func(h *host, q *queue) { h.put64(q.blockIn()+abi.StreamUserOutput, 0x5000_0000) },
	} {
		h := newReady(t, "", nil)
		g := h.group(h.vm(1), 0, 1)
		g.program()
		spoil(h, g.queues[0])
		g.request(abi.GroupStart, abi.GroupEndpointCfg)
		if e, fatal := g.queues[0].fault(abi.StreamFatalEvent); !fatal || e != abi.ExceptionConfig || g.state() != abi.GroupStart {
			t.Errorf("%s: %s %t", name, e, fatal)
		}
	}
}
