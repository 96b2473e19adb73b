package manager

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// clock is the time of the schedulers: what the wall clock said at the start, and
// what has passed since. Somebody who sets the wall clock must not make a deadline
// come early, or a checkpoint late.
type clock struct {
	start core.Instant
	begun time.Time
}

func newClock(wall func() time.Time) clock {
	return clock{start: core.At(wall()), begun: time.Now()}
}

func (c clock) now() core.Instant { return c.start.Add(time.Since(c.begun)) }
