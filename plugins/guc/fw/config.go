package fw

import (
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Floors for live engines: a workgroup on a CPU may honestly take a second, so
// that the vendor's microseconds would only cost switches and resets.
const (
	LiveQuantumMin    = 10 * time.Millisecond
	LivePreemptionMin = 10 * time.Second
)

// Limits unless configured.
const (
	sampleDefault     = 50 * time.Millisecond
	resetGraceDefault = time.Second
	abortGraceDefault = 100 * time.Millisecond
	queueMaxDefault   = 4096
	// messagesMaxDefault is more than the largest H2G ring of the drivers holds.
	messagesMaxDefault = 1024
	instancesMax       = 32
	classesMax         = 16
	// passesMax bounds one Step; the rest is done in the next one.
	passesMax = 64
)

// ErrInvalid is returned when a Config cannot work.
var ErrInvalid = errors.New("invalid firmware configuration")

// Config is the surroundings of a Firmware. Arena, Ports, Engine and Clock are
// required, everything else has a default.
type Config struct {
	Arena  *hw.Arena
	Ports  hw.Ports
	Engine engine.Engine
	Clock  hw.Clock
	// Trace takes every message; nil takes none.
	Trace *hw.Trace
	// Faults is what goes wrong on purpose (see NewFaults); nil is nothing.
	Faults *hw.Faults
	// Classes gives the logical instances of each engine class, 1 to 32; nil
	// means one compute instance.
	Classes map[abi.EngineClass]int
	// QuantumMin and PreemptionMin are floors under the policies of contexts
	// (0 keeps the policies; see LiveQuantumMin). A policy of 0, "never", stays.
	QuantumMin, PreemptionMin time.Duration
	OpenPoints
	// Function is the number (VFID) under which the device is saved and restored
	// (0: abi.FunctionSelf).
	Function uint32
	// NoHeadOfLineBlocking lets contexts behind a head that cannot be placed run.
	NoHeadOfLineBlocking bool
	// SampleInterval is how often progress of a running dispatch is written to
	// its descriptor (0: 50 ms).
	SampleInterval time.Duration
	// AbortGrace is how long an aborted execution may take to end (0: 100 ms).
	AbortGrace time.Duration
	// ResetGrace is how long a reset of the device waits for the engines before it
	// fails (0: 1 s, or PreemptionMin if that is more).
	ResetGrace time.Duration
	// LoadDelay is how long a load of the firmware takes.
	LoadDelay time.Duration
	// VolatileMemory makes D3cold lose the memory too, as a discrete card does.
	VolatileMemory bool
	// MessageDelay is spent on each H2G message.
	MessageDelay time.Duration
	// MessagesMax bounds the H2G messages of one pass of a Step (0: 1024).
	MessagesMax int
	// DoneDelay passes between a deregistration or TLB invalidation and its answer.
	DoneDelay time.Duration
	// QueueMax bounds the G2H messages that wait for room (0: 4096). At the
	// bound no H2G is taken and no context is switched in; what runs may add a
	// few messages beyond it.
	QueueMax int
}

// complete checks a configuration and fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Arena == nil || c.Ports.Registers == nil || c.Ports.Doorbell == nil || c.Ports.Interrupt == nil ||
		c.Engine == nil || c.Clock == nil {
		return c, fmt.Errorf("arena, ports, engine and clock are required: %w", ErrInvalid)
	}
	open, err := c.OpenPoints.complete()
	if err != nil {
		return c, err
	}
	c.OpenPoints = open
	if c.Function == 0 {
		c.Function = abi.FunctionSelf
	}
	if c.Classes == nil {
		c.Classes = map[abi.EngineClass]int{abi.ClassCompute: 1}
	}
	for class, count := range c.Classes {
		if class >= classesMax || count < 1 || count > instancesMax {
			return c, fmt.Errorf("%d instances of engine class %d: %w", count, class, ErrInvalid)
		}
	}
	if c.QuantumMin < 0 || c.PreemptionMin < 0 || c.SampleInterval < 0 || c.AbortGrace < 0 ||
		c.ResetGrace < 0 || c.LoadDelay < 0 || c.MessageDelay < 0 || c.DoneDelay < 0 || c.MessagesMax < 0 || c.QueueMax < 0 {
		return c, fmt.Errorf("negative duration or limit: %w", ErrInvalid)
	}
	if c.SampleInterval == 0 {
		c.SampleInterval = sampleDefault
	}
	if c.AbortGrace == 0 {
		c.AbortGrace = abortGraceDefault
	}
	if c.ResetGrace == 0 {
		c.ResetGrace = max(resetGraceDefault, c.PreemptionMin)
	}
	if c.MessagesMax == 0 {
		c.MessagesMax = messagesMaxDefault
	}
	if c.QueueMax == 0 {
		c.QueueMax = queueMaxDefault
	}
	return c, nil
}

// Counters count what happened since New. For tests and metrics.
type Counters struct {
	// H2G and G2H count messages taken and written, NOPs excluded.
	H2G, G2H uint64
	// G2HQueued counts messages that had to wait for room, G2HDropped those
	// that found no channel (disabled, broken, or never registered).
	G2HQueued, G2HDropped uint64
	// Refused counts failure replies, RefusedEvents refusals that nobody hears of.
	Refused, RefusedEvents uint64
	// Dropped counts SCHED_CONTEXT for contexts that were not enabled.
	Dropped uint64
	// ModeSets counts accepted MODE_SETs, ModeDones their answers,
	// ModesForgotten those whose context a reset forgot before the answer.
	ModeSets, ModeDones, ModesForgotten uint64
	// SwitchIns counts contexts put onto an engine, Preemptions requests to
	// leave, QuantumExpiries those of them because of a quantum.
	SwitchIns, Preemptions, QuantumExpiries uint64
	// Resets counts contexts that were reset (hang or fault), CatErrors those
	// for an address, EngineFailures failed engine resets.
	Resets, CatErrors, EngineFailures uint64
	// Batches counts dispatches started, Interrupts user interrupts.
	Batches, Interrupts uint64
	// Broken counts H2G rings that were found corrupt.
	Broken uint64
	// GTResets counts resets of the device, GTResetsFailed those that an engine outlasted.
	GTResets, GTResetsFailed uint64
	// Saves and Restores count snapshots.
	Saves, Restores uint64
	// Faults counts what the fault plan hit.
	Faults uint64
}
