package mali

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// suspendBudget is what a suspend may take beyond twice the longest workgroup.
const suspendBudget = 2 * time.Millisecond

// suspends measures so many suspends of a job in virtual time, at moments that have
// nothing to do with its workgroups; others run beside it.
func suspends(w *world, count, others int, workgroup time.Duration) []time.Duration {
	w.light = true
	script := "workgroup=" + workgroup.String()
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 1<<20, script)))
	for i := range others {
		b := w.create("b", nil)
		w.ok(b.Run(background, w.job(core.JobID(2+i), 1<<20, script)))
	}
	w.run(time.Second)
	var took []time.Duration
	for i := range count {
		w.run(time.Duration(37+i*13%101)*time.Millisecond + time.Duration(i*173%1000)*time.Microsecond)
		begun := w.clock.Now()
		w.ok(a.Suspend(background))
		took = append(took, w.clock.Now()-begun)
		w.ok(a.Resume(background))
	}
	slices.Sort(took)
	return took
}

// TestSuspendLatency: half of the suspends take no longer than two workgroups and a
// little, alone, beside others on slots, and beside more than there are slots.
func TestSuspendLatency(t *testing.T) {
	for _, workgroup := range []time.Duration{100 * time.Microsecond, time.Millisecond, 20 * time.Millisecond} {
		for _, others := range []int{0, 3, 12} {
			t.Run(fmt.Sprintf("%s beside %d", workgroup, others), func(t *testing.T) {
				took := suspends(testWorld(t, setup{}), 60, others, workgroup)
				if p50 := took[len(took)/2]; p50 > 2*workgroup+suspendBudget {
					t.Errorf("p50 %s, worst %s", p50, took[len(took)-1])
				}
			})
		}
	}
}

// BenchmarkSuspend prints what a suspend takes in virtual time: p50, the worst, and the budget.
func BenchmarkSuspend(b *testing.B) {
	for _, others := range []int{0, 3, 12} {
		b.Run(fmt.Sprintf("beside %d", others), func(b *testing.B) {
			w, err := setup{}.make(b)
			if err != nil {
				b.Fatal(err)
			}
			defer w.end()
			took := suspends(w, max(b.N, 100), others, time.Millisecond)
			b.ReportMetric(float64(took[len(took)/2])/float64(time.Millisecond), "ms-p50")
			b.ReportMetric(float64(took[len(took)-1])/float64(time.Millisecond), "ms-worst")
			b.ReportMetric(float64(2*time.Millisecond+suspendBudget)/float64(time.Millisecond), "ms-budget")
		})
	}
}

// TestStaleImages: an image of somebody who is gone, which was still in the cache, is not
// written over what has its memory now.
func TestStaleImages(t *testing.T) {
	w := testWorld(t, setup{firmware: func(c *fw.Config) { c.DirtyL2, c.Groups = true, 3 }})
	first := w.create("first", nil)
	w.ok(first.Run(background, w.job(7, 60, "workgroup=1ms")))
	w.run(20 * time.Millisecond)
	w.ok(first.Suspend(background))
	image, err := first.Save(background)
	w.ok(err)
	saved := w.copied(image)
	w.ok(first.Destroy(background))
	l := evicted(w)
	w.ok(l.Destroy(background))
	again := w.create("again", saved)
	job := w.job(7, 60, "workgroup=1ms")
	job.First, job.Epoch = saved.Header().Jobs[0].Cursor, 2
	w.ok(again.Run(background, job))
	w.until("the end", func() bool { return again.ended[7] != "" || len(again.lost) > 0 })
	if u := again.usage[7]; again.ended[7] != "completed" || u.Executed != 60-job.First {
		t.Fatalf("%s after a cut at %d: %+v, lost %+v", again.ended[7], job.First, u, again.lost)
	}
	w.check(again, 60)
}

// evicted starts more entities than there are slots, and returns one that was suspended for the others.
func evicted(w *world) *life {
	w.t.Helper()
	before := len(w.lives)
	for i := range core.JobID(6) {
		l := w.create(fmt.Sprint("other", i), nil)
		w.ok(l.Run(background, w.job(10+i, 1<<20, "workgroup=1ms")))
	}
	w.run(200 * time.Millisecond)
	for i, g := range w.driver.Groups() {
		if g.State == "suspended" {
			return w.lives[before+i]
		}
	}
	w.t.Fatalf("nobody was suspended: %+v", w.driver.Groups())
	return nil
}

// TestStaleImagesInReset: who waits for a flush to be freed is freed by what empties the cache in its place.
func TestStaleImagesInReset(t *testing.T) {
	few := func(c *fw.Config) { c.DirtyL2, c.Groups = true, 3 }
	t.Run("reset", func(t *testing.T) {
		w := testWorld(t, setup{plan: "command/flush stuck", firmware: few})
		w.ok(evicted(w).Destroy(background))
		if len(w.driver.Groups()) != 5 || w.driver.Resets() != 1 {
			t.Errorf("%d groups, %d resets", len(w.driver.Groups()), w.driver.Resets())
		}
	})
	t.Run("sleep", func(t *testing.T) {
		w := testWorld(t, setup{firmware: few})
		l := evicted(w)
		now, cancel := context.WithCancel(background)
		cancel()
		_ = w.driver.Sleep(now) // It goes on, and nobody waits for it.
		w.ok(l.Destroy(background))
		if off, _, _ := w.driver.Power(); len(w.driver.Groups()) != 5 || off != 1 {
			t.Errorf("%d groups, powered off %d times", len(w.driver.Groups()), off)
		}
	})
}
