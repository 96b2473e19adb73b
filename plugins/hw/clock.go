package hw

import (
	"slices"
	"sync"
	"time"
)

// Clock is time as a device sees it.
type Clock interface {
	// Now returns the time since some fixed moment; it never goes back.
	Now() time.Duration
	// AfterFunc calls f once, d from now (at once when d <= 0). A real clock
	// calls it on a goroutine of its own, a virtual one inside Advance.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is one pending call.
type Timer interface {
	// Stop prevents the call and reports whether it did.
	Stop() bool
}

// slice is how often a real clock with a pending call looks at the machine's.
const slice = 500 * time.Millisecond

// realClock is the machine's monotonic clock without the pauses of the process.
type realClock struct {
	mu struct {
		sync.Mutex
		now  time.Duration
		read time.Time // when now was brought up to date
	}
}

// NewRealClock returns a clock that starts at 0 now and runs with the machine's,
// but at most two slices from one look to the next: a process that was stopped,
// or whose machine was, could do nothing meanwhile, and no deadline may count
// that. While a call is pending it looks once per slice; when none is, nobody
// measures anything.
func NewRealClock() Clock {
	c := &realClock{}
	c.mu.read = time.Now()
	return c
}

// Now implements Clock.
func (c *realClock) Now() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := time.Now()
	c.mu.now += min(read.Sub(c.mu.read), 2*slice)
	c.mu.read = read
	return c.mu.now
}

// AfterFunc implements Clock.
func (c *realClock) AfterFunc(d time.Duration, f func()) Timer {
	t := &realTimer{clock: c, at: c.Now() + max(d, 0), f: f}
	t.wait(max(d, 0))
	return t
}

// realTimer is one pending call of a realClock.
type realTimer struct {
	clock *realClock
	at    time.Duration
	f     func()
	mu    struct {
		sync.Mutex
		timer *time.Timer
		over  bool // called or stopped
	}
}

// wait sleeps until the call is due, but no longer than a slice.
func (t *realTimer) wait(left time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.mu.over {
		t.mu.timer = time.AfterFunc(min(left, slice), t.look)
	}
}

// look makes the call when it is due.
func (t *realTimer) look() {
	if left := t.at - t.clock.Now(); left > 0 {
		t.wait(left)
		return
	}
	if t.end() {
		t.f()
	}
}

// end reports whether the call was still pending; it no longer is.
func (t *realTimer) end() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := !t.mu.over
	t.mu.over = true
	t.mu.timer.Stop()
	return was
}

// Stop implements Timer.
func (t *realTimer) Stop() bool { return t.end() }

// VirtualClock is time that moves only when told. It belongs to one goroutine,
// on which all its calls run. Calls due at the same moment run in the order in
// which they were asked for.
type VirtualClock struct {
	now     time.Duration
	serial  uint64
	pending []*virtualTimer
}

// virtualTimer is one pending call; serial keeps equal moments in order.
type virtualTimer struct {
	clock  *VirtualClock
	at     time.Duration
	serial uint64
	f      func()
}

// NewVirtualClock returns a clock that stands at 0.
func NewVirtualClock() *VirtualClock { return &VirtualClock{} }

// Now implements Clock.
func (c *VirtualClock) Now() time.Duration { return c.now }

// AfterFunc implements Clock. The call runs inside Advance, never here.
func (c *VirtualClock) AfterFunc(d time.Duration, f func()) Timer {
	c.serial++
	t := &virtualTimer{clock: c, at: c.now + max(d, 0), serial: c.serial, f: f}
	i, _ := slices.BinarySearchFunc(c.pending, t, func(a, b *virtualTimer) int {
		if a.at < b.at || a.at == b.at && a.serial < b.serial {
			return -1
		}
		return 1
	})
	c.pending = slices.Insert(c.pending, i, t)
	return t
}

// Next returns when the next call is due, and false when none is pending.
func (c *VirtualClock) Next() (time.Duration, bool) {
	if len(c.pending) == 0 {
		return 0, false
	}
	return c.pending[0].at, true
}

// Advance moves time by d, running every call that falls due on the way at its
// own moment, those asked for meanwhile included. A negative d counts as 0.
func (c *VirtualClock) Advance(d time.Duration) {
	end := c.now + max(d, 0)
	for len(c.pending) > 0 && c.pending[0].at <= end {
		t := c.pending[0]
		c.pending = c.pending[1:]
		c.now = max(c.now, t.at)
		t.f()
	}
	c.now = end
}

// Stop implements Timer.
func (t *virtualTimer) Stop() bool {
	i := slices.Index(t.clock.pending, t)
	if i < 0 {
		return false
	}
	t.clock.pending = slices.Delete(t.clock.pending, i, i+1)
	return true
}
