package fw_test

import (
	"bytes"
	"testing"
	"time"

	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// store writes a register and rings.
func (h *host) store(register, value uint32) {
	h.Helper()
	h.ports.Registers.Store(register, value)
	h.step()
}

// wantRegister compares a register.
func (h *host) wantRegister(register, want uint32) {
	h.Helper()
	if got := h.ports.Registers.Load(register); got != want {
		h.Fatalf("register %#x reads %#x, want %#x", register, got, want)
	}
}

const ready = 0xF000

func TestResetAndLoad(t *testing.T) {
	for _, entry := range []string{"", "run", "hang"} {
		h := newReady(t, nil)
		h.wantRegister(abi.RegStatus, ready)
		g := h.context(1, 4, 1)
		var j *gpuJob
		if entry != "" {
			j = g.job(entry, 50, ms)
			g.enable()
			h.run(10 * ms)
			h.want(modeDone(1, 1))
		}
		h.store(abi.RegReset, abi.ResetFull)
		h.run(ms) // Where the engine can't be aborted, to the end of the workgroup.
		h.wantRegister(abi.RegReset, 0)
		h.wantRegister(abi.RegStatus, abi.StatusInReset)
		if got := h.mmio(0x5500, 0); got[0] != 0x5500 {
			t.Fatalf("%q: a mailbox without firmware answers %08x", entry, got)
		}
		h.run(time.Hour)
		if j != nil && (j.done() || h.eng.starts()[0].Count != 50) {
			t.Errorf("%q: the job went on", entry)
		}
		h.store(abi.RegLoad, abi.LoadFirmware)
		h.wantRegister(abi.RegLoad, 0)
		h.wantRegister(abi.RegStatus, ready)
		h.wantMMIO(0xE0000304, 0x4509, 1) // Everything is forgotten.
		h.bringUp(4096, 8192)
		g.enable()
		h.want(failed(0x100))
		fresh := h.context(1, 4, 1)
		fine := fresh.job("run", 5, ms)
		fresh.enable()
		h.run(5 * ms)
		h.want(modeDone(1, 1))
		if !fine.done() || h.fw.Counters().GTResets != 1 {
			t.Errorf("%q: report %+v, %d resets", entry, fine.report(), h.fw.Counters().GTResets)
		}
	}
}

// virtual is the clock as the test engine declares it.
type virtual struct{ hw.Clock }

func (v virtual) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return v.Clock.AfterFunc(d, f)
}

// TestResetStopsTheTestEngine resets under a workgroup that hangs and others
// that work: nothing is written any more, and the engine takes new work.
func TestResetStopsTheTestEngine(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.Engine = testengine.New(testengine.Config{Clock: virtual{c.Clock}}) })
	h.kernel, h.format = []byte("cores=2 hang at 7"), testengine.Format
	g := h.context(1, 4, 1)
	j := g.job("any", 1000, 0)
	g.enable()
	h.run(20 * ms)
	memory, _ := h.arena.Bytes(g.buffer, hw.Granule)
	before := bytes.Clone(memory)
	h.run(ms)
	if bytes.Equal(memory, before) {
		t.Fatal("nothing was written")
	}
	h.store(abi.RegReset, abi.ResetFull)
	h.wantRegister(abi.RegReset, 0)
	before = bytes.Clone(memory)
	h.run(time.Minute)
	if !bytes.Equal(memory, before) || j.done() {
		t.Error("the engine went on")
	}
	h.store(abi.RegLoad, abi.LoadFirmware)
	h.bringUp(4096, 8192)
	h.kernel = []byte("workgroup=2ms")
	fresh := h.context(1, 4, 1)
	fine := fresh.job("any", 5, 0)
	fresh.enable()
	h.run(10 * ms)
	memory, _ = h.arena.Bytes(fresh.buffer, hw.Granule)
	want := make([]byte, hw.Granule)
	testengine.Apply(want, 0, 5)
	if !fine.done() || !bytes.Equal(memory, want) {
		t.Errorf("report %+v", fine.report())
	}
}

func TestLoadTakesTimeAndOnlyAfterAReset(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.LoadDelay = 5 * ms })
	g := h.context(1, 4, 1)
	h.store(abi.RegLoad, abi.LoadFirmware) // It is loaded: nothing happens.
	h.wantRegister(abi.RegLoad, 0)
	g.enable()
	h.want(modeDone(1, 1))
	h.store(abi.RegReset, abi.ResetFull)
	h.store(abi.RegLoad, abi.LoadFirmware)
	h.wantRegister(abi.RegStatus, abi.StatusInReset)
	h.run(5*ms - time.Microsecond)
	h.wantRegister(abi.RegLoad, abi.LoadFirmware)
	h.run(time.Microsecond)
	h.wantRegister(abi.RegLoad, 0)
	h.wantRegister(abi.RegStatus, ready)
}

// restless is a clock that goes on between two looks, as a real one does.
type restless struct {
	*hw.VirtualClock
	looks time.Duration
}

// Now implements hw.Clock.
func (r *restless) Now() time.Duration {
	r.looks++
	return r.VirtualClock.Now() + r.looks
}

// TestLoadWithoutDelay: what takes no time happens, although the clock went on meanwhile.
func TestLoadWithoutDelay(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.Clock = &restless{VirtualClock: c.Clock.(*hw.VirtualClock)} })
	h.store(abi.RegReset, abi.ResetFull)
	h.store(abi.RegLoad, abi.LoadFirmware)
	h.wantRegister(abi.RegLoad, 0)
	h.wantRegister(abi.RegStatus, ready)
}

// TestLoadIsOverWhenItIs: a host that asks the very moment the registers say that the firmware is up is answered.
func TestLoadIsOverWhenItIs(t *testing.T) {
	h := newReady(t, nil)
	h.store(abi.RegReset, abi.ResetFull)
	regs, asked := h.ports.Registers, false
	regs.Watch(func(uint32, uint32) {
		if asked || regs.Load(abi.RegLoad) != 0 || regs.Load(abi.RegStatus) != ready {
			return
		}
		asked = true
		regs.Store(abi.RegScratch, 0x5500)
		regs.Store(abi.RegNotify, 0)
	})
	h.store(abi.RegLoad, abi.LoadFirmware)
	if got := h.box(); !asked || got[0] != 0xF0000000 {
		t.Errorf("asked %t, the mailbox answers %08x", asked, got)
	}
}

func TestFailedLoad(t *testing.T) {
	h, _ := faulty(t, "load nth=2 fail=0x71")
	for i, want := range []uint32{ready, 0x7100, ready} {
		h.store(abi.RegReset, abi.ResetFull)
		h.store(abi.RegLoad, abi.LoadFirmware)
		h.wantRegister(abi.RegStatus, want)
		if answers := h.mmio(0x5500, 0)[0] == 0xF0000000; answers != (want == ready) {
			t.Errorf("load %d: answers %t", i+1, answers)
		}
	}
}

func TestResetOfADeadFirmware(t *testing.T) {
	for _, plan := range []string{"h2g/SCHED_CONTEXT mute", "h2g/SCHED_CONTEXT crash", "batch hang; engine-reset fail", "h2g/SCHED_CONTEXT deaf; irq silent"} {
		h, _ := faulty(t, plan)
		g := h.context(1, 4, 1)
		g.policies(2, ms, ms)
		g.job("run", 5, ms)
		g.enable()
		g.kick()
		g.disable()
		h.run(10 * ms)
		h.store(abi.RegReset, abi.ResetFull)
		h.run(ms)
		h.wantRegister(abi.RegReset, 0)
		h.store(abi.RegLoad, abi.LoadFirmware)
		h.bringUp(4096, 8192)
		fresh := h.context(1, 4, 1)
		fine := fresh.job("run", 5, ms)
		fresh.enable()
		h.interrupted()
		h.run(5 * ms)
		h.want(modeDone(1, 1))
		if !fine.done() || !h.interrupted() {
			t.Errorf("%s: report %+v", plan, fine.report())
		}
	}
}

func TestResetThatAnEngineOutlasts(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.ResetGrace = 500 * ms })
	g := h.context(1, 4, 1)
	j := g.job("stuck", 5, ms)
	g.enable()
	h.run(ms)
	for range 2 { // The host may try again.
		h.store(abi.RegReset, abi.ResetFull)
		h.run(500*ms - time.Microsecond)
		h.wantRegister(abi.RegReset, abi.ResetFull)
		h.run(time.Microsecond)
		h.wantRegister(abi.RegReset, abi.ResetFull|abi.ResetFailed)
		h.run(time.Hour)
		h.wantRegister(abi.RegStatus, abi.StatusInReset)
	}
	h.store(abi.RegLoad, abi.LoadFirmware)
	if got := h.mmio(0x5500, 0); got[0] != 0x5500 {
		t.Errorf("the mailbox answers %08x", got)
	}
	if j.done() || h.fw.Counters().GTResetsFailed != 2 {
		t.Errorf("%d resets failed", h.fw.Counters().GTResetsFailed)
	}
}

func TestD3HotKeepsEverything(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	j := g.job("run", 5, ms)
	g.enable()
	h.store(abi.RegPower, uint32(abi.PowerD3Hot))
	h.run(ms)
	h.wantRegister(abi.RegPowerState, uint32(abi.PowerD0)) // Something runs.
	h.run(4 * ms)
	h.wantRegister(abi.RegPowerState, uint32(abi.PowerD3Hot))
	h.received()
	next := g.job("run", 5, ms)
	g.kick()
	h.store(abi.RegReset, abi.ResetFull) // Nobody hears.
	h.run(time.Hour)
	h.store(abi.RegReset, 0)
	if !j.done() || next.begun() {
		t.Errorf("done %t, begun while frozen %t", j.done(), next.begun())
	}
	if got := h.mmio(0x5500, 0); got[0] != 0x5500 {
		t.Errorf("the mailbox answers %08x", got)
	}
	h.store(abi.RegPower, uint32(abi.PowerD0))
	h.wantRegister(abi.RegPowerState, uint32(abi.PowerD0))
	h.run(5 * ms)
	if !next.done() {
		t.Error("not done after the sleep")
	}
}

func TestD3ColdForgetsEverything(t *testing.T) {
	for _, volatile := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.VolatileMemory = volatile })
		g := h.context(1, 4, 1)
		g.job("run", 50, ms)
		g.enable()
		h.run(5 * ms)
		h.store(abi.RegPower, uint32(abi.PowerD3Cold))
		h.run(ms)
		h.wantRegister(abi.RegPowerState, uint32(abi.PowerD3Cold))
		h.wantRegister(abi.RegStatus, 0)
		h.store(abi.RegReset, abi.ResetFull)
		h.store(abi.RegLoad, abi.LoadFirmware)
		h.run(time.Hour)
		h.wantRegister(abi.RegStatus, 0)
		h.store(abi.RegReset, 0)
		h.store(abi.RegLoad, 0)
		b, _ := h.arena.Bytes(kernelAt, 1)
		if kept := b[0] != 0; kept == volatile {
			t.Errorf("volatile %t: memory kept %t", volatile, kept)
		}
		h.store(abi.RegPower, uint32(abi.PowerD0))
		h.wantRegister(abi.RegPowerState, uint32(abi.PowerD0))
		h.wantRegister(abi.RegStatus, abi.StatusInReset)
		h.store(abi.RegLoad, abi.LoadFirmware)
		h.wantRegister(abi.RegStatus, ready)
		h.bringUp(4096, 8192)
		g.enable()
		h.want(failed(0x100))
		fresh := h.context(1, 4, 1)
		fine := fresh.job("run", 5, ms)
		fresh.enable()
		h.run(5 * ms)
		if !fine.done() {
			t.Errorf("volatile %t: report %+v", volatile, fine.report())
		}
	}
}

func TestStrangeRegisters(t *testing.T) {
	h := newReady(t, nil)
	for _, v := range []uint32{1, 2, 5, 8, 0xFFFFFFFF} {
		h.store(abi.RegPower, v)
		h.wantRegister(abi.RegPowerState, 0)
	}
	h.store(abi.RegReset, 0xFFFFFFFE)
	h.store(abi.RegReset, 0xFFFFFFFF)
	h.store(abi.RegLoad, 0xFFFFFFFE)
	h.wantRegister(abi.RegStatus, ready)
	h.context(1, 4, 1).enable()
	h.want(modeDone(1, 1))
	// With the mailbox's page only, as on a device without the rest.
	var err error
	h = newHost(t, func(c *fw.Config) {
		if c.Ports.Registers, err = hw.NewRegisters(c.Arena, abi.RegWindow); err != nil {
			t.Fatal(err)
		}
	})
	h.bringUp(4096, 8192)
	h.context(1, 4, 1).enable()
	h.want(modeDone(1, 1))
}

func TestSoftResetForgetsAndAnswers(t *testing.T) {
	h := newReady(t, nil)
	h.context(1, 4, 1).enable()
	h.want(modeDone(1, 1))
	h.wantMMIO(0xF0000000, 0x5507)
	h.fast(abi.SchedContext{ID: 1})
	h.want(failed(0x100))
	h.wantRegister(abi.RegStatus, ready)
}
