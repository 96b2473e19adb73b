package driver

import (
	"context"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// power is the device's own sleep.
type power struct {
	// idle runs while nothing is under way.
	idle hw.Timer
	// asleep are those who wait for system sleep, or asked for the one that is.
	asleep []*sleeper
	// Counts of D3hot and D3cold, for tests.
	hot, cold int
}

// sleeper is one call of Sleep.
type sleeper struct{ done func(error) }

// Sleeps returns how often the device was in D3hot and in D3cold. For tests, on
// the goroutine that calls Step.
func (d *Driver) Sleeps() (hot, cold int) { return d.power.hot, d.power.cold }

// idle reports whether the device may go to D3hot: no message is outstanding and
// the firmware sees no work.
func (d *Driver) idle() bool {
	return !d.failed() && d.phase == phaseUp && d.Idle() && len(d.active) == 0 && d.awaited == 0 && !d.pausing
}

// watchIdle keeps the timer of the runtime suspend.
func (d *Driver) watchIdle() {
	if d.config.RuntimeIdle < 0 {
		return
	}
	switch quiet := d.idle(); {
	case !quiet && d.power.idle != nil:
		d.power.idle.Stop()
		d.power.idle = nil
	case quiet && d.power.idle == nil:
		d.power.idle = d.loop.After(d.config.RuntimeIdle, func() {
			d.power.idle = nil
			if d.idle() {
				d.suspendRuntime()
			}
		})
	}
}

// suspendRuntime enters D3hot: the queues pause, the channel is closed on this side
// only, and the firmware keeps everything.
func (d *Driver) suspendRuntime() {
	d.power.hot++
	d.phase = phaseHot
	d.ct.open = false
	d.write(abi.RegPower, uint32(abi.PowerD3Hot))
	d.log.Debug("device suspended")
}

// rouse ends D3hot when something is to be said: the channel goes on where it
// stood, without a registration, and what lies in it unread becomes NOPs.
func (d *Driver) rouse() {
	if d.phase != phaseHot || d.failed() {
		return
	}
	d.phase = phaseWaking
	d.write(abi.RegPower, uint32(abi.PowerD0))
	d.wait("resume from D3hot", d.config.Timeouts.Load, d.powered, func() {
		d.reopen()
		d.request(globalPolicies, func(_ abi.Success, err error) {
			if err != nil {
				d.log.Warn("firmware setting refused", "setting", globalPolicies.Action(), "error", err)
			}
		})
		d.up()
		d.log.Debug("device resumed")
	})
}

// attends reports whether queues may change now.
func (d *Driver) attends() bool {
	switch d.phase {
	case phaseUp, phaseHot, phaseWaking, phaseCold:
		return true
	}
	return false
}

// speaks reports whether a message can be sent now, and wakes the device if not.
// Every queue is settled again when it is up.
func (d *Driver) speaks() bool {
	d.rouse()
	return d.phase == phaseUp
}

// powered reports whether D0 was reached.
func (d *Driver) powered() (bool, error) {
	state, known := abi.DecodePower(d.read(abi.RegPowerState))
	return known && state == abi.PowerD0, nil
}

// reopen is the CT restart: HEAD and TAIL stay, what is unread in H2G is zeroed.
func (d *Driver) reopen() {
	words, err := d.config.Arena.Words(d.block+h2gBuffer, h2gSize/4)
	if err != nil {
		d.fail(err)
		return
	}
	for i := range words.Len() {
		words.Store(i, 0)
	}
	d.ct.open = true
}

// Sleep is system sleep (D3cold): every queue leaves the engines, the firmware is
// told to forget all contexts, and the power goes. Jobs and memory stay; jobs
// submitted meanwhile wait. It returns when the device is off. With an error the device stays awake, or
// wakes again if it was too late for that.
func (d *Driver) Sleep(ctx context.Context) error {
	s := &sleeper{}
	err := d.loop.Call(ctx, "sleep", func(done func(error)) {
		switch d.phase {
		case phaseCold:
			d.power.asleep = append(d.power.asleep, s)
			done(nil)
			return
		case phaseDown:
			done(fmt.Errorf("device is not up: %w", core.ErrInvalid))
			return
		}
		s.done = done
		d.power.asleep = append(d.power.asleep, s)
		d.pausing = true
		d.rouse()
		for _, q := range d.ordered() {
			q.settle()
		}
		d.trySleep()
	})
	if err != nil {
		d.loop.Post(func() { d.forgoSleep(s) })
	}
	return err
}

// forgoSleep takes one away who asked for the sleep. Without anybody left the device goes on.
func (d *Driver) forgoSleep(s *sleeper) {
	at := slices.Index(d.power.asleep, s)
	if at < 0 {
		return
	}
	d.power.asleep = slices.Delete(d.power.asleep, at, at+1)
	switch {
	case len(d.power.asleep) > 0 || d.failed():
	case d.phase == phaseCold:
		d.wake()
	case d.pausing && d.phase != phaseSleeping:
		d.pausing = false
		for _, q := range d.ordered() {
			q.settle()
		}
	}
}

// trySleep goes on with Sleep when every queue is off its engine and no answer is awaited.
func (d *Driver) trySleep() {
	if !d.pausing || d.phase != phaseUp || d.failed() || d.awaited > 0 {
		return
	}
	for _, q := range d.queues {
		if !q.state.held() && !q.state.off() {
			return
		}
	}
	d.phase = phaseSleeping
	d.ct.halt()
	d.mail(&mailbox{left: []abi.Body{abi.ClientSoftReset{}}, done: func(abi.Success) {
		d.phase = phaseCold
		d.power.cold++
		d.pausing = false
		for _, q := range d.ordered() {
			q.disarm()
			q.judgeCold()
		}
		d.write(abi.RegPower, uint32(abi.PowerD3Cold))
		for _, s := range d.power.asleep {
			s.done(nil)
		}
		if len(d.power.asleep) == 0 {
			d.wake()
		}
	}})
}

// judgeCold: the firmware forgot the context, but ring and memory stay as the
// context left them, so that a job which was preempted goes on there.
func (q *queue) judgeCold() {
	if !q.advance(gtReset) {
		return
	}
	if q.state == gone {
		q.free()
		return
	}
	q.published = 0
	q.watch = watch{}
	delete(q.d.active, q)
}

// Wake ends Sleep: the firmware is loaded, the channel registered, and each
// context with its next job. It returns when the device takes work.
func (d *Driver) Wake(ctx context.Context) error {
	return d.loop.Call(ctx, "wake", func(done func(error)) {
		if d.phase != phaseCold {
			done(nil)
			return
		}
		d.upWaits = append(d.upWaits, done)
		d.wake()
	})
}

// wake ends D3cold.
func (d *Driver) wake() {
	d.power.asleep = nil
	d.phase = phaseLoading
	d.write(abi.RegPower, uint32(abi.PowerD0))
	d.wait("resume from D3cold", d.config.Timeouts.Load, d.powered, func() { d.restart(d.bringUp) })
}

func (d *Driver) recovering() bool { return d.phase == phaseMoving }
