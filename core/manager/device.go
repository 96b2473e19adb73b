package manager

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/core/sched"
	"github.com/hashicorp/go-hclog"
)

// device is the loop of one device. All fields belong to its goroutine.
type device struct {
	manager *Manager
	spec    core.DeviceSpec
	log     hclog.Logger
	inbox   *mailbox
	timer   *time.Timer
	stopped chan struct{}
	stop    chan struct{}

	core    *sched.Core
	outbox  sched.Outbox
	batch   sched.Batch
	records map[core.EntityID]*entityRecord

	// The one write under way, and what is merged for the next.
	writing bool
	next    *core.Write
	nextSeq uint64
	// committedSeq is the last batch that is on disk.
	committedSeq uint64
	commitRetry  time.Duration
	// rebuilding is set from a failed commit until the schedulers are made anew;
	// what would decide meanwhile is deferred.
	rebuilding bool
	deferred   []func()
	// afterCommit wait for what was decided when they came, in that order.
	afterCommit []commitWaiter
	// wanted says, at the start, that something on record is to run.
	wanted bool

	supervisor *supervisor // nil: no plugin serves this device
	instance   Instance
	link       Link
	session    core.Session
	early      map[core.Session][]core.BackendEvent
	kernels    map[core.Digest]bool // on the present instance
	operations map[core.EntityID]*operations
	formats    []string
	stale      uint64
	// hungry are entities to feed once the outbox is quiet.
	hungry []*entityRecord
	// evacuating: the entities are to stay off the instance, which is replaced.
	evacuating bool
	releasing  bool
	// sending are commands that leave together, once the outbox is quiet.
	sending []core.Command
}

// entityRecord is what is committed of an entity.
type entityRecord struct {
	spec core.EntitySpec
	// state and the jobs' states are as of the last commit.
	state core.EntityState
	jobs  []*jobRecord
	byID  map[core.JobID]*jobRecord
	// fed counts the jobs already submitted to the scheduler.
	fed int
	// decided is the last batch with a state of the entity or of a job of its.
	decided uint64
}

type jobRecord struct {
	spec  *core.JobSpec
	state core.JobState
}

func newDevice(m *Manager, spec core.DeviceSpec) *device {
	d := &device{
		manager: m, spec: spec, inbox: newMailbox(),
		log:        m.config.Log.With("device", spec.Name),
		timer:      time.NewTimer(time.Hour),
		stopped:    make(chan struct{}),
		stop:       make(chan struct{}),
		core:       sched.New(m.config.Sched),
		records:    make(map[core.EntityID]*entityRecord),
		operations: make(map[core.EntityID]*operations),
		early:      make(map[core.Session][]core.BackendEvent),
	}
	return d
}

// run is the loop.
func (d *device) run() {
	defer close(d.stopped)
	for {
		select {
		case <-d.inbox.wake:
			for _, f := range d.inbox.take() {
				f()
			}
		case <-d.timer.C:
			if !d.rebuilding {
				_ = d.step(&sched.Event{Kind: sched.EventTick})
			}
		case <-d.stop:
			for _, f := range d.inbox.close() {
				f()
			}
			d.cancelOperations()
			return
		}
		d.setTimer()
	}
}

// post has f called by the loop; false means that the loop has ended.
func (d *device) post(f func()) bool { return d.inbox.post(f) }

// do is post for what gives the schedulers an event: while they are being made
// anew it waits.
func (d *device) do(f func()) bool {
	return d.post(func() {
		if d.rebuilding {
			d.deferred = append(d.deferred, f)
			return
		}
		f()
	})
}

func (d *device) setTimer() {
	wait := time.Hour
	if at := d.core.Next(); at != 0 && !d.rebuilding {
		wait = max(0, at.Sub(d.manager.clock.now()))
	}
	d.timer.Reset(wait)
}

// step gives the schedulers one event and passes on what they decide.
func (d *device) step(ev *sched.Event) error {
	ev.Now = d.manager.clock.now()
	err := d.core.Step(ev, &d.batch)
	d.outbox.Add(&d.batch)
	if d.batch.Durable() {
		if d.next == nil {
			d.next = &core.Write{}
		}
		d.next.EntityStates = append(d.next.EntityStates, d.batch.Entities...)
		d.next.JobStates = append(d.next.JobStates, d.batch.Jobs...)
		d.nextSeq = d.batch.Seq
		d.noteDecided()
		d.commit()
	}
	d.release()
	return err
}

// noteDecided notes of which entities the batch has states.
func (d *device) noteDecided() {
	for i := range d.batch.Entities {
		if r := d.records[d.batch.Entities[i].ID]; r != nil {
			r.decided = d.batch.Seq
		}
	}
	for i := range d.batch.Jobs {
		if r := d.records[d.batch.Jobs[i].Entity]; r != nil {
			r.decided = d.batch.Seq
		}
	}
}

// release lets out what is committed. Jobs that outcomes make room for are
// submitted afterwards, which may let out more.
func (d *device) release() {
	if d.releasing {
		return
	}
	d.releasing = true
	defer func() { d.releasing = false }()
	for {
		d.outbox.Release((*deviceSink)(d))
		d.send()
		if len(d.hungry) == 0 {
			return
		}
		hungry := d.hungry
		d.hungry = nil
		for _, r := range hungry {
			d.feed(r)
			d.flush(r)
		}
	}
}

// deviceSink is where the outbox of a device lets things out.
type deviceSink device

// send passes on the commands that the outbox let out.
func (d *device) send() {
	if len(d.sending) == 0 {
		return
	}
	if d.link != nil {
		d.link.Send(d.sending)
		crash.Point("manager.command.after")
	}
	clear(d.sending)
	d.sending = d.sending[:0]
}

// Command sends a command, and starts what has to be uploaded for it.
func (s *deviceSink) Command(c *core.Command) {
	d := (*device)(s)
	if d.link == nil {
		return // it is on record; the next session repeats it
	}
	crash.Point("manager.command.before")
	switch c.Kind {
	case core.CommandCreate:
		d.upload(*c)
	case core.CommandRun:
		d.uploadKernel(c)
	}
	d.sending = append(d.sending, *c)
}

// Effect carries out what the schedulers ask of the manager.
func (s *deviceSink) Effect(f *sched.Effect) {
	d := (*device)(s)
	switch f.Kind {
	case sched.EffectSave:
		d.save(*f)
	case sched.EffectRetain:
		d.retain(*f)
	case sched.EffectRestart:
		d.log.Warn("instance restart requested", "error", f.Reason)
		if d.supervisor != nil {
			d.supervisor.restart(f.Reason)
		}
	}
}

// Notice tells the listeners.
func (s *deviceSink) Notice(n *sched.Notice) {
	d := (*device)(s)
	d.logNotice(n)
	d.manager.hub.publish(Event{Device: d.spec.Name, Notice: *n})
	if n.Kind != sched.JobChanged {
		return
	}
	if n.Phase.Final() {
		d.manager.outcome(n.Job, n.Phase)
		if r := d.records[n.Entity]; r != nil {
			if j := r.byID[n.Job]; j != nil {
				d.manager.signalOthers(d, core.Fence{Timeline: n.Entity, Seq: j.spec.Seq})
			}
			d.hungry = append(d.hungry, r)
		}
	}
}

// Ack tells the plugin that its events are durable.
func (s *deviceSink) Ack(seq core.EventSeq) {
	if s.link != nil {
		s.link.Ack(seq)
	}
}

// fromLink takes events of a session. Those of a session that the loop has not
// been told about yet wait for it, those of an ended one are dropped.
func (d *device) fromLink(session core.Session, events []core.BackendEvent) {
	switch {
	case session > d.session:
		d.early[session] = append(d.early[session], events...)
	case session < d.session || d.link == nil:
		d.stale += uint64(len(events))
	default:
		for i := range events {
			crash.Point("manager.event.before")
			d.logReport(&events[i])
			_ = d.step(&sched.Event{Kind: sched.EventBackend, Backend: &events[i]})
			crash.Point("manager.event.after")
		}
	}
}

// sessionUp takes over a new session.
func (d *device) sessionUp(instance Instance, link Link, session core.Session, fresh bool) {
	if d.instance != instance || fresh {
		d.kernels = make(map[core.Digest]bool)
	}
	d.instance, d.link, d.session = instance, link, session
	desc := link.Describe()
	d.formats = desc.Formats
	ev := sched.Event{Kind: sched.EventUp, Credits: desc.Credits}
	for _, h := range link.Entities() {
		ev.Held = append(ev.Held, sched.Held{Entity: h.Entity, Epoch: h.Epoch, Applied: h.Applied})
	}
	d.log.Debug("session opened", "session", session, "held", len(ev.Held))
	_ = d.step(&ev)
	d.uploadKernels(link.Entities())
	early := d.early[session]
	clear(d.early)
	d.fromLink(session, early)
}

// instanceGone takes the verified end of the instance.
func (d *device) instanceGone(usage map[core.UsageKey]uint64) {
	d.cancelOperations()
	d.instance, d.link, d.kernels = nil, nil, nil
	clear(d.early)
	_ = d.step(&sched.Event{Kind: sched.EventGone, Usage: usage})
}

// view returns the entity as users see it.
func (d *device) view(r *entityRecord) EntityView {
	v := EntityView{Spec: r.spec, State: r.state}
	front := true
	for _, j := range r.jobs {
		job := JobView{
			Spec: j.spec, State: j.state, Entity: r.spec.Name, Device: d.spec.Name,
			Backend: d.spec.Backend, Visible: sched.Visible(&r.state, &j.state, front),
			Done: j.state.Cursor, Executed: j.state.Executed + j.state.InEpoch,
		}
		if job.Visible == sched.VisibleBlocked {
			if wait, _ := d.manager.awaits(j.spec); !wait {
				job.Visible = sched.VisibleQueued // it is fed as soon as there is room
			}
		}
		if live, ok := d.core.Live(r.spec.ID, j.spec.ID); ok {
			job.Done = max(live.Done, j.state.Cursor)
			job.Executed = j.state.Executed + max(live.InEpoch, j.state.InEpoch)
		}
		if j.state.Phase == core.JobCompleted {
			job.Done = j.spec.Workgroups()
		}
		front = front && j.state.Phase.Final()
		v.Jobs = append(v.Jobs, job)
	}
	return v
}

// add takes over an entity whose records are committed.
func (d *device) add(rec core.EntityRecord) *entityRecord {
	r := &entityRecord{spec: rec.Spec, state: rec.State, byID: make(map[core.JobID]*jobRecord)}
	for _, j := range rec.Jobs {
		jr := &jobRecord{spec: j.Spec, state: j.State}
		r.jobs = append(r.jobs, jr)
		r.byID[j.Spec.ID] = jr
	}
	d.records[rec.Spec.ID] = r
	d.restore(r)
	return r
}

// undecided says whether states of an entity that is away wait for the disk: they
// must not come there after its removal.
func (d *device) undecided(id core.EntityID) bool {
	r := d.records[id]
	return r != nil && r.state.Residency == core.Away && r.decided > d.committedSeq
}

// remove gives an entity up; it must be away, and everything decided committed.
func (d *device) remove(id core.EntityID) (core.EntityRecord, error) {
	r := d.records[id]
	if r == nil {
		return core.EntityRecord{}, fmt.Errorf("entity %d: %w", id, core.ErrNotFound)
	}
	if err := d.step(&sched.Event{Kind: sched.EventForget, Entity: id}); err != nil {
		return core.EntityRecord{}, err
	}
	delete(d.records, id)
	rec := core.EntityRecord{Spec: r.spec, State: r.state}
	for _, j := range r.jobs {
		rec.Jobs = append(rec.Jobs, core.JobRecord{Spec: j.spec, State: j.state})
	}
	return rec, nil
}
