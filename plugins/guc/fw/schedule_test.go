package fw_test

import (
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

const ms = time.Millisecond

func TestJobCompletesThroughMemory(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	first, second := g.job("run", 100, 2*ms), g.job("run", 3, ms)
	g.enable()
	h.want(modeDone(1, 1))
	for len(h.ports.Interrupt.C()) > 0 {
		<-h.ports.Interrupt.C()
	}
	h.run(70 * ms)
	if !first.begun() || first.done() || second.begun() {
		t.Fatalf("after 70 ms: begun %t done %t next begun %t", first.begun(), first.done(), second.begun())
	}
	// The last sample is that of 50 ms.
	if r := first.report(); r.Status != hw.StatusRunning || r.Done != 25 || r.Executed != 25 || r.ExecutedTime != 50*ms {
		t.Errorf("sample %+v", r)
	}
	if len(h.ports.Interrupt.C()) != 0 {
		t.Error("an interrupt before the end")
	}
	h.run(130*ms - time.Microsecond)
	if first.done() {
		t.Error("done before its time")
	}
	h.run(time.Microsecond)
	if !first.done() || second.done() || len(h.ports.Interrupt.C()) != 1 {
		t.Errorf("after 200 ms: done %t, next %t, interrupts %d", first.done(), second.done(), len(h.ports.Interrupt.C()))
	}
	if r := first.report(); r.Status != hw.StatusDone || r.Done != 100 || r.Executed != 100 || r.ExecutedTime != 200*ms {
		t.Errorf("report %+v", r)
	}
	stamp, _ := h.arena.Load32(g.lrc + abi.PPHWSPOffset + abi.PPHWSPJobTimestamp)
	if stamp != 200_000 {
		t.Errorf("stamp of the second job %d µs", stamp)
	}
	h.run(3 * ms)
	if !second.done() || g.regs.Load(abi.RegRingHead) != g.tail || !h.fw.Idle() {
		t.Errorf("second done %t, head %#x, tail %#x", second.done(), g.regs.Load(abi.RegRingHead), g.tail)
	}
	if got := g.regs.Load(abi.RegTimestampLo); got != 203_000 {
		t.Errorf("timestamp %d µs", got)
	}
	h.run(time.Second) // The timestamp stands while nothing runs.
	if got := g.regs.Load(abi.RegTimestampLo); got != 203_000 {
		t.Errorf("timestamp %d µs while idle", got)
	}
	if d, ok := h.fw.RunTime(1); !ok || d != 203*ms {
		t.Errorf("run time %v %t", d, ok)
	}
	h.want()
	work := h.eng.starts()[0]
	if work.Job != core.JobID(first.id) || work.Epoch != 1 || work.First != 0 || work.Count != 100 || work.Entry != "run" ||
		string(work.Kernel.Code) != string(kernel) || len(work.Segments) != 1 || work.Segments[0].Address != bufferVA ||
		work.Segments[0].Offset != int64(g.buffer) || work.Segments[0].File != h.arena.Fd() || !work.Args[1].Buffer {
		t.Errorf("dispatch %+v", work)
	}
	h.eng.exactlyOnce(t, core.JobID(first.id), 100)
}

func TestRunningContextTakesNewWork(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	g.job("run", 10, ms)
	g.enable()
	h.run(5 * ms)
	late := g.job("run", 10, ms)
	g.kick()
	h.run(15 * ms)
	if !late.done() || h.fw.Counters().SwitchIns != 1 {
		t.Errorf("done %t, counters %+v", late.done(), h.fw.Counters())
	}
	// The ring goes round many times; the seqno wraps from −127.
	for range 1500 {
		late = g.job("run", 1, ms)
		g.jobs = 0
		g.kick()
		h.run(ms)
		if !late.done() {
			t.Fatalf("seqno %#x not reached", late.seqno)
		}
	}
}

func TestQuantumRotation(t *testing.T) {
	h := newReady(t, nil)
	var jobs []*gpuJob
	for id := range uint32(3) {
		g := h.context(id, 4, 1)
		g.policies(2, 10*ms, 640*ms)
		jobs = append(jobs, g.job("run", 60, ms))
		g.enable()
	}
	h.run(95 * ms)
	for i, j := range jobs {
		if j.done() || j.report().Done < 20 {
			t.Errorf("after 95 ms job %d: %+v", i, j.report())
		}
	}
	h.run(85 * ms)
	for i, j := range jobs {
		if !j.done() || j.report().ExecutedTime != 60*ms {
			t.Errorf("after 180 ms job %d: %+v", i, j.report())
		}
		h.eng.exactlyOnce(t, core.JobID(j.id), 60)
	}
	if c := h.fw.Counters(); c.QuantumExpiries < 15 || c.Preemptions != c.QuantumExpiries {
		t.Errorf("counters %+v", c)
	}
	order := []uint64{}
	for _, d := range h.eng.starts()[:6] {
		order = append(order, uint64(d.Job))
	}
	if !slices.Equal(order, []uint64{1, 2, 3, 1, 2, 3}) {
		t.Errorf("order %v", order)
	}
}

func TestQuantumAloneMeansNothing(t *testing.T) {
	h := newReady(t, nil)
	weak, g := h.context(1, 4, 1), h.context(2, 4, 1)
	weak.policies(3, ms, 640*ms)
	g.policies(2, ms, 640*ms)
	g.job("run", 50, ms)
	weak.job("run", 5, ms)
	g.enable()
	weak.enable() // A weaker one waiting changes nothing.
	h.run(50 * ms)
	if c := h.fw.Counters(); c.QuantumExpiries != 0 || c.Preemptions != 0 {
		t.Errorf("counters %+v", c)
	}
	h.fast(abi.UpdateContextPolicies{ID: 2, Policies: []abi.KLV{abi.Word(abi.KLVPreemptToIdle, 1)}})
	g.job("run", 50, ms)
	g.kick()
	h.run(20 * ms)
	if c := h.fw.Counters(); c.QuantumExpiries == 0 {
		t.Errorf("preempt to idle: counters %+v", c)
	}
}

func TestQuantumFloorAndZero(t *testing.T) {
	for _, c := range []struct {
		quantum, floor time.Duration
		want           uint64
	}{{ms, 25 * ms, 3}, {0, 10 * ms, 0}, {30 * ms, 10 * ms, 3}, {ms, 0, 99}} {
		h := newReady(t, func(cfg *fw.Config) { cfg.QuantumMin = c.floor })
		for id := range uint32(2) {
			g := h.context(id, 4, 1)
			g.policies(2, c.quantum, 0)
			g.job("run", 50, ms)
			g.enable()
		}
		h.run(time.Second)
		if n := h.fw.Counters().QuantumExpiries; n > c.want || n+1 < c.want {
			t.Errorf("quantum %v floor %v: %d expiries, want %d", c.quantum, c.floor, n, c.want)
		}
	}
}

func TestStrongerArrivalPreempts(t *testing.T) {
	h := newReady(t, nil)
	weak, other, strong := h.context(1, 4, 1), h.context(2, 4, 1), h.context(3, 4, 1)
	weak.policies(3, 0, 640*ms)
	other.policies(3, 0, 640*ms)
	strong.policies(1, 0, 640*ms)
	long, waiting := weak.job("run", 10, 10*ms), other.job("run", 1, ms)
	weak.enable()
	other.enable()
	h.run(15 * ms)
	short := strong.job("run", 5, ms)
	strong.enable()
	h.run(4 * ms)
	if short.begun() {
		t.Error("switched in the middle of a workgroup")
	}
	h.run(ms)
	if r := long.report(); r.Status != hw.StatusPreempted || r.Done != 2 || r.ExecutedTime != 20*ms || !short.begun() {
		t.Errorf("at the boundary: %+v, stronger begun %t", r, short.begun())
	}
	if head := weak.regs.Load(abi.RegRingHead); head != long.start+4*abi.BatchDword {
		t.Errorf("ring head %#x, the batch is at %#x", head, long.start+4*abi.BatchDword)
	}
	h.run(5 * ms)
	// The preempted one goes on before the one that waited behind it.
	if id, ok := h.fw.Running(abi.ClassCompute, 0); !ok || id != 1 {
		t.Errorf("context %d runs", id)
	}
	h.run(80 * ms)
	if !long.done() || waiting.done() {
		t.Errorf("done %t, waiting done %t", long.done(), waiting.done())
	}
	h.run(ms)
	if !waiting.done() {
		t.Error("the last one did not run")
	}
	starts := h.eng.starts()
	if len(starts) != 4 || starts[2].First != 2 || starts[2].Count != 8 {
		t.Errorf("dispatches %+v", starts)
	}
	h.eng.exactlyOnce(t, core.JobID(long.id), 10)
}

func TestPriorityChangeOfAWaitingContext(t *testing.T) {
	h := newReady(t, nil)
	a, b, c := h.context(1, 4, 1), h.context(2, 4, 1), h.context(3, 4, 1)
	for _, g := range []*gpuContext{a, b, c} {
		g.policies(3, 0, 0)
		g.job("run", 1, 10*ms)
		g.enable()
	}
	h.run(ms)
	c.policies(2, 0, 0) // Overtakes b and, being stronger, preempts a at its boundary.
	h.run(9 * ms)
	if id, _ := h.fw.Running(abi.ClassCompute, 0); id != 3 {
		t.Errorf("context %d runs", id)
	}
}

func TestHeadOfLineBlocking(t *testing.T) {
	for _, blocking := range []bool{true, false} {
		h := newReady(t, func(c *fw.Config) {
			c.Classes = map[abi.EngineClass]int{abi.ClassCompute: 2}
			c.NoHeadOfLineBlocking = !blocking
		})
		a, b, c := h.context(1, 4, 1), h.context(2, 4, 1), h.context(3, 4, 2)
		for _, g := range []*gpuContext{a, b, c} {
			g.policies(2, 0, 0)
			g.job("run", 1, 10*ms)
			g.enable()
		}
		if id, ok := h.fw.Running(abi.ClassCompute, 1); ok == blocking || ok && id != 3 {
			t.Errorf("blocking %t: engine 1 runs %d %t", blocking, id, ok)
		}
		h.run(10 * ms)
		if id, ok := h.fw.Running(abi.ClassCompute, 1); blocking && (!ok || id != 3) {
			t.Errorf("engine 1 runs %d %t after the head was placed", id, ok)
		}
	}
}

func TestContextsMoveBetweenInstances(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.Classes = map[abi.EngineClass]int{abi.ClassCompute: 2, abi.ClassBlitter: 1} })
	var jobs []*gpuJob
	for id := range uint32(3) {
		g := h.context(id, 4, 3)
		g.policies(2, 5*ms, 640*ms)
		jobs = append(jobs, g.job("run", 40, ms))
		g.enable()
	}
	blit := h.context(9, 3, 1)
	copyJob := blit.job("run", 1, ms)
	blit.enable()
	h.run(59 * ms)
	if !copyJob.done() {
		t.Error("another class waited")
	}
	if jobs[0].done() && jobs[1].done() && jobs[2].done() {
		t.Error("three jobs of 40 ms on two engines before 60 ms")
	}
	h.run(10 * ms)
	for i, j := range jobs {
		if !j.done() {
			t.Errorf("job %d not done: %+v", i, j.report())
		}
		h.eng.exactlyOnce(t, core.JobID(j.id), 40)
	}
}

func TestDisableOfARunningContext(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	j := g.job("run", 10, 10*ms)
	g.enable()
	h.want(modeDone(1, 1))
	h.run(25 * ms)
	g.disable()
	g.disable()
	g.enable()
	h.want(failed(0x90))
	h.fast(abi.DeregisterContext{ID: 1})
	h.want(failed(0x0A))
	h.run(4 * ms)
	h.want()
	h.run(ms)
	h.want(modeDone(1, 0), modeDone(1, 0))
	if r := j.report(); r.Status != hw.StatusPreempted || r.Done != 3 {
		t.Errorf("report %+v", r)
	}
	h.run(time.Second)
	if j.report().Done != 3 || !h.fw.Idle() {
		t.Error("a disabled context goes on")
	}
	g.enable()
	h.run(70 * ms)
	h.want(modeDone(1, 1))
	if !j.done() || j.report().Executed != 10 || j.report().ExecutedTime != 100*ms {
		t.Errorf("report %+v", j.report())
	}
	h.eng.exactlyOnce(t, core.JobID(j.id), 10)
	waiting := h.context(2, 4, 1)
	waiting.job("run", 1, ms)
	g.job("run", 1, ms)
	g.kick()
	waiting.enable()
	waiting.disable() // Queued only: off at once.
	h.want(modeDone(2, 1), modeDone(2, 0))
}

func TestDisableAtTheLastWorkgroupCompletesTheJob(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	j, next := g.job("run", 2, 10*ms), g.job("run", 2, 10*ms)
	g.enable()
	h.run(15 * ms)
	g.disable()
	h.run(5 * ms)
	h.want(modeDone(1, 1), modeDone(1, 0))
	if !j.done() || next.begun() {
		t.Errorf("seqno written %t, next begun %t", j.done(), next.begun())
	}
}

func TestArbitrationOffHoldsOffPreemption(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	g.policies(2, 0, 0)
	g.emit(abi.Command{Op: abi.OpArbOnOff}.Append(nil)...)
	g.emit(abi.Command{Op: abi.OpNoop}.Append(nil)...)
	j, next := g.job("run", 5, 10*ms), g.job("run", 5, 10*ms)
	g.enable()
	h.run(ms)
	g.disable()
	h.run(48 * ms)
	h.want(modeDone(1, 1))
	h.run(ms)
	h.want(modeDone(1, 0))
	if !j.done() || next.begun() {
		t.Errorf("done %t, next begun %t", j.done(), next.begun())
	}
}

func TestSkippedAndFinishedDispatches(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	skipped := g.job("run", 5, ms)
	for i := range uint32(abi.BatchDwords) {
		g.ring.Store(skipped.start/4+abi.BatchDword+i, 0)
	}
	finished := g.job("run", 5, ms)
	if err := hw.WriteReport(h.arena, finished.at, hw.Report{Status: hw.StatusDone, Done: 5, Executed: 5}); err != nil {
		t.Fatal(err)
	}
	half := g.job("run", 5, ms)
	if err := hw.WriteReport(h.arena, half.at, hw.Report{Status: hw.StatusPreempted, Done: 3, Executed: 4, ExecutedTime: ms}); err != nil {
		t.Fatal(err)
	}
	g.enable()
	h.run(2 * ms)
	if !half.done() || len(h.eng.starts()) != 1 || h.eng.starts()[0].First != 3 {
		t.Errorf("done %t, dispatches %+v", half.done(), h.eng.starts())
	}
	if r := half.report(); r.Done != 5 || r.Executed != 6 || r.ExecutedTime != 3*ms {
		t.Errorf("report %+v", r)
	}
}

func TestDeviceAddressesWithoutAnAddressSpace(t *testing.T) {
	h := newReady(t, nil)
	g := h.image(1)
	h.fast(abi.RegisterContext{Flags: 1, ID: 1, Class: 4, SubmitMask: 1, LRCDescriptor: abi.LRCDescriptor{LRC: g.lrc}.Encode()})
	j := g.job("run", 5, ms)
	d := hw.Dispatch{KernelAddress: kernelAt, KernelSize: uint64(len(kernel)), Digest: core.DigestOf(kernel), Format: "script", Entry: "run",
		Grid: [3]uint32{5, 1, 1}, Group: [3]uint32{1, 1, 1}, Count: 5, Job: 1}
	b, _ := h.arena.Bytes(j.at, hw.DispatchSize)
	if err := d.Encode(b); err != nil {
		t.Fatal(err)
	}
	for i, dw := range (abi.Command{Op: abi.OpBatchStart, Address: j.at}).Append(nil) {
		g.ring.Store(j.start/4+abi.BatchDword+uint32(i), dw)
	}
	g.enable()
	h.run(5 * ms)
	if !j.done() || len(h.eng.starts()) != 1 {
		t.Errorf("report %+v", j.report())
	}
}

func TestAddressSpaceIsForgotten(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	g.job("run", 1, ms)
	g.enable()
	h.run(ms)
	g.job("run", 1, ms)
	g.kick()
	h.run(ms)
	starts := h.eng.starts()
	if starts[0].Space == 0 || starts[0].Space != starts[1].Space {
		t.Fatalf("spaces %d and %d of one context", starts[0].Space, starts[1].Space)
	}
	// The host maps another buffer: a new space for the engine.
	table := uint64(g.regs.Load(abi.RegPDP0Lo))
	space, err := hw.ReadSpace(h.arena, table)
	if err != nil {
		t.Fatal(err)
	}
	if err := hw.WriteSpace(h.arena, table, append(space, hw.Mapping{Address: 0x2_0000_0000, Device: h.alloc(hw.Granule), Size: hw.Granule})); err != nil {
		t.Fatal(err)
	}
	g.job("run", 1, ms)
	g.kick()
	h.run(ms)
	if s := h.eng.starts()[2]; s.Space == starts[0].Space || len(s.Segments) != 2 {
		t.Errorf("space %d with %d segments", s.Space, len(s.Segments))
	}
	g.disable()
	h.fast(abi.DeregisterContext{ID: 1})
	if !slices.Equal(h.eng.mu.forgot, []uint64{starts[0].Space, starts[0].Space + 1}) {
		t.Errorf("forgot %v", h.eng.mu.forgot)
	}
	again := h.context(1, 4, 1)
	again.job("run", 1, ms)
	again.enable()
	if s := h.eng.starts()[3].Space; s <= starts[0].Space+1 {
		t.Errorf("space %d used again", s)
	}
}

func TestManyContexts(t *testing.T) {
	h := newReady(t, nil)
	var jobs []*gpuJob
	for id := range uint32(60) {
		g := h.context(id*1000, 4, 1)
		g.policies(id%4, 3*ms, 640*ms)
		jobs = append(jobs, g.job("run", 5, ms))
		g.enable()
		if got := h.received(); len(got) != 1 {
			t.Fatalf("%08x", got)
		}
	}
	h.run(300 * ms)
	for i, j := range jobs {
		if !j.done() {
			t.Errorf("job %d: %+v", i, j.report())
		}
		h.eng.exactlyOnce(t, core.JobID(j.id), 5)
	}
}
