package guc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"pgregory.net/rapid"
)

var background = context.Background()

func TestLifeOfJobs(t *testing.T) {
	w := testWorld(t, nil)
	l := w.Create("a", nil)
	w.OK(l.Run(background, w.Job(1, 40, "workgroup=1ms")))
	w.OK(l.Run(background, w.Job(2, 10, "workgroup=3ms")))
	resumed := w.Job(3, 20, "workgroup=1ms")
	resumed.First = 20 // Nothing left to do.
	w.OK(l.Run(background, resumed))
	w.Until("the third job", func() bool { return l.Ended[3] != "" })
	want := []string{"a started 1", "a completed 1", "a started 2", "a completed 2", "a started 3", "a completed 3"}
	if !slices.Equal(w.Log, want) {
		t.Errorf("reports %q, want %q", w.Log, want)
	}
	if u := l.Usage[1]; u.Done != 40 || u.Executed != 40 || u.ExecutedTime != 40*time.Millisecond {
		t.Errorf("usage %+v", u)
	}
	if u := l.Usage[3]; u.Done != 20 || u.Executed != 0 {
		t.Errorf("usage of the job without work %+v", u)
	}
	w.check(l, rig.Done{Job: 1, Count: 40}, rig.Done{Job: 2, Count: 10})
	w.OK(l.Destroy(background))
	w.OK(l.Destroy(background))
	w.idle()
}

func TestTwoEntitiesShare(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 200, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(2, 200, "workgroup=1ms")))
	w.Run(200 * time.Millisecond)
	for _, l := range []*rig.Life{a, b} {
		p := l.Progress()
		if len(p) != 1 || p[0].Done < 60 || p[0].Done > 140 {
			t.Errorf("%s: progress %+v in the middle", l.Name, p)
		}
	}
	w.Until("both", func() bool { return a.Ended[1] != "" && b.Ended[2] != "" })
	w.check(a, rig.Done{Job: 1, Count: 200})
	w.check(b, rig.Done{Job: 2, Count: 200})
	w.idle()
}

func TestPriorityChanges(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(2, 100, "workgroup=1ms")))
	w.OK(b.SetProperties(background, core.Properties{Priority: core.PriorityHigh}))
	if err := b.SetProperties(background, core.Properties{Priority: "utmost"}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("unknown priority: %v", err)
	}
	w.Until("both", func() bool { return a.Ended[1] != "" && b.Ended[2] != "" })
	if at := slices.Index(w.Log, "b completed 2"); at < 0 || at > slices.Index(w.Log, "a completed 1") {
		t.Errorf("the high priority came last: %q", w.Log)
	}
}

func TestSuspendSaveRestore(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.OK(a.Run(background, w.Job(2, 50, "workgroup=1ms")))
	w.Run(30 * time.Millisecond)
	if _, err := a.Save(background); err == nil {
		t.Error("saved while it may run")
	}
	w.OK(a.Suspend(background))
	w.OK(a.Suspend(background))
	before := w.scripted.executed[1]
	w.Run(time.Second)
	if w.scripted.executed[1] != before {
		t.Error("a suspended entity ran on")
	}
	image, err := a.Save(background)
	w.OK(err)
	header := image.Header()
	if len(header.Jobs) != 2 || header.Jobs[0].Cursor != before || header.Jobs[0].Executed != before || header.Jobs[1].Cursor != 0 {
		t.Fatalf("jobs in the image: %+v, executed %d", header.Jobs, before)
	}
	b := w.Create("b", image)
	w.OK(a.Destroy(background))
	for i, j := range []core.JobID{1, 2} {
		again := w.Job(j, []uint32{100, 50}[i], "workgroup=1ms")
		again.First, again.Epoch = header.Jobs[i].Cursor, 2
		w.OK(b.Run(background, again))
	}
	w.Until("the second job", func() bool { return b.Ended[2] != "" })
	if w.scripted.executed[1] != 100 || b.Usage[1].Done != 100 || b.Usage[1].Executed != 100-before {
		t.Errorf("executed %d, usage %+v", w.scripted.executed[1], b.Usage[1])
	}
	w.check(b, rig.Done{Job: 1, Count: 100}, rig.Done{Job: 2, Count: 50})
	w.OK(b.Destroy(background))
	w.idle()
}

func TestSuspendWithoutWork(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	w.OK(a.Suspend(background))
	w.OK(a.Resume(background))
	w.OK(a.Run(background, w.Job(1, 5, "workgroup=1ms")))
	w.Until("the job", func() bool { return a.Ended[1] != "" })
	sets := w.firmware.Counters().ModeSets
	w.OK(a.Suspend(background))
	w.OK(a.Run(background, w.Job(2, 5, "workgroup=1ms")))
	w.Run(time.Second)
	if a.Started[2] || w.firmware.Counters().ModeSets != sets {
		t.Error("an idle suspend disabled the context, or did not hold back a job")
	}
	w.OK(a.Cancel(background, 2))
	if a.Ended[2] != "cancelled" {
		t.Error("a job nobody saw was not cancelled at once")
	}
	w.OK(a.Run(background, w.Job(3, 5, "workgroup=1ms")))
	w.OK(a.Resume(background))
	w.Until("the third job", func() bool { return a.Ended[3] != "" })
	w.check(a, rig.Done{Job: 1, Count: 5}, rig.Done{Job: 3, Count: 5})
	w.idle()
}

func TestCancel(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	for id := core.JobID(1); id <= 4; id++ {
		w.OK(a.Run(background, w.Job(id, 50, "workgroup=1ms")))
	}
	w.Run(20 * time.Millisecond)
	w.OK(a.Cancel(background, 3))
	w.Until("the queued job's end", func() bool { return a.Ended[3] != "" })
	w.OK(a.Cancel(background, 1))
	w.OK(a.Cancel(background, 99))
	w.Until("the running job's end", func() bool { return a.Ended[1] != "" })
	w.Until("the last", func() bool { return a.Ended[4] != "" })
	if a.Ended[1] != "cancelled" || a.Ended[3] != "cancelled" || a.Ended[2] != "completed" || a.Ended[4] != "completed" {
		t.Fatalf("outcomes %v", a.Ended)
	}
	done := a.Usage[1].Done
	if done < 15 || done >= 50 || done != w.scripted.executed[1] || a.Usage[3].Done != 0 {
		t.Errorf("usage %+v, executed %v", a.Usage, w.scripted.executed)
	}
	w.check(a, rig.Done{Job: 1, Count: done}, rig.Done{Job: 2, Count: 50}, rig.Done{Job: 4, Count: 50})
	w.OK(a.Destroy(background))
	w.idle()
}

func TestDestroyWhileRunning(t *testing.T) {
	w := testWorld(t, func(c *driver.Config) { c.EntitiesMax = 2 })
	b := w.Create("b", nil)
	w.OK(b.Run(background, w.Job(9, 3000, "workgroup=1ms")))
	for range 50 { // Neither ids nor memory run out.
		a := w.Create("a", nil)
		if _, err := w.TryCreate("c", nil); !errors.Is(err, core.ErrFull) {
			t.Fatalf("a third entity: %v", err)
		}
		w.OK(a.Run(background, w.Job(1, 1000, "workgroup=1ms")))
		w.Run(5 * time.Millisecond)
		w.OK(a.Destroy(background))
		count := len(w.Log)
		if err := a.Run(background, w.Job(2, 1, "workgroup=1ms")); !errors.Is(err, core.ErrClosed) {
			t.Fatalf("run after destroy: %v", err)
		}
		w.Run(5 * time.Millisecond)
		for _, line := range w.Log[count:] {
			if line[0] == 'a' {
				t.Fatalf("report after destroy: %s", line)
			}
		}
	}
	w.Until("the other", func() bool { return b.Ended[9] != "" })
	w.check(b, rig.Done{Job: 9, Count: 3000})
	w.idle()
}

func TestRingIsFull(t *testing.T) {
	w := testWorld(t, func(c *driver.Config) { c.Credits = 4 })
	a := w.Create("a", nil)
	big := w.Job(1, 10, "workgroup=1ms")
	big.Spec.Credits = 3
	w.OK(a.Run(background, big))
	if err := a.Run(background, big); !errors.Is(err, core.ErrExists) {
		t.Errorf("the same job twice: %v", err)
	}
	w.OK(a.Run(background, w.Job(2, 10, "workgroup=1ms")))
	if err := a.Run(background, w.Job(3, 10, "workgroup=1ms")); !errors.Is(err, core.ErrFull) {
		t.Errorf("a job too many: %v", err)
	}
	huge := w.Job(4, 10, "workgroup=1ms")
	huge.Spec.Credits = 5
	if err := a.Run(background, huge); !errors.Is(err, core.ErrOversize) {
		t.Errorf("a job too large: %v", err)
	}
	w.Until("the first", func() bool { return a.Ended[1] != "" })
	// Far more jobs than the ring holds go through it.
	for id := core.JobID(10); id < 500; id++ {
		if err := a.Run(background, w.Job(id, 2, "workgroup=1ms")); errors.Is(err, core.ErrFull) {
			w.Until("room", func() bool { return a.Ended[id-3] != "" })
			w.OK(a.Run(background, w.Job(id, 2, "workgroup=1ms")))
		}
	}
	w.Until("the last", func() bool { return a.Ended[499] != "" })
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
			a, b := w.Create("a", nil), w.Create("b", nil)
			w.OK(b.Run(background, w.Job(1, 100, "workgroup=1ms")))
			w.OK(a.Run(background, w.Job(2, 5, "workgroup=1ms")))
			w.OK(a.Run(background, w.Job(3, 50, c.script)))
			w.OK(a.Run(background, w.Job(4, 50, "workgroup=1ms")))
			w.Until("the loss", func() bool { return len(a.Lost) > 0 })
			got := a.Lost[0]
			if !got.Guilty || got.Job != 3 || got.Cause != c.cause || got.Usage.Done != c.done || got.Detail == "" {
				t.Errorf("lost %+v", got)
			}
			if a.Ended[2] != "completed" {
				t.Error("the job before did not complete")
			}
			if err := a.Suspend(background); !errors.Is(err, core.ErrClosed) {
				t.Errorf("suspend of a lost entity: %v", err)
			}
			w.OK(a.Destroy(background))
			w.Until("the victim's job", func() bool { return b.Ended[1] != "" })
			w.check(b, rig.Done{Job: 1, Count: 100})
			if len(a.Lost) != 1 || len(b.Lost) != 0 {
				t.Errorf("losses %v and %v", a.Lost, b.Lost)
			}
			w.OK(b.Destroy(background))
			w.idle()
		})
	}
}

// TestStuckWorkgroup: what can't be aborted takes the device with it, after the guilty was named.
func TestStuckWorkgroup(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 50, "workgroup=1ms hang=3 stuck")))
	w.Run(50 * time.Millisecond)
	w.OK(b.Run(background, w.Job(2, 50, "workgroup=1ms")))
	w.Until("the failure", func() bool { return len(w.Failed) > 0 })
	if want := []string{"a started 1", "a lost 1 hang guilty=true", "failed"}; !slices.Equal(w.Log, want) {
		t.Errorf("reports %q, want %q", w.Log, want)
	}
	if err := b.Run(background, w.Job(3, 1, "workgroup=1ms")); err == nil {
		t.Error("a failed device took a job")
	}
}

func TestSilentFirmware(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(b.Run(background, w.Job(2, 50, "workgroup=1ms")))
	w.OK(a.Run(background, w.Job(1, 50, "workgroup=1ms hang=3")))
	w.Until("the start", func() bool { return a.Started[1] })
	w.Mute = true
	if err := a.Suspend(background); err == nil {
		t.Error("suspended by a firmware that does not answer")
	}
	if n := len(w.Log); n < 2 || w.Log[n-1] != "failed" || len(w.Failed) != 1 || len(a.Lost) > 0 {
		t.Errorf("reports %q, failures %v", w.Log, w.Failed)
	}
	dead := hw.Ports{Registers: w.ports.Registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	var clock = hw.NewVirtualClock()
	late, err := driver.New(driver.Config{Arena: w.Arena, Ports: dead, Clock: clock, Formats: []string{testengine.Format}, Pump: nil})
	w.OK(err)
	ctx, cancel := context.WithCancel(background)
	cancel()
	if err := late.Start(ctx); err == nil {
		t.Error("started without a firmware")
	}
	w.OK(late.Close(background))
}

// TestEngineFailureBlamesNobody: the job that was on an engine which failed by
// itself is a victim.
func TestEngineFailureBlamesNobody(t *testing.T) {
	w := testWorld(t, nil)
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 50, "workgroup=1ms broken=3")))
	w.OK(b.Run(background, w.Job(2, 50, "workgroup=1ms")))
	w.Until("the loss", func() bool { return len(a.Lost) > 0 })
	if got := a.Lost[0]; got.Guilty || got.Job != 0 || got.Cause != core.CauseDevice || got.Detail != "no memory" {
		t.Errorf("lost %+v", got)
	}
	w.Until("the other", func() bool { return b.Ended[2] != "" })
	w.OK(a.Destroy(background))
	w.OK(b.Destroy(background))
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
					w.Clock.Advance(time.Millisecond)
				}
			}
			return pump()
		}
	})
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 50, "workgroup=1ms")))
	w.Run(5 * time.Millisecond)
	sleeps = true
	w.OK(a.Suspend(background))
	w.OK(a.Resume(background))
	w.Until("the job", func() bool { return a.Ended[1] != "" })
	w.check(a, rig.Done{Job: 1, Count: 50})
	w.idle()
}

// TestRandomLives draws whole lives and checks that each job ends once, that
// the bytes are those of an undisturbed run, and that all credits come back.
func TestRandomLives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, end := newWorld(t, func(c *driver.Config) { c.Credits = 6 })
		defer end()
		lives := []*rig.Life{w.Create("a", nil), w.Create("b", nil), w.Create("c", nil)}
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
				err := l.Run(background, w.Job(j.id, uint32(j.count), "workgroup=1ms"))
				if err == nil {
					jobs[i] = append(jobs[i], j)
				} else if !errors.Is(err, core.ErrFull) {
					t.Fatal(err)
				}
			case 2:
				if n := len(jobs[i]); n > 0 {
					w.OK(l.Cancel(background, jobs[i][rapid.IntRange(0, n-1).Draw(t, "job")].id))
				}
			case 3:
				w.OK(l.Suspend(background))
				suspended[i] = true
			case 4:
				w.OK(l.Resume(background))
				suspended[i] = false
			case 5:
				p := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
				w.OK(l.SetProperties(background, core.Properties{Priority: rapid.SampledFrom(p).Draw(t, "priority")}))
			case 6:
				w.Run(time.Duration(rapid.IntRange(0, 80).Draw(t, "ms")) * time.Millisecond)
			}
		}
		for i, l := range lives {
			w.OK(l.Resume(background))
			var all []rig.Done
			for _, j := range jobs[i] {
				w.Until("a job's end", func() bool { return l.Ended[j.id] != "" })
				done := l.Usage[j.id].Done
				if l.Ended[j.id] == "completed" && done != j.count || done != w.scripted.executed[j.id] {
					t.Fatalf("job %d %s: usage %+v of %d, executed %d", j.id, l.Ended[j.id], l.Usage[j.id], j.count, w.scripted.executed[j.id])
				}
				all = append(all, rig.Done{Job: j.id, Count: done})
			}
			w.check(l, all...)
			w.OK(l.Destroy(background))
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
		a := w.Create("a", nil)
		w.OK(a.Run(background, w.Job(1, 50, "workgroup=1ms")))
		w.Run(10 * time.Millisecond)
		// The transport is the first thing in memory; the G2H descriptor and buffer lie in it as Xe has them.
		const desc, buffer, size = hw.MemoryBase + 0x800, hw.MemoryBase + 0x2000, 32768
		tail, err := w.Arena.Load32(desc + 4*abi.DescTail)
		w.OK(err)
		for ; len(raw) >= 4; raw = raw[4:] {
			w.OK(w.Arena.Store32(buffer+4*uint64(tail), uint32(raw[0])|uint32(raw[1])<<8|uint32(raw[2])<<16|uint32(raw[3])<<24))
			tail = (tail + 1) % size
		}
		w.OK(w.Arena.Store32(desc+4*abi.DescTail, tail))
		w.Mute = true
		w.ports.Interrupt.Raise()
		w.Run(20 * time.Second)
		// Whatever was believed, a request still gets an answer.
		_ = a.Suspend(background)
		_ = a.Destroy(background)
	})
}

// TestSeqnoGoesOn: a context made of an image of this backend never repeats a seqno;
// one made of another's begins where a fresh one does.
func TestSeqnoGoesOn(t *testing.T) {
	w := testWorld(t, nil)
	seqno := func(l *rig.Life) uint32 {
		for _, c := range w.driver.Contexts() {
			if c.Entity == l.Spec.ID {
				return c.Seqno
			}
		}
		t.Fatalf("%s has no context", l.Name)
		return 0
	}
	a := w.Create("a", nil)
	fresh := seqno(a)
	for id := range core.JobID(3) {
		w.OK(a.Run(background, w.Job(id+1, 5, "workgroup=1ms")))
	}
	w.Until("three jobs", func() bool { return a.Ended[3] != "" })
	w.OK(a.Suspend(background))
	image, err := a.Save(background)
	w.OK(err)
	b := w.Create("b", image)
	if seqno(b) != fresh+3 {
		t.Errorf("it goes on after seqno %d, not %d", seqno(b), fresh+3)
	}
	w.OK(b.Run(background, w.Job(4, 5, "workgroup=1ms")))
	w.Until("the job of b", func() bool { return b.Ended[4] != "" })
	if seqno(b) != fresh+4 {
		t.Errorf("its job has seqno %d, not %d", seqno(b), fresh+4)
	}
	c := w.Create("c", foreign{image})
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
