package sched

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Limits and periods that a zero Config takes.
const (
	DefaultCredits   = 64
	DefaultQueueMax  = 1000
	DefaultReplayMax = 30 * time.Second
	// DefaultAnswer is above the 70 s that a command before it may take (see
	// DefaultSilence) and the 115 s, with 10 s of grace, that a backend may take at
	// most to get an entity off the hardware (sdk.LeaveBounder): 195 s, so that the
	// backend's own word comes first.
	DefaultAnswer        = 200 * time.Second
	DefaultFaultsMax     = 3
	DefaultLossesMax     = 8
	DefaultSaveTries     = 3
	DefaultReplayJobsMax = 10000
	DefaultRetry         = time.Second
	DefaultMinRun        = 5 * time.Millisecond
	// DefaultSilence is above the 70 s for which a backend may carry out a command of
	// an entity, which is not sampled meanwhile: a run waits 30 s for its kernel, and
	// takes 30 s with 10 s of grace.
	DefaultSilence       = 90 * time.Second
	DefaultExtensionsMax = 8
	DefaultMessagesMax   = 64
)

// Config holds the limits of a Core. Zero fields take the defaults above.
type Config struct {
	// Credits is the room of an entity's ring until a session says otherwise.
	Credits uint32
	// QueueMax bounds the jobs of an entity that have no outcome yet.
	QueueMax int
	// ReplayMax bounds, in compute mode, the executed time that a restore may
	// have to repeat before an image is taken.
	ReplayMax time.Duration
	// ReplayJobsMax bounds, in both modes, the jobs that a restore may have to repeat.
	ReplayJobsMax int
	// Answer bounds the wait for a backend to carry out a create, suspend,
	// resume, cancel or destroy; then the instance is restarted.
	Answer time.Duration
	// Preempt bounds the wait for an entity to leave the hardware; then the job
	// that executes is guilty of hanging, and the instance is restarted. Zero
	// means Answer.
	Preempt time.Duration
	// MinRun is how long an entity executes at least between two suspends,
	// unless it is closed. Negative means not at all.
	MinRun time.Duration
	// Silence bounds the time without any report of a job that executes; then
	// the instance is restarted, because a backend is to report.
	Silence time.Duration
	// ExtensionsMax bounds how often the timeout of one job may be extended.
	ExtensionsMax uint32
	// MessagesMax bounds the messages of the backend's own kinds that may wait
	// for one entity. Control needs no room: it is never queued.
	MessagesMax int
	// FaultsMax is how often an entity may be guilty with `on-failure: continue`
	// before it is banned.
	FaultsMax uint32
	// LossesMax bounds how often an innocent entity is restored without any
	// progress in between; then it is suspended.
	LossesMax int
	// SaveTries bounds the attempts to write one image; Retry is the pause
	// before the second, doubled each time, also between attempts to create.
	SaveTries int
	Retry     time.Duration
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.ReplayMax, DefaultReplayMax)
	def(&c.Answer, DefaultAnswer)
	def(&c.Retry, DefaultRetry)
	if c.Credits == 0 {
		c.Credits = DefaultCredits
	}
	def(&c.Preempt, c.Answer)
	def(&c.MinRun, DefaultMinRun)
	def(&c.Silence, DefaultSilence)
	if c.ExtensionsMax == 0 {
		c.ExtensionsMax = DefaultExtensionsMax
	}
	if c.MessagesMax == 0 {
		c.MessagesMax = DefaultMessagesMax
	}
	if c.ReplayJobsMax == 0 {
		c.ReplayJobsMax = DefaultReplayJobsMax
	}
	if c.QueueMax == 0 {
		c.QueueMax = DefaultQueueMax
	}
	if c.FaultsMax == 0 {
		c.FaultsMax = DefaultFaultsMax
	}
	if c.LossesMax == 0 {
		c.LossesMax = DefaultLossesMax
	}
	if c.SaveTries == 0 {
		c.SaveTries = DefaultSaveTries
	}
	return c
}

// Core holds the schedulers of one device.
type Core struct {
	config   Config
	entities map[core.EntityID]*entity
	order    []*entity // by arrival, for deterministic iteration
	waiters  map[core.Fence][]waiter
	signals  map[core.Fence]string // of other devices; "" is success
	timers   timers
	waves    map[uint64]*wave
	up       bool
	// restarting is set from EffectRestart to EventGone.
	restarting bool

	seq      uint64
	now      core.Instant
	out      *Batch
	touched  []*entity
	dirtyJob []*job
}

// New returns an empty Core whose device is down.
func New(config Config) *Core {
	return &Core{
		config:   config.withDefaults(),
		entities: make(map[core.EntityID]*entity),
		waiters:  make(map[core.Fence][]waiter),
		waves:    make(map[uint64]*wave),
		signals:  make(map[core.Fence]string),
	}
}

// Step takes one event and fills out with the answer. The error is about the
// event itself (a refused submit, an unknown entity); the batch is to be
// handled all the same. It does not allocate for the common events.
func (c *Core) Step(ev *Event, out *Batch) error {
	c.seq++
	out.reset(c.seq)
	c.out, c.now = out, ev.Now
	err := c.handle(ev)
	for i := 0; i < len(c.touched); i++ {
		e := c.touched[i]
		e.touched = false
		c.advance(e)
	}
	c.tellWaves()
	for _, e := range c.touched {
		if e.dirty {
			e.dirty = false
			out.Entities = append(out.Entities, e.state)
		}
		c.arm(e)
	}
	for _, j := range c.dirtyJob {
		if j.dirty {
			j.dirty = false
			out.Jobs = append(out.Jobs, j.state)
		}
	}
	clear(c.touched)
	clear(c.dirtyJob)
	c.touched, c.dirtyJob = c.touched[:0], c.dirtyJob[:0]
	c.out = nil
	return err
}

// Next returns when EventTick is due, 0 when no timer runs.
func (c *Core) Next() core.Instant { return c.timers.next() }

func (c *Core) handle(ev *Event) error {
	switch ev.Kind {
	case EventRestore:
		return c.restore(ev.Record)
	case EventUp:
		c.sessionUp(ev)
	case EventGone:
		c.instanceGone(ev.Usage)
	case EventBackend:
		c.backend(ev.Backend)
	case EventTick:
		c.tick()
	case EventSignal:
		c.foreignSignal(ev.Fence, ev.Error)
	case EventSubmit:
		return c.submit(ev)
	case EventPreempt:
		return c.preempt(ev)
	case EventRelease:
		c.releaseWave(ev.Waiter)
	case EventLimits:
		return c.limits(ev.Credits)
	case EventCancel, EventExtend, EventTimeout, EventFlush, EventGoal, EventProperties, EventMessage,
		EventStop, EventStart, EventForget, EventSaved, EventSaveFailed:
		e := c.entities[ev.Entity]
		if e == nil {
			return fmt.Errorf("entity %d: %w", ev.Entity, core.ErrNotFound)
		}
		return c.handleEntity(e, ev)
	default:
		return fmt.Errorf("event kind %d: %w", ev.Kind, core.ErrInvalid)
	}
	return nil
}

func (c *Core) handleEntity(e *entity, ev *Event) error {
	switch ev.Kind {
	case EventCancel:
		return c.cancel(e, ev.Job)
	case EventGoal:
		return c.goal(e, ev)
	case EventProperties:
		c.properties(e, ev)
	case EventTimeout:
		return c.retime(e, ev)
	case EventFlush:
		c.flush(e)
	case EventExtend:
		return c.extend(e, ev)
	case EventMessage:
		return c.message(e, ev)
	case EventStop:
		c.stopEntity(e)
	case EventStart:
		c.startEntity(e)
	case EventForget:
		return c.forget(e)
	case EventSaved:
		c.saved(e, ev)
	case EventSaveFailed:
		c.saveFailed(e, ev)
	}
	return nil
}

// touch has the entity looked at before Step returns.
func (c *Core) touch(e *entity) {
	if !e.touched {
		e.touched = true
		c.touched = append(c.touched, e)
	}
}

// record has the entity's state committed with this batch.
func (c *Core) record(e *entity) {
	e.dirty = true
	c.touch(e)
}

// recordJob has the job's state committed with this batch.
func (c *Core) recordJob(j *job) {
	if !j.dirty {
		j.dirty = true
		c.dirtyJob = append(c.dirtyJob, j)
	}
}

// command gives the command its place in the entity's order. The caller records
// the sequence number where a restart will find it.
func (c *Core) command(e *entity, cmd core.Command) core.CommandSeq {
	if !mutated("reuse-number") || e.state.Commands == 0 {
		e.state.Commands++
	}
	cmd.Entity, cmd.Epoch, cmd.Seq = e.spec.ID, e.state.Epoch, e.state.Commands
	c.out.Commands = append(c.out.Commands, cmd)
	return cmd.Seq
}

func (c *Core) notify(e *entity) {
	c.out.Notices = append(c.out.Notices, Notice{
		Kind: EntityChanged, Entity: e.spec.ID, State: e.state.Residency,
		Goal: e.state.Goal, Image: e.state.Generation, Cause: e.state.Cause, Error: e.state.Error,
	})
}

// illegal reports an event that the state does not allow; it has no effect.
func (c *Core) illegal(e *entity, what string) {
	c.out.Notices = append(c.out.Notices, Notice{
		Kind: OrderViolated, Entity: e.spec.ID, State: e.state.Residency, Error: what,
	})
}

// limits changes the room of the rings. Jobs in flight keep what they hold; a
// job that does not fit any more runs alone.
func (c *Core) limits(credits uint32) error {
	if credits == 0 {
		return fmt.Errorf("ring without credits: %w", core.ErrInvalid)
	}
	c.config.Credits = credits
	for _, e := range c.order {
		c.touch(e)
	}
	return nil
}

// device changes the state of the device along the table.
func (c *Core) device(to string) {
	from := deviceDown
	switch {
	case c.restarting:
		from = deviceRestarting
	case c.up:
		from = deviceUp
	}
	controlled("device", DeviceTransitions, from, to)
	c.up, c.restarting = to != deviceDown, to == deviceRestarting
}

// restart asks for a new instance, once.
func (c *Core) restart(reason string) {
	if c.restarting || !c.up {
		return
	}
	c.device(deviceRestarting)
	c.out.Effects = append(c.out.Effects, Effect{Kind: EffectRestart, Reason: reason})
}
