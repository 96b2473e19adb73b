package fw_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// randomRuns is how many seeds are run, each twice.
const randomRuns = 25

// TestRandomRuns plays a host that does anything legal at any moment against a
// firmware with random faults and random choices. Invariants hold after every step,
// each seed gives the same trace twice, and after the plan has ended and a reset the
// device works.
func TestRandomRuns(t *testing.T) {
	for seed := range uint64(randomRuns) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			first := randomRun(t, seed)
			if again := randomRun(t, seed); again != first {
				t.Errorf("the second run differs:\n%s", firstDifference(first, again))
			}
		})
	}
}

func firstDifference(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return x[i] + "\n" + y[i]
		}
	}
	return "one is longer"
}

func randomRun(t *testing.T, seed uint64) string {
	random := rand.New(rand.NewPCG(seed, 7))
	plan := hw.RandomPlan(seed, random.IntN(6), fw.Vocabulary())
	coin := func() bool { return random.IntN(2) == 0 }
	h := newHost(t, plan.String(), func(c *fw.Config) {
		c.Seed, c.Executions, c.ProgressMin = seed, 1+random.IntN(3), time.Duration(random.IntN(2))*time.Second
		c.RunFaulted, c.RejectInherits, c.KeepRegisters, c.ExtractAtFetch = coin(), coin(), coin(), coin()
		c.BootAcksZero, c.FatalFirst, c.RefuseInsert, c.MMUFatal = coin(), coin(), coin(), coin()
		c.Deferrals, c.DirtyL2, c.StrictTransitions, c.WholeDispatches = random.IntN(17), coin(), coin(), coin()
	})
	bringUp := func() bool {
		h.load()
		h.set(abi.RegGPUIntMask, ^uint32(0))
		h.set(abi.RegL2PowerOn, 1)
		h.step()
		h.mapMCU()
		h.start()
		if h.fw.Enabled() && h.validate() == "" {
			h.configure()
			return true
		}
		return false
	}
	reset := func() {
		h.set(abi.RegGPUCommand, abi.CommandSoftReset)
		h.run(2 * time.Second)
	}
	up := bringUp()
	var groups []*group
	for range 60 {
		if !up || !h.fw.Enabled() {
			reset()
			up = bringUp()
			for _, g := range groups {
				g.activate()
			}
			continue
		}
		randomMove(h, random, &groups)
	}
	h.faults.Disarm()
	reset()
	up = bringUp()
	if h.fw.Counters().ResetsFailed > 0 { // The host gives the device up.
		if up {
			t.Errorf("seed %d, plan %q: it boots although a reset failed", seed, plan)
		}
		return h.lines()
	}
	if !up {
		t.Fatalf("seed %d, plan %q: the device does not come back\n%s", seed, plan, h.lines())
	}
	g := h.group(h.vm(7), 7, 1)
	g.start()
	k := g.kernel("", 5)
	g.queues[0].job(k.instructions()...)
	h.run(20 * ms)
	if g.queues[0].seqno() != 1 || k.report().Status != hw.StatusDone {
		t.Fatalf("seed %d, plan %q: no job runs\n%s", seed, plan, h.lines())
	}
	out := ""
	for _, l := range h.trace.Last(5000) {
		out += l.String() + "\n"
	}
	return out + fmt.Sprintf("%+v", h.fw.Counters())
}

// randomMove does one thing and lets some time pass.
func randomMove(h *host, random *rand.Rand, groups *[]*group) {
	if len(*groups) < 4 {
		n := uint32(len(*groups))
		*groups = append(*groups, h.group(h.vm(n+1), n, 1+random.IntN(3)))
	}
	g := (*groups)[random.IntN(len(*groups))]
	q := g.queues[random.IntN(len(g.queues))]
	switch random.IntN(12) {
	case 0, 1:
		g.program()
		g.request([]abi.GroupState{abi.GroupStart, abi.GroupResume}[random.IntN(2)], abi.GroupEndpointCfg)
	case 2:
		g.request(abi.GroupSuspend, abi.GroupStatusUpdate)
	case 3:
		g.request(abi.GroupTerminate, 0)
	case 4, 5, 6:
		if g.used < vmSize-(64<<10) && q.insert-q.extract() < ringSize-256 {
			script := []string{"", "cores=3", "trap at 2", "hang at 3", "workgroup=300us"}[random.IntN(5)]
			q.job(g.kernel(script, uint32(1+random.IntN(8))).instructions()...)
		}
	case 7:
		if g.used < vmSize-(64<<10) && q.insert-q.extract() < ringSize-256 {
			other := g.queues[random.IntN(len(g.queues))]
			q.job(move48(0, other.sync), move48(2, other.seqno()), abi.Instruction{Op: abi.OpSyncWait64, Source: 2, Address: 0, Condition: abi.Greater},
				abi.Instruction{Op: abi.OpSyncAdd64, Source: 2, Address: 0, WaitMask: 1, Signal: 3})
		}
	case 8:
		q.acknowledge()
		g.kickStreams(1 << q.index)
		g.kick()
	case 9:
		h.set(abi.ASBase(g.as)+abi.RegASCommand, uint32(random.IntN(6)))
		h.step()
	case 10:
		h.set(abi.RegJobIntClear, ^uint32(0))
		h.set(abi.RegMMUIntClear, ^uint32(0))
		if random.IntN(4) == 0 {
			h.halt()
		} else if random.IntN(8) == 0 {
			_ = h.fw.PowerOff()
		}
	case 11:
		h.set(abi.RegGPUCommand, abi.CommandFlush(abi.FlushClean, abi.FlushClean, abi.FlushNone))
		in := g.in()
		h.put(in+abi.GroupReq, abi.Acknowledge(h.get(in+abi.GroupReq), h.get(g.out()+abi.GroupAck), abi.GroupEvents))
	}
	h.run(time.Duration(random.IntN(5000)) * us)
}

// FuzzHostileHost writes anything anywhere that a host can write.
func FuzzHostileHost(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0xFF, 3, 2, 8, 9})
	f.Add([]byte("a host that does whatever it likes, wherever it can reach, and rings"))
	f.Fuzz(func(t *testing.T, script []byte) {
		h := newReady(t, "", nil)
		g := h.group(h.vm(1), 0, 2)
		g.start()
		g.queues[0].job(g.kernel("", 3).instructions()...)
		areas := []struct{ at, size uint64 }{{h.glb(abi.GlobalInputAddress), 0x88}, {g.in(), 0x58}, {g.queues[0].blockIn(), 0x58},
			{g.queues[1].blockIn(), 0x58}, {g.queues[0].in, 16}, {g.system, 0x200}, {g.table, 0x60}, {g.suspend, 0x800}}
		registers := []uint32{abi.RegGPUCommand, abi.RegMCUControl, abi.RegJobIntClear, abi.RegL2PowerOn, abi.RegL2PwrOff, abi.ASBase(0) + abi.RegASCommand,
			abi.ASBase(1) + abi.RegASCommand, abi.ASBase(1) + abi.RegASTransTab, abi.RegDoorbell(0), abi.RegDoorbell(1)}
		for len(script) >= 4 {
			area, offset, value := script[0], uint64(script[1]), uint32(script[2])|uint32(script[3])<<uint(8*(script[3]%4))
			script = script[4:]
			if int(area) < 256*2/3 {
				a := areas[int(area)%len(areas)]
				h.put(a.at+offset*8%a.size&^3+4*uint64(area&1), value)
			} else {
				h.set(registers[int(area)%len(registers)], value)
			}
			h.set(abi.RegDoorbell(0), 1)
			h.run(200 * us)
		}
		h.run(5 * ms)
	})
}
