package driver

import (
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Where the transport lies in its block of GGTT memory, as Xe has it.
const (
	h2gDescriptor = 0x0000
	g2hDescriptor = 0x0800
	h2gBuffer     = 0x1000
	g2hBuffer     = 0x2000
	h2gSize       = 4 << 10
	g2hSize       = 128 << 10
	transportSize = g2hBuffer + g2hSize
	// optInList follows the transport: the KLVs of OPT_IN_FEATURE; then the block of global policies.
	optInList   = transportSize
	policyBlock = optInList + 2048
	blockSize   = transportSize + 4096
)

const (
	// mailboxPoll is the period in which the mailbox is looked at without an interrupt.
	mailboxPoll = time.Millisecond
	// mailboxRetries bounds how often a request is sent again.
	mailboxRetries = 50
	// yieldDuration and yieldRatio are the defaults of Xe: compute gets 20 % of each 80 ms.
	yieldDuration = 80
	yieldRatio    = 20
)

// mailbox sends requests over MMIO, one after the other; done is called after the last.
type mailbox struct {
	left    []abi.Body
	retries int
	// wiped says that the first request was sent again because its registers read back as 0.
	wiped bool
	timer hw.Timer
	poll  hw.Timer
	done  func(abi.Success)
	// refused, when set, takes a FAILURE; without, it is the device's end.
	refused func(abi.Failure)
}

// bringUp registers the CTBs over MMIO and enables them, with the hardware just
// loaded. Whatever fails is the device's end.
func (d *Driver) bringUp() {
	d.phase = phaseLoading
	if d.block == 0 {
		block, err := d.memory.Low(blockSize, "allocate transport")
		if err != nil {
			d.fail(err)
			return
		}
		d.block = block
	}
	var err error
	if d.ct, err = mapTransport(d, d.block, true); err != nil {
		d.fail(err)
		return
	}
	d.mail(&mailbox{done: func(abi.Success) { d.openTransport() }, left: []abi.Body{
		abi.SelfCfg{Key: abi.KLVH2GDescriptor, Length: 2, Value: d.block + h2gDescriptor},
		abi.SelfCfg{Key: abi.KLVH2GAddress, Length: 2, Value: d.block + h2gBuffer},
		abi.SelfCfg{Key: abi.KLVH2GSize, Length: 1, Value: h2gSize},
		abi.SelfCfg{Key: abi.KLVG2HDescriptor, Length: 2, Value: d.block + g2hDescriptor},
		abi.SelfCfg{Key: abi.KLVG2HAddress, Length: 2, Value: d.block + g2hBuffer},
		abi.SelfCfg{Key: abi.KLVG2HSize, Length: 1, Value: g2hSize},
		abi.ControlCTB{Enable: true},
	}})
}

// mail begins with the requests of a mailbox; one that was under way is forgotten.
func (d *Driver) mail(box *mailbox) {
	d.dropMail()
	d.box = box
	d.postMailbox()
}

func (d *Driver) dropMail() {
	if d.box == nil {
		return
	}
	for _, timer := range []hw.Timer{d.box.timer, d.box.poll} {
		if timer != nil {
			timer.Stop()
		}
	}
	d.box = nil
}

// postMailbox writes the first request that is left into the mailbox, word 0 last.
func (d *Driver) postMailbox() {
	box, err := abi.AppendMMIO(abi.Request(d.box.left[0]))
	if err != nil {
		d.fail(err)
		return
	}
	regs := d.config.Ports.Registers
	for i := len(box) - 1; i >= 0; i-- {
		regs.Store(abi.RegScratch+4*uint32(i), box[i])
	}
	d.notify()
	d.armMailbox(d.config.Timeouts.Mailbox)
	d.pollMailboxLater()
}

func (d *Driver) armMailbox(timeout time.Duration) {
	box := d.box
	if box.timer != nil {
		box.timer.Stop()
	}
	box.timer = d.loop.After(timeout, func() {
		switch {
		case d.box != box:
		case !box.wiped && d.config.Ports.Registers.Load(abi.RegScratch) == 0:
			// A function level reset wipes the registers; once that is nobody's fault.
			box.wiped = true
			d.log.Warn("mailbox request wiped", "request", box.left[0].Action())
			d.postMailbox()
		default:
			d.fail(fmt.Errorf("mailbox: %s: no reply in %s", box.left[0].Action(), timeout))
		}
	})
}

func (d *Driver) pollMailboxLater() {
	if d.box.poll != nil {
		d.box.poll.Stop()
	}
	d.box.poll = d.loop.After(mailboxPoll, func() {
		if d.box != nil {
			d.pollMailbox()
			if d.box != nil && !d.failed() {
				d.pollMailboxLater()
			}
		}
	})
}

// pollMailbox takes the reply when there is one.
func (d *Driver) pollMailbox() {
	if d.box == nil {
		return
	}
	regs := d.config.Ports.Registers
	first := regs.Load(abi.RegScratch)
	if abi.Origin(first>>31) != abi.OriginGUC {
		return
	}
	box := [abi.MMIODwords]uint32{first}
	for i := 1; i < len(box); i++ {
		box[i] = regs.Load(abi.RegScratch + 4*uint32(i))
	}
	request := d.box.left[0]
	packet, err := abi.ParseMMIO(box)
	if err != nil {
		d.fail(fmt.Errorf("mailbox: %s: %w", request.Action(), err))
		return
	}
	switch reply := packet.Body.(type) {
	case abi.Busy:
		// The firmware overwrites it with the definite reply; the longer bound runs from here on.
		if d.box.retries >= 0 {
			d.box.retries = -1
			d.armMailbox(d.config.Timeouts.MailboxBusy)
		}
	case abi.Retry:
		d.retryMailbox()
	case abi.Failure:
		if refused := d.box.refused; refused != nil {
			d.dropMail()
			refused(reply)
			return
		}
		d.fail(fmt.Errorf("mailbox: %s: %w", request.Action(), reply))
	case abi.Success:
		if _, selfCfg := request.(abi.SelfCfg); selfCfg && reply.Data0 != 1 {
			d.fail(fmt.Errorf("mailbox: %s: key not taken", abi.Describe(abi.Request(request).Dwords())))
			return
		}
		d.advanceMailbox(reply)
	default:
		d.fail(fmt.Errorf("mailbox: %s: no reply but %s", request.Action(), abi.DescribeMMIO(box)))
	}
}

func (d *Driver) retryMailbox() {
	if d.box.retries++; d.box.retries > mailboxRetries {
		d.fail(fmt.Errorf("mailbox: %s: refused %d times", d.box.left[0].Action(), mailboxRetries))
		return
	}
	d.postMailbox()
}

// advanceMailbox goes on with the next request, or with what follows the last.
func (d *Driver) advanceMailbox(reply abi.Success) {
	box := d.box
	box.timer.Stop()
	box.poll.Stop()
	box.left, box.retries, box.wiped = box.left[1:], 0, false
	if len(box.left) > 0 {
		d.postMailbox()
		return
	}
	d.box = nil
	box.done(reply)
}

// openTransport: the firmware takes messages; the global policies are the first.
func (d *Driver) openTransport() {
	d.ct.open = true
	list := abi.AppendKLVs(nil, []abi.KLV{{Key: abi.KLVExtendedCATType}})
	for i, dw := range list {
		if err := d.config.Arena.Store32(d.block+optInList+4*uint64(i), dw); err != nil {
			d.fail(err)
			return
		}
	}
	if d.config.NoEngineResets {
		d.keepEngines()
	}
	d.configure(d.up, []abi.Body{globalPolicies, abi.OptInFeature{Address: d.block + optInList, Dwords: uint32(len(list))}})
}

// promoteUS and workItems are Xe's values in the block of global policies.
const (
	promoteUS = 500_000
	workItems = 15
)

// keepEngines switches engine resets off.
func (d *Driver) keepEngines() {
	block, err := d.config.Arena.Words(d.block+policyBlock, abi.PolicyBlockDwords)
	if err != nil {
		d.fail(err)
		return
	}
	block.Store(abi.PolicyBlockPromote, promoteUS)
	block.Store(abi.PolicyBlockItems, workItems)
	block.Store(abi.PolicyBlockFlags, abi.PolicyFlagDisableReset)
	block.Store(abi.PolicyBlockValid, 1)
	d.send(abi.GlobalSchedPolicyChange{Block: uint32(d.block + policyBlock)}, creditNone, 0)
}

// globalPolicies are Xe's.
var globalPolicies = abi.UpdateSchedulingPolicies{
	Policies: []abi.KLV{{Key: abi.KLVRenderComputeYield, Value: []uint32{yieldDuration, yieldRatio}}},
}

// configure sends the optional settings one after the other; a firmware that
// refuses one is used without it.
func (d *Driver) configure(done func(), left []abi.Body) {
	if len(left) == 0 {
		done()
		return
	}
	d.request(left[0], func(_ abi.Success, err error) {
		switch {
		case errors.Is(err, errStopped):
			return // Somebody else begins anew.
		case err != nil:
			d.log.Warn("firmware setting refused", "setting", left[0].Action(), "error", err)
		}
		d.configure(done, left[1:])
	})
}

// notify rings the doorbell.
func (d *Driver) notify() {
	d.config.Ports.Registers.Store(abi.RegNotify, 0)
	d.config.Ports.Doorbell.Raise()
}
