package hw

import (
	"slices"
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

// realClock is the machine's monotonic clock.
type realClock struct{ start time.Time }

// NewRealClock returns the machine's monotonic clock, starting at 0 now.
func NewRealClock() Clock { return realClock{time.Now()} }

// Now implements Clock.
func (c realClock) Now() time.Duration { return time.Since(c.start) }

// AfterFunc implements Clock.
func (c realClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

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
