package driver

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
)

// registerPoll is the period in which registers without an interrupt are looked at.
const registerPoll = time.Millisecond

// wait is something expected of the hardware.
type wait struct {
	// ready is asked after each interrupt, and a last time at the deadline.
	ready func() bool
	done  func()
	timer hw.Timer
	poll  hw.Timer
	over  bool
}

// expect calls done as soon as ready holds, or late when it does not within
// bound. A reset drops all expectations. period is how often to look without
// an interrupt, 0 for never.
func (d *Driver) expect(bound, period time.Duration, ready func() bool, done, late func()) {
	w := &wait{ready: ready, done: done}
	d.waits = append(d.waits, w)
	w.timer = d.loop.After(bound, func() {
		// Whoever slept looks before it judges.
		d.service()
		if w.over || d.try(w) {
			return
		}
		d.forget(w)
		late()
	})
	if period > 0 {
		var again func()
		again = func() {
			if !w.over && !d.try(w) {
				w.poll = d.loop.After(period, again)
			}
		}
		w.poll = d.loop.After(period, again)
	}
}

// try ends a wait if it is over.
func (d *Driver) try(w *wait) bool {
	if w.over || d.loop.Failure() != nil || !w.ready() {
		return w.over
	}
	if !w.over { // ready may have dropped it.
		d.forget(w)
		w.done()
	}
	return true
}

func (d *Driver) forget(w *wait) {
	w.over = true
	w.timer.Stop()
	if w.poll != nil {
		w.poll.Stop()
	}
	for i, x := range d.waits {
		if x == w {
			d.waits = append(d.waits[:i:i], d.waits[i+1:]...)
			return
		}
	}
}

// checkWaits looks at every expectation, and reports whether one was met.
func (d *Driver) checkWaits() bool {
	met := false
	for _, w := range d.waits {
		if !w.over && d.try(w) {
			met = true
		}
	}
	return met
}

// dropWaits forgets them all.
func (d *Driver) dropWaits() {
	for _, w := range d.waits {
		w.over = true
		w.timer.Stop()
		if w.poll != nil {
			w.poll.Stop()
		}
	}
	d.waits = nil
}
