package sched

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// world drives a Core and its Outbox against a simulated plugin instance whose
// memory counts, for each job, the workgroups that were run: a workgroup run
// twice on the same memory, or skipped, is found at once.
type world struct {
	rand *rand.Rand
	now  core.Instant

	core    *Core
	out     Outbox
	batch   Batch
	pending []Batch // not committed yet

	// What survives a crash of the daemon.
	entities map[core.EntityID]core.EntityState
	specs    map[core.EntityID]core.EntitySpec
	jobs     map[core.JobID]core.JobState
	jobSpecs map[core.JobID]*core.JobSpec
	images   map[core.EntityID]map[core.Generation]image
	files    map[core.JobID]bool // jobs whose results are on disk

	instance *instance
	usage    map[core.UsageKey]uint64 // of the last instance that ended
	outcomes map[core.JobID]core.JobPhase
	ran      map[core.JobID]uint64 // workgroups really run, over all
	restarts int
	problems []string
	trace    []string
	// seen collects the changes of state, for all worlds of a test.
	seen *coverage
	// claims are cursors that images hold of jobs against the truth, lacks a job
	// that they leave out.
	claims map[core.JobID]uint64
	lacks  core.JobID
	// print, when not nil, is told what is decided and what leaves; failSave and
	// outputError then decide what becomes of a save, instead of chance.
	print       func(format string, args ...any)
	failSave    bool
	outputError string
	config      Config
	// calls are answers to effects that the core has not got yet.
	calls []func()
}

type image struct {
	mem  map[core.JobID]uint64
	jobs []core.ImageJob
}

type instance struct {
	entities map[core.EntityID]*onDevice
	events   []core.BackendEvent // numbered, not acknowledged
	sent     int                 // how many of events this session has delivered
	seq      core.EventSeq
	queue    []core.Command
	usage    map[core.UsageKey]uint64
}

type onDevice struct {
	epoch     core.Epoch
	applied   core.CommandSeq
	suspended bool
	lost      bool
	ring      []*ringJob
	mem       map[core.JobID]uint64
}

type ringJob struct {
	spec *core.JobSpec
	ran  uint64
}

func newWorld(seed uint64) *world {
	w := &world{
		rand:     rand.New(rand.NewPCG(seed, 1)),
		now:      1,
		entities: map[core.EntityID]core.EntityState{},
		specs:    map[core.EntityID]core.EntitySpec{},
		jobs:     map[core.JobID]core.JobState{},
		jobSpecs: map[core.JobID]*core.JobSpec{},
		images:   map[core.EntityID]map[core.Generation]image{},
		files:    map[core.JobID]bool{},
		outcomes: map[core.JobID]core.JobPhase{},
		ran:      map[core.JobID]uint64{},
	}
	w.config = testConfig
	w.core = New(w.config)
	return w
}

var testConfig = Config{Credits: 3, Answer: time.Hour, LossesMax: 1 << 30, ReplayMax: 40 * time.Millisecond, Retry: time.Millisecond}

func (w *world) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Sprintf(format, args...))
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// step gives the core one event.
func (w *world) step(ev Event) error {
	ev.Now = w.now
	err := w.core.Step(&ev, &w.batch)
	w.seen.batch(&w.batch)
	w.printBatch(err)
	w.out.Add(&w.batch)
	if w.batch.Durable() {
		w.pending = append(w.pending, Batch{
			Seq: w.batch.Seq, Entities: slices.Clone(w.batch.Entities), Jobs: slices.Clone(w.batch.Jobs),
		})
	}
	w.out.Release(w)
	return err
}

// commit puts the oldest batch on disk.
func (w *world) commit() {
	if len(w.pending) == 0 {
		return
	}
	b := w.pending[0]
	w.pending = w.pending[1:]
	w.apply(b)
	w.printf("committed %d", b.Seq)
	w.out.Committed(b.Seq)
	w.out.Release(w)
}

func (w *world) apply(b Batch) {
	for _, s := range b.Entities {
		w.entities[s.ID] = s
	}
	for _, s := range b.Jobs {
		if old := w.jobs[s.ID]; old.Phase.Final() && (old.Phase != s.Phase || old.Cause != s.Cause) {
			w.problem("job %d: outcome %s became %s", s.ID, old.Phase, s.Phase)
		}
		if s.Phase == core.JobCompleted && w.jobSpecs[s.ID].Flush && !w.files[s.ID] {
			w.problem("job %d completed before its file was written", s.ID)
		}
		w.jobs[s.ID] = s
	}
}

// Command, Effect, Notice and Ack make the world the outbox's sink.
func (w *world) Command(c *core.Command) {
	w.printf("send %s", commandText(c))
	if w.instance != nil {
		w.instance.queue = append(w.instance.queue, *c)
	}
}

func (w *world) Ack(seq core.EventSeq) {
	w.printf("ack %d", seq)
	if in := w.instance; in != nil {
		for len(in.events) > 0 && in.events[0].Seq <= seq {
			in.events = in.events[1:]
			in.sent--
		}
	}
}

func (w *world) Notice(n *Notice) {
	w.printf("notice %s", noticeText(n))
	switch {
	case n.Kind == OrderViolated && w.print == nil:
		w.problem("order violated: %s", n.Error)
	case n.Kind == JobChanged && n.Phase.Final():
		if old, ok := w.outcomes[n.Job]; ok {
			w.problem("job %d signalled twice: %s, %s", n.Job, old, n.Phase)
		}
		w.outcomes[n.Job] = n.Phase
	}
}

func (w *world) Effect(f *Effect) {
	w.printf("effect %s", effectText(f))
	switch f.Kind {
	case EffectRestart:
		w.restarts++
		w.note("restart: %s", f.Reason)
		w.killInstance()
	case EffectRetain:
		for gen := range w.images[f.Entity] {
			if gen != f.Generation {
				delete(w.images[f.Entity], gen)
			}
		}
	case EffectSave:
		w.save(*f)
	}
}

func (w *world) save(f Effect) {
	var d *onDevice
	if w.instance != nil {
		d = w.instance.entities[f.Entity]
	}
	if d == nil || d.epoch != f.Epoch {
		return // the instance is gone; nobody answers
	}
	if !d.suspended {
		w.problem("entity %d saved while on the hardware", f.Entity)
	}
	if w.print == nil && w.rand.IntN(20) == 0 || w.failSave || d.lost {
		w.later(func() {
			_ = w.step(Event{Kind: EventSaveFailed, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation, Cause: core.CauseImage, Error: "disk full"})
		})
		return
	}
	img := image{mem: maps.Clone(d.mem)}
	for _, r := range d.ring {
		cursor := d.mem[r.spec.ID]
		if r.spec.ID == w.lacks {
			continue
		}
		if claim, ok := w.claims[r.spec.ID]; ok {
			cursor = claim
		}
		img.jobs = append(img.jobs, core.ImageJob{Job: r.spec.ID, Cursor: cursor, Executed: r.ran})
	}
	w.images[f.Entity][f.Generation] = img
	if f.Final && w.outputError == "" {
		for id, s := range w.jobSpecs {
			if s.Entity == f.Entity && s.Flush && d.mem[id] == s.Workgroups() {
				w.files[id] = true
			}
		}
	}
	w.later(func() {
		_ = w.step(Event{Kind: EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation, ImageJobs: img.jobs, OutputError: w.outputError, Final: f.Final})
	})
}

// later has the core get an answer in a step of its own.
func (w *world) later(f func()) { w.calls = append(w.calls, f) }

func (w *world) call() {
	if len(w.calls) > 0 {
		f := w.calls[0]
		w.calls = w.calls[1:]
		f()
	}
}

// report numbers an event of the instance.
func (w *world) report(ev core.BackendEvent) {
	w.instance.seq++
	ev.Seq = w.instance.seq
	w.instance.events = append(w.instance.events, ev)
}

// deliver gives the core the next event of the instance.
func (w *world) deliver() {
	in := w.instance
	if in == nil || in.sent >= len(in.events) {
		return
	}
	ev := in.events[in.sent]
	in.sent++
	_ = w.step(Event{Kind: EventBackend, Backend: &ev})
}

// take has the instance carry out its next command.
func (w *world) take() {
	in := w.instance
	if in == nil || len(in.queue) == 0 {
		return
	}
	c := in.queue[0]
	in.queue = in.queue[1:]
	d := in.entities[c.Entity]
	if c.Kind == core.CommandCreate && (d == nil || d.epoch < c.Epoch) {
		d = &onDevice{epoch: c.Epoch, applied: c.Seq, mem: maps.Clone(w.images[c.Entity][c.Generation].mem)}
		if d.mem == nil {
			w.problem("entity %d created from image %d, which does not exist", c.Entity, c.Generation)
			d.mem = map[core.JobID]uint64{}
		}
		in.entities[c.Entity] = d
		w.report(core.BackendEvent{Kind: core.EventApplied, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq})
		return
	}
	if d == nil || d.epoch != c.Epoch || c.Seq <= d.applied {
		if d == nil && c.Kind == core.CommandDestroy {
			w.report(core.BackendEvent{Kind: core.EventDestroyed, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq})
		}
		return
	}
	d.applied = c.Seq
	w.carryOut(d, c)
}

func (w *world) carryOut(d *onDevice, c core.Command) {
	done := core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq}
	switch c.Kind {
	case core.CommandRun:
		if d.mem[c.Job] != c.First {
			w.problem("job %d runs from %d, its memory holds %d", c.Job, c.First, d.mem[c.Job])
		}
		d.ring = append(d.ring, &ringJob{spec: c.JobSpec})
		if len(d.ring) > 3 {
			w.problem("entity %d has %d jobs in a ring of 3", c.Entity, len(d.ring))
		}
	case core.CommandCancel:
		if !d.suspended {
			w.problem("job %d taken out while on the hardware", c.Job)
		}
		for i, r := range d.ring {
			if r.spec.ID == c.Job {
				d.ring = slices.Delete(d.ring, i, i+1)
				w.report(core.BackendEvent{Kind: core.EventCancelled, Entity: c.Entity, Epoch: c.Epoch, Job: c.Job, Done: d.mem[c.Job], Executed: r.ran})
				break
			}
		}
	case core.CommandMessage:
		d.suspended = c.Message == core.MessageSuspend || d.suspended && c.Message != core.MessageResume
		w.report(done)
	case core.CommandDestroy:
		delete(w.instance.entities, c.Entity)
		done.Kind = core.EventDestroyed
		if len(d.ring) > 0 {
			done.Job, done.Done, done.Executed = d.ring[0].spec.ID, d.mem[d.ring[0].spec.ID], d.ring[0].ran
		}
		w.report(done)
	}
}

// execute runs a few workgroups of an entity on the device.
func (w *world) execute(id core.EntityID) {
	w.executeUpTo(id, 1+w.rand.Uint64N(6), w.rand.IntN(2) == 0)
}

// executeUpTo runs at most n workgroups and says so when told to.
func (w *world) executeUpTo(id core.EntityID, n uint64, tell bool) {
	if w.instance == nil {
		return
	}
	d := w.instance.entities[id]
	if d == nil || d.suspended || len(d.ring) == 0 {
		return
	}
	r := d.ring[0]
	job := r.spec.ID
	n = min(n, r.spec.Workgroups()-d.mem[job])
	for k, s := range w.jobSpecs {
		before := s.Entity == r.spec.Entity && s.Seq < r.spec.Seq
		if before && w.jobs[k].Phase == core.JobCompleted && d.mem[k] != s.Workgroups() {
			w.problem("job %d runs before job %d is in memory", job, k)
		}
	}
	if r.ran == 0 {
		w.report(core.BackendEvent{Kind: core.EventStarted, Entity: id, Epoch: d.epoch, Job: job})
	}
	d.mem[job] += n
	r.ran += n
	w.ran[job] += n
	w.instance.usage[core.UsageKey{Job: job, Epoch: d.epoch}] += n
	ev := core.BackendEvent{
		Kind: core.EventProgress, Entity: id, Epoch: d.epoch, Job: job,
		Done: d.mem[job], Executed: r.ran, ExecutedTime: time.Duration(r.ran) * time.Millisecond,
	}
	if d.mem[job] == r.spec.Workgroups() {
		d.ring = d.ring[1:]
		ev.Kind = core.EventCompleted
		w.report(ev)
		return
	}
	if tell {
		_ = w.step(Event{Kind: EventBackend, Backend: &ev})
	}
}

// fault makes the job that executes misbehave, or loses an innocent entity.
func (w *world) fault(id core.EntityID, guilty bool) {
	if w.instance == nil {
		return
	}
	d := w.instance.entities[id]
	if d == nil || d.suspended || len(d.ring) == 0 {
		return
	}
	r := d.ring[0]
	d.ring = nil
	d.suspended, d.lost = true, true
	w.report(core.BackendEvent{
		Kind: core.EventEntityLost, Entity: id, Epoch: d.epoch, Job: r.spec.ID, Guilty: guilty,
		Executed: r.ran, Cause: core.CauseTrap, Error: "unreachable",
	})
}

func (w *world) startInstance() {
	if w.instance == nil {
		for len(w.calls) > 0 {
			w.call()
		}
		for len(w.pending) > 0 {
			w.commit() // the end of the old one is on record before the next begins
		}
		w.instance = &instance{entities: map[core.EntityID]*onDevice{}, usage: map[core.UsageKey]uint64{}}
		w.connect()
	}
}

// connect opens a session: commands under way are lost, events come again.
func (w *world) connect() {
	w.instance.queue, w.instance.sent = nil, 0
	var held []Held
	for _, id := range slices.Sorted(maps.Keys(w.instance.entities)) {
		d := w.instance.entities[id]
		held = append(held, Held{Entity: id, Epoch: d.epoch, Applied: d.applied})
	}
	_ = w.step(Event{Kind: EventUp, Held: held})
}

func (w *world) killInstance() {
	if w.instance == nil {
		return
	}
	w.usage = w.instance.usage
	w.instance = nil
	w.later(func() { _ = w.step(Event{Kind: EventGone, Usage: w.usage}) })
}

// crashDaemon loses everything but the records, the images and the instance.
func (w *world) crashDaemon() {
	gone := w.instance == nil
	w.pending, w.calls, w.out = nil, nil, Outbox{}
	w.core = New(w.config)
	for _, id := range slices.Sorted(maps.Keys(w.entities)) {
		rec := core.EntityRecord{Spec: w.specs[id], State: w.entities[id]}
		for _, j := range slices.Sorted(maps.Keys(w.jobSpecs)) {
			if s := w.jobSpecs[j]; s.Entity == id {
				if state, ok := w.jobs[j]; ok {
					rec.Jobs = append(rec.Jobs, core.JobRecord{Spec: s, State: state})
				}
			}
		}
		if err := w.step(Event{Kind: EventRestore, Record: &rec}); err != nil {
			w.problem("restore: %v", err)
		}
	}
	if gone {
		_ = w.step(Event{Kind: EventGone, Usage: w.usage})
		return
	}
	w.connect()
}
