package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// mailbox is the host's end of both mailbox FIFOs.
type mailbox struct {
	in, out *hw.FIFO
	// waiting did not fit into the FIFO yet; doorbells are hints, so each stands there once.
	waiting []abi.Message
	// since is when the FIFO refused the first of them.
	since time.Duration
}

// outboxMax bounds the waiting messages: one of each doorbell, and the answers to a burst of the firmware.
const outboxMax = 256

func (b *mailbox) open(r *hw.Registers) (err error) {
	if b.out, err = hw.NewFIFO(r, abi.RegInboxFIFO, abi.MailboxSlots); err != nil {
		return err
	}
	b.in, err = hw.NewFIFO(r, abi.RegOutboxFIFO, abi.MailboxSlots)
	return err
}

// post sends a message as soon as there is room.
func (d *Driver) post(m abi.Message) {
	b := &d.box
	if slices.Contains(b.waiting, m) {
		return
	}
	if len(b.waiting) == 0 {
		b.since = d.config.Clock.Now()
	}
	b.waiting = append(b.waiting, m)
	if len(b.waiting) > outboxMax {
		d.fail(fmt.Errorf("mailbox: %d messages wait", len(b.waiting)))
		return
	}
	d.flushMailbox()
}

// ring rings a doorbell.
func (d *Driver) ring(n uint16) { d.post(abi.DoorbellMessage(n)) }

// flushMailbox puts what waits into the FIFO. A firmware that takes nothing for
// Timeouts.Control is dead.
func (d *Driver) flushMailbox() {
	b := &d.box
	sent := false
	for len(b.waiting) > 0 {
		msg0, msg1 := b.waiting[0].Encode()
		if !b.out.Put(msg0, msg1) {
			if d.config.Clock.Now()-b.since > d.config.Timeouts.Control {
				d.fail(fmt.Errorf("mailbox is full for %s", d.config.Timeouts.Control))
			}
			break
		}
		b.waiting = b.waiting[1:]
		b.since = d.config.Clock.Now()
		sent = true
	}
	if sent {
		d.config.Ports.Doorbell.Raise()
	}
}

// receiveMail takes what the firmware sent; news reports that the rings are to be looked at.
func (d *Driver) receiveMail() (news bool) {
	taken := false
	for range 2 * abi.MailboxSlots {
		msg0, msg1, ok := d.box.in.Take()
		if !ok {
			break
		}
		taken = true
		m := abi.DecodeMessage(msg0, msg1)
		switch {
		case m.RX():
			news = true
		default:
			d.mail(m)
		}
		if d.loop.Failure() != nil {
			return false
		}
	}
	if taken {
		d.config.Ports.Doorbell.Raise() // There is room again.
	}
	return news
}
