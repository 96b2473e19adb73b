package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

func TestPowerAndCommandFaults(t *testing.T) {
	h := newHost(t, "command/power stuck; command/flush stuck; command/mmu id=3 stuck; command/reset stuck", nil)
	h.set(abi.RegL2PowerOn, 1)
	h.run(ms)
	if h.reg(abi.RegL2Ready) != 0 {
		t.Error("power came")
	}
	h.powerUp()
	flush := func() bool {
		h.set(abi.RegGPUIntClear, ^uint32(0))
		h.set(abi.RegGPUCommand, abi.CommandFlush(abi.FlushClean, abi.FlushClean, abi.FlushNone))
		h.run(ms)
		return h.reg(abi.RegGPUIntRaw)&abi.GPUIntCleanDone != 0
	}
	id := h.reg(abi.RegLatestFlush)
	if flush() || !flush() || h.reg(abi.RegLatestFlush) != id+1 {
		t.Error("the first flush ends or the second does not")
	}
	h.setSpace(3, 0, nil)
	if h.reg(abi.ASBase(3)+abi.RegASStatus) != abi.ASStatusBusy || h.reg(abi.RegMMUIntRaw)&abi.MMUIntDone(3) != 0 {
		t.Error("the address space is not stuck")
	}
	h.set(abi.RegGPUIntClear, ^uint32(0))
	h.set(abi.RegGPUCommand, abi.CommandSoftReset)
	h.run(ms)
	if h.reg(abi.RegGPUIntRaw)&abi.GPUIntResetDone != 0 {
		t.Error("the reset ends")
	}
	h.reset()
	if h.reg(abi.ASBase(3)+abi.RegASStatus) != 0 || h.reg(abi.RegLatestFlush) != 1 {
		t.Error("the reset leaves something behind")
	}
	h.set(abi.RegL2PwrOff, 1)
	h.step()
	if h.reg(abi.RegL2Ready) != 0 {
		t.Error("the power stays")
	}
	h.run(ms)
	if h.get64(0x90) == 0 || h.reg(abi.RegTimestamp) != uint32(uint64(h.clock.Now())*24/1000) {
		t.Errorf("timestamp %d at %v", h.reg(abi.RegTimestamp), h.clock.Now())
	}
}

func TestPingAndDoorbells(t *testing.T) {
	h := newReady(t, "glb-ack/PING nth=2 drop; glb-ack/PING nth=3 delay=5ms; doorbell/global nth=6 drop; doorbell/global nth=8 spurious", nil)
	in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
	ping := func() bool {
		h.set(abi.RegJobIntClear, ^uint32(0))
		h.put(in+abi.GlobalReq, abi.Toggle(h.get(in+abi.GlobalReq), h.get(out+abi.GlobalAck), abi.GlobalPing))
		h.ring(0)
		return (h.get(in+abi.GlobalReq)^h.get(out+abi.GlobalAck))&abi.GlobalPing == 0 && h.reg(abi.RegJobIntStat) == abi.JobIntGlobal
	}
	if !ping() {
		t.Error("no answer")
	}
	second, again := ping(), ping()
	if second || again {
		t.Error("the second ping was answered, or done again")
	}
	h.put(in+abi.GlobalReq, h.get(in+abi.GlobalReq)^abi.GlobalPing)
	h.ring(0)   // Taken back.
	if ping() { // A kick that is lost.
		t.Error("answered without a doorbell")
	}
	h.ring(0)
	if (h.get(in+abi.GlobalReq)^h.get(out+abi.GlobalAck))&abi.GlobalPing == 0 {
		t.Error("the third answer is not late")
	}
	h.run(5 * ms)
	if (h.get(in+abi.GlobalReq)^h.get(out+abi.GlobalAck))&abi.GlobalPing != 0 {
		t.Error("the late answer does not come")
	}
	h.set(abi.RegJobIntClear, ^uint32(0))
	h.ring(0)
	if h.reg(abi.RegJobIntRaw) != abi.JobIntGlobal|1 {
		t.Errorf("no spurious interrupt: %#x", h.reg(abi.RegJobIntRaw))
	}
}

func TestCrash(t *testing.T) {
	for plan, status := range map[string]uint32{"doorbell/global nth=2 crash": abi.MCUFatal, "doorbell/global nth=2 freeze": abi.MCUEnabled,
		"glb-ack/PING crash": abi.MCUFatal} {
		h := newReady(t, plan, nil)
		in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
		h.put(in+abi.GlobalReq, h.get(in+abi.GlobalReq)^abi.GlobalPing)
		h.ring(0)
		h.run(time.Second)
		if (h.get(in+abi.GlobalReq)^h.get(out+abi.GlobalAck))&abi.GlobalPing == 0 || h.reg(abi.RegMCUStatus) != status || h.fw.Enabled() {
			t.Errorf("%s: status %d", plan, h.reg(abi.RegMCUStatus))
		}
		h.reset()
		h.start()
		if !h.fw.Enabled() {
			t.Errorf("%s: no restart", plan)
		}
	}
}

// TestCrashLeavesEndpoints: what is on an endpoint goes on when the MCU stands still, and nobody says so.
func TestCrashLeavesEndpoints(t *testing.T) {
	h := newReady(t, "glb-ack/PING freeze", nil)
	v := h.vm(1)
	g := h.group(v, 0, 1)
	g.start()
	c := v.kernel("workgroup=1ms", 10)
	g.queues[0].job(c.instructions()...)
	h.run(5 * ms)
	in := h.glb(abi.GlobalInputAddress)
	h.put(in+abi.GlobalReq, h.get(in+abi.GlobalReq)^abi.GlobalPing)
	h.ring(0)
	h.run(time.Second)
	if r := c.report(); r.Status != hw.StatusRunning || r.Done == 10 || g.queues[0].seqno() != 0 {
		t.Errorf("the MCU took it in: %+v", r)
	}
	v.output(10)
	h.reset()
	if r := c.report(); r.Status != hw.StatusDone || r.Done != 10 {
		t.Errorf("after the reset %+v", r)
	}
}

func TestInterruptMask(t *testing.T) {
	h := newReady(t, "", nil)
	line := func() bool {
		select {
		case <-h.ports.Interrupt.C():
			return true
		default:
			return false
		}
	}
	line()
	in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
	ping := func() {
		h.put(in+abi.GlobalReq, abi.Toggle(h.get(in+abi.GlobalReq), h.get(out+abi.GlobalAck), abi.GlobalPing))
		h.ring(0)
	}
	h.set(abi.RegGPUIntClear, ^uint32(0))
	h.set(abi.RegMMUIntClear, ^uint32(0))
	h.set(abi.RegJobIntClear, ^uint32(0))
	h.set(abi.RegJobIntMask, 0)
	ping()
	if line() || h.reg(abi.RegJobIntRaw) != abi.JobIntGlobal || h.reg(abi.RegJobIntStat) != 0 {
		t.Error("an interrupt that is masked came, or was not latched")
	}
	h.step()
	h.set(abi.RegJobIntMask, abi.JobIntGlobal)
	h.step()
	if !line() {
		t.Error("no interrupt when the mask opened")
	}
	h.step()
	if line() {
		t.Error("an interrupt for nothing new")
	}
	h.set(abi.RegJobIntClear, 1)
	ping()
	if !line() || h.reg(abi.RegJobIntStat) != abi.JobIntGlobal {
		t.Error("no interrupt for something new")
	}
	h.put(in+abi.GlobalAckIRQMask, 0)
	h.set(abi.RegJobIntClear, ^uint32(0))
	ping()
	if h.reg(abi.RegJobIntRaw) != 0 {
		t.Error("an acknowledgement that the host does not want to hear of")
	}
}

func TestGlobalIdle(t *testing.T) {
	h := newReady(t, "", nil)
	out := h.glb(abi.GlobalOutputAddress)
	idle := func() bool {
		return (h.get(h.glb(abi.GlobalInputAddress)+abi.GlobalReq)^h.get(out+abi.GlobalAck))&abi.GlobalIdle != 0
	}
	h.run(700 * us)
	if idle() {
		t.Error("idle too early")
	}
	h.run(200 * us)
	if !idle() || h.fw.Counters().GlobalIdles != 1 {
		t.Error("not idle")
	}
	in := h.glb(abi.GlobalInputAddress)
	h.put(in+abi.GlobalReq, abi.Acknowledge(h.get(in+abi.GlobalReq), h.get(out+abi.GlobalAck), abi.GlobalIdle))
	h.run(10 * ms)
	if idle() {
		t.Error("told twice")
	}
	g := h.group(h.vm(1), 0, 1)
	g.start()
	g.queues[0].job(abi.Instruction{})
	h.run(ms + 100*us)
	if !idle() {
		t.Error("not idle again after work")
	}
}
