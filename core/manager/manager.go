package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
	"github.com/hashicorp/go-hclog"
)

// Config holds the surroundings of a Manager.
type Config struct {
	Store    Store
	Images   Images
	Launcher Launcher
	// Output writes one result file from an image, so that it appears whole or not at all.
	Output func(core.SaveSpec, core.ImageSource) error
	Log    hclog.Logger
	// Devices are those to serve. Entities on record whose device is not among
	// them stay as they are.
	Devices []core.DeviceSpec
	// Sched holds the limits of the schedulers.
	Sched sched.Config
	// Now is the wall clock, asked once, by New. Default: time.Now.
	Now func() time.Time
}

// Manager runs the devices of one data directory. Its methods may be called
// from any goroutine.
type Manager struct {
	config Config
	clock  clock
	hub    *hub
	busy   sync.WaitGroup // commits and image operations under way
	detach atomic.Bool
	killed chan struct{}

	supervisors []*supervisor
	stopSupers  context.CancelFunc
	closeOnce   sync.Once

	mu struct {
		sync.Mutex
		devices  map[string]*device
		places   map[core.EntityID]*device
		outcomes map[core.JobID]core.JobPhase
		awaited  map[core.JobID]bool
		jobNames map[core.JobID]string
		fences   fences
		session  core.Session
		entity   core.EntityID
		job      core.JobID
	}
}

// New returns a Manager that has not started.
func New(config Config) *Manager {
	if config.Now == nil {
		config.Now = time.Now
	}
	m := &Manager{config: config, clock: newClock(config.Now), hub: newHub(), killed: make(chan struct{})}
	m.mu.devices = make(map[string]*device)
	m.mu.places = make(map[core.EntityID]*device)
	m.mu.outcomes = make(map[core.JobID]core.JobPhase)
	m.mu.awaited = make(map[core.JobID]bool)
	m.mu.jobNames = make(map[core.JobID]string)
	m.mu.fences = newFences()
	return m
}

// Start recovers: it loads the records, brings back the entities, and adopts or
// ends the instances on record. It returns when the loops run; adoption goes on
// beside. hold suspends every entity that it does not name, before anything
// of them can run.
func (m *Manager) Start(ctx context.Context, hold func(*core.EntityRecord) bool) error {
	snap, err := m.config.Store.Load()
	if err != nil {
		return fmt.Errorf("load records: %w", err)
	}
	for _, q := range snap.Quarantined {
		m.config.Log.Error("record set aside", "error", q)
	}
	known := make(map[core.EntityID]bool, len(snap.Entities))
	for i := range snap.Entities {
		known[snap.Entities[i].Spec.ID] = true
	}
	if err := m.config.Images.Sweep(func(id core.EntityID) bool { return known[id] }); err != nil {
		return fmt.Errorf("sweep images: %w", err)
	}
	instances := make(map[string]bool, len(snap.Instances))
	for i := range snap.Instances {
		instances[snap.Instances[i].Instance] = true
	}
	if err := m.config.Launcher.Sweep(func(name string) bool { return instances[name] }); err != nil {
		return err
	}
	m.mu.session, m.mu.entity, m.mu.job = snap.Session, snap.NextEntity, snap.NextJob
	m.learn(snap.Entities)
	m.makeDevices(snap.Entities)
	for i := range snap.Entities {
		rec := &snap.Entities[i]
		d := m.mu.devices[rec.Spec.Device]
		m.mu.places[rec.Spec.ID] = d
		d.add(*rec)
		if hold != nil && hold(rec) {
			_ = d.step(&sched.Event{Kind: sched.EventGoal, Entity: rec.Spec.ID, Goal: core.GoalSuspend})
			continue
		}
		d.wanted = d.wanted || rec.State.Goal == core.GoalRun && slices.ContainsFunc(rec.Jobs, func(j core.JobRecord) bool {
			return !j.State.Phase.Final()
		})
	}
	for _, d := range m.mu.devices {
		go d.run()
	}
	return m.supervise(ctx, snap.Instances)
}

// learn indexes the jobs on record.
func (m *Manager) learn(entities []core.EntityRecord) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range entities {
		m.mu.fences.learn(&entities[i])
		for _, j := range entities[i].Jobs {
			m.mu.jobNames[j.Spec.ID] = j.Spec.Name
			if j.State.Phase.Final() {
				m.mu.outcomes[j.Spec.ID] = j.State.Phase
			}
			for _, id := range j.Spec.After {
				m.mu.awaited[id] = true
			}
		}
	}
}

// makeDevices makes a loop for every device that is configured, or that an
// entity on record is placed on; the latter has no plugin.
func (m *Manager) makeDevices(entities []core.EntityRecord) {
	for _, spec := range m.config.Devices {
		m.mu.devices[spec.Name] = newDevice(m, spec)
	}
	for i := range entities {
		if name := entities[i].Spec.Device; m.mu.devices[name] == nil {
			m.mu.devices[name] = newDevice(m, core.DeviceSpec{Name: name})
		}
	}
}

// supervise starts a supervisor for each backend, and ends the instances on
// record that none of them can take over: what they held continues from its image.
// ctx bounds that: who cannot end them verifiably may not run anything.
func (m *Manager) supervise(ctx context.Context, instances []core.InstanceRecord) error {
	life, cancel := context.WithCancel(context.Background())
	m.stopSupers = cancel
	byBackend := make(map[string]*supervisor)
	for _, spec := range m.config.Devices {
		s := byBackend[spec.Backend]
		if s == nil {
			s = &supervisor{
				manager: m, backend: spec.Backend, log: m.config.Log.With("plugin", spec.Backend),
				restarts: make(chan string, 1), reopens: make(chan struct{}, 1),
				wake: make(chan struct{}, 1), upgrades: make(chan chan error, 1), done: make(chan struct{}),
			}
			byBackend[spec.Backend] = s
			m.supervisors = append(m.supervisors, s)
		}
		d := m.mu.devices[spec.Name]
		d.supervisor = s
		s.devices = append(s.devices, d)
	}
	var orphans []core.InstanceRecord
	for i := range instances {
		rec := &instances[i]
		s := byBackend[rec.Backend]
		if s != nil && s.recorded == nil && !rec.Candidate && rec.Address != "" && sameDevices(s.devices, rec.Devices) {
			s.recorded = rec
			continue
		}
		orphans = append(orphans, *rec)
	}
	for _, rec := range orphans {
		s := &supervisor{manager: m, backend: rec.Backend, log: m.config.Log.With("plugin", rec.Backend)}
		if rec.Candidate {
			if err := s.retire(ctx, rec, nil); err != nil {
				m.supervisors = nil
				return fmt.Errorf("end instance %s of an upgrade: %w", rec.Instance, err)
			}
			continue
		}
		for _, d := range m.devicesLocked() {
			if slices.ContainsFunc(rec.Devices, func(spec core.DeviceSpec) bool { return spec.Name == d.spec.Name }) {
				s.devices = append(s.devices, d)
			}
		}
		if err := s.bury(ctx, rec); err != nil {
			m.supervisors = nil // they do not run; Stop ends the loops
			return fmt.Errorf("end instance %s of an earlier run: %w", rec.Instance, err)
		}
	}
	for _, d := range m.devicesLocked() {
		if d.supervisor == nil || d.supervisor.recorded == nil {
			// Whatever the records say, no instance holds anything of this device.
			d.do(func() { d.instanceGone(nil) })
		}
		if d.supervisor != nil && d.wanted {
			d.supervisor.start()
		}
	}
	for _, s := range m.supervisors {
		go s.run(life)
	}
	return nil
}

func sameDevices(devices []*device, recorded []core.DeviceSpec) bool {
	var specs []core.DeviceSpec
	for _, d := range devices {
		specs = append(specs, d.spec)
	}
	return reflect.DeepEqual(specs, recorded)
}

// Stop ends the manager; Start must have returned. With detach the plugins go
// on and the next start adopts them, otherwise their processes are ended.
// ctx bounds the wait. Stopping twice is stopping once.
func (m *Manager) Stop(ctx context.Context, detach bool) error {
	m.detach.Store(detach)
	if m.stopSupers == nil {
		return nil
	}
	m.stopSupers()
	var late error
	for _, s := range m.supervisors {
		select {
		case <-s.done:
		case <-ctx.Done():
			late = fmt.Errorf("stop plugin %s: %w", s.backend, core.ErrDeadline)
		}
	}
	m.closeOnce.Do(func() {
		close(m.killed)
		for _, d := range m.devicesLocked() {
			close(d.stop)
			<-d.stopped
		}
	})
	idle := make(chan struct{})
	go func() {
		m.busy.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-ctx.Done():
		// A commit, an image or a result file is stuck in the system; the record
		// does not name what was being written.
		late = errors.Join(late, fmt.Errorf("stop commits and image operations: %w", core.ErrDeadline))
	}
	return late
}

// Kill ends the plugin processes at once; the last images stay. Stop is still
// to be called.
func (m *Manager) Kill() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // an ended context asks for SIGKILL
	var errs []error
	for _, s := range m.supervisors {
		for _, rec := range []*core.InstanceRecord{s.current.Load(), s.candidate.Load()} {
			if rec != nil {
				errs = append(errs, m.config.Launcher.End(ctx, *rec))
			}
		}
	}
	return errors.Join(errs...)
}

// Subscribe returns a subscription to all durable events.
func (m *Manager) Subscribe() *Subscription { return m.hub.subscribe() }

// devicesLocked returns the devices in the order of their names. The set does
// not change after Start.
func (m *Manager) devicesLocked() []*device {
	names := make([]string, 0, len(m.mu.devices))
	for name := range m.mu.devices {
		names = append(names, name)
	}
	slices.Sort(names)
	devices := make([]*device, len(names))
	for i, name := range names {
		devices[i] = m.mu.devices[name]
	}
	return devices
}

// commit writes and waits. After a failure the store is made to take writes
// again: who asked has the error, and everybody else is to go on.
func (m *Manager) commit(w *core.Write) error {
	done := make(chan error, 1)
	m.config.Store.Commit(w, func(err error) { done <- err })
	err := <-done
	if err == nil {
		return nil
	}
	if _, loadErr := m.config.Store.Load(); loadErr != nil {
		m.config.Log.Error("records not loaded", "error", loadErr)
	}
	return err
}

// nextSession hands out a committed session number. A disk that takes no writes
// for a moment is no reason to end an instance, so it tries until ctx ends.
func (m *Manager) nextSession(ctx context.Context) (core.Session, error) {
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		m.mu.Lock()
		m.mu.session++
		session := m.mu.session
		m.mu.Unlock()
		err := m.commit(&core.Write{Session: session})
		if err == nil {
			return session, nil
		}
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return 0, err
		}
	}
}

// Entities returns all entities as users see them, in the order of their identifiers.
func (m *Manager) Entities(ctx context.Context) ([]EntityView, error) {
	var all []EntityView
	for _, d := range m.devicesLocked() {
		views, err := read(ctx, d, func() ([]EntityView, error) {
			var views []EntityView
			for _, r := range d.records {
				views = append(views, d.view(r))
			}
			return views, nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, views...)
	}
	slices.SortFunc(all, func(a, b EntityView) int { return cmp.Compare(a.Spec.ID, b.Spec.ID) })
	return all, nil
}

// SetGoal changes what is wanted of an entity. It returns when that is durable,
// or with the reason why it is not. Asking for what is wanted already is no error.
func (m *Manager) SetGoal(ctx context.Context, id core.EntityID, goal core.Goal) error {
	request, err := m.requestGoal(id, goal)
	if err != nil {
		return err
	}
	return request.wait(ctx)
}

// SetGoals is SetGoal for several entities, all of which are asked before the
// first answer is awaited. After a failed commit it asks again, until ctx ends.
func (m *Manager) SetGoals(ctx context.Context, ids []core.EntityID, goal core.Goal) error {
	var errs []error
	for len(ids) > 0 {
		var refused, asked []core.EntityID
		var requests []*durable
		for _, id := range ids {
			request, err := m.requestGoal(id, goal)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			asked, requests = append(asked, id), append(requests, request)
		}
		for i, request := range requests {
			err := request.wait(ctx)
			if ctx.Err() == nil && errors.As(err, new(refusedError)) {
				refused = append(refused, asked[i])
				continue
			}
			errs = append(errs, err)
		}
		ids = refused // their device takes requests again when it is made anew
	}
	return errors.Join(errs...)
}

// requestGoal asks for a goal and does not wait.
func (m *Manager) requestGoal(id core.EntityID, goal core.Goal) (*durable, error) {
	d, err := m.place(id)
	if err != nil {
		return nil, err
	}
	if goal == core.GoalRun && d.supervisor != nil {
		d.supervisor.start()
	}
	return requestDurable(d, func() error {
		return d.step(&sched.Event{Kind: sched.EventGoal, Entity: id, Goal: goal})
	}), nil
}

// WaitAway waits until an entity whose goal is not to run is off its device.
func (m *Manager) WaitAway(ctx context.Context, id core.EntityID) error {
	d, err := m.place(id)
	if err != nil {
		return err
	}
	events := m.Subscribe()
	defer events.Close()
	for {
		away, err := read(ctx, d, func() (bool, error) {
			r := d.records[id]
			return r == nil || r.state.Residency == core.Away, nil
		})
		if err != nil || away {
			return err
		}
		select {
		case <-events.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// suspendAll suspends every entity of the device that is meant to run.
func (d *device) suspendAll(cause core.Cause, why string) {
	for id, r := range d.records {
		if r.state.Goal == core.GoalRun {
			_ = d.step(&sched.Event{Kind: sched.EventGoal, Entity: id, Goal: core.GoalSuspend, Cause: cause, Error: why})
		}
	}
}

func (m *Manager) place(id core.EntityID) (*device, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.mu.places[id]
	if d == nil {
		return nil, fmt.Errorf("entity %d: %w", id, core.ErrNotFound)
	}
	return d, nil
}
