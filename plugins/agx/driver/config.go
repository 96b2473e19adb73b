package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/hashicorp/go-hclog"
)

// Config is what a driver gets at construction.
type Config struct {
	// Arena is the device's memory.
	Arena *hw.Arena
	Ports hw.Ports
	Clock hw.Clock
	// Log carries the device's name already.
	Log hclog.Logger
	// Version is the interface of the firmware; abi.Target by default.
	Version abi.Version
	// Name, Engine and Formats are what Describe says; jobs take their kernel
	// in the first of Formats that they have and that is loaded.
	Name, Engine string
	Formats      []string
	// Failed is called once, from the driver's goroutine, when the device is
	// lost; whoever is called logs it.
	Failed func(error)
	// Pump, when set, is called again and again by whoever waits, in place of a
	// goroutine: it steps driver and firmware and moves the clock. False means that nothing can happen any more.
	Pump func() bool

	// Slice is the latency that a suspend is to have at most, and so the time that
	// all commands in the rings together may take; 50 ms by default, SliceMin to SliceMax.
	Slice time.Duration
	// Credits is the room of an entity's ring in jobs; default 64.
	Credits uint32
	// Depth is how many commands of a queue may be in its ring, 1 to DepthMax (the default).
	Depth uint32
	// EntitiesMax bounds the entities at once; default 65536.
	EntitiesMax uint32
	// EventSlots and VMSlots are how many of both are used, at most (and by default) all there are.
	EventSlots, VMSlots uint32
	// FirstStamp is what all stamps begin with; 0 means FirstStampDefault.
	FirstStamp uint32
	// GarbageObjects and GarbageBytes are how much freed private memory makes the driver flush
	// the firmware's cache; the vendor's 2048 and 16 MiB by default.
	GarbageObjects, GarbageBytes uint64
	// RecoveriesMax is how many halts may follow each other without a command that
	// ends well between them before the device is given up; 16 by default.
	RecoveriesMax int
	Timeouts      Timeouts
}

// Timeouts bound the waits for the firmware. Zero fields get the defaults.
type Timeouts struct {
	// Boot bounds the way from the start of the coprocessor to the first work. 5 s.
	Boot time.Duration
	// Control is how long the firmware may take to consume a device-control
	// message; 1 s, the vendor's. Room in the mailbox and in a pipe has the same bound.
	Control time.Duration
	// Halt is how long the GPU may take to halt after the event that says so, and the
	// firmware to see a resume; 100 ms, the vendor's.
	Halt time.Duration
	// Retire is how long the firmware may take to retire marked commands after a resume; 1 s.
	Retire time.Duration
	// Hang is how long a command may execute without one more workgroup done before the driver
	// does not wait for the firmware's watchdog any longer; 10 s.
	Hang time.Duration
	// Start is how long a kicked command may take to begin while the GPU is idle, before it is
	// kicked again; after the third time the device is given up. 2 s.
	Start time.Duration
	// Heartbeat is how long nothing may move while work is under way before the
	// firmware is asked for a sign of life; 1 s.
	Heartbeat time.Duration
	// Poll is the longest period in which stamps are looked at although no event
	// came; a slice target below eight times that makes it shorter. 50 ms.
	Poll time.Duration
}

const (
	sliceDefault = 50 * time.Millisecond
	// SliceMin and SliceMax bound Config.Slice: below it the messages of a command are most of the
	// work, beyond it a suspend is no suspend.
	SliceMin = time.Millisecond
	SliceMax = 10 * time.Second
	// DepthMax is the vendor's 127 outstanding events of a slot, which must not be reached.
	DepthMax       = abi.OutstandingMax - 1
	creditsDefault = 64
	creditsMax     = 1 << 16
	entitiesMax    = 1 << 16
	// VMSlotsMax are the hardware's contexts but the kernel's own.
	VMSlotsMax = abi.ContextSlots - 1
	// FirstStampDefault lets every device see its stamps wrap after 16 commands of a slot.
	FirstStampDefault uint32 = 0xFFFF_F000
	garbageObjects           = 2048
	garbageBytes             = 16 << 20
	recoveriesMax            = 16
	// looksPerSlice is how often stamps are looked at within a slice target.
	looksPerSlice = 8
	pollMin       = 500 * time.Microsecond
)

// withDefaults fills what is zero and checks the rest; errors wrap core.ErrInvalid.
func (c Config) withDefaults() (Config, error) {
	fill(&c.Version, abi.Target)
	fill(&c.Slice, sliceDefault)
	fill(&c.Credits, creditsDefault)
	fill(&c.Depth, DepthMax)
	fill(&c.EntitiesMax, entitiesMax)
	fill(&c.EventSlots, abi.Slots)
	fill(&c.VMSlots, VMSlotsMax)
	fill(&c.FirstStamp, FirstStampDefault)
	fill(&c.GarbageObjects, garbageObjects)
	fill(&c.GarbageBytes, garbageBytes)
	fill(&c.RecoveriesMax, recoveriesMax)
	t := &c.Timeouts
	fill(&t.Boot, 5*time.Second)
	fill(&t.Control, time.Second)
	fill(&t.Halt, 100*time.Millisecond)
	fill(&t.Retire, time.Second)
	fill(&t.Hang, 10*time.Second)
	fill(&t.Start, 2*time.Second)
	fill(&t.Heartbeat, time.Second)
	fill(&t.Poll, 50*time.Millisecond)
	t.Poll = max(min(t.Poll, c.Slice/looksPerSlice), pollMin)
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	for _, check := range []struct {
		bad    bool
		reason string
	}{
		{c.Arena == nil || c.Ports.Registers == nil || c.Ports.Doorbell == nil || c.Ports.Interrupt == nil || c.Clock == nil, "no hardware"},
		{c.Slice < SliceMin || c.Slice > SliceMax, fmt.Sprintf("slice of %s, want %s to %s", c.Slice, SliceMin, SliceMax)},
		{c.Credits > creditsMax, fmt.Sprintf("%d credits, at most %d", c.Credits, creditsMax)},
		{c.Depth > DepthMax, fmt.Sprintf("%d commands in a ring, at most %d", c.Depth, DepthMax)},
		{c.EntitiesMax > entitiesMax, fmt.Sprintf("%d entities, at most %d", c.EntitiesMax, entitiesMax)},
		{c.EventSlots > abi.Slots || c.VMSlots > VMSlotsMax, fmt.Sprintf("%d event slots and %d VM slots, there are %d and %d", c.EventSlots, c.VMSlots, abi.Slots, VMSlotsMax)},
		{c.FirstStamp%abi.StampStep != 0, fmt.Sprintf("first stamp %#x is no multiple of %#x", c.FirstStamp, abi.StampStep)},
		{c.RecoveriesMax < 0, fmt.Sprintf("%d recoveries", c.RecoveriesMax)},
	} {
		if check.bad {
			return c, fmt.Errorf("configure agx driver: %s: %w", check.reason, core.ErrInvalid)
		}
	}
	return c, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
