package agx

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// TestDestroyWaitsForTheFirmware: nothing of a work queue is free before the firmware took its DestroyContext.
func TestDestroyWaitsForTheFirmware(t *testing.T) {
	w := testWorld(t, setup{plan: "device-control/DestroyContext freeze=500ms"})
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 5, "workgroup=1ms")))
	w.Until("the job", a.Over)
	before, looks, observe := w.driver.State(), 0, w.Observe
	w.Observe = func() {
		if observe != nil {
			observe()
		}
		if len(w.driver.Queues()) == 0 {
			return
		}
		looks++
		if s := w.driver.State(); s.Low > before.Low || s.High > before.High {
			t.Fatalf("memory is free while the firmware knows the queue: %+v, was %+v", s, before)
		}
	}
	w.OK(a.Destroy(background))
	if after := w.driver.State(); looks < 100 || after.Low <= before.Low {
		t.Errorf("%d looks, %+v, was %+v", looks, after, before)
	}
}

// spaces notes which address spaces the firmware names to the engine, and which it forgets.
type spaces struct {
	engine.Engine
	used, forgotten []uint64
}

// Start implements engine.Engine.
func (s *spaces) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	s.used = append(s.used, d.Space)
	return s.Engine.Start(d, notify)
}

// Forget implements engine.Engine.
func (s *spaces) Forget(space uint64) {
	s.forgotten = append(s.forgotten, space)
	s.Engine.Forget(space)
}

// TestSpaceEndsWithItsEntity: the next entity lies at the same addresses and has the same VM slot, and
// still another address space. The engine has forgotten the first one when its entity is gone.
func TestSpaceEndsWithItsEntity(t *testing.T) {
	seen := &spaces{}
	w := testWorld(t, setup{
		firmware: func(c *fw.Config) { seen.Engine = c.Engine; c.Engine = seen },
		driver:   func(c *driver.Config) { c.VMSlots = 1 },
	})
	var last uint64
	for id := core.JobID(1); id <= 2; id++ {
		l := w.Create("e", nil)
		w.OK(l.Run(background, w.Job(id, 5, "workgroup=1ms")))
		w.Until("the job", l.Over)
		space := seen.used[len(seen.used)-1]
		if space == last {
			t.Errorf("entity %d executes in the address space of the one before", id)
		}
		w.OK(l.Destroy(background))
		if !slices.Contains(seen.forgotten, space) {
			t.Errorf("the entity is gone, and the engine still has its address space")
		}
		last = space
	}
	w.law.quiet()
}

// TestLastCommandUntilDestroyed: the last command of a queue is the firmware's until its context is destroyed,
// and no flush before that frees it.
func TestLastCommandUntilDestroyed(t *testing.T) {
	w := testWorld(t, setup{
		plan:   "device-control/DestroyContext nth=2 freeze=500ms; retired id=2 touch=20ms",
		driver: func(c *driver.Config) { c.GarbageObjects = 2 },
	})
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 1, "workgroup=1ms")))
	w.Until("a's job", a.Over)
	w.OK(b.Run(background, w.Job(2, 500, "workgroup=1ms")))
	w.OK(a.Destroy(background)) // The law sees when the firmware finds something else there.
	w.Until("b's job", b.Over)
	w.Check(b, 500)
	w.OK(b.Destroy(background))
	w.law.quiet()
}

// TestEndWaitsForThePipe: a reminder that the firmware has not read names the work queue, which therefore
// has to be there until it has: device control is looked at before the pipes.
func TestEndWaitsForThePipe(t *testing.T) {
	for what, end := range map[string]func(*rig.Life) error{
		"destroy": func(l *rig.Life) error { return l.Destroy(background) },
		"priority": func(l *rig.Life) error {
			return l.SetProperties(background, core.Properties{Priority: core.PriorityHigh})
		},
	} {
		for _, c := range []struct{ freeze, failed string }{{freeze: "500ms"}, {freeze: "5s", failed: "pipe 2 is not read in 1s"}} {
			t.Run(what+" "+c.freeze, func(t *testing.T) {
				// The second kick is met twice, then its reminder.
				w := testWorld(t, setup{plan: "pipe nth=2 freeze=2500ms; pipe nth=4 freeze=" + c.freeze})
				a := w.Create("a", nil)
				w.OK(a.Run(background, w.Job(1, 9, "workgroup=1ms")))
				w.Until("the job", a.Over)
				err := end(a)
				w.Run(2 * time.Second)
				if c.failed != "" {
					if len(w.Failed) != 1 || !strings.Contains(w.Failed[0].Error(), c.failed) {
						t.Errorf("failed %v, want %q", w.Failed, c.failed)
					}
					return
				}
				if w.OK(err); !a.Destroyed {
					w.OK(a.Run(background, w.Job(2, 9, "workgroup=1ms")))
					w.Until("the second job", a.Over)
					w.OK(a.Destroy(background))
				}
				if w.faults.Fired() != 2 || len(w.Failed) > 0 {
					t.Errorf("%d of 2 freezes, failed %v", w.faults.Fired(), w.Failed)
				}
				w.law.quiet()
			})
		}
	}
}
