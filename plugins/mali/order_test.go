package mali

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// order is how driver and firmware, which run at the same time on silicon, interleave: the
// firmware may step in the middle of what the driver does, at each store to a
// register, and the driver may be first with what the clock brings. With a seed it is exactly repeatable.
type order struct {
	// random draws who is next; nil lets the firmware step at each store and the driver be first always.
	random *rand.Rand
}

func (o *order) turn() bool { return o != nil && (o.random == nil || o.random.IntN(2) == 0) }

// hostFirst reports whether the driver steps before the firmware.
func (o *order) hostFirst() bool { return o.turn() }

// line is the doorbell line of a world.
func (o *order) line(w *world) hw.Line {
	if o == nil {
		return hw.NewLine()
	}
	return eager{hw.NewLine(), o, w}
}

// eager is a line whose raise may be heard at once.
type eager struct {
	hw.Line
	order *order
	w     *world
}

func (e eager) Raise() {
	e.Line.Raise()
	if e.w.firmware != nil && e.order.turn() {
		e.w.firmware.Step()
	}
}

// TestFaultOfALeaver: a memory fault that the firmware latched before it acknowledged a suspend is that
// of the group that leaves, also when its address space is given away before the next interrupt is looked at.
func TestFaultOfALeaver(t *testing.T) {
	w := testWorld(t, setup{plan: "instruction/CALL id=0 mmu-only", order: &order{},
		firmware: func(c *fw.Config) { c.AddressSpaces, c.InstructionRate, c.Burst = 0b11, 1000, 1 },
		driver:   func(c *driver.Config) { c.MinRun = -1 }})
	a, b := w.create("a", nil), w.create("b", nil)
	w.ok(a.Run(background, w.job(1, 3, "workgroup=1ms")))
	w.ok(b.Run(background, w.job(2, 3, "workgroup=1ms")))
	w.run(4 * time.Millisecond) // The next instruction is the CALL.
	w.clock.Advance(time.Millisecond)
	if err := a.Suspend(background); w.faults.Fired() != 1 {
		t.Fatalf("suspend %v: the plan hit nothing", err)
	}
	w.until("the ends", w.over)
	if b.ended[2] != "completed" || len(a.lost) != 1 || !a.lost[0].guilty || a.lost[0].cause != core.CauseMemory {
		t.Errorf("reports %q", w.log)
	}
	w.check(b, 3)
}
