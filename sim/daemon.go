package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// daemon is one life of the manager of one device.
type daemon struct {
	w      *world
	core   *sched.Core
	outbox sched.Outbox
	batch  sched.Batch
	// next is merged for the next write, after are called when it is on record.
	next    *core.Write
	nextSeq uint64
	after   []func()
	writing bool

	// ring is the room of the rings as it was told.
	ring                   uint32
	session                core.Session
	connecting, rebuilding bool
	// restarting: the schedulers have asked for a new instance, and have heard of
	// neither the end of the old one nor a new session.
	restarting bool
	// answers are what image operations and the supervisor have to tell; those
	// of one entity stay in order.
	answers []answer

	// What it knows, committed or not.
	states map[core.EntityID]core.EntityState
	jobs   map[core.JobID]core.JobState
	last   map[core.EntityID]core.JobSeq
	// held are jobs on record that no scheduler has taken yet.
	held map[core.EntityID][]*core.JobSpec

	// For the checks of this life.
	told     map[core.JobID]core.JobPhase
	messages map[core.EntityID][]*message
	waves    map[uint64]*wave
	stops    map[core.EntityID]bool // true: told that it is stopped
	waiter   uint64
}

type answer struct {
	entity core.EntityID
	do     func()
}

type wave struct {
	entities []core.EntityID // nil: all
	away     bool
	told     bool
	// gaveUp: it was told that an entity stays.
	gaveUp bool
}

type message struct {
	id      core.MessageID
	barrier sched.Barrier
	after   core.JobSeq
	sent    core.CommandSeq
	payload byte
	// answered: the schedulers have the answer, which is on its way.
	answered bool
}

// startDaemon starts the daemon from the records: start-up is recovery.
func (w *world) startDaemon() {
	if w.daemon != nil {
		return
	}
	snapshot, err := w.medium.load()
	if err != nil || len(snapshot.Quarantined) > 0 {
		w.problem("records not loaded: %v %v", err, snapshot)
		return
	}
	w.note("daemon")
	d := &daemon{
		w: w, core: sched.New(config), ring: ringMax, session: snapshot.Session,
		states: make(map[core.EntityID]core.EntityState), jobs: make(map[core.JobID]core.JobState),
		last: make(map[core.EntityID]core.JobSeq), held: make(map[core.EntityID][]*core.JobSpec),
		told: make(map[core.JobID]core.JobPhase), messages: make(map[core.EntityID][]*message),
		waves: make(map[uint64]*wave), stops: make(map[core.EntityID]bool),
	}
	w.daemon = d
	w.checkRecovered(snapshot)
	for i := range snapshot.Entities {
		d.restore(&snapshot.Entities[i])
	}
	for _, f := range slices.SortedFunc(maps.Keys(w.foreign), compareFences) {
		if why := w.foreign[f]; why != nil {
			_ = d.step(sched.Event{Kind: sched.EventSignal, Fence: f, Error: *why})
		}
	}
	if w.ended {
		d.tellGone()
	}
}

func (d *daemon) restore(r *core.EntityRecord) {
	d.states[r.Spec.ID] = r.State
	for _, j := range r.Jobs {
		d.jobs[j.Spec.ID] = j.State
		if j.State.Phase == core.JobHeld {
			d.held[r.Spec.ID] = append(d.held[r.Spec.ID], j.Spec)
			continue
		}
		d.last[r.Spec.ID] = j.Spec.Seq
	}
	if err := d.step(sched.Event{Kind: sched.EventRestore, Record: r}); err != nil {
		d.w.problem("restore entity %d: %v", r.Spec.ID, err)
	}
}

// crashDaemon ends the daemon; the instance goes on.
func (w *world) crashDaemon() {
	if w.daemon == nil {
		return
	}
	w.counts["daemon crashed"]++
	w.note("daemon crashed")
	w.medium.crash()
	w.breakLink()
	w.daemon = nil
}

// step gives the schedulers one event and takes what they decide.
func (d *daemon) step(ev sched.Event) error {
	w := d.w
	ev.Now = w.now
	w.note("step %d e=%d", ev.Kind, ev.Entity)
	err := d.core.Step(&ev, &d.batch)
	switch ev.Kind {
	case sched.EventUp:
		d.restarting = false
		for _, e := range w.entities {
			e.suspendedAt = w.now // who is to leave is asked anew
		}
	case sched.EventGone:
		d.restarting = false
	}
	if check := d.core.Check(); check != nil {
		w.problem("after event %d: %v", ev.Kind, check)
	}
	d.outbox.Add(&d.batch)
	w.checkBatch(d, &ev)
	if len(d.batch.Entities)+len(d.batch.Jobs) > 0 {
		next := d.merge()
		if ev.Kind == sched.EventSubmit && !ev.OnRecord {
			next.Jobs = append(next.Jobs, ev.Spec)
		}
		next.EntityStates = append(next.EntityStates, d.batch.Entities...)
		next.JobStates = append(next.JobStates, d.batch.Jobs...)
		d.nextSeq = d.batch.Seq
	}
	d.write()
	d.outbox.Release(d)
	return err
}

// merge returns the write that is gathered.
func (d *daemon) merge() *core.Write {
	if d.next == nil {
		d.next = &core.Write{}
	}
	return d.next
}

// then calls f when everything decided so far is on record.
func (d *daemon) then(f func()) {
	d.merge()
	d.after = append(d.after, f)
	d.write()
}

func (d *daemon) write() {
	if d.writing || d.next == nil || d.rebuilding {
		return
	}
	plain, seq, after := d.next, d.nextSeq, d.after
	d.next, d.after, d.writing = nil, nil, true
	d.w.medium.add(d.w, plain, func(err error) {
		d.writing = false
		if err != nil {
			d.commitFailed()
			return
		}
		d.outbox.Committed(seq)
		d.outbox.Release(d)
		for _, f := range after {
			f()
		}
		d.write()
	})
}

// commitFailed throws the schedulers away and rebuilds them, as after a crash.
func (d *daemon) commitFailed() {
	if d.rebuilding || d.w.daemon != d {
		return
	}
	d.rebuilding = true
	d.w.note("commit failed")
	d.w.crashDaemon()
}

// tellGone has the schedulers hear that the instance has ended.
func (d *daemon) tellGone() {
	usage := maps.Clone(d.w.usage)
	d.answers = append(d.answers, answer{0, func() {
		_ = d.step(sched.Event{Kind: sched.EventGone, Usage: usage})
		d.then(func() {
			d.w.ended = false
			clear(d.w.usage)
		})
	}})
}

// answer has one entity's oldest answer arrive.
func (w *world) answer() {
	d := w.daemon
	if d == nil || len(d.answers) == 0 {
		return
	}
	entity := d.answers[w.rand.IntN(len(d.answers))].entity
	i := slices.IndexFunc(d.answers, func(a answer) bool { return a.entity == entity })
	a := d.answers[i]
	d.answers = slices.Delete(d.answers, i, i+1)
	w.note("answer e=%d", entity)
	a.do()
}

// Command sends a command that may leave.
func (d *daemon) Command(c *core.Command) {
	w := d.w
	w.checkCommand(d, c)
	w.note("send kind=%d msg=%d e=%d ep=%d c=%d j=%d", c.Kind, c.Message, c.Entity, c.Epoch, c.Seq, c.Job)
	if w.link != nil {
		w.link.down = append(w.link.down, packet{w.link.session, *c})
	}
}

// Ack acknowledges an event.
func (d *daemon) Ack(seq core.EventSeq) {
	if l := d.w.link; l != nil {
		if seq > l.upTo {
			d.w.problem("event %d acknowledged before it came", seq)
		}
		l.acks = append(l.acks, seq)
	}
}

// Notice tells the listeners.
func (d *daemon) Notice(n *sched.Notice) { d.w.checkNotice(d, n) }

// Effect carries out what the schedulers ask of the manager.
func (d *daemon) Effect(f *sched.Effect) {
	w := d.w
	w.note("effect %d e=%d gen=%d %s", f.Kind, f.Entity, f.Generation, f.Reason)
	switch f.Kind {
	case sched.EffectRestart:
		w.counts["restart"]++
		plant := w.plant
		d.answers = append(d.answers, answer{0, func() {
			if w.plant == plant {
				w.killInstance() // ending a process takes its time
			}
		}})
	case sched.EffectRetain:
		gen, id := f.Generation, f.Entity
		d.answers = append(d.answers, answer{id, func() { w.retain(id, gen) }})
	case sched.EffectSave:
		effect, plant := *f, w.plant
		d.answers = append(d.answers, answer{f.Entity, func() { d.save(&effect, plant) }})
	}
}

func (w *world) retain(id core.EntityID, keep core.Generation) {
	if recorded := w.medium.entities[id].Generation; recorded != keep && w.medium.entities[id].ID != 0 {
		w.problem("entity %d: image %d is retained, %d is on record", id, keep, recorded)
	}
	maps.DeleteFunc(w.images[id], func(gen core.Generation, _ *image) bool { return gen != keep })
}

// save writes an image of what the instance holds, then the files that are due.
func (d *daemon) save(f *sched.Effect, plant *instance) {
	w := d.w
	if plant == nil || w.plant != plant {
		return // its end is on its way to the schedulers
	}
	reply := sched.Event{
		Kind: sched.EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation,
	}
	l := plant.lanes[f.Entity]
	switch {
	case l == nil || l.live == nil || l.live.epoch != f.Epoch || l.live.lost, plant.failed, !w.healing && w.chance(12):
		w.counts["save failed"]++
		reply.Kind, reply.Cause, reply.Error = sched.EventSaveFailed, core.CauseImage, "not saved"
	default:
		if !l.live.suspended {
			w.problem("entity %d saved while on the hardware", f.Entity)
		}
		img := &image{memory: l.live.memory.clone(), clocks: make(map[core.JobID]time.Duration)}
		for _, j := range w.entities[f.Entity].jobs {
			img.clocks[j.spec.ID] = j.clock
		}
		for _, x := range l.live.ring {
			id := x.job.spec.ID
			img.jobs = append(img.jobs, core.ImageJob{Job: id, Cursor: img.memory.of(id), Executed: x.ran, ExecutedTime: x.spent})
		}
		w.images[f.Entity][f.Generation] = img
		reply.ImageJobs = img.jobs
		if f.Final && !w.healing && w.chance(15) {
			w.counts["file not written"]++
			reply.OutputError = "no space"
		} else if f.Final {
			w.writeFiles(f.Entity, img.memory)
		}
	}
	d.answers = slices.Insert(d.answers, 0, answer{f.Entity, func() {
		if w.plant == plant {
			_ = d.step(reply)
		}
	}})
}

func (w *world) writeFiles(id core.EntityID, m memory) {
	for _, j := range w.entities[id].jobs {
		if j.spec.Flush && m.of(j.spec.ID) == j.spec.Workgroups() {
			w.files[j.spec.ID] = true
		}
	}
}
