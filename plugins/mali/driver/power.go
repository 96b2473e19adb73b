package driver

import (
	"context"
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// power is the device's own sleep.
type power struct {
	// idle runs while nothing is under way.
	idle hw.Timer
	// held says that somebody wants the device off, asleep who waits for that.
	held   bool
	asleep []func(error)
	// off counts power-offs, fast and slow the boots since.
	off, fast, slow int
}

// spaceBudget is how many address spaces groups can have.
func (d *Driver) spaceBudget() int {
	n := 0
	for rest := d.spaces.present; rest != 0; rest &= rest - 1 {
		n++
	}
	return n
}

// quiet reports whether the device may be powered off: nobody runs or wants to.
func (d *Driver) quiet() bool {
	if d.down() || d.tick.running || d.tick.wanted || len(d.waits) > 0 || d.wanting > 0 || d.blockedGroups > 0 {
		return false
	}
	for _, s := range d.slots {
		if s.group != nil && (s.group.busy() || !s.group.mayRun()) {
			return false
		}
	}
	return true
}

// watchIdle keeps the timer of the runtime suspend, and goes on with Sleep.
func (d *Driver) watchIdle() {
	if d.power.held && d.phase == phaseUp && !d.tick.running && d.loop.Failure() == nil {
		d.suspendRuntime()
		return
	}
	if d.config.RuntimeIdle < 0 {
		return
	}
	switch quiet := d.quiet(); {
	case !quiet && d.power.idle != nil:
		d.power.idle.Stop()
		d.power.idle = nil
	case quiet && d.power.idle == nil:
		d.power.idle = d.loop.After(d.config.RuntimeIdle, func() {
			d.power.idle = nil
			if d.quiet() {
				d.suspendRuntime()
			}
		})
	}
}

// suspendRuntime takes everybody off, halts the firmware and resets the GPU, which
// drops its caches; the power goes then. Rings, suspend buffers and the firmware's memory stay.
func (d *Driver) suspendRuntime() {
	d.phase = phaseSuspending
	d.dropWaits()
	if d.ping != nil {
		d.ping.Stop()
	}
	d.suspendAll(func() {
		for _, s := range d.slots {
			if g := s.group; g != nil && g.state != forced {
				d.reset(slotError(s, "group is %s and does not leave", g.state))
				return
			}
		}
		d.halt(func(clean bool) {
			d.softReset(func() {
				d.phase = phaseOff
				d.mcu.fast = clean
				d.power.off++
				d.log.Debug("device suspended")
				for _, g := range d.ordered() {
					g.advance(gpuReset)
					if g.state.off() && (!g.buried || g.destroy) {
						g.afterSlot()
					}
				}
				host.Answer(&d.power.asleep, nil)
			})
		})
	})
}

// halt stops the firmware and reports whether it came to rest cleanly, so that its memory can be used again.
func (d *Driver) halt(done func(clean bool)) {
	req := d.iface.input + abi.GlobalReq
	d.store(req, d.load(req)|abi.GlobalHalt)
	d.kick(0)
	d.expect(d.config.Timeouts.Halt, registerPoll, func() bool { return d.read(abi.RegMCUStatus) == abi.MCUHalted }, func() {
		status := d.load(d.iface.output + abi.GlobalHaltStatus)
		if status != abi.HaltOK {
			d.log.Warn("firmware halted badly", "error", fmt.Sprintf("status %#x", status))
		}
		done(status == abi.HaltOK)
	}, func() {
		d.log.Warn("firmware does not halt")
		done(false)
	})
}

// resume boots the firmware, fast if its memory can be used again, and ticks.
func (d *Driver) resume() {
	d.phase = phaseLoading
	slow := func() {
		d.power.slow++
		d.boot(true, func(err error) {
			if err != nil {
				d.fail(err)
				return
			}
			d.up()
		})
	}
	if !d.mcu.fast {
		slow()
		return
	}
	d.mcu.fast = false
	d.boot(false, func(err error) {
		if err != nil {
			d.log.Warn("fast boot failed", "error", err)
			d.write(abi.RegMCUControl, abi.MCUControlDisable)
			d.softReset(slow)
			return
		}
		d.power.fast++
		d.up()
	})
}

// Power returns how often the device was powered off, and how often it came back
// fast and slowly. For tests, on the goroutine that calls Step.
func (d *Driver) Power() (off, fast, slow int) { return d.power.off, d.power.fast, d.power.slow }

// Sleep is system sleep: everybody leaves, and the power goes until Wake. Jobs
// submitted meanwhile wait. It returns when the device is off.
func (d *Driver) Sleep(ctx context.Context) error {
	return d.loop.Call(ctx, "sleep", func(done func(error)) {
		d.power.held = true
		if d.phase == phaseOff {
			done(nil)
			return
		}
		d.power.asleep = append(d.power.asleep, done)
	})
}

// Wake ends Sleep; the device comes up again when there is work.
func (d *Driver) Wake(ctx context.Context) error {
	return d.loop.Call(ctx, "wake", func(done func(error)) {
		d.power.held = false
		d.tickNow()
		done(nil)
	})
}
