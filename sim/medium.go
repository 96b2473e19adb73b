package sim

import (
	"errors"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/store"
)

var errDisk = errors.New("input/output error")

// medium is the disk under the records.
type medium struct {
	disk *store.Memory
	// queue are writes not synced yet, synced those whose report is due.
	queue, synced []*write
	failed        bool
	// The same, decoded, for the checks.
	entities map[core.EntityID]core.EntityState
	jobs     map[core.JobID]core.JobState
}

type write struct {
	change store.Change
	plain  *core.Write
	done   func(error)
	err    error
}

func newMedium() *medium {
	return &medium{
		disk: store.NewMemory(), entities: make(map[core.EntityID]core.EntityState),
		jobs: make(map[core.JobID]core.JobState),
	}
}

// add queues a write; done is called by a later report.
func (m *medium) add(w *world, plain *core.Write, done func(error)) {
	change, err := store.Encode(plain)
	if err != nil {
		w.problem("write refused: %v", err)
	}
	wr := &write{change: change, plain: plain, done: done}
	if m.failed {
		wr.err = errDisk
		m.synced = append(m.synced, wr)
		return
	}
	m.queue = append(m.queue, wr)
}

// sync makes up to n writes durable, as one transaction.
func (m *medium) sync(w *world, n int) {
	for _, wr := range m.queue[:min(n, len(m.queue))] {
		m.apply(w, wr)
	}
	m.queue = m.queue[min(n, len(m.queue)):]
}

func (m *medium) apply(w *world, wr *write) {
	w.checkWrite(wr.plain)
	m.disk.Apply(wr.change)
	for _, s := range wr.plain.EntityStates {
		m.entities[s.ID] = s
	}
	for _, s := range wr.plain.JobStates {
		m.jobs[s.ID] = s
	}
	for _, id := range wr.plain.RemoveEntities {
		for _, j := range w.entities[id].jobs {
			delete(m.jobs, j.spec.ID)
		}
		delete(m.entities, id)
	}
	m.synced = append(m.synced, wr)
}

// fail has the next sync fail. Whether the bytes are on disk nobody knows.
func (m *medium) fail(w *world) {
	if len(m.queue) == 0 {
		return
	}
	w.counts["failed sync"]++
	m.failed = true
	if w.chance(2) {
		m.sync(w, 1)
		m.synced[len(m.synced)-1].err = errDisk
	}
	for _, wr := range m.queue {
		wr.err = errDisk
		m.synced = append(m.synced, wr)
	}
	m.queue = nil
}

// report tells the outcome of the oldest write that has one.
func (m *medium) report() {
	if len(m.synced) > 0 {
		wr := m.synced[0]
		m.synced = m.synced[1:]
		wr.done(wr.err)
	}
}

// crash loses what is not synced, and every report.
func (m *medium) crash() { m.queue, m.synced = nil, nil }

// load reads the records; from then on writes are taken again.
func (m *medium) load() (*core.Snapshot, error) {
	m.failed = false
	return m.disk.Load()
}
