package fw_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

func TestVocabulary(t *testing.T) {
	for _, p := range fw.Vocabulary() {
		if p.Text == "" || len(p.Actions) == 0 {
			t.Errorf("point %q", p.Name)
		}
		for _, a := range p.Actions {
			if a.Text == "" || a.Kind != hw.ValueNone && len(a.Samples) == 0 {
				t.Errorf("action %q at %s", a.Name, p.Name)
			}
		}
	}
	for seed := range uint64(200) {
		if _, err := fw.NewFaults(hw.RandomPlan(seed, 8, fw.Vocabulary())); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

func TestLostAndLateAcknowledgements(t *testing.T) {
	for name, state := range map[string]abi.GroupState{"START": abi.GroupStart, "SUSPEND": abi.GroupSuspend, "RESUME": abi.GroupResume, "TERMINATE": abi.GroupTerminate} {
		for _, action := range []string{"drop", "delay=60ms", "delay=150ms", "state=5"} {
			h := newReady(t, fmt.Sprintf("csg-ack/%s id=2 %s", name, action), nil)
			g := h.group(h.vm(1), 2, 1)
			g.program()
			switch state {
			case abi.GroupSuspend, abi.GroupTerminate:
				g.start()
			case abi.GroupResume:
				g.start()
				g.leave(abi.GroupSuspend, 0)
				g.program()
			}
			before := g.state()
			g.request(state, 0)
			h.run(100 * ms)
			want := state
			switch action {
			case "drop", "delay=150ms":
				want = before
			case "state=5":
				want = 5
			}
			if g.state() != want {
				t.Errorf("%s %s: %s", name, action, g.state())
			}
			h.run(100 * ms)
			if action == "delay=150ms" && g.state() != state {
				t.Errorf("%s %s: never", name, action)
			}
		}
	}
	for _, bit := range []uint32{abi.GroupEndpointCfg, abi.GroupStatusUpdate} {
		h := newReady(t, fmt.Sprintf("csg-ack/%s nth=2 drop", abi.DescribeGroup(0, bit)), nil)
		g := h.group(h.vm(1), 0, 1)
		g.start()
		for range 3 {
			g.request(abi.GroupStart, bit)
		}
		if (h.get(g.in()+abi.GroupReq)^h.get(g.out()+abi.GroupAck))&bit == 0 {
			t.Errorf("%s was acknowledged", abi.DescribeGroup(0, bit))
		}
	}
}

func TestTerminateOvertakesALateSuspend(t *testing.T) {
	h, g := one(t, 1, "csg-ack/SUSPEND delay=60ms", nil)
	g.request(abi.GroupSuspend, 0)
	h.run(ms)
	g.leave(abi.GroupTerminate, 0)
	h.run(100 * ms)
	if g.state() != abi.GroupTerminate {
		t.Errorf("the late acknowledgement says %s", g.state())
	}
}

func TestStreamAcknowledgements(t *testing.T) {
	for _, action := range []string{"drop", "delay=5ms"} {
		h := newReady(t, "cs-ack/START id=1 "+action, nil)
		g := h.group(h.vm(1), 0, 2)
		g.start()
		for _, q := range g.queues {
			q.job(abi.Instruction{})
		}
		acked := func() bool { return h.get(g.queues[1].blockOut()+abi.StreamAck)&1 != 0 }
		h.run(ms)
		if g.queues[0].seqno() != 1 || g.queues[1].seqno() != 1 || acked() {
			t.Errorf("%s: seqnos %d and %d, acknowledged %t", action, g.queues[0].seqno(), g.queues[1].seqno(), acked())
		}
		h.run(5 * ms)
		if acked() != (action != "drop") {
			t.Errorf("%s: acknowledged %t", action, acked())
		}
		g.kickStreams(2)
		g.kick() // The request stands still: it is only acknowledged.
		if !acked() || g.queues[1].extract() == 0 {
			t.Errorf("%s: begun anew, or never acknowledged", action)
		}
	}
}

func TestInterruptFaults(t *testing.T) {
	// EP_CFG and START are the first two of the group, IDLE is the third.
	for plan, comes := range map[string]bool{"": false, "irq/group nth=3 drop": false, "irq/group nth=3 delay=5ms": true, "irq/group nth=3 duplicate": true} {
		h, g := one(t, 1, plan, nil)
		if (h.get(g.in()+abi.GroupReq)^h.get(g.out()+abi.GroupAck))&abi.GroupIdle == 0 {
			t.Fatal("not idle")
		}
		h.set(abi.RegJobIntClear, ^uint32(0))
		h.run(500 * us)
		if h.reg(abi.RegJobIntRaw)&1 != 0 {
			t.Errorf("%q: came at once", plan)
		}
		h.run(5 * ms)
		if h.reg(abi.RegJobIntRaw)&1 != 0 != comes {
			t.Errorf("%q: came later: %t", plan, !comes)
		}
	}
}

func TestLostDoorbell(t *testing.T) {
	h, g := one(t, 1, "doorbell/user id=1 drop", nil)
	q := g.queues[0]
	q.job(abi.Instruction{})
	h.run(time.Second)
	if q.seqno() != 0 {
		t.Error("heard")
	}
	q.job(abi.Instruction{})
	h.run(ms)
	if q.seqno() != 2 {
		t.Error("the next one does not help")
	}
}

func TestInjectedStreamFaults(t *testing.T) {
	for plan, c := range map[string]struct {
		bit  uint32
		want abi.Exception
		mmu  bool
		// ends: the seqnos it reaches by itself.
		ends uint64
	}{
		"instruction/MOVE32 nth=2 fault=0x58":         {abi.StreamFaultEvent, abi.ExceptionDataInvalid, false, 0},
		"instruction/ERROR_BARRIER fault=0x5b":        {abi.StreamFaultEvent, abi.ExceptionImprecise, false, 1},
		"instruction/SYNC_ADD64 id=0 fault-late=0x5b": {abi.StreamFaultEvent, abi.ExceptionImprecise, false, 1},
		"instruction/MOVE32 fatal-is=0x41":            {abi.StreamFatalEvent, abi.ExceptionUnrecoverable, false, 0},
		"instruction/CALL fatal-is=0x68":              {abi.StreamFatalEvent, abi.ExceptionFirmware, false, 0},
		"instruction/CALL mmu":                        {abi.StreamFaultEvent, abi.ExceptionTranslationPage, true, 0},
		"instruction/CALL mmu-fatal":                  {abi.StreamFatalEvent, abi.ExceptionBus, true, 0},
		"instruction/CALL mmu-only":                   {0, 0, true, 1},
		// The host has nothing to acknowledge: the stream goes on.
		"event/FAULT drop; instruction/CALL fault=0x4b": {0, 0, false, 1},
	} {
		h, g := one(t, 1, plan, nil)
		q := g.queues[0]
		q.job(abi.Instruction{})
		h.run(ms)
		if c.bit != 0 {
			if e, pending := q.fault(c.bit); !pending || e != c.want {
				t.Errorf("%s: %s %t", plan, e, pending)
			}
		}
		if mmu := h.reg(abi.RegMMUIntRaw)&abi.MMUIntFault(1) != 0; mmu != c.mmu || q.seqno() != c.ends {
			t.Errorf("%s: MMU fault %t, seqno %d", plan, mmu, q.seqno())
		}
		if past := q.done(); past != (strings.Contains(plan, "late") || strings.Contains(plan, "only") || strings.Contains(plan, "drop")) {
			t.Errorf("%s: extract %#x", plan, q.extract())
		}
		q.acknowledge()
		h.step()
		h.run(ms)
		if recovers := c.bit != abi.StreamFatalEvent; (q.seqno() == 1) != recovers {
			t.Errorf("%s: seqno %d after the acknowledgement", plan, q.seqno())
		}
		g.leave(abi.GroupTerminate, 0)
	}
}

func TestAnyCodeCanBeInjected(t *testing.T) {
	for code := 0; code < 256; code += 3 {
		h, g := one(t, 1, fmt.Sprintf("instruction/CALL fault=%d", code), nil)
		g.queues[0].job(abi.Instruction{})
		h.run(ms)
		if e, pending := g.queues[0].fault(abi.StreamFaultEvent); !pending || int(e) != code {
			t.Errorf("%d: %s", code, e)
		}
		if code%15 != 0 {
			continue
		}
		h, g = one(t, 1, fmt.Sprintf("instruction/CALL fatal-is=%d", code), nil)
		g.queues[0].job(abi.Instruction{})
		h.run(ms)
		if e, pending := g.queues[0].fault(abi.StreamFatalEvent); !pending || int(e) != code {
			t.Errorf("fatal %d: %s", code, e)
		}
	}
}

func TestSecondEventInTheWindow(t *testing.T) {
	h, g := one(t, 1, "instruction/CALL fault=0x4b; event/FAULT again", nil)
	q := g.queues[0]
	q.job(abi.Instruction{})
	h.run(ms)
	ack := func() { h.put(g.in()+abi.GroupIRQAck, h.get(g.out()+abi.GroupIRQReq)) }
	// A careful host: IRQ_ACK first, then it inspects.
	h.set(abi.RegJobIntClear, ^uint32(0))
	ack()
	h.step() // The window.
	if h.get(g.in()+abi.GroupIRQAck) == h.get(g.out()+abi.GroupIRQReq) || h.reg(abi.RegJobIntRaw)&1 == 0 {
		t.Error("the second event did not come")
	}
	// A careless one that writes IRQ_ACK after its inspection does not see IRQ_REQ differ.
	ack()
	h.set(abi.RegJobIntClear, ^uint32(0))
	h.step()
	if h.get(g.in()+abi.GroupIRQAck) != h.get(g.out()+abi.GroupIRQReq) {
		t.Error("an event without end")
	}
}

func TestTornInsert(t *testing.T) {
	h, g := one(t, 1, "insert id=0 nth=2 torn", nil)
	q := g.queues[0]
	q.job(abi.Instruction{})
	h.run(3 * ms)
	if q.seqno() != 1 || h.fw.Counters().InsertsIgnored == 0 || h.faults.Fired() != 1 {
		t.Errorf("seqno %d, %d ignored", q.seqno(), h.fw.Counters().InsertsIgnored)
	}
}

func TestRunFaults(t *testing.T) {
	for plan, want := range map[string]abi.Exception{"run trap": abi.ExceptionImprecise, "run mmu": abi.ExceptionTranslationPage, "run id=0 hang": 0} {
		h, g := one(t, 1, plan, nil)
		k := g.kernel("", 4)
		q := g.queues[0]
		q.job(k.instructions()...)
		h.run(20 * ms)
		e, pending := q.fault(abi.StreamFaultEvent)
		if pending != (want != 0) || e != want || q.seqno() != 0 {
			t.Errorf("%s: %s %t", plan, e, pending)
		}
		if want == 0 {
			h.run(10 * time.Second)
			if h.fw.Counters().ProgressEvents != 1 {
				t.Error("no progress event")
			}
			g.leave(abi.GroupTerminate, 0)
		} else if k.report().Status != hw.StatusFault {
			t.Errorf("%s: %+v", plan, k.report())
		}
	}
}

func TestCrashInTheMiddle(t *testing.T) {
	for _, plan := range []string{"instruction/CALL crash", "instruction/RUN_COMPUTE freeze", "csg-ack/STATUS_UPDATE crash", "csg-ack/SUSPEND crash"} {
		h, g := one(t, 1, plan, nil)
		q := g.queues[0]
		q.job(g.kernel("", 4).instructions()...)
		q.job(g.kernel("", 4).instructions()...)
		h.run(ms)
		g.request(abi.GroupSuspend, abi.GroupStatusUpdate)
		h.run(10 * ms)
		if h.fw.Enabled() || g.state() == abi.GroupSuspend || h.faults.Fired() != 1 {
			t.Errorf("%s: %s, fired %d", plan, g.state(), h.faults.Fired())
		}
		h.ring(0)
		h.run(time.Second)
		h.reset()
		h.start()
		h.configure()
		g.activate()
		g.start()
		h.run(20 * ms)
		if !h.fw.Enabled() {
			t.Errorf("%s: no restart", plan)
		}
	}
}

// TestNewcomerOfEqualPriority: it is seen with the START, which comes after its EP_CFG.
func TestNewcomerOfEqualPriority(t *testing.T) {
	h, a, b := two(t, "", nil)
	b.leave(abi.GroupTerminate, 0)
	b.endpoints.Priority = a.endpoints.Priority
	b.start()
	if v := h.fw.Violations(); len(v) != 1 || !strings.Contains(v[0], "same priority") {
		t.Errorf("%q", v)
	}
}

func TestViolations(t *testing.T) {
	h, a, b := two(t, "", nil)
	b.endpoints.Priority = a.endpoints.Priority
	h.put(b.in()+abi.GroupEndpointReq, b.endpoints.Encode())
	b.request(abi.GroupStart, abi.GroupEndpointCfg)
	h.put(a.out()+abi.GroupAck, 77)
	h.set(abi.RegGPUCommand, 0x77)
	h.put64(a.queues[0].out+abi.RingExtract, 8)
	h.step()
	v := strings.Join(h.fw.Violations(), "\n")
	for _, want := range []string{"same priority", "CSG_ACK is 0x4d", "GPU command 0x77", "EXTRACT is 0x8"} {
		if !strings.Contains(v, want) {
			t.Errorf("%q is not in %q", want, v)
		}
	}
	if a.state() != abi.GroupStart {
		t.Error("the firmware's word was not put right")
	}
}
