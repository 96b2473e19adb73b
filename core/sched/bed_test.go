package sched

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// bed drives a Core and its Outbox as a daemon does, with records that survive a
// crash, and a device that does nothing by itself: a test says when a command is
// carried out, a workgroup executed, a report delivered, an image written and a
// batch committed. One workgroup takes a millisecond of executed time.
type bed struct {
	config Config
	now    core.Instant
	core   *Core
	out    Outbox
	batch  Batch

	// What survives a crash of the daemon.
	order    []core.EntityID
	specs    map[core.EntityID]core.EntitySpec
	entities map[core.EntityID]core.EntityState
	jobSpecs []*core.JobSpec
	jobs     map[core.JobID]core.JobState
	images   map[core.EntityID]map[core.Generation]bedImage
	device   *bedDevice
	usage    map[core.UsageKey]uint64 // of the instances that ended

	uncommitted []Batch
	committed   int // batches committed over all
	saves       []Effect
	restarts    int // asked for and not carried out
	notices     []Notice
	outcomes    map[core.EntityID][]core.JobID
	// onCommit and onCommand are called after each; a cut test crashes in them.
	onCommit, onCommand func()
	// onStep sees every event and its batch.
	onStep   func(*Event, *Batch, error)
	carried  int
	problems []string
}

type bedImage struct {
	memory map[core.JobID]uint64
	jobs   []core.ImageJob
}

// bedDevice is one instance. Its memory counts the workgroups run for each job.
type bedDevice struct {
	entities map[core.EntityID]*bedEntity
	queue    []core.Command
	events   []core.BackendEvent
	sent     int
	seq      core.EventSeq
}

type bedEntity struct {
	epoch     core.Epoch
	applied   core.CommandSeq
	suspended bool
	lost      bool
	ring      []*bedJob
	memory    map[core.JobID]uint64
}

type bedJob struct {
	spec *core.JobSpec
	ran  uint64
}

var bedConfig = Config{
	Credits: 4, QueueMax: 6, Answer: time.Second, Preempt: 500 * time.Millisecond,
	Silence: 300 * time.Millisecond, MinRun: 5 * time.Millisecond, ReplayMax: 40 * time.Millisecond,
	ReplayJobsMax: 4, ExtensionsMax: 2, MessagesMax: 3, FaultsMax: 2, LossesMax: 4,
	SaveTries: 2, Retry: 10 * time.Millisecond,
}

func newBed(config Config, specs ...core.EntitySpec) *bed {
	r := &bed{
		config: config, now: 1, core: New(config),
		specs:    map[core.EntityID]core.EntitySpec{},
		entities: map[core.EntityID]core.EntityState{},
		jobs:     map[core.JobID]core.JobState{},
		images:   map[core.EntityID]map[core.Generation]bedImage{},
		usage:    map[core.UsageKey]uint64{},
		outcomes: map[core.EntityID][]core.JobID{},
	}
	for _, s := range specs {
		r.addEntity(s)
	}
	return r
}

func (r *bed) addEntity(s core.EntitySpec) {
	if s.Name == "" {
		s.Name = fmt.Sprintf("e%d", s.ID)
	}
	if s.Mode == "" {
		s.Mode = core.ModeCompute
	}
	r.order = append(r.order, s.ID)
	r.specs[s.ID] = s
	r.entities[s.ID] = core.EntityState{ID: s.ID, Goal: core.GoalRun, Residency: core.Away, Generation: 1}
	r.images[s.ID] = map[core.Generation]bedImage{1: {}}
	rec := core.EntityRecord{Spec: s, State: r.entities[s.ID]}
	_ = r.step(Event{Kind: EventRestore, Record: &rec})
}

// step gives the core one event; what it says is committed when commit is called.
func (r *bed) step(ev Event) error {
	ev.Now = r.now
	err := r.core.Step(&ev, &r.batch)
	if r.onStep != nil {
		r.onStep(&ev, &r.batch, err)
	}
	r.out.Add(&r.batch)
	if r.batch.Durable() {
		r.uncommitted = append(r.uncommitted, Batch{
			Seq: r.batch.Seq, Entities: slices.Clone(r.batch.Entities), Jobs: slices.Clone(r.batch.Jobs),
		})
	}
	r.out.Release(r)
	return err
}

// commit puts the oldest batch on disk.
func (r *bed) commit() bool {
	if len(r.uncommitted) == 0 {
		return false
	}
	b := r.uncommitted[0]
	r.uncommitted = r.uncommitted[1:]
	for _, s := range b.Entities {
		r.entities[s.ID] = s
	}
	for _, s := range b.Jobs {
		old := r.jobs[s.ID]
		if old.Phase.Final() && (old.Phase != s.Phase || old.Cause != s.Cause) {
			r.problems = append(r.problems, fmt.Sprintf("job %d: outcome %s became %s", s.ID, old.Phase, s.Phase))
		}
		if s.Phase.Final() && !old.Phase.Final() {
			r.outcomes[s.Entity] = append(r.outcomes[s.Entity], s.ID)
		}
		r.jobs[s.ID] = s
	}
	r.committed++
	if r.onCommit != nil {
		r.onCommit()
	}
	r.out.Committed(b.Seq)
	r.out.Release(r)
	return true
}

// Command, Effect, Notice and Ack make the bed the outbox's sink.
func (r *bed) Command(c *core.Command) {
	if r.device != nil {
		r.device.queue = append(r.device.queue, *c)
	}
}

func (r *bed) Notice(n *Notice) { r.notices = append(r.notices, *n) }

func (r *bed) Ack(seq core.EventSeq) {
	if d := r.device; d != nil {
		for len(d.events) > 0 && d.events[0].Seq <= seq {
			d.events, d.sent = d.events[1:], d.sent-1
		}
	}
}

func (r *bed) Effect(f *Effect) {
	switch f.Kind {
	case EffectSave:
		r.saves = append(r.saves, *f)
	case EffectRestart:
		r.restarts++
	case EffectRetain:
		for gen := range r.images[f.Entity] {
			if gen != f.Generation {
				delete(r.images[f.Entity], gen)
			}
		}
	}
}

func (r *bed) report(ev core.BackendEvent) {
	r.device.seq++
	ev.Seq = r.device.seq
	r.device.events = append(r.device.events, ev)
}

// deliver gives the core the oldest report it has not got.
func (r *bed) deliver() bool {
	if r.device == nil || r.device.sent >= len(r.device.events) {
		return false
	}
	ev := r.device.events[r.device.sent]
	r.device.sent++
	_ = r.step(Event{Kind: EventBackend, Backend: &ev})
	return true
}

// take has the instance carry out its oldest command, or refuse it.
func (r *bed) take(refuse bool) bool {
	if r.device == nil || len(r.device.queue) == 0 {
		return false
	}
	c := r.device.queue[0]
	r.device.queue = r.device.queue[1:]
	r.carried++
	if r.onCommand != nil {
		defer r.onCommand()
	}
	ev := core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job}
	d := r.device.entities[c.Entity]
	if d == nil && c.Kind == core.CommandCreate {
		d = &bedEntity{epoch: c.Epoch, applied: c.Seq, memory: maps.Clone(r.images[c.Entity][c.Generation].memory)}
		if _, ok := r.images[c.Entity][c.Generation]; !ok {
			r.problems = append(r.problems, fmt.Sprintf("entity %d: image %d does not exist", c.Entity, c.Generation))
		}
		if d.memory == nil {
			d.memory = map[core.JobID]uint64{}
		}
		r.device.entities[c.Entity] = d
		ev.Kind = core.EventApplied
		if refuse {
			ev.Kind, ev.Error = core.EventRefused, "no room"
		}
		r.report(ev)
		return true
	}
	switch {
	case d == nil && c.Kind == core.CommandDestroy:
		ev.Kind = core.EventDestroyed
		r.report(ev)
	case d == nil || d.epoch != c.Epoch || c.Seq <= d.applied:
	case refuse && c.Kind != core.CommandDestroy && c.Kind != core.CommandCancel:
		d.applied = c.Seq
		ev.Kind, ev.Error = core.EventRefused, "not today"
		r.report(ev)
	default:
		d.applied = c.Seq
		r.carryOut(d, c, ev)
	}
	return true
}

func (r *bed) carryOut(d *bedEntity, c core.Command, ev core.BackendEvent) {
	switch c.Kind {
	case core.CommandRun:
		if d.lost {
			return
		}
		if d.memory[c.Job] != c.First {
			r.problems = append(r.problems, fmt.Sprintf("job %d runs from %d, its memory holds %d", c.Job, c.First, d.memory[c.Job]))
		}
		d.ring = append(d.ring, &bedJob{spec: c.JobSpec})
		return
	case core.CommandCancel:
		for i, j := range d.ring {
			if j.spec.ID == c.Job {
				d.ring = slices.Delete(d.ring, i, i+1)
				ev.Kind, ev.Done, ev.Executed = core.EventCancelled, d.memory[c.Job], j.ran
				r.report(ev)
				return
			}
		}
		return
	case core.CommandMessage:
		switch c.Message {
		case core.MessageSuspend:
			d.suspended = true
		case core.MessageResume:
			d.suspended = false
		case core.MessageSetProperties, core.MessageBarrier:
		default:
			ev.Reply = append([]byte("re: "), c.Payload...)
		}
	case core.CommandDestroy:
		delete(r.device.entities, c.Entity)
		ev.Kind = core.EventDestroyed
	}
	r.report(ev)
}

// front returns the job that executes on the device, nil when none does.
func (r *bed) front(id core.EntityID) (*bedEntity, *bedJob) {
	if r.device == nil || r.device.entities[id] == nil {
		return nil, nil
	}
	d := r.device.entities[id]
	if d.suspended || d.lost || len(d.ring) == 0 {
		return d, nil
	}
	return d, d.ring[0]
}

// execute runs up to n workgroups of the entity's first job in the ring.
func (r *bed) execute(id core.EntityID, n uint64) bool {
	d, j := r.front(id)
	if j == nil {
		return false
	}
	job := j.spec.ID
	for _, s := range r.jobSpecs {
		if s.Entity == id && s.Seq < j.spec.Seq && r.jobs[s.ID].Phase == core.JobCompleted && d.memory[s.ID] != s.Workgroups() {
			r.problems = append(r.problems, fmt.Sprintf("job %d runs before job %d is in memory", job, s.ID))
		}
	}
	if j.ran == 0 {
		r.report(core.BackendEvent{Kind: core.EventStarted, Entity: id, Epoch: d.epoch, Job: job})
	}
	n = min(n, j.spec.Workgroups()-d.memory[job])
	d.memory[job] += n
	j.ran += n
	r.usage[core.UsageKey{Job: job, Epoch: d.epoch}] += n
	if d.memory[job] == j.spec.Workgroups() {
		d.ring = d.ring[1:]
		r.report(r.sample(core.EventCompleted, id, d, j))
	}
	return true
}

func (r *bed) sample(kind core.BackendEventKind, id core.EntityID, d *bedEntity, j *bedJob) core.BackendEvent {
	return core.BackendEvent{
		Kind: kind, Entity: id, Epoch: d.epoch, Job: j.spec.ID,
		Done: d.memory[j.spec.ID], Executed: j.ran, ExecutedTime: time.Duration(j.ran) * time.Millisecond,
	}
}

// progress samples the job that executes; samples are not numbered.
func (r *bed) progress(id core.EntityID) bool {
	d, j := r.front(id)
	if j == nil || j.ran == 0 {
		return false
	}
	ev := r.sample(core.EventProgress, id, d, j)
	_ = r.step(Event{Kind: EventBackend, Backend: &ev})
	return true
}

// lose takes an entity's state on the device away.
func (r *bed) lose(id core.EntityID, guilty bool) bool {
	d, j := r.front(id)
	if j == nil {
		return false
	}
	d.lost, d.ring = true, nil
	ev := r.sample(core.EventEntityLost, id, d, j)
	ev.Guilty, ev.Cause, ev.Error = guilty, core.CauseTrap, "unreachable"
	r.report(ev)
	return true
}

var errDisk = errors.New("disk full")

// save answers the oldest request for an image.
func (r *bed) save(imageError, outputError error) bool {
	if len(r.saves) == 0 {
		return false
	}
	f := r.saves[0]
	r.saves = r.saves[1:]
	ev := Event{Kind: EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation, Final: f.Final}
	var d *bedEntity
	if r.device != nil {
		d = r.device.entities[f.Entity]
	}
	if d == nil || d.epoch != f.Epoch || d.lost {
		imageError = core.ErrGone
	}
	if imageError != nil {
		ev.Kind, ev.Cause, ev.Error = EventSaveFailed, core.CauseImage, imageError.Error()
		_ = r.step(ev)
		return true
	}
	if !d.suspended {
		r.problems = append(r.problems, fmt.Sprintf("entity %d saved while on the hardware", f.Entity))
	}
	for _, j := range d.ring {
		ev.ImageJobs = append(ev.ImageJobs, core.ImageJob{
			Job: j.spec.ID, Cursor: d.memory[j.spec.ID], Executed: j.ran, ExecutedTime: time.Duration(j.ran) * time.Millisecond,
		})
	}
	r.images[f.Entity][f.Generation] = bedImage{memory: maps.Clone(d.memory), jobs: ev.ImageJobs}
	if outputError != nil {
		ev.OutputError = outputError.Error()
	}
	_ = r.step(ev)
	return true
}

// start opens a session with a new instance, or with the one that runs: its
// commands under way are lost, and its reports come again.
func (r *bed) start() {
	if r.device == nil {
		r.device = &bedDevice{entities: map[core.EntityID]*bedEntity{}}
	}
	r.device.queue, r.device.sent = nil, 0
	var held []Held
	for _, id := range slices.Sorted(maps.Keys(r.device.entities)) {
		d := r.device.entities[id]
		held = append(held, Held{Entity: id, Epoch: d.epoch, Applied: d.applied})
	}
	_ = r.step(Event{Kind: EventUp, Held: held})
}

// gone ends the instance verifiably. Images being written are lost with it.
func (r *bed) gone() {
	r.device, r.saves, r.restarts = nil, nil, 0
	_ = r.step(Event{Kind: EventGone, Usage: maps.Clone(r.usage)})
}

// crash loses everything but the records, the images and the instance, and
// rebuilds the core from the records.
func (r *bed) crash() {
	r.core, r.out, r.uncommitted, r.saves, r.restarts = New(r.config), Outbox{}, nil, nil, 0
	for _, id := range r.order {
		rec := core.EntityRecord{Spec: r.specs[id], State: r.entities[id]}
		for _, s := range r.jobSpecs {
			if state, ok := r.jobs[s.ID]; ok && s.Entity == id {
				rec.Jobs = append(rec.Jobs, core.JobRecord{Spec: s, State: state})
			}
		}
		if err := r.step(Event{Kind: EventRestore, Record: &rec}); err != nil {
			r.problems = append(r.problems, fmt.Sprintf("restore: %v", err))
		}
	}
	if r.device == nil {
		_ = r.step(Event{Kind: EventGone, Usage: maps.Clone(r.usage)})
	}
	r.start()
}

// tick lets d pass, and wakes the core whenever it wants to be woken.
func (r *bed) tick(d time.Duration) {
	until := r.now.Add(d)
	for next := r.core.Next(); next != 0 && next <= until; next = r.core.Next() {
		if next <= r.now {
			r.problems = append(r.problems, fmt.Sprintf("at %d a tick is due at %d, for ever", r.now, next))
			break
		}
		r.now = next
		_ = r.step(Event{Kind: EventTick})
	}
	r.now = until
	_ = r.step(Event{Kind: EventTick})
}

// quiet does everything that takes no time: commits, commands, reports, images.
func (r *bed) quiet() {
	for range 10_000 {
		switch {
		case r.commit(), r.take(false), r.deliver(), r.save(nil, nil):
		case r.restarts > 0:
			r.gone()
			r.start()
		default:
			return
		}
	}
	r.problems = append(r.problems, "never quiet")
}

// finish lets everything come to its end, a workgroup of each entity at a time.
func (r *bed) finish() {
	for range 2000 {
		r.quiet()
		busy := false
		for _, id := range r.order {
			if r.execute(id, 1) {
				busy = true
				r.quiet()
				r.progress(id)
			}
		}
		r.quiet()
		if !busy && r.settled() {
			return
		}
		r.tick(time.Millisecond)
	}
}

func (r *bed) settled() bool {
	for _, s := range r.jobSpecs {
		e := r.entities[s.Entity]
		if j, ok := r.jobs[s.ID]; ok && !j.Phase.Final() && e.Goal != core.GoalSuspend {
			return false
		}
	}
	return true
}
