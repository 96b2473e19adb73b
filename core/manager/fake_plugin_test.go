package manager_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
)

// workgroupTime is what one workgroup takes, in virtual time.
const workgroupTime = time.Millisecond

// imageWait is how long the plugin waits for the image of a create command,
// suspendCost what it says that every suspend took.
const (
	imageWait   = 60 * time.Second
	suspendCost = 7 * time.Millisecond
)

// machine is where plugin processes live; it survives managers.
type machine struct {
	*disk
	processes map[string]*process
	started   int
	// crashAfter, when not zero, ends every process that long after its start.
	crashAfter time.Duration
	failStarts int
	refuse     bool           // adoption fails although the process lives
	version    int            // of the executable
	imageless  bool           // its devices cannot save images
	failOpens  int            // version of which no process can open a device
	names      map[int]string // what versions add to their name
	levels     map[int]int    // what versions declare
	formats    map[int]string // what devices of versions take, in place of "test"
	ran        map[core.JobID]uint64
	live       int // processes that hold entities now
	liveMax    int
	saveTime   time.Duration // what GetImage takes
	dropKernel int           // uploads of kernels that fail
	strange    int           // images that have other buffers than their entity
	credits    uint32
	// busyUntil is when suspends are taken again.
	busyUntil time.Time
}

// launcherView is the machine as one manager sees it.
type launcherView struct {
	*machine
	store *storeView
}

func (l launcherView) Prepare(backend string, devices []core.DeviceSpec) (core.InstanceRecord, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.started++
	return core.InstanceRecord{Backend: backend, Instance: fmt.Sprintf("%s-%d", backend, l.started), Devices: devices}, nil
}

func (l launcherView) Start(ctx context.Context, rec core.InstanceRecord) (manager.Instance, core.InstanceRecord, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, recorded := l.instances[rec.Instance]; !recorded && !l.store.dead {
		l.problem("instance %s started before it is on record", rec.Instance)
	}
	if l.failStarts > 0 {
		l.failStarts--
		return nil, rec, fmt.Errorf("exec: %w", core.ErrNotFound)
	}
	rec.Address = "/run/" + rec.Instance
	p := &process{machine: l.machine, name: rec.Instance, version: l.version, gone: make(chan struct{}), devices: map[string]*simulated{},
		kernels: map[core.Digest]bool{}, usage: map[core.UsageKey]uint64{}, begun: time.Now()}
	for _, d := range rec.Devices {
		p.devices[d.Name] = &simulated{entities: map[core.EntityID]*held{}, uploads: map[upload][]byte{}}
	}
	l.processes[rec.Instance] = p
	l.live++
	l.liveMax = max(l.liveMax, l.live)
	go p.run()
	return &instanceView{p, l.store}, rec, nil
}

func (l launcherView) Adopt(ctx context.Context, rec core.InstanceRecord) (manager.Instance, error) {
	pause := time.NewTimer(5 * time.Millisecond)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.processes[rec.Instance]
	if p == nil || p.ended {
		return nil, core.ErrGone
	}
	if l.refuse {
		return nil, core.ErrDeadline
	}
	return &instanceView{p, l.store}, nil
}

func (l launcherView) End(_ context.Context, rec core.InstanceRecord) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.processes[rec.Instance]; p != nil {
		p.end()
	}
	return nil
}

func (l launcherView) Outdated(rec core.InstanceRecord) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.processes[rec.Instance]
	return p != nil && p.version != l.version
}

func (l launcherView) Usage(rec core.InstanceRecord) (map[core.UsageKey]uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.processes[rec.Instance]; p != nil {
		return maps.Clone(p.usage), nil
	}
	return nil, nil
}

func (l launcherView) Discard(core.InstanceRecord) error { return nil }

func (l launcherView) Sweep(func(string) bool) error { return nil }

// process is one plugin process: a scripted backend on virtual time.
type process struct {
	*machine
	name    string
	version int
	begun   time.Time
	ended   bool
	gone    chan struct{}
	devices map[string]*simulated
	kernels map[core.Digest]bool
	usage   map[core.UsageKey]uint64
}

type upload struct {
	entity core.EntityID
	epoch  core.Epoch
}

// simulated is one device of a process.
type simulated struct {
	entities map[core.EntityID]*held
	uploads  map[upload][]byte
	queue    []core.Command
	events   []core.BackendEvent // not acknowledged
	seq      core.EventSeq
	session  core.Session
	link     *link
}

// held is one entity on a device.
type held struct {
	epoch     core.Epoch
	applied   core.CommandSeq
	waiting   time.Time // for its image, since
	suspended bool
	lost      bool
	memory    map[core.JobID]uint64
	ring      []*running
}

type running struct {
	spec  *core.JobSpec
	ran   uint64
	since time.Time
}

// end ends the process; the machine is locked.
func (p *process) end() {
	if p.ended {
		return
	}
	p.ended = true
	p.live--
	close(p.gone)
	for _, d := range p.devices {
		d.down()
	}
}

func (d *simulated) down() {
	if d.link != nil {
		close(d.link.down)
		d.link = nil
	}
}

// run is the process: each millisecond it takes commands, runs a workgroup of
// each entity, and reports.
func (p *process) run() {
	for {
		time.Sleep(workgroupTime)
		p.mu.Lock()
		if p.crashAfter > 0 && time.Since(p.begun) >= p.crashAfter {
			p.end()
		}
		if p.ended {
			p.mu.Unlock()
			return
		}
		type delivery struct {
			to     func([]core.BackendEvent)
			events []core.BackendEvent
		}
		var deliveries []delivery
		for _, name := range slices.Sorted(maps.Keys(p.devices)) {
			d := p.devices[name]
			p.take(d)
			progress := p.work(d)
			if d.link == nil || d.link.store.dead {
				continue
			}
			events := append(slices.Clone(d.events[d.link.sent:]), progress...)
			d.link.sent = len(d.events)
			if len(events) > 0 {
				deliveries = append(deliveries, delivery{d.link.deliver, events})
			}
		}
		p.mu.Unlock()
		for _, dl := range deliveries {
			dl.to(dl.events)
		}
	}
}

func (p *process) report(d *simulated, ev core.BackendEvent) {
	d.seq++
	ev.Seq = d.seq
	d.events = append(d.events, ev)
}

// take carries out the commands that are not held up.
func (p *process) take(d *simulated) {
	var left []core.Command
	blocked := map[core.EntityID]bool{}
	for _, c := range d.queue {
		if blocked[c.Entity] || !p.carryOut(d, &c) {
			blocked[c.Entity] = true
			left = append(left, c)
		}
	}
	d.queue = left
}

// carryOut returns false when the command has to wait for its image.
func (p *process) carryOut(d *simulated, c *core.Command) bool {
	h := d.entities[c.Entity]
	ev := core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job}
	if c.Kind == core.CommandCreate {
		return p.create(d, h, c, ev)
	}
	switch {
	case h == nil && c.Kind == core.CommandDestroy:
		ev.Kind = core.EventDestroyed
		p.report(d, ev)
		return true
	case h == nil || h.epoch != c.Epoch || c.Seq <= h.applied:
		return true
	case c.Message == core.MessageSuspend && time.Now().Before(p.busyUntil):
		return false
	}
	h.applied = c.Seq
	switch c.Kind {
	case core.CommandRun:
		if h.memory[c.Job] != c.First {
			p.problem("job %d runs from %d, its memory holds %d", c.Job, c.First, h.memory[c.Job])
		}
		h.ring = append(h.ring, &running{spec: c.JobSpec, since: time.Now()})
	case core.CommandCancel:
		for i, r := range h.ring {
			if r.spec.ID == c.Job {
				h.ring = slices.Delete(h.ring, i, i+1)
				ev.Kind, ev.Done, ev.Executed = core.EventCancelled, h.memory[c.Job], r.ran
				p.report(d, ev)
				break
			}
		}
	case core.CommandMessage:
		switch c.Message {
		case core.MessageSuspend:
			h.suspended = true
			ev.Cost = suspendCost
		case core.MessageResume:
			h.suspended = false
		}
		p.report(d, ev)
	case core.CommandDestroy:
		delete(d.entities, c.Entity)
		ev.Kind = core.EventDestroyed
		p.report(d, ev)
	}
	return true
}

func (p *process) create(d *simulated, h *held, c *core.Command, ev core.BackendEvent) bool {
	if h == nil || h.epoch < c.Epoch {
		h = &held{epoch: c.Epoch, waiting: time.Now()}
		d.entities[c.Entity] = h
		for _, other := range p.processes {
			for _, device := range other.devices {
				if other != p && !other.ended && device.entities[c.Entity] != nil {
					p.problem("entity %d is created on %s while %s holds it", c.Entity, p.name, other.name)
				}
			}
		}
	}
	if h.epoch != c.Epoch || h.memory != nil {
		return true
	}
	b, ok := d.uploads[upload{c.Entity, c.Epoch}]
	switch {
	case ok:
		h.memory = map[core.JobID]uint64{}
		if err := json.Unmarshal(b, &h.memory); err != nil {
			p.problem("image of entity %d: %v", c.Entity, err)
		}
		ev.Kind = core.EventApplied
	case time.Since(h.waiting) >= imageWait:
		h.memory = map[core.JobID]uint64{}
		ev.Kind, ev.Cause, ev.Error = core.EventRefused, core.CauseImage, "image did not come"
	default:
		return false
	}
	h.applied = c.Seq
	p.report(d, ev)
	return true
}

// work runs one workgroup of each entity and returns samples of progress.
func (p *process) work(d *simulated) []core.BackendEvent {
	var progress []core.BackendEvent
	for _, id := range slices.Sorted(maps.Keys(d.entities)) {
		h := d.entities[id]
		if h.suspended || h.lost || len(h.ring) == 0 {
			continue
		}
		r := h.ring[0]
		job := r.spec.ID
		ev := core.BackendEvent{Kind: core.EventProgress, Entity: id, Epoch: h.epoch, Job: job}
		if digest, needs := r.spec.Kernels["test"]; needs && !p.kernels[digest] {
			if time.Since(r.since) > 30*time.Second {
				h.ring = h.ring[1:]
				ev.Kind, ev.Cause, ev.Error = core.EventRefused, core.CauseKernel, "kernel did not come"
				p.report(d, ev)
			}
			continue
		}
		if r.ran == 0 {
			started := ev
			started.Kind = core.EventStarted
			p.report(d, started)
		}
		h.memory[job]++
		r.ran++
		p.ran[job]++
		p.usage[core.UsageKey{Job: job, Epoch: h.epoch}]++
		ev.Done, ev.Executed, ev.ExecutedTime = h.memory[job], r.ran, time.Duration(r.ran)*workgroupTime
		if h.memory[job] == r.spec.Workgroups() {
			h.ring = h.ring[1:]
			ev.Kind = core.EventCompleted
			p.report(d, ev)
			continue
		}
		progress = append(progress, ev)
	}
	return progress
}

// instanceView is a process as one manager sees it.
type instanceView struct {
	p     *process
	store *storeView
}

func (v *instanceView) Describe() core.BackendDescription {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	return core.BackendDescription{Name: "fake" + v.p.names[v.p.version], Level: v.p.levels[v.p.version]}
}
func (v *instanceView) Gone() <-chan struct{} { return v.p.gone }
func (v *instanceView) Detach()               {}

func (v *instanceView) Open(_ context.Context, spec core.DeviceSpec, session core.Session, deliver func([]core.BackendEvent)) (manager.Link, error) {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	d := v.p.devices[spec.Name]
	switch {
	case v.p.ended:
		return nil, core.ErrGone
	case v.p.failOpens != 0 && v.p.failOpens == v.p.version:
		return nil, core.ErrInvalid
	case v.store.dead:
		return nil, core.ErrDeadline
	case session <= d.session:
		v.p.problem("session %d after %d", session, d.session)
		return nil, core.ErrStale
	case v.p.session < session:
		v.p.problem("session %d opened before it is on record", session)
	}
	d.session = session
	d.down()
	d.queue = nil
	l := &link{p: v.p, d: d, store: v.store, deliver: deliver, down: make(chan struct{}), name: spec.Name}
	for _, id := range slices.Sorted(maps.Keys(d.entities)) {
		h := d.entities[id]
		l.held = append(l.held, manager.HeldEntity{Entity: id, Epoch: h.epoch, Applied: h.applied})
	}
	d.link = l
	return l, nil
}

func (v *instanceView) PutKernel(_ context.Context, _ string, k core.Kernel) error {
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	if v.p.dropKernel > 0 {
		v.p.dropKernel--
		return core.ErrDeadline
	}
	v.p.kernels[k.Digest] = true
	return nil
}

func (v *instanceView) PutImage(_ context.Context, device string, entity core.EntityID, epoch core.Epoch, src core.ImageSource) error {
	return src.Chunks(func(_ core.ChunkRef, b []byte) error {
		v.p.mu.Lock()
		defer v.p.mu.Unlock()
		v.p.devices[device].uploads[upload{entity, epoch}] = slices.Clone(b)
		return nil
	})
}

func (v *instanceView) GetImage(ctx context.Context, device string, entity core.EntityID, epoch core.Epoch, sink core.ImageSink) (core.ImageHeader, error) {
	v.p.mu.Lock()
	wait := v.p.saveTime
	v.p.mu.Unlock()
	if wait > 0 {
		pause := time.NewTimer(wait)
		defer pause.Stop()
		select {
		case <-pause.C:
		case <-ctx.Done():
			return core.ImageHeader{}, ctx.Err()
		case <-v.p.gone:
			return core.ImageHeader{}, core.ErrGone
		}
	}
	v.p.mu.Lock()
	defer v.p.mu.Unlock()
	h := v.p.devices[device].entities[entity]
	if v.p.ended || h == nil || h.epoch != epoch || h.lost {
		return core.ImageHeader{}, core.ErrGone
	}
	if !h.suspended {
		v.p.problem("entity %d saved while on the hardware", entity)
	}
	header := core.ImageHeader{Version: core.ImageVersion, Entity: entity}
	if v.p.strange > 0 {
		v.p.strange--
		header.Buffers = []core.BufferSpec{{Name: "other", Size: 1 << 40}}
	}
	for _, r := range h.ring {
		header.Jobs = append(header.Jobs, core.ImageJob{
			Job: r.spec.ID, Cursor: h.memory[r.spec.ID], Executed: r.ran, ExecutedTime: time.Duration(r.ran) * workgroupTime})
	}
	b, err := json.Marshal(h.memory)
	if err != nil {
		return header, err
	}
	return header, sink.Put(core.ChunkRef{Size: len(b)}, b)
}

// link is one session.
type link struct {
	p       *process
	d       *simulated
	name    string
	store   *storeView
	deliver func([]core.BackendEvent)
	down    chan struct{}
	held    []manager.HeldEntity
	sent    int
}

func (l *link) Describe() core.DeviceDescription {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	format := "test"
	if other := l.p.formats[l.p.version]; other != "" {
		format = other
	}
	return core.DeviceDescription{Name: l.name, Formats: []string{"more", format}, Credits: l.p.credits, SavesImages: !l.p.imageless}
}
func (l *link) Entities() []manager.HeldEntity { return l.held }
func (l *link) Down() <-chan struct{}          { return l.down }

func (l *link) Send(cmds []core.Command) bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.d.link != l || l.store.dead {
		return false
	}
	l.d.queue = append(l.d.queue, cmds...)
	return true
}

func (l *link) Ack(seq core.EventSeq) {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.d.link != l || l.store.dead {
		return
	}
	for len(l.d.events) > 0 && l.d.events[0].Seq <= seq {
		l.d.events = l.d.events[1:]
		l.sent--
	}
}

func (l *link) Close() {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.d.link == l {
		l.d.down()
	}
}
