package fw_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// faulty makes a device with a fault plan, whose CT buffers are up.
func faulty(t testing.TB, plan string) (*host, *hw.Faults) {
	t.Helper()
	p, err := hw.ParsePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	faults, err := fw.NewFaults(p)
	if err != nil {
		t.Fatal(err)
	}
	return newReady(t, func(c *fw.Config) { c.Faults = faults }), faults
}

// brokenG2H expects that the host's reader gives the ring up with this status.
func (h *host) brokenG2H(want abi.Status) {
	h.Helper()
	_, _, ok, err := h.g2h.Receive()
	var w *abi.WireError
	if status, _ := h.arena.Load32(g2hDesc + 8); ok || !errors.As(err, &w) || abi.Status(status)&want != want {
		h.Fatalf("receive %t, %v, status %#x, want %#x", ok, err, status, want)
	}
}

func TestFaultyH2G(t *testing.T) {
	enable := []uint32{0x80010003, 0x20001001, 7, 1}
	for plan, c := range map[string]struct {
		want  [][]uint32 // At once.
		later [][]uint32 // After the delay.
	}{
		"h2g/SCHED_CONTEXT_MODE_SET drop":                {},
		"h2g/SCHED_CONTEXT_MODE_SET id=8 drop":           {want: [][]uint32{modeDone(7, 1)}},
		"h2g/SCHED_CONTEXT_MODE_SET nth=2 drop":          {want: [][]uint32{modeDone(7, 1)}},
		"h2g/SCHED_CONTEXT_MODE_SET delay=5ms":           {later: [][]uint32{modeDone(7, 1)}},
		"h2g/SCHED_CONTEXT_MODE_SET duplicate":           {want: [][]uint32{modeDone(7, 1), modeDone(7, 1)}},
		"h2g/SCHED_CONTEXT_MODE_SET id=7 fail=0x301":     {want: [][]uint32{failed(0x301)}},
		"h2g/SCHED_CONTEXT_MODE_SET retry":               {want: [][]uint32{{0x80010001, 0xD0000000}}},
		"h2g/SCHED_CONTEXT_MODE_SET deaf=5ms":            {want: [][]uint32{modeDone(7, 1)}},
		"h2g/REGISTER_CONTEXT deaf=5ms":                  {later: [][]uint32{modeDone(7, 1)}},
		"h2g/REGISTER_CONTEXT deaf":                      {},
		"h2g/SCHED_CONTEXT_MODE_SET mute":                {},
		"h2g/SCHED_CONTEXT_MODE_SET crash":               {want: [][]uint32{{1, 0x90008004}}},
		"h2g/SCHED_CONTEXT_MODE_SET exception":           {want: [][]uint32{{1, 0x90008005}}},
		"h2g/SCHED_CONTEXT_MODE_SET engine-failure":      {want: [][]uint32{{4, 0x90001009, 4, 0, 1}}},
		"h2g/SCHED_CONTEXT_MODE_SET cat-unknown":         {want: [][]uint32{{2, 0x90006000, 0xFFFFFFFF}, modeDone(7, 1)}},
		"h2g/SCHED_CONTEXT_MODE_SET delay=5ms; g2h drop": {},
	} {
		h, faults := faulty(t, plan)
		h.context(7, 4, 1)
		h.send(enable...)
		h.want(c.want...)
		h.run(5 * ms)
		h.want(c.later...)
		if n := faults.Fired(); n == 0 && len(c.want) == 0 || n != h.fw.Counters().Faults {
			t.Errorf("%s: %d hits, %d counted", plan, n, h.fw.Counters().Faults)
		}
	}
}

func TestDeadByPlanIsMute(t *testing.T) {
	for _, end := range []string{fw.FaultMute, fw.FaultCrash, fw.FaultException, fw.FaultEngineFailure} {
		for _, point := range []string{"h2g/SCHED_CONTEXT", "irq/user", "batch nth=2", "g2h/SCHED_CONTEXT_MODE_DONE nth=2"} {
			h, _ := faulty(t, point+" "+end)
			g, other := h.context(1, 4, 1), h.context(2, 4, 1)
			g.job("run", 5, ms)
			g.enable()
			h.run(5 * ms)
			g.job("run", 5, ms)
			g.kick()
			h.run(5 * ms)
			other.enable()
			h.run(5 * ms)
			h.received()
			if !h.fw.Dead() {
				t.Errorf("%s %s: alive", point, end)
				continue
			}
			other.enable()
			h.run(time.Minute)
			h.want()
			if got := h.mmio(0x5500, 0); got[0] != 0x5500 {
				t.Errorf("%s %s: the mailbox answers %08x", point, end, got)
			}
			// A reload undoes it, and the fault does not come again.
			h.fw.Reload(nil)
			h.step()
			h.bringUp(4096, 8192)
			fresh := h.context(1, 4, 1)
			j := fresh.job("run", 1, ms)
			fresh.enable()
			h.run(ms)
			h.want(modeDone(1, 1))
			if !j.done() {
				t.Errorf("%s %s: nothing runs after a reload", point, end)
			}
		}
	}
}

func TestFaultyG2H(t *testing.T) {
	for plan, want := range map[string][][]uint32{
		"g2h/SCHED_CONTEXT_MODE_DONE drop":      {modeDone(8, 1)},
		"g2h/SCHED_CONTEXT_MODE_DONE id=8 drop": {modeDone(7, 1)},
		"g2h nth=2 duplicate":                   {modeDone(7, 1), modeDone(8, 1), modeDone(8, 1)},
		"g2h delay=5ms":                         {modeDone(8, 1), modeDone(7, 1)},
		"g2h reorder":                           {modeDone(8, 1), modeDone(7, 1)},
		"g2h nth=2 reorder=3ms":                 {modeDone(7, 1), modeDone(8, 1)},
		"g2h length":                            {{4, 0x90001002, 7, 1, 0}, modeDone(8, 1)},
		"g2h id-is=77":                          {modeDone(77, 1), modeDone(8, 1)},
		"g2h state":                             {modeDone(7, 0), modeDone(8, 1)},
		"g2h action=0x1fff":                     {{3, 0x90001FFF, 7, 1}, modeDone(8, 1)},
		"g2h fence=0x7fff":                      {{0x7FFF0003, 0x90001002, 7, 1}, modeDone(8, 1)},
		"g2h origin":                            {{3, 0x10001002, 7, 1}, modeDone(8, 1)},
		"g2h type=4":                            {{3, 0xC0001002, 7, 1}, modeDone(8, 1)},
		"g2h/SUCCESS drop; g2h/FAILURE drop":    {modeDone(7, 1), modeDone(8, 1)},
		"g2h state; g2h id=7 duplicate; g2h id=7 length": {{4, 0x90001002, 7, 0, 0}, {4, 0x90001002, 7, 0, 0}, modeDone(8, 1)},
	} {
		h, _ := faulty(t, plan)
		g, other := h.context(7, 4, 1), h.context(8, 4, 1)
		g.enable()
		other.enable()
		h.run(20 * ms)
		got := h.received()
		if !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: %08x, want %08x", plan, got, want)
		}
		g.disable()
		h.want(modeDone(7, 0))
	}
}

func TestFaultsOutliveASoftReset(t *testing.T) {
	h, _ := faulty(t, "h2g/SCHED_CONTEXT silent=5ms; h2g/SCHED_CONTEXT delay=3ms")
	g := h.context(1, 4, 1)
	g.enable()
	g.kick()
	h.wantMMIO(0xF0000000, 0x5507)
	h.interrupted()
	h.run(5 * ms)
	h.want(modeDone(1, 1), failed(0x100)) // The delayed one, for a context that is gone.
	h.interrupted()
	h.context(1, 4, 1).enable()
	h.want(modeDone(1, 1))
	if !h.interrupted() {
		t.Error("silent for ever")
	}
}

func TestReorderKeepsEachContextInOrder(t *testing.T) {
	h, _ := faulty(t, "g2h id=7 reorder=1s")
	g, other := h.context(7, 4, 1), h.context(8, 4, 1)
	g.enable()
	g.disable()
	h.want()
	other.enable()
	h.want(modeDone(8, 1), modeDone(7, 1), modeDone(7, 0))
	h, _ = faulty(t, "g2h id=7 reorder=1s")
	h.context(7, 4, 1).enable()
	h.run(time.Second)
	h.want(modeDone(7, 1)) // Nobody came by.
}

func TestFaultyRings(t *testing.T) {
	for plan, status := range map[string]abi.Status{
		"g2h header": abi.StatusUnderflow, "g2h truncate": abi.StatusUnderflow,
		"g2h status=1": abi.StatusOverflow, "g2h status=2": abi.StatusUnderflow, "g2h status=4": abi.StatusMismatch,
	} {
		h, _ := faulty(t, plan)
		h.context(7, 4, 1).enable()
		h.brokenG2H(status)
	}
	h, _ := faulty(t, "g2h pointer=0xffffffff")
	h.context(7, 4, 1).enable()
	h.brokenG2H(abi.StatusOverflow)
	h, _ = faulty(t, "h2g/SCHED_CONTEXT_MODE_SET pointer=0x10000")
	h.context(7, 4, 1).enable()
	if status, _ := h.arena.Load32(h2gDesc + 8); status != 0 {
		t.Errorf("status %#x before anybody looked", status)
	}
	if head, _ := h.arena.Load32(h2gDesc); head != 0x10000 {
		t.Errorf("HEAD %#x", head)
	}
	h, _ = faulty(t, "h2g/SCHED_CONTEXT_MODE_SET status=8")
	h.context(7, 4, 1).enable()
	h.want()
	hxg := abi.FastRequest(abi.SchedContext{ID: 7}).Dwords()
	if err := h.h2g.Send(0x8001, hxg); err == nil {
		t.Error("the host may still write")
	}
	if h.fw.Dead() {
		t.Error("a broken ring killed the firmware")
	}
	h.bringUp(4096, 8192) // The mailbox is alive, and so are the contexts.
	h.fast(abi.SchedContext{ID: 7})
	h.want()
}

func TestFaultyReplies(t *testing.T) {
	h, _ := faulty(t, "h2g/UPDATE_SCHEDULING_POLICIES_KLV times=3 retry; h2g/UPDATE_SCHEDULING_POLICIES_KLV nth=4 fail=0xf000; "+
		"g2h/SUCCESS delay=5ms; g2h/SUCCESS nth=2 drop")
	ask := func(want ...[]uint32) {
		t.Helper()
		h.send(0x00120004, 0x00000509, 0x10010002, 80, 20)
		h.want(want...)
	}
	ask([]uint32{0x00120001, 0xD0000000})
	ask([]uint32{0x00120001, 0xD0000000})
	ask([]uint32{0x00120001, 0xD0000000})
	ask([]uint32{0x00120001, 0xE000F000})
	ask()
	h.run(5 * ms)
	h.want([]uint32{0x00120001, 0xF0000001}) // Late.
	ask()                                    // Never.
	h.run(time.Minute)
	h.want()
	ask([]uint32{0x00120001, 0xF0000001})
}

func TestFaultyMailbox(t *testing.T) {
	version := uint32(0x5500)
	for plan, c := range map[string]struct{ now, later uint32 }{
		"mmio/MATCH_VERSION drop":                  {version, version},
		"mmio/MATCH_VERSION delay=5ms":             {version, 0xF0000000},
		"mmio/MATCH_VERSION busy=5ms":              {0xB0000000, 0xF0000000},
		"mmio/MATCH_VERSION fail=0x107":            {0xE0000107, 0xE0000107},
		"mmio/MATCH_VERSION retry":                 {0xD0000000, 0xD0000000},
		"mmio/MATCH_VERSION wipe":                  {0, 0},
		"mmio/MATCH_VERSION type=4":                {0xC0000000, 0xC0000000},
		"mmio/MATCH_VERSION mute":                  {version, version},
		"mmio/CLIENT_SOFT_RESET fail=1":            {0xF0000000, 0xF0000000},
		"irq/mailbox drop; mmio nth=1 cat-unknown": {0xF0000000, 0xF0000000},
	} {
		h, _ := faulty(t, plan)
		if got := h.mmio(version, 0); got[0] != c.now {
			t.Errorf("%s: %08x, want %08x", plan, got[0], c.now)
		}
		h.run(5 * ms)
		if got := h.box(); got[0] != c.later {
			t.Errorf("%s: later %08x, want %08x", plan, got[0], c.later)
		}
	}
}

// interrupted reports whether the interrupt was raised since the last look.
func (h *host) interrupted() bool {
	select {
	case <-h.ports.Interrupt.C():
		return true
	default:
		return false
	}
}

func TestLostInterrupts(t *testing.T) {
	for plan, want := range map[string][2]bool{
		"":                                {true, true},
		"irq/user id=1 drop":              {false, true},
		"irq/user id=2 drop":              {true, true},
		"irq/message drop":                {true, true},
		"irq/user delay=2ms":              {false, true},
		"irq/user silent":                 {false, false},
		"h2g/SCHED_CONTEXT silent=2500us": {false, true},
	} {
		h, _ := faulty(t, plan)
		g := h.context(1, 4, 1)
		g.enable()
		h.step()
		h.interrupted()
		for i, want := range want {
			j := g.job("run", 1, ms)
			g.kick()
			h.run(2 * ms)
			if got := h.interrupted(); got != want && !(i == 1 && plan == "irq/user delay=2ms") || !j.done() {
				t.Errorf("%s: job %d: interrupt %t, want %t, done %t", plan, i+1, got, want, j.done())
			}
		}
	}
}

func TestFaultyDispatches(t *testing.T) {
	for plan, c := range map[string]struct {
		want  [][]uint32
		cause hw.Cause
		dead  bool
	}{
		"batch id=1 hang":                                      {[][]uint32{captured(), wasReset(1)}, hw.CauseHang, false},
		"batch id=1 stuck":                                     {[][]uint32{captured(), wasReset(1), {4, 0x90001009, 4, 0, 1}}, hw.CauseHang, true},
		"batch id=1 trap":                                      {[][]uint32{captured(), wasReset(1)}, hw.CauseTrap, false},
		"batch id=1 cat":                                       {[][]uint32{{2, 0x90006000, 1}}, hw.CauseMemory, false},
		"batch id=1 no-preempt":                                {[][]uint32{captured(), wasReset(1)}, hw.CauseHang, false},
		"batch id=1 hang; engine-reset fail":                   {[][]uint32{captured(), wasReset(1), {4, 0x90001009, 4, 0, 1}}, hw.CauseHang, true},
		"batch id=1 hang; engine-reset id=2 fail":              {[][]uint32{captured(), wasReset(1)}, hw.CauseHang, false},
		"batch id=1 hang; g2h/CONTEXT_RESET_NOTIFICATION drop": {[][]uint32{captured()}, hw.CauseHang, false},
	} {
		h, _ := faulty(t, plan)
		g, other := h.context(1, 4, 1), h.context(2, 4, 1)
		g.policies(2, 10*ms, 100*ms)
		other.policies(2, 10*ms, 100*ms)
		j, fine := g.job("run", 200, ms), other.job("run", 5, ms)
		g.enable()
		other.enable()
		h.run(150 * ms)
		var got [][]uint32
		for _, m := range h.received() {
			if m[1] != 0x90001002 {
				got = append(got, m)
			}
		}
		if !slices.EqualFunc(got, c.want, slices.Equal) {
			t.Errorf("%s: %08x, want %08x", plan, got, c.want)
		}
		if r := j.report(); r.Cause != c.cause || r.Status != hw.StatusFault || fine.done() == c.dead || h.fw.Dead() != c.dead {
			t.Errorf("%s: report %+v, other done %t, dead %t", plan, r, fine.done(), h.fw.Dead())
		}
	}
	// Alone, what can't be preempted runs to its end.
	h, _ := faulty(t, "batch no-preempt")
	g := h.context(1, 4, 1)
	j := g.job("run", 200, ms)
	g.enable()
	g.disable()
	h.run(200 * ms)
	h.want(modeDone(1, 1), modeDone(1, 0))
	if !j.done() {
		t.Errorf("report %+v", j.report())
	}
}

// TestRandomPlansEnd lets random plans loose; whatever they do, a reload leaves a
// firmware that works.
func TestRandomPlansEnd(t *testing.T) {
	for seed := range uint64(150) {
		tryPlan(t, fw.RandomPlan(seed, 4))
	}
}

// TestEndlessPlansEnd does so with every fault at every point, for ever.
func TestEndlessPlansEnd(t *testing.T) {
	for _, point := range fw.Vocabulary() {
		for _, a := range point.Actions {
			for _, value := range append(slices.Clone(a.Samples), "") {
				r := hw.Rule{Point: point.Name, Nth: 1, Action: a.Name, Value: value}
				if a.Kind != hw.ValueDurationOptional && a.Kind != hw.ValueNone && value == "" {
					r.Value = map[hw.ValueKind]string{hw.ValueNumber: "0", hw.ValueDuration: "2562047h47m16s"}[a.Kind]
				}
				tryPlan(t, hw.Plan{r})
			}
		}
	}
}

// FuzzPlan gives the firmware plans of all kinds.
func FuzzPlan(f *testing.F) {
	f.Add("g2h times=always cat-unknown; irq times=always cat-unknown; h2g nth=3 deaf=0s")
	f.Add("g2h times=always reorder=0s; g2h times=always duplicate; batch id=1 stuck; engine-reset fail")
	f.Fuzz(func(t *testing.T, text string) {
		plan, err := hw.ParsePlan(text)
		if err == nil && fw.Vocabulary().Check(plan) == nil {
			tryPlan(t, plan)
		}
	})
}

// tryPlan plays a host that does not care about answers, under a plan.
func tryPlan(t *testing.T, plan hw.Plan) {
	t.Helper()
	faults, err := fw.NewFaults(plan)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, func(c *fw.Config) { c.Faults = faults })
	for _, m := range [][]uint32{{0x508, 0x09030002, h2gDesc}, {0x508, 0x09020002, h2gBuffer}, {0x508, 0x09040001, 4096},
		{0x508, 0x09060002, g2hDesc}, {0x508, 0x09050002, g2hBuffer}, {0x508, 0x09070001, 8192}, {0x4509, 1}} {
		h.mmio(m...)
		h.run(ms)
	}
	h.h2g, _ = abi.NewSender(h.ring(h2gDesc, h2gBuffer, 4096))
	say := func(b abi.Body) {
		_ = h.h2g.Send(0x8001, abi.FastRequest(b).Dwords())
		h.run(ms)
	}
	for id := range abi.GUCID(4) {
		g := h.image(uint32(id))
		say(abi.RegisterContext{Flags: 1, ID: id, Class: 4, SubmitMask: 1, LRCDescriptor: abi.LRCDescriptor{LRC: g.lrc, PrivateSpace: true}.Encode()})
		say(abi.Policies(id, 2, 1000, 10_000, 0))
		g.job("run", 5, ms)
		say(abi.SchedContextModeSet{ID: id, Enable: true})
		g.job("run", 5, ms)
		say(abi.SchedContext{ID: id})
	}
	h.run(time.Second)
	for id := range abi.GUCID(4) {
		say(abi.SchedContextModeSet{ID: id})
		say(abi.DeregisterContext{ID: id})
	}
	h.run(time.Minute)
	for _, c := range []abi.VFCommand{abi.VFPause, abi.VFResume} {
		say(abi.VFControl{Function: 1, Command: c})
	}
	h.mmio(0x5507)
	for _, r := range [][2]uint32{{abi.RegPower, 3}, {abi.RegPower, 0}, {abi.RegReset, abi.ResetFull}, {abi.RegLoad, abi.LoadFirmware}, {abi.RegPower, 4}} {
		h.store(r[0], r[1])
		h.run(5 * time.Second)
	}
	faults.Disarm()
	h.fw.Reload(newScriptEngine(h.clock))
	h.step()
	h.bringUp(4096, 8192)
	g := h.context(1, 4, 1)
	j := g.job("run", 5, ms)
	g.enable()
	h.run(5 * ms)
	if !j.done() {
		t.Fatalf("plan %s: nothing runs after a reload", plan)
	}
}
