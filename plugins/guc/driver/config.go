package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/hashicorp/go-hclog"
)

// Config is what a driver gets at construction.
type Config struct {
	// Arena is the device's memory. GGTT addresses are device addresses.
	Arena *hw.Arena
	Ports hw.Ports
	Clock hw.Clock
	// Log carries the device's name already.
	Log hclog.Logger
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

	// Credits is the room of an entity's ring in jobs, 1 to CreditsMax; default 64.
	Credits uint32
	// EntitiesMax bounds the entities at once, 1 to abi.GUCIDMax (the default).
	EntitiesMax uint32
	// Instances counts the compute engine instances, 1 (the default) to
	// InstancesMax; any of them may execute a context.
	Instances int
	// Quantum and Preemption are the execution quantum (default 1 ms) and the
	// preemption timeout (default 640 ms) of every context, 1 µs to 100 s.
	Quantum, Preemption time.Duration
	// MinRun is how long a context that was enabled runs before a suspend takes it
	// off; 5 ms by default, negative means not at all.
	MinRun time.Duration
	// RuntimeIdle is how long nothing may have happened before the device goes to
	// D3hot; 1 s by default, negative means never.
	RuntimeIdle time.Duration
	// NoEngineResets keeps the firmware from resetting an engine whose context does
	// not leave in time (Xe's wedged mode 2); the GT is reset then.
	NoEngineResets bool
	// ResetsMax is how many GT resets may follow each other without a job that ends between
	// them before the device is given up; 3 by default.
	ResetsMax int
	Timeouts  Timeouts
}

// Timeouts bound the waits for the firmware. Zero fields get the vendor's values.
type Timeouts struct {
	// Mailbox bounds one MMIO reply; MailboxBusy what follows a BUSY. 50 ms and 2 s.
	Mailbox, MailboxBusy time.Duration
	// Reply bounds the reply to a blocking request, and Stall the wait for room in a CTB. 1 s each.
	Reply, Stall time.Duration
	// Ack bounds MODE_DONE and DEREGISTER_DONE. 5 s.
	Ack time.Duration
	// Load bounds a reset of the hardware and then a load of the firmware. 2 s each.
	Load time.Duration
	// Hang is how long a job may execute without one more workgroup done; 5 s, Xe's job timeout.
	Hang time.Duration
	// Start is how long a job that could execute may take to begin before the
	// firmware is told of it again; after the third time the GT is reset. 5 s.
	Start time.Duration
	// Heartbeat is how long the firmware may show no sign of life while
	// something is to be done, before it is asked for one. 1 s.
	Heartbeat time.Duration
	// Poll is the period in which unfinished jobs are looked at although no
	// interrupt came: a start raises none. 50 ms.
	Poll time.Duration
}

const (
	creditsDefault = 64
	// CreditsMax is the largest ring in jobs: it keeps all programs of a ring within RingSize, the end not touching the start.
	CreditsMax = abi.RingDwords/abi.JobDwords - 1
	// InstancesMax is how many instances of a class Xe knows.
	InstancesMax      = 9
	quantumDefault    = time.Millisecond
	preemptionDefault = 640 * time.Millisecond
	quantumMax        = abi.PolicyMaxUS * time.Microsecond
	// minRunDefault is Xe's for address spaces with preemption fences, runtimeIdleDefault its autosuspend.
	minRunDefault      = 5 * time.Millisecond
	runtimeIdleDefault = time.Second
	resetsMaxDefault   = 3
)

// withDefaults fills what is zero and checks the rest; errors wrap core.ErrInvalid.
func (c Config) withDefaults() (Config, error) {
	fill(&c.Credits, creditsDefault)
	fill(&c.EntitiesMax, abi.GUCIDMax)
	fill(&c.Instances, 1)
	fill(&c.Quantum, quantumDefault)
	fill(&c.Preemption, preemptionDefault)
	t := &c.Timeouts
	fill(&t.Mailbox, 50*time.Millisecond)
	fill(&t.MailboxBusy, 2*time.Second)
	fill(&t.Reply, time.Second)
	fill(&t.Stall, time.Second)
	fill(&t.Ack, 5*time.Second)
	fill(&t.Load, 2*time.Second)
	fill(&t.Hang, 5*time.Second)
	fill(&t.Start, 5*time.Second)
	fill(&t.Heartbeat, time.Second)
	fill(&t.Poll, 50*time.Millisecond)
	fill(&c.MinRun, minRunDefault)
	fill(&c.RuntimeIdle, runtimeIdleDefault)
	fill(&c.ResetsMax, resetsMaxDefault)
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	switch {
	case c.Arena == nil || c.Ports.Registers == nil || c.Ports.Doorbell == nil || c.Ports.Interrupt == nil || c.Clock == nil:
		return c, fmt.Errorf("configure guc driver: no hardware: %w", core.ErrInvalid)
	case c.Credits > CreditsMax:
		return c, fmt.Errorf("configure guc driver: %d credits, at most %d: %w", c.Credits, CreditsMax, core.ErrInvalid)
	case c.Instances < 1 || c.Instances > InstancesMax:
		return c, fmt.Errorf("configure guc driver: %d instances, want 1 to %d: %w", c.Instances, InstancesMax, core.ErrInvalid)
	case c.EntitiesMax > abi.GUCIDMax:
		return c, fmt.Errorf("configure guc driver: %d entities, at most %d: %w", c.EntitiesMax, abi.GUCIDMax, core.ErrInvalid)
	case c.ResetsMax < 0:
		return c, fmt.Errorf("configure guc driver: %d GT resets: %w", c.ResetsMax, core.ErrInvalid)
	case outside(c.Quantum) || outside(c.Preemption):
		return c, fmt.Errorf("configure guc driver: quantum %s, preemption timeout %s, want 1µs to %s: %w",
			c.Quantum, c.Preemption, quantumMax, core.ErrInvalid)
	}
	return c, nil
}

func outside(d time.Duration) bool { return d < time.Microsecond || d > quantumMax }

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
