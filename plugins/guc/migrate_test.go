package guc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// move takes the whole device to another one: memory, registers, firmware and
// interrupt lines are new, the driver goes on.
func (w *world) move() error {
	saved, err := w.driver.Pause(background)
	if err != nil {
		return err
	}
	arena, err := hw.NewArena(w.arena.Size())
	w.ok(err)
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	w.ok(err)
	ports := hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	config := w.firmwareConfig
	config.Arena, config.Ports, config.Engine = arena, ports, w.engine
	target, err := fw.New(config)
	w.ok(err)
	var owner *driver.Driver
	pump := func() bool {
		for {
			target.Step()
			if !owner.Step() {
				break
			}
		}
		at, pending := w.clock.Next()
		if pending {
			w.clock.Advance(at - w.clock.Now())
		}
		return pending
	}
	owner, err = driver.New(driver.Config{Arena: arena, Ports: ports, Clock: w.clock, Pump: pump, RuntimeIdle: -1})
	w.ok(err)
	if err = owner.Start(background); err == nil {
		err = owner.Restore(background, saved)
	}
	target.Step()
	w.ok(owner.Close(background))
	if err != nil {
		w.ok(arena.Close())
		return err
	}
	w.ok(hw.CopyMemory(arena, w.arena))
	arena, w.arena, w.ports, ports = w.arena, arena, ports, w.ports
	target, w.firmware = w.firmware, target
	if err = w.driver.Attach(background, w.arena, w.ports); errors.Is(err, core.ErrInvalid) {
		// It was reset meanwhile, and goes on where it was.
		arena, w.arena, w.ports = w.arena, arena, ports
		w.firmware = target
	}
	w.ok(arena.Close())
	return err
}

// later asks for something without waiting for the answer.
func later() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestMove moves a device at random points of random work, in the middle of what the
// driver and the firmware say to each other. For completed jobs it is as if nothing had happened.
func TestMove(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			set := func(c *fw.Config) {
				c.MessageDelay, c.DoneDelay = time.Duration(seed%3)*400*time.Microsecond, time.Duration(seed%2)*700*time.Microsecond
				c.NotifyFirst = seed%4 == 3
			}
			plan := ""
			if seed%2 == 1 { // Answers that are on their way are lost with the old firmware.
				plan = "g2h/SCHED_CONTEXT_MODE_DONE times=always delay=4ms; g2h/DEREGISTER_CONTEXT_DONE times=always delay=4ms"
			}
			w, err := setup{plan: plan, arena: 32 << 20, firmware: set, driver: func(c *driver.Config) { c.Credits = 8 }}.make(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.end)
			moveAtRandom(w, rand.New(rand.NewPCG(seed, 1)))
			if w.firmware.Counters().Restores != 1 || w.driver.Resets() != 0 {
				t.Errorf("%d restores, %d GT resets", w.firmware.Counters().Restores, w.driver.Resets())
			}
		})
	}
}

func moveAtRandom(w *world, random *rand.Rand) {
	lives := []*life{w.create("a", nil), w.create("b", nil), w.create("c", nil)}
	dead := w.create("dead", nil)
	w.ok(dead.Run(background, w.job(90, 200, "workgroup=1ms")))
	next, cut := core.JobID(0), 4+random.IntN(20)
	for step := range 30 {
		if step == cut {
			w.settleSome(random)
			w.ok(w.move())
		}
		l := lives[random.IntN(len(lives))]
		switch random.IntN(7) {
		case 0, 1, 2:
			if len(l.given) == 8 {
				break // The ring takes no more until some have ended.
			}
			next++
			_ = l.entity.Run(later(), w.job(next, uint32(1+random.IntN(30)), "workgroup=1ms"))
			l.given = append(l.given, next)
		case 3:
			_ = l.entity.Suspend(later())
		case 4:
			_ = l.entity.Resume(later())
		case 5:
			if len(l.given) > 0 {
				_ = l.entity.Cancel(later(), l.given[random.IntN(len(l.given))])
			}
		case 6:
			if dead != nil && step > cut-3 {
				_ = dead.entity.Destroy(later())
				dead.destroyed, dead = true, nil
			}
		}
		w.settleSome(random)
	}
	for _, l := range lives {
		w.ok(l.Resume(background))
		var all [][2]uint64
		for _, id := range l.given {
			w.until("a job's end", func() bool { return l.ended[id] != "" })
			all = append(all, [2]uint64{uint64(id), l.usage[id].Done})
			if l.ended[id] == "completed" && l.usage[id].Done != w.sizes[id] {
				w.law.broken("job %d completed after %+v", id, l.usage[id])
			}
		}
		w.check(l, all...)
		w.ok(l.Destroy(background))
	}
	w.run(time.Second)
	w.law.quiet()
	w.idle()
}

// settleSome lets the sides do a few steps and a little time pass.
func (w *world) settleSome(random *rand.Rand) {
	for range random.IntN(3) {
		w.driver.Step()
		w.firmware.Step()
	}
	if random.IntN(2) == 0 {
		w.clock.Advance(time.Duration(random.IntN(3000)) * time.Microsecond)
	}
}

// TestMoveStartsOver: the device moved again during the fix-ups, so that the
// firmware does not know the marker.
func TestMoveStartsOver(t *testing.T) {
	w, err := setup{plan: "mmio/RESFIX_DONE times=2 fail=0x107", arena: 32 << 20}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.run(20 * time.Millisecond)
	w.ok(w.move())
	w.until("the job", func() bool { return a.ended[1] != "" })
	w.check(a, [2]uint64{1, 100})
	w.ok(a.Destroy(background))
	w.idle()
	if w.faults.Fired() != 2 {
		t.Errorf("%d faults", w.faults.Fired())
	}
}

// TestMoveTellsAgain: a submission that was lost before the move is told of again
// after it, and not only by the driver's own look at who does not begin.
func TestMoveTellsAgain(t *testing.T) {
	w, err := setup{plan: "h2g/SCHED_CONTEXT drop", arena: 32 << 20, driver: func(c *driver.Config) { c.Timeouts.Start = worldTime }}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 5, "workgroup=1ms")))
	w.until("the first job", func() bool { return a.ended[1] != "" })
	w.ok(a.Run(background, w.job(2, 5, "workgroup=1ms")))
	w.run(10 * time.Millisecond)
	if w.faults.Fired() != 1 || a.started[2] {
		t.Fatalf("%d faults, reports %q", w.faults.Fired(), w.log)
	}
	w.ok(w.move())
	w.run(100 * time.Millisecond)
	if a.ended[2] != "completed" {
		t.Errorf("reports %q", w.log)
	}
	w.check(a, [2]uint64{1, 5}, [2]uint64{2, 5})
	w.ok(a.Destroy(background))
	w.idle()
}

// TestPauseAndGoOn: the move does not come about.
func TestPauseAndGoOn(t *testing.T) {
	w := testWorld(t, nil)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.run(20 * time.Millisecond)
	saved, err := w.driver.Pause(background)
	w.ok(err)
	if len(saved) == 0 {
		t.Error("nothing was saved")
	}
	before := w.engine.executed[1]
	w.run(time.Second)
	if w.engine.executed[1] != before {
		t.Error("a paused device executes")
	}
	w.ok(w.driver.Unpause(background))
	w.until("the job", func() bool { return a.ended[1] != "" })
	w.check(a, [2]uint64{1, 100})
	w.ok(a.Destroy(background))
	w.idle()
}
