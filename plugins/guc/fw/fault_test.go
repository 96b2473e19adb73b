package fw_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"pgregory.net/rapid"
)

func TestKernelFaults(t *testing.T) {
	for _, c := range []struct {
		entry string
		cause hw.Cause
		done  uint64
	}{
		{"trap", hw.CauseTrap, 1}, {"memory", hw.CauseMemory, 1}, {"refuse", hw.CauseKernel, 0}, {"early", hw.CauseEngine, 1},
	} {
		h := newReady(t, nil)
		bad, good := h.context(1, 4, 1), h.context(2, 4, 1)
		j, after, other := bad.job(c.entry, 5, ms), bad.job("run", 1, ms), good.job("run", 5, ms)
		bad.enable()
		good.enable()
		h.run(6 * ms)
		h.want(modeDoneThen(c.done == 0, 1)...)
		if r := j.report(); r.Status != hw.StatusFault || r.Cause != c.cause || r.Done != c.done || r.Detail == "" {
			t.Errorf("%s: report %+v", c.entry, r)
		}
		if j.done() || after.begun() || !other.done() {
			t.Errorf("%s: done %t, next begun %t, other done %t", c.entry, j.done(), after.begun(), other.done())
		}
		bad.kick() // Not schedulable any more.
		h.run(10 * ms)
		if after.begun() || h.fw.Counters().Dropped != 1 {
			t.Errorf("%s: a reset context was scheduled", c.entry)
		}
		bad.disable()
		h.want(modeDone(1, 0))
		h.fast(abi.DeregisterContext{ID: 1})
		h.want(deregistered(1))
	}
}

// modeDoneThen is what two contexts that are enabled give when the first one
// faults, at once or later.
func modeDoneThen(atOnce bool, id uint32) [][]uint32 {
	if atOnce {
		return [][]uint32{modeDone(id, 1), captured(), wasReset(id), modeDone(2, 1)}
	}
	return [][]uint32{modeDone(id, 1), modeDone(2, 1), captured(), wasReset(id)}
}

func TestResetContextCanBeEnabledAgain(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	g.job("trap", 5, ms)
	next := g.job("run", 5, ms)
	g.enable()
	h.run(5 * ms)
	h.want(modeDone(1, 1), captured(), wasReset(1))
	g.regs.Store(abi.RegRingHead, next.start) // As i915 does: the ring is rewound or moved on.
	g.enable()
	h.run(5 * ms)
	h.want(modeDone(1, 1))
	if !next.done() {
		t.Errorf("report %+v", next.report())
	}
}

func TestMalformedWork(t *testing.T) {
	cat := []uint32{2, 0x90006000, 1}
	for name, c := range map[string]struct {
		change func(h *host, g *gpuContext, j *gpuJob)
		cause  hw.Cause // CauseNone: the descriptor says nothing.
		cat    bool
	}{
		"descriptor": {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store32(j.at, 0) }, hw.CauseDescriptor, false},
		"firmware half": {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store64(j.at+hw.ReportOffset+8, 6) },
			hw.CauseDescriptor, false},
		"arguments": {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store32(j.at+hw.DispatchSize, 8) }, hw.CauseDescriptor, false},
		"kernel digest": {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store32(j.at+0x18, 1) },
			hw.CauseKernel, false},
		"kernel address":    {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store64(j.at+8, 0x9_0000_0000) }, hw.CauseMemory, true},
		"argument address":  {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store64(j.at+0x88, 0x9_0000_0000) }, hw.CauseMemory, true},
		"buffer argument":   {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store64(j.at+hw.DispatchSize+24, 8) }, hw.CauseMemory, true},
		"private argument":  {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store64(j.at+hw.DispatchSize+24, systemVA) }, hw.CauseMemory, true},
		"batch address":     {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4+10, 8) }, hw.CauseNone, true},
		"batch not aligned": {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4+9, uint32(j.va&0xFFFFFFFF)+4) }, hw.CauseNone, false},
		"space table":       {func(h *host, g *gpuContext, j *gpuJob) { h.arena.Store32(uint64(g.regs.Load(abi.RegPDP0Lo)), 0) }, hw.CauseNone, false},
		"no space table":    {func(h *host, g *gpuContext, j *gpuJob) { g.regs.Store(abi.RegPDP0Lo, 0) }, hw.CauseNone, true},
		"ring command":      {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4, 0x1F<<23) }, hw.CauseNone, false},
		"batch end":         {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4, 0x0A<<23) }, hw.CauseNone, false},
		"register":          {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4+1, 0x2000) }, hw.CauseNone, false},
		"store to registers": {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4+2, 0x240) },
			hw.CauseNone, true},
		"store beyond memory": {func(h *host, g *gpuContext, j *gpuJob) { g.ring.Store(j.start/4+3, 1) }, hw.CauseNone, true},
		"ring tail":           {func(h *host, g *gpuContext, j *gpuJob) { g.regs.Store(abi.RegRingTail, abi.RingSize) }, hw.CauseNone, false},
		"ring tail odd":       {func(h *host, g *gpuContext, j *gpuJob) { g.regs.Store(abi.RegRingTail, 12) }, hw.CauseNone, false},
		"ring head":           {func(h *host, g *gpuContext, j *gpuJob) { g.regs.Store(abi.RegRingHead, abi.RingSize) }, hw.CauseNone, false},
		"ring start":          {func(h *host, g *gpuContext, j *gpuJob) { g.regs.Store(abi.RegRingStart, 0) }, hw.CauseNone, false},
		"ring control":        {func(h *host, g *gpuContext, j *gpuJob) { g.regs.Store(abi.RegRingControl, 0) }, hw.CauseNone, false},
	} {
		h := newReady(t, nil)
		g := h.context(1, 4, 1)
		j := g.job("run", 5, ms)
		c.change(h, g, j)
		g.enable()
		h.run(10 * ms)
		if c.cat {
			h.want(modeDone(1, 1), cat)
		} else {
			h.want(modeDone(1, 1), captured(), wasReset(1))
		}
		if cause, _ := h.arena.Load32(j.at + hw.ReportOffset + 4); cause != uint32(c.cause) {
			t.Errorf("%s: descriptor says cause %v, want %v", name, hw.Cause(cause), c.cause)
		}
		if len(h.eng.starts()) != 0 {
			t.Errorf("%s: something was started", name)
		}
		next := h.context(2, 4, 1)
		fine := next.job("run", 1, ms)
		next.enable()
		h.run(ms)
		if !fine.done() {
			t.Errorf("%s: the next context does not run", name)
		}
	}
}

func TestExtendedCatError(t *testing.T) {
	h := newReady(t, nil)
	h.arena.Store32(0x50000, 0x40010000)
	h.send(0x00130004, 0x0000550E, 0x50000, 0, 1)
	h.received()
	g := h.context(1, 4, 1)
	j := g.job("run", 1, ms)
	g.ring.Store(j.start/4+10, 8)
	g.enable()
	h.want(modeDone(1, 1), []uint32{3, 0x90006000, 1, 0xDEADBEEF})
}

func TestPreemptionTimeoutResetsTheEngine(t *testing.T) {
	h := newReady(t, nil)
	g, other := h.context(1, 4, 1), h.context(2, 4, 1)
	g.policies(2, 10*ms, 100*ms)
	other.policies(2, 10*ms, 100*ms)
	j, fine := g.job("hang", 5, ms), other.job("run", 5, ms)
	g.enable()
	h.run(time.Minute) // Alone, a hang is never detected.
	h.want(modeDone(1, 1))
	other.enable()
	h.run(100*ms - time.Microsecond)
	h.want(modeDone(2, 1))
	h.run(time.Microsecond)
	h.want(captured(), wasReset(1))
	h.run(5 * ms)
	if r := j.report(); r.Status != hw.StatusFault || r.Cause != hw.CauseHang || !fine.done() {
		t.Errorf("report %+v, other done %t", r, fine.done())
	}
}

func TestForcedDisable(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	g.policies(2, 0, 640*ms)
	g.job("hang", 5, ms)
	g.enable()
	g.disable()
	h.run(ms)
	h.want(modeDone(1, 1))
	h.send(0x80040004, 0x2000100B, 1, 0x20020001, 1) // Evict: 1 µs, on the running preemption.
	h.run(time.Microsecond)
	h.want(captured(), wasReset(1), modeDone(1, 0))
	h.fast(abi.DeregisterContext{ID: 1})
	h.want(deregistered(1))
}

func TestPreemptionTimeoutNeverAndFloor(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.PreemptionMin = 10 * time.Second })
	never, floor := h.context(1, 4, 1), h.context(2, 4, 1)
	never.policies(2, 0, 0)
	never.job("hang", 5, ms)
	never.enable()
	never.disable()
	h.run(time.Hour)
	h.want(modeDone(1, 1))
	never.policies(2, 0, time.Microsecond)
	h.run(10 * time.Second)
	h.want(captured(), wasReset(1), modeDone(1, 0))
	floor.policies(2, 0, time.Microsecond)
	floor.job("hang", 5, ms)
	floor.enable()
	floor.disable()
	h.run(10*time.Second - time.Microsecond)
	h.want(modeDone(2, 1))
	h.run(time.Microsecond)
	h.want(captured(), wasReset(2), modeDone(2, 0))
}

func TestNoEngineResetFlag(t *testing.T) {
	h := newReady(t, nil)
	h.arena.Store32(0x50000+4*17, 1)
	h.arena.Store32(0x50000+4*19, 1)
	h.send(0x80010002, 0x20000506, 0x50000)
	g := h.context(1, 4, 1)
	g.policies(2, 0, ms)
	g.job("hang", 5, ms)
	g.enable()
	g.disable()
	h.run(time.Hour)
	h.want(modeDone(1, 1))
}

func TestEngineThatCannotBeReset(t *testing.T) {
	h := newReady(t, nil)
	g, other := h.context(1, 4, 1), h.context(2, 4, 1)
	g.policies(2, 0, 100*ms)
	j := g.job("stuck", 5, ms)
	g.enable()
	h.run(ms)
	g.disable()
	h.run(100 * ms)
	h.want(modeDone(1, 1), captured(), wasReset(1), []uint32{4, 0x90001009, 4, 0, 1})
	if r := j.report(); r.Status != hw.StatusFault || r.Cause != hw.CauseHang {
		t.Errorf("report %+v", r)
	}
	if !h.fw.Dead() {
		t.Error("the firmware goes on")
	}
	// Mute: nothing is taken, nothing answered.
	other.enable()
	h.run(time.Hour)
	h.want()
	if got := h.mmio(0x5500, 0); got[0] != 0x5500 {
		t.Errorf("the mailbox answers %08x", got)
	}
	// A reload under the same engine waits for the execution, for ever.
	h.fw.Reload(nil)
	if got := h.mmio(0x5500, 0); got[0] != 0x5500 {
		t.Errorf("the mailbox answers %08x", got)
	}
	// With a fresh engine everything begins anew.
	h.eng = newScriptEngine(h.clock)
	h.fw.Reload(h.eng)
	h.step()
	if h.fw.Dead() {
		t.Error("dead after a reload")
	}
	h.bringUp(4096, 4096)
	fresh := h.context(1, 4, 1)
	fine := fresh.job("run", 1, ms)
	fresh.enable()
	h.run(ms)
	h.want(modeDone(1, 1))
	if !fine.done() {
		t.Error("the reloaded firmware runs nothing")
	}
}

func TestCrashAndReload(t *testing.T) {
	for _, exception := range []bool{false, true} {
		h := newReady(t, nil)
		g := h.context(1, 4, 1)
		j := g.job("run", 5, ms)
		g.enable()
		h.run(2 * ms)
		h.fw.Crash(exception)
		want := []uint32{1, 0x90008004}
		if exception {
			want[1]++
		}
		h.want(modeDone(1, 1), want)
		g.disable()
		h.run(time.Minute)
		h.want()
		if j.done() {
			t.Error("a dead firmware completed a job")
		}
		h.fw.Reload(nil)
		h.step()
		h.wantMMIO(0xE0000304, 0x4509, 1) // The rings are forgotten.
		h.bringUp(4096, 4096)
		g.enable() // The contexts too.
		h.want(failed(0x100))
	}
}

func TestSoftReset(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	g.policies(2, 0, 640*ms)
	j := g.job("run", 5, 10*ms)
	g.enable()
	h.run(15 * ms)
	h.want(modeDone(1, 1))
	h.wantMMIO(0xB0000000, 0x5507) // Busy.
	h.wantMMIO(0xD0000000, 0x5500, 0)
	h.run(5 * ms)
	if box := h.box(); box[0] != 0xF0000000 {
		t.Fatalf("reply %08x", box)
	}
	if r := j.report(); r.Status != hw.StatusPreempted || r.Done != 2 {
		t.Errorf("report %+v", r)
	}
	g.enable() // The rings stay, the context is gone.
	h.want(failed(0x100))
	h.fast(abi.RegisterContext{Flags: 1, ID: 1, Class: 4, SubmitMask: 1, LRCDescriptor: abi.LRCDescriptor{LRC: g.lrc, PrivateSpace: true}.Encode()})
	g.enable()
	h.run(30 * ms)
	if !j.done() {
		t.Errorf("report %+v", j.report())
	}
	h.eng.exactlyOnce(t, core.JobID(j.id), 5)
}

// shell runs a firmware on its own goroutine under the bubble's clock.
func shell(t *testing.T, entry string, until func(*gpuJob, hw.Line)) (*gpuJob, error) {
	var j *gpuJob
	var result error
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, func(c *fw.Config) {
			c.Clock = hw.NewRealClock()
			c.Engine = newScriptEngine(c.Clock)
		})
		// The host prepares everything in memory before the firmware runs.
		h.bringUp(4096, 4096)
		g := h.context(1, 4, 1)
		j = g.job(entry, 100, 10*ms)
		g.enable()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- h.fw.Run(ctx) }()
		until(j, h.ports.Interrupt)
		stop()
		result = <-done
	})
	return j, result
}

func TestRunCompletesAJob(t *testing.T) {
	_, err := shell(t, "run", func(j *gpuJob, interrupt hw.Line) {
		for !j.done() {
			<-interrupt.C()
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRunEndsInTheMiddle(t *testing.T) {
	for entry, want := range map[string]error{"run": nil, "hang": nil, "stuck": hw.ErrRunning} {
		_, err := shell(t, entry, func(*gpuJob, hw.Line) { time.Sleep(25 * ms) })
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", entry, err, want)
		}
	}
}

// TestAnyOrderOfRequests lets a random host do random things; every workgroup
// of every job has to run exactly once, and every request to be answered.
func TestAnyOrderOfRequests(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		instances := rapid.IntRange(1, 3).Draw(rt, "instances")
		h := newReady(t, func(c *fw.Config) {
			c.Classes = map[abi.EngineClass]int{abi.ClassCompute: instances}
			c.NoHeadOfLineBlocking = rapid.Bool().Draw(rt, "no blocking")
			c.CarryQuantum = rapid.Bool().Draw(rt, "carry quantum")
			c.Promote = time.Duration(rapid.IntRange(0, 2).Draw(rt, "promote")) * 10 * ms
			c.NotifyFirst = rapid.Bool().Draw(rt, "notify first")
			c.DoneDelay = time.Duration(rapid.IntRange(0, 1).Draw(rt, "done delay")) * ms
		})
		var contexts []*gpuContext
		var jobs []*gpuJob
		for id := range uint32(rapid.IntRange(1, 4).Draw(rt, "contexts")) {
			contexts = append(contexts, h.context(id, 4, rapid.Uint32Range(1, 1<<instances-1).Draw(rt, "mask")))
		}
		answered, asked, size := 0, 0, uint32(0)
		collect := func() {
			for _, m := range h.received() {
				switch {
				case m[1] == 0x90001002 || m[1] == 0xE0000090:
					answered++
				case m[0]>>16 == 0x12 && m[1]>>28 == 0xF:
					size = m[1] & 0x0FFFFFFF
				case m[1] != 0x90005106:
					rt.Fatalf("unexpected %08x", m)
				}
			}
		}
		// migrate saves the device, resets it or not, and restores it.
		migrate := func(reset bool) {
			for _, c := range []func(){
				func() { h.control(abi.VFPause) }, func() { h.run(20 * ms) },
				func() { h.ask(abi.SaveRestoreVF{Function: 1, Address: snapshotAt, Dwords: snapshotRoom}) },
				func() {
					if saved := size; reset {
						h.store(abi.RegReset, abi.ResetFull)
						h.store(abi.RegLoad, abi.LoadFirmware)
						h.bringUp(4096, 8192)
						h.control(abi.VFPause)
						collect()
						size = saved
					}
				},
				func() { h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: size}) },
				func() { h.control(abi.VFResume) },
				func() {
					h.wantMMIO(0xF0000000, 0x0007550F)
					h.wantMMIO(0xF0000000, 0x00075508)
				},
			} {
				c()
				h.step()
				collect()
			}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			g := contexts[rapid.IntRange(0, len(contexts)-1).Draw(rt, "context")]
			switch rapid.SampledFrom(strings.Fields("job mode kick policies time time migrate sleep")).Draw(rt, "what") {
			case "job":
				if g.jobs < 50 {
					jobs = append(jobs, g.job("run", rapid.Uint32Range(1, 20).Draw(rt, "count"), time.Duration(rapid.IntRange(1, 3000).Draw(rt, "µs"))*time.Microsecond))
				}
			case "mode":
				asked++
				g.mode(rapid.Bool().Draw(rt, "enable"))
			case "kick":
				g.kick()
			case "policies":
				g.policies(rapid.Uint32Range(0, 3).Draw(rt, "priority"), time.Duration(rapid.IntRange(0, 5).Draw(rt, "quantum"))*ms, 0)
			case "migrate":
				migrate(rapid.Bool().Draw(rt, "reset"))
			case "sleep":
				h.store(abi.RegPower, uint32(abi.PowerD3Hot))
				h.run(5 * ms)
				h.store(abi.RegPower, uint32(abi.PowerD0))
			case "time":
				h.run(time.Duration(rapid.IntRange(1, 20_000).Draw(rt, "elapse")) * time.Microsecond)
			}
			collect()
		}
		h.run(time.Second)
		for _, g := range contexts {
			asked++
			g.enable()
			g.kick()
		}
		h.run(10 * time.Second)
		collect()
		if asked != answered || !h.fw.Idle() {
			rt.Fatalf("%d mode sets, %d answers, idle %t", asked, answered, h.fw.Idle())
		}
		for _, j := range jobs {
			if r := j.report(); !j.done() || r.Status != hw.StatusDone || r.Executed != j.count {
				rt.Fatalf("job %d: %+v", j.id, r)
			}
			h.eng.exactlyOnce(rt, core.JobID(j.id), j.count)
		}
	})
}

// FuzzContext gives the firmware arbitrary bytes as ring, register page,
// descriptor and address space table.
func FuzzContext(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0x18}, uint8(0), uint16(0))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0x7F, 0xFF}, uint8(1), uint16(0x14))
	f.Add([]byte{1}, uint8(2), uint16(0xB8))
	f.Add([]byte{0xFF, 0xFF}, uint8(3), uint16(0x18))
	f.Fuzz(func(t *testing.T, b []byte, where uint8, offset uint16) {
		h := newReady(t, func(c *fw.Config) { c.QueueMax = 8 })
		g := h.context(1, 4, 1)
		g.policies(2, ms, ms)
		g.job("run", 5, ms)
		g.job("run", 5, ms)
		table := uint64(g.regs.Load(abi.RegPDP0Lo))
		base := [...]uint64{g.lrc, g.lrc + abi.RegisterOffset, g.system, table}[where%4]
		mem, err := h.arena.Bytes(base+uint64(offset%4096), uint64(min(len(b), 4096)))
		if err != nil {
			t.Fatal(err)
		}
		copy(mem, b)
		other := h.context(2, 4, 1)
		fine := other.job("run", 5, ms)
		g.enable()
		other.enable()
		h.run(30 * ms)
		g.disable()
		h.run(time.Second)
		if h.fw.Dead() || !fine.done() {
			t.Errorf("dead %t, the other context done %t", h.fw.Dead(), fine.done())
		}
	})
}
