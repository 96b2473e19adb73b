package fw_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// move puts a group that is off its slot onto another one with another address space.
func (g *group) move(slot, as uint32) {
	g.slot, g.as = slot, as
	g.endpoints.Priority = uint8(15 - slot)
	g.activate()
	g.resume()
}

func TestSuspendAndResumeElsewhere(t *testing.T) {
	h, g := one(t, 2, "", nil)
	q := g.queues[0]
	k := g.kernel("workgroup=1ms", 10)
	at := g.alloc(16, 16)
	q.job(append(k.instructions(), move48(60, at), move32(62, 3),
		abi.Instruction{Op: abi.OpSyncAdd32, Source: 62, Address: 60, WaitMask: 1, Signal: 2}, move32(50, 77), wait(7), move48(60, at+8), store(50, 60, 1), wait(1))...)
	h.run(3300 * us)
	g.request(abi.GroupSuspend, 0)
	if g.state() != abi.GroupStart {
		t.Error("suspended in the middle of a workgroup")
	}
	h.run(ms)
	if g.state() != abi.GroupSuspend {
		t.Fatal("not suspended")
	}
	r := k.report()
	if r.Status != hw.StatusPreempted || r.Done < 3 || r.Done > 4 {
		t.Errorf("report %+v", r)
	}
	out := q.blockOut()
	if abi.BlockedReason(h.get(out+abi.StreamBlockedReason)) != abi.BlockedScoreboard || h.get(out+abi.StreamScoreboards) != 1|1<<2 {
		t.Error("the status registers were not refreshed")
	}
	if h.get(out+abi.StreamAck)&1 != 0 {
		t.Error("the stream is not stopped")
	}
	h.run(50 * ms)
	if k.report().Done != r.Done {
		t.Error("it goes on")
	}
	g.move(5, 3)
	h.run(10 * ms)
	if q.seqno() != 1 || g.word(at) != 3 || g.word(at+8) != 77 || k.report().Executed != 10 {
		t.Errorf("seqno %d, words %d and %d, report %+v\n%s", q.seqno(), g.word(at), g.word(at+8), k.report(), h.lines())
	}
	g.output(10)
	g.queues[1].job(abi.Instruction{})
	h.run(ms)
	if g.queues[1].seqno() != 1 || len(h.fw.Violations()) > 0 {
		t.Errorf("the other queue: %d, %v", g.queues[1].seqno(), h.fw.Violations())
	}
}

func TestSuspendKeepsCallsAndWaits(t *testing.T) {
	h, g := one(t, 1, "", nil)
	q := g.queues[0]
	at := g.alloc(64, 64)
	va, length := g.stream(move48(0, at), move32(2, 0), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater})
	q.job(move48(10, va), move32(12, length), abi.Instruction{Op: abi.OpCall, Address: 10, Length: 12}, move48(10, at+8), move32(12, 5), store(12, 10, 1), wait(1))
	h.run(ms)
	g.leave(abi.GroupSuspend, 0)
	if s := abi.DecodeWaitStatus(h.get(q.blockOut() + abi.StreamStatusWait)); !s.Sync || h.get64(q.blockOut()+abi.StreamWaitPointer) != at {
		t.Errorf("status %+v", s)
	}
	g.move(2, 2)
	h.run(10 * ms)
	if q.seqno() != 0 || q.extract() != 5*8 {
		t.Error("the wait is over")
	}
	h.put(g.at(at), 1)
	h.run(2 * ms)
	if q.seqno() != 1 || g.word(at+8) != 5 {
		t.Errorf("seqno %d\n%s", q.seqno(), h.lines())
	}
}

// TestResumeInACallWithATornInsert: the call ends, and nothing behind it is executed
// before INSERT has been read whole.
func TestResumeInACallWithATornInsert(t *testing.T) {
	for nth := range 6 {
		h, g := one(t, 1, fmt.Sprintf("insert id=0 nth=%d torn", 1+nth), nil)
		q := g.queues[0]
		at := g.alloc(64, 64)
		va, length := g.stream(move48(0, at), move32(2, 0), abi.Instruction{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater})
		q.job(move48(10, va), move32(12, length), abi.Instruction{Op: abi.OpCall, Address: 10, Length: 12}, move48(10, at+8), move32(12, 5), store(12, 10, 1), wait(1))
		h.run(3 * ms)
		g.leave(abi.GroupSuspend, 0)
		h.put(g.at(at), 1)
		g.move(0, 2)
		for range 200 {
			h.run(50 * us)
			if err := h.fw.Check(); err != nil {
				t.Fatalf("torn at look %d: %v\n%s", 1+nth, err, h.lines())
			}
		}
		if q.seqno() != 1 || g.word(at+8) != 5 {
			t.Errorf("torn at look %d: seqno %d\n%s", 1+nth, q.seqno(), h.lines())
		}
	}
}

func TestPowerCycle(t *testing.T) {
	for _, fast := range []bool{true, false} {
		for _, dirty := range []string{"", "flushed", "forgotten"} {
			h, g := one(t, 1, "", func(c *fw.Config) { c.DirtyL2 = dirty != "" })
			q := g.queues[0]
			k := g.kernel("workgroup=1ms", 10)
			q.job(k.instructions()...)
			h.run(2500 * us)
			g.leave(abi.GroupSuspend, ms)
			if dirty == "flushed" {
				h.set(abi.RegGPUCommand, abi.CommandFlush(abi.FlushClean, abi.FlushClean, abi.FlushNone))
				h.step()
			}
			h.halt()
			if err := h.fw.PowerOff(); err != nil {
				t.Fatal(err)
			}
			in := h.glb(abi.GlobalInputAddress)
			h.put(in+abi.GlobalReq, h.get(in+abi.GlobalReq)&^abi.GlobalHalt)
			if !fast {
				h.load()
			}
			h.boot()
			g.activate()
			g.move(1, 2)
			h.run(20 * ms)
			e, fatal := q.fault(abi.StreamFatalEvent)
			if works := dirty != "forgotten"; fatal == works || fatal && e != abi.ExceptionConfig || (q.seqno() == 1) != works {
				t.Errorf("fast %t, cache %q: %s %t, seqno %d", fast, dirty, e, fatal, q.seqno())
			} else if works {
				g.output(10)
			}
			if got := h.fw.Counters().FastBoots == 1; got != fast {
				t.Errorf("fast boot: %t", got)
			}
		}
	}
}

func TestResumeRefusesBadImages(t *testing.T) {
	for name, spoil := range map[string]func(*host, *group){
		"suspend corrupt": nil, "suspend build=99": nil, "suspend size=32": nil, "suspend lost": nil,
		"magic":         func(h *host, g *group) { h.put(g.suspend, 1) },
		"ring":          func(h *host, g *group) { g.queues[0].ringVA += 8 },
		"nowhere":       func(h *host, g *group) { g.suspendVA = 0x5000_0000 },
		"other streams": func(h *host, g *group) { h.put(g.suspend+4, h.get(g.suspend+4)^3<<24) },
	} {
		plan := name
		if spoil != nil {
			plan = ""
		}
		h, g := one(t, 2, plan, nil)
		g.queues[0].job(g.kernel("", 10).instructions()...)
		h.run(2500 * us)
		g.leave(abi.GroupSuspend, ms)
		if spoil != nil {
			spoil(h, g)
		}
		g.resume()
		for i, q := range g.queues {
			if e, fatal := q.fault(abi.StreamFatalEvent); !fatal || e != abi.ExceptionConfig {
				t.Errorf("%s: queue %d: %s %t", name, i, e, fatal)
			}
		}
		h.run(20 * ms)
		if h.fw.Counters().Executions != 1 {
			t.Errorf("%s: garbage ran", name)
		}
		g.leave(abi.GroupTerminate, 0)
	}
}

func TestSuspendBufferNowhere(t *testing.T) {
	h := newReady(t, "", nil)
	g := h.group(h.vm(1), 0, 1)
	g.suspendVA = 0x5000_0000
	g.start()
	g.request(abi.GroupSuspend, 0)
	if e, fatal := g.queues[0].fault(abi.StreamFatalEvent); !fatal || e != abi.ExceptionBus || g.state() != abi.GroupStart {
		t.Errorf("%s %t, %s", e, fatal, g.state())
	}
	if h.reg(abi.RegMMUIntRaw)&abi.MMUIntFault(0) == 0 {
		t.Error("no MMU fault in the MCU's address space")
	}
	g.leave(abi.GroupTerminate, 0)
}

func TestTransitions(t *testing.T) {
	for _, strict := range []bool{false, true} {
		h := newReady(t, "", func(c *fw.Config) { c.StrictTransitions = strict })
		g := h.group(h.vm(1), 0, 1)
		refused := func(state abi.GroupState) {
			t.Helper()
			before := g.state()
			g.request(state, 0)
			h.run(ms)
			want := before
			if strict {
				want = 7
			}
			if g.state() != want {
				t.Errorf("%s after %s is %s", state, before, g.state())
			}
		}
		refused(abi.GroupSuspend)
		g.start()
		refused(abi.GroupResume)
		refused(5)
		g.leave(abi.GroupSuspend, 0)
		g.resume()
		refused(abi.GroupStart)
		g.leave(abi.GroupSuspend, 0)
		g.start() // Begins anew, nothing is restored.
		g.leave(abi.GroupTerminate, 0)
		g.start()
		g.leave(abi.GroupSuspend, 0)
		g.leave(abi.GroupTerminate, 0)
		g.request(abi.GroupTerminate, 0) // No request: it is terminated.
		if c := h.fw.Counters(); c.Illegal != 4 || len(h.fw.Violations()) != 4 {
			t.Errorf("%d illegal: %v", c.Illegal, h.fw.Violations())
		}
	}
}

func TestTerminateEscalates(t *testing.T) {
	for _, plan := range []string{"run hang", "csg-ack/SUSPEND drop"} {
		h, g := one(t, 1, plan, nil)
		g.queues[0].job(g.kernel("", 10).instructions()...)
		h.run(1500 * us)
		g.request(abi.GroupSuspend, 0)
		h.run(100 * ms)
		if g.state() != abi.GroupStart {
			t.Errorf("%s: suspended", plan)
		}
		g.leave(abi.GroupTerminate, ms)
		if !h.fw.Idle() {
			t.Errorf("%s: something runs", plan)
		}
		g.start()
		h.run(ms)
	}
}

func TestUnstoppableWork(t *testing.T) {
	h, g := one(t, 1, "run stuck", nil)
	g.queues[0].job(g.kernel("", 10).instructions()...)
	h.run(ms)
	g.request(abi.GroupTerminate, 0)
	h.run(time.Second)
	if g.state() == abi.GroupTerminate {
		t.Error("acknowledged while it runs")
	}
	h.set(abi.RegGPUIntClear, ^uint32(0))
	h.set(abi.RegGPUCommand, abi.CommandSoftReset)
	h.run(10 * time.Second)
	if h.reg(abi.RegGPUIntRaw)&abi.GPUIntResetDone != 0 || h.fw.Counters().ResetsFailed != 1 {
		t.Error("the reset ends while it runs")
	}
	if err := h.fw.PowerOff(); err != hw.ErrRunning {
		t.Errorf("power off: %v", err)
	}
}

func TestWholeDispatches(t *testing.T) {
	h, g := one(t, 1, "", func(c *fw.Config) { c.WholeDispatches = true })
	if h.get(h.shared+abi.GlobalFeatures) != 0 {
		t.Error("features")
	}
	k := g.kernel("workgroup=10ms", 9)
	g.queues[0].job(k.instructions()...)
	h.run(ms)
	g.request(abi.GroupSuspend, 0)
	h.run(85 * ms)
	if g.state() != abi.GroupStart {
		t.Error("suspended in the middle")
	}
	h.run(10 * ms)
	if g.state() != abi.GroupSuspend || k.report().Status != hw.StatusDone {
		t.Errorf("%s, %s", g.state(), k.report().Status)
	}
	g.resume()
	h.run(ms)
	if g.queues[0].seqno() != 1 {
		t.Error("does not go on")
	}
}

// TestNoWorkgroupTwice suspends at random moments, moves groups between slots,
// and cuts the power after some of the suspends.
func TestNoWorkgroupTwice(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			h := newReady(t, "", func(c *fw.Config) { c.Executions, c.Seed = 1+random.IntN(2), seed })
			var groups []*group
			var kernels []*compute
			for i := range uint32(3) {
				g := h.group(h.vm(i+1), i, 1)
				g.endpoints.Compute = uint8(1 + random.IntN(4))
				g.start()
				k := g.kernel(fmt.Sprintf("cores=%d workgroup=%dus", 1+random.IntN(3), 200+random.IntN(900)), 40)
				g.queues[0].job(k.instructions()...)
				groups, kernels = append(groups, g), append(kernels, k)
			}
			for range 12 {
				h.run(time.Duration(random.IntN(4000)) * us)
				slots := random.Perm(8)
				for _, g := range groups {
					g.request(abi.GroupSuspend, 0)
				}
				h.run(5 * ms)
				for _, g := range groups {
					if g.state() != abi.GroupSuspend {
						t.Fatal("not suspended")
					}
					in := g.queues[0].blockIn()
					h.put(in+abi.StreamReq, abi.SetField(h.get(in+abi.StreamReq), abi.StreamStateMask, abi.StreamStop))
				}
				if random.IntN(3) == 0 {
					if err := h.fw.PowerOff(); err != nil {
						t.Fatal(err)
					}
					h.load()
					h.boot()
				}
				for i, g := range groups {
					g.move(uint32(slots[i]), uint32(1+random.IntN(2)*3+i))
				}
			}
			h.run(200 * ms)
			for i, g := range groups {
				if r := kernels[i].report(); g.queues[0].seqno() != 1 || r.Executed != 40 {
					t.Errorf("group %d: seqno %d, report %+v", i, g.queues[0].seqno(), r)
				}
				g.output(40)
			}
			if v := h.fw.Violations(); len(v) > 0 {
				t.Error(v)
			}
		})
	}
}

func FuzzResume(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(40))
	f.Fuzz(func(t *testing.T, bad []byte, at uint16) {
		h := newReady(t, "", nil)
		g := h.group(h.vm(1), 0, 1)
		g.start()
		g.queues[0].job(g.kernel("", 10).instructions()...)
		h.run(2500 * us)
		g.leave(abi.GroupSuspend, ms)
		size := uint64(h.get(h.shared + abi.GroupControlOffset + abi.GroupSuspendSize))
		b, _ := h.arena.Bytes(g.suspend, size)
		if int(at) < len(b) {
			copy(b[at:], bad)
		}
		fw.Seal(b, h.cfg.Identity)
		g.resume()
		h.run(20 * ms)
	})
}
