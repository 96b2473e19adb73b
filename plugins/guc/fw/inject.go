package fw

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// injected is what faults have done to the firmware and what a load undoes.
type injected struct {
	// doom ends the firmware in the next pass; until then nothing leaves it.
	doom func()
	// deaf stops taking H2G messages, silent raising interrupts.
	deaf, silent bool
	// inside: a fault is being carried out; what it causes meets no other.
	inside bool
	// blocked: an H2G message is delayed, those behind it wait.
	blocked bool
	// held are the G2H messages that let others pass, of the context heldID.
	held   [][]uint32
	heldID uint64
}

// meet counts what passes a point and returns the rules that hit it, those for
// the firmware as a whole carried out. lost says that it must not happen.
func (f *Firmware) meet(point, name string, id uint64) (rules []hw.Rule, lost bool) {
	if f.injected.doom != nil {
		return nil, true
	}
	if f.cfg.Faults == nil || f.phase == phaseDead || f.injected.inside {
		return nil, false
	}
	for _, r := range f.cfg.Faults.Meet(point, name, id) {
		f.counters.Faults++
		text := r.String()
		f.note("FAULT", func([]uint32) string { return text })
		switch r.Action {
		case FaultMute:
			f.doomed(func() {
				f.die()
				f.ct.queue = nil
			})
		case FaultCrash, FaultException:
			f.doomed(func() { f.Crash(r.Action == FaultException) })
		case FaultEngineFailure:
			f.doomed(func() {
				f.event(abi.EngineFailure{Class: f.classes[0].class, Reason: reasonHung})
				f.counters.EngineFailures++
				f.die()
			})
		case FaultDeaf:
			f.injected.deaf = true
			f.undo(r, func() { f.injected.deaf = false })
		case FaultSilent:
			f.injected.silent = true
			f.undo(r, func() { f.injected.silent = false })
		case FaultCatUnknown:
			f.injected.inside = true
			f.event(abi.CatError{ID: abi.GUCIDUnknown, Extended: f.extendedCat, Type: abi.CatTypeUnsupported})
			f.injected.inside = false
		default:
			rules = append(rules, r)
		}
	}
	return rules, f.injected.doom != nil
}

// doomed arranges the end of the firmware; the first one counts.
func (f *Firmware) doomed(end func()) {
	if f.injected.doom == nil {
		f.injected.doom = end
	}
}

// undo ends a fault that has a duration.
func (f *Firmware) undo(r hw.Rule, do func()) {
	if d := r.Duration(never); d != never {
		f.afterFault(d, do)
	}
}

// afterFault is after for what a fault plan arranges.
func (f *Firmware) afterFault(d time.Duration, do func()) {
	f.steps.Inject(f.cfg.Clock.Now(), d, do)
}

// takeDoom ends the firmware if a fault said so.
func (f *Firmware) takeDoom() bool {
	doom := f.injected.doom
	if doom == nil {
		return false
	}
	f.injected.doom = nil
	doom()
	return true
}

// injectH2G meets one H2G message and does with it what the plan says. hxg is
// valid during the call only.
func (f *Firmware) injectH2G(fence abi.Fence, hxg []uint32) {
	p, err := abi.Parse(hxg)
	do := func() { f.process(fence, p, err) }
	rules, lost := f.meet(PointH2G, abi.Header{Aux: hxg[0]}.Action().String(), idOf(p.Body))
	if lost {
		return
	}
	for _, r := range rules {
		then := do
		switch r.Action {
		case FaultDrop:
			return
		case FaultDelay:
			do = func() {
				f.injected.blocked = true
				f.afterFault(r.Duration(0), func() {
					f.injected.blocked = false
					then()
				})
			}
		case FaultDuplicate:
			do = func() { then(); then() }
		case FaultFail:
			do = func() { f.answer(fence, p.Type, failure(abi.ErrorCode(r.Number()))) }
		case FaultRetry:
			do = func() { f.answer(fence, p.Type, abi.RetryReply(0)) }
		case FaultStatus, FaultPointer:
			do = func() { f.spoil(f.ct.h2g, r) }
		}
	}
	do()
}

// injectG2H meets one G2H message, header dword first, and emits what the plan
// makes of it.
func (f *Firmware) injectG2H(p abi.Packet, words []uint32) {
	id := idOf(p.Body)
	rules, lost := f.meet(PointG2H, nameOf(p), id)
	if lost {
		return
	}
	copies, wait, hold := 1, time.Duration(0), time.Duration(-1)
	for _, r := range rules {
		switch r.Action {
		case FaultDrop:
			return
		case FaultDelay:
			wait += r.Duration(0)
		case FaultDuplicate:
			copies++
		case FaultReorder:
			hold = r.Duration(reorderDefault)
		case FaultStatus, FaultPointer:
			if f.ct.open {
				f.spoil(f.ct.g2h, r)
				f.interrupt(irqMessage, hw.NoID)
			}
			return
		default:
			words = mutate(words, r)
		}
	}
	for range copies {
		switch {
		case wait > 0:
			f.afterFault(wait, func() { f.emit(words) })
		case hold >= 0 && len(f.injected.held) == 0 || len(f.injected.held) > 0 && f.injected.heldID == id:
			f.hold(words, id, hold)
		default:
			f.emit(words)
			f.letGo()
		}
	}
}

// end is the firmware's end of a ring.
type end interface {
	Mark(abi.Status)
	Lose(pointer uint32)
}

// spoil writes nonsense into a ring's descriptor and leaves both rings alone.
func (f *Firmware) spoil(e end, r hw.Rule) {
	if r.Action == FaultPointer {
		e.Lose(uint32(r.Number()))
	} else {
		e.Mark(abi.Status(r.Number()))
	}
	f.breakChannel()
}

// hold keeps a message until letGo.
func (f *Firmware) hold(words []uint32, id uint64, bound time.Duration) {
	if len(f.injected.held) == 0 {
		f.injected.heldID = id
		f.afterFault(bound, f.letGo)
	}
	f.injected.held = append(f.injected.held, words)
}

// letGo emits the messages that were held.
func (f *Firmware) letGo() {
	held := f.injected.held
	f.injected.held = nil
	for _, words := range held {
		f.emit(words)
	}
}

// mutate returns the words of a G2H message as a rule wants them.
func mutate(words []uint32, r hw.Rule) []uint32 {
	w, n := slices.Clone(words), uint32(r.Number())
	switch r.Action {
	case FaultHeader:
		w[0] |= 0xFF00
	case FaultTruncate:
		w[0] = w[0]&^0xFF | min(w[0]&0xFF+1, abi.DwordsMax)
	case FaultOrigin:
		w[1] &^= 1 << 31
	case FaultType:
		w[1] = w[1]&^(7<<28) | n&7<<28
	case FaultLength:
		w = append(w, 0)
		w[0]++
	case FaultID:
		if len(w) > 2 {
			w[2] = n
		}
	case FaultState:
		if len(w) > 3 {
			w[3] ^= 1
		}
	case FaultAction:
		w[1] = w[1]&^0xFFFF | n&0xFFFF
	case FaultFence:
		w[0] = w[0]&0xFFFF | n<<16
	}
	return w
}

// injectMMIO meets one mailbox request; do carries it out and answers it.
func (f *Firmware) injectMMIO(a abi.Action, do func()) {
	rules, lost := f.meet(PointMMIO, a.String(), hw.NoID)
	if lost {
		return
	}
	for _, r := range rules {
		then := do
		switch r.Action {
		case FaultDrop:
			return
		case FaultDelay:
			do = func() { f.afterFault(r.Duration(0), then) }
		case FaultBusy:
			do = func() {
				f.answerMailbox(abi.BusyReply(0))
				f.mailbox.busy = true
				f.afterFault(r.Duration(0), func() {
					f.mailbox.busy = false
					then()
				})
			}
		case FaultFail:
			do = func() { f.answerMailbox(failure(abi.ErrorCode(r.Number()))) }
		case FaultRetry:
			do = func() { f.answerMailbox(abi.RetryReply(0)) }
		case FaultWipe:
			do = func() { f.writeBox([abi.MMIODwords]uint32{}) }
		case FaultType:
			do = func() {
				f.writeBox([abi.MMIODwords]uint32{abi.Header{Origin: abi.OriginGUC, Type: abi.Type(r.Number() & 7)}.Encode()})
			}
		}
	}
	do()
}

// interrupt raises the interrupt; kind and id say what for.
func (f *Firmware) interrupt(kind string, id uint64) {
	rules, lost := f.meet(PointInterrupt, kind, id)
	if lost || f.injected.silent {
		return
	}
	if id == hw.NoID {
		f.note("IRQ", func([]uint32) string { return kind })
	} else {
		f.note("IRQ", func(w []uint32) string { return fmt.Sprintf("%s guc_id=%d", kind, w[0]) }, uint32(id))
	}
	wait := time.Duration(0)
	for _, r := range rules {
		if r.Action == FaultDrop {
			return
		}
		wait += r.Duration(0)
	}
	if wait > 0 {
		f.afterFault(wait, f.cfg.Ports.Interrupt.Raise)
		return
	}
	f.cfg.Ports.Interrupt.Raise()
}

// nameOf is what a plan calls a G2H message.
func nameOf(p abi.Packet) string {
	switch p.Type {
	case abi.TypeSuccess:
		return nameSuccess
	case abi.TypeFailure:
		return nameFailure
	case abi.TypeRetry:
		return nameRetry
	}
	return p.Body.Action().String()
}

// idOf is the guc_id that a message is about.
func idOf(b abi.Body) uint64 {
	switch m := b.(type) {
	case abi.RegisterContext:
		return uint64(m.ID)
	case abi.UpdateContextPolicies:
		return uint64(m.ID)
	case abi.SchedContextModeSet:
		return uint64(m.ID)
	case abi.SchedContext:
		return uint64(m.ID)
	case abi.DeregisterContext:
		return uint64(m.ID)
	case abi.SchedContextModeDone:
		return uint64(m.ID)
	case abi.DeregisterContextDone:
		return uint64(m.ID)
	case abi.ContextReset:
		return uint64(m.ID)
	case abi.CatError:
		return uint64(m.ID)
	}
	return hw.NoID
}
