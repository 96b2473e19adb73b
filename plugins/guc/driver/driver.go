package driver

import (
	"context"
	"fmt"
	"math/bits"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/hashicorp/go-hclog"
)

// Driver drives one device. New makes it, Start brings the firmware's transport
// up; it implements sdk.Device.
type Driver struct {
	config Config
	log    hclog.Logger
	memory *host.Memory
	loop   *host.Loop

	// What follows belongs to the loop's goroutine.
	phase phase
	// block is where the transport lies.
	block  uint64
	ct     *transport
	box    *mailbox
	queues map[abi.GUCID]*queue
	ids    idSet
	// active are the queues with work for the firmware, awaited counts those whose answer is pending.
	active  map[*queue]struct{}
	awaited int
	// upWaits are called when the device takes work again.
	upWaits []func(error)
	resets  resets
	// waits counts the waits for the hardware, so that each knows whether it is still meant.
	waits int
	life  vitals
	power power
	// moving is set between Pause and the end of the move.
	moving *moving
	// pausing takes every queue off the engines, because the device goes to sleep.
	pausing bool
	// look says that the next scan watches progress too, which needs no more than the poll's pace.
	look    bool
	polling bool
	ready   bool
}

// New checks the configuration and lays out the memory; it touches no register.
// Errors wrap core.ErrInvalid.
func New(config Config) (*Driver, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := host.NewMemory(config.Arena, abi.GGTTMax, errClosed)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		config: config, log: config.Log, memory: m,
		queues: map[abi.GUCID]*queue{}, active: map[*queue]struct{}{},
	}
	d.ids.limit = config.EntitiesMax
	d.loop = host.NewLoop(host.LoopConfig{
		Clock: config.Clock, Interrupt: config.Ports.Interrupt, Pump: config.Pump, Closed: errClosed, Hooks: hooks{d},
	})
	return d, nil
}

// Start brings the device up and returns when it takes work. Without
// Config.Pump it starts the driver's goroutine. It is called once.
func (d *Driver) Start(ctx context.Context) error {
	d.loop.Start()
	return d.loop.Call(ctx, "start device", func(done func(error)) {
		d.upWaits = append(d.upWaits, done)
		d.bringUp()
	})
}

// Step does everything that can be done now: requests, due timers, messages of
// the firmware, finished jobs. It reports whether it did anything. One
// goroutine calls it.
func (d *Driver) Step() bool { return d.loop.Step() }

// hooks are what the loop calls.
type hooks struct{ d *Driver }

// Look implements host.Hooks.
func (h hooks) Look() {
	h.d.pollMailbox()
	// A message can only be about what finished before it was sent.
	h.d.receive()
	h.d.scan()
	h.d.checkAlive()
}

// Flush implements host.Hooks.
func (h hooks) Flush() { h.d.flush() }

// Idle implements host.Hooks.
func (h hooks) Idle() {
	h.d.trySleep()
	h.d.watchIdle()
	h.d.poll()
}

var errClosed = fmt.Errorf("guc device closed: %w", core.ErrClosed)

// failed reports whether the device was given up.
func (d *Driver) failed() bool { return d.loop.Failure() != nil }

// fail ends the device: nothing is sent, received or reported any more. Only a
// new instance helps. Config.Failed logs it.
func (d *Driver) fail(err error) {
	if d.failed() {
		return
	}
	err = fmt.Errorf("guc device failed: %w", err)
	for _, q := range d.ordered() {
		if e := q.evidence; e != nil {
			q.lose(e.cause, e.detail) // Nobody else will ever know.
		}
		q.advance(wedge)
	}
	d.loop.Fail(err)
	d.config.Failed(err)
}

// Close stops the driver; whoever waits gets an error. The firmware is not told:
// whoever owns it ends it next. It may be called again.
func (d *Driver) Close(ctx context.Context) error {
	if err := d.loop.Close(ctx); err != nil {
		return fmt.Errorf("close guc device: %w", err)
	}
	d.memory.Close()
	return nil
}

// idSet hands out guc_ids, first fit, from a bitmap.
type idSet struct {
	limit uint32
	used  []uint64
	count uint32
}

// take returns the lowest free id; the error wraps core.ErrFull.
func (s *idSet) take() (abi.GUCID, error) {
	if s.count == s.limit {
		return 0, fmt.Errorf("all %d guc_ids are taken: %w", s.limit, core.ErrFull)
	}
	for word := 0; ; word++ {
		if word == len(s.used) {
			s.used = append(s.used, 0)
		}
		if bit := bits.TrailingZeros64(^s.used[word]); bit < 64 {
			s.used[word] |= 1 << bit
			s.count++
			return abi.GUCID(word*64 + bit), nil
		}
	}
}

func (s *idSet) give(id abi.GUCID) {
	s.used[id/64] &^= 1 << (id % 64)
	s.count--
}
