package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/arbiter"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/hashicorp/go-hclog"
)

// Config is what a driver gets at construction.
type Config struct {
	Arena *hw.Arena
	Ports hw.Ports
	Clock hw.Clock
	// Firmware is the image that the MCU runs (abi.DecodeImage).
	Firmware []byte
	// Log carries the device's name already.
	Log hclog.Logger
	// Name, Engine and Formats are what Describe says; jobs take their kernel
	// in the first of Formats that they have and that is loaded.
	Name, Engine string
	Formats      []string
	// Failed is called once, from the driver's goroutine, when the device is lost.
	Failed func(error)
	// Pump, when set, is called again and again by whoever waits, in place of a
	// goroutine. False means that nothing can happen any more.
	Pump func() bool

	// Credits is the room of an entity's ring in jobs, 1 to CreditsMax; default 64.
	Credits uint32
	// EntitiesMax bounds the entities at once; default 65,535.
	EntitiesMax uint32
	// Tick is the period in which slots change hands while somebody waits; 10 ms.
	Tick time.Duration
	// MinRun is how long a group keeps a slot before another one may take it; by
	// default, and at most, a tick. Negative means not at all.
	MinRun time.Duration
	// RuntimeIdle is how long nothing may have happened before the GPU is powered
	// off; 50 ms by default, negative means never.
	RuntimeIdle time.Duration
	// ResetsMax is how many resets may follow each other without a job that ends
	// between them before the device is given up; 3 by default.
	ResetsMax int
	Timeouts  Timeouts
}

// Timeouts bound the waits for the hardware. Zero fields get panthor's values.
type Timeouts struct {
	// Ack bounds the acknowledgement of a request to a CSG or to the global interface; 100 ms.
	Ack time.Duration
	// Leave bounds the same in a reset, when who does not leave has had its time already; Ack unless set.
	Leave time.Duration
	// Kill bounds the acknowledgement of TERMINATE by a group whose job did not come on in time; Ack unless set.
	Kill time.Duration
	// Boot bounds the first interrupt of the MCU, 1 s; Halt its halt, 100 ms.
	Boot, Halt time.Duration
	// Reset bounds a soft reset, Flush a cache flush, Space a command of an address space; 100 ms each.
	Reset, Flush, Space time.Duration
	// Power bounds the power-up of the L2; 20 ms.
	Power time.Duration
	// Ping is how often the firmware is asked for a sign of life; 12 s.
	Ping time.Duration
	// Hang is how long a job may be on an endpoint, and a stream of a group may stand, without progress; 5 s.
	Hang time.Duration
	// Start is how long the first job of a resident group may take to begin before its
	// doorbell is rung again; after the third time the GPU is reset. 5 s.
	Start time.Duration
	// Poll is the period in which residents and blocked groups are looked at
	// although no interrupt came: a start, and a store to a sync object by the host, raise none. 50 ms.
	Poll time.Duration
}

const (
	creditsDefault     = 64
	entitiesDefault    = 1<<16 - 1
	tickDefault        = 10 * time.Millisecond
	runtimeIdleDefault = 50 * time.Millisecond
	resetsMaxDefault   = 3
	// suspendMinRun is the most of MinRun that a suspend waits.
	suspendMinRun = 5 * time.Millisecond
	// jobBytes is the room of one job in a ring, without profiling.
	jobBytes = 2 * abi.JobAlignInstructions * abi.InstructionSize
	// CreditsMax leaves half of the largest ring free: a job that is done may not have left it.
	CreditsMax = int(abi.RingSizeMax) / jobBytes / 2
	// slotsMax is panthor's: each resident group has a priority of its own, and there are 16.
	slotsMax = abi.PriorityMax + 1
)

// withDefaults fills what is zero and checks the rest; errors wrap core.ErrInvalid.
func (c Config) withDefaults() (Config, error) {
	fill(&c.Credits, creditsDefault)
	fill(&c.EntitiesMax, entitiesDefault)
	fill(&c.Tick, tickDefault)
	fill(&c.MinRun, c.Tick)
	c.MinRun = min(max(c.MinRun, 0), c.Tick)
	fill(&c.RuntimeIdle, runtimeIdleDefault)
	fill(&c.ResetsMax, resetsMaxDefault)
	t := &c.Timeouts
	for _, field := range []*time.Duration{&t.Ack, &t.Halt, &t.Reset, &t.Flush, &t.Space} {
		fill(field, 100*time.Millisecond)
	}
	fill(&t.Leave, t.Ack)
	fill(&t.Kill, t.Ack)
	fill(&t.Boot, time.Second)
	fill(&t.Power, 20*time.Millisecond)
	fill(&t.Ping, 12*time.Second)
	fill(&t.Hang, 5*time.Second)
	fill(&t.Start, 5*time.Second)
	fill(&t.Poll, 50*time.Millisecond)
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	switch {
	case c.Arena == nil || c.Ports.Registers == nil || c.Ports.Doorbell == nil || c.Ports.Interrupt == nil || c.Clock == nil:
		return c, fmt.Errorf("configure mali driver: no hardware: %w", core.ErrInvalid)
	case c.Credits > uint32(CreditsMax):
		return c, fmt.Errorf("configure mali driver: %d credits, at most %d: %w", c.Credits, CreditsMax, core.ErrInvalid)
	case c.ResetsMax < 0:
		return c, fmt.Errorf("configure mali driver: %d resets: %w", c.ResetsMax, core.ErrInvalid)
	case c.Tick < time.Microsecond || c.Tick > arbiter.QuantumMax:
		return c, fmt.Errorf("configure mali driver: tick %s, want 1µs to %s: %w", c.Tick, arbiter.QuantumMax, core.ErrInvalid)
	}
	return c, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
