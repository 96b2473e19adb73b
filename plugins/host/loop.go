package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Hooks are what a driver does in its loop, all on the loop's goroutine.
type Hooks interface {
	// Look is called when the device has signalled, or LookAgain was called.
	Look()
	// Flush is called after every round of requests and looks.
	Flush()
	// Idle is called when nothing is left to be done now.
	Idle()
}

// LoopConfig is what a loop gets at construction.
type LoopConfig struct {
	Clock hw.Clock
	// Interrupt is the line on which the device signals.
	Interrupt hw.Line
	// Pump, when set, is called again and again by whoever waits, in place of a
	// goroutine. False means that nothing can happen any more.
	Pump func() bool
	// Closed is what calls after Close get.
	Closed error
	Hooks  Hooks
}

// Loop runs everything that touches a driver's state on one goroutine, which
// calls Step; whoever wants something posts a request and waits. With a Pump there is no such
// goroutine, and runs on a virtual clock are exactly repeatable.
type Loop struct {
	config LoopConfig
	// inbox holds what others want done; the callers that wait (one per entity)
	// and the timers bound its length.
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
	waiters map[*waiter]struct{}
	failure error
	look    bool
}

// waiter is somebody who waits for the answer to a request.
type waiter struct{ answer chan error }

// NewLoop makes a loop; nothing runs yet.
func NewLoop(config LoopConfig) *Loop {
	return &Loop{
		config: config, wake: make(chan struct{}, 1), stop: make(chan struct{}), ended: make(chan struct{}),
		waiters: map[*waiter]struct{}{},
	}
}

// Start begins the loop's goroutine, unless there is a Pump. It is called once.
func (l *Loop) Start() {
	l.running = true
	if l.config.Pump == nil {
		go l.run()
	}
}

// run is the goroutine shell around Step.
func (l *Loop) run() {
	defer close(l.ended)
	for {
		select {
		case <-l.stop:
			return
		case <-l.config.Interrupt.C():
			l.look = true
		case <-l.wake:
		}
		l.Step()
	}
}

// Step does everything that can be done now and reports whether it did
// anything. One goroutine calls it.
func (l *Loop) Step() bool {
	busy := false
	select {
	case <-l.config.Interrupt.C():
		l.look = true
	default:
	}
	for {
		l.inbox.Lock()
		requests := l.inbox.requests
		l.inbox.requests = nil
		l.inbox.Unlock()
		for _, request := range requests {
			request()
		}
		worked := len(requests) > 0
		if l.failure == nil && l.look {
			l.look = false
			l.config.Hooks.Look()
			worked = true
		}
		if l.failure == nil {
			l.config.Hooks.Flush()
		}
		if !worked && (!l.look || l.failure != nil) {
			if l.failure == nil {
				l.config.Hooks.Idle()
			}
			return busy
		}
		busy = true
	}
}

// Listen takes the signals of another line from now on, because the device moved. It
// is called on the loop's goroutine.
func (l *Loop) Listen(interrupt hw.Line) { l.config.Interrupt = interrupt }

// LookAgain asks for Hooks.Look in this step. It is called on the loop's goroutine.
func (l *Loop) LookAgain() { l.look = true }

// Failure is what Fail was called with; nil before.
func (l *Loop) Failure() error { return l.failure }

// Post queues a request for the loop's goroutine; false after Close.
func (l *Loop) Post(request func()) bool {
	l.inbox.Lock()
	defer l.inbox.Unlock()
	if l.inbox.closed {
		return false
	}
	l.inbox.requests = append(l.inbox.requests, request)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// timer is a call on the loop's goroutine. All of it belongs to that
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

// After calls f on the loop's goroutine, unless the timer was stopped or the
// loop failed. It is called there.
func (l *Loop) After(delay time.Duration, f func()) hw.Timer {
	t := &timer{}
	t.Timer = l.config.Clock.AfterFunc(delay, func() {
		l.Post(func() {
			if !t.over && l.failure == nil {
				t.over = true
				f()
			}
		})
	})
	return t
}

// Call runs start on the loop's goroutine and waits until it, or something it
// began, has called done. A deadline becomes core.ErrDeadline.
func (l *Loop) Call(ctx context.Context, what string, start func(done func(error))) error {
	w := &waiter{answer: make(chan error, 1)}
	posted := l.Post(func() {
		if l.failure != nil {
			w.answer <- l.failure
			return
		}
		l.waiters[w] = struct{}{}
		start(func(err error) { l.answer(w, err) })
	})
	if !posted {
		return fmt.Errorf("%s: %w", what, l.config.Closed)
	}
	err := l.await(ctx, w)
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = core.ErrDeadline
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (l *Loop) await(ctx context.Context, w *waiter) error {
	if l.config.Pump == nil {
		select {
		case err := <-w.answer:
			return err
		case <-ctx.Done():
			l.Post(func() { delete(l.waiters, w) })
			return context.Cause(ctx)
		case <-l.ended:
			return l.config.Closed
		}
	}
	for more := true; ; more = l.config.Pump() {
		select {
		case err := <-w.answer:
			return err
		default:
		}
		if err := ctx.Err(); err != nil || !more {
			delete(l.waiters, w)
			return errors.Join(core.ErrDeadline, err)
		}
	}
}

// answer ends a wait once; a second answer is dropped.
func (l *Loop) answer(w *waiter, err error) {
	if _, waits := l.waiters[w]; waits {
		delete(l.waiters, w)
		w.answer <- err
	}
}

// Fail ends the driver's work: whoever waits gets err, later calls too, no timer
// calls any more. It is called on the loop's goroutine; a repeat does nothing.
func (l *Loop) Fail(err error) {
	if l.failure != nil {
		return
	}
	l.failure = err
	for w := range l.waiters {
		delete(l.waiters, w)
		w.answer <- err
	}
}

// Close ends the loop; whoever waits gets an error. It may be called again.
// Errors wrap core.ErrDeadline.
func (l *Loop) Close(ctx context.Context) error {
	l.inbox.Lock()
	first := !l.inbox.closed
	l.inbox.closed = true
	l.inbox.Unlock()
	if first {
		close(l.stop)
	}
	if l.config.Pump == nil && l.running {
		select {
		case <-l.ended:
		case <-ctx.Done():
			return fmt.Errorf("close loop: %w", core.ErrDeadline)
		}
	}
	return nil
}

// Answer ends all waits of a list and empties it.
func Answer(waits *[]func(error), err error) {
	list := *waits
	*waits = nil
	for _, done := range list {
		done(err)
	}
}
