package guc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"pgregory.net/rapid"
)

var background = context.Background()

func TestLifeOfJobs(t *testing.T) {
	w := testWorld(t, nil)
	l := w.create("a", nil)
	w.ok(l.Run(background, w.job(1, 40, "workgroup=1ms")))
	w.ok(l.Run(background, w.job(2, 10, "workgroup=3ms")))
	resumed := w.job(3, 20, "workgroup=1ms")
	resumed.First = 20 // Nothing left to do.
	w.ok(l.Run(background, resumed))
	w.until("the third job", func() bool { return l.ended[3] != "" })
	want := []string{"a started 1", "a completed 1", "a started 2", "a completed 2", "a started 3", "a completed 3"}
	if !slices.Equal(w.log, want) {
		t.Errorf("reports %q, want %q", w.log, want)
	}
	if u := l.usage[1]; u.Done != 40 || u.Executed != 40 || u.ExecutedTime != 40*time.Millisecond {
		t.Errorf("usage %+v", u)
	}
	if u := l.usage[3]; u.Done != 20 || u.Executed != 0 {
		t.Errorf("usage of the job without work %+v", u)
	}
	w.check(l, [2]uint64{1, 40}, [2]uint64{2, 10})
	w.ok(l.Destroy(background))
	w.ok(l.Destroy(background))
	w.idle()
}

func TestTwoEntitiesShare(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.create("a", nil), w.create("b", nil)
	w.ok(a.Run(background, w.job(1, 200, "workgroup=1ms")))
	w.ok(b.Run(background, w.job(2, 200, "workgroup=1ms")))
	w.run(200 * time.Millisecond)
	for _, l := range []*life{a, b} {
		p := l.Progress()
		if len(p) != 1 || p[0].Done < 60 || p[0].Done > 140 {
			t.Errorf("%s: progress %+v in the middle", l.name, p)
		}
	}
	w.until("both", func() bool { return a.ended[1] != "" && b.ended[2] != "" })
	w.check(a, [2]uint64{1, 200})
	w.check(b, [2]uint64{2, 200})
	w.idle()
}

func TestPriorityChanges(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.create("a", nil), w.create("b", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.ok(b.Run(background, w.job(2, 100, "workgroup=1ms")))
	w.ok(b.SetProperties(background, core.Properties{Priority: core.PriorityHigh}))
	if err := b.SetProperties(background, core.Properties{Priority: "utmost"}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("unknown priority: %v", err)
	}
	w.until("both", func() bool { return a.ended[1] != "" && b.ended[2] != "" })
	if at := slices.Index(w.log, "b completed 2"); at < 0 || at > slices.Index(w.log, "a completed 1") {
		t.Errorf("the high priority came last: %q", w.log)
	}
}

func TestSuspendSaveRestore(t *testing.T) {
	w := testWorld(t, nil)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.ok(a.Run(background, w.job(2, 50, "workgroup=1ms")))
	w.run(30 * time.Millisecond)
	if _, err := a.Save(background); err == nil {
		t.Error("saved while it may run")
	}
	w.ok(a.Suspend(background))
	w.ok(a.Suspend(background))
	before := w.engine.executed[1]
	w.run(time.Second)
	if w.engine.executed[1] != before {
		t.Error("a suspended entity ran on")
	}
	image, err := a.Save(background)
	w.ok(err)
	header := image.Header()
	if len(header.Jobs) != 2 || header.Jobs[0].Cursor != before || header.Jobs[0].Executed != before || header.Jobs[1].Cursor != 0 {
		t.Fatalf("jobs in the image: %+v, executed %d", header.Jobs, before)
	}
	b := w.create("b", image)
	w.ok(a.Destroy(background))
	for i, j := range []core.JobID{1, 2} {
		again := w.job(j, []uint32{100, 50}[i], "workgroup=1ms")
		again.First, again.Epoch = header.Jobs[i].Cursor, 2
		w.ok(b.Run(background, again))
	}
	w.until("the second job", func() bool { return b.ended[2] != "" })
	if w.engine.executed[1] != 100 || b.usage[1].Done != 100 || b.usage[1].Executed != 100-before {
		t.Errorf("executed %d, usage %+v", w.engine.executed[1], b.usage[1])
	}
	w.check(b, [2]uint64{1, 100}, [2]uint64{2, 50})
	w.ok(b.Destroy(background))
	w.idle()
}

func TestSuspendWithoutWork(t *testing.T) {
	w := testWorld(t, nil)
	a := w.create("a", nil)
	w.ok(a.Suspend(background))
	w.ok(a.Resume(background))
	w.ok(a.Run(background, w.job(1, 5, "workgroup=1ms")))
	w.until("the job", func() bool { return a.ended[1] != "" })
	sets := w.firmware.Counters().ModeSets
	w.ok(a.Suspend(background))
	w.ok(a.Run(background, w.job(2, 5, "workgroup=1ms")))
	w.run(time.Second)
	if a.started[2] || w.firmware.Counters().ModeSets != sets {
		t.Error("an idle suspend disabled the context, or did not hold back a job")
	}
	w.ok(a.Cancel(background, 2))
	if a.ended[2] != "cancelled" {
		t.Error("a job nobody saw was not cancelled at once")
	}
	w.ok(a.Run(background, w.job(3, 5, "workgroup=1ms")))
	w.ok(a.Resume(background))
	w.until("the third job", func() bool { return a.ended[3] != "" })
	w.check(a, [2]uint64{1, 5}, [2]uint64{3, 5})
	w.idle()
}

func TestCancel(t *testing.T) {
	w := testWorld(t, nil)
	a := w.create("a", nil)
	for id := core.JobID(1); id <= 4; id++ {
		w.ok(a.Run(background, w.job(id, 50, "workgroup=1ms")))
	}
	w.run(20 * time.Millisecond)
	w.ok(a.Cancel(background, 3))
	w.until("the queued job's end", func() bool { return a.ended[3] != "" })
	w.ok(a.Cancel(background, 1))
	w.ok(a.Cancel(background, 99))
	w.until("the running job's end", func() bool { return a.ended[1] != "" })
	w.until("the last", func() bool { return a.ended[4] != "" })
	if a.ended[1] != "cancelled" || a.ended[3] != "cancelled" || a.ended[2] != "completed" || a.ended[4] != "completed" {
		t.Fatalf("outcomes %v", a.ended)
	}
	done := a.usage[1].Done
	if done < 15 || done >= 50 || done != w.engine.executed[1] || a.usage[3].Done != 0 {
		t.Errorf("usage %+v, executed %v", a.usage, w.engine.executed)
	}
	w.check(a, [2]uint64{1, done}, [2]uint64{2, 50}, [2]uint64{4, 50})
	w.ok(a.Destroy(background))
	w.idle()
}

func TestDestroyWhileRunning(t *testing.T) {
	w := testWorld(t, func(c *driver.Config) { c.EntitiesMax = 2 })
	b := w.create("b", nil)
	w.ok(b.Run(background, w.job(9, 3000, "workgroup=1ms")))
	for range 50 { // Neither ids nor memory run out.
		a := w.create("a", nil)
		if _, err := w.tryCreate("c", nil); !errors.Is(err, core.ErrFull) {
			t.Fatalf("a third entity: %v", err)
		}
		w.ok(a.Run(background, w.job(1, 1000, "workgroup=1ms")))
		w.run(5 * time.Millisecond)
		w.ok(a.Destroy(background))
		count := len(w.log)
		if err := a.Run(background, w.job(2, 1, "workgroup=1ms")); !errors.Is(err, core.ErrClosed) {
			t.Fatalf("run after destroy: %v", err)
		}
		w.run(5 * time.Millisecond)
		for _, line := range w.log[count:] {
			if line[0] == 'a' {
				t.Fatalf("report after destroy: %s", line)
			}
		}
	}
	w.until("the other", func() bool { return b.ended[9] != "" })
	w.check(b, [2]uint64{9, 3000})
	w.idle()
}

func TestRingIsFull(t *testing.T) {
	w := testWorld(t, func(c *driver.Config) { c.Credits = 4 })
	a := w.create("a", nil)
	big := w.job(1, 10, "workgroup=1ms")
	big.Spec.Credits = 3
	w.ok(a.Run(background, big))
	if err := a.Run(background, big); !errors.Is(err, core.ErrExists) {
		t.Errorf("the same job twice: %v", err)
	}
	w.ok(a.Run(background, w.job(2, 10, "workgroup=1ms")))
	if err := a.Run(background, w.job(3, 10, "workgroup=1ms")); !errors.Is(err, core.ErrFull) {
		t.Errorf("a job too many: %v", err)
	}
	huge := w.job(4, 10, "workgroup=1ms")
	huge.Spec.Credits = 5
	if err := a.Run(background, huge); !errors.Is(err, core.ErrOversize) {
		t.Errorf("a job too large: %v", err)
	}
	w.until("the first", func() bool { return a.ended[1] != "" })
	// Far more jobs than the ring holds go through it.
	for id := core.JobID(10); id < 500; id++ {
		if err := a.Run(background, w.job(id, 2, "workgroup=1ms")); errors.Is(err, core.ErrFull) {
			w.until("room", func() bool { return a.ended[id-3] != "" })
			w.ok(a.Run(background, w.job(id, 2, "workgroup=1ms")))
		}
	}
	w.until("the last", func() bool { return a.ended[499] != "" })
	w.idle()
}

func TestFaultHitsTheGuiltyOnly(t *testing.T) {
	for _, c := range []struct {
		name, script string
		cause        core.Cause
		done         uint64
	}{
		{"trap", "workgroup=1ms trap=7", core.CauseTrap, 7},
		{"hang", "workgroup=1ms hang=3", core.CauseHang, 3},
		{"no kernel", "nonsense", core.CauseKernel, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := testWorld(t, nil)
			a, b := w.create("a", nil), w.create("b", nil)
			w.ok(b.Run(background, w.job(1, 100, "workgroup=1ms")))
			w.ok(a.Run(background, w.job(2, 5, "workgroup=1ms")))
			w.ok(a.Run(background, w.job(3, 50, c.script)))
			w.ok(a.Run(background, w.job(4, 50, "workgroup=1ms")))
			w.until("the loss", func() bool { return len(a.lost) > 0 })
			got := a.lost[0]
			if !got.guilty || got.job != 3 || got.cause != c.cause || got.usage.Done != c.done || got.detail == "" {
				t.Errorf("lost %+v", got)
			}
			if a.ended[2] != "completed" {
				t.Error("the job before did not complete")
			}
			if err := a.Suspend(background); !errors.Is(err, core.ErrClosed) {
				t.Errorf("suspend of a lost entity: %v", err)
			}
			w.ok(a.Destroy(background))
			w.until("the victim's job", func() bool { return b.ended[1] != "" })
			w.check(b, [2]uint64{1, 100})
			if len(a.lost) != 1 || len(b.lost) != 0 {
				t.Errorf("losses %v and %v", a.lost, b.lost)
			}
			w.ok(b.Destroy(background))
			w.idle()
		})
	}
}

// TestStuckWorkgroup: what can't be aborted takes the device with it, after the guilty was named.
func TestStuckWorkgroup(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.create("a", nil), w.create("b", nil)
	w.ok(a.Run(background, w.job(1, 50, "workgroup=1ms hang=3 stuck")))
	w.run(50 * time.Millisecond)
	w.ok(b.Run(background, w.job(2, 50, "workgroup=1ms")))
	w.until("the failure", func() bool { return len(w.failed) > 0 })
	if want := []string{"a started 1", "a lost 1 hang guilty=true", "failed"}; !slices.Equal(w.log, want) {
		t.Errorf("reports %q, want %q", w.log, want)
	}
	if err := b.Run(background, w.job(3, 1, "workgroup=1ms")); err == nil {
		t.Error("a failed device took a job")
	}
}

func TestSilentFirmware(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.create("a", nil), w.create("b", nil)
	w.ok(b.Run(background, w.job(2, 50, "workgroup=1ms")))
	w.ok(a.Run(background, w.job(1, 50, "workgroup=1ms hang=3")))
	w.until("the start", func() bool { return a.started[1] })
	w.mute = true
	if err := a.Suspend(background); err == nil {
		t.Error("suspended by a firmware that does not answer")
	}
	if n := len(w.log); n < 2 || w.log[n-1] != "failed" || len(w.failed) != 1 || len(a.lost) > 0 {
		t.Errorf("reports %q, failures %v", w.log, w.failed)
	}
	dead := hw.Ports{Registers: w.ports.Registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	var clock = hw.NewVirtualClock()
	late, err := driver.New(driver.Config{Arena: w.arena, Ports: dead, Clock: clock, Formats: []string{formatScript}, Pump: nil})
	w.ok(err)
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := late.Start(ctx); err == nil {
		t.Error("started without a firmware")
	}
	w.ok(late.Close(background))
}

// TestEngineFailureBlamesNobody: the job that was on an engine which failed by
// itself is a victim.
func TestEngineFailureBlamesNobody(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.create("a", nil), w.create("b", nil)
	w.ok(a.Run(background, w.job(1, 50, "workgroup=1ms broken=3")))
	w.ok(b.Run(background, w.job(2, 50, "workgroup=1ms")))
	w.until("the loss", func() bool { return len(a.lost) > 0 })
	if got := a.lost[0]; got.guilty || got.job != 0 || got.cause != core.CauseDevice || got.detail != "no memory" {
		t.Errorf("lost %+v", got)
	}
	w.until("the other", func() bool { return b.ended[2] != "" })
	w.ok(a.Destroy(background))
	w.ok(b.Destroy(background))
	w.idle()
}

// TestDriverLooksBeforeItJudges: a driver that slept through its deadline finds
// the answer, which came in time, and believes it.
func TestDriverLooksBeforeItJudges(t *testing.T) {
	var w *world
	sleeps := false
	w = testWorld(t, func(c *driver.Config) {
		pump := c.Pump
		c.Pump = func() bool {
			if sleeps {
				sleeps = false
				w.driver.Step() // The question leaves; the firmware alone goes on.
				for range 10_000 {
					w.firmware.Step()
					w.clock.Advance(time.Millisecond)
				}
			}
			return pump()
		}
	})
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 50, "workgroup=1ms")))
	w.run(5 * time.Millisecond)
	sleeps = true
	w.ok(a.Suspend(background))
	w.ok(a.Resume(background))
	w.until("the job", func() bool { return a.ended[1] != "" })
	w.check(a, [2]uint64{1, 50})
	w.idle()
}

// TestRandomLives draws whole lives and checks that each job ends once, that
// the bytes are those of an undisturbed run, and that all credits come back.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, end := newWorld(t, func(c *driver.Config) { c.Credits = 6 })
		defer end()
		lives := []*life{w.create("a", nil), w.create("b", nil), w.create("c", nil)}
		type submitted struct {
			id    core.JobID
			count uint64
		}
		jobs := make([][]submitted, len(lives))
		suspended := make([]bool, len(lives))
		next := core.JobID(0)
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, len(lives)-1).Draw(t, "entity")
			l := lives[i]
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				next++
				j := submitted{next, uint64(rapid.IntRange(1, 60).Draw(t, "workgroups"))}
				err := l.Run(background, w.job(j.id, uint32(j.count), "workgroup=1ms"))
				if err == nil {
					jobs[i] = append(jobs[i], j)
				} else if !errors.Is(err, core.ErrFull) {
					t.Fatal(err)
				}
			case 2:
				if n := len(jobs[i]); n > 0 {
					w.ok(l.Cancel(background, jobs[i][rapid.IntRange(0, n-1).Draw(t, "job")].id))
				}
			case 3:
				w.ok(l.Suspend(background))
				suspended[i] = true
			case 4:
				w.ok(l.Resume(background))
				suspended[i] = false
			case 5:
				p := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
				w.ok(l.SetProperties(background, core.Properties{Priority: rapid.SampledFrom(p).Draw(t, "priority")}))
			case 6:
				w.run(time.Duration(rapid.IntRange(0, 80).Draw(t, "ms")) * time.Millisecond)
			}
		}
		for i, l := range lives {
			w.ok(l.Resume(background))
			var all [][2]uint64
			for _, j := range jobs[i] {
				w.until("a job's end", func() bool { return l.ended[j.id] != "" })
				done := l.usage[j.id].Done
				if l.ended[j.id] == "completed" && done != j.count || done != w.engine.executed[j.id] {
					t.Fatalf("job %d %s: usage %+v of %d, executed %d", j.id, l.ended[j.id], l.usage[j.id], j.count, w.engine.executed[j.id])
				}
				all = append(all, [2]uint64{uint64(j.id), done})
			}
			w.check(l, all...)
			w.ok(l.Destroy(background))
		}
		w.idle()
	})
}

// FuzzG2H lets the firmware say anything: the driver drops it or gives the
// device up, and never panics.
func FuzzG2H(f *testing.F) {
	add := func(packets ...abi.Packet) {
		var raw []byte
		for _, p := range packets {
			hxg := p.Dwords()
			for _, dw := range append([]uint32{abi.CTBHeader{Dwords: uint8(len(hxg))}.Encode()}, hxg...) {
				raw = append(raw, byte(dw), byte(dw>>8), byte(dw>>16), byte(dw>>24))
			}
		}
		f.Add(raw)
	}
	add(abi.GUCEvent(abi.SchedContextModeDone{ID: 0}), abi.GUCEvent(abi.DeregisterContextDone{ID: 0}))
	add(abi.GUCEvent(abi.ContextReset{ID: 0}), abi.GUCEvent(abi.CatError{ID: 9}), abi.GUCEvent(abi.StateCapture{}))
	add(abi.SuccessReply(1), abi.FailureReply(abi.ErrorAborted, 0), abi.RetryReply(0), abi.BusyReply(0))
	add(abi.GUCEvent(abi.EngineFailure{}), abi.GUCEvent(abi.Exception{}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		w := testWorld(t, nil)
		a := w.create("a", nil)
		w.ok(a.Run(background, w.job(1, 50, "workgroup=1ms")))
		w.run(10 * time.Millisecond)
		// The transport is the first thing in memory; the G2H descriptor and buffer lie in it as Xe has them.
		const desc, buffer, size = hw.MemoryBase + 0x800, hw.MemoryBase + 0x2000, 32768
		tail, err := w.arena.Load32(desc + 4*abi.DescTail)
		w.ok(err)
		for ; len(raw) >= 4; raw = raw[4:] {
			w.ok(w.arena.Store32(buffer+4*uint64(tail), uint32(raw[0])|uint32(raw[1])<<8|uint32(raw[2])<<16|uint32(raw[3])<<24))
			tail = (tail + 1) % size
		}
		w.ok(w.arena.Store32(desc+4*abi.DescTail, tail))
		w.mute = true
		w.ports.Interrupt.Raise()
		w.run(20 * time.Second)
		// Whatever was believed, a request still gets an answer.
		_ = a.Suspend(background)
		_ = a.Destroy(background)
	})
}

// TestSeqnoGoesOn: a context made of an image of this backend never repeats a seqno;
// one made of another's begins where a fresh one does.
func TestSeqnoGoesOn(t *testing.T) {
	w := testWorld(t, nil)
	seqno := func(l *life) uint32 {
		for _, c := range w.driver.Contexts() {
			if c.Entity == l.spec.ID {
				return c.Seqno
			}
		}
		t.Fatalf("%s has no context", l.name)
		return 0
	}
	a := w.create("a", nil)
	fresh := seqno(a)
	for id := range core.JobID(3) {
		w.ok(a.Run(background, w.job(id+1, 5, "workgroup=1ms")))
	}
	w.until("three jobs", func() bool { return a.ended[3] != "" })
	w.ok(a.Suspend(background))
	image, err := a.Save(background)
	w.ok(err)
	b := w.create("b", image)
	if seqno(b) != fresh+3 {
		t.Errorf("it goes on after seqno %d, not %d", seqno(b), fresh+3)
	}
	w.ok(b.Run(background, w.job(4, 5, "workgroup=1ms")))
	w.until("the job of b", func() bool { return b.ended[4] != "" })
	if seqno(b) != fresh+4 {
		t.Errorf("its job has seqno %d, not %d", seqno(b), fresh+4)
	}
	c := w.create("c", foreign{image})
	if seqno(c) != fresh {
		t.Errorf("another backend's image goes on after seqno %d, not %d", seqno(c), fresh)
	}
}

// foreign is an image under another backend's name.
type foreign struct{ core.ImageSource }

// Header implements core.ImageSource.
func (f foreign) Header() core.ImageHeader {
	h := f.ImageSource.Header()
	h.Backend = "other"
	return h
}
