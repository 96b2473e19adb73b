package agx

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

func TestLifeOfJobs(t *testing.T) {
	w := testWorld(t, setup{})
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
	w.Check(l, 40, 10)
	w.OK(l.Destroy(background))
	w.OK(l.Destroy(background))
	w.law.quiet()
}

func TestTwoEntitiesShare(t *testing.T) {
	w := testWorld(t, setup{})
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 400, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(2, 400, "workgroup=1ms")))
	w.Run(400 * time.Millisecond)
	for _, l := range []*rig.Life{a, b} {
		if p := l.Progress(); len(p) != 1 || p[0].Done < 120 || p[0].Done > 280 {
			t.Errorf("%s: progress %+v in the middle", l.Name, p)
		}
	}
	w.Until("both", func() bool { return a.Over() && b.Over() })
	w.Check(a, 400)
	w.Check(b, 400)
	w.law.quiet()
}

// TestPriorities: levels are strict, and a new priority takes a new work queue.
func TestPriorities(t *testing.T) {
	w := testWorld(t, setup{})
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 300, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(2, 300, "workgroup=1ms")))
	w.Run(20 * time.Millisecond)
	w.OK(b.SetProperties(background, core.Properties{Priority: core.PriorityHigh}))
	if err := b.SetProperties(background, core.Properties{Priority: "utmost"}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("unknown priority: %v", err)
	}
	w.Until("both", func() bool { return a.Over() && b.Over() })
	if at := slices.Index(w.Log, "b completed 2"); at < 0 || at > slices.Index(w.Log, "a completed 1") {
		t.Errorf("the high priority came last: %q", w.Log)
	}
	levels := map[uint32]uint32{}
	for _, q := range w.firmware.Queues() {
		levels[q.UUID] = q.Level
	}
	if levels[2] != 2 || levels[3] != 1 {
		t.Errorf("levels %v", levels)
	}
	w.Check(a, 300)
	w.Check(b, 300)
}

func TestSuspendSaveRestore(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 200, "workgroup=1ms")))
	w.OK(a.Run(background, w.Job(2, 50, "workgroup=1ms")))
	w.Run(60 * time.Millisecond)
	if _, err := a.Save(background); err == nil {
		t.Error("saved while it may run")
	}
	w.OK(a.Suspend(background))
	w.OK(a.Suspend(background))
	before := w.Engine.Executed[rig.Turn{Job: 1, Epoch: 1}]
	w.Run(time.Second)
	if w.Engine.Executed[rig.Turn{Job: 1, Epoch: 1}] != before || before == 0 || before == 200 {
		t.Errorf("a suspended entity ran on, or was not in the middle: %d", before)
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
		again := w.Job(j, []uint32{200, 50}[i], "workgroup=1ms")
		again.First, again.Epoch = header.Jobs[i].Cursor, 2
		w.OK(b.Run(background, again))
	}
	w.Until("the second job", b.Over)
	if u := b.Usage[1]; u.Done != 200 || u.Executed != 200-before {
		t.Errorf("usage %+v after a cut at %d", u, before)
	}
	w.Check(b, 200, 50)
	w.OK(b.Suspend(background))
	next, err := b.Save(background)
	w.OK(err)
	first, second := w.law.sequences[2], w.law.sequences[3]
	if first.first != 0 || second.first != first.last+1 {
		t.Errorf("the event sequence went %+v, and then %+v", first, second)
	}
	for i, seq := range []uint64{first.last + 1, second.last + 1} {
		private := [][]byte{header.Private, next.Header().Private}[i]
		// The counter of the last command, and the next event sequence: both count the commands of all lives.
		counter, eventSeq := binary.LittleEndian.Uint64(private[0x10:]), binary.LittleEndian.Uint64(private[0x18:])
		if counter != seq || eventSeq != seq {
			t.Errorf("image %d: counter %d, event sequence %d, after %d commands", i, counter, eventSeq, seq)
		}
	}
	w.OK(b.Destroy(background))
	w.law.quiet()
}

func TestSuspendWithoutWork(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.Create("a", nil)
	w.OK(a.Suspend(background))
	w.OK(a.Resume(background))
	w.OK(a.Run(background, w.Job(1, 5, "workgroup=1ms")))
	w.Until("the job", a.Over)
	kicks := w.firmware.Counters().Kicks
	w.OK(a.Suspend(background))
	w.OK(a.Run(background, w.Job(2, 5, "workgroup=1ms")))
	w.Run(time.Second)
	if a.Started[2] || w.firmware.Counters().Kicks != kicks {
		t.Error("a suspended entity was kicked")
	}
	w.OK(a.Cancel(background, 2))
	if a.Ended[2] != "cancelled" {
		t.Error("a job nobody saw was not cancelled at once")
	}
	w.OK(a.Run(background, w.Job(3, 5, "workgroup=1ms")))
	w.OK(a.Resume(background))
	w.Until("the third job", a.Over)
	w.Check(a, 5, 5)
	w.law.quiet()
}

// TestCancel: a job leaves at the next command boundary, later ones run.
func TestCancel(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.Create("a", nil)
	for id := core.JobID(1); id <= 4; id++ {
		w.OK(a.Run(background, w.Job(id, 200, "workgroup=1ms")))
	}
	w.Run(60 * time.Millisecond)
	w.OK(a.Cancel(background, 3))
	if a.Ended[3] != "cancelled" {
		t.Error("a job of which nothing is in the ring was not cancelled at once")
	}
	begun := w.Clock.Now()
	w.OK(a.Cancel(background, 1))
	w.OK(a.Cancel(background, 99))
	w.Until("the running job's end", func() bool { return a.Ended[1] != "" })
	if took := w.Clock.Now() - begun; took > 52*time.Millisecond {
		t.Errorf("a cancel took %s", took)
	}
	w.Until("the last", a.Over)
	if a.Ended[1] != "cancelled" || a.Ended[2] != "completed" || a.Ended[4] != "completed" {
		t.Fatalf("outcomes %v", a.Ended)
	}
	done := a.Usage[1].Done
	if done < 40 || done >= 200 || done != w.Engine.Executed[rig.Turn{Job: 1, Epoch: 1}] || a.Usage[3].Done != 0 {
		t.Errorf("usage %+v", a.Usage)
	}
	w.Check(a, done, 200, 200)
	w.OK(a.Destroy(background))
	w.law.quiet()
}

// TestCancelTooLate: all that is left of the job is in the ring.
func TestCancelTooLate(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 1, "workgroup=1ms")))
	w.Settle()
	w.OK(a.Cancel(background, 1))
	w.Until("the job's end", a.Over)
	if a.Ended[1] != "completed" {
		t.Errorf("outcome %q", a.Ended[1])
	}
}

func TestDestroyWhileRunning(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.EntitiesMax = 2 }})
	b := w.Create("b", nil)
	w.OK(b.Run(background, w.Job(9, 3000, "workgroup=1ms")))
	w.Run(100 * time.Millisecond)
	before := w.driver.State()
	for i := range 50 {
		a := w.Create("a", nil)
		if _, err := w.TryCreate("c", nil); !errors.Is(err, core.ErrFull) {
			t.Fatalf("a third entity: %v", err)
		}
		w.OK(a.Run(background, w.Job(1, 1000, "workgroup=1ms")))
		w.Run(30 * time.Millisecond)
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
		if i == 0 {
			before = w.driver.State() // The first one may take a slab of command memory.
		}
	}
	after := w.driver.State()
	if after.High != before.High || after.Low+1<<20 < before.Low {
		t.Errorf("memory is gone: %+v, was %+v", after, before)
	}
	w.Until("the other", b.Over)
	w.Check(b, 3000)
	w.law.quiet()
}

func TestRingIsFull(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.Credits = 4 }})
	a := w.Create("a", nil)
	big := w.Job(1, 10, "workgroup=1ms")
	big.Spec.Credits = 3
	w.OK(a.Run(background, big))
	if err := a.Run(background, big); !errors.Is(err, core.ErrExists) {
		t.Errorf("the same job twice: %v", err)
	}
	second := w.Job(2, 10, "workgroup=1ms")
	second.Spec.Credits = 2
	if err := a.Run(background, second); !errors.Is(err, core.ErrFull) {
		t.Errorf("five credits of four: %v", err)
	}
	second.Spec.Credits = 5
	if err := a.Run(background, second); !errors.Is(err, core.ErrOversize) {
		t.Errorf("a job larger than the ring: %v", err)
	}
	second.Spec.Credits, second.First = 1, 11
	if err := a.Run(background, second); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a first workgroup beyond the grid: %v", err)
	}
	second.First, second.Spec.Args = 0, []core.Arg{{Kind: core.ArgBuffer, Buffer: "none"}}
	if err := a.Run(background, second); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("an unknown buffer: %v", err)
	}
	second = w.Job(2, 10, "workgroup=1ms")
	second.Spec.Entry = ""
	if err := a.Run(background, second); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("no entry: %v", err)
	}
	w.Until("the job", a.Over)
	w.OK(a.Run(background, w.Job(2, 10, "workgroup=1ms")))
	w.Until("the second job", a.Over)
	w.Check(a, 10, 10)
}

// TestFirmware123: the other version's table runs a job too.
func TestFirmware123(t *testing.T) {
	w := testWorld(t, setup{firmware: func(c *fw.Config) { c.Version = abi.Version{Generation: abi.G13, Firmware: abi.V12_3} }})
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(2, 100, "workgroup=1ms trap at 60")))
	w.Until("both", func() bool { return a.Over() && b.Over() })
	if len(b.Lost) != 1 || !b.Lost[0].Guilty || b.Lost[0].Job != 2 {
		t.Errorf("losses %+v", b.Lost)
	}
	w.Check(a, 100)
	for _, l := range []*rig.Life{a, b} {
		w.OK(l.Destroy(background))
	}
	w.law.quiet()
}

// TestOtherFirmware: both sides must speak the same; where they do not, or the initdata are not what the firmware
// wants, it crashes with its reason, and the start fails with that.
func TestOtherFirmware(t *testing.T) {
	hurt := func(w *world) {
		table, err := abi.For(abi.Target)
		w.OK(err)
		// The first object that the driver lays out.
		b, err := w.Arena.Bytes(hw.MemoryBase, uint64(table.Size(&abi.InitData{})))
		w.OK(err)
		var d abi.InitData
		if err := table.Decode(b, &d); err == nil && d.HostMapped == 1 {
			d.HostMapped = 0
			w.OK(table.Encode(b, &d))
		}
	}
	for _, c := range []struct {
		name, reason string
		firmware     abi.Firmware
		before       func(*world)
	}{
		{name: "version", firmware: abi.V12_3, reason: "agx_background: InitData: "},
		{name: "host-mapped", firmware: abi.Target.Firmware, before: hurt, reason: "agx_background: host-mapped fw allocations are 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := setup{
				before:   c.before,
				firmware: func(f *fw.Config) { f.Version = abi.Version{Generation: abi.G13, Firmware: c.firmware} },
				driver:   func(d *driver.Config) { d.Version = abi.Target },
			}.make(t)
			defer w.End()
			if err == nil || len(w.Failed) != 1 || !strings.Contains(err.Error(), c.reason) || !strings.Contains(w.Failed[0].Error(), c.reason) {
				t.Errorf("start: %v, failed %v, want %q", err, w.Failed, c.reason)
			}
		})
	}
}

// TestFirmwareIsContent: with work that ends well the firmware has nothing to complain about, and the driver neither.
func TestFirmwareIsContent(t *testing.T) {
	log := &warnings{}
	w := testWorld(t, setup{log: log})
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 40, "workgroup=1ms")))
	w.Until("the job", a.Over)
	w.OK(a.Destroy(background))
	if len(log.lines) > 0 {
		t.Errorf("%q", log.lines)
	}
}
