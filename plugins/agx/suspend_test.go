package agx

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// suspendBudget is what a suspend may take beyond the slice target.
const suspendBudget = 2 * time.Millisecond

// suspends measures so many suspends of a job in virtual time, at moments that
// have nothing to do with the slices; others run beside it.
func suspends(t rig.T, w *world, count, others int, script string) []time.Duration {
	t.Helper()
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 1<<20, script)))
	for i := range others {
		b := w.Create("b", nil)
		w.OK(b.Run(background, w.Job(core.JobID(2+i), 1<<20, script)))
	}
	w.Run(time.Second)
	var took []time.Duration
	for i := range count {
		w.Run(time.Duration(37+i*13%101) * time.Millisecond)
		begun := w.Clock.Now()
		w.OK(a.Suspend(background))
		took = append(took, w.Clock.Now()-begun)
		w.OK(a.Resume(background))
	}
	slices.Sort(took)
	return took
}

// TestSuspendLatency: half of the suspends take no longer than the slice target
// and a little, whatever else runs on the device, and none much longer.
func TestSuspendLatency(t *testing.T) {
	for _, slice := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
		for _, others := range []int{0, 5} {
			t.Run(fmt.Sprintf("%s beside %d", slice, others), func(t *testing.T) {
				w := testWorld(t, setup{driver: func(c *driver.Config) { c.Slice = slice }})
				w.Light = true
				took := suspends(t, w, 100, others, "workgroup=1ms cores=4")
				if p50, worst := took[len(took)/2], took[len(took)-1]; p50 > slice+suspendBudget || worst > 2*slice+suspendBudget {
					t.Errorf("p50 %s, worst %s", p50, worst)
				}
			})
		}
	}
}

// TestSlicesFollowTheTarget: commands have one workgroup first, then more, and in the end
// half of the target; a workgroup that takes longer than that goes alone.
func TestSlicesFollowTheTarget(t *testing.T) {
	for _, c := range []struct {
		script  string
		longest uint64
	}{
		{"workgroup=1ms", 25}, {"workgroup=1ms cores=8", 200}, {"workgroup=10us", 2500}, {"workgroup=20ms", 1}, {"workgroup=300ms", 1},
	} {
		w := testWorld(t, setup{})
		w.Light = true
		a := w.Create("a", nil)
		w.OK(a.Run(background, w.Job(1, uint32(40*c.longest), c.script)))
		w.Until("the job", a.Over)
		if got := w.Engine.Longest[1]; got > c.longest || got < c.longest*9/10 {
			t.Errorf("%s: commands of %d workgroups, want %d", c.script, got, c.longest)
		}
		commands := w.firmware.Counters().Started
		if most := uint64(40 + 10); commands > most {
			t.Errorf("%s: %d commands", c.script, commands)
		}
	}
}

// TestSuspendOfTheWeak: a strict level starves nobody who is to leave, and no command is preempted by a firmware that could.
func TestSuspendOfTheWeak(t *testing.T) {
	w := testWorld(t, setup{firmware: func(c *fw.Config) { c.ComputePreempt = true }})
	w.Light = true
	w.Priority = core.PriorityLow
	low := w.Create("low", nil)
	w.OK(low.Run(background, w.Job(1, 1<<20, "workgroup=1ms")))
	w.Run(time.Second)
	w.Priority = core.PriorityHigh
	high := w.Create("high", nil)
	w.OK(high.Run(background, w.Job(2, 1<<20, "workgroup=1ms")))
	w.Run(10 * time.Millisecond)
	begun := w.Clock.Now()
	w.OK(low.Suspend(background))
	if took := w.Clock.Now() - begun; took > 60*time.Millisecond {
		t.Errorf("the suspend took %s", took)
	}
	w.Run(20 * time.Millisecond)
	before := high.Progress()[0].Done
	w.Run(time.Second)
	if ran := high.Progress()[0].Done - before; ran < 900 {
		t.Errorf("the strong one ran %d workgroups in a second", ran)
	}
	w.OK(low.Resume(background))
	w.Run(time.Second)
	if got := low.Progress()[0].Done; got > 1200 {
		t.Errorf("the weak one ran beside the strong one: %d", got)
	}
	if c := w.firmware.Counters(); c.Preempted > 0 {
		t.Errorf("%d commands were preempted", c.Preempted)
	}
}

// BenchmarkSuspend prints what a suspend takes in virtual time, alone and beside
// others: p50 and the worst of all, and the p50 as a share of its budget.
func BenchmarkSuspend(b *testing.B) {
	for _, slice := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond} {
		for _, others := range []int{0, 3} {
			b.Run(fmt.Sprintf("%s beside %d", slice, others), func(b *testing.B) {
				w, err := setup{driver: func(c *driver.Config) { c.Slice = slice }}.make(b)
				if err != nil {
					b.Fatal(err)
				}
				defer w.End()
				w.Light = true
				took := suspends(b, w, max(b.N, 100), others, "workgroup=1ms cores=4")
				b.ReportMetric(float64(took[len(took)/2])/float64(time.Millisecond), "ms-p50")
				b.ReportMetric(float64(took[len(took)/2])/float64(slice+suspendBudget), "x-budget")
				b.ReportMetric(float64(took[len(took)-1])/float64(time.Millisecond), "ms-worst")
				b.ReportMetric(float64(slice+suspendBudget)/float64(time.Millisecond), "ms-budget")
			})
		}
	}
}
