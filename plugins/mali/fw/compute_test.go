package fw_test

import (
	"time"

	"testing"

	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

func TestJobRuns(t *testing.T) {
	h := newReady(t, "", nil)
	v := h.vm(1)
	g := h.group(v, 0, 1)
	g.start()
	c := v.kernel("workgroup=1ms", 10)
	q := g.queues[0]
	q.job(c.instructions()...)
	h.run(5 * ms)
	if q.seqno() != 0 || q.extract() != 8*8 {
		t.Errorf("seqno %d, extract %#x while the job runs", q.seqno(), q.extract())
	}
	h.run(6 * ms)
	if r := c.report(); q.seqno() != 1 || !q.done() || r.Status != hw.StatusDone || r.Done != 10 || r.ExecutedTime != 10*ms {
		t.Errorf("seqno %d, extract %#x, report %+v\n%s", q.seqno(), q.extract(), r, h.lines())
	}
	v.output(10)
	if h.get(v.at(q.sync)+abi.Sync64Status) != 0 {
		t.Error("the sync object says that it failed")
	}
	if h.get(g.out()+abi.GroupAck)&abi.GroupSyncUpdate == 0 || h.reg(abi.RegJobIntStat)&1 == 0 {
		t.Errorf("nobody was told: ack %#x", h.get(g.out()+abi.GroupAck))
	}
	if v := h.fw.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

// change rewrites a dispatch descriptor.
func (c *compute) change(do func(*hw.Dispatch)) {
	b, _ := c.v.h.arena.Bytes(c.at, hw.DispatchSize)
	d, err := hw.DecodeDispatch(b)
	if err != nil {
		c.v.h.Fatal(err)
	}
	do(&d)
	if err := d.Encode(b); err != nil {
		c.v.h.Fatal(err)
	}
	c.count = d.Count
}

func TestDescriptorAndRegistersMustFit(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*compute, []abi.Instruction)
		works  bool
	}{
		"all":       {func(*compute, []abi.Instruction) {}, true},
		"size":      {func(_ *compute, is []abi.Instruction) { is[4].Imm = 11 }, false},
		"offset":    {func(_ *compute, is []abi.Instruction) { is[3].Imm = 1 }, false},
		"workgroup": {func(_ *compute, is []abi.Instruction) { is[2].Imm++ }, false},
		"merging":   {func(_ *compute, is []abi.Instruction) { is[2].Imm |= 1 << 31 }, true},
		"reserved":  {func(_ *compute, is []abi.Instruction) { is[2].Imm |= 1 << 30 }, false},
		"increment": {func(_ *compute, is []abi.Instruction) { is[9].Increment = 0 }, false},
		"axis":      {func(_ *compute, is []abi.Instruction) { is[9].Axis = 3 }, false},
		"part":      {func(c *compute, _ []abi.Instruction) { c.change(func(d *hw.Dispatch) { d.First, d.Count = 4, 3 }) }, true},
		"box": {func(c *compute, is []abi.Instruction) {
			is[3].Imm, is[4].Imm = 4, 3
			c.change(func(d *hw.Dispatch) { d.First, d.Count = 4, 3 })
		}, true},
		"box too wide": {func(_ *compute, is []abi.Instruction) { is[3].Imm, is[4].Imm = 8, 3 }, false},
		"bad magic":    {func(c *compute, _ []abi.Instruction) { c.v.h.put(c.at, 1) }, false},
		"bad stage":    {func(c *compute, _ []abi.Instruction) { c.v.h.put(c.v.at(c.spd), 0x28) }, false},
		"done already": {func(c *compute, _ []abi.Instruction) {
			_ = hw.WriteReport(c.v.h.arena, c.at, hw.Report{Status: hw.StatusDone, Done: 10})
		}, true},
	} {
		h, g := one(t, 1, "", nil)
		k := g.kernel("", 10)
		is := k.instructions()
		c.change(k, is)
		q := g.queues[0]
		q.job(is...)
		h.run(20 * ms)
		e, fault := q.fault(abi.StreamFaultEvent)
		if fault == c.works || fault && e != abi.ExceptionDataInvalid || (q.seqno() == 1) != c.works {
			t.Errorf("%s: %s %t, seqno %d", name, e, fault, q.seqno())
		}
		if r := k.report(); name != "bad magic" && name != "bad stage" && (r.Status == hw.StatusFault) == c.works {
			t.Errorf("%s: report %+v", name, r)
		}
		if name == "part" || name == "box" {
			v := make([]byte, hw.Granule)
			testengine.Apply(v, 4, 3)
			have, _ := h.arena.Bytes(g.buffer, hw.Granule)
			if string(v) != string(have) {
				t.Errorf("%s: other workgroups ran", name)
			}
		}
	}
}

func TestKernelFaults(t *testing.T) {
	for script, want := range map[string]abi.Exception{"trap at 3": abi.ExceptionImprecise, "nonsense": abi.ExceptionInvalidEncoding} {
		h, g := one(t, 1, "", nil)
		k := g.kernel(script, 10)
		q := g.queues[0]
		q.job(k.instructions()...)
		other := g.kernel("", 2)
		q.job(other.instructions()...)
		h.run(20 * ms)
		e, fault := q.fault(abi.StreamFaultEvent)
		if r := k.report(); !fault || e != want || r.Status != hw.StatusFault || r.Detail == "" || r.Done > 3 {
			t.Errorf("%s: %s %t, report %+v", script, e, fault, r)
		}
		if q.seqno() != 0 || q.extract() != 8*8 {
			t.Errorf("%s: went on before the host acknowledged: %#x", script, q.extract())
		}
		q.acknowledge()
		h.step()
		h.run(20 * ms)
		if q.seqno() != 2 || other.report().Status != hw.StatusDone {
			t.Errorf("%s: the next job does not run", script)
		}
	}
}

func TestDigestAndArguments(t *testing.T) {
	for name, change := range map[string]func(*compute){
		"digest": func(c *compute) { c.change(func(d *hw.Dispatch) { d.Digest[0]++ }) },
		"kernel": func(c *compute) { c.change(func(d *hw.Dispatch) { d.KernelAddress = 0x1234_0000 }) },
		"args":   func(c *compute) { c.change(func(d *hw.Dispatch) { d.ArgsAddress = 0x1234_0000 }) },
		"buffer": func(c *compute) {
			c.change(func(d *hw.Dispatch) { c.v.h.put64(c.v.at(d.ArgsAddress)+8, systemVA) }) // Private.
		},
	} {
		h, g := one(t, 1, "", nil)
		k := g.kernel("", 10)
		change(k)
		q := g.queues[0]
		q.job(k.instructions()...)
		h.run(20 * ms)
		e, fault := q.fault(abi.StreamFaultEvent)
		if want := name != "digest"; !fault || e.MMU() != want || k.report().Status != hw.StatusFault {
			t.Errorf("%s: %s %t, %+v", name, e, fault, k.report())
		}
	}
}

// two makes a device with two groups of one queue that run, group 0 the stronger.
func two(t *testing.T, plan string, change func(*fw.Config)) (*host, *group, *group) {
	t.Helper()
	h := newReady(t, plan, change)
	a, b := h.group(h.vm(1), 0, 1), h.group(h.vm(2), 1, 1)
	a.start()
	b.start()
	return h, a, b
}

func TestStrongerGroupPreempts(t *testing.T) {
	h, a, b := two(t, "", nil)
	low, high := b.kernel("", 10), a.kernel("", 10)
	b.queues[0].job(low.instructions()...)
	h.run(2500 * us)
	a.queues[0].job(high.instructions()...)
	h.run(ms)
	if r := low.report(); r.Status != hw.StatusPreempted || r.Done != 3 || high.report().Status != hw.StatusRunning {
		t.Errorf("low %+v, high %+v", r, high.report())
	}
	h.run(10 * ms)
	if high.report().Status != hw.StatusDone || low.report().Status != hw.StatusRunning {
		t.Error("not one after the other")
	}
	h.run(8 * ms)
	if r := low.report(); r.Status != hw.StatusDone || r.Executed != 10 {
		t.Errorf("low %+v", r)
	}
	a.output(10)
	b.output(10)
	if h.fw.Counters().Preemptions != 1 {
		t.Error("preemptions")
	}
}

func TestPriorityChangesWithEndpoints(t *testing.T) {
	h, a, b := two(t, "", nil)
	x, y := a.kernel("", 100), b.kernel("", 100)
	a.queues[0].job(x.instructions()...)
	b.queues[0].job(y.instructions()...)
	h.run(3500 * us)
	b.endpoints.Priority, a.endpoints.Priority = 15, 3
	for _, g := range []*group{a, b} {
		h.put(g.in()+abi.GroupEndpointReq, g.endpoints.Encode())
		g.request(abi.GroupStart, abi.GroupEndpointCfg)
	}
	h.run(2 * ms)
	if x.report().Status != hw.StatusPreempted || y.report().Status != hw.StatusRunning {
		t.Errorf("%+v, %+v", x.report(), y.report())
	}
}

func TestGroupsSideBySide(t *testing.T) {
	for _, c := range []struct {
		executions int
		cores      uint8
		both       bool
	}{{1, 2, false}, {2, 4, false}, {2, 2, true}} {
		h := newReady(t, "", func(cfg *fw.Config) { cfg.Executions = c.executions })
		a, b := h.group(h.vm(1), 0, 1), h.group(h.vm(2), 1, 1)
		a.endpoints.Compute, b.endpoints.Compute = c.cores, c.cores
		a.start()
		b.start()
		x, y := a.kernel("", 20), b.kernel("", 20)
		a.queues[0].job(x.instructions()...)
		b.queues[0].job(y.instructions()...)
		h.run(5 * ms)
		if x.report().Status != hw.StatusRunning || (y.report().Status == hw.StatusRunning) != c.both {
			t.Errorf("%+v: %s, %s", c, x.report().Status, y.report().Status)
		}
		a.request(abi.GroupStart, abi.GroupStatusUpdate)
		if e := abi.DecodeEndpoints(h.get(a.out() + abi.GroupEndpointCurrent)); e.Compute != c.cores {
			t.Errorf("%+v: has %d endpoints", c, e.Compute)
		}
		h.run(40 * ms)
		a.output(20)
		b.output(20)
	}
}

func TestFewTasksLeaveEndpoints(t *testing.T) {
	h := newReady(t, "", func(cfg *fw.Config) { cfg.Executions = 2 })
	a, b := h.group(h.vm(1), 0, 1), h.group(h.vm(2), 1, 1)
	a.start()
	b.start()
	x, y := a.kernel("", 6), b.kernel("", 6)
	is := x.instructions()
	is[9].Increment = 3 // Two tasks: two of the four endpoints.
	a.queues[0].job(is...)
	b.queues[0].job(y.instructions()...)
	h.run(ms)
	if x.report().Status != hw.StatusRunning || y.report().Status != hw.StatusRunning {
		t.Errorf("%s, %s", x.report().Status, y.report().Status)
	}
}

func TestEqualStreamsTakeTurns(t *testing.T) {
	h, g := one(t, 3, "", nil)
	strong := g.queues[2]
	x, y := g.kernel("", 100), g.kernel("", 100)
	g.queues[0].job(x.instructions()...)
	g.queues[1].job(y.instructions()...)
	h.run(50 * ms)
	if a, b := x.report().Done, y.report().Done; a < 15 || b < 15 {
		t.Errorf("%d and %d of 50", a, b)
	}
	_ = strong
	h.run(170 * ms)
	g.output(100, 100)
}

func TestStreamPriority(t *testing.T) {
	h := newReady(t, "", nil)
	g := h.group(h.vm(1), 0, 2)
	g.queues[1].priority = 5
	g.start()
	x, y := g.kernel("", 100), g.kernel("", 100)
	g.queues[0].job(x.instructions()...)
	h.run(5 * ms)
	g.queues[1].job(y.instructions()...)
	h.run(60 * ms) // The report is a sample of every 50 ms.
	if x.report().Status != hw.StatusPreempted || y.report().Done < 45 {
		t.Errorf("%+v, %+v", x.report(), y.report())
	}
}

func TestResources(t *testing.T) {
	for name, change := range map[string]func(*host, *group){
		"endpoints": func(_ *host, g *group) { g.endpoints.Compute = 0 },
		"cores":     func(h *host, _ *group) { h.cores(0) },
		"allowed":   nil,
	} {
		h := newReady(t, "", nil)
		g := h.group(h.vm(1), 0, 1)
		if change != nil {
			change(h, g)
		}
		g.start()
		q := g.queues[0]
		q.job(abi.Instruction{Op: abi.OpReqResource, Resources: abi.ResourceCompute | abi.ResourceTiler})
		h.run(ms)
		if e, fatal := q.fault(abi.StreamFatalEvent); fatal == (change == nil) || fatal && e != abi.ExceptionEndpoint {
			t.Errorf("%s: %s %t", name, e, fatal)
		}
	}
}

// cores gives the firmware another mask of cores.
func (h *host) cores(mask uint64) {
	in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
	h.put64(in+abi.GlobalAllocEnable, mask)
	h.put(in+abi.GlobalReq, abi.Toggle(h.get(in+abi.GlobalReq), h.get(out+abi.GlobalAck), abi.GlobalCfgAllocEnable))
	h.ring(0)
}

func TestExclusiveEndpoints(t *testing.T) {
	h := newReady(t, "", nil)
	a, b := h.group(h.vm(1), 0, 1), h.group(h.vm(2), 1, 1)
	a.endpoints.ExclusiveCompute = true
	a.start()
	b.start()
	a.queues[0].job(abi.Instruction{Op: abi.OpReqResource, Resources: abi.ResourceCompute})
	h.run(ms)
	k := b.kernel("", 3)
	b.queues[0].job(k.instructions()...)
	h.run(10 * ms)
	b.request(abi.GroupStart, abi.GroupStatusUpdate)
	if r := abi.BlockedReason(h.get(b.queues[0].blockOut() + abi.StreamBlockedReason)); r != abi.BlockedResource || k.report().Status != hw.StatusIdle {
		t.Errorf("%s, %s", r, k.report().Status)
	}
	a.leave(abi.GroupSuspend, ms)
	h.run(10 * ms)
	if k.report().Status != hw.StatusDone {
		t.Errorf("still waits: %s\n%s", k.report().Status, h.lines())
	}
}

func TestProgressTimer(t *testing.T) {
	for _, c := range []struct {
		script string
		min    time.Duration
		told   bool
	}{{"hang at 3", 0, true}, {"hang at 3", 20 * time.Second, false}, {"workgroup=4s", 0, false}} {
		h, g := one(t, 1, "", func(cfg *fw.Config) { cfg.ProgressMin = c.min })
		q := g.queues[0]
		q.job(g.kernel(c.script, 10).instructions()...)
		h.run(9 * time.Second)
		if told := (h.get(g.in()+abi.GroupReq)^h.get(g.out()+abi.GroupAck))&abi.GroupProgressEvent != 0; told != c.told {
			t.Errorf("%+v: told %t", c, told)
		}
		g.leave(abi.GroupTerminate, ms)
		if h.fw.Counters().ProgressEvents > 1 || !h.fw.Idle() {
			t.Errorf("%+v: %+v", c, h.fw.Counters())
		}
	}
}

func TestFourDispatchesCanBeIssued(t *testing.T) {
	h, g := one(t, 1, "", nil)
	var is []abi.Instruction
	for range 6 {
		is = append(is, g.kernel("", 2).instructions()...)
	}
	g.queues[0].job(is...)
	h.run(ms)
	g.request(abi.GroupStart, abi.GroupStatusUpdate)
	if r := abi.BlockedReason(h.get(g.queues[0].blockOut() + abi.StreamBlockedReason)); r != abi.BlockedDeferred {
		t.Error(r)
	}
	h.run(15 * ms)
	if g.queues[0].seqno() != 1 || h.fw.Counters().Dispatches != 6 {
		t.Error("not all ran")
	}
	g.output(2, 2, 2, 2, 2, 2)
}
