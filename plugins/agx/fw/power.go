package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// power is the GPU's own power, beside the coprocessor's. It goes off by itself
// when nothing was to be done for idle_off_delay_ms and the host has no
// submission pending; whatever is kicked switches it on.
type power struct {
	on bool
	// switching: on its way on or off.
	switching bool
	// since is when it came on or off, idleSince when it last had something to do.
	since, idleSince time.Duration
	// earlyUntil: a bare kick keeps it awake until then; never when none does.
	earlyUntil time.Duration
	// deadline is when to look again.
	deadline time.Duration
}

// earlyWake handles a bare kick.
func (f *Firmware) earlyWake() {
	f.power.earlyUntil = f.cfg.Clock.Now() + time.Duration(f.global(abi.GlobalEarlyWakeTimeoutMS))*time.Millisecond
	f.powerOn()
}

// powerOn switches the GPU on, at once unless that takes its time.
func (f *Firmware) powerOn() {
	now := f.cfg.Clock.Now()
	f.power.idleSince = now
	if f.power.on || f.power.switching {
		return
	}
	if f.cfg.PowerOnDelay == 0 {
		f.poweredOn()
		return
	}
	f.power.switching = true
	f.after(f.cfg.PowerOnDelay, f.poweredOn)
}

func (f *Firmware) poweredOn() {
	now := f.cfg.Clock.Now()
	f.counters.PowerOns++
	f.stat(abi.StatPowerOn, now-f.power.since)
	f.power.on, f.power.switching, f.power.since, f.power.idleSince = true, false, now, now
	f.kicked = true
}

// takePower switches the GPU off when it may be.
func (f *Firmware) takePower() bool {
	now := f.cfg.Clock.Now()
	p := &f.power
	p.deadline = never
	if !p.on || !f.initialized {
		return false
	}
	if len(f.running) > 0 || f.pick() != nil {
		p.idleSince, p.earlyUntil = now, never
		return false
	}
	if f.kicked {
		p.idleSince = now
		return false
	}
	if f.global(abi.GlobalPendingSubmissions) != 0 {
		p.idleSince = now
		p.deadline = now + max(f.idleDelay(), poll)
		return false
	}
	at := p.idleSince + f.idleDelay()
	if p.earlyUntil != never {
		at = max(at, p.earlyUntil)
	}
	if now < at {
		p.deadline = at
		return false
	}
	p.on, p.earlyUntil = false, never
	f.counters.PowerOffs++
	f.stat(abi.StatPowerOff, now-p.since)
	p.since = now
	f.injectPower()
	return true
}

func (f *Firmware) idleDelay() time.Duration {
	return time.Duration(f.global(abi.GlobalIdleOffDelayMS)) * time.Millisecond
}

// stat writes a statistics message; a full ring loses it without harm.
func (f *Firmware) stat(t abi.StatType, d time.Duration) {
	m := &abi.Stat{Type: uint32(t), Ticks: abi.Ticks(uint64(d))}
	name := "on"
	if t == abi.StatPowerOff {
		name = "off"
	}
	f.say("POWER", "%s after %s", name, d)
	if _, err := f.host.statOut.Send(f.abi.Bytes(m)); err == nil {
		f.ring42()
	}
}
