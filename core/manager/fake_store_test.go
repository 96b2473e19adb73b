package manager_test

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
)

var errDisk = errors.New("disk full")

// disk is what survives managers: records, images and result files.
type disk struct {
	mu        sync.Mutex
	specs     map[core.EntityID]core.EntitySpec
	states    map[core.EntityID]core.EntityState
	jobSpecs  map[core.JobID]*core.JobSpec
	jobs      map[core.JobID]core.JobState
	instances map[string]core.InstanceRecord
	session   core.Session
	entity    core.EntityID
	job       core.JobID
	commits   int
	problems  []string

	// failCommits of the next commits fail; latency is what each takes.
	failCommits int
	failed      error
	latency     time.Duration
	queue       []queued
	writing     bool

	images     map[core.EntityID]map[core.Generation]savedImage
	kernels    map[core.Digest]core.Kernel
	corrupt    map[core.EntityID]bool
	failSaves  int // Begin fails that often
	files      map[string]string
	failOutput error
	badKernels bool // no kernel can be read
}

type queued struct {
	store *storeView
	w     *core.Write
	done  func(error)
}

type savedImage struct {
	header core.ImageHeader
	memory []byte
}

func newDisk() *disk {
	return &disk{
		specs: map[core.EntityID]core.EntitySpec{}, states: map[core.EntityID]core.EntityState{},
		jobSpecs: map[core.JobID]*core.JobSpec{}, jobs: map[core.JobID]core.JobState{},
		instances: map[string]core.InstanceRecord{}, entity: 1, job: 1, latency: time.Millisecond,
		images:  map[core.EntityID]map[core.Generation]savedImage{},
		kernels: map[core.Digest]core.Kernel{}, corrupt: map[core.EntityID]bool{}, files: map[string]string{},
	}
}

func (d *disk) problem(format string, args ...any) {
	d.problems = append(d.problems, fmt.Sprintf(format, args...))
}

// storeView is the disk as one manager sees it; when dead, nothing it does
// arrives any more, as after a crash.
type storeView struct {
	*disk
	dead bool // guarded by disk.mu
}

func (s *storeView) Load() (*core.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return nil, errDisk
	}
	if s.failCommits > 0 {
		return nil, errDisk // Load proves that the disk takes writes
	}
	s.failed = nil
	snap := &core.Snapshot{Session: s.session, NextEntity: s.entity, NextJob: s.job}
	for _, id := range slices.Sorted(maps.Keys(s.specs)) {
		rec := core.EntityRecord{Spec: s.specs[id], State: s.states[id]}
		for _, j := range slices.Sorted(maps.Keys(s.jobSpecs)) {
			if s.jobSpecs[j].Entity == id {
				rec.Jobs = append(rec.Jobs, core.JobRecord{Spec: s.jobSpecs[j], State: s.jobs[j]})
			}
		}
		snap.Entities = append(snap.Entities, rec)
	}
	for _, name := range slices.Sorted(maps.Keys(s.instances)) {
		snap.Instances = append(snap.Instances, s.instances[name])
	}
	return snap, nil
}

func (s *storeView) Commit(w *core.Write, done func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, queued{s, w, done})
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

// write commits what is queued, one after the other.
func (d *disk) write() {
	for {
		d.mu.Lock()
		if len(d.queue) == 0 {
			d.writing = false
			d.mu.Unlock()
			return
		}
		latency := d.latency
		d.mu.Unlock()
		time.Sleep(latency)
		d.mu.Lock()
		q := d.queue[0]
		d.queue = d.queue[1:]
		err := d.failed
		switch {
		case q.store.dead:
			err = errDisk
		case err == nil && d.failCommits > 0:
			d.failCommits--
			d.failed, err = errDisk, errDisk
		case err == nil:
			d.apply(q.w)
		}
		d.mu.Unlock()
		q.done(err)
	}
}

func (d *disk) apply(w *core.Write) {
	d.commits++
	for _, s := range w.Entities {
		d.specs[s.ID] = s
	}
	for _, s := range w.EntityStates {
		if _, known := d.specs[s.ID]; !known {
			d.problem("state of entity %d, which is not on record", s.ID)
		}
		d.states[s.ID] = s
	}
	for _, s := range w.Jobs {
		d.jobSpecs[s.ID] = s
	}
	for _, s := range w.JobStates {
		if old := d.jobs[s.ID]; old.Phase.Final() && old.Phase != s.Phase {
			d.problem("job %d: outcome %s became %s", s.ID, old.Phase, s.Phase)
		}
		d.jobs[s.ID] = s
	}
	for _, r := range w.Instances {
		d.instances[r.Instance] = r
	}
	for _, id := range w.RemoveEntities {
		delete(d.specs, id)
		delete(d.states, id)
		for j, s := range d.jobSpecs {
			if s.Entity == id {
				delete(d.jobSpecs, j)
				delete(d.jobs, j)
			}
		}
	}
	for _, name := range w.RemoveInstances {
		delete(d.instances, name)
	}
	d.session = max(d.session, w.Session)
	d.entity, d.job = max(d.entity, w.NextEntity), max(d.job, w.NextJob)
}

// imagesView is the image files as one manager sees them.
type imagesView struct{ *disk }

func (v imagesView) Begin(entity core.EntityID, gen core.Generation) (manager.ImageWriter, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if gen > 1 && v.failSaves > 0 {
		v.failSaves--
		return nil, errDisk
	}
	if gen > 1 && v.states[entity].Generation >= gen {
		v.problem("image %d of entity %d is on record and written again", gen, entity)
	}
	return &imageWriter{disk: v.disk, entity: entity, gen: gen}, nil
}

func (v imagesView) Open(entity core.EntityID, gen core.Generation) (manager.ImageReader, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	img, ok := v.images[entity][gen]
	switch {
	case v.corrupt[entity]:
		return nil, fmt.Errorf("image %d: %w", gen, core.ErrCorrupt)
	case !ok:
		v.problem("image %d of entity %d opened, which does not exist", gen, entity)
		return nil, fmt.Errorf("image %d: %w", gen, core.ErrNotFound)
	}
	return imageReader{img}, nil
}

func (v imagesView) Retain(entity core.EntityID, gen core.Generation) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.states[entity].Generation < gen {
		v.problem("images before %d of entity %d dropped, %d is on record", gen, entity, v.states[entity].Generation)
	}
	for g := range v.images[entity] {
		if g != gen && g < gen {
			delete(v.images[entity], g)
		}
	}
	return nil
}

func (v imagesView) PutKernel(_ core.EntityID, k core.Kernel) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kernels[k.Digest] = k
	return nil
}

func (v imagesView) Kernel(_ core.EntityID, d core.Digest) (core.Kernel, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.kernels[d]
	if v.badKernels {
		return core.Kernel{}, fmt.Errorf("kernel %s: %w", d, core.ErrCorrupt)
	}
	if !ok {
		return k, core.ErrNotFound
	}
	return k, nil
}

func (v imagesView) Remove(entity core.EntityID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.images, entity)
	return nil
}

func (v imagesView) Sweep(keep func(core.EntityID) bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	maps.DeleteFunc(v.images, func(id core.EntityID, _ map[core.Generation]savedImage) bool { return !keep(id) })
	return nil
}

type imageWriter struct {
	*disk
	entity core.EntityID
	gen    core.Generation
	memory []byte
}

func (w *imageWriter) Has(core.Digest) bool { return false }

func (w *imageWriter) Put(_ core.ChunkRef, b []byte) error {
	w.memory = append(w.memory, b...)
	return nil
}

func (w *imageWriter) Commit(h core.ImageHeader) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.images[w.entity] == nil {
		w.images[w.entity] = map[core.Generation]savedImage{}
	}
	w.images[w.entity][w.gen] = savedImage{h, w.memory}
	return nil
}

func (w *imageWriter) Abort() {}

type imageReader struct{ savedImage }

func (r imageReader) Header() core.ImageHeader { return r.header }
func (r imageReader) Close() error             { return nil }
func (r imageReader) Chunks(f func(core.ChunkRef, []byte) error) error {
	return f(core.ChunkRef{Size: len(r.memory)}, r.memory)
}

// output writes one result file: the memory as it is in the image.
func (d *disk) output(s core.SaveSpec, src core.ImageSource) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failOutput != nil {
		return d.failOutput
	}
	return src.Chunks(func(_ core.ChunkRef, b []byte) error {
		d.files[s.Path] = string(b)
		return nil
	})
}

// outcome returns the state of a job on record, by its name.
func (d *disk) outcome(name string) core.JobState {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range slices.SortedFunc(maps.Keys(d.jobSpecs), cmp.Compare) {
		if d.jobSpecs[id].Name == name {
			return d.jobs[id]
		}
	}
	return core.JobState{}
}

func (d *disk) state(id core.EntityID) core.EntityState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.states[id]
}
