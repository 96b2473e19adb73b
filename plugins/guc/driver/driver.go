package driver

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/hashicorp/go-hclog"
)

// Driver drives one device. New makes it, Start brings the firmware's transport
// up; it implements sdk.Device.
type Driver struct {
	config Config
	log    hclog.Logger
	memory *memory

	// inbox holds what others want done; its length is bounded by the callers
	// that wait (one per entity) and the timers (a few per queue).
	inbox struct {
		sync.Mutex
		requests []func()
		closed   bool
	}
	wake    chan struct{}
	stop    chan struct{}
	ended   chan struct{}
	running bool

	// What follows belongs to the goroutine that calls Step.
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
	waiters map[*waiter]struct{}
	// upWaits are called when the device takes work again.
	upWaits []func(error)
	failure error
	resets  resets
	// waits counts the waits for the hardware, so that each knows whether it is still meant.
	waits int
	life  vitals
	power power
	// moving is set between Pause and the end of the move.
	moving *moving
	// pausing takes every queue off the engines, because the device goes to sleep.
	pausing     bool
	interrupted bool
	// look says that the next scan watches progress too, which needs no more than the poll's pace.
	look    bool
	polling bool
	ready   bool
}

// waiter is somebody who waits for the answer to a request.
type waiter struct{ answer chan error }

// New checks the configuration and lays out the memory; it touches no register.
// Errors wrap core.ErrInvalid.
func New(config Config) (*Driver, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	m, err := newMemory(config.Arena)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		config: config, log: config.Log, memory: m,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		queues: map[abi.GUCID]*queue{}, active: map[*queue]struct{}{}, waiters: map[*waiter]struct{}{},
	}
	d.ids.limit = config.EntitiesMax
	return d, nil
}

// Start brings the device up and returns when it takes work. Without
// Config.Pump it starts the driver's goroutine. It is called once.
func (d *Driver) Start(ctx context.Context) error {
	d.running = true
	if d.config.Pump == nil {
		go d.run()
	}
	return d.call(ctx, "start device", func(done func(error)) {
		d.upWaits = append(d.upWaits, done)
		d.bringUp()
	})
}

// run is the goroutine shell around Step.
func (d *Driver) run() {
	defer close(d.ended)
	for {
		select {
		case <-d.stop:
			return
		case <-d.config.Ports.Interrupt.C():
			d.interrupted = true
		case <-d.wake:
		}
		d.Step()
	}
}

// Step does everything that can be done now: requests, due timers, messages of
// the firmware, finished jobs. It reports whether it did anything. One
// goroutine calls it.
func (d *Driver) Step() bool {
	busy := false
	select {
	case <-d.config.Ports.Interrupt.C():
		d.interrupted = true
	default:
	}
	for {
		d.inbox.Lock()
		requests := d.inbox.requests
		d.inbox.requests = nil
		d.inbox.Unlock()
		for _, request := range requests {
			request()
		}
		worked := len(requests) > 0
		if d.failure == nil && d.interrupted {
			d.interrupted = false
			d.pollMailbox()
			// A message can only be about what finished before it was sent.
			d.receive()
			d.scan()
			d.checkAlive()
			worked = true
		}
		if d.failure == nil {
			d.flush()
		}
		if !worked {
			d.trySleep()
			d.watchIdle()
			d.poll()
			return busy
		}
		busy = true
	}
}

// post queues a request for the driver's goroutine; false after Close.
func (d *Driver) post(request func()) bool {
	d.inbox.Lock()
	defer d.inbox.Unlock()
	if d.inbox.closed {
		return false
	}
	d.inbox.requests = append(d.inbox.requests, request)
	select {
	case d.wake <- struct{}{}:
	default:
	}
	return true
}

// timer is a call on the driver's goroutine. All of it belongs to that
// goroutine, so that Stop holds even when the clock has posted the call already.
type timer struct {
	hw.Timer
	over bool
}

// Stop implements hw.Timer.
func (t *timer) Stop() bool {
	was := !t.over
	t.over = true
	t.Timer.Stop()
	return was
}

// after calls f on the driver's goroutine, unless the timer was stopped or the
// device failed. It is called there.
func (d *Driver) after(delay time.Duration, f func()) hw.Timer {
	t := &timer{}
	t.Timer = d.config.Clock.AfterFunc(delay, func() {
		d.post(func() {
			if !t.over && d.failure == nil {
				t.over = true
				f()
			}
		})
	})
	return t
}

var errClosed = fmt.Errorf("guc device closed: %w", core.ErrClosed)

// call runs start on the driver's goroutine and waits until it, or something it
// began, has called done. A deadline becomes core.ErrDeadline.
func (d *Driver) call(ctx context.Context, what string, start func(done func(error))) error {
	w := &waiter{answer: make(chan error, 1)}
	posted := d.post(func() {
		if d.failure != nil {
			w.answer <- d.failure
			return
		}
		d.waiters[w] = struct{}{}
		start(func(err error) { d.answer(w, err) })
	})
	if !posted {
		return fmt.Errorf("%s: %w", what, errClosed)
	}
	err := d.await(ctx, w)
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = core.ErrDeadline
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (d *Driver) await(ctx context.Context, w *waiter) error {
	if d.config.Pump == nil {
		select {
		case err := <-w.answer:
			return err
		case <-ctx.Done():
			d.post(func() { delete(d.waiters, w) })
			return context.Cause(ctx)
		case <-d.ended:
			return errClosed
		}
	}
	for more := true; ; more = d.config.Pump() {
		select {
		case err := <-w.answer:
			return err
		default:
		}
		if err := ctx.Err(); err != nil || !more {
			delete(d.waiters, w)
			return errors.Join(core.ErrDeadline, err)
		}
	}
}

// answer ends a wait once; a second answer is dropped.
func (d *Driver) answer(w *waiter, err error) {
	if _, waits := d.waiters[w]; waits {
		delete(d.waiters, w)
		w.answer <- err
	}
}

// fail ends the device: nothing is sent, received or reported any more. Only a
// new instance helps. Config.Failed logs it.
func (d *Driver) fail(err error) {
	if d.failure != nil {
		return
	}
	d.failure = fmt.Errorf("guc device failed: %w", err)
	for _, q := range d.ordered() {
		if e := q.evidence; e != nil {
			q.lose(e.cause, e.detail) // Nobody else will ever know.
		}
		q.advance(wedge)
	}
	for w := range d.waiters {
		delete(d.waiters, w)
		w.answer <- d.failure
	}
	d.config.Failed(d.failure)
}

// Close stops the driver; whoever waits gets an error. The firmware is not told:
// whoever owns it ends it next. It may be called again.
func (d *Driver) Close(ctx context.Context) error {
	d.inbox.Lock()
	first := !d.inbox.closed
	d.inbox.closed = true
	d.inbox.Unlock()
	if first {
		close(d.stop)
	}
	if d.config.Pump == nil && d.running {
		select {
		case <-d.ended:
		case <-ctx.Done():
			return fmt.Errorf("close guc device: %w", core.ErrDeadline)
		}
	}
	d.memory.close()
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
