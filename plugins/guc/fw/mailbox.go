package fw

import (
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// mailbox is the state of the MMIO channel.
type mailbox struct {
	// busy says that an earlier request is still being worked on.
	busy bool
}

// notifySeen is what the notify register holds when the firmware has looked.
const notifySeen = 1

// The version of the interface and the graphics version that the mailbox tells.
var abiVersion = abi.Version{Major: 1, Minor: 27}

// gmdID says graphics 20.04: architecture in 31:22, release in 21:14.
const gmdID = 20<<22 | 4<<14

// resetMailbox makes the registers read as after a load.
func (f *Firmware) resetMailbox() {
	f.mailbox = mailbox{}
	for i := range uint32(abi.MMIODwords) {
		f.cfg.Ports.Registers.Store(abi.RegScratch+4*i, 0)
	}
	f.cfg.Ports.Registers.Store(abi.RegNotify, notifySeen)
}

// takeMailbox handles one mailbox message, if the host notified of one.
func (f *Firmware) takeMailbox() bool {
	regs := f.cfg.Ports.Registers
	if regs.Load(abi.RegNotify) != 0 {
		return false
	}
	regs.Store(abi.RegNotify, notifySeen)
	var box [abi.MMIODwords]uint32
	for i := range box {
		box[i] = regs.Load(abi.RegScratch + 4*uint32(i))
	}
	if box[0] == 0 || box[0]>>31 == uint32(abi.OriginGUC) {
		return true // The notification was for the CT buffers.
	}
	f.note("MMIO", describeBox, box[:]...)
	if f.phase == phaseDraining && !f.mailbox.busy {
		return true // Reloading: nobody listens.
	}
	p, err := abi.ParseMMIO(box)
	switch {
	case f.mailbox.busy:
		f.answerMailbox(abi.RetryReply(0))
	case err != nil:
		f.answerMailbox(abi.FailureReply(codeOf(err), 0))
	case p.Type != abi.TypeRequest:
		f.answerMailbox(abi.FailureReply(abi.ErrorProtocol, 0))
	default:
		f.injectMMIO(p.Body.Action(), func() { f.answerMailbox(f.mailboxRequest(p.Body)) })
	}
	return true
}

// mailboxRequest carries out one request.
func (f *Firmware) mailboxRequest(b abi.Body) abi.Packet {
	if f.function.state.deaf() && !f.blockedRequest(b.Action()) {
		return f.refusal(MisuseMigrated)
	}
	switch m := b.(type) {
	case abi.SelfCfg:
		return f.selfCfg(m)
	case abi.ControlCTB:
		return f.controlCTB(m)
	case abi.MatchVersion:
		if m.Version.Branch != abiVersion.Branch || m.Version.Major != 0 && m.Version.Major != abiVersion.Major {
			return abi.FailureReply(abi.ErrorUnsupportedVersion, 0)
		}
		return abi.SuccessReply(0, abiVersion.Encode())
	case abi.QuerySingleKLV:
		switch m.Key {
		case abi.KLVGMDID:
			return abi.SuccessReply(1, gmdID)
		case abi.KLVGroupScheduling:
			return abi.SuccessReply(1, 0)
		}
		return abi.FailureReply(abi.ErrorInvalidKLVKey, 0)
	case abi.ClientSoftReset:
		return f.softReset()
	case abi.ResfixStart:
		return f.resfixStart(m)
	case abi.ResfixDone:
		return f.resfixDone(m)
	}
	return f.refuse(b.Action())
}

// softReset forgets all contexts. When something is on an engine it answers
// busy, and success later.
func (f *Firmware) softReset() abi.Packet {
	f.steps.CancelOwn()
	f.dones = 0
	if f.quiet() {
		f.forgetContexts()
		return abi.SuccessReply(0)
	}
	for _, c := range f.classes {
		for _, in := range c.instances {
			if in.g != nil {
				f.preempt(in)
			}
		}
	}
	f.enter(phaseDraining)
	f.mailbox.busy = true
	f.drained = func() {
		f.enter(phaseReady)
		f.forgetContexts()
		f.mailbox.busy = false
		f.answerMailbox(abi.SuccessReply(0))
	}
	return abi.BusyReply(0)
}

// answerMailbox writes a reply.
func (f *Firmware) answerMailbox(p abi.Packet) {
	box, err := abi.AppendMMIO(p)
	if err != nil {
		box, _ = abi.AppendMMIO(abi.FailureReply(abi.ErrorTooLarge, 0))
	}
	f.note("MMIO", describeBox, box[:]...)
	f.writeBox(box)
	f.interrupt(irqMailbox, hw.NoID)
}

// writeBox writes the registers, the word that the host polls last.
func (f *Firmware) writeBox(box [abi.MMIODwords]uint32) {
	for i := abi.MMIODwords - 1; i >= 0; i-- {
		f.cfg.Ports.Registers.Store(abi.RegScratch+4*uint32(i), box[i])
	}
}

// refuse tells an action that is known and not modelled from an unknown one.
func (f *Firmware) refuse(a abi.Action) abi.Packet {
	if a.Known() {
		return f.refusal(MisuseNotSupported)
	}
	return f.refusal(MisuseUnknownAction)
}

// describeBox decodes the words of a mailbox for the trace.
func describeBox(words []uint32) string {
	return abi.DescribeMMIO([abi.MMIODwords]uint32(words))
}
