package fw

import "github.com/gpuwm/gpuwm/plugins/agx/abi"

// Crash ends the firmware as a panic of its own does.
func (f *Firmware) Crash(text string) { f.crash(text) }

// crash freezes everything: the crash log is filled, the crashlog endpoint says
// so, and nothing is read or written any more.
func (f *Firmware) crash(text string) {
	if f.phase == phaseCrashed {
		return
	}
	f.counters.Crashes++
	f.crashText = text
	f.say("CRASH", "%s", text)
	b := f.boot.crashLog
	if b.Address != 0 {
		if buffer, err := f.bytes(b.Address, uint64(b.Pages)*abi.BufferPageBytes); err == nil {
			abi.EncodeCrashLog(buffer, text, string(f.cfg.Version.Firmware))
		}
	}
	f.send() // What was to be said before, as far as there is room; the rest is lost.
	f.die()
	if b.Address != 0 {
		f.post(abi.BufferMessage(abi.EndpointCrashLog, b)) // It waits for room, and is the last.
		f.send()
	}
}

// die freezes everything without a word.
func (f *Firmware) die() {
	f.enter(phaseCrashed)
	f.injected.doom = nil
	f.out, f.events = nil, nil
	f.steps.Cancel()
	f.cfg.Ports.Registers.Store(abi.RegCPUStatus, abi.CPUStopped)
	for _, c := range f.running {
		if c.run != nil && c.run.exec != nil {
			f.sample(c)
		}
	}
	f.abandon()
}
