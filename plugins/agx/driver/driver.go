package driver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// Driver drives one device. New makes it, Start boots the firmware; it implements sdk.Device.
type Driver struct {
	config Config
	abi    *abi.ABI
	log    hclog.Logger
	memory *host.Memory
	loop   *host.Loop

	// What follows belongs to the loop's goroutine.
	phase     phase
	endpoints []abi.Endpoint
	crashLog  struct{ at, size uint64 }
	lay       layout
	box       mailbox
	controls  controls
	pipes     [abi.Levels]pipe
	rings     receivers
	upWaits   []func(error)

	queues map[uint32]*queue
	nextID uint32
	// active are the queues with commands in their ring, ready those that could have more.
	active, ready map[*queue]struct{}
	events, vms   slots
	// load is what everything in the rings is thought to take, turns counts the commands kicked.
	load     time.Duration
	turns    uint64
	private  private
	recovery recovery
	life     vitals
	// failing is set while the device is being given up.
	failing bool
	// polling says that a look is due anyway.
	polling bool
}

var _ sdk.Device = (*Driver)(nil)

// firstID is the vendor's first queue id.
const firstID = 2

var errClosed = fmt.Errorf("agx device closed: %w", core.ErrClosed)

// New checks the configuration and lays out the memory; it touches no register.
// Errors wrap core.ErrInvalid.
func New(config Config) (*Driver, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	table, err := abi.For(config.Version)
	if err != nil {
		return nil, fmt.Errorf("configure agx driver: %w: %w", core.ErrInvalid, err)
	}
	m, err := host.NewMemory(config.Arena, abi.DeviceMax, errClosed)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		config: config, abi: table, log: config.Log, memory: m, nextID: firstID,
		queues: map[uint32]*queue{}, active: map[*queue]struct{}{}, ready: map[*queue]struct{}{},
		events: newSlots(0, config.EventSlots), vms: newSlots(1, config.VMSlots),
	}
	if err := d.box.open(config.Ports.Registers); err != nil {
		return nil, fmt.Errorf("configure agx driver: %w: %w", core.ErrInvalid, err)
	}
	d.loop = host.NewLoop(host.LoopConfig{
		Clock: config.Clock, Interrupt: config.Ports.Interrupt, Pump: config.Pump, Closed: errClosed, Hooks: hooks{d},
	})
	return d, nil
}

// Start boots the firmware and returns when the device takes work. Without
// Config.Pump it starts the driver's goroutine. It is called once.
func (d *Driver) Start(ctx context.Context) error {
	d.loop.Start()
	return d.loop.Call(ctx, "start device", func(done func(error)) {
		d.upWaits = append(d.upWaits, done)
		d.boot()
	})
}

// Step does everything that can be done now and reports whether it did
// anything. With Config.Pump the caller's goroutine calls it.
func (d *Driver) Step() bool { return d.loop.Step() }

// hooks are what the loop calls.
type hooks struct{ d *Driver }

// Look implements host.Hooks: mail, rings, stamps.
func (h hooks) Look() {
	d := h.d
	news := d.receiveMail()
	if d.loop.Failure() != nil || d.phase < phaseInit {
		return
	}
	if news {
		d.receiveRings()
	}
	if d.loop.Failure() == nil {
		d.scan()
	}
}

// Flush implements host.Hooks.
func (h hooks) Flush() {
	d := h.d
	d.kickAll()
	if d.loop.Failure() == nil {
		d.flushMailbox()
	}
}

// Idle implements host.Hooks: as long as something is under way it is looked at, because
// an event may be lost, held back by the threshold, or not meant for a start.
func (h hooks) Idle() {
	d := h.d
	if d.polling || len(d.active) == 0 && len(d.box.waiting) == 0 {
		return
	}
	d.polling = true
	d.loop.After(d.config.Timeouts.Poll, func() {
		d.polling = false
		if d.phase < phaseInit {
			d.loop.LookAgain()
			return
		}
		if d.checkRunning(); d.loop.Failure() != nil {
			return
		}
		d.receiveRings()
		if d.loop.Failure() == nil && !d.recovery.active() && d.load32(d.status(abi.FwStatusHalted)) != 0 {
			d.halted(halt{kind: haltSilent, slot: -1})
		}
		if d.loop.Failure() == nil {
			d.scan()
		}
		if d.loop.Failure() == nil {
			d.observe()
		}
		d.loop.LookAgain()
	})
}

// Describe implements sdk.Device.
func (d *Driver) Describe() core.DeviceDescription {
	return core.DeviceDescription{
		Name: d.config.Name, Engine: d.config.Engine, Granularity: core.GranularityCommand,
		Formats: slices.Clone(d.config.Formats), Credits: d.config.Credits, EntitiesMax: d.config.EntitiesMax,
		MemoryMax: d.memory.HighSize(), SavesImages: true,
	}
}

// LoadKernel implements sdk.Device: the code is placed in device memory once, and
// stays until Close. Errors wrap core.ErrUnsupported, core.ErrInvalid or core.ErrFull.
func (d *Driver) LoadKernel(_ context.Context, k core.Kernel) error {
	return d.memory.Load(k, d.config.Formats)
}

// fail ends the device: nothing is sent, received or reported any more. What has its stamp is
// done, and what was found out about a command is said, because nobody else will
// ever know. Only a new instance helps. Config.Failed logs it.
func (d *Driver) fail(err error) {
	if d.loop.Failure() != nil || d.failing {
		return
	}
	d.failing = true
	d.testify()
	for _, q := range d.working() {
		d.scanQueue(q)
		for _, c := range q.commands {
			if c.fault != nil && c.fault.guilty && !q.lost {
				q.lose(c, c.fault)
			}
		}
	}
	for _, q := range d.ordered() {
		q.advance(wedge)
	}
	err = fmt.Errorf("agx device failed: %w", err)
	d.loop.Fail(err)
	d.config.Failed(err)
}

// Close stops the driver; whoever waits gets an error. The firmware is not told:
// whoever owns it ends it next. It may be called again.
func (d *Driver) Close(ctx context.Context) error {
	if err := d.loop.Close(ctx); err != nil {
		return fmt.Errorf("close agx device: %w", err)
	}
	d.memory.Close()
	return nil
}
