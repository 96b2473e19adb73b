package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// NewEntity is an entity to create. The manager gives out the identifiers.
type NewEntity struct {
	// Spec without ID; Device is chosen already.
	Spec core.EntitySpec
	// Image holds the initial buffers.
	Image   core.ImageSource
	Kernels []core.Kernel
	Jobs    []NewJob
}

// NewJob is a job of a new entity. ID, Entity, Seq and After of the
// specification are filled in by the manager.
type NewJob struct {
	Spec  core.JobSpec
	After []string
}

// Create creates entities with their jobs, all or nothing: the first images
// are on disk before one transaction makes the records. They begin to run at
// once. Names must be unique among them; After may name jobs of any of them.
// The identifiers come back in the order of entities.
func (m *Manager) Create(ctx context.Context, entities []NewEntity) ([]core.EntityID, error) {
	return m.Replace(ctx, nil, entities)
}

// Replace is Create, and Remove of entities that are off every device, in the
// same transaction: after an error they are as they were.
func (m *Manager) Replace(_ context.Context, old []core.EntityID, entities []NewEntity) ([]core.EntityID, error) {
	records, err := m.number(entities)
	if err != nil {
		return nil, err
	}
	w := &core.Write{}
	for i := range entities {
		if err := m.firstImage(&records[i], &entities[i]); err != nil {
			return nil, fmt.Errorf("create entity %s: %w", entities[i].Spec.Name, err)
		}
		rec := &records[i]
		w.Entities = append(w.Entities, rec.Spec)
		w.EntityStates = append(w.EntityStates, rec.State)
		for _, j := range rec.Jobs {
			w.Jobs = append(w.Jobs, j.Spec)
			w.JobStates = append(w.JobStates, j.State)
		}
	}
	m.mu.Lock()
	w.NextEntity, w.NextJob = m.mu.entity, m.mu.job
	m.mu.Unlock()
	removed, err := m.commitWithout(w, old)
	if err != nil {
		return nil, fmt.Errorf("record entities: %w", err)
	}
	m.learn(records)
	var ids []core.EntityID
	for i := range records {
		ids = append(ids, records[i].Spec.ID)
		if err := m.begin(records[i]); err != nil {
			return ids, err
		}
	}
	return ids, m.forget(removed)
}

// begin hands a recorded entity to the loop of its device. Nothing interrupts it
// but the end of the loop: what is on record must be in a loop.
func (m *Manager) begin(rec core.EntityRecord) error {
	m.mu.Lock()
	d := m.mu.devices[rec.Spec.Device]
	m.mu.places[rec.Spec.ID] = d
	m.mu.Unlock()
	if d == nil {
		return fmt.Errorf("device %s: %w", rec.Spec.Device, core.ErrNotFound)
	}
	_, err := ask(context.Background(), d, func() (struct{}, error) {
		d.add(rec)
		return struct{}{}, nil
	})
	if err == nil && rec.State.Goal == core.GoalRun && d.supervisor != nil {
		d.supervisor.start()
	}
	return err
}

// number gives out identifiers and resolves the names of awaited jobs.
func (m *Manager) number(entities []NewEntity) ([]core.EntityRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := make(map[string]core.JobID)
	records := make([]core.EntityRecord, len(entities))
	for i := range entities {
		rec := &records[i]
		rec.Spec = entities[i].Spec
		rec.Spec.ID = m.mu.entity
		m.mu.entity++
		if m.mu.devices[rec.Spec.Device] == nil {
			return nil, fmt.Errorf("entity %s: device %s: %w", rec.Spec.Name, rec.Spec.Device, core.ErrNotFound)
		}
		rec.State = core.EntityState{
			ID: rec.Spec.ID, Goal: core.GoalRun, Residency: core.Away, Generation: 1,
		}
		for k := range entities[i].Jobs {
			spec := entities[i].Jobs[k].Spec
			spec.ID, spec.Entity, spec.Seq = m.mu.job, rec.Spec.ID, core.JobSeq(k+1)
			m.mu.job++
			if _, taken := ids[spec.Name]; taken {
				return nil, fmt.Errorf("job %s: %w", spec.Name, core.ErrExists)
			}
			ids[spec.Name] = spec.ID
			rec.Jobs = append(rec.Jobs, core.JobRecord{
				Spec: &spec, State: core.JobState{ID: spec.ID, Entity: spec.Entity, Phase: core.JobHeld},
			})
		}
	}
	for i := range entities {
		for k := range entities[i].Jobs {
			for _, name := range entities[i].Jobs[k].After {
				id, ok := ids[name]
				if !ok {
					return nil, fmt.Errorf("job %s comes after %s: %w", entities[i].Jobs[k].Spec.Name, name, core.ErrNotFound)
				}
				spec := records[i].Jobs[k].Spec
				spec.After = append(spec.After, id)
			}
		}
	}
	return records, acyclic(records)
}

// acyclic refuses jobs that wait for each other in a circle: each waits for those
// that it names, and for the one before it in its entity. Nothing can be added to a job
// on record, so that no circle comes to be later.
func acyclic(records []core.EntityRecord) error {
	specs, waits, next := make(map[core.JobID]*core.JobSpec), make(map[core.JobID]int), make(map[core.JobID][]core.JobID)
	for i := range records {
		for k, j := range records[i].Jobs {
			before := j.Spec.After
			if k > 0 {
				before = append(before[:len(before):len(before)], records[i].Jobs[k-1].Spec.ID)
			}
			specs[j.Spec.ID], waits[j.Spec.ID] = j.Spec, len(before)
			for _, id := range before {
				next[id] = append(next[id], j.Spec.ID)
			}
		}
	}
	var free []core.JobID
	for id, n := range waits {
		if n == 0 {
			free = append(free, id)
		}
	}
	for len(free) > 0 {
		id := free[len(free)-1]
		free = free[:len(free)-1]
		delete(waits, id)
		for _, after := range next[id] {
			if waits[after]--; waits[after] == 0 {
				free = append(free, after)
			}
		}
	}
	if len(waits) == 0 {
		return nil
	}
	return fmt.Errorf("job %s can never run: %w", specs[slices.Min(slices.Collect(maps.Keys(waits)))].Name, core.ErrCycle)
}

// firstImage writes image 1, the initial buffers, and the kernels.
func (m *Manager) firstImage(rec *core.EntityRecord, e *NewEntity) error {
	images := m.config.Images
	id := rec.Spec.ID
	if err := images.Remove(id); err != nil {
		return err
	}
	for _, k := range e.Kernels {
		if err := images.PutKernel(id, k); err != nil {
			return err
		}
	}
	w, err := images.Begin(id, 1)
	if err != nil {
		return err
	}
	defer w.Abort()
	err = e.Image.Chunks(func(ref core.ChunkRef, data []byte) error {
		if w.Has(ref.Digest) {
			data = nil
		}
		return w.Put(ref, data)
	})
	if err != nil {
		return err
	}
	header := e.Image.Header()
	header.Version, header.Entity, header.Buffers = core.ImageVersion, id, rec.Spec.Buffers
	return w.Commit(header)
}

// Remove deletes entities that are off every device, with their jobs and
// images, all or none. A job elsewhere that comes after one of their jobs which
// has no outcome is dependency-failed.
func (m *Manager) Remove(_ context.Context, ids []core.EntityID) error {
	removed, err := m.commitWithout(&core.Write{}, ids)
	if err != nil {
		return fmt.Errorf("remove entities: %w", err)
	}
	return m.forget(removed)
}

// commitWithout takes entities out of their loops and commits w with their
// removal. After an error they are back. What it returns is to be forgotten.
func (m *Manager) commitWithout(w *core.Write, ids []core.EntityID) ([]core.EntityRecord, error) {
	var out []core.EntityRecord
	var err error
	for _, id := range ids {
		var rec core.EntityRecord
		if rec, err = m.takeOut(id); err != nil {
			break
		}
		out = append(out, rec)
	}
	if err == nil {
		w.RemoveEntities = ids
		err = m.commit(w)
	}
	if err == nil {
		return out, nil
	}
	for _, rec := range out {
		if e := m.begin(rec); e != nil {
			m.config.Log.Error("entity not put back", "entity", rec.Spec.Name, "error", e)
		}
	}
	return nil, err
}

// forget forgets entities that are not on record any more, and removes their images.
func (m *Manager) forget(removed []core.EntityRecord) error {
	if len(removed) == 0 {
		return nil
	}
	m.unlearn(removed)
	for i := range removed {
		if err := m.config.Images.Remove(removed[i].Spec.ID); err != nil {
			return fmt.Errorf("remove image: %w", err)
		}
	}
	return nil
}

// takeOut takes an entity out of the loop of its device, once all that was
// decided about it is on record.
func (m *Manager) takeOut(id core.EntityID) (core.EntityRecord, error) {
	d, err := m.place(id)
	if err != nil {
		return core.EntityRecord{}, err
	}
	type answer struct {
		rec core.EntityRecord
		err error
	}
	answers := make(chan answer, 1)
	var settle func(error)
	settle = func(failed error) {
		if failed != nil {
			answers <- answer{err: failed}
			return
		}
		if d.undecided(id) {
			d.whenCommitted(settle)
			return
		}
		rec, err := d.remove(id)
		answers <- answer{rec, err}
	}
	if !d.do(func() { settle(nil) }) {
		return core.EntityRecord{}, errStopped
	}
	select { // not ended by a context: an entity taken out has to be put somewhere
	case a := <-answers:
		return a.rec, a.err
	case <-d.stopped:
		return core.EntityRecord{}, errStopped
	}
}

// unlearn forgets the jobs of removed entities, but for outcomes that somebody
// may still ask for, and lets those go on that waited for them.
func (m *Manager) unlearn(records []core.EntityRecord) {
	m.mu.Lock()
	var open []core.Fence
	for i := range records {
		open = append(open, m.mu.fences.forget(&records[i])...)
		delete(m.mu.places, records[i].Spec.ID)
		for _, j := range records[i].Jobs {
			id := j.Spec.ID
			if m.mu.awaited[id] && j.State.Phase.Final() {
				continue
			}
			delete(m.mu.jobNames, id)
			delete(m.mu.outcomes, id)
		}
	}
	devices := m.devicesLocked()
	m.mu.Unlock()
	for _, d := range devices {
		d.do(d.feedAll)
		for _, fence := range open {
			d.do(func() {
				_ = d.step(&sched.Event{Kind: sched.EventSignal, Fence: fence, Error: "its entity was removed"})
			})
		}
	}
}

// Update changes what may change of an entity: device, properties and result
// files. An entity that is to move must be off its device.
func (m *Manager) Update(ctx context.Context, spec core.EntitySpec) error {
	from, err := m.place(spec.ID)
	if err != nil {
		return err
	}
	m.mu.Lock()
	to := m.mu.devices[spec.Device]
	m.mu.Unlock()
	switch to {
	case nil:
		return fmt.Errorf("device %s: %w", spec.Device, core.ErrNotFound)
	case from:
		return m.updateHere(ctx, from, spec)
	}
	rec, err := m.takeOut(spec.ID)
	if err != nil {
		return fmt.Errorf("move entity %s: %w", spec.Name, err)
	}
	if err := m.commit(&core.Write{Entities: []core.EntitySpec{spec}}); err != nil {
		return errors.Join(fmt.Errorf("record entity: %w", err), m.begin(rec))
	}
	rec.Spec = spec
	return m.begin(rec)
}

// updateHere changes an entity that stays where it is.
func (m *Manager) updateHere(ctx context.Context, d *device, spec core.EntitySpec) error {
	if err := m.commit(&core.Write{Entities: []core.EntitySpec{spec}}); err != nil {
		return fmt.Errorf("record entity: %w", err)
	}
	_, err := ask(ctx, d, func() (struct{}, error) {
		r := d.records[spec.ID]
		if r == nil {
			return struct{}{}, fmt.Errorf("entity %d: %w", spec.ID, core.ErrNotFound)
		}
		r.spec = spec
		err := d.step(&sched.Event{
			Kind: sched.EventProperties, Entity: spec.ID, Properties: spec.Properties, OnFailure: spec.OnFailure,
		})
		d.flush(r)
		return struct{}{}, err
	})
	return err
}

// Retime changes the timeouts of jobs of an entity; those that have their outcome
// already are left alone. It returns when that is durable.
func (m *Manager) Retime(ctx context.Context, id core.EntityID, timeouts map[core.JobID]time.Duration) error {
	d, err := m.place(id)
	if err != nil {
		return err
	}
	changed, err := ask(ctx, d, func() ([]*core.JobSpec, error) { return d.retimed(id, timeouts) })
	if err != nil || len(changed) == 0 {
		return err
	}
	if err := m.commit(&core.Write{Jobs: changed}); err != nil {
		return fmt.Errorf("record timeouts: %w", err)
	}
	_, err = ask(ctx, d, func() (struct{}, error) {
		d.retime(id, changed)
		return struct{}{}, nil
	})
	return err
}

// retimed returns the specifications that would change.
func (d *device) retimed(id core.EntityID, timeouts map[core.JobID]time.Duration) ([]*core.JobSpec, error) {
	r := d.records[id]
	if r == nil {
		return nil, fmt.Errorf("entity %d: %w", id, core.ErrNotFound)
	}
	var changed []*core.JobSpec
	for _, j := range r.jobs {
		timeout, named := timeouts[j.spec.ID]
		if !named || timeout == j.spec.Timeout || j.state.Phase.Final() {
			continue
		}
		spec := *j.spec
		spec.Timeout = timeout
		changed = append(changed, &spec)
	}
	return changed, nil
}

// retime takes over specifications that are on record.
func (d *device) retime(id core.EntityID, changed []*core.JobSpec) {
	r := d.records[id]
	if r == nil {
		return
	}
	for _, spec := range changed {
		r.byID[spec.ID].spec = spec
		err := d.step(&sched.Event{Kind: sched.EventTimeout, Entity: id, Job: spec.ID, By: spec.Timeout})
		if err != nil && !errors.Is(err, core.ErrNotFound) { // not submitted yet, or done with
			d.log.Error("timeout not changed", "entity", r.spec.Name, "job", spec.Name, "error", err)
		}
	}
}
