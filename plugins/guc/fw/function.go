package fw

import (
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// functionState is where the one function of the device stands: the device
// migrates as a whole, and the host is owner and guest in one.
type functionState uint8

// The states and what may follow.
const (
	// functionRunning; then pausing, stopping, resetting.
	functionRunning functionState = iota
	// functionPausing takes everything off the engines; then paused.
	functionPausing
	// functionPaused may be saved and restored; then running (resumed), fixing
	// paused (restored), stopping, resetting.
	functionPaused
	// functionResfixPaused was restored (RESFIX_PAUSED); then unblocking.
	functionResfixPaused
	// functionBlocking was resumed, the reply is still on its way; then blocked.
	functionBlocking
	// functionBlocked waits for the guest to begin its fix-ups (RESFIX_BLOCKED);
	// then fixing.
	functionBlocked
	// functionFixing waits for their end; then running.
	functionFixing
	// functionStopping takes everything off the engines; then stopped.
	functionStopping
	// functionStopped waits for a function level reset; then resetting.
	functionStopped
	// functionResetting takes everything off the engines and forgets it; then reset.
	functionResetting
	// functionReset waits for the end of the reset; then running.
	functionReset
)

// String names the state.
func (s functionState) String() string {
	return [...]string{"running", "pausing", "paused", "resfix-paused", "blocking", "resfix-blocked", "fixing",
		"stopping", "stopped", "resetting", "reset"}[s]
}

// guestFunction is the function with what its present state needs.
type guestFunction struct {
	state functionState
	// restored is what the fix-ups end with.
	restored *snapshot
	// marker is the one of RESFIX_START.
	marker uint16
	// owed says that the reply to the pause waits for its end.
	owed  bool
	fence abi.Fence
}

// setFunction changes the function's state.
func (f *Firmware) setFunction(s functionState) {
	f.note("VF", func(w []uint32) string { return functionState(w[0]).String() + " -> " + functionState(w[1]).String() },
		uint32(f.function.state), uint32(s))
	f.function.state = s
}

// owners are the actions of whoever owns the function, which work while it is paused.
var owners = []abi.Action{abi.ActionVFControl, abi.ActionSaveRestoreVF}

// deaf reports whether the function's messages are not taken at all.
func (s functionState) deaf() bool {
	return s == functionBlocking || s == functionBlocked || s == functionFixing
}

// vfControl changes the state of the function.
func (f *Firmware) vfControl(fence abi.Fence, m abi.VFControl) (abi.Packet, bool) {
	if m.Function != f.cfg.Function {
		return failure(f.code(MisuseFunction)), true
	}
	s := f.function.state
	switch {
	case m.Command == abi.VFPause && s == functionRunning:
		f.function.owed, f.function.fence = f.cfg.NotifyFirst, fence
		f.leaveEngines(functionPausing)
		return abi.SuccessReply(0), !f.cfg.NotifyFirst
	case m.Command == abi.VFResume && s == functionPaused:
		f.setFunction(functionRunning)
	case m.Command == abi.VFResume && s == functionResfixPaused:
		f.setFunction(functionBlocking)
	case m.Command == abi.VFStop && (s == functionRunning || s == functionPaused || s == functionResfixPaused):
		f.leaveEngines(functionStopping)
	case m.Command == abi.VFResetStart && s != functionReset && s != functionResetting:
		f.leaveEngines(functionResetting)
	case m.Command == abi.VFResetFinish && s == functionReset:
		f.setFunction(functionRunning)
	default:
		return failure(f.code(MisuseFunctionState)), true
	}
	return abi.SuccessReply(0), true
}

// leaveEngines preempts everything; takeFunction goes on when it is off.
func (f *Firmware) leaveEngines(s functionState) {
	f.setFunction(s)
	for _, c := range f.classes {
		for _, in := range c.instances {
			f.preempt(in)
		}
	}
}

// takeFunction goes on with a change of the function's state and reports
// whether it could.
func (f *Firmware) takeFunction() bool {
	switch s := f.function.state; s {
	case functionPausing, functionStopping, functionResetting:
		if !f.quiet() || f.dones > 0 {
			return false
		}
		f.offEngines(s)
		return true
	case functionBlocking:
		if len(f.ct.queue) > 0 && f.ct.open {
			return false
		}
		f.block()
		return true
	}
	return false
}

// offEngines ends a change for which the engines had to be empty.
func (f *Firmware) offEngines(s functionState) {
	notify := func(state abi.VFState) { f.event(abi.VFStateNotify{Function: f.cfg.Function, State: state}) }
	switch s {
	case functionPausing:
		f.setFunction(functionPaused)
		notify(abi.VFStatePauseDone)
		if f.function.owed {
			f.function.owed = false
			f.reply(f.function.fence, abi.SuccessReply(0))
		}
	case functionStopping:
		f.setFunction(functionStopped)
	default:
		f.forgetContexts()
		f.function.restored = nil
		f.setFunction(functionReset)
		notify(abi.VFStateResetDone)
	}
}

// saveRestore writes or takes a snapshot.
func (f *Firmware) saveRestore(m abi.SaveRestoreVF) abi.Packet {
	switch {
	case m.Function != f.cfg.Function:
		return failure(f.code(MisuseFunction))
	case f.function.state != functionPaused:
		return failure(f.code(MisuseNotPaused))
	case m.Restore:
		return f.restore(m)
	}
	dw := f.snapshot().encode()
	if m.Address == 0 && m.Dwords == 0 {
		return abi.SuccessReply(uint32(len(dw)))
	}
	if uint64(m.Dwords) < uint64(len(dw)) {
		return failure(f.code(MisuseShortBuffer))
	}
	words, err := f.cfg.Arena.Words(m.Address, uint32(len(dw)))
	if err != nil || m.Address < hw.MemoryBase {
		return failure(f.code(MisuseAddress))
	}
	for i, v := range dw {
		words.Store(uint32(i), v)
	}
	f.counters.Saves++
	return abi.SuccessReply(uint32(len(dw)))
}

// snapshot collects the state of a paused function.
func (f *Firmware) snapshot() *snapshot {
	s := &snapshot{noEngineReset: f.noEngineReset, extendedCat: f.extendedCat, open: f.ct.open}
	for i, key := range snapshotKeys {
		s.registered[i] = f.ct.registered[key]
	}
	if f.ct.open {
		s.h2gHead, s.g2hTail = f.ct.h2g.Head(), f.ct.g2h.Tail()
		for _, m := range f.ct.queue {
			if len(m) > 1 { // A fault may have left less.
				s.messages = append(s.messages, m)
			}
		}
	}
	order := map[abi.GUCID]uint32{}
	for _, c := range f.classes {
		for l := range c.ready {
			n := uint32(0)
			for g := range c.ready[l].all() {
				n++
				order[g.id] = n
			}
		}
	}
	for id, g := range f.contexts {
		state := map[contextState]uint32{contextEnabled: savedEnabled, contextReset: savedReset}[g.state]
		s.contexts = append(s.contexts, savedContext{id: id, state: state, class: g.class.class, mask: g.mask,
			lrc: g.lrc, policies: g.policies, usedUS: uint32(g.used / time.Microsecond), order: order[id]})
	}
	slices.SortFunc(s.contexts, func(a, b savedContext) int { return int(a.id) - int(b.id) })
	return s
}

// restore takes a snapshot over, all or nothing.
func (f *Firmware) restore(m abi.SaveRestoreVF) abi.Packet {
	words, err := f.cfg.Arena.Words(m.Address, m.Dwords)
	if err != nil || m.Address < hw.MemoryBase {
		return failure(f.code(MisuseAddress))
	}
	dw := make([]uint32, words.Len())
	for i := range dw {
		dw[i] = words.Load(uint32(i))
	}
	s, err := decodeSnapshot(dw)
	if err != nil {
		return failure(codeOf(err))
	}
	contexts := map[abi.GUCID]*guContext{}
	for _, c := range s.contexts {
		g, code := f.newContext(c.id, c.class, c.mask, c.lrc)
		if g == nil {
			return failure(code)
		}
		g.state = map[uint32]contextState{savedDisabled: contextDisabled, savedEnabled: contextEnabled, savedReset: contextReset}[c.state]
		g.policies, g.used = c.policies, time.Duration(c.usedUS)*time.Microsecond
		contexts[c.id] = g
	}
	f.forgetContexts()
	f.contexts = contexts
	waiting := slices.DeleteFunc(slices.Clone(s.contexts), func(c savedContext) bool { return c.order == 0 })
	slices.SortStableFunc(waiting, func(a, b savedContext) int { return int(int64(a.order) - int64(b.order)) })
	for _, c := range waiting {
		contexts[c.id].class.push(contexts[c.id], false)
	}
	f.noEngineReset, f.extendedCat = s.noEngineReset, s.extendedCat
	f.function.restored = s
	f.setFunction(functionResfixPaused)
	f.counters.Restores++
	return abi.SuccessReply(uint32(s.dwords()))
}

// block leaves the rings that the owner used and tells the guest that it was
// migrated: nothing is read or written before its fix-ups are done. HEAD and
// TAIL are then those of the descriptors, which came with the memory.
func (f *Firmware) block() {
	s := f.function.restored
	registered := map[abi.KLVKey]uint64{}
	for i, key := range snapshotKeys {
		registered[key] = s.registered[i]
	}
	f.closeChannel()
	f.ct.registered = registered
	f.setFunction(functionBlocked)
	regs := f.cfg.Ports.Registers
	regs.Store(abi.RegInterruptSource, abi.InterruptMigrated)
	f.interrupt(irqMigrated, hw.NoID)
}

// resfixStart begins the fix-ups of the guest; again means from the beginning.
func (f *Firmware) resfixStart(m abi.ResfixStart) abi.Packet {
	if f.function.state != functionBlocked && f.function.state != functionFixing {
		return failure(f.code(MisuseFunctionState))
	}
	f.function.marker = m.Marker
	f.setFunction(functionFixing)
	return abi.SuccessReply(0)
}

// resfixDone ends the fix-ups: the rings of the guest are opened, and its contexts run.
func (f *Firmware) resfixDone(m abi.ResfixDone) abi.Packet {
	switch {
	case f.function.state == functionBlocked:
		return failure(f.code(MisuseMarker))
	case f.function.state != functionFixing:
		return failure(f.code(MisuseFunctionState))
	case m.Marker != f.function.marker:
		f.setFunction(functionBlocked)
		return failure(f.code(MisuseMarker))
	}
	s := f.function.restored
	if s.open && !f.ct.open {
		if reply := f.controlCTB(abi.ControlCTB{Enable: true}); reply.Type != abi.TypeSuccess {
			return reply
		}
	}
	f.ct.queue = append(f.ct.queue, s.messages...)
	f.function = guestFunction{state: functionFixing}
	f.setFunction(functionRunning)
	f.event(abi.VFStateNotify{Function: f.cfg.Function, State: abi.VFStateFixupDone})
	return abi.SuccessReply(0)
}

// blockedRequest says whether the mailbox takes an action of a guest whose
// migration is not finished.
func (f *Firmware) blockedRequest(a abi.Action) bool {
	switch a {
	case abi.ActionMatchVersion, abi.ActionQuerySingleKLV, abi.ActionResfixStart, abi.ActionResfixDone, abi.ActionClientSoftReset:
		return true
	case abi.ActionSelfCfg, abi.ActionControlCTB:
		return f.function.state == functionFixing
	}
	return false
}
