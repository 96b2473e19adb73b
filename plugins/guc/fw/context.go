package fw

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// contextState is where a context stands. An id that is not in the table is
// unregistered.
type contextState uint8

// The states and what may follow.
const (
	// contextDisabled is registered only; then enabled or deregistering.
	contextDisabled contextState = iota
	// contextEnabled may be queued or on an engine; then disabling, disabled or reset.
	contextEnabled
	// contextDisabling is still on an engine; then disabled.
	contextDisabling
	// contextReset hung or faulted and is not scheduled; then enabled, disabled
	// or deregistering.
	contextReset
	// contextDeregistering is about to be forgotten.
	contextDeregistering
)

// String names the state.
func (s contextState) String() string {
	return [...]string{"disabled", "enabled", "disabling", "reset", "deregistering"}[s]
}

// The levels of priority: 0 is the strongest.
const levels = 4

// policies are how a context is scheduled.
type policies struct {
	level        uint32
	quantumUS    uint32
	preemptionUS uint32
	toIdle       bool
	frequency    uint32
}

// Defaults of a context before its first policies: the drivers' own defaults
// at the weakest level.
const (
	DefaultQuantumUS    = 1000
	DefaultPreemptionUS = 640_000
	DefaultPriority     = levels - 1
)

// guContext is one context as the firmware knows it.
type guContext struct {
	id       abi.GUCID
	state    contextState
	class    *engineClass
	mask     uint32
	lrc      abi.LRCDescriptor
	regs     hw.Words
	policies policies
	// queued says that it stands in its class's queue, at level queuedAt.
	queued     bool
	queuedAt   uint32
	prev, next *guContext
	// waitsSince is when it began to wait, or was promoted last; used is what it
	// had of its quantum when it made room for a stronger one.
	waitsSince, used time.Duration
	// on is the engine instance it is on, nil when off.
	on *instance
	// disables counts MODE_SET(0) that are not answered yet.
	disables int
	// space names the address space to the engine, 0 before the first dispatch;
	// segments are what it stood for.
	space    uint64
	segments []hw.Mapping
	// ran is the time on an engine, in all.
	ran time.Duration
}

// setState changes where a context stands.
func (f *Firmware) setState(g *guContext, s contextState) {
	if g.state != s {
		f.note("CTX", func(w []uint32) string {
			return fmt.Sprintf("guc_id=%d %s -> %s", w[0], contextState(w[1]), contextState(w[2]))
		}, uint32(g.id), uint32(g.state), uint32(s))
	}
	g.state = s
}

// pending reports whether the context image holds ring commands that were not executed.
func (g *guContext) pending() bool {
	return g.regs.Load(abi.RegRingHead)&abi.RingHeadMask != g.regs.Load(abi.RegRingTail)&abi.RingTailMask
}

// timestamp reads the context's timestamp from its image, in ticks.
func (g *guContext) timestamp() uint64 {
	return uint64(g.regs.Load(abi.RegTimestampHi))<<32 | uint64(g.regs.Load(abi.RegTimestampLo))
}

// setTimestamp writes the timestamp into the image.
func (g *guContext) setTimestamp(ticks uint64) {
	g.regs.Store(abi.RegTimestampLo, uint32(ticks))
	g.regs.Store(abi.RegTimestampHi, uint32(ticks>>32))
}

// addressSpace reads the context's address space table, empty when it has none.
func (f *Firmware) addressSpace(g *guContext) (hw.Space, error) {
	table := uint64(g.regs.Load(abi.RegPDP0Hi))<<32 | uint64(g.regs.Load(abi.RegPDP0Lo))
	if !g.lrc.PrivateSpace || table == 0 {
		return nil, nil
	}
	return hw.ReadSpace(f.cfg.Arena, table)
}

// microseconds turns a policy into a duration, at least floor; 0 ("never")
// stays 0.
func microseconds(us uint32, floor time.Duration) time.Duration {
	if us == 0 {
		return 0
	}
	return max(time.Duration(us)*time.Microsecond, floor)
}
