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

// Where snapshots are written.
const (
	snapshotAt   = 0x100000
	snapshotRoom = 0x10000 // In dwords.
)

// ask sends a blocking request with fence 0012.
func (h *host) ask(b abi.Body) {
	h.Helper()
	hxg := abi.Request(b).Dwords()
	h.send(append([]uint32{0x00120000 | uint32(len(hxg))}, hxg...)...)
}

func (h *host) control(c abi.VFCommand) {
	h.Helper()
	h.ask(abi.VFControl{Function: 1, Command: c})
}

func answer(dw uint32) []uint32      { return []uint32{0x00120001, dw} }
func notified(state uint32) []uint32 { return []uint32{3, 0x90005106, 1, state} }

// save pauses the device, which must be idle soon, and returns the snapshot's size.
func (h *host) save() uint32 {
	h.Helper()
	h.control(abi.VFPause)
	h.run(20 * ms)
	h.want(answer(0xF0000000), notified(3))
	h.ask(abi.SaveRestoreVF{Function: 1})
	got := h.received()
	if len(got) != 1 || got[0][1]>>28 != 0xF {
		h.Fatalf("size query: %08x", got)
	}
	size := got[0][1] & 0x0FFFFFFF
	h.ask(abi.SaveRestoreVF{Function: 1, Address: snapshotAt, Dwords: snapshotRoom})
	h.want(answer(0xF0000000 | size))
	return size
}

// restore pauses the device and restores what lies in memory.
func (h *host) restore(size uint32) {
	h.Helper()
	h.control(abi.VFPause)
	h.step()
	h.want(answer(0xF0000000), notified(3))
	h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: size})
	h.want(answer(0xF0000000 | size))
}

// fix resumes after a restore and does the guest's part.
func (h *host) fix() {
	h.Helper()
	h.control(abi.VFResume)
	h.want(answer(0xF0000000))
	h.wantRegister(abi.RegInterruptSource, abi.InterruptMigrated)
	h.ports.Registers.Store(abi.RegInterruptSource, 0)
	h.wantMMIO(0xF0000000, 0x0007550F)
	h.wantMMIO(0xF0000000, 0x00075508)
	h.want(notified(4))
}

func TestPauseAndResume(t *testing.T) {
	for _, first := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.NotifyFirst = first })
		g := h.context(1, 4, 1)
		j := g.job("run", 5, 10*ms)
		g.enable()
		h.run(15 * ms)
		h.want(modeDone(1, 1))
		h.control(abi.VFPause)
		if first {
			h.want()
		} else {
			h.want(answer(0xF0000000))
		}
		h.ask(abi.SaveRestoreVF{Function: 1}) // Not off the engine yet.
		h.want(answer(0xE000000A))
		g.kick() // The guest has to be quiet.
		h.want(failed(0x0A))
		h.run(5 * ms)
		if first {
			h.want(notified(3), answer(0xF0000000))
		} else {
			h.want(notified(3))
		}
		if r := j.report(); r.Status != hw.StatusPreempted || r.Done != 2 {
			t.Errorf("report %+v", r)
		}
		h.control(abi.VFPause) // Twice.
		h.want(answer(0xE000000A))
		h.run(time.Hour)
		h.control(abi.VFResume)
		h.run(30 * ms)
		h.want(answer(0xF0000000))
		if !j.done() {
			t.Errorf("report %+v", j.report())
		}
		h.eng.exactlyOnce(t, core.JobID(j.id), 5)
		h.control(abi.VFResume)
		h.want(answer(0xE000000A))
	}
}

func TestPauseForcesAndWaits(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.DoneDelay = 30 * ms })
	g, gone := h.context(1, 4, 1), h.context(2, 4, 1)
	g.policies(2, 0, 20*ms)
	g.job("hang", 5, ms)
	g.enable()
	h.want(modeDone(1, 1))
	h.fast(abi.DeregisterContext{ID: abi.GUCID(gone.id)})
	h.control(abi.VFPause)
	h.want(answer(0xF0000000))
	h.run(29 * ms)
	h.want(captured(), wasReset(1))
	h.run(ms)
	h.want(deregistered(2), notified(3))
}

func TestStopAndFunctionReset(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(1, 4, 1)
	j := g.job("run", 50, ms)
	g.enable()
	h.received()
	h.control(abi.VFStop)
	h.run(10 * ms)
	h.want(answer(0xF0000000))
	h.control(abi.VFResume)
	h.want(answer(0xE000000A))
	h.control(abi.VFResetStart)
	h.want(answer(0xF0000000), notified(2))
	h.control(abi.VFResetFinish)
	h.want(answer(0xF0000000))
	if j.done() {
		t.Error("a stopped function went on")
	}
	g.enable()
	h.want(failed(0x100))
	h.context(1, 4, 1).enable()
	h.want(modeDone(1, 1))
	h.control(abi.VFResetFinish)
	h.want(answer(0xE000000A))
	h.ask(abi.VFControl{Function: 0, Command: abi.VFPause})
	h.want(answer(0xE000000C))
	h.ask(abi.SaveRestoreVF{Function: 2})
	h.want(answer(0xE000000C))
}

// TestMigration moves a device with contexts in all states to another one, at
// different moments; it must go on as if nothing had happened.
func TestMigration(t *testing.T) {
	for _, at := range []time.Duration{0, ms, 7 * ms, 19 * ms, 43 * ms, 200 * ms} {
		for _, elsewhere := range []bool{false, true} {
			h := newReady(t, nil)
			var contexts []*gpuContext
			var jobs []*gpuJob
			for id := range uint32(6) {
				g := h.context(id, 4, 1)
				g.policies(2+id%2, 3*ms, 640*ms)
				jobs = append(jobs, g.job("run", 10, ms))
				contexts = append(contexts, g)
			}
			for _, g := range contexts[:4] {
				g.enable()
			}
			h.run(at)
			h.received()
			to := h
			size := h.save()
			if elsewhere {
				to = h.moveTo(newHost(t, nil))
			} else {
				h.store(abi.RegReset, abi.ResetFull)
				h.store(abi.RegLoad, abi.LoadFirmware)
			}
			to.bringUp(4096, 8192)
			to.restore(size)
			to.fix()
			for _, g := range contexts {
				g.h = to
			}
			to.adopt(contexts)
			to.run(100 * ms)
			for i, j := range jobs {
				if j.done() != (i < 4) {
					t.Errorf("after %s: job %d done %t: %+v", at, i, j.done(), j.report())
				}
			}
			contexts[5].enable() // Registered and disabled it was, and has its policies.
			contexts[0].disable()
			to.fast(abi.DeregisterContext{ID: 0})
			to.run(50 * ms)
			to.want(modeDone(5, 1), modeDone(0, 0), deregistered(0))
			if !jobs[5].done() {
				t.Errorf("after %s: %+v", at, jobs[5].report())
			}
			if !elsewhere {
				h.eng.exactlyOnce(t, core.JobID(jobs[2].id), 10)
			}
		}
	}
}

// moveTo copies the memory to another device, as whoever migrates does.
func (h *host) moveTo(to *host) *host {
	h.Helper()
	from, err1 := h.arena.Bytes(hw.MemoryBase, h.next-hw.MemoryBase)
	into, err2 := to.arena.Bytes(hw.MemoryBase, h.next-hw.MemoryBase)
	if err1 != nil || err2 != nil {
		h.Fatal(err1, err2)
	}
	copy(into, from)
	to.next, to.nextID = h.next, h.nextID
	return to
}

// adopt makes contexts point into this host's memory.
func (h *host) adopt(contexts []*gpuContext) {
	h.Helper()
	for _, g := range contexts {
		g.regs, _ = h.arena.Words(g.lrc+abi.RegisterOffset, 1024)
		g.ring, _ = h.arena.Words(g.lrc, abi.RingDwords)
	}
}

func TestRestoreKeepsWhatCountsAndOrder(t *testing.T) {
	h := newReady(t, nil)
	h.arena.Store32(0x50000, 0x40010000)
	h.ask(abi.OptInFeature{Address: 0x50000, Dwords: 1})
	bad := h.context(1, 4, 1)
	bad.job("trap", 5, ms)
	bad.enable()
	h.run(2 * ms)
	h.received()
	var jobs []*gpuJob
	blocker := h.context(9, 4, 1)
	blocker.policies(3, 0, 0)
	jobs = append(jobs, blocker.job("run", 20, ms))
	blocker.enable()
	for _, id := range []uint32{7, 3, 5} {
		g := h.context(id, 4, 1)
		g.policies(3, 0, 0)
		jobs = append(jobs, g.job("run", 1, ms))
		g.enable()
	}
	h.run(ms)
	h.received()
	started := len(h.eng.starts())
	size := h.save()
	h.store(abi.RegReset, abi.ResetFull)
	h.store(abi.RegLoad, abi.LoadFirmware)
	h.bringUp(4096, 8192)
	h.restore(size)
	h.fix()
	h.run(50 * ms)
	var order []core.JobID
	for _, d := range h.eng.starts()[started:] {
		order = append(order, d.Job)
	}
	want := []core.JobID{core.JobID(jobs[0].id), core.JobID(jobs[1].id), core.JobID(jobs[2].id), core.JobID(jobs[3].id)}
	if !slices.Equal(order, want) {
		t.Errorf("started %v, want %v", order, want)
	}
	bad.kick() // Still reset.
	if h.fw.Counters().Dropped != 1 {
		t.Error("a reset context was revived")
	}
	cat := h.context(20, 4, 1)
	j := cat.job("run", 1, ms)
	cat.ring.Store(j.start/4+10, 8)
	cat.enable()
	h.want(modeDone(20, 1), []uint32{3, 0x90006000, 20, 0xDEADBEEF})
}

func TestSaveAndRestoreRefusals(t *testing.T) {
	h := newReady(t, nil)
	h.ask(abi.SaveRestoreVF{Function: 1})
	h.want(answer(0xE000000A)) // Golden: not paused.
	h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: 100})
	h.want(answer(0xE000000A))
	h.context(1, 4, 1)
	size := h.save()
	word := func(i uint32) uint64 { return snapshotAt + uint64(i)*4 }
	for _, c := range []struct {
		m    abi.SaveRestoreVF
		code uint32
	}{
		{abi.SaveRestoreVF{Address: snapshotAt, Dwords: size - 1}, 0x102},
		{abi.SaveRestoreVF{Address: snapshotAt, Dwords: 0}, 0x102},
		{abi.SaveRestoreVF{Address: 0, Dwords: size}, 0x80},
		{abi.SaveRestoreVF{Address: 1 << 40, Dwords: size}, 0x80},
		{abi.SaveRestoreVF{Address: snapshotAt + 2, Dwords: size}, 0x80},
		{abi.SaveRestoreVF{Restore: true, Address: 0x1000, Dwords: size}, 0x80},
		{abi.SaveRestoreVF{Restore: true, Address: 64<<20 - 8, Dwords: size}, 0x80},
		{abi.SaveRestoreVF{Restore: true, Address: snapshotAt, Dwords: size - 1}, 0x102},
		{abi.SaveRestoreVF{Restore: true, Address: snapshotAt, Dwords: 20}, 0x102},
		{abi.SaveRestoreVF{Restore: true, Address: snapshotAt + 4, Dwords: size}, 0x71},
	} {
		c.m.Function = 1
		h.ask(c.m)
		h.want(answer(0xE0000000 | c.code))
	}
	for at, code := range map[uint32]uint32{0: 0x71, 1: 0x0B, 2: 0x71, 3: 0x71, 4: 0x71, 5: 0x71, 20: 0x71, size - 1: 0x71, size: 0x71} {
		old, _ := h.arena.Load32(word(at))
		h.arena.Store32(word(at), old^1)
		want := code
		if at == 2 { // Longer than the buffer, if it became so.
			if want = 0x71; old^1 > size+1 {
				want = 0x102
			}
		}
		h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: size + 1})
		h.want(answer(0xE0000000 | want))
		h.arena.Store32(word(at), old)
	}
	h.control(abi.VFResume) // Nothing has changed.
	h.want(answer(0xF0000000))
	h.fast(abi.SchedContextModeSet{ID: 1, Enable: true})
	h.want(modeDone(1, 1))
}

func TestFixups(t *testing.T) {
	h := newReady(t, nil)
	h.wantMMIO(0xE000000A, 0x0001550F) // Nobody was migrated.
	h.wantMMIO(0xE000000A, 0x00015508)
	g := h.context(1, 4, 1)
	j := g.job("run", 5, ms)
	g.enable()
	h.received()
	size := h.save()
	h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: size})
	h.want(answer(0xF0000000 | size))
	h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: size})
	h.want(answer(0xE000000A))
	h.interrupted()
	h.control(abi.VFResume)
	h.run(50 * ms)
	h.want(answer(0xF0000000))
	if !h.interrupted() || j.done() {
		t.Errorf("done %t before the fix-ups", j.done())
	}
	h.wantMMIO(0xE0000107, 0x508, 0x09040001, 4096) // Migrated.
	h.wantMMIO(0xE0000107, 0x00025508)              // Done without start.
	h.wantMMIO(0xE0000060, 0x0000550F)              // No marker.
	h.wantMMIO(0xF0000000, 0x5500, 0)
	h.wantMMIO(0xF0000000, 0x0001550F)
	h.wantMMIO(0xE0000107, 0x00025508) // Another marker: from the beginning.
	h.wantMMIO(0xE0000107, 0x00015508)
	h.wantMMIO(0xF0000000, 0x0003550F)
	h.wantMMIO(0xF0000000, 0x0004550F) // Again.
	h.fast(abi.SchedContext{ID: 1})    // Not taken yet.
	h.run(50 * ms)
	if j.done() {
		t.Error("a job ran during the fix-ups")
	}
	h.wantMMIO(0xF0000000, 0x00045508)
	h.run(5 * ms)
	h.want(notified(4))
	if !j.done() {
		t.Errorf("report %+v", j.report())
	}
}

// TestRestoredRings gives the rings of the snapshot other places than those that
// restored it; the guest may also move them.
func TestRestoredRings(t *testing.T) {
	for name, change := range map[string]func(h *host){
		"as they were": func(*host) {},
		"registered anew": func(h *host) {
			d, _ := h.arena.Bytes(h2gDesc, 64)
			clear(d)
			h.wantMMIO(0xF0000001, 0x508, 0x09020002, h2gBuffer+0x8000, 0)
			h.wantMMIO(0xF0000000, 0x4509, 1)
			h.h2g, _ = abi.NewSender(h.ring(h2gDesc, h2gBuffer+0x8000, 4096))
		},
	} {
		h := newReady(t, nil)
		h.context(1, 4, 1).enable()
		h.received()
		size := h.save()
		guestH2G, guestG2H := h.h2g, h.g2h
		h.store(abi.RegReset, abi.ResetFull)
		h.store(abi.RegLoad, abi.LoadFirmware)
		h.bringUpAt(0x40000, 4096, 8192)
		h.restore(size)
		h.control(abi.VFResume)
		h.want(answer(0xF0000000))
		h.h2g, h.g2h = guestH2G, guestG2H
		h.wantMMIO(0xF0000000, 0x0007550F)
		t.Log(name)
		change(h)
		h.wantMMIO(0xF0000000, 0x00075508)
		h.want(notified(4))
		h.fast(abi.SchedContextModeSet{ID: 1})
		h.want(modeDone(1, 0))
	}
}

// TestSnapshotHoldsWaitingMessages saves while the G2H ring is full.
func TestSnapshotHoldsWaitingMessages(t *testing.T) {
	h := newHost(t, nil)
	h.bringUp(4096, 4096)
	h.context(1, 4, 1)
	for range 300 {
		h.fast(abi.SchedContextModeSet{ID: 1})
	}
	h.control(abi.VFPause)
	h.ask(abi.SaveRestoreVF{Function: 1, Address: snapshotAt, Dwords: snapshotRoom})
	got := h.received()
	for len(got) < 303 {
		h.run(2 * ms)
		got = append(got, h.received()...)
	}
	size := got[302][1] & 0x0FFFFFFF
	if size < 21+11+40*4 {
		t.Fatalf("%d dwords", size)
	}
	h.ask(abi.SaveRestoreVF{Restore: true, Function: 1, Address: snapshotAt, Dwords: size})
	h.want(answer(0xF0000000 | size))
	h.control(abi.VFResume)
	h.want(answer(0xF0000000))
	h.wantMMIO(0xF0000000, 0x0007550F)
	h.wantMMIO(0xF0000000, 0x00075508)
	again := h.received() // What was waiting then is said (again) now.
	if len(again) < 41 || !slices.Equal(again[0], modeDone(1, 0)) {
		t.Errorf("%d messages", len(again))
	}
}
