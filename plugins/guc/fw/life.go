package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// phase is what the firmware as a whole does.
type phase uint8

// The phases and what may follow.
const (
	// phaseReady serves the host; then draining or dead.
	phaseReady phase = iota
	// phaseDraining takes everything off the engines and then goes on with what
	// was asked (soft reset, reset, reload, power off): ready, unloaded, off, or dead.
	phaseDraining
	// phaseDead is mute; only a reset of the device helps.
	phaseDead
	// phaseUnloaded is after a reset: nothing runs until the host loads; then ready.
	phaseUnloaded
	// phaseOff has no power (D3cold); then unloaded.
	phaseOff
)

// String names the phase.
func (p phase) String() string {
	return [...]string{"ready", "draining", "dead", "unloaded", "off"}[p]
}

// life is what the device as a whole goes through, beside the firmware's phase.
type life struct {
	// power is the state that was reached.
	power abi.PowerState
	// resetting: a reset is under way and must have ended at resetBy.
	resetting bool
	resetBy   time.Duration
	// loading: the host asked for a load that has not ended.
	loading bool
}

// enter changes the phase.
func (f *Firmware) enter(p phase) {
	if f.phase != p {
		f.note("FW", func(w []uint32) string { return phase(w[0]).String() + " -> " + phase(w[1]).String() }, uint32(f.phase), uint32(p))
	}
	f.phase = p
}

// takeRegisters looks at the registers beside the mailbox and reports whether
// the host wanted something.
func (f *Firmware) takeRegisters() bool {
	regs := f.cfg.Ports.Registers
	worked := false
	if want, ok := abi.DecodePower(regs.Load(abi.RegPower)); ok && want != f.life.power {
		worked = f.setPower(want)
	}
	if f.life.power != abi.PowerD0 {
		return worked
	}
	if v := regs.Load(abi.RegReset); abi.Present(v) && v&abi.ResetFull != 0 && v&abi.ResetFailed == 0 && !f.life.resetting {
		f.gtReset()
		worked = true
	}
	if v := regs.Load(abi.RegLoad); abi.Present(v) && v&abi.LoadStart != 0 && !f.life.loading && f.phase != phaseDraining {
		f.load()
		worked = true
	}
	return worked
}

// forget drops everything that a reset drops, contexts excepted: engines are
// asked to stop, aborted where that is possible, and then is called when they have.
func (f *Firmware) forget(then func()) {
	f.stopAll(true)
	f.closeChannel()
	f.cancel()
	f.h2gAt, f.injected, f.function = 0, injected{}, guestFunction{}
	f.mailbox.busy = false
	f.life.loading = false
	f.enter(phaseDraining)
	f.drained = func() {
		f.forgetContexts()
		f.noEngineReset, f.extendedCat = false, false
		then()
	}
}

// gtReset resets the device. It ends when nothing is on an engine any more; an
// engine that does not stop in time makes it fail.
func (f *Firmware) gtReset() {
	f.counters.GTResets++
	regs := f.cfg.Ports.Registers
	f.life.resetting, f.life.resetBy = true, f.cfg.Clock.Now()+f.cfg.ResetGrace
	regs.Store(abi.RegStatus, abi.StatusInReset)
	f.forget(func() {
		f.enter(phaseUnloaded)
		f.resetMailbox()
		f.life.resetting = false
		regs.Store(abi.RegReset, 0)
	})
}

// expireReset makes a reset fail whose time is over. It still ends if the
// engine stops after all.
func (f *Firmware) expireReset() bool {
	if !f.life.resetting || f.cfg.Clock.Now() < f.life.resetBy || f.life.resetBy == never {
		return false
	}
	f.counters.GTResetsFailed++
	f.life.resetting, f.life.resetBy = false, never
	f.cfg.Ports.Registers.Store(abi.RegReset, abi.ResetFull|abi.ResetFailed)
	return true
}

// load loads the firmware after a reset; at any other time nothing happens.
func (f *Firmware) load() {
	regs := f.cfg.Ports.Registers
	if f.phase != phaseUnloaded {
		regs.Store(abi.RegLoad, 0)
		return
	}
	f.life.loading = true
	f.after(f.cfg.LoadDelay, func() {
		f.life.loading = false
		status := abi.LoadReady
		if rules, _ := f.meet(PointLoad, "", hw.NoID); len(rules) > 0 {
			status = uint8(rules[0].Number())
		}
		if status == abi.LoadReady {
			f.resetMailbox()
			f.enter(phaseReady)
		}
		// The host may ask as soon as it reads these: last of all, and the end of the load after how it ended.
		regs.Store(abi.RegStatus, abi.EncodeLoadStatus(status))
		regs.Store(abi.RegLoad, 0)
	})
}

// setPower goes to another power state and reports whether it is reached.
func (f *Firmware) setPower(want abi.PowerState) bool {
	regs := f.cfg.Ports.Registers
	switch {
	case f.phase == phaseDraining || want == abi.PowerD3Hot && (f.life.power != abi.PowerD0 || !f.quiet()):
		return false
	case want == abi.PowerD3Cold:
		f.forget(func() {
			f.enter(phaseOff)
			f.life = life{power: abi.PowerD3Cold}
			for _, r := range [...]uint32{abi.RegReset, abi.RegLoad, abi.RegStatus, abi.RegInterruptSource} {
				regs.Store(r, 0)
			}
			if f.cfg.VolatileMemory {
				_ = f.cfg.Arena.Punch(hw.MemoryBase, f.cfg.Arena.Size()-hw.MemoryBase)
			}
			regs.Store(abi.RegPowerState, uint32(abi.PowerD3Cold))
		})
		return true
	case f.phase == phaseOff:
		f.enter(phaseUnloaded)
		regs.Store(abi.RegStatus, abi.StatusInReset)
		f.resetMailbox()
	}
	f.note("FW", func(w []uint32) string { return abi.PowerState(w[0]).String() }, uint32(want))
	f.life.power = want
	regs.Store(abi.RegPowerState, uint32(want))
	return true
}

// Reload is reset and load in one, from outside of the boundary: a process that
// is replaced. e replaces the engine unless it is nil. With the old engine the firmware answers nothing
// until the executions under it have ended; one that never ends keeps it mute.
// With a new engine it is up at once, and the caller sees to the old one.
func (f *Firmware) Reload(e engine.Engine) {
	if e != nil {
		f.stopAll(true)
		f.cfg.Engine = e
		f.kernels = order.Kernels{}
		for _, g := range f.contexts {
			g.space, g.on = 0, nil
		}
		for _, c := range f.classes {
			for _, in := range c.instances {
				*in = instance{index: in.index}
			}
		}
	}
	f.life.resetting = false
	f.forget(func() {
		f.enter(phaseReady)
		f.life = life{}
		f.resetRegisters()
	})
	f.steps.Raise()
}

// resetRegisters makes all registers read as after a load.
func (f *Firmware) resetRegisters() {
	regs := f.cfg.Ports.Registers
	f.resetMailbox()
	for _, r := range [...]uint32{abi.RegReset, abi.RegLoad, abi.RegInterruptSource, abi.RegPower, abi.RegPowerState} {
		regs.Store(r, 0)
	}
	regs.Store(abi.RegStatus, abi.EncodeLoadStatus(abi.LoadReady))
}

// Crash makes the firmware post a crash dump (or an exception) and stop.
func (f *Firmware) Crash(exception bool) {
	if f.phase != phaseReady {
		return
	}
	if exception {
		f.event(abi.Exception{})
	} else {
		f.event(abi.CrashDumpPosted{})
	}
	f.die()
}

// die makes the firmware mute; only messages that already wait still leave.
func (f *Firmware) die() {
	f.enter(phaseDead)
	f.cancel()
	f.injected.doom = nil
	f.stopAll(false)
}

// finishDrain goes on with what was asked when all engines are empty.
func (f *Firmware) finishDrain() bool {
	if !f.quiet() {
		return false
	}
	then := f.drained
	f.drained = nil
	then()
	return true
}
