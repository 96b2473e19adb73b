package mali

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// igt is one scenario of the public IGT tests: its name there, what it shows, and the test.
type igt struct {
	name, shows string
	run         func(*bench)
}

// bench is a world with one address space and its groups.
type bench struct {
	*world
	t  *testing.T
	vm *driver.VM
	// used is where the next stream goes in the buffer.
	used uint64
}

// fence is the end of one submission.
type fence struct {
	done bool
	err  error
}

// igts are the scenarios about groups, scheduler, sync and power.
var igts = []igt{
	{"group-submit", "a stream stores a word, waits and flushes; the host reads it", groupSubmit},
	{"group-submit-empty", "an empty stream is a sync point; address or size alone, a bad queue and a bad alignment are refused", groupSubmitEmpty},
	{"scheduler-nop", "a stream of one NOP", func(b *bench) { b.finish(b.submit(b.group(1), 0, abi.Instruction{})) }},
	{"scheduler-compute-simple", "eight WAITs for quiet scoreboards", func(b *bench) {
		b.finish(b.submit(b.group(1), 0, repeat(8, abi.Instruction{Op: abi.OpWait, Mask: 1})...))
	}},
	{"scheduler-counted-loop", "a loop of 100,000 turns counts exactly; its events coalesce", countedLoop},
	{"scheduler-csg-slots-max", "as many groups as slots run at once", func(b *bench) { b.loops(8, true) }},
	{"scheduler-csg-slots-overcommit", "one group more than slots: all begin within 10 s and end, without a reset", func(b *bench) { b.loops(9, false) }},
	{"scheduler-idle-prepopulate", "slots full of idle groups, which keep them, make room", idlePrepopulate},
	{"scheduler-priority-preemption", "a high group gets a slot from busy low ones, within a few ticks, and ends before them", priorityPreemption},
	{"scheduler-multi-queue", "the queues of a group run side by side: one waits for another that waits for it", multiQueue},
	{"scheduler-sync-wait-block", "a blocked queue goes on when the host stores to what it waits for, and a queue that waits for its fence meanwhile goes on after it", syncWaitBlock},
	{"scheduler-sync-wait-offslot", "the same while its group is on no slot", syncWaitOffslot},
	{"scheduler-sync-wait-never", "a wait that nobody satisfies is timed out after 5 s", syncWaitNever},
	{"scheduler-job-timeout", "after a timeout a submit is refused", jobTimeout},
	{"scheduler-job-timeout-recovery", "its fence has an error, its state says so, and a fresh group in the same address space works", jobTimeout},
	{"scheduler-fatal-fault", "opcode 0xFF is fatal for its queue; the others' jobs are cancelled", fatalFault},
	{"scheduler-large-instruction-stream", "512 instructions", func(b *bench) {
		b.finish(b.submit(b.group(1), 0, repeat(512, abi.Instruction{Op: abi.OpMove32, Dest: 4, Imm: 7})...))
	}},
	{"scheduler-group-destroy-active", "a running group can be destroyed: its counter stops", destroyActive},
	{"sync-inherited-status", "a sync object with a status is inherited: CS_FAULT 0x4B on that job only", inheritedStatus},
	{"pm-rpm-idle-suspend", "an idle device is powered off", func(b *bench) {
		b.finish(b.submit(b.group(1), 0, abi.Instruction{}))
		b.run(time.Second)
		if off, _, _ := b.driver.Power(); off == 0 {
			b.t.Error("not powered off")
		}
	}},
	{"pm-rpm-resume-on-exec", "a job wakes it", func(b *bench) { b.cycles(1) }},
	{"pm-rpm-multiple-execs", "eight times", func(b *bench) { b.cycles(8) }},
	{"pm-system-s2idle", "sleep in the middle of work, everything goes on", func(b *bench) { b.sleeps(false) }},
	{"pm-system-mem", "the same with the power gone", func(b *bench) { b.sleeps(true) }},
}

// void are the scenarios that have no counterpart here, with the reason.
var void = [][2]string{
	{"gem: bo_create, bo_mmap_offset, bo_create_round_size, bo_zeroed", "there are no buffer handles: a buffer belongs to its entity, reads as zero and has the size it was made with (tested by the conformance kit)"},
	{"query: gpu_id", "nobody asks the driver for registers"},
	{"vm: create_destroy, destroy_invalid", "an address space lives and ends with its entity"},
	{"vm: bind, unbind, unbind_invalid_address, nine shapes of huge pages", "there is no VM_BIND: all buffers are mapped as long as the entity lives, by a table in place of page tables"},
	{"group: create with bad masks, file handles and permissions", "there are no files and no core masks; queues and rings out of range are refused (`group-submit-empty`)"},
	{"sync: vm-bind-array-chained-syncobj, bind-fence-gates-submit, submit-fence-gates-bind", "no VM_BIND"},
	{"sync: syncobj-cross-fd-transfer, syncobj-timeline-to-binary-cross-fd", "no syncobjs and no file descriptors: fences are the core's"},
	{"heap: create_validation, create_destroy", "no tiler"},
}

// TestIGT runs every scenario on a G610, and once more with streams, and driver and firmware, in a random order. All groups share
// one of its seven address spaces.
func TestIGT(t *testing.T) {
	for _, s := range igts {
		t.Run(s.name, func(t *testing.T) {
			for _, seed := range []uint64{0, 7} {
				var mixed *order
				if seed != 0 {
					mixed = &order{random: rand.New(rand.NewPCG(seed, 0))}
				}
				w := testWorld(t, setup{order: mixed, firmware: func(c *fw.Config) { c.Seed = seed }})
				b := &bench{world: w, t: t}
				var err error
				b.vm, err = w.driver.NewVM(core.BufferSpec{Name: "streams", Size: 1 << 20}, core.BufferSpec{Name: "words", Size: 64 << 10})
				w.ok(err)
				s.run(b)
				if w.driver.Resets() != 0 || len(w.failed) > 0 {
					t.Errorf("%d resets, failed %v", w.driver.Resets(), w.failed)
				}
			}
		})
	}
}

// TestIGTInDocs keeps the page's table equal to the scenarios.
func TestIGTInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| scenario | what it shows | test |\n|---|---|---|\n")
	for _, s := range igts {
		fmt.Fprintf(&b, "| %s | %s | `TestIGT/%s` |\n", s.name, s.shows, s.name)
	}
	b.WriteString("\nVoid here:\n\n| scenario | why |\n|---|---|\n")
	for _, v := range void {
		fmt.Fprintf(&b, "| %s | %s |\n", v[0], v[1])
	}
	embed(t, "<!-- igt: generated by TestIGTInDocs -rewrite -->\n", "<!-- end of igt -->\n", b.String())
	for _, r := range groupRows {
		found := false
		for _, s := range igts {
			found = found || "TestIGT/"+s.name == r[2]
		}
		if !found {
			t.Errorf("there is no %s", r[2])
		}
	}
}

func repeat(n int, i abi.Instruction) []abi.Instruction {
	list := make([]abi.Instruction, n)
	for at := range list {
		list[at] = i
	}
	return list
}

// group makes a group of n queues.
func (b *bench) group(n int) *driver.Group { return b.groupOf(core.PriorityNormal, n) }

func (b *bench) groupOf(p core.Priority, n int) *driver.Group {
	b.t.Helper()
	spec := driver.GroupSpec{Priority: p}
	for range n {
		spec.Queues = append(spec.Queues, driver.QueueSpec{Priority: 1, RingSize: 4096})
	}
	g, err := b.driver.NewGroup(background, b.vm, spec)
	b.ok(err)
	return g
}

// store puts a stream into memory.
func (b *bench) store(list ...abi.Instruction) driver.Stream {
	b.t.Helper()
	s, err := b.vm.Store(0, b.used, list)
	b.ok(err)
	b.used += (s.Size + 63) &^ 63
	return s
}

// submit gives a stream to a queue.
func (b *bench) submit(g *driver.Group, queue int, list ...abi.Instruction) *fence {
	b.t.Helper()
	f, err := b.try(g, queue, b.store(list...))
	b.ok(err)
	return f
}

func (b *bench) try(g *driver.Group, queue int, s driver.Stream) (*fence, error) {
	f := &fence{}
	err := g.Submit(background, queue, s, func(err error) {
		if f.done {
			b.law.broken("a fence was signalled twice")
		}
		f.done, f.err = true, err
	})
	return f, err
}

// finish waits for fences, which must have no error.
func (b *bench) finish(fences ...*fence) {
	b.t.Helper()
	for _, f := range fences {
		b.until("a fence", func() bool { return f.done })
		b.ok(f.err)
	}
}

// word is the GPU address of a word of the second buffer; look and poke are the host's.
func (b *bench) word(i uint64) uint64 { return b.vm.Buffer(1).Virtual + 64*i }

func (b *bench) look(i uint64) uint32 {
	v, err := b.arena.Load32(b.vm.Buffer(1).Device + 64*i)
	b.ok(err)
	return v
}

func (b *bench) poke(i uint64, v uint32) { b.ok(b.arena.Store32(b.vm.Buffer(1).Device+64*i, v)) }

// counting is a loop of so many turns that stores each count, and tells of it.
func (b *bench) counting(word uint64, turns uint32) []abi.Instruction {
	return []abi.Instruction{
		{Op: abi.OpMove48, Dest: 0, Imm: b.word(word)},
		{Op: abi.OpMove32, Dest: 2, Imm: 0},
		{Op: abi.OpMove32, Dest: 4, Imm: uint64(turns)},
		{Op: abi.OpAddImm32, Dest: 2, Source: 2, Imm: 1},
		{Op: abi.OpSyncSet32, Source: 2, Address: 0, Scope: abi.ScopeSystem},
		{Op: abi.OpAddImm32, Dest: 4, Source: 4, Imm: 0xFFFFFFFF},
		{Op: abi.OpBranch, Source: 4, Condition: abi.Greater, Offset: -4},
	}
}

func groupSubmit(b *bench) {
	b.finish(b.submit(b.group(1), 0,
		abi.Instruction{Op: abi.OpMove48, Dest: 0, Imm: b.word(0)}, abi.Instruction{Op: abi.OpMove32, Dest: 2, Imm: 0xdeadbeef},
		abi.Instruction{Op: abi.OpStoreMultiple, Dest: 2, Address: 0, Mask: 1}, abi.Instruction{Op: abi.OpWait, Mask: 1},
		abi.Instruction{Op: abi.OpMove32, Dest: 4}, abi.Instruction{Op: abi.OpFlushCache2, L2: abi.FlushClean, LSC: abi.FlushClean, Source: 4},
		abi.Instruction{Op: abi.OpWait, Mask: 1}))
	if v := b.look(0); v != 0xdeadbeef {
		b.t.Errorf("the word is %#x", v)
	}
}

func groupSubmitEmpty(b *bench) {
	g := b.group(1)
	f, err := b.try(g, 0, driver.Stream{})
	b.ok(err)
	b.finish(f)
	at := b.vm.Buffer(0).Virtual
	for name, s := range map[string]driver.Stream{"address only": {Address: at}, "size only": {Size: 64}, "not aligned": {Address: at + 8, Size: 8}, "half an instruction": {Address: at, Size: 4}} {
		if _, err := b.try(g, 0, s); !errors.Is(err, core.ErrInvalid) {
			b.t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.try(g, 1, driver.Stream{}); !errors.Is(err, core.ErrInvalid) {
		b.t.Errorf("queue 1 of 1: %v", err)
	}
	for name, spec := range map[string]driver.GroupSpec{
		"no queue": {Priority: core.PriorityLow}, "more queues than streams": {Priority: core.PriorityLow, Queues: make([]driver.QueueSpec, 9)},
		"an odd ring": {Priority: core.PriorityLow, Queues: []driver.QueueSpec{{RingSize: 5000}}}, "priority": {Priority: "rt", Queues: []driver.QueueSpec{{RingSize: 4096}}},
	} {
		if _, err := b.driver.NewGroup(background, b.vm, spec); !errors.Is(err, core.ErrInvalid) {
			b.t.Errorf("%s: %v", name, err)
		}
	}
	last := b.submit(g, 0, abi.Instruction{})
	behind, err := b.try(g, 0, driver.Stream{})
	b.ok(err)
	b.finish(last, behind)
}

func countedLoop(b *bench) {
	before := b.firmware.Counters().Interrupts
	b.finish(b.submit(b.group(1), 0, b.counting(0, 100_000)...))
	if v := b.look(0); v != 100_000 {
		b.t.Errorf("counted %d", v)
	}
	if n := b.firmware.Counters().Interrupts - before; n > 50_000 {
		b.t.Errorf("%d interrupts", n)
	}
}

// loops starts so many groups at once; all their counts must be exact.
func (b *bench) loops(n int, together bool) {
	var fences []*fence
	b.light = true
	for i := range n {
		fences = append(fences, b.submit(b.group(1), 0, b.counting(uint64(i), 100_000)...))
	}
	begun := func() bool {
		for i := range n {
			if b.look(uint64(i)) == 0 {
				return false
			}
		}
		return true
	}
	start := b.clock.Now()
	b.until("the start of all", begun)
	if b.clock.Now()-start > 10*time.Second {
		b.t.Error("somebody did not begin in 10 s")
	}
	for _, f := range fences {
		if together && f.done {
			b.t.Error("one had ended before all had begun")
		}
	}
	b.finish(fences...)
	for i := range n {
		if v := b.look(uint64(i)); v != 100_000 {
			b.t.Errorf("group %d counted %d", i, v)
		}
	}
}

func idlePrepopulate(b *bench) {
	for range 8 {
		b.finish(b.submit(b.group(1), 0, abi.Instruction{}))
	}
	off, _, _ := b.driver.Power()
	for _, v := range b.driver.Groups() {
		if v.Slot < 0 || v.State != "active" || v.Jobs != 0 {
			b.t.Errorf("not idle on a slot: %+v", v)
		}
	}
	for range 4 {
		b.finish(b.submit(b.group(1), 0, abi.Instruction{}))
	}
	if now, _, _ := b.driver.Power(); now != off || off != 0 {
		b.t.Errorf("powered off %d times, then %d", off, now)
	}
}

// priorityPreemption: the stall of the scenario is a WAIT for a quiet scoreboard, which does not stall. Here
// the low ones are busy, hold all slots, and are more.
func priorityPreemption(b *bench) {
	var low []*fence
	for i := range 9 {
		low = append(low, b.submit(b.groupOf(core.PriorityLow, 1), 0, b.counting(uint64(i), 100_000)...))
	}
	b.run(10 * time.Millisecond)
	high := b.submit(b.groupOf(core.PriorityHigh, 1), 0, b.counting(10, 1000)...)
	start := b.clock.Now()
	b.finish(high)
	if took := b.clock.Now() - start; took > 25*time.Millisecond {
		b.t.Errorf("took %s", took)
	}
	for _, f := range low {
		if f.done {
			b.t.Error("a low one has ended before")
		}
	}
	b.finish(low...)
}

// multiQueue lets queue 0 wait for queue 7, and 7 for a word that 0 stores before: neither can end before
// the other has begun.
func multiQueue(b *bench) {
	g := b.group(8)
	last := b.submit(g, 7, append(b.waiting(9), b.counting(7, 100)...)...)
	first := append(b.counting(0, 100), abi.Instruction{Op: abi.OpMove48, Dest: 0, Imm: b.word(9)}, abi.Instruction{Op: abi.OpMove32, Dest: 2, Imm: 1},
		abi.Instruction{Op: abi.OpSyncSet32, Source: 2, Address: 0, Scope: abi.ScopeSystem})
	fences := []*fence{last, b.submit(g, 0, append(first, behind(g, 7)...)...)}
	for i := 1; i < 7; i++ {
		fences = append(fences, b.submit(g, i, b.counting(uint64(i), 100)...))
	}
	b.finish(fences...)
	for i := range uint64(8) {
		if b.look(i) != 100 {
			b.t.Errorf("queue %d counted %d", i, b.look(i))
		}
	}
}

// TestSharedSpaces: with one address space, groups that share it are on slots together, and those of
// another one take turns with them; all come to their end.
func TestSharedSpaces(t *testing.T) {
	w := testWorld(t, setup{firmware: func(c *fw.Config) { c.AddressSpaces = 0b11 }})
	var all []*fence
	var benches []*bench
	for range 2 {
		b := &bench{world: w, t: t}
		var err error
		b.vm, err = w.driver.NewVM(core.BufferSpec{Name: "streams", Size: 1 << 20}, core.BufferSpec{Name: "words", Size: 64 << 10})
		w.ok(err)
		for i := range uint64(6) {
			all = append(all, b.submit(b.group(1), 0, b.counting(i, 20_000)...))
		}
		benches = append(benches, b)
	}
	w.run(5 * time.Millisecond)
	on := 0
	for _, g := range w.driver.Groups() {
		if g.Slot >= 0 {
			on++
		}
	}
	if on != 6 {
		t.Errorf("%d groups are on slots, want all six of an address space: %+v", on, w.driver.Groups())
	}
	benches[0].finish(all...)
	for _, b := range benches {
		for i := range uint64(6) {
			if v := b.look(i); v != 20_000 {
				t.Errorf("counted %d", v)
			}
		}
	}
	if w.driver.Resets() != 0 {
		t.Errorf("%d resets", w.driver.Resets())
	}
}

// waiting is a stream that waits for a word to be above 0.
func (b *bench) waiting(word uint64) []abi.Instruction {
	return []abi.Instruction{{Op: abi.OpMove48, Dest: 0, Imm: b.word(word)}, {Op: abi.OpMove32, Dest: 2},
		{Op: abi.OpSyncWait32, Source: 2, Address: 0, Condition: abi.Greater, Reject: true}}
}

func syncWaitBlock(b *bench) {
	g := b.group(2)
	first := b.submit(g, 0, b.waiting(0)...)
	second := b.submit(g, 1, behind(g, 0)...)
	b.run(time.Second)
	if first.done || second.done {
		b.t.Errorf("did not block: %t, %t", first.done, second.done)
	}
	b.poke(0, 1)
	start := b.clock.Now()
	b.finish(first, second)
	if b.clock.Now()-start > 5*time.Second {
		b.t.Error("took more than 5 s")
	}
}

// behind is a stream that waits for the last job of another queue of its group.
func behind(g *driver.Group, queue int) []abi.Instruction {
	address, count := g.Fence(queue)
	return []abi.Instruction{{Op: abi.OpMove48, Dest: 0, Imm: address}, {Op: abi.OpMove48, Dest: 2, Imm: count - 1},
		{Op: abi.OpSyncWait64, Source: 2, Address: 0, Condition: abi.Greater, Reject: true}}
}

func syncWaitOffslot(b *bench) {
	g := b.group(1)
	blocked := b.submit(g, 0, b.waiting(0)...)
	b.run(50 * time.Millisecond)
	var fences []*fence
	for i := range 8 {
		fences = append(fences, b.submit(b.group(1), 0, b.counting(uint64(1+i), 100_000)...))
	}
	b.run(30 * time.Millisecond)
	if v := b.driver.Groups()[0]; v.Slot >= 0 || v.Blocked != 1 {
		b.t.Errorf("not blocked off-slot: %+v", v)
	}
	b.poke(0, 1)
	b.finish(append(fences, blocked)...)
}

func syncWaitNever(b *bench) {
	g := b.group(1)
	f := b.submit(g, 0, b.waiting(0)...)
	start := b.clock.Now()
	b.until("the timeout", func() bool { return f.done })
	if took := b.clock.Now() - start; !errors.Is(f.err, driver.ErrTimeout) || took < 5*time.Second || took > 6*time.Second {
		b.t.Errorf("%v after %s", f.err, took)
	}
}

func jobTimeout(b *bench) {
	g := b.group(2)
	first, behind := b.submit(g, 0, b.waiting(0)...), b.submit(g, 0, abi.Instruction{})
	b.run(10 * time.Second)
	if !errors.Is(first.err, driver.ErrTimeout) || !errors.Is(behind.err, driver.ErrTimeout) {
		b.t.Errorf("fences %v and %v", first.err, behind.err)
	}
	if _, err := b.try(g, 1, b.store(abi.Instruction{})); !errors.Is(err, core.ErrInvalid) {
		b.t.Errorf("submit to a dead group: %v", err)
	}
	if s, err := g.State(background); err != nil || !s.TimedOut || s.FatalFault || s.Innocent {
		b.t.Errorf("state %+v, %v", s, err)
	}
	b.finish(b.submit(b.group(1), 0, abi.Instruction{}))
	b.ok(g.Destroy(background))
}

func fatalFault(b *bench) {
	g := b.group(2)
	other := b.submit(g, 1, b.waiting(0)...)
	bad := b.submit(g, 0, abi.Instruction{Op: 0xFF})
	b.until("the end", func() bool { return bad.done && other.done })
	var fault *core.FaultError
	if !errors.As(bad.err, &fault) || !errors.Is(other.err, driver.ErrCanceled) {
		b.t.Errorf("fences %v and %v", bad.err, other.err)
	}
	if s, err := g.State(background); err != nil || !s.FatalFault || s.FatalQueues != 1 || s.TimedOut {
		b.t.Errorf("state %+v, %v", s, err)
	}
}

func destroyActive(b *bench) {
	g := b.group(1)
	f := b.submit(g, 0, b.counting(0, 100_000)...)
	b.until("the start", func() bool { return b.look(0) > 10 })
	b.ok(g.Destroy(background))
	b.until("the end", func() bool { return f.done })
	at := b.look(0)
	b.run(time.Second)
	if b.look(0) != at || at >= 100_000 || !errors.Is(f.err, driver.ErrCanceled) || len(b.driver.Groups()) != 0 {
		b.t.Errorf("counted %d, then %d; fence %v", at, b.look(0), f.err)
	}
}

func inheritedStatus(b *bench) {
	g := b.group(1)
	b.poke(0, 1)
	b.ok(b.arena.Store32(b.vm.Buffer(1).Device+abi.Sync32Status, 1))
	list := b.waiting(0)
	list[2].Reject = false
	bad := b.submit(g, 0, list...)
	b.until("the end", func() bool { return bad.done })
	var fault *core.FaultError
	if !errors.As(bad.err, &fault) || !strings.Contains(bad.err.Error(), "CS_INHERIT_FAULT") {
		b.t.Errorf("fence %v", bad.err)
	}
	b.finish(b.submit(g, 0, abi.Instruction{}))
}

// cycles lets the device be powered off between jobs.
func (b *bench) cycles(n int) {
	g := b.group(1)
	for range n {
		b.finish(b.submit(g, 0, abi.Instruction{}))
		b.run(time.Second)
	}
	b.finish(b.submit(g, 0, abi.Instruction{}))
	if off, fast, slow := b.driver.Power(); off < n || fast < n || slow != 0 {
		b.t.Errorf("powered off %d times, back fast %d and slowly %d times", off, fast, slow)
	}
}

// sleeps puts the device to sleep in the middle of work.
func (b *bench) sleeps(power bool) {
	f := b.submit(b.group(1), 0, b.counting(0, 100_000)...)
	a := b.create("a", nil)
	b.ok(a.Run(background, b.job(1, 60, "workgroup=1ms")))
	b.run(20 * time.Millisecond)
	b.ok(b.driver.Sleep(background))
	at := b.look(0)
	if power {
		b.ok(b.firmware.PowerOff())
	}
	b.run(time.Minute)
	if at == 0 || b.look(0) != at || f.done || a.ended[1] != "" {
		b.t.Errorf("not asleep: %d, then %d", at, b.look(0))
	}
	b.ok(b.driver.Wake(background))
	b.finish(f)
	b.until("the job", func() bool { return a.ended[1] != "" })
	b.check(a, 60)
	if v := b.look(0); v != 100_000 {
		b.t.Errorf("counted %d", v)
	}
}
