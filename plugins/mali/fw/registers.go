package fw

import (
	"math/bits"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// The identity registers of a G610.
const (
	gpuID         = 0xA867_0000
	csfID         = 0x040A_0412
	l2Features    = 0x0712_0306
	tilerFeatures = 0x809
	memFeatures   = 0x301
	mmuFeatures   = 0x2830
	instrFeatures = 0x71
	flushIDFirst  = 1
	flushIDMask   = 1<<24 - 1
)

// gpuState is the GPU as a whole.
type gpuState struct {
	// resetting: until every execution has ended, or resetBy, when it has failed.
	resetting bool
	resetBy   time.Duration
	flushID   uint32
	// masks are the interrupt masks seen last, raised says that something was raised since.
	masks  [3]uint32
	raised bool
}

// resetRegisters gives every register the value it has after a reset, but for the
// mask of the GPU interrupt, which the host that resets waits for.
func (f *Firmware) resetRegisters() {
	r := f.cfg.Ports.Registers
	for _, block := range abi.RegInterrupts {
		r.Clear(block[0], ^uint32(0))
	}
	for _, v := range [][2]uint32{
		{abi.RegGPUID, gpuID}, {abi.RegCSFID, csfID}, {abi.RegL2Features, l2Features}, {abi.RegTilerFeatures, tilerFeatures},
		{abi.RegMemFeatures, memFeatures}, {abi.RegMMUFeatures, mmuFeatures}, {abi.RegASPresent, f.cfg.AddressSpaces},
		{abi.RegShaderPresent, uint32(f.cfg.Shaders)}, {abi.RegShaderPresent + 4, uint32(f.cfg.Shaders >> 32)},
		{abi.RegTilerPresent, 1}, {abi.RegL2Present, 1}, {abi.RegJobIntMask, 0}, {abi.RegMMUIntMask, 0},
		{abi.RegMCUControl, 0}, {abi.RegMCUStatus, abi.MCUDisabled}, {abi.RegFaultStatus, 0}, {abi.RegGPUStatus, 0},
	} {
		r.Store(v[0], v[1])
	}
	for _, p := range powerDomains {
		for _, reg := range []uint32{p.on, p.off, p.ready, p.ready + 4} {
			r.Store(reg, 0)
		}
	}
	for as := range uint32(abi.ASMax) {
		for _, reg := range []uint32{abi.RegASTransTab, abi.RegASTransTab + 4, abi.RegASFaultStatus, abi.RegASFaultAddress, abi.RegASFaultAddress + 4} {
			r.Store(abi.ASBase(as)+reg, 0)
		}
		r.Take(abi.ASBase(as) + abi.RegASCommand)
		r.Clear(abi.ASBase(as)+abi.RegASStatus, ^uint32(0))
	}
	for i := range abi.DoorbellsMax {
		r.Take(abi.RegDoorbell(i))
	}
	r.Take(abi.RegGPUCommand)
	f.gpu = gpuState{flushID: flushIDFirst}
	r.Store(abi.RegLatestFlush, flushIDFirst)
}

// powerDomains are what can be switched, in 32 bits.
var powerDomains = [...]struct{ present, on, off, ready uint32 }{
	{abi.RegShaderPresent, abi.RegShaderPowerOn, abi.RegShaderPwrOff, abi.RegShaderReady},
	{abi.RegTilerPresent, abi.RegTilerPowerOn, abi.RegTilerPwrOff, abi.RegTilerReady},
	{abi.RegL2Present, abi.RegL2PowerOn, abi.RegL2PwrOff, abi.RegL2Ready},
}

// takeCommands looks at the registers that the host commands with, and reports
// whether it found anything.
func (f *Firmware) takeCommands() bool {
	r := f.cfg.Ports.Registers
	worked := f.takePower()
	if cmd := r.Take(abi.RegGPUCommand); cmd != 0 {
		f.gpuCommand(cmd)
		worked = true
	}
	for as := range uint32(abi.ASMax) {
		worked = f.takeASCommand(as) || worked
	}
	return f.takeMCUControl() || worked
}

// takePower switches what the host asks for, at once.
func (f *Firmware) takePower() bool {
	r := f.cfg.Ports.Registers
	worked := false
	for _, p := range powerDomains {
		on, off := r.Take(p.on)&r.Load(p.present), r.Take(p.off)
		if on|off == 0 {
			continue
		}
		worked = true
		if rules, lost := f.meet(PointCommand, commandPower, hw.NoID); lost || stuckRule(rules) {
			continue
		}
		r.Set(p.ready, on)
		r.Clear(p.ready, off)
		f.raise(abi.RegGPUIntRaw, abi.GPUIntPowerChanged|abi.GPUIntPowerChangedAll)
	}
	return worked
}

// gpuCommand does what GPU_CMD says.
func (f *Firmware) gpuCommand(cmd uint32) {
	f.note("GPU", func(w []uint32) string { return gpuCommandText(w[0]) }, cmd)
	if cmd == abi.CommandSoftReset || cmd == abi.CommandHardReset {
		if rules, lost := f.meet(PointCommand, commandReset, hw.NoID); lost || stuckRule(rules) {
			return
		}
		f.beginReset()
		return
	}
	l2, _, _, ok := abi.DecodeCommandFlush(cmd)
	if !ok {
		f.violation("GPU command %#x", cmd)
		return
	}
	if rules, lost := f.meet(PointCommand, commandFlush, hw.NoID); lost || stuckRule(rules) {
		return
	}
	f.after(f.cfg.FlushDelay, func() {
		f.flush(l2)
		f.raise(abi.RegGPUIntRaw, abi.GPUIntCleanDone)
	})
}

func gpuCommandText(cmd uint32) string {
	switch cmd {
	case abi.CommandSoftReset:
		return "soft reset"
	case abi.CommandHardReset:
		return "hard reset"
	}
	return "flush caches"
}

// flush numbers a cache flush, and makes what is in the cache visible when it cleans.
func (f *Firmware) flush(l2 abi.FlushMode) {
	f.counters.Flushes++
	if f.gpu.flushID = (f.gpu.flushID + 1) & flushIDMask; f.gpu.flushID == 0 {
		f.gpu.flushID = flushIDFirst
	}
	f.cfg.Ports.Registers.Store(abi.RegLatestFlush, f.gpu.flushID)
	if l2&abi.FlushClean != 0 {
		f.cleanL2()
	}
}

// beginReset drops everything volatile; the reset ends when the engine is empty.
func (f *Firmware) beginReset() {
	f.drop()
	f.l2 = nil
	f.resetRegisters()
	f.mcu = mcu{}
	f.as = [abi.ASMax]addressSpace{}
	f.gpu.resetting, f.gpu.resetBy = true, f.now()+f.cfg.ResetGrace
}

// expireReset ends a reset, well or not, and reports whether it did.
func (f *Firmware) expireReset() bool {
	switch {
	case !f.gpu.resetting:
		return false
	case len(f.runs) == 0:
		f.gpu.resetting = false
		f.counters.Resets++
		f.raise(abi.RegGPUIntRaw, abi.GPUIntResetDone)
		return true
	case f.now() >= f.gpu.resetBy:
		// The host waits in vain and gives the device up; it boots nothing more.
		f.gpu.resetBy = never
		f.counters.ResetsFailed++
		f.say("GPU", "reset failed: an execution does not end")
		return true
	}
	return false
}

// drop forgets what the firmware was doing and asks every execution to end.
func (f *Firmware) drop() {
	for _, g := range f.groups {
		for _, s := range g.streams {
			s.forget()
		}
	}
	f.groups = nil
	f.glb = global{idleAt: never}
	f.steps.Cancel()
	for _, r := range f.runs {
		f.orphan(r)
	}
	f.forgetSpaces()
}

// PowerOff takes the power from the device: registers, address spaces,
// doorbells, timers and the cache are gone, memory stays. The next Step finds a
// device that has just got power. It returns hw.ErrRunning when an execution that cannot be aborted
// is still on the engine; then the memory must not be reused before it ended.
func (f *Firmware) PowerOff() error {
	f.at = f.cfg.Clock.Now()
	f.say("GPU", "power off")
	f.drop()
	f.l2 = nil
	f.mcu = mcu{}
	f.as = [abi.ASMax]addressSpace{}
	f.resetRegisters()
	f.cfg.Ports.Registers.Store(abi.RegGPUIntMask, 0)
	f.finishEnded()
	f.steps.Arm(f.deadline())
	if len(f.runs) > 0 {
		return hw.ErrRunning
	}
	return nil
}

// raise sets bits of an interrupt's RAWSTAT. What the bits tell of is written before.
func (f *Firmware) raise(raw, mask uint32) {
	f.counters.Interrupts += uint64(bits.OnesCount32(mask))
	f.cfg.Ports.Registers.Set(raw, mask)
	f.gpu.raised = true
}

// line raises the interrupt line if there is something that the host lets
// through and has not been told of.
func (f *Firmware) line() {
	r, pending := f.cfg.Ports.Registers, false
	changed := f.gpu.raised
	for i, block := range abi.RegInterrupts {
		mask := r.Load(block[2])
		changed = changed || mask != f.gpu.masks[i]
		f.gpu.masks[i] = mask
		pending = pending || r.Load(block[0])&mask != 0
	}
	if pending && changed {
		f.cfg.Ports.Interrupt.Raise()
	}
	f.gpu.raised = false
}

// stamp brings the counters in the registers up to date.
func (f *Firmware) stamp(now time.Duration) {
	f.store64(abi.RegCycleCount, ticks(now, f.cfg.CycleRate))
	f.store64(abi.RegTimestamp, ticks(now, f.cfg.TimestampRate))
}

func (f *Firmware) store64(reg uint32, v uint64) {
	f.cfg.Ports.Registers.Store(reg, uint32(v))
	f.cfg.Ports.Registers.Store(reg+4, uint32(v>>32))
}

// ticks is how often something of a rate per second has ticked.
func ticks(d time.Duration, rate uint64) uint64 {
	hi, lo := bits.Mul64(uint64(d), rate)
	quo, _ := bits.Div64(hi%uint64(time.Second), lo, uint64(time.Second))
	return quo
}

// span is how long n ticks of a rate take, at most what a duration holds.
func span(n, rate uint64) time.Duration {
	hi, lo := bits.Mul64(n, uint64(time.Second))
	if hi >= rate {
		return never
	}
	quo, _ := bits.Div64(hi, lo, rate)
	return time.Duration(min(quo, uint64(never)))
}
