package fw

import (
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// LiveProgressMin is a floor for the progress timer on live engines: a
// workgroup on a CPU may honestly take seconds.
const LiveProgressMin = 10 * time.Second

// Limits unless configured. The rates are those of a G610 at its usual clocks.
const (
	groupsDefault          = 8
	streamsDefault         = 8
	shadersDefault  uint64 = 0x50005
	spacesDefault   uint32 = 0xFF
	cycleRate       uint64 = 500_000_000
	timestampRate   uint64 = 24_000_000
	instructionRate uint64 = 10_000_000
	// burstDefault is how many instructions a stream executes at once before it
	// pays for their time, catchUpMax how many after it was late.
	burstDefault      = 64
	catchUpMax        = 4096
	latencyDefault    = time.Microsecond
	syncPollDefault   = time.Millisecond
	stallDefault      = 10 * time.Millisecond
	rotationDefault   = 10 * time.Millisecond
	sampleDefault     = 50 * time.Millisecond
	resetGraceDefault = time.Second
	// passesMax bounds one Step; the rest is done in the next one.
	passesMax = 256
	// violationsMax bounds what is remembered of the host's mistakes.
	violationsMax = 64

	registersMax   = abi.RegistersMax
	scoreboardsMax = abi.ScoreboardsMax
	deferralsMax   = 16
	dispatchesMax  = 4
	// framesMax is how many calls can be open: one frame is the ring's.
	framesMax = abi.FrameDepthMax - 1
)

// ErrInvalid is returned when a Config cannot work.
var ErrInvalid = errors.New("invalid firmware configuration")

// Identity is what the device says it is. Zero fields mean a G610.
type Identity struct {
	// Groups and Streams are the CSG slots (3 to 31) and the CSs of each (8 to 32).
	Groups, Streams int
	Version         abi.Version
	// Shaders are the cores, a mask; AddressSpaces the MMU's, 0 included.
	Shaders       uint64
	AddressSpaces uint32
	// Build names the firmware: an image that another build wrote is refused.
	Build uint64
	// SuspendType is FEATURES 7:0 of every group.
	SuspendType uint8
	// WholeDispatches: FEATURES bit 0 is 0, a suspend waits for the end of dispatches.
	WholeDispatches bool
}

// Config is the surroundings of a Firmware. Arena, Ports, Engine and Clock are
// required, everything else has a default.
type Config struct {
	Arena  *hw.Arena
	Ports  hw.Ports
	Engine engine.Engine
	Clock  hw.Clock
	// Trace takes every edge, doorbell, interrupt and retired instruction; nil takes none.
	Trace *hw.Trace
	// Faults is what goes wrong on purpose (see NewFaults); nil is nothing.
	Faults *hw.Faults
	Identity
	OpenPoints
	// Executions is how many dispatches the engine has at the same time (0: one,
	// so that groups really share it). Endpoints bound it too.
	Executions int
	// ProgressMin is a floor under the progress timer (0 keeps the host's value;
	// see LiveProgressMin). A timer of 0, "never", stays.
	ProgressMin time.Duration
	// CycleRate, TimestampRate and InstructionRate are per second.
	CycleRate, TimestampRate, InstructionRate uint64
	// Burst is how many instructions a stream executes at once (0: 64).
	Burst int
	// Latency is what loads, stores and flushes take (0: 1 µs; negative: nothing).
	Latency time.Duration
	// Stall is how long an access through a disabled address space waits before
	// it is a bus fault (0: 10 ms).
	Stall time.Duration
	// Rotation is how long a dispatch keeps its endpoints while one of equal
	// priority waits (0: 10 ms).
	Rotation time.Duration
	// SampleInterval is how often progress of a running dispatch is written to
	// its descriptor (0: 50 ms).
	SampleInterval time.Duration
	// ResetGrace is how long a reset waits for executions to end before it fails (0: 1 s).
	ResetGrace time.Duration
	// BootDelay and FlushDelay are what a boot and a cache flush take.
	BootDelay, FlushDelay time.Duration
	// DirtyL2 keeps suspend images in the cache until a flush cleans it: a host
	// that forgets it loses them with the power.
	DirtyL2 bool
	// PoisonLoads fills registers that a load will write until it is awaited.
	PoisonLoads bool
	// GraphicsLite accepts graphics work as operations that only take time.
	GraphicsLite bool
	// StrictTransitions acknowledges an illegal change of a group's state with 7.
	StrictTransitions bool
	// Seed chooses the order of streams that are ready at the same time; 0 is
	// by slot and stream.
	Seed uint64
}

// OpenPoints are the choices where the interface is silent. The zero value is
// what the documentation of the emulator says.
type OpenPoints struct {
	// RunFaulted executes endpoint work although the stream is in error state.
	RunFaulted bool
	// RejectInherits swaps the two values of the reject bit of SYNC_WAIT.
	RejectInherits bool
	// KeepRegisters lets START find what the slot's last group left in the registers.
	KeepRegisters bool
	// Deferrals is how many operations can be deferred, 1 to 16 (0: 16).
	Deferrals int
	// ExtractAtFetch moves EXTRACT when an instruction is fetched, not when it retires.
	ExtractAtFetch bool
	// BootAcksZero makes all acknowledgements 0 at boot, not equal to the requests.
	BootAcksZero bool
	// SyncPoll is how often a blocked SYNC_WAIT looks at memory that the CPU may have
	// written (0: 1 ms; negative: only when the device writes a sync object or is kicked).
	SyncPoll time.Duration
	// FatalFirst reports what is wrong with a stream before START is acknowledged.
	FatalFirst bool
	// RefuseInsert makes an impossible INSERT a fatal configuration fault; otherwise it
	// is passed over and read again.
	RefuseInsert bool
	// MMUFatal makes an address that is not mapped a CS_FATAL, not a CS_FAULT.
	MMUFatal bool
}

// complete fills in the defaults of an identity.
func (id Identity) complete() (Identity, error) {
	set(&id.Groups, groupsDefault)
	set(&id.Streams, streamsDefault)
	set(&id.Version, abi.Version{Major: 1, Minor: 1})
	set(&id.Shaders, shadersDefault)
	set(&id.AddressSpaces, spacesDefault)
	set(&id.Build, 1)
	if id.Groups < abi.GroupsMin || id.Groups > abi.GroupsMax || id.Streams < abi.StreamsMin || id.Streams > abi.StreamsMax {
		return id, fmt.Errorf("%d groups of %d streams: %w", id.Groups, id.Streams, ErrInvalid)
	}
	if id.AddressSpaces&1 == 0 || bits.Len32(id.AddressSpaces) > abi.ASMax {
		return id, fmt.Errorf("address spaces %#x: %w", id.AddressSpaces, ErrInvalid)
	}
	return id, nil
}

// set gives a field that is zero its default.
func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// complete checks a configuration and fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Arena == nil || c.Ports.Registers == nil || c.Ports.Doorbell == nil || c.Ports.Interrupt == nil ||
		c.Engine == nil || c.Clock == nil {
		return c, fmt.Errorf("arena, ports, engine and clock are required: %w", ErrInvalid)
	}
	var err error
	if c.Identity, err = c.Identity.complete(); err != nil {
		return c, err
	}
	for _, d := range [...]time.Duration{c.ProgressMin, c.Stall, c.Rotation, c.SampleInterval, c.ResetGrace, c.BootDelay, c.FlushDelay} {
		if d < 0 {
			return c, fmt.Errorf("negative duration: %w", ErrInvalid)
		}
	}
	if c.Executions < 0 || c.Burst < 0 || c.Deferrals < 0 || c.Deferrals > deferralsMax {
		return c, fmt.Errorf("executions, burst or deferrals out of range: %w", ErrInvalid)
	}
	set(&c.Executions, 1)
	set(&c.CycleRate, cycleRate)
	set(&c.TimestampRate, timestampRate)
	set(&c.InstructionRate, instructionRate)
	set(&c.Burst, burstDefault)
	set(&c.Latency, latencyDefault)
	set(&c.Stall, stallDefault)
	set(&c.Rotation, rotationDefault)
	set(&c.SampleInterval, sampleDefault)
	set(&c.ResetGrace, resetGraceDefault)
	set(&c.Deferrals, deferralsMax)
	set(&c.SyncPoll, syncPollDefault)
	c.Latency = max(c.Latency, 0)
	return c, nil
}

// Counters count what happened since New. For tests and metrics.
type Counters struct {
	// Boots counts boots that were reported, of which FastBoots kept the
	// firmware's memory; BootsFailed those that ended fatally.
	Boots, FastBoots, BootsFailed uint64
	// Resets counts soft resets that ended, ResetsFailed those that an execution outlasted.
	Resets, ResetsFailed uint64
	// Doorbells counts those heard, Interrupts bits set in RAWSTAT registers.
	Doorbells, Interrupts uint64
	// Retired counts instructions, Syncs sync objects written.
	Retired, Syncs uint64
	// Starts, Resumes, Suspends and Terminates count states of groups that were reached.
	Starts, Resumes, Suspends, Terminates uint64
	// Illegal counts changes of state that were refused.
	Illegal uint64
	// Dispatches counts those issued, Executions starts on the engine,
	// Preemptions those asked to leave it for another.
	Dispatches, Executions, Preemptions uint64
	// StreamFaults and StreamFatals count CS_FAULT and CS_FATAL, MMUFaults addresses.
	StreamFaults, StreamFatals, MMUFaults uint64
	// Idles counts CSG_IDLE events, GlobalIdles GLB_IDLE, ProgressEvents those of the timer.
	Idles, GlobalIdles, ProgressEvents uint64
	// Flushes counts cache flushes that were done, FlushesSkipped those with an old id.
	Flushes, FlushesSkipped uint64
	// InsertsIgnored counts values of INSERT that cannot be.
	InsertsIgnored uint64
	// Faults counts what the fault plan hit.
	Faults uint64
}
