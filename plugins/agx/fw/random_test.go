package fw_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// randomRun plays a host that does what a host may, with a plan and every open
// point drawn from a seed, and returns the trace.
func randomRun(t *testing.T, seed uint64, rules int) []string {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 77))
	plan := fw.RandomPlan(seed, rules)
	faults, err := fw.NewFaults(plan)
	if err != nil {
		t.Fatal(err)
	}
	versions := abi.Versions()
	bit := func() bool { return random.IntN(2) == 0 }
	h := newHost(t, func(c *fw.Config) {
		c.Faults, c.Width, c.Version = faults, 1+random.IntN(3), versions[random.IntN(len(versions))]
		c.OpenPoints = fw.OpenPoints{WatchdogByProgress: bit(), EventDrop: bit(), FlushBypasses: bit(), Write32Ignored: bit(), RecheckBySlot: bit(),
			Lenient: bit(), UnknownOpCrash: bit(), ComputePreempt: bit()}
		if bit() {
			c.Promote = 3 * time.Millisecond
		}
		if bit() {
			c.PowerOnDelay = time.Millisecond
		}
	})
	h.bringUp()
	if h.fw.Phase() != "ready" {
		return lines(h)
	}
	var queues []*queue
	for i := range uint32(5) {
		queues = append(queues, h.queue(random.Uint32N(abi.Levels), i, 1+random.Uint32N(3)))
	}
	asked := map[uint32]bool{} // By RecoverChannel, which a halt leaves in its ring.
	for range 60 {
		if h.fw.Dead() {
			break
		}
		q := queues[random.IntN(len(queues))]
		switch random.IntN(8) {
		case 0:
			q.barrier(queues[0], queues[0].value)
			fallthrough
		case 1, 2, 3:
			if h.in.Len() < abi.MailboxSlots-4 && q.write < abi.QueueItems-4 {
				script, count := []string{"workgroup=1ms", "workgroup=3ms cores=2", "workgroup=1ms hang at 4", "trap at 1"}[random.IntN(4)], 1+random.Uint32N(6)
				if bit() {
					q.preemptible(h.dispatch(script, count), nil)
				} else {
					q.submit(script, count)
				}
			}
		case 4:
			for _, s := range h.fw.Queues() {
				asked[s.UUID] = asked[s.UUID] && s.State == "stopped"
				if i := slices.IndexFunc(queues, func(q *queue) bool { return q.uuid == s.UUID }); s.State == "stopped" && h.in.Len() == 0 && !asked[s.UUID] {
					asked[s.UUID] = true
					h.do(&abi.RecoverChannel{Pipe: uint32(abi.PipeCompute), Queue: queues[i].info, Value: h.stamp(s.Slot) + abi.StampStep})
				}
			}
		case 5:
			h.paused = !h.paused
		default:
			h.advance(time.Duration(random.IntN(8)) * time.Millisecond)
		}
	}
	h.paused = false
	h.advance(3 * time.Minute) // A watchdog for each command that may hang.
	if c := h.fw.Counters(); c.Misuses != 0 || c.Violations != 0 {
		t.Errorf("seed %d: %d misuses, %d violations of a host that does nothing wrong\n%s", seed, c.Misuses, c.Violations, strings.Join(lines(h), "\n"))
	}
	if rules == 0 {
		if h.fw.Dead() {
			t.Errorf("seed %d: %s", seed, h.fw.CrashText())
		}
		for _, q := range h.fw.Queues() {
			mine := queues[slices.IndexFunc(queues, func(x *queue) bool { return x.uuid == q.UUID })]
			if q.State == "ready" || q.State == "running" || q.State == "stored" || q.State == "idle" && h.stamp(q.Slot) != mine.value {
				t.Errorf("seed %d: queue %d is %s at the end, stamp %#x of %#x", seed, q.UUID, q.State, h.stamp(q.Slot), mine.value)
			}
		}
	}
	return lines(h)
}

func lines(h *host) []string {
	var out []string
	for _, l := range h.trace.Last(400) {
		out = append(out, l.String())
	}
	return append(out, fmt.Sprintf("%+v", h.fw.Counters()))
}

// TestRandom runs seeds, without faults and with, each twice: the same seed must
// give the same trace, and the invariants hold after every step.
func TestRandom(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		for _, rules := range []int{0, 6} {
			first, second := randomRun(t, seed, rules), randomRun(t, seed, rules)
			if !slices.Equal(first, second) {
				t.Fatalf("seed %d, %d rules: two runs differ", seed, rules)
			}
			if t.Failed() {
				t.Fatalf("replay: seed %d, %d rules, plan %s", seed, rules, fw.RandomPlan(seed, rules))
			}
		}
	}
}

// FuzzMemory puts chance into everything that the firmware reads: it must crash
// by its own rules or go on, and keep its invariants.
func FuzzMemory(f *testing.F) {
	f.Add(uint64(1), uint16(3))
	f.Add(uint64(99), uint16(40))
	f.Fuzz(func(t *testing.T, seed uint64, count uint16) {
		random := rand.New(rand.NewPCG(seed, 5))
		h := newReady(t, func(c *fw.Config) { c.Lenient = seed%2 == 0 })
		a, b := h.queue(2, 1, 1), h.queue(1, 2, 2)
		a.submit("workgroup=1ms", 2)
		b.barrier(a, a.value)
		b.submit("workgroup=1ms", 2)
		for range count % 64 {
			at := objectsAt + random.Uint64N(h.next-objectsAt)&^3
			if random.IntN(4) == 0 {
				at = spacesAt + random.Uint64N(0x4000)&^3
			}
			_ = h.arena.Store32(at, random.Uint32())
		}
		for range 20 {
			h.in.Put(abi.DoorbellMessage(uint16(random.Uint32N(20))).Encode())
			h.fw.Step()
			h.take()
			h.clock.Advance(time.Duration(random.IntN(3000)) * time.Microsecond)
			if err := h.fw.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzMailbox sends chance through the mailbox.
func FuzzMailbox(f *testing.F) {
	f.Add(uint64(0x0020_0000_000c_000c), uint64(0), true)
	f.Add(uint64(0x0081_0000_0000_0000), uint64(0x20), false)
	f.Fuzz(func(t *testing.T, msg0, msg1 uint64, ready bool) {
		h := newHost(t, nil)
		if ready {
			h.bringUp()
		} else {
			h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
			h.fw.Step()
		}
		h.in.Put(msg0, msg1)
		h.fw.Step()
		if err := h.fw.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestVocabulary: every point and action has a sentence, and plans are checked.
func TestVocabulary(t *testing.T) {
	for _, p := range fw.Vocabulary() {
		if p.Text == "" {
			t.Errorf("point %s has no text", p.Name)
		}
		for _, a := range p.Actions {
			if a.Text == "" || a.Kind != hw.ValueNone && len(a.Samples) == 0 {
				t.Errorf("action %s has no text or no samples", a.Name)
			}
		}
	}
	for _, bad := range []string{"event/Flag block", "nowhere drop", "command fault=1", "management/Flag drop"} {
		p, err := hw.ParsePlan(bad)
		if err == nil {
			_, err = fw.NewFaults(p)
		}
		if err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for seed := range uint64(50) {
		if _, err := fw.NewFaults(fw.RandomPlan(seed, 20)); err != nil {
			t.Error(err)
		}
	}
}
