package arbiter

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// The weights of the priorities, as ratios: how much GPU time an entity gets
// for each that one of the lower priority gets while both want all they can get.
// They are those of the Linux scheduler.
const (
	HighToNormal = 4
	NormalToLow  = 8
)

// Virtual nanoseconds per nanosecond of GPU time, the inverse of the weights.
const (
	strideHigh   = 1
	strideNormal = strideHigh * HighToNormal
	strideLow    = strideNormal * NormalToLow
)

// level is a priority as an index: 0 is high.
type level uint8

const (
	levelHigh level = iota
	levelNormal
	levelLow
	levels
)

var strides = [levels]uint64{levelHigh: strideHigh, levelNormal: strideNormal, levelLow: strideLow}

func levelOf(p core.Priority) (level, error) {
	switch p {
	case core.PriorityHigh:
		return levelHigh, nil
	case core.PriorityNormal:
		return levelNormal, nil
	case core.PriorityLow:
		return levelLow, nil
	}
	return 0, fmt.Errorf("priority %q: %w", p, core.ErrInvalid)
}

// vtime is virtual time. It wraps around: two vtimes are compared by their
// difference, which stays far below 2^63 because leads are bounded.
type vtime uint64

// over returns how far t is ahead of u, negative when behind.
func (t vtime) over(u vtime) int64 { return int64(t - u) }

func later(t, u vtime) vtime {
	if t.over(u) < 0 {
		return u
	}
	return t
}
