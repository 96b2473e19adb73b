package fw

import (
	"context"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// Firmware is one emulated GuC with its engines. All methods but Wake and
// those documented otherwise belong to the goroutine that calls Step.
type Firmware struct {
	cfg   Config
	phase phase
	life  life
	// drained is what follows when the engines are empty.
	drained func()

	mailbox mailbox
	ct      channel
	// steps is the shell: what happens later, and when there is something to do.
	steps *hw.Stepper
	// dones counts what happens later to answer a deregistration or an invalidation.
	dones    int
	function guestFunction
	// h2gAt is when the next H2G message may be taken.
	h2gAt time.Duration

	contexts map[abi.GUCID]*guContext
	classes  []*engineClass
	spaces   uint64
	kernels  order.Kernels
	injected injected
	// noEngineReset is the global flag: a context that will not preempt stays.
	noEngineReset bool
	// extendedCat says that the host opted in to the type of CAT errors.
	extendedCat bool

	counters Counters
}

// flushRetry is how often a full G2H ring is looked at: the host does not
// notify when it has read.
const flushRetry = time.Millisecond

// never is later than every moment.
const never = hw.Never

// New makes a firmware that has just been loaded: it knows no context and
// answers the mailbox, also what the host wrote there before. It does nothing
// before the first Step. Errors wrap ErrInvalid.
func New(cfg Config) (*Firmware, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	f := &Firmware{cfg: cfg, steps: hw.NewStepper(cfg.Clock), contexts: map[abi.GUCID]*guContext{}}
	for class, count := range cfg.Classes {
		f.classes = append(f.classes, newEngineClass(class, count))
	}
	slices.SortFunc(f.classes, func(a, b *engineClass) int { return int(a.class) - int(b.class) })
	cfg.Ports.Registers.Store(abi.RegPowerState, uint32(abi.PowerD0))
	cfg.Ports.Registers.Store(abi.RegStatus, abi.EncodeLoadStatus(abi.LoadReady))
	return f, nil
}

// Wake delivers a value when Step has something to do without a doorbell: an
// execution ended or a timer fell due. May be read from any goroutine.
func (f *Firmware) Wake() <-chan struct{} { return f.steps.Wake() }

// Counters returns a copy of the counters.
func (f *Firmware) Counters() Counters { return f.counters }

// Dead reports whether the firmware has stopped for good (engine failure or
// crash), so that only Reload or a new process helps.
func (f *Firmware) Dead() bool { return f.phase == phaseDead }

// Step does everything that is ready: mailbox, H2G messages, ended executions,
// deadlines, choice of what runs. It returns without waiting. When more than a
// bounded amount was ready it raises Wake and leaves the rest to the next call.
func (f *Firmware) Step() {
	f.steps.Step(f.cfg.Clock.Now(), passesMax, f.pass)
	f.steps.Arm(f.deadline())
}

// pass does one round and reports whether anything happened.
func (f *Firmware) pass() bool {
	if f.takeDoom() {
		return true
	}
	worked := f.takeRegisters()
	if f.life.power == abi.PowerD3Hot {
		return worked
	}
	worked = f.flush() || worked
	if f.phase == phaseDead {
		return f.reap() || worked
	}
	worked = f.finishEnded() || worked
	switch f.phase {
	case phaseDraining:
		worked = f.expire() || worked
		worked = f.expireReset() || worked
		return f.finishDrain() || f.takeMailbox() || worked
	case phaseUnloaded, phaseOff:
		return f.expire() || worked
	}
	worked = f.takeMailbox() || worked
	worked = f.takeH2G() || worked
	worked = f.expire() || worked
	worked = f.takeFunction() || worked
	return f.schedule() || worked
}

// deadline returns when something falls due next.
func (f *Firmware) deadline() time.Duration {
	at := never
	if f.life.power == abi.PowerD3Hot {
		return at
	}
	if f.ct.open && len(f.ct.queue) > 0 {
		at = f.cfg.Clock.Now() + flushRetry
	}
	if f.phase == phaseDead {
		return at
	}
	if f.life.resetting {
		at = min(at, f.life.resetBy)
	}
	at = min(at, f.steps.Due())
	if f.ct.open && f.h2gAt > f.cfg.Clock.Now() {
		at = min(at, f.h2gAt)
	}
	at = min(at, f.promoteAt())
	for _, c := range f.classes {
		for _, in := range c.instances {
			at = min(at, f.instanceDeadline(c, in))
		}
	}
	return at
}

// after arranges for do to be called in a Step, d from now; what is due at the
// same moment keeps its order.
func (f *Firmware) after(d time.Duration, do func()) { f.steps.After(f.cfg.Clock.Now(), d, do) }

// cancel forgets what was arranged with after.
func (f *Firmware) cancel() {
	f.steps.Cancel()
	f.dones = 0
}

// expire does what fell due and reports whether anything did.
func (f *Firmware) expire() bool {
	now := f.cfg.Clock.Now()
	worked := false
	for f.injected.doom == nil && f.steps.Expire(now) {
		worked = true
	}
	for _, c := range f.classes {
		for _, in := range c.instances {
			if f.phase == phaseDead || f.injected.doom != nil {
				return true
			}
			worked = f.expireInstance(in, now) || worked
		}
	}
	return worked
}

// Run steps the firmware in real time until ctx ends; it then takes everything
// off the engines and returns nil, or hw.ErrRunning when an execution did not end
// within the preemption floor (at least a second; at once when the firmware was
// dead before). Nobody else may call Step meanwhile.
func (f *Firmware) Run(ctx context.Context) error {
	f.steps.Run(ctx, f.cfg.Ports.Doorbell, f.Step)
	return f.shutdown()
}

// shutdown ends all executions and waits for them, within a bound.
func (f *Firmware) shutdown() error {
	f.stopAll(true)
	wait := max(f.cfg.PreemptionMin, time.Second)
	if f.phase == phaseDead {
		wait = 0 // What still runs has had its time.
	}
	f.phase = phaseDead
	return f.steps.Drain(wait, func() bool {
		f.reap()
		return f.quiet()
	})
}

// note traces something.
func (f *Firmware) note(kind string, decode func([]uint32) string, words ...uint32) {
	f.cfg.Trace.Add(f.cfg.Clock.Now(), kind, decode, words...)
}

// forgetContexts empties the context table and the queues.
func (f *Firmware) forgetContexts() {
	for _, c := range f.classes {
		c.clear()
	}
	spaces := make([]uint64, 0, len(f.contexts))
	for _, g := range f.contexts {
		f.counters.ModesForgotten += uint64(g.disables)
		if g.space != 0 {
			spaces = append(spaces, g.space)
		}
	}
	slices.Sort(spaces)
	for _, s := range spaces {
		f.cfg.Engine.Forget(s)
	}
	clear(f.contexts)
}
