package fw

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// Firmware is one emulated AGX coprocessor with its GPU. All methods but Wake
// and those documented otherwise belong to the goroutine that calls Step.
type Firmware struct {
	cfg   Config
	abi   *abi.ABI
	phase phase
	boot  boot

	inbox, outbox *hw.FIFO
	out           []abi.Message
	host          surroundings
	cache         cache

	// initialized: the first device-control message came; kicked: a doorbell
	// rang since the rings were looked at.
	initialized, kicked bool
	queues              map[abi.VA]*workQueue
	order               []*workQueue // in the order they came
	notifiers           map[abi.VA]*notifier
	contexts            contexts
	running             []*command
	// given are executions that were left behind and may still end.
	given   []*run
	serial  uint64
	events  [][]byte // what stalls for room
	halt    halt
	power   power
	spaces  spaces
	kernels order.Kernels

	injected injected
	// steps is the shell: what happens later, and when there is something to do.
	steps     *hw.Stepper
	counters  Counters
	crashText string
}

const (
	// poll is how often the firmware looks at memory that the host changes
	// without a word: a full ring, the resume word, pending_submissions.
	poll = time.Millisecond
	// never is later than every moment.
	never = hw.Never
)

// New makes a coprocessor that is off: it does nothing before the host sets RUN
// and the first Step. Errors wrap ErrInvalid or abi.ErrVersion.
func New(cfg Config) (*Firmware, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	f := &Firmware{cfg: cfg, steps: hw.NewStepper(cfg.Clock)}
	if f.abi, err = abi.For(cfg.Version); err != nil {
		return nil, err
	}
	if f.inbox, err = hw.NewFIFO(cfg.Ports.Registers, abi.RegInboxFIFO, abi.MailboxSlots); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if f.outbox, err = hw.NewFIFO(cfg.Ports.Registers, abi.RegOutboxFIFO, abi.MailboxSlots); err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	f.forget()
	cfg.Ports.Registers.Store(abi.RegCPUStatus, abi.CPUStopped)
	return f, nil
}

// forget makes everything as it is before a boot.
func (f *Firmware) forget() {
	f.spaces.forget(f.cfg.Engine)
	f.boot, f.host, f.cache, f.halt, f.injected, f.contexts = boot{}, surroundings{}, cache{}, halt{}, injected{}, contexts{}
	f.power = power{earlyUntil: never}
	f.out, f.order, f.events = nil, nil, nil
	f.steps.Cancel()
	f.queues, f.notifiers = map[abi.VA]*workQueue{}, map[abi.VA]*notifier{}
	f.initialized, f.kicked = false, false
	f.setFault(0)
}

// Wake delivers a value when Step has something to do without a doorbell: an
// execution ended or a timer fell due. May be read from any goroutine.
func (f *Firmware) Wake() <-chan struct{} { return f.steps.Wake() }

// Counters returns a copy of the counters.
func (f *Firmware) Counters() Counters { return f.counters }

// Dead reports whether the firmware crashed: only a new one helps.
func (f *Firmware) Dead() bool { return f.phase == phaseCrashed }

// CrashText is what the firmware said when it crashed.
func (f *Firmware) CrashText() string { return f.crashText }

// Step does everything that is ready: mailbox, rings, ended executions,
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
	worked := f.reap()
	if f.phase == phaseCrashed {
		return f.send() || worked
	}
	if worked = f.takeRun() || worked; f.phase == phaseOff {
		return worked
	}
	worked = f.send() || worked
	if len(f.out) > 0 {
		return worked // A full mailbox blocks its sender.
	}
	worked = f.takeMailbox() || worked
	worked = f.expire() || worked
	if f.phase != phaseReady {
		return worked
	}
	worked = f.flushEvents() || worked
	if f.halt.active {
		return f.takeHalt() || worked
	}
	worked = f.finishEnded() || worked
	worked = f.takeRings() || worked
	worked = f.schedule() || worked
	worked = f.watch() || worked
	return f.takePower() || worked
}

// deadline returns when something falls due next.
func (f *Firmware) deadline() time.Duration {
	now := f.cfg.Clock.Now()
	if f.phase == phaseCrashed && len(f.out) > 0 {
		return now + poll
	}
	if f.phase == phaseCrashed || f.phase == phaseOff {
		return never
	}
	at := never
	if len(f.out) > 0 || len(f.events) > 0 {
		at = now + poll
	}
	at = min(at, f.steps.Due())
	if f.halt.active {
		return min(at, f.halt.deadline(now))
	}
	for _, c := range f.running {
		at = min(at, c.watchAt, c.sampleAt, c.storeBy)
	}
	if f.phase == phaseReady {
		at = min(at, f.power.deadline)
	}
	return at
}

// after arranges for do to be called in a Step, d from now; what is due at the
// same moment keeps its order.
func (f *Firmware) after(d time.Duration, do func()) { f.steps.After(f.cfg.Clock.Now(), d, do) }

// expire does what fell due and reports whether anything did.
func (f *Firmware) expire() bool {
	now := f.cfg.Clock.Now()
	worked := false
	for f.injected.doom == nil && f.steps.Expire(now) {
		worked = true
	}
	return worked
}

// Run steps the firmware in real time until ctx ends; it then takes everything
// off the engine and returns nil, or hw.ErrRunning when an execution did not end
// within the watchdog's time (at least a second; at once when the firmware has
// crashed). Nobody else may call Step meanwhile.
func (f *Firmware) Run(ctx context.Context) error {
	f.steps.Run(ctx, f.cfg.Ports.Doorbell, f.Step)
	return f.shutdown()
}

// shutdown ends all executions and waits for them, within a bound.
func (f *Firmware) shutdown() error {
	wait := max(f.cfg.Watchdog, time.Second)
	if f.phase == phaseCrashed {
		wait = 0 // What still runs has had its time.
	}
	f.abandon()
	f.phase = phaseCrashed
	return f.steps.Drain(wait, func() bool {
		f.reap()
		return len(f.given) == 0
	})
}

// abandon leaves everything that runs behind.
func (f *Firmware) abandon() {
	for _, c := range slices.Concat(f.running, f.halt.dead) {
		f.leave(c)
	}
	f.running, f.halt = nil, halt{}
}

// leave takes a command's execution off it, asking it to end.
func (f *Firmware) leave(c *command) {
	if c.run == nil || c.run.exec == nil {
		return
	}
	c.run.stop(true)
	if !c.run.ended.Load() {
		f.given = append(f.given, c.run)
	} else {
		f.spaces.release(f.cfg.Engine, c.run.space)
	}
	c.run = nil
}

// reap forgets executions that were left behind and have ended.
func (f *Firmware) reap() bool {
	before := len(f.given)
	f.given = slices.DeleteFunc(f.given, func(r *run) bool {
		ended := r.ended.Load()
		if ended {
			f.spaces.release(f.cfg.Engine, r.space)
		}
		return ended
	})
	return len(f.given) != before
}

// lazy is an object whose text is made when somebody reads it; it does not change any more.
type lazy struct {
	abi *abi.ABI
	o   abi.Object
}

// String implements fmt.Stringer.
func (l lazy) String() string { return l.abi.Text(l.o) }

// sayBytes traces a ring's entry.
func (f *Firmware) sayBytes(kind string, entry []byte, text func([]byte) string) {
	if f.cfg.Trace != nil {
		entry = bytes.Clone(entry)
		f.cfg.Trace.Add(f.cfg.Clock.Now(), kind, func([]uint32) string { return text(entry) })
	}
}

// say traces something; the text is made when somebody reads it.
func (f *Firmware) say(kind, format string, args ...any) {
	if f.cfg.Trace != nil {
		f.cfg.Trace.Add(f.cfg.Clock.Now(), kind, func([]uint32) string { return fmt.Sprintf(format, args...) })
	}
}
