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
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// move takes the whole device to another one: memory, registers, firmware and
// interrupt lines are new, the driver goes on.
func (w *world) move() error {
	saved, err := w.driver.Pause(background)
	if err != nil {
		return err
	}
	arena, err := hw.NewArena(w.Arena.Size())
	w.OK(err)
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	w.OK(err)
	ports := hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	config := w.firmwareConfig
	config.Arena, config.Ports, config.Engine = arena, ports, w.Engine
	target, err := fw.New(config)
	w.OK(err)
	var owner *driver.Driver
	pump := func() bool {
		for {
			target.Step()
			if !owner.Step() {
				break
			}
		}
		at, pending := w.Clock.Next()
		if pending {
			w.Clock.Advance(at - w.Clock.Now())
		}
		return pending
	}
	owner, err = driver.New(driver.Config{Arena: arena, Ports: ports, Clock: w.Clock, Pump: pump, RuntimeIdle: -1})
	w.OK(err)
	if err = owner.Start(background); err == nil {
		err = owner.Restore(background, saved)
	}
	target.Step()
	w.OK(owner.Close(background))
	if err != nil {
		w.OK(arena.Close())
		return err
	}
	w.OK(hw.CopyMemory(arena, w.Arena))
	arena, w.Arena, w.ports, ports = w.Arena, arena, ports, w.ports
	before := w.firmware
	w.install(target)
	if err = w.driver.Attach(background, w.Arena, w.ports); errors.Is(err, core.ErrInvalid) {
		// It was reset meanwhile, and goes on where it was.
		arena, w.Arena, w.ports = w.Arena, arena, ports
		w.install(before)
	}
	w.OK(arena.Close())
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
			t.Cleanup(w.End)
			moveAtRandom(w, rand.New(rand.NewPCG(seed, 1)))
			if w.firmware.Counters().Restores != 1 || w.driver.Resets() != 0 {
				t.Errorf("%d restores, %d GT resets", w.firmware.Counters().Restores, w.driver.Resets())
			}
		})
	}
}

func moveAtRandom(w *world, random *rand.Rand) {
	lives := []*rig.Life{w.Create("a", nil), w.Create("b", nil), w.Create("c", nil)}
	dead := w.Create("dead", nil)
	w.OK(dead.Run(background, w.Job(90, 200, "workgroup=1ms")))
	next, cut := core.JobID(0), 4+random.IntN(20)
	for step := range 30 {
		if step == cut {
			w.settleSome(random)
			w.OK(w.move())
		}
		l := lives[random.IntN(len(lives))]
		switch random.IntN(7) {
		case 0, 1, 2:
			if len(l.Given()) == 8 {
				break // The ring takes no more until some have ended.
			}
			next++
			_ = l.Entity.Run(later(), w.Job(next, uint32(1+random.IntN(30)), "workgroup=1ms"))
			l.Give(next)
		case 3:
			_ = l.Entity.Suspend(later())
		case 4:
			_ = l.Entity.Resume(later())
		case 5:
			if len(l.Given()) > 0 {
				_ = l.Entity.Cancel(later(), l.Given()[random.IntN(len(l.Given()))])
			}
		case 6:
			if dead != nil && step > cut-3 {
				_ = dead.Entity.Destroy(later())
				dead.Destroyed, dead = true, nil
			}
		}
		w.settleSome(random)
	}
	for _, l := range lives {
		w.OK(l.Resume(background))
		var all []rig.Done
		for _, id := range l.Given() {
			w.Until("a job's end", func() bool { return l.Ended[id] != "" })
			all = append(all, rig.Done{Job: id, Count: l.Usage[id].Done})
			if l.Ended[id] == "completed" && l.Usage[id].Done != w.Sizes[id] {
				w.Broken("job %d completed after %+v", id, l.Usage[id])
			}
		}
		w.check(l, all...)
		w.OK(l.Destroy(background))
	}
	w.Run(time.Second)
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
		w.Clock.Advance(time.Duration(random.IntN(3000)) * time.Microsecond)
	}
}

// TestMoveStartsOver: the device moved again during the fix-ups, so that the
// firmware does not know the marker.
func TestMoveStartsOver(t *testing.T) {
	w, err := setup{plan: "mmio/RESFIX_DONE times=2 fail=0x107", arena: 32 << 20}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.Run(20 * time.Millisecond)
	w.OK(w.move())
	w.Until("the job", func() bool { return a.Ended[1] != "" })
	w.check(a, rig.Done{Job: 1, Count: 100})
	w.OK(a.Destroy(background))
	w.idle()
	if w.faults.Fired() != 2 {
		t.Errorf("%d faults", w.faults.Fired())
	}
}

// TestMoveTellsAgain: a submission that was lost before the move is told of again
// after it, and not only by the driver's own look at who does not begin.
func TestMoveTellsAgain(t *testing.T) {
	w, err := setup{plan: "h2g/SCHED_CONTEXT drop", arena: 32 << 20, driver: func(c *driver.Config) { c.Timeouts.Start = time.Hour }}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 5, "workgroup=1ms")))
	w.Until("the first job", func() bool { return a.Ended[1] != "" })
	w.OK(a.Run(background, w.Job(2, 5, "workgroup=1ms")))
	w.Run(10 * time.Millisecond)
	if w.faults.Fired() != 1 || a.Started[2] {
		t.Fatalf("%d faults, reports %q", w.faults.Fired(), w.Log)
	}
	w.OK(w.move())
	w.Run(100 * time.Millisecond)
	if a.Ended[2] != "completed" {
		t.Errorf("reports %q", w.Log)
	}
	w.check(a, rig.Done{Job: 1, Count: 5}, rig.Done{Job: 2, Count: 5})
	w.OK(a.Destroy(background))
	w.idle()
}

// TestPauseAndGoOn: the move does not come about.
func TestPauseAndGoOn(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.Run(20 * time.Millisecond)
	saved, err := w.driver.Pause(background)
	w.OK(err)
	if len(saved) == 0 {
		t.Error("nothing was saved")
	}
	before := w.scripted.executed[1]
	w.Run(time.Second)
	if w.scripted.executed[1] != before {
		t.Error("a paused device executes")
	}
	w.OK(w.driver.Unpause(background))
	w.Until("the job", func() bool { return a.Ended[1] != "" })
	w.check(a, rig.Done{Job: 1, Count: 100})
	w.OK(a.Destroy(background))
	w.idle()
}

// TestPauseKeepsDeadlines: an answer that was lost before a pause is missed after it.
func TestPauseKeepsDeadlines(t *testing.T) {
	w, err := setup{plan: "g2h/SCHED_CONTEXT_MODE_DONE drop"}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	l := w.Create("a", nil)
	w.OK(l.Run(background, w.Job(1, 10, "workgroup=1ms")))
	if _, err := w.driver.Pause(background); err != nil {
		t.Fatal(err)
	}
	w.Run(time.Minute)
	w.OK(w.driver.Unpause(background))
	w.Run(4 * time.Second)
	if w.driver.Resets() != 0 {
		t.Errorf("reset for %v: the pause counted", w.driver.LastReset())
	}
	w.Run(2 * time.Second)
	if w.driver.Resets() != 1 || l.Ended[1] != "completed" {
		t.Errorf("%d resets, the job %q", w.driver.Resets(), l.Ended[1])
	}
}
