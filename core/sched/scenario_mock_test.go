package sched

import (
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// scene drives one Core and its Outbox against a mock device in virtual time: no
// goroutine, no clock, the same calls give the same trace. A job has a duration
// and ends by itself, or none and ends by advance; each ring ends its jobs
// strictly in submission order. Commits happen at once unless hold is set.
type scene struct {
	t   *testing.T
	now core.Instant

	core  *Core
	out   Outbox
	batch Batch
	hold  bool
	held  []Batch

	specs    map[core.JobID]*core.JobSpec
	last     map[core.EntityID]core.JobSeq
	entities map[core.EntityID]core.EntityState // on record
	jobs     map[core.JobID]core.JobState       // on record
	phases   map[core.JobID][]core.JobPhase     // as listeners heard
	lasts    map[core.JobID]time.Duration       // 0 is a manual job
	stopped  map[core.EntityID]bool

	notices  []Notice
	effects  []Effect
	commands []core.Command // all that left the outbox
	todo     []func()       // what the manager and the device do next
	pumping  bool
	dev      mock
	// violations says that the test provokes OrderViolated notices.
	violations bool
}

// newScene returns a scene whose device is up and without entities.
func newScene(t *testing.T, config Config) *scene {
	t.Helper()
	if config.MinRun == 0 {
		config.MinRun = -1
	}
	r := &scene{
		t: t, now: 1, core: New(config),
		specs:    map[core.JobID]*core.JobSpec{},
		last:     map[core.EntityID]core.JobSeq{},
		entities: map[core.EntityID]core.EntityState{},
		jobs:     map[core.JobID]core.JobState{},
		phases:   map[core.JobID][]core.JobPhase{},
		lasts:    map[core.JobID]time.Duration{},
		stopped:  map[core.EntityID]bool{},
	}
	r.dev.reset()
	r.dev.sampled = r.now
	t.Cleanup(r.check)
	r.must(Event{Kind: EventUp})
	return r
}

// step gives the core one event and lets the device answer what follows from it.
func (r *scene) step(ev Event) error {
	r.t.Helper()
	ev.Now = r.now
	err := r.core.Step(&ev, &r.batch)
	if bad := r.core.Check(); bad != nil {
		r.t.Fatalf("after event %d: %v", ev.Kind, bad)
	}
	r.out.Add(&r.batch)
	if r.batch.Durable() {
		b := Batch{Seq: r.batch.Seq, Entities: slices.Clone(r.batch.Entities), Jobs: slices.Clone(r.batch.Jobs)}
		r.held = append(r.held, b)
	}
	if !r.hold {
		r.commit()
	}
	r.out.Release(r)
	r.pump()
	return err
}

// must is step for an event that is not refused.
func (r *scene) must(ev Event) {
	r.t.Helper()
	if err := r.step(ev); err != nil {
		r.t.Fatalf("event %d: %v", ev.Kind, err)
	}
}

// commit puts all held batches on disk.
func (r *scene) commit() {
	for _, b := range r.held {
		for _, s := range b.Entities {
			r.entities[s.ID] = s
		}
		for _, s := range b.Jobs {
			r.jobs[s.ID] = s
		}
		r.out.Committed(b.Seq)
	}
	r.held = r.held[:0]
}

// release ends a hold of commits.
func (r *scene) release() {
	r.t.Helper()
	r.hold = false
	r.commit()
	r.out.Release(r)
	r.pump()
}

func (r *scene) pump() {
	if r.pumping {
		return
	}
	r.pumping = true
	for len(r.todo) > 0 {
		f := r.todo[0]
		r.todo = r.todo[1:]
		f()
	}
	r.pumping = false
}

// Command, Effect, Notice and Ack make the scene the outbox's sink.
func (r *scene) Command(c *core.Command) {
	cmd := *c
	if r.stopped[cmd.Entity] {
		r.t.Errorf("entity %d gets command kind %d after it was stopped", cmd.Entity, cmd.Kind)
	}
	r.commands = append(r.commands, cmd)
	r.todo = append(r.todo, func() { r.take(cmd) })
}

func (r *scene) Effect(f *Effect) {
	effect := *f
	r.effects = append(r.effects, effect)
	switch effect.Kind {
	case EffectSave:
		if !r.dev.flags.holdSave {
			r.todo = append(r.todo, func() { r.saved(effect) })
		}
	case EffectRestart:
		if !r.dev.flags.holdRestart {
			r.todo = append(r.todo, r.restart)
		}
	}
}

func (r *scene) Notice(n *Notice) {
	r.notices = append(r.notices, *n)
	switch n.Kind {
	case JobChanged:
		r.heard(n)
	case Stopped:
		r.stopped[n.Entity] = true
	case OrderViolated:
		if !r.violations {
			r.t.Errorf("order violated: %s", n.Error)
		}
	}
}

// heard checks what must hold whenever listeners hear of a job.
func (r *scene) heard(n *Notice) {
	past := r.phases[n.Job]
	if len(past) > 0 && past[len(past)-1].Final() {
		r.t.Errorf("job %d becomes %s after its outcome %s", n.Job, n.Phase, past[len(past)-1])
	}
	r.phases[n.Job] = append(past, n.Phase)
	if !n.Phase.Final() {
		return
	}
	if s := r.jobs[n.Job]; s.Phase != n.Phase {
		r.t.Errorf("job %d is told %s, its record says %s", n.Job, n.Phase, s.Phase)
	}
	if n.Phase != core.JobCompleted && r.dev.holds(n.Entity, n.Job) {
		r.t.Errorf("job %d is told %s while it is in the ring", n.Job, n.Phase)
	}
}

// Ack does nothing: reports of the mock are not kept.
func (r *scene) Ack(core.EventSeq) {}

// restart ends the instance and starts another.
func (r *scene) restart() {
	r.gone()
	r.must(Event{Kind: EventUp})
}

// gone ends the instance.
func (r *scene) gone() {
	r.t.Helper()
	r.dev.reset()
	r.must(Event{Kind: EventGone})
}

func (r *scene) saved(f Effect) {
	ring := r.dev.rings[f.Entity]
	if ring == nil || ring.epoch != f.Epoch {
		return
	}
	if !ring.suspended {
		r.t.Errorf("entity %d is saved while on the hardware", f.Entity)
	}
	ev := Event{Kind: EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation}
	for _, j := range ring.jobs {
		ev.ImageJobs = append(ev.ImageJobs, core.ImageJob{Job: j.spec.ID, Cursor: j.cursor(), ExecutedTime: j.inEpoch()})
	}
	r.must(ev)
}

// entity adds an entity in compute mode, changed by the options.
func (r *scene) entity(id core.EntityID, options ...func(*core.EntitySpec)) core.EntityID {
	r.t.Helper()
	spec := core.EntitySpec{ID: id, Name: "e", Mode: core.ModeCompute, OnFailure: core.OnFailureStop}
	for _, o := range options {
		o(&spec)
	}
	state := core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1}
	r.entities[id] = state
	r.must(Event{Kind: EventRestore, Record: &core.EntityRecord{Spec: spec, State: state}})
	return id
}

func longRunning(s *core.EntitySpec) { s.Mode = core.ModeLongRunning }
func onward(s *core.EntitySpec)      { s.OnFailure = core.OnFailureContinue }

// spec makes the next job of an entity: one credit, 10 workgroups.
func (r *scene) spec(e core.EntityID, id core.JobID, options ...func(*core.JobSpec)) *core.JobSpec {
	s := &core.JobSpec{ID: id, Entity: e, Seq: r.last[e] + 1, Name: "j", Grid: [3]uint32{10, 1, 1}, Credits: 1}
	for _, o := range options {
		o(s)
	}
	return s
}

// try submits a job that may be refused; lasts is 0 for a manual one.
func (r *scene) try(e core.EntityID, id core.JobID, lasts time.Duration, options ...func(*core.JobSpec)) error {
	r.t.Helper()
	s := r.spec(e, id, options...)
	r.lasts[id], r.specs[id] = lasts, s
	err := r.step(Event{Kind: EventSubmit, Spec: s})
	if err == nil {
		r.last[e] = s.Seq
	}
	return err
}

// submit is try for a job that is not refused.
func (r *scene) submit(e core.EntityID, id core.JobID, lasts time.Duration, options ...func(*core.JobSpec)) {
	r.t.Helper()
	if err := r.try(e, id, lasts, options...); err != nil {
		r.t.Fatalf("submit job %d: %v", id, err)
	}
}

func timeout(d time.Duration) func(*core.JobSpec) { return func(s *core.JobSpec) { s.Timeout = d } }
func credits(n uint32) func(*core.JobSpec)        { return func(s *core.JobSpec) { s.Credits = n } }

// after makes the job depend on the finished fence of a job.
func (r *scene) after(id core.JobID, policy core.DependencyPolicy) func(*core.JobSpec) {
	on := r.specs[id]
	return awaits(core.Fence{Timeline: on.Entity, Seq: on.Seq}, policy)
}

func awaits(f core.Fence, policy core.DependencyPolicy) func(*core.JobSpec) {
	return func(s *core.JobSpec) {
		s.Depends = append(s.Depends, core.Dependency{Fence: f, OnFailure: policy})
	}
}

func (r *scene) goal(e core.EntityID, g core.Goal) {
	r.t.Helper()
	r.must(Event{Kind: EventGoal, Entity: e, Goal: g, Cause: core.CauseUser})
}

// check is the end of every test: whatever happened, outcomes are on record as
// they were told, and no phase changed off the table.
func (r *scene) check() {
	for id, past := range r.phases {
		for i := 1; i < len(past); i++ {
			if !legalJob[phaseIndex(past[i-1])][phaseIndex(past[i])] {
				r.t.Errorf("job %d went from %s to %s", id, past[i-1], past[i])
			}
		}
	}
}
