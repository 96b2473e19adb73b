package fw

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// Firmware is one emulated device: MCU with its firmware, MMU, streams and
// endpoints. All methods but Wake and Run belong to the goroutine that calls Step.
type Firmware struct {
	cfg Config
	mcu mcu
	gpu gpuState
	as  [abi.ASMax]addressSpace

	layout layout
	glb    global
	groups []*group

	// runs are the executions on the engine, those whose stream is gone included.
	runs    []*run
	orders  uint64
	spaces  uint64
	kernels order.Kernels
	l2      []dirty

	// syncs counts sync objects written by the device; blocked waits look when it moved.
	syncs uint64
	chaos *rand.Rand

	// at is the time of the present Step: it stands still in it.
	at time.Duration
	// steps is the shell: what happens later, and when there is something to do.
	steps *hw.Stepper

	counters   Counters
	violations []string
}

// never is later than every moment.
const never = hw.Never

// New makes a device that has just got power: its MCU is off. It does nothing
// before the first Step. It gives the registers of cfg.Ports the rules of the
// bus (see Bus). Errors wrap ErrInvalid.
func New(cfg Config) (*Firmware, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	if err := Bus(cfg.Ports.Registers); err != nil {
		return nil, err
	}
	f := &Firmware{cfg: cfg, steps: hw.NewStepper(cfg.Clock), layout: layoutOf(cfg.Identity)}
	if cfg.Seed != 0 {
		f.chaos = rand.New(rand.NewPCG(cfg.Seed, 0))
	}
	f.resetRegisters()
	return f, nil
}

// Bus gives a register file the rules of this device's bus. New does it; a host
// that lives in another process does it too.
func Bus(r *hw.Registers) error {
	r.Interrupts(abi.RegInterrupts[:]...).Commands(abi.RegCommands[:]...)
	return r.Row(abi.DoorbellRow[0], abi.DoorbellRow[1], abi.DoorbellRow[2])
}

// Wake delivers a value when Step has something to do without a doorbell: an
// execution ended or a timer fell due. May be read from any goroutine.
func (f *Firmware) Wake() <-chan struct{} { return f.steps.Wake() }

// Counters returns a copy of the counters.
func (f *Firmware) Counters() Counters { return f.counters }

// Step does everything that is ready: registers, requests, ended executions,
// instructions that are due, deadlines, placement of work. It returns without
// waiting. When more than a bounded amount was ready it raises Wake and leaves the
// rest to the next call.
func (f *Firmware) Step() {
	f.at = f.cfg.Clock.Now()
	f.stamp(f.at)
	f.steps.Step(f.at, passesMax, f.pass)
	f.inspect()
	f.line()
	f.steps.Arm(f.deadline())
}

// pass does one round and reports whether anything happened.
func (f *Firmware) pass() bool {
	worked := f.takeCommands()
	worked = f.finishEnded() || worked
	worked = f.expire() || worked
	worked = f.expireReset() || worked
	if f.mcu.status != abi.MCUEnabled || f.mcu.frozen {
		return worked
	}
	worked = f.takeDoorbells() || worked
	worked = f.runStreams() || worked
	worked = f.leave() || worked
	worked = f.place() || worked
	worked = f.watch() || worked
	return f.finishHalt() || worked
}

// deadline returns when something falls due next.
func (f *Firmware) deadline() time.Duration {
	at := f.steps.Due()
	if f.gpu.resetting {
		at = f.sooner(at, f.gpu.resetBy)
	}
	if f.mcu.status != abi.MCUEnabled || f.mcu.frozen {
		return at
	}
	if f.mcu.halting {
		return at
	}
	at = f.sooner(at, f.glb.idleAt)
	for _, g := range f.groups {
		at = min(at, g.deadline())
	}
	for _, r := range f.runs {
		at = f.sooner(at, r.sampleAt, r.rotateAt)
	}
	return at
}

// now is the time of the present Step.
func (f *Firmware) now() time.Duration { return f.at }

// sooner returns the earlier of at and those moments that are still to come: what
// was due in this Step has been done, or waits for something else.
func (f *Firmware) sooner(at time.Duration, moments ...time.Duration) time.Duration {
	for _, m := range moments {
		if m > f.at {
			at = min(at, m)
		}
	}
	return at
}

// after arranges for do to be called in a Step, d from now; what is due at the
// same moment keeps its order. A reset forgets it.
func (f *Firmware) after(d time.Duration, do func()) { f.steps.After(f.now(), d, do) }

// expire does what fell due and reports whether anything did.
func (f *Firmware) expire() bool {
	worked := false
	for f.steps.Expire(f.now()) {
		worked = true
	}
	return worked
}

// Run steps the device in real time until ctx ends; it then takes everything
// off the engine and returns nil, or hw.ErrRunning when an execution did not end
// within ResetGrace. Nobody else may call Step meanwhile.
func (f *Firmware) Run(ctx context.Context) error {
	f.steps.Run(ctx, f.cfg.Ports.Doorbell, f.Step)
	return f.shutdown()
}

// shutdown ends all executions and waits for them, within a bound.
func (f *Firmware) shutdown() error {
	f.drop()
	return f.steps.Drain(f.cfg.ResetGrace, func() bool {
		f.finishEnded()
		return len(f.runs) == 0
	})
}

// note traces something.
func (f *Firmware) note(kind string, decode func([]uint32) string, words ...uint32) {
	f.cfg.Trace.Add(f.now(), kind, decode, words...)
}

// say traces a text that is ready.
func (f *Firmware) say(kind, text string) {
	if f.cfg.Trace != nil {
		f.note(kind, func([]uint32) string { return text })
	}
}
