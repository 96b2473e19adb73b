package driver

import (
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// controls is the device-control channel. There is no reply: a message is done
// when the firmware has consumed it.
type controls struct {
	sender *abi.Sender
	// waiting found no room yet.
	waiting []controlled
	// sent is in the ring, oldest first.
	sent    []controlled
	looking bool
}

// controlled is one message.
type controlled struct {
	entry []byte
	what  abi.ControlType
	done  func()
	// token is the write index after it, at when it was sent.
	token uint32
	at    time.Duration
}

// controlLook is how often consumption is looked at, as nothing tells.
const controlLook = 500 * time.Microsecond

// control sends a message and calls done when the firmware has consumed it. When that takes
// longer than Timeouts.Control the device is given up.
func (d *Driver) control(m abi.ControlMessage, done func()) {
	c := &d.controls
	c.waiting = append(c.waiting, controlled{entry: d.abi.EncodeControl(m), what: m.Control(), done: done})
	d.flushControl()
}

func (d *Driver) flushControl() {
	c := &d.controls
	sent := false
	for len(c.waiting) > 0 {
		m := c.waiting[0]
		token, err := c.sender.Send(m.entry)
		if errors.Is(err, abi.ErrNoRoom) {
			break // What is in the ring has its deadline.
		}
		if err != nil {
			d.fail(fmt.Errorf("device control: %w", err))
			return
		}
		m.token, m.at = token, d.config.Clock.Now()
		c.waiting, c.sent = c.waiting[1:], append(c.sent, m)
		sent = true
	}
	if sent && d.phase >= phaseInit {
		d.ring(abi.DoorbellDeviceControl)
		d.watchControl()
	}
}

// watchControl looks again and again as long as something is in the ring.
func (d *Driver) watchControl() {
	if d.controls.looking || len(d.controls.sent) == 0 {
		return
	}
	d.controls.looking = true
	for i := range d.controls.sent {
		d.controls.sent[i].at = max(d.controls.sent[i].at, d.config.Clock.Now())
	}
	d.loop.After(controlLook, d.lookControl)
}

// lookControl finds what was consumed.
func (d *Driver) lookControl() {
	c := &d.controls
	c.looking = false
	read, _ := d.lay.control.Indices()
	consumed := 0
	for i, m := range c.sent {
		if m.token == read {
			consumed = i + 1
		}
	}
	gone := c.sent[:consumed]
	c.sent = c.sent[consumed:]
	for _, m := range gone {
		d.life.sign = d.config.Clock.Now()
		if m.done != nil {
			m.done()
		}
	}
	if d.loop.Failure() != nil {
		return
	}
	d.flushControl()
	if len(c.sent) == 0 || d.loop.Failure() != nil {
		return
	}
	if d.config.Clock.Now()-c.sent[0].at > d.config.Timeouts.Control {
		d.fail(fmt.Errorf("device control: %s not consumed in %s", c.sent[0].what, d.config.Timeouts.Control))
		return
	}
	if !c.looking {
		c.looking = true
		d.loop.After(controlLook, d.lookControl)
	}
}
