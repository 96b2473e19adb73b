package sim

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

func compareFences(a, b core.Fence) int {
	return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.Seq, b.Seq))
}

// otherDevice is where the timelines of another device's entities begin.
const otherDevice core.EntityID = 1 << 32

// addEntity records a new entity with its first image, then tells the schedulers.
func (w *world) addEntity() {
	d := w.daemon
	if d == nil || d.rebuilding || len(w.entities) >= 6 {
		return
	}
	id := w.nextEntity
	w.nextEntity++
	spec := core.EntitySpec{ID: id, Name: fmt.Sprintf("e%d", id), Mode: core.ModeCompute, OnFailure: core.OnFailureStop}
	spec.Properties.Priority = core.PriorityNormal
	if w.chance(2) {
		spec.Mode = core.ModeLongRunning
		spec.Properties.Checkpoint = 12 * time.Millisecond
	}
	if w.chance(2) {
		spec.OnFailure = core.OnFailureContinue
	}
	state := core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1}
	w.entities[id] = &entity{spec: spec}
	w.images[id] = map[core.Generation]*image{1: {}}
	next := d.merge()
	next.Entities, next.EntityStates = append(next.Entities, spec), append(next.EntityStates, state)
	next.NextEntity = id + 1
	d.then(func() { d.restore(&core.EntityRecord{Spec: spec, State: state}) })
}

// ready draws an entity that the schedulers know.
func (w *world) ready() (*daemon, *entity) {
	d, e := w.daemon, w.pick()
	if d == nil || d.rebuilding || e == nil || e.forgotten {
		return nil, nil
	}
	if _, known := d.states[e.spec.ID]; !known {
		return nil, nil
	}
	return d, e
}

// draw makes up a job.
func (w *world) draw(d *daemon, e *entity, seq core.JobSeq) *job {
	id := w.nextJob
	w.nextJob++
	j := &job{submitted: w.now, spec: &core.JobSpec{
		ID: id, Entity: e.spec.ID, Seq: seq, Name: fmt.Sprintf("j%d", id), Credits: 1 + w.rand.Uint32N(3),
		Grid: [3]uint32{1 + w.rand.Uint32N(12), 1, 1}, Flush: w.chance(5),
	}}
	s := j.spec
	if w.chance(8) {
		j.trait = []trait{traps, hangs, hangsSeen, unloadable, slow, slow}[w.rand.IntN(6)]
		j.at = w.rand.Uint64N(s.Workgroups())
	}
	if e.spec.Mode == core.ModeCompute && w.chance(3) {
		s.Timeout = time.Duration(2+w.rand.IntN(20)) * workgroup
	}
	if w.chance(8) {
		s.QueueTimeout = time.Duration(1+w.rand.IntN(40)) * time.Millisecond
	}
	policies := []core.DependencyPolicy{"", core.DependencyFail, core.DependencyCancel, core.DependencyIgnore}
	for range w.rand.IntN(3) {
		policy := policies[w.rand.IntN(len(policies))]
		if w.chance(4) {
			f := core.Fence{Timeline: otherDevice + core.EntityID(w.rand.IntN(3)), Seq: core.JobSeq(1 + w.rand.IntN(4))}
			if _, known := w.foreign[f]; !known {
				w.foreign[f] = nil
			}
			s.Depends = append(s.Depends, core.Dependency{Fence: f, OnFailure: policy})
			continue
		}
		other := w.pick()
		last := d.last[other.spec.ID]
		if other == e {
			last = min(last, seq-1)
		}
		if last > 0 && !other.forgotten && (other.spec.Mode == e.spec.Mode || w.chance(4)) {
			f := core.Fence{Timeline: other.spec.ID, Seq: 1 + core.JobSeq(w.rand.IntN(int(last)))}
			s.Depends = append(s.Depends, core.Dependency{Fence: f, OnFailure: policy})
		}
	}
	if w.chance(15) {
		j.unmet = "a job elsewhere failed"
	}
	return j
}

// mixes reports whether a bounded job would wait for an unbounded one.
func (w *world) mixes(s *core.JobSpec) bool {
	return w.entities[s.Entity].spec.Mode == core.ModeCompute && slices.ContainsFunc(s.Depends, func(d core.Dependency) bool {
		o := w.entities[d.Fence.Timeline]
		return o != nil && o != w.entities[s.Entity] && o.spec.Mode == core.ModeLongRunning
	})
}

// submit offers the schedulers a job, or records one that the manager holds.
func (w *world) submit() {
	d, e := w.ready()
	if e == nil || len(e.jobs) >= 14 {
		return
	}
	id := e.spec.ID
	held := d.held[id]
	if len(held) > 0 || w.chance(3) {
		seq := d.last[id] + 1
		if len(held) > 0 {
			seq = held[len(held)-1].Seq + 1
		}
		j := w.draw(d, e, seq)
		w.accept(d, e, j)
		next := d.merge()
		next.Jobs = append(next.Jobs, j.spec)
		next.JobStates = append(next.JobStates, core.JobState{ID: j.spec.ID, Entity: id, Phase: core.JobHeld})
		d.held[id] = append(held, j.spec)
		d.then(func() { j.acked = true })
		return
	}
	j := w.draw(d, e, d.last[id]+1)
	s := d.states[id]
	w.accept(d, e, j)
	d.last[id]++
	err := d.step(sched.Event{Kind: sched.EventSubmit, Spec: j.spec, Unmet: j.unmet})
	if err == nil {
		if w.mixes(j.spec) || s.Halted || s.Closed || s.Goal == core.GoalClose || j.spec.Credits > d.ring {
			w.problem("job %d was to be refused", j.spec.ID)
		}
		d.then(func() { j.acked = true })
		return
	}
	w.counts["submit refused"]++
	w.note("submit j=%d refused: %v", j.spec.ID, err)
	d.last[id]--
	w.drop(j)
	if !slices.ContainsFunc([]error{core.ErrClosed, core.ErrFull, core.ErrOversize, core.ErrLongRunningFence},
		func(known error) bool { return errors.Is(err, known) }) {
		w.problem("submit job %d: %v", j.spec.ID, err)
	}
}

func (w *world) accept(d *daemon, e *entity, j *job) {
	w.note("submit e=%d j=%d seq=%d n=%d cr=%d trait=%d flush=%t deps=%v", e.spec.ID, j.spec.ID, j.spec.Seq,
		j.spec.Workgroups(), j.spec.Credits, j.trait, j.spec.Flush, j.spec.Depends)
	w.jobs[j.spec.ID] = j
	e.jobs = append(e.jobs, j)
	d.jobs[j.spec.ID] = core.JobState{ID: j.spec.ID, Entity: e.spec.ID, Phase: core.JobHeld}
}

// drop forgets a job that was never accepted, or lost before it was acknowledged.
func (w *world) drop(j *job) {
	delete(w.jobs, j.spec.ID)
	e := w.entities[j.spec.Entity]
	e.jobs = slices.DeleteFunc(e.jobs, func(o *job) bool { return o == j })
}

// feed gives the schedulers the next job that the manager holds.
func (w *world) feed() {
	if d, e := w.ready(); e != nil {
		w.feedEntity(d, e)
	}
}

func (w *world) feedEntity(d *daemon, e *entity) {
	held := d.held[e.spec.ID]
	if len(held) == 0 || !w.jobs[held[0].ID].acked {
		return
	}
	j := w.jobs[held[0].ID]
	err := d.step(sched.Event{Kind: sched.EventSubmit, Spec: j.spec, OnRecord: true, Unmet: j.unmet})
	switch {
	case err == nil:
		d.held[e.spec.ID] = held[1:]
		d.last[e.spec.ID] = j.spec.Seq
		j.hopeless = w.mixes(j.spec)
	case errors.Is(err, core.ErrFull):
	default:
		w.problem("feed job %d: %v", j.spec.ID, err)
	}
}

func (w *world) cancel() {
	d, e := w.ready()
	if e == nil || len(e.jobs) == 0 {
		return
	}
	j := e.jobs[w.rand.IntN(len(e.jobs))]
	if d.step(sched.Event{Kind: sched.EventCancel, Entity: e.spec.ID, Job: j.spec.ID}) == nil {
		j.cancelled = true
	}
}

func (w *world) goal(g core.Goal) {
	d, e := w.ready()
	if e == nil {
		return
	}
	if d.step(sched.Event{Kind: sched.EventGoal, Entity: e.spec.ID, Goal: g}) == nil && g == core.GoalClose {
		e.closeAsked = true
		d.then(func() { e.closeAcked = true })
	}
}

func (w *world) properties() {
	d, e := w.ready()
	if e == nil {
		return
	}
	p := core.Properties{Priority: core.PriorityHigh}
	if e.spec.Mode == core.ModeLongRunning {
		p.Checkpoint = time.Duration(4+w.rand.IntN(20)) * time.Millisecond
	}
	e.spec.Properties = p
	d.merge().Entities = append(d.merge().Entities, e.spec)
	_ = d.step(sched.Event{Kind: sched.EventProperties, Entity: e.spec.ID, Properties: p})
}

func (w *world) extend() {
	d, e := w.ready()
	if e == nil || len(e.jobs) == 0 {
		return
	}
	j := e.jobs[w.rand.IntN(len(e.jobs))]
	_ = d.step(sched.Event{Kind: sched.EventExtend, Entity: e.spec.ID, Job: j.spec.ID, By: 5 * workgroup})
}

func (w *world) message() {
	d, e := w.ready()
	if e == nil {
		return
	}
	id := e.spec.ID
	w.nextOther++
	m := &message{id: core.MessageID(w.nextOther), barrier: sched.Barrier(w.rand.IntN(3)), after: d.last[id], payload: byte(w.nextOther)}
	d.messages[id] = append(d.messages[id], m)
	err := d.step(sched.Event{
		Kind: sched.EventMessage, Entity: id, MessageID: m.id, Message: core.MessageBackend,
		Payload: []byte{m.payload}, Barrier: m.barrier,
	})
	if err != nil {
		d.messages[id] = slices.DeleteFunc(d.messages[id], func(o *message) bool { return o == m })
	}
}

func (w *world) preempt() {
	d, e := w.ready()
	if e == nil {
		return
	}
	d.waiter++
	wv := &wave{away: w.chance(3)}
	if !w.chance(3) {
		wv.entities = []core.EntityID{e.spec.ID}
	}
	d.waves[d.waiter] = wv
	if err := d.step(sched.Event{Kind: sched.EventPreempt, Waiter: d.waiter, Entities: wv.entities, Away: wv.away}); err != nil {
		w.problem("preempt: %v", err)
	}
}

func (w *world) release() {
	d := w.daemon
	if d == nil || len(d.waves) == 0 {
		return
	}
	waiters := slices.Sorted(maps.Keys(d.waves))
	waiter := waiters[w.rand.IntN(len(waiters))]
	delete(d.waves, waiter)
	_ = d.step(sched.Event{Kind: sched.EventRelease, Waiter: waiter})
}

func (w *world) stop() {
	d, e := w.ready()
	if e == nil {
		return
	}
	if _, stopped := d.stops[e.spec.ID]; stopped || d.outbox.Waiting() > 0 {
		return // what is told of an earlier stop could not be told apart
	}
	d.stops[e.spec.ID] = false
	_ = d.step(sched.Event{Kind: sched.EventStop, Entity: e.spec.ID})
}

func (w *world) start() {
	if d, e := w.ready(); e != nil {
		delete(d.stops, e.spec.ID)
		_ = d.step(sched.Event{Kind: sched.EventStart, Entity: e.spec.ID})
	}
}

func (w *world) limits() {
	if d := w.daemon; d != nil {
		w.ring = 2 + w.rand.Uint32N(ringMax-1)
		d.ring = w.ring
		_ = d.step(sched.Event{Kind: sched.EventLimits, Credits: w.ring})
	}
}

// signal decides how a job of another device ended, once.
func (w *world) signal() {
	for _, f := range slices.SortedFunc(maps.Keys(w.foreign), compareFences) {
		if w.foreign[f] != nil || !w.healing && !w.chance(2) {
			continue
		}
		why := ""
		if w.chance(3) {
			why = "a job of another device failed"
		}
		w.foreign[f] = &why
		if w.daemon != nil {
			_ = w.daemon.step(sched.Event{Kind: sched.EventSignal, Fence: f, Error: why})
		}
		return
	}
}

// forget drops a closed entity that nobody waits for, with its records.
func (w *world) forget() {
	d, e := w.ready()
	if e == nil || !w.medium.entities[e.spec.ID].Closed || len(d.held[e.spec.ID]) > 0 || d.outbox.Waiting() > 0 {
		return
	}
	for _, j := range w.jobs {
		for _, dep := range j.spec.Depends {
			if s := d.jobs[j.spec.ID]; dep.Fence.Timeline == e.spec.ID && !s.Phase.Final() && s.Epoch == 0 {
				return
			}
		}
	}
	id := e.spec.ID
	if err := d.step(sched.Event{Kind: sched.EventForget, Entity: id}); err != nil {
		w.problem("forget entity %d: %v", id, err)
	}
	w.counts["forgotten"]++
	e.forgotten = true
	delete(d.states, id)
	delete(d.stops, id)
	d.merge().RemoveEntities = append(d.merge().RemoveEntities, id)
	d.then(func() {
		delete(w.images, id)
		for _, j := range e.jobs {
			delete(w.jobs, j.spec.ID)
		}
		delete(w.entities, id)
	})
}
