package fw

import (
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// LiveWatchdog is what a live engine needs: a workgroup on a CPU may honestly
// take a second, so that the vendor's interval would kill what is only slow.
const LiveWatchdog = 10 * time.Second

// Limits unless configured.
const (
	sampleDefault    = 50 * time.Millisecond
	haltGraceDefault = 100 * time.Millisecond
	widthMax         = 64
	// passesMax bounds one Step; the rest is done in the next one.
	passesMax = 64
	// queuesMax bounds the work queues that the firmware knows.
	queuesMax = 1 << 16
)

// ErrInvalid is returned when a Config cannot work.
var ErrInvalid = errors.New("invalid firmware configuration")

// Config is the surroundings of a Firmware. Arena, Ports, Engine and Clock are
// required, everything else has a default.
type Config struct {
	// Version is the interface that is spoken; the zero value means abi.Target.
	Version abi.Version
	Arena   *hw.Arena
	// Ports: the host raises Doorbell when it has put something into the inbox or
	// changed a register, the firmware raises Interrupt when it has put
	// something into the outbox. Registers have the windows abi.RegWindows.
	Ports  hw.Ports
	Engine engine.Engine
	Clock  hw.Clock
	// Trace takes every message; nil takes none.
	Trace *hw.Trace
	// Faults is what goes wrong on purpose (see NewFaults); nil is nothing.
	Faults *hw.Faults
	// Width is how many compute commands run at once (0: 1, as the proposal has
	// it). With more than one, a halt has victims.
	Width int
	// Watchdog is how long a command may run; 0 is the vendor's value,
	// progress_check_interval_cl times OpenPoints.WatchdogUnit. See LiveWatchdog.
	Watchdog time.Duration
	// HaltGrace is how long what runs may take to leave the engine at a halt,
	// before the firmware gives the device up (0: 100 ms).
	HaltGrace time.Duration
	// PowerOnDelay is how long the GPU takes to come on.
	PowerOnDelay time.Duration
	// SampleInterval is how often progress of a running dispatch is written to
	// its descriptor (0: 50 ms).
	SampleInterval time.Duration
	OpenPoints
}

// OpenPoints are what the public sources leave open: each is one choice, and the
// other one can be switched on. The zero value is what this emulator chose.
// Where 13.2 put a word into QueueInfo is one more: abi.Version.QueueInfoM1N1.
type OpenPoints struct {
	// WatchdogUnit is the unit of the progress check interval (0: 10 ms).
	WatchdogUnit time.Duration
	// WatchdogByProgress starts the watchdog anew whenever a workgroup has ended,
	// instead of counting from the start of the command.
	WatchdogByProgress bool
	// EventDrop loses an event that finds the ring full, instead of stalling.
	EventDrop bool
	// Promote lets a command that has waited so long go before all levels; 0 is
	// strict: the weak wait for ever.
	Promote time.Duration
	// ComputePreempt makes a command that allows it leave the pipe for one of a stronger
	// level, within the vendor's time for a context store.
	ComputePreempt bool
	// FlushBypasses lets a command with flush_stamps tell its completion whatever
	// the threshold says.
	FlushBypasses bool
	// Write32Ignored makes the device-control message Write32 do nothing.
	Write32Ignored bool
	// RecheckBySlot looks at a barrier again only when its wait_slot's stamp was
	// written, instead of any stamp.
	RecheckBySlot bool
	// Lenient logs what the host must not do and passes over it, instead of
	// crashing. Boot and initdata are never lenient.
	Lenient bool
	// UnknownOpCrash crashes at an unknown microsequence operation, instead of a
	// channel error.
	UnknownOpCrash bool
	// CheckerCrash crashes when the host changed an object that the firmware
	// caches, instead of counting it.
	CheckerCrash bool
}

// watchdogUnitDefault makes the interval's 250 a few seconds, what is seen in practice.
const watchdogUnitDefault = 10 * time.Millisecond

// complete checks a configuration and fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Arena == nil || c.Ports.Registers == nil || c.Ports.Doorbell == nil || c.Ports.Interrupt == nil ||
		c.Engine == nil || c.Clock == nil {
		return c, fmt.Errorf("arena, ports, engine and clock are required: %w", ErrInvalid)
	}
	if c.Watchdog < 0 || c.HaltGrace < 0 || c.PowerOnDelay < 0 || c.SampleInterval < 0 || c.WatchdogUnit < 0 || c.Promote < 0 {
		return c, fmt.Errorf("negative duration: %w", ErrInvalid)
	}
	if c.Width < 0 || c.Width > widthMax {
		return c, fmt.Errorf("%d commands at once: %w", c.Width, ErrInvalid)
	}
	if c.Version == (abi.Version{}) {
		c.Version = abi.Target
	}
	if c.Width == 0 {
		c.Width = 1
	}
	if c.HaltGrace == 0 {
		c.HaltGrace = haltGraceDefault
	}
	if c.SampleInterval == 0 {
		c.SampleInterval = sampleDefault
	}
	if c.WatchdogUnit == 0 {
		c.WatchdogUnit = watchdogUnitDefault
	}
	return c, nil
}

// Counters count what happened since New. For tests and metrics.
type Counters struct {
	// Received and Sent count mailbox messages.
	Received, Sent uint64
	// Controls and Kicks count entries taken from the device-control ring and the pipes.
	Controls, Kicks uint64
	// Started and Retired count commands, Barriers those passed. Every retired
	// command was started; Killed counts those of them that a halt ended.
	Started, Retired, Killed, Barriers uint64
	// Preempted counts contexts that were stored.
	Preempted uint64
	// Events counts events written, Flags those of them that are Flags,
	// EventsDropped what found no room.
	Events, Flags, EventsDropped uint64
	// Halts counts halts of the GPU, Timeouts those of the watchdog.
	Halts, Timeouts uint64
	// ChannelErrors counts queues that were stopped.
	ChannelErrors uint64
	// Misuses counts what the host must not do, Violations what the checker of
	// cached objects found.
	Misuses, Violations uint64
	// Flushes counts flushes of the cache.
	Flushes uint64
	// PowerOns and PowerOffs count the GPU's power.
	PowerOns, PowerOffs uint64
	// Logs counts lines of the log, LogsDropped those that found no room.
	Logs, LogsDropped uint64
	// Crashes is 1 after a crash.
	Crashes uint64
	// Faults counts what the fault plan hit.
	Faults uint64
}
