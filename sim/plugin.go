package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// workgroup is how long one executes.
const workgroup = time.Millisecond

// instance is one life of the plugin.
type instance struct {
	lanes   map[core.EntityID]*lane
	session core.Session
	events  []core.BackendEvent // not acknowledged
	seq     core.EventSeq
	samples map[core.EntityID]core.BackendEvent
	// failed: the device as a whole does nothing any more.
	failed bool
}

// lane carries out the commands of one entity, one at a time.
type lane struct {
	id      core.EntityID
	applied core.CommandSeq
	epoch   core.Epoch
	over    core.Epoch
	items   []core.Command
	lateTo  core.Instant
	live    *resident
}

// resident is an entity on the device.
type resident struct {
	epoch                 core.Epoch
	suspended, lost, hung bool
	// begun: a job began in this epoch.
	begun  bool
	ring   []*running
	memory memory
}

type running struct {
	job   *job
	ran   uint64
	spent time.Duration
}

// receive takes one command off the stream, as the plugin's kit does: older
// sessions, repeats and older epochs are dropped.
func (w *world) receive(p packet) {
	in := w.plant
	if in == nil || p.session != in.session {
		w.counts["stale session"]++
		return
	}
	c := p.command
	l := in.lanes[c.Entity]
	if l == nil {
		l = &lane{id: c.Entity}
		in.lanes[c.Entity] = l
	}
	idle := l.live == nil && len(l.items) == 0
	if c.Seq <= l.applied || c.Epoch < l.epoch || idle && c.Epoch <= l.over && c.Kind != core.CommandDestroy {
		w.counts["repeated command"]++
		return
	}
	l.applied, l.epoch = c.Seq, c.Epoch
	l.items = append(l.items, c)
}

// held lists what the instance holds.
func (in *instance) held() (ids []core.EntityID) {
	for _, id := range slices.Sorted(maps.Keys(in.lanes)) {
		if l := in.lanes[id]; l.live != nil || len(l.items) > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// report numbers an event.
func (w *world) report(l *lane, ev core.BackendEvent) {
	in := w.plant
	in.seq++
	ev.Seq, ev.Entity = in.seq, l.id
	in.events = append(in.events, ev)
	if w.old = append(w.old, ev); len(w.old) > 200 {
		w.old = w.old[100:]
	}
	w.note("report %d kind=%d e=%d ep=%d c=%d j=%d", ev.Seq, ev.Kind, ev.Entity, ev.Epoch, ev.Command, ev.Job)
}

func (w *world) refuse(l *lane, c *core.Command, cause core.Cause) {
	w.counts["refused"]++
	w.report(l, core.BackendEvent{
		Kind: core.EventRefused, Epoch: c.Epoch, Command: c.Seq, Job: c.Job, Cause: cause, Error: "refused",
	})
}

// pickLane draws a lane that ok likes, nil when there is none.
func (w *world) pickLane(ok func(*lane) bool) *lane {
	if w.plant == nil || w.plant.failed {
		return nil
	}
	var found []*lane
	for _, id := range slices.Sorted(maps.Keys(w.plant.lanes)) {
		if l := w.plant.lanes[id]; ok(l) {
			found = append(found, l)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[w.rand.IntN(len(found))]
}

// laneStep has one lane carry out its next command.
func (w *world) laneStep() {
	l := w.pickLane(func(l *lane) bool { return len(l.items) > 0 && l.lateTo <= w.now })
	if l == nil {
		return
	}
	c := l.items[0]
	if r := l.live; r != nil && r.hung && c.Kind != core.CommandRun {
		if c.Kind == core.CommandDestroy {
			w.failDevice()
		}
		return // it waits for a workgroup that does not end
	}
	if !w.healing && c.Message == core.MessageSuspend && w.chance(20) {
		w.counts["late suspend"]++
		l.lateTo = w.now.Add(time.Duration(w.rand.IntN(int(2 * config.Preempt))))
		return
	}
	l.items = l.items[1:]
	w.note("lane e=%d kind=%d msg=%d c=%d j=%d", l.id, c.Kind, c.Message, c.Seq, c.Job)
	switch c.Kind {
	case core.CommandCreate:
		w.create(l, &c)
		return
	case core.CommandDestroy:
		w.destroy(l, &c)
		return
	}
	if l.live == nil || l.live.epoch != c.Epoch {
		if c.Epoch > l.over && (l.live == nil || c.Epoch > l.live.epoch) {
			w.refuse(l, &c, core.CauseRefused)
		}
		return
	}
	if l.live.lost {
		return // the loss was the answer
	}
	switch c.Kind {
	case core.CommandRun:
		w.enqueue(l, &c)
	case core.CommandCancel:
		w.takeOut(l, &c)
	case core.CommandMessage:
		w.deliverMessage(l, &c)
	}
}

func (w *world) create(l *lane, c *core.Command) {
	img := w.images[c.Entity][c.Generation]
	if img == nil {
		w.problem("entity %d created from image %d, which does not exist", c.Entity, c.Generation)
		return
	}
	if l.live != nil {
		w.problem("entity %d created in epoch %d while epoch %d lives", c.Entity, c.Epoch, l.live.epoch)
	}
	if !w.healing && w.chance(25) {
		l.over = c.Epoch
		w.refuse(l, c, core.CauseMemory)
		return
	}
	l.live = &resident{epoch: c.Epoch, memory: img.memory.clone()}
	for _, j := range w.entities[c.Entity].jobs {
		j.clock = img.clocks[j.spec.ID]
	}
	w.report(l, core.BackendEvent{Kind: core.EventApplied, Epoch: c.Epoch, Command: c.Seq})
}

// destroy reports what the jobs in the ring executed, then the end.
func (w *world) destroy(l *lane, c *core.Command) {
	if r := l.live; r != nil {
		if r.epoch > c.Epoch {
			return
		}
		for _, x := range r.ring {
			if !r.lost && x.ran > 0 {
				w.report(l, x.event(core.EventCancelled, r))
			}
		}
		l.over, l.live = r.epoch, nil
	}
	l.over = max(l.over, c.Epoch)
	delete(w.plant.samples, l.id)
	w.report(l, core.BackendEvent{Kind: core.EventDestroyed, Epoch: c.Epoch, Command: c.Seq})
}

func (w *world) enqueue(l *lane, c *core.Command) {
	j := w.jobs[c.Job]
	if j == nil {
		w.problem("job %d runs and nobody knows it", c.Job)
		return
	}
	if j.trait == unloadable && !w.healing || !w.healing && w.chance(80) && !w.medium.jobs[c.Job].Phase.Final() {
		j.refused, w.entities[l.id].faults = true, w.entities[l.id].faults+1
		w.refuse(l, c, core.CauseKernel)
		return
	}
	r := l.live
	if len(r.ring) == 0 && r.memory.of(c.Job) != c.First {
		w.problem("job %d runs from %d, its memory holds %d", c.Job, c.First, r.memory.of(c.Job))
	}
	r.ring = append(r.ring, &running{job: j})
}

func (w *world) takeOut(l *lane, c *core.Command) {
	r := l.live
	if !r.suspended {
		w.problem("job %d taken out while its entity is on the hardware", c.Job)
	}
	for i, x := range r.ring {
		if x.job.spec.ID == c.Job {
			r.ring = slices.Delete(r.ring, i, i+1)
			w.report(l, x.event(core.EventCancelled, r))
			return
		}
	}
}

func (w *world) deliverMessage(l *lane, c *core.Command) {
	done := core.BackendEvent{Kind: core.EventMessageDone, Epoch: c.Epoch, Command: c.Seq}
	switch {
	case c.Message == core.MessageSuspend:
		l.live.suspended = true
		done.Cost = workgroup
	case c.Message == core.MessageResume:
		l.live.suspended = false
	case c.Message != core.MessageBarrier && !w.healing && w.chance(8):
		w.refuse(l, c, core.CauseRefused)
		return
	default:
		done.Reply = c.Payload
	}
	w.report(l, done)
}

func (x *running) event(kind core.BackendEventKind, r *resident) core.BackendEvent {
	return core.BackendEvent{
		Kind: kind, Epoch: r.epoch, Job: x.job.spec.ID, Entity: x.job.spec.Entity,
		Done: r.memory.of(x.job.spec.ID), Executed: x.ran, ExecutedTime: x.spent,
	}
}

// executes reports whether work of the entity can happen.
func (l *lane) executes() bool {
	return l.live != nil && !l.live.suspended && !l.live.lost && !l.live.hung && len(l.live.ring) > 0
}

// execute runs a few workgroups of one entity.
func (w *world) execute() {
	l := w.pickLane((*lane).executes)
	if l == nil {
		return
	}
	r := l.live
	x := r.ring[0]
	j := x.job
	w.checkExecute(l, j)
	r.begun = true
	if x.ran == 0 {
		w.report(l, core.BackendEvent{Kind: core.EventStarted, Epoch: r.epoch, Job: j.spec.ID})
	}
	done := r.memory.of(j.spec.ID)
	n := min(1+w.rand.Uint64N(4), j.spec.Workgroups()-done)
	if j.trait != honest && j.trait != slow && !w.healing && done+n > j.at && !w.medium.jobs[j.spec.ID].Phase.Final() {
		w.misbehave(l, x)
		return
	}
	if !r.memory.add(j.spec, n) {
		w.problem("job %d: %d workgroups out of their turn on %v", j.spec.ID, n, r.memory)
	}
	cost := time.Duration(n) * workgroup
	if j.trait == slow {
		cost *= 3
	}
	x.ran, x.spent = x.ran+n, x.spent+cost
	j.ran, j.clock = j.ran+n, j.clock+cost
	w.usage[core.UsageKey{Job: j.spec.ID, Epoch: r.epoch}] += n
	w.note("execute e=%d j=%d +%d", l.id, j.spec.ID, n)
	if done+n == j.spec.Workgroups() {
		r.ring = r.ring[1:]
		if s, ok := w.plant.samples[l.id]; ok && s.Job == j.spec.ID && !w.chance(4) {
			delete(w.plant.samples, l.id)
		}
		w.report(l, x.event(core.EventCompleted, r))
		return
	}
	w.plant.samples[l.id] = x.event(core.EventProgress, r)
}

// misbehave has the job show its trait.
func (w *world) misbehave(l *lane, x *running) {
	e := w.entities[l.id]
	e.faults++
	x.job.guilty = true
	switch x.job.trait {
	case traps:
		w.lost(l, x, true, core.CauseTrap)
	case hangs, hangsSeen:
		w.counts["hang"]++
		l.live.hung = true
	}
}

// lost reports that the entity's state on the device is gone.
func (w *world) lost(l *lane, x *running, guilty bool, cause core.Cause) {
	ev := core.BackendEvent{Kind: core.EventEntityLost, Epoch: l.live.epoch}
	if x != nil {
		ev = x.event(core.EventEntityLost, l.live)
	}
	ev.Guilty, ev.Cause, ev.Error = guilty, cause, "lost"
	l.live.lost = true
	delete(w.plant.samples, l.id)
	w.report(l, ev)
}

// reportHang has the driver find a hang, as far as it can.
func (w *world) reportHang() {
	l := w.pickLane(func(l *lane) bool {
		return l.live != nil && l.live.hung && !l.live.lost && l.live.ring[0].job.trait == hangsSeen
	})
	if l != nil {
		l.live.hung = false
		w.lost(l, l.live.ring[0], true, core.CauseHang)
	}
}

// lose has an entity lose its state, by no fault of its own or by it.
func (w *world) lose(guilty bool) {
	l := w.pickLane(func(l *lane) bool { return l.live != nil && !l.live.lost && !l.live.hung })
	if l == nil {
		return
	}
	var x *running
	if len(l.live.ring) > 0 {
		x = l.live.ring[0]
	}
	if !guilty {
		w.counts["victim"]++
		w.lost(l, x, false, core.CauseNone)
		return
	}
	if x != nil {
		w.counts["guilty"]++
		w.entities[l.id].faults++
		x.job.guilty = true
		w.lost(l, x, true, core.CauseTrap)
	}
}

// failDevice has the device as a whole fail: nothing is done until there is a
// new instance.
func (w *world) failDevice() {
	if w.plant != nil && !w.plant.failed {
		w.counts["device failed"]++
		w.plant.failed = true
		w.plant.seq++
		w.plant.events = append(w.plant.events, core.BackendEvent{
			Kind: core.EventDeviceHealth, Seq: w.plant.seq, Error: "dead",
		})
	}
}
