package fw

import (
	"errors"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// channel is the state of the two CT buffers.
type channel struct {
	// registered holds the addresses and sizes by SELF_CFG key.
	registered map[abi.KLVKey]uint64
	open       bool
	h2g        *abi.Receiver
	g2h        *abi.Sender
	// queue holds messages that found no room, oldest first, header dword first.
	queue [][]uint32
}

// descriptorAlign and bufferAlign are what the addresses are multiples of.
const (
	descriptorAlign = 64
	bufferAlign     = 4096
	// ctbSizeMax bounds a ring; the drivers use 4 KiB and 128 KiB.
	ctbSizeMax = 1 << 20
)

// selfCfg takes one address or size. DATA0 of the reply counts the entries taken.
func (f *Firmware) selfCfg(m abi.SelfCfg) abi.Packet {
	length, align := uint16(2), uint64(bufferAlign)
	switch m.Key {
	case abi.KLVH2GDescriptor, abi.KLVG2HDescriptor:
		align = descriptorAlign
	case abi.KLVH2GAddress, abi.KLVG2HAddress:
	case abi.KLVH2GSize, abi.KLVG2HSize:
		length = 1
	default:
		return abi.SuccessReply(0)
	}
	switch {
	case m.Length != length:
		return abi.FailureReply(abi.ErrorMalformedKLV, 0)
	case f.ct.open:
		return abi.FailureReply(abi.ErrorCTBInUse, 0)
	case length == 1:
		size := uint32(m.Value)
		if _, err := abi.NewRing(nil, nil, size); err != nil || size > ctbSizeMax || m.Value>>32 != 0 {
			return abi.FailureReply(abi.ErrorInvalidSize, 0)
		}
	case m.Value%align != 0 || m.Value < hw.MemoryBase || m.Value >= f.cfg.Arena.Size():
		return abi.FailureReply(abi.ErrorInvalidGGTT, 0)
	}
	if f.ct.registered == nil {
		f.ct.registered = map[abi.KLVKey]uint64{}
	}
	f.ct.registered[m.Key] = m.Value
	return abi.SuccessReply(1)
}

// controlCTB opens or closes the channel. The pointers go on from where they stand.
func (f *Firmware) controlCTB(m abi.ControlCTB) abi.Packet {
	if !m.Enable {
		f.ct.open, f.ct.queue = false, nil
		return abi.SuccessReply(0)
	}
	if f.ct.open {
		return abi.FailureReply(abi.ErrorCTBInUse, 0)
	}
	h2g, err := f.ring(abi.KLVH2GDescriptor, abi.KLVH2GAddress, abi.KLVH2GSize)
	if err != nil {
		return abi.FailureReply(codeOf(err), 0)
	}
	g2h, err := f.ring(abi.KLVG2HDescriptor, abi.KLVG2HAddress, abi.KLVG2HSize)
	if err != nil {
		return abi.FailureReply(codeOf(err), 0)
	}
	receiver, err := abi.NewReceiver(h2g)
	if err != nil {
		return abi.FailureReply(abi.ErrorCTBDescriptor, 0)
	}
	sender, err := abi.NewSender(g2h)
	if err != nil {
		return abi.FailureReply(abi.ErrorCTBDescriptor, 0)
	}
	f.ct.h2g, f.ct.g2h, f.ct.open, f.ct.queue = receiver, sender, true, nil
	return abi.SuccessReply(0)
}

// ring maps one registered CT buffer. Errors are *abi.WireError.
func (f *Firmware) ring(desc, addr, size abi.KLVKey) (abi.Ring, error) {
	reg := f.ct.registered
	if reg[desc] == 0 || reg[addr] == 0 || reg[size] == 0 {
		return abi.Ring{}, &abi.WireError{What: "ctb not registered", Code: abi.ErrorCTBNotRegistered}
	}
	words, err := f.cfg.Arena.Words(reg[desc], abi.DescriptorDwords)
	if err != nil {
		return abi.Ring{}, &abi.WireError{What: "ctb descriptor: " + err.Error(), Code: abi.ErrorInvalidGGTT}
	}
	buffer, err := f.cfg.Arena.Words(reg[addr], uint32(reg[size]/4))
	if err != nil {
		return abi.Ring{}, &abi.WireError{What: "ctb buffer: " + err.Error(), Code: abi.ErrorInvalidGGTT}
	}
	r, err := abi.NewRing(words, buffer, uint32(reg[size]))
	if err == nil && r.Status() != 0 {
		err = &abi.WireError{What: "ctb status set", Code: abi.ErrorCTBDescriptor}
	}
	return r, err
}

// closeChannel forgets both rings.
func (f *Firmware) closeChannel() { f.ct, f.injected.held = channel{}, nil }

// takeH2G takes what the ring holds, in order and bounded, and reports whether
// there was anything.
func (f *Firmware) takeH2G() bool {
	worked := false
	for range f.cfg.MessagesMax {
		if !f.ct.open || f.phase != phaseReady || len(f.ct.queue) >= f.cfg.QueueMax ||
			f.function.state.deaf() || f.injected.deaf || f.injected.blocked || f.injected.doom != nil {
			break
		}
		if now := f.cfg.Clock.Now(); f.h2gAt > now {
			break
		}
		fence, hxg, ok, err := f.ct.h2g.Receive()
		if err != nil {
			f.breakChannel()
			return true
		}
		if !ok {
			break
		}
		if f.cfg.MessageDelay > 0 {
			f.h2gAt = f.cfg.Clock.Now() + f.cfg.MessageDelay
		}
		worked = true
		f.receive(fence, hxg)
	}
	return worked
}

// breakChannel closes the rings after corruption; the ring's STATUS says what it was.
func (f *Firmware) breakChannel() {
	f.counters.Broken++
	f.ct.open, f.ct.queue = false, nil
	f.note("H2G", func([]uint32) string { return "ring corrupt, channel closed" })
}

// receive is the one place where an H2G message enters.
func (f *Firmware) receive(fence abi.Fence, hxg []uint32) {
	f.counters.H2G++
	f.note("H2G", abi.DescribeCTB, append([]uint32{abi.CTBHeader{Fence: fence, Dwords: uint8(len(hxg))}.Encode()}, hxg...)...)
	f.injectH2G(fence, hxg)
}

// process carries out one message; err is what abi.Parse said.
func (f *Firmware) process(fence abi.Fence, p abi.Packet, err error) {
	if p.Origin != abi.OriginHost || p.Type != abi.TypeRequest && p.Type != abi.TypeEvent && p.Type != abi.TypeFastRequest {
		f.markH2G(abi.StatusUnderflow)
		f.breakChannel()
		return
	}
	var reply abi.Packet
	control, owner := p.Body.(abi.VFControl)
	switch {
	case err != nil:
		reply = abi.FailureReply(codeOf(err), 0)
	case owner:
		var now bool
		if reply, now = f.vfControl(fence, control); !now {
			f.function.owed = p.Type == abi.TypeRequest
			return
		}
	default:
		reply = f.handle(p)
	}
	f.answer(fence, p.Type, reply)
}

// answer sends the reply to a message of that type: always to a request, never
// to an event, to a fast request only when it was not accepted.
func (f *Firmware) answer(fence abi.Fence, t abi.Type, reply abi.Packet) {
	switch {
	case reply.Type == abi.TypeFailure && t == abi.TypeEvent:
		f.counters.RefusedEvents++
	case t == abi.TypeEvent:
	case reply.Type == abi.TypeFailure:
		f.counters.Refused++
		f.reply(fence, reply)
	case t == abi.TypeRequest || reply.Type != abi.TypeSuccess:
		f.reply(fence, reply)
	}
}

// markH2G sets status bits in the H2G descriptor.
func (f *Firmware) markH2G(s abi.Status) {
	if r, err := f.ring(abi.KLVH2GDescriptor, abi.KLVH2GAddress, abi.KLVH2GSize); err == nil {
		r.Mark(s)
	}
}

// event queues an unsolicited message; its fence is 0.
func (f *Firmware) event(b abi.Body) { f.reply(0, abi.GUCEvent(b)) }

// reply sends a G2H message.
func (f *Firmware) reply(fence abi.Fence, p abi.Packet) {
	words := p.Append(make([]uint32, 1, 8))
	words[0] = abi.CTBHeader{Fence: fence, Dwords: uint8(len(words) - 1)}.Encode()
	f.injectG2H(p, words)
}

// emit is the one place where a G2H message leaves, header dword first. What
// finds no room waits, in order.
func (f *Firmware) emit(words []uint32) {
	if !f.ct.open {
		f.counters.G2HDropped++
		return
	}
	f.note("G2H", abi.DescribeCTB, words...)
	f.ct.queue = append(f.ct.queue, words)
	f.flush()
	if len(f.ct.queue) > 0 {
		f.counters.G2HQueued++
	}
}

// flush writes waiting messages while there is room and reports whether any left.
func (f *Firmware) flush() bool {
	sent := 0
	for sent < len(f.ct.queue) {
		m := f.ct.queue[sent]
		err := f.ct.g2h.SendRaw(m[0], m[1:])
		if errors.Is(err, abi.ErrNoRoom) {
			break
		}
		if err != nil {
			f.breakChannel()
			return true
		}
		f.counters.G2H++
		sent++
	}
	if sent == 0 {
		return false
	}
	f.ct.queue = append(f.ct.queue[:0], f.ct.queue[sent:]...)
	f.interrupt(irqMessage, hw.NoID)
	return true
}

// codeOf is the code that answers an error of package abi.
func codeOf(err error) abi.ErrorCode {
	var w *abi.WireError
	if errors.As(err, &w) && w.Code != 0 {
		return w.Code
	}
	return abi.ErrorGeneric
}
