package fw

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// ErrRunning is returned when an execution is still on the engine: its kernel
// may go on writing to memory, so the arena must not be unmapped.
var ErrRunning = errors.New("an execution did not end")

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
	kernels kernelCache
	l2      []dirty

	// syncs counts sync objects written by the device; blocked waits look when it moved.
	syncs uint64
	chaos *rand.Rand

	// at is the time of the present Step: it stands still in it.
	at    time.Duration
	later []delayed
	wake  hw.Line
	timer hw.Timer
	// timerAt is when the timer is due, soonest what the last pass wants.
	timerAt    time.Duration
	counters   Counters
	violations []string
}

// delayed is something that happens at a moment.
type delayed struct {
	at time.Duration
	do func()
}

// never is later than every moment.
const never = time.Duration(1<<63 - 1)

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
	f := &Firmware{cfg: cfg, wake: hw.NewLine(), timerAt: never, layout: layoutOf(cfg.Identity)}
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
func (f *Firmware) Wake() <-chan struct{} { return f.wake.C() }

// Counters returns a copy of the counters.
func (f *Firmware) Counters() Counters { return f.counters }

// Step does everything that is ready: registers, requests, ended executions,
// instructions that are due, deadlines, placement of work. It returns without
// waiting. When more than a bounded amount was ready it raises Wake and leaves the
// rest to the next call.
func (f *Firmware) Step() {
	f.at = f.cfg.Clock.Now()
	now := f.at
	if now >= f.timerAt {
		f.timer, f.timerAt = nil, never
	}
	f.stamp(now)
	for pass := 0; ; pass++ {
		if pass == passesMax {
			f.wake.Raise()
			break
		}
		if !f.pass() {
			break
		}
	}
	f.inspect()
	f.line()
	f.arm()
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

// arm sets one timer for the earliest deadline.
func (f *Firmware) arm() {
	at := f.deadline()
	if at == f.timerAt {
		return
	}
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.timerAt = at
	if at != never {
		f.timer = f.cfg.Clock.AfterFunc(at-f.cfg.Clock.Now(), f.wake.Raise)
	}
}

// deadline returns when something falls due next.
func (f *Firmware) deadline() time.Duration {
	at := never
	if len(f.later) > 0 {
		at = f.later[0].at
	}
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
func (f *Firmware) after(d time.Duration, do func()) {
	f.arrange(delayed{at: f.now() + d, do: do})
}

func (f *Firmware) arrange(d delayed) {
	i := len(f.later)
	for i > 0 && f.later[i-1].at > d.at {
		i--
	}
	f.later = slices.Insert(f.later, i, d)
}

// expire does what fell due and reports whether anything did.
func (f *Firmware) expire() bool {
	now, worked := f.now(), false
	for len(f.later) > 0 && f.later[0].at <= now {
		do := f.later[0].do
		f.later = f.later[1:]
		do()
		worked = true
	}
	return worked
}

// Run steps the device in real time until ctx ends; it then takes everything
// off the engine and returns nil, or ErrRunning when an execution did not end
// within ResetGrace. Nobody else may call Step meanwhile.
func (f *Firmware) Run(ctx context.Context) error {
	for {
		f.Step()
		select {
		case <-ctx.Done():
			return f.shutdown()
		case <-f.cfg.Ports.Doorbell.C():
		case <-f.wake.C():
		}
	}
}

// shutdown ends all executions and waits for them, within a bound.
func (f *Firmware) shutdown() error {
	f.drop()
	late := make(chan struct{})
	bound := f.cfg.Clock.AfterFunc(f.cfg.ResetGrace, func() { close(late) })
	defer bound.Stop()
	if f.timer != nil {
		f.timer.Stop()
	}
	for {
		f.finishEnded()
		if len(f.runs) == 0 {
			return nil
		}
		select {
		case <-f.wake.C():
		case <-late:
			return ErrRunning
		}
	}
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
