package driver

import (
	"context"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/arbiter"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/hashicorp/go-hclog"
)

// Driver drives one device. New makes it, Start brings the firmware up; it
// implements sdk.Device.
type Driver struct {
	config Config
	log    hclog.Logger
	loop   *host.Loop
	memory *host.Memory

	// What follows belongs to the goroutine that calls Step.
	phase phase
	mcu   mcu
	iface *iface
	// slots are the CSG slots in use, arbiter says who is to hold them.
	slots   []*slot
	arbiter *arbiter.Arbiter
	held    []core.EntityID
	want    []core.EntityID
	spaces  spaces
	groups  map[core.EntityID]*group
	// keys counts the groups ever made: the arbiter knows a group by its number.
	keys  core.EntityID
	tick  tick
	waits []*wait
	// upWaits are called when the device takes work again.
	upWaits []func(error)
	resets  resets
	// dirty are the groups that were saved since the last flush, stale those of them that wait for
	// one to be freed.
	dirty, stale []*group
	power        power
	ping         hw.Timer
	// look says that the next look is at everything, as the poll asks.
	look    bool
	polling bool
	// blockedGroups counts those that wait for a sync object.
	blockedGroups int
	// wanting counts those that want a slot or use one.
	wanting int
}

// New checks the configuration and lays out the memory; it touches no register.
// Errors wrap core.ErrInvalid.
func New(config Config) (*Driver, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	d := &Driver{config: config, log: config.Log, groups: map[core.EntityID]*group{}}
	d.loop = host.NewLoop(host.LoopConfig{Clock: config.Clock, Interrupt: config.Ports.Interrupt, Pump: config.Pump, Closed: errClosed, Hooks: hooks{d}})
	if d.memory, err = host.NewMemory(config.Arena, lowMax, errClosed); err != nil {
		return nil, err
	}
	if d.mcu.sections, err = abi.DecodeImage(config.Firmware); err != nil {
		return nil, fmt.Errorf("configure mali driver: %w: %w", core.ErrInvalid, err)
	}
	return d, nil
}

var errClosed = fmt.Errorf("mali device closed: %w", core.ErrClosed)

// Start brings the device up and returns when it takes work. Without
// Config.Pump it starts the driver's goroutine. It is called once.
func (d *Driver) Start(ctx context.Context) error {
	d.loop.Start()
	return d.loop.Call(ctx, "start device", func(done func(error)) {
		d.upWaits = append(d.upWaits, done)
		d.bringUp()
	})
}

// Step does everything that can be done now and reports whether it did anything. One goroutine calls it.
func (d *Driver) Step() bool { return d.loop.Step() }

// hooks are what the loop calls.
type hooks struct{ d *Driver }

// Look implements host.Hooks.
func (h hooks) Look() { h.d.service() }

// Flush implements host.Hooks: it goes on with whatever was waited for, and ticks.
func (h hooks) Flush() {
	for h.d.loop.Failure() == nil && (h.d.checkWaits() || h.d.runTick()) {
	}
}

// Idle implements host.Hooks.
func (h hooks) Idle() {
	h.d.watchIdle()
	h.d.poll()
}

// service handles interrupts and, when the poll asks for it, looks at everything.
func (d *Driver) service() {
	all := d.look
	d.look = false
	d.serveInterrupts(all)
	if all && !d.down() {
		d.observe()
		d.recheckBlocked()
	}
}

// poll keeps looking while something could come that raises no interrupt.
func (d *Driver) poll() {
	if d.polling || d.down() || !d.attentive() {
		return
	}
	d.polling = true
	d.loop.After(d.config.Timeouts.Poll, func() {
		d.polling = false
		d.look = true
		d.loop.LookAgain()
	})
}

// down reports whether nobody may be talked to but whoever brings the device up.
func (d *Driver) down() bool { return d.loop.Failure() != nil || d.phase != phaseUp }

// attentive reports whether somebody runs, waits or blocks.
func (d *Driver) attentive() bool {
	if len(d.waits) > 0 || d.wanting > 0 || d.blockedGroups > 0 {
		return true
	}
	for _, s := range d.slots {
		if s.group != nil && s.group.busy() {
			return true
		}
	}
	return false
}

// fail gives the device up: nothing is sent, received or reported any more. Only a
// new instance helps. Config.Failed logs it.
func (d *Driver) fail(err error) {
	if d.loop.Failure() != nil {
		return
	}
	if d.resets.reason != nil {
		err = fmt.Errorf("%w: after: %w", err, d.resets.reason)
	}
	err = fmt.Errorf("mali device failed: %w", err)
	d.dropWaits()
	for _, g := range d.ordered() {
		if g.evidence != nil {
			g.bury() // Nobody else will ever know.
		}
		g.advance(wedge)
	}
	d.loop.Fail(err)
	d.config.Failed(err)
}

// Close stops the driver; whoever waits gets an error. The firmware is not told:
// whoever owns it ends it next. It may be called again.
func (d *Driver) Close(ctx context.Context) error {
	if err := d.loop.Close(ctx); err != nil {
		return err
	}
	d.memory.Close()
	return nil
}

// load and store access interface blocks, rings and tables, which lie in the
// arena by construction or by validation.
func (d *Driver) load(address uint64) uint32 {
	v, err := d.config.Arena.Load32(address)
	if err != nil {
		d.fail(fmt.Errorf("read interface: %w", err))
	}
	return v
}

func (d *Driver) store(address uint64, v uint32) {
	if err := d.config.Arena.Store32(address, v); err != nil {
		d.fail(fmt.Errorf("write interface: %w", err))
	}
}

func (d *Driver) load64(address uint64) uint64 {
	v, err := d.config.Arena.Load64(address)
	if err != nil {
		d.fail(fmt.Errorf("read interface: %w", err))
	}
	return v
}

func (d *Driver) store64(address, v uint64) {
	if err := d.config.Arena.Store64(address, v); err != nil {
		d.fail(fmt.Errorf("write interface: %w", err))
	}
}

// store64Words is for registers of interface blocks that need not be aligned to 8.
func (d *Driver) store64Words(address, v uint64) {
	d.store(address, uint32(v))
	d.store(address+4, uint32(v>>32))
}

func (d *Driver) load64Words(address uint64) uint64 {
	return uint64(d.load(address)) | uint64(d.load(address+4))<<32
}

// write stores to a register and tells the device so; read loads one.
func (d *Driver) write(offset, v uint32) {
	d.config.Ports.Registers.Store(offset, v)
	d.config.Ports.Doorbell.Raise()
}

func (d *Driver) write64(offset uint32, v uint64) {
	d.config.Ports.Registers.Store(offset, uint32(v))
	d.config.Ports.Registers.Store(offset+4, uint32(v>>32))
}

func (d *Driver) read(offset uint32) uint32 { return d.config.Ports.Registers.Load(offset) }

func (d *Driver) read64(offset uint32) uint64 {
	return uint64(d.read(offset)) | uint64(d.read(offset+4))<<32
}

func (d *Driver) now() time.Duration { return d.config.Clock.Now() }
