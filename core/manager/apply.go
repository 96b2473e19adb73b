package manager

import (
	"context"
	"fmt"

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
	if err := m.commit(w); err != nil {
		return nil, fmt.Errorf("record entities: %w", err)
	}
	m.learn(records)
	var ids []core.EntityID
	for i := range records {
		ids = append(ids, records[i].Spec.ID)
		if err := m.begin(ctx, records[i]); err != nil {
			return ids, err
		}
	}
	return ids, nil
}

// begin hands a recorded entity to the loop of its device.
func (m *Manager) begin(ctx context.Context, rec core.EntityRecord) error {
	m.mu.Lock()
	d := m.mu.devices[rec.Spec.Device]
	m.mu.places[rec.Spec.ID] = d
	m.mu.Unlock()
	if d == nil {
		return fmt.Errorf("device %s: %w", rec.Spec.Device, core.ErrNotFound)
	}
	_, err := ask(ctx, d, func() (struct{}, error) {
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
	return records, nil
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

// Remove deletes entities that are off every device, with their jobs and images.
func (m *Manager) Remove(ctx context.Context, ids []core.EntityID) error {
	for _, id := range ids {
		d, err := m.place(id)
		if err != nil {
			return err
		}
		if _, err := ask(ctx, d, func() (core.EntityRecord, error) { return d.remove(id) }); err != nil {
			return err
		}
		m.mu.Lock()
		delete(m.mu.places, id)
		m.mu.Unlock()
	}
	if err := m.commit(&core.Write{RemoveEntities: ids}); err != nil {
		return fmt.Errorf("remove entities: %w", err)
	}
	for _, id := range ids {
		if err := m.config.Images.Remove(id); err != nil {
			return fmt.Errorf("remove image: %w", err)
		}
	}
	return nil
}

// Update changes what may change of an entity: device, properties and result
// files. An entity that is to move must be off its device.
func (m *Manager) Update(ctx context.Context, spec core.EntitySpec) error {
	from, err := m.place(spec.ID)
	if err != nil {
		return err
	}
	if err := m.commit(&core.Write{Entities: []core.EntitySpec{spec}}); err != nil {
		return fmt.Errorf("record entity: %w", err)
	}
	if from.spec.Name == spec.Device {
		_, err = ask(ctx, from, func() (struct{}, error) {
			r := from.records[spec.ID]
			r.spec = spec
			return struct{}{}, from.step(&sched.Event{
				Kind: sched.EventProperties, Entity: spec.ID, Properties: spec.Properties,
			})
		})
		return err
	}
	rec, err := ask(ctx, from, func() (core.EntityRecord, error) { return from.remove(spec.ID) })
	if err != nil {
		return fmt.Errorf("move entity %s: %w", spec.Name, err)
	}
	rec.Spec = spec
	return m.begin(ctx, rec)
}
