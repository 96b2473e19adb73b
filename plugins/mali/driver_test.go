package mali

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/sdk"
)

// TestJob: one job from its submission to its end.
func TestJob(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 20, "workgroup=1ms")))
	w.until("the end", func() bool { return a.ended[1] != "" })
	if u := a.usage[1]; a.ended[1] != "completed" || u.Done != 20 || u.Executed != 20 || u.ExecutedTime != 20*time.Millisecond {
		t.Errorf("%s, %+v", a.ended[1], u)
	}
	w.check(a, 20)
	w.ok(a.Destroy(background))
}

// TestSuspend: an entity leaves at a workgroup boundary, stays off, and goes on.
func TestSuspend(t *testing.T) {
	w := testWorld(t, setup{firmware: func(c *fw.Config) { c.DirtyL2 = true }})
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 50, "workgroup=1ms")))
	w.ok(a.Run(background, w.job(2, 10, "workgroup=1ms")))
	w.run(20 * time.Millisecond)
	for range 2 {
		w.ok(a.Suspend(background))
	}
	header, got := w.contents(a)
	if len(header.Jobs) != 2 || header.Jobs[0].Cursor == 0 || header.Jobs[0].Cursor > 25 || header.Jobs[1].Cursor != 0 {
		t.Fatalf("jobs %+v", header.Jobs)
	}
	if string(got) != string(expected(header.Jobs[0].Cursor)) {
		t.Error("the buffer is not that of the cursor")
	}
	w.run(time.Second)
	if again, _ := w.contents(a); again.Jobs[0].Cursor != header.Jobs[0].Cursor {
		t.Error("it went on while suspended")
	}
	w.ok(a.Run(background, w.job(3, 5, "workgroup=1ms")))
	w.ok(a.Resume(background))
	w.until("the end", func() bool { return a.ended[3] != "" })
	w.check(a, 50, 10, 5)
	if w.driver.Resets() != 0 || a.usage[1].Executed != 50 {
		t.Errorf("%d resets, usage %+v", w.driver.Resets(), a.usage[1])
	}
	w.ok(a.Destroy(background))
}

// TestImages: an image goes on in a new device with its private part, and without it, with
// one that another firmware wrote and with one that is damaged, to the same bytes.
func TestImages(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(7, 60, "workgroup=1ms")))
	w.run(20 * time.Millisecond)
	w.ok(a.Suspend(background))
	image, err := a.Save(background)
	w.ok(err)
	saved := w.copied(image)
	cursor := saved.Header().Jobs[0].Cursor
	for name, c := range map[string]struct {
		build   uint64
		spoil   func(*core.ImageHeader)
		first   uint64
		resumes uint64
		fatals  uint64
	}{
		"own":             {1, func(*core.ImageHeader) {}, cursor, 1, 0},
		"portable":        {1, func(h *core.ImageHeader) { h.Private = nil }, cursor, 0, 0},
		"other backend":   {1, func(h *core.ImageHeader) { h.Backend = "guc" }, cursor, 0, 0},
		"malformed":       {1, func(h *core.ImageHeader) { h.Private = h.Private[:20] }, cursor, 0, 0},
		"damaged":         {1, func(h *core.ImageHeader) { h.Private[0x50+100] ^= 1 }, cursor, 1, 1},
		"other firmware":  {2, func(*core.ImageHeader) {}, cursor, 1, 1},
		"another's state": {1, func(h *core.ImageHeader) { h.Private[0x10]++ }, cursor, 0, 0},
		"cut earlier":     {1, func(*core.ImageHeader) {}, cursor - 1, 0, 0},
		"from the start":  {1, func(*core.ImageHeader) {}, 0, 0, 0},
		"forged first":    {1, func(h *core.ImageHeader) { h.Private[0x28]++ }, cursor, 0, 0},
		"forged count":    {1, func(h *core.ImageHeader) { h.Private[0x30]++ }, cursor, 0, 0},
		"forged done":     {1, func(h *core.ImageHeader) { h.Private[0x38]++ }, cursor, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := testWorld(t, setup{firmware: func(f *fw.Config) { f.Build = c.build }})
			header := saved.Header()
			header.Private = slices.Clone(header.Private)
			c.spoil(&header)
			b := v.create("b", sdk.BufferImage(header, [][]byte{expected(c.first)}))
			job := v.job(7, 60, "workgroup=1ms")
			job.First, job.Epoch = c.first, 2
			v.ok(b.Run(background, job))
			v.ok(b.Run(background, v.job(8, 10, "workgroup=1ms")))
			v.until("the end", func() bool { return b.ended[8] != "" })
			if u := b.usage[7]; u.Done != 60 || u.Executed != 60-c.first {
				t.Errorf("usage %+v after a cut at %d", u, c.first)
			}
			v.check(b, 60, 10)
			if got := v.firmware.Counters(); got.Resumes != c.resumes || got.StreamFatals != c.fatals || v.driver.Resets() != 0 {
				t.Errorf("%d resumes, %d fatal faults, %d resets", got.Resumes, got.StreamFatals, v.driver.Resets())
			}
		})
	}
}

// TestLongWorkgroups: who waits for an endpoint while another's workgroup runs is not timed
// for it: only execution without the end of a workgroup counts.
func TestLongWorkgroups(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.RuntimeIdle, c.Timeouts.Hang = -1, 5*time.Second }})
	for id, name := range []string{"a", "b", "c"} {
		w.ok(w.create(name, nil).Run(background, w.job(core.JobID(1+id), 3, "workgroup=3s")))
	}
	w.until("all ends", w.over)
	for _, l := range w.lives {
		if len(l.lost) > 0 || w.driver.Resets() != 0 {
			t.Fatalf("reports %q, %d resets", w.log, w.driver.Resets())
		}
		w.check(l, 3)
	}
}

// TestCancel: a running job leaves at a workgroup boundary and later ones run; a queued one never does.
func TestCancel(t *testing.T) {
	w := testWorld(t, setup{})
	a := w.create("a", nil)
	for id := core.JobID(1); id <= 3; id++ {
		w.ok(a.Run(background, w.job(id, 30, "workgroup=1ms")))
	}
	w.run(10 * time.Millisecond)
	w.ok(a.Cancel(background, 2))
	w.ok(a.Cancel(background, 99))
	w.until("the second's end", func() bool { return a.ended[2] != "" })
	if a.ended[1] != "" || a.started[2] || a.ended[2] != "cancelled" || a.usage[2].Done != 0 {
		t.Errorf("reports %q", w.log)
	}
	w.ok(a.Cancel(background, 1))
	w.until("the last end", func() bool { return a.ended[3] != "" })
	if u := a.usage[1]; a.ended[1] != "cancelled" || u.Done == 0 || u.Done >= 30 || u.Executed != u.Done || a.ended[3] != "completed" {
		t.Errorf("reports %q, usage %+v", w.log, u)
	}
	w.check(a, a.usage[1].Done, 30)
}

// TestCredits: the ring has room for so many jobs, and goes round.
func TestCredits(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.Credits = 4 }})
	a := w.create("a", nil)
	next := core.JobID(0)
	for range 5 {
		for range 4 {
			next++
			w.ok(a.Run(background, w.job(next, 2, "workgroup=1ms")))
		}
		if err := a.Run(background, w.job(next+1, 2, "workgroup=1ms")); !errors.Is(err, core.ErrFull) {
			t.Fatalf("one too many: %v", err)
		}
		w.until("all", func() bool { return a.ended[next] != "" })
	}
	large := w.job(next+1, 1, "workgroup=1ms")
	large.Spec.Credits = 5
	if err := a.Run(background, large); !errors.Is(err, core.ErrOversize) {
		t.Errorf("more credits than there are: %v", err)
	}
	twenty := make([]uint64, 20)
	for i := range twenty {
		twenty[i] = 2
	}
	w.check(a, twenty...)
}

// TestSharesOfOneSpace: with one address space, one group at a time holds a slot, and all come on by their weights.
func TestSharesOfOneSpace(t *testing.T) {
	w := testWorld(t, setup{firmware: func(c *fw.Config) { c.AddressSpaces = 0b11 }})
	w.light = true
	for i, p := range []core.Priority{core.PriorityHigh, core.PriorityNormal, core.PriorityLow} {
		w.priority = p
		w.ok(w.create(string(p), nil).Run(background, w.job(core.JobID(1+i), 1<<20, "workgroup=1ms")))
	}
	w.run(60 * time.Second)
	var done [3]float64
	for i, l := range w.lives {
		for _, u := range l.Progress() {
			done[i] = float64(u.Executed)
		}
	}
	if a, b := done[0]/done[1], done[1]/done[2]; a < 3.6 || a > 4.4 || b < 7.2 || b > 8.8 || w.driver.Resets() != 0 {
		t.Errorf("workgroups %v: 1 to %.2f to %.2f; %d resets", done, a, b, w.driver.Resets())
	}
}

// TestSharesByWeight: 1,000 entities on 8 slots and 7 address spaces get GPU time by
// their weights, 32 to 8 to 1, and everybody comes on.
func TestSharesByWeight(t *testing.T) {
	w := testWorld(t, setup{arena: 4 << 30})
	w.light = true
	counts := [3]int{20, 80, 900} // So that a turn of a low one comes round in 22 s.
	priorities := []core.Priority{core.PriorityHigh, core.PriorityNormal, core.PriorityLow}
	var lives [3][]*life
	total := 0
	for i, p := range priorities {
		w.priority = p
		for range counts[i] {
			l := w.create(string(p), nil)
			lives[i] = append(lives[i], l)
			total++
			w.ok(l.Run(background, w.job(core.JobID(total), 1<<20, "workgroup=1ms")))
		}
	}
	// Long enough for the last of the low ones to have had a turn, several times.
	done := func(l *life) uint64 {
		for _, u := range l.Progress() {
			return u.Executed
		}
		return 0
	}
	measure := func() (sums [3]float64, least uint64) {
		least = math.MaxUint64
		for i := range lives {
			for _, l := range lives[i] {
				n := done(l)
				sums[i] += float64(n)
				least = min(least, n)
			}
			sums[i] /= float64(len(lives[i]))
		}
		return sums, least
	}
	w.run(40 * time.Second)
	begun, _ := measure()
	w.run(218 * time.Second)
	ended, least := measure()
	if least == 0 {
		t.Error("somebody had nothing in four minutes")
	}
	high, normal, low := ended[0]-begun[0], ended[1]-begun[1], ended[2]-begun[2]
	t.Logf("%d entities: workgroups each high %.0f, normal %.0f, low %.1f: 1 to %.2f to %.2f; %d ticks, least %d",
		total, high, normal, low, high/normal, normal/low, w.driver.Ticks(), least)
	if r := high / normal; r < 3.6 || r > 4.4 {
		t.Errorf("high to normal is %.2f, want 4", r)
	}
	if r := normal / low; r < 7.2 || r > 8.8 {
		t.Errorf("normal to low is %.2f, want 8", r)
	}
	if w.driver.Resets() != 0 || len(w.failed) > 0 {
		t.Errorf("%d resets, failed %v", w.driver.Resets(), w.failed)
	}
	if v := w.firmware.Violations(); len(v) > 0 {
		t.Errorf("violations %q", v)
	}
}
