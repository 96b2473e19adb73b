package agx

import (
	"fmt"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// between is the driver's clock, and lets something else happen whenever the driver looks at it: between
// what it reads and what it writes, as on a machine where the firmware runs beside it.
type between struct {
	hw.Clock
	then func()
}

// Now implements hw.Clock.
func (b *between) Now() time.Duration {
	if b.then != nil {
		b.then()
	}
	return b.Clock.Now()
}

// TestResumeIsTakenLate: the firmware sees a resume when its time is just over, at any moment in what the driver
// does then, and may halt again at once. Nothing of the first halt or the second one is lost.
func TestResumeIsTakenLate(t *testing.T) {
	for _, plan := range []string{"command id=2 nth=5 fault", "command id=2 nth=5 fault; halt again"} {
		for look := 1; look <= 8; look++ {
			t.Run(fmt.Sprintf("%s, look %d", plan, look), func(t *testing.T) { resumeTakenLate(t, plan, look) })
		}
	}
}

func resumeTakenLate(t *testing.T, plan string, look int) {
	clock := &between{}
	w := testWorld(t, setup{plan: plan,
		firmware: func(c *fw.Config) { c.Width = 2 },
		driver:   func(c *driver.Config) { clock.Clock = c.Clock; c.Clock = clock },
	})
	observe, muted := w.Observe, time.Duration(0)
	w.Observe = func() {
		observe()
		if muted == 0 && w.driver.State().Recoveries == 1 {
			muted, w.Mute = w.Clock.Now(), true // It is told to resume, and does not look.
		}
	}
	clock.then = func() {
		if muted == 0 || w.Clock.Now() < muted+100*time.Millisecond {
			return
		}
		if look--; look == 0 {
			clock.then, w.Mute = nil, false
			w.firmware.Step()
		}
	}
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, workgroups, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(2, 60, "workgroup=7ms")))
	w.Until("both", func() bool { return len(w.Failed) > 0 || a.Over() && b.Over() })
	w.Run(time.Second)
	if len(w.Failed) > 0 || look > 0 {
		w.Broken("%d looks left", look)
	}
	if halts := w.firmware.Counters().Halts; uint64(w.driver.State().Recoveries) != halts {
		w.Broken("%d recoveries from %d halts", w.driver.State().Recoveries, halts)
	}
	if len(a.Lost) != 1 || !a.Lost[0].Guilty || len(b.Lost) != 1 || b.Lost[0].Guilty {
		w.Broken("a lost %+v, b %+v", a.Lost, b.Lost)
	}
	w.OK(a.Destroy(background))
	w.OK(b.Destroy(background))
	w.law.quiet()
}
