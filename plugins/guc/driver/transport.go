package driver

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// G2H credits in dwords, both headers included, that a message reserves.
const (
	creditNone       = 0
	creditModeSet    = 4
	creditDeregister = 3
	// creditDestroy is for the disable that a deregistration follows.
	creditDestroy = creditModeSet + creditDeregister
	creditReply   = abi.MessageMax
	// g2hReserve is held back for events that nobody asked for: half of the ring.
	g2hReserve = g2hSize / 4 / 2
	// g2hCredits is what can be reserved at once.
	g2hCredits = g2hSize/4 - 1 - g2hReserve
)

const (
	// outboxMax bounds the messages that wait for room: a queue has at most six
	// under way (register, policies, kick, enable or disable, deregister, policies again).
	outboxMax = 6 * abi.GUCIDMax
	// retriesMax and retryDelay: a request that gets RETRY is sent again after retryDelay × n.
	retriesMax = 50
	retryDelay = 5 * time.Millisecond
	// stallStep is the period in which a stalled outbox is tried again.
	stallStep = time.Millisecond
	// recentFast is how many fast requests are remembered to name the culprit of a failure.
	recentFast = 32
)

// transport is the pair of CTBs with the accounting of section "credits" of the ABI.
type transport struct {
	sender   *abi.Sender
	receiver *abi.Receiver
	// space is the credit left, outstanding the messages that will return some.
	space       uint32
	outstanding uint32
	outbox      []outgoing
	stalled     hw.Timer
	retry       hw.Timer
	fence       abi.Fence
	tracked     map[abi.Fence]*tracked
	recent      [recentFast]abi.Action
	// retrying counts requests that wait before they are sent again.
	retrying int
	// open says that messages are sent and taken.
	open bool
	// lent is the credit of requests that were given up without a reply: a late one returns
	// it. Below zero it came back with a reply that belongs to none.
	lent int
}

// outgoing is one message on its way.
type outgoing struct {
	fence  abi.Fence
	hxg    []uint32
	credit uint32
	// replies counts the messages that will give the credit back.
	replies uint32
}

// tracked is a blocking request.
type tracked struct {
	body  abi.Body
	tries int
	timer hw.Timer
	done  func(abi.Success, error)
}

// mapTransport makes the two rings at block; fresh ones are cleared, others go on where
// their descriptors stand.
func mapTransport(d *Driver, block uint64, fresh bool) (*transport, error) {
	ring := func(desc, buffer, size uint64) (abi.Ring, error) {
		descWords, err := d.config.Arena.Words(block+desc, abi.DescriptorDwords)
		if err != nil {
			return abi.Ring{}, err
		}
		words, err := d.config.Arena.Words(block+buffer, uint32(size/4))
		if err != nil {
			return abi.Ring{}, err
		}
		r, err := abi.NewRing(descWords, words, uint32(size))
		if err == nil && fresh {
			r.Clear()
		}
		return r, err
	}
	h2g, err1 := ring(h2gDescriptor, h2gBuffer, h2gSize)
	g2h, err2 := ring(g2hDescriptor, g2hBuffer, g2hSize)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("lay out CTBs: %w", err)
	}
	t := &transport{space: g2hCredits, tracked: map[abi.Fence]*tracked{}}
	var err error
	if t.sender, err = abi.NewSender(h2g); err != nil {
		return nil, err
	}
	t.receiver, err = abi.NewReceiver(g2h)
	return t, err
}

// Idle reports whether every credit is back and nothing is under way. For tests
// and simulations, on the goroutine that calls Step.
func (d *Driver) Idle() bool {
	t := d.ct
	return t == nil || t.space == g2hCredits && t.outstanding == 0 && len(t.outbox) == 0 && len(t.tracked) == 0 && t.retrying == 0 &&
		t.sender.Idle()
}

func (t *transport) nextFence(track bool) abi.Fence {
	t.fence = (t.fence + 1) &^ abi.FenceUntracked
	if track {
		return t.fence
	}
	return t.fence | abi.FenceUntracked
}

// halt stops the channel on the host's side: what was asked gets no answer any more, and
// every credit is back.
func (t *transport) halt() {
	cancelled := t.tracked
	t.open, t.space, t.outstanding, t.lent = false, g2hCredits, 0, 0
	t.outbox, t.tracked = nil, map[abi.Fence]*tracked{}
	for _, timer := range []hw.Timer{t.stalled, t.retry} {
		if timer != nil {
			timer.Stop()
		}
	}
	t.stalled, t.retry = nil, nil
	fences := make([]abi.Fence, 0, len(cancelled))
	for f := range cancelled {
		fences = append(fences, f)
	}
	slices.Sort(fences)
	for _, f := range fences {
		cancelled[f].timer.Stop()
		cancelled[f].done(abi.Success{}, errStopped)
	}
}

// errStopped is what a request gets that a reset or a move cancelled.
var errStopped = errors.New("channel stopped")

// Credits returns the G2H credit in dwords: what is free, what was lent to requests that
// were given up without a reply, and all of it. For tests and simulations, on
// the goroutine that calls Step.
func (d *Driver) Credits() (free, lent, all int) {
	if d.ct == nil {
		return g2hCredits, 0, g2hCredits
	}
	return int(d.ct.space), d.ct.lent, g2hCredits
}

// sendEvent queues a message that nobody answers, whatever becomes of it.
func (d *Driver) sendEvent(body abi.Body) {
	d.enqueue(outgoing{fence: d.ct.nextFence(false), hxg: abi.Event(body).Dwords()})
}

// send queues a fast request; flush writes it.
func (d *Driver) send(body abi.Body, credit, replies uint32) {
	fence := d.ct.nextFence(false)
	d.ct.recent[fence%recentFast] = body.Action()
	d.enqueue(outgoing{fence: fence, hxg: abi.FastRequest(body).Dwords(), credit: credit, replies: replies})
}

// request sends a blocking request; done gets its definite reply, or an error.
func (d *Driver) request(body abi.Body, done func(abi.Success, error)) {
	d.issue(&tracked{body: body, done: done})
}

func (d *Driver) issue(t *tracked) {
	fence := d.ct.nextFence(true)
	for d.ct.tracked[fence] != nil {
		fence = d.ct.nextFence(true)
	}
	d.ct.tracked[fence] = t
	t.timer = d.loop.After(d.config.Timeouts.Reply, func() {
		if d.ct.tracked[fence] == t {
			delete(d.ct.tracked, fence)
			d.ct.lent += creditReply
			t.done(abi.Success{}, fmt.Errorf("%s: no reply in %s", t.body.Action(), d.config.Timeouts.Reply))
		}
	})
	d.enqueue(outgoing{fence: fence, hxg: abi.Request(t.body).Dwords(), credit: creditReply, replies: 1})
}

func (d *Driver) enqueue(m outgoing) {
	if len(d.ct.outbox) >= outboxMax {
		d.reset(fmt.Errorf("ct: %d messages wait for room", outboxMax))
		return
	}
	d.ct.outbox = append(d.ct.outbox, m)
}

// flush writes what fits. No progress for Timeouts.Stall is a deadlock, and the GT is reset.
func (d *Driver) flush() {
	if d.ct == nil || !d.ct.open || len(d.ct.outbox) == 0 {
		return
	}
	t, sent := d.ct, 0
	for _, m := range t.outbox {
		if m.credit > 0 && m.credit >= t.space {
			break
		}
		err := t.sender.Send(m.fence, m.hxg)
		if errors.Is(err, abi.ErrNoRoom) {
			break
		}
		if err != nil {
			d.reset(fmt.Errorf("ct send: %w", err))
			return
		}
		if d.log.IsTrace() {
			d.log.Trace("h2g", "fence", uint16(m.fence), "message", abi.Describe(m.hxg))
		}
		t.space -= m.credit
		t.outstanding += m.replies
		sent++
	}
	if sent > 0 {
		t.outbox = t.outbox[sent:]
		d.notify()
	}
	d.watchStall(sent > 0)
}

// watchStall keeps the deadline for an outbox that does not move, and tries again meanwhile.
func (d *Driver) watchStall(progress bool) {
	t := d.ct
	if t.stalled != nil && (progress || len(t.outbox) == 0) {
		t.stalled.Stop()
		t.stalled = nil
	}
	if len(t.outbox) == 0 {
		t.outbox = nil
		return
	}
	if t.stalled == nil {
		t.stalled = d.loop.After(d.config.Timeouts.Stall, func() {
			t.stalled = nil
			d.reset(fmt.Errorf("ct: no forward progress in %s", d.config.Timeouts.Stall))
		})
	}
	if t.retry == nil {
		t.retry = d.loop.After(stallStep, func() { t.retry = nil })
	}
}

// receive takes every message of the firmware. What breaks the transport asks for
// a GT reset; a message whose content is wrong is logged and dropped.
func (d *Driver) receive() {
	for d.ct != nil && d.ct.open && !d.failed() {
		fence, hxg, ok, err := d.ct.receiver.Receive()
		if err != nil {
			d.reset(fmt.Errorf("ct receive: %w", err))
			return
		}
		if !ok {
			return
		}
		d.sign()
		if d.log.IsTrace() {
			d.log.Trace("g2h", "fence", uint16(fence), "message", abi.Describe(hxg))
		}
		packet, err := abi.Parse(hxg)
		if packet.Origin != abi.OriginGUC {
			d.reset(fmt.Errorf("ct receive: origin is not the firmware: %s", abi.Describe(hxg)))
			return
		}
		switch packet.Type {
		case abi.TypeEvent:
			d.takeEvent(packet, hxg, err)
		case abi.TypeSuccess, abi.TypeFailure, abi.TypeRetry:
			d.takeReply(fence, packet, hxg, err)
		default:
			d.reset(fmt.Errorf("ct receive: type %s is not taken", packet.Type))
		}
	}
}

// credited are the events that give credit back, by their actual length.
var credited = map[abi.Action]bool{
	abi.ActionSchedContextModeDone:  true,
	abi.ActionDeregisterContextDone: true,
	abi.ActionSchedEngineModeDone:   true,
	abi.ActionTLBInvalidationDone:   true,
	abi.ActionPageReclamationDone:   true,
	abi.ActionCGPSyncDone:           true,
}

// release gives credit back; more than was taken means that the firmware and
// the driver disagree about what is under way.
func (d *Driver) release(dwords uint32) bool {
	if d.ct.outstanding == 0 || d.ct.space+dwords > g2hCredits {
		d.reset(fmt.Errorf("ct: %d dwords of credit returned, %d of %d in use for %d messages",
			dwords, g2hCredits-d.ct.space, g2hCredits, d.ct.outstanding))
		return false
	}
	d.ct.space += dwords
	d.ct.outstanding--
	return true
}

func (d *Driver) takeEvent(packet abi.Packet, hxg []uint32, malformed error) {
	action := abi.Header{Aux: hxg[0]}.Action()
	if credited[action] && !d.release(uint32(len(hxg))+1) {
		return
	}
	if malformed != nil {
		d.log.Warn("firmware event malformed", "error", malformed)
		return
	}
	d.handle(packet.Body)
}

func (d *Driver) takeReply(fence abi.Fence, packet abi.Packet, hxg []uint32, malformed error) {
	if fence&abi.FenceUntracked != 0 {
		if d.recovering() {
			// What was refused was said before the move; recovery says it again.
			d.log.Warn("late answer dropped", "fence", uint16(fence))
			return
		}
		d.reset(fmt.Errorf("ct: fast request %s was answered: %s", d.ct.recent[fence%recentFast], abi.Describe(hxg)))
		return
	}
	if !d.release(creditReply) {
		return
	}
	t := d.ct.tracked[fence]
	if t == nil {
		d.ct.lent -= creditReply
		d.log.Warn("reply without request", "fence", uint16(fence))
		return
	}
	delete(d.ct.tracked, fence)
	t.timer.Stop()
	if malformed != nil {
		t.done(abi.Success{}, malformed)
		return
	}
	switch reply := packet.Body.(type) {
	case abi.Success:
		t.done(reply, nil)
	case abi.Failure:
		t.done(abi.Success{}, fmt.Errorf("%s: %w", t.body.Action(), reply))
	case abi.Retry:
		if t.tries++; t.tries > retriesMax {
			t.done(abi.Success{}, fmt.Errorf("%s: refused %d times", t.body.Action(), retriesMax))
			return
		}
		ct := d.ct
		ct.retrying++
		d.loop.After(time.Duration(t.tries)*retryDelay, func() {
			ct.retrying--
			if ct != d.ct || !ct.open {
				t.done(abi.Success{}, errStopped)
				return
			}
			d.issue(t)
		})
	}
}
