package store

import (
	"bytes"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	bolt "go.etcd.io/bbolt"
)

const (
	// groupMax is the most writes of one transaction.
	groupMax = 1024
	// queuedMax bounds the records that wait for the disk, in bytes: a write
	// that finds more waiting fails with core.ErrFull.
	queuedMax = 64 << 20
	// instanceNameMax is bbolt's limit of a key, which an instance's name becomes.
	instanceNameMax = bolt.MaxKeySize
)

// entry is one write in the queue.
type entry struct {
	ops  []op
	size int
	done func(error)
	// err is set when the write is refused; it is in the queue then only to be
	// answered in its turn.
	err error
}

// op is one change of one record.
type op struct {
	kind   opKind
	bucket string
	key    []byte
	value  []byte
}

type opKind uint8

const (
	opPut opKind = iota
	// opRaise sets a counter unless it is higher already.
	opRaise
	opDelete
	// opRemoveEntity deletes an entity with its jobs.
	opRemoveEntity
)

// Commit queues w and returns at once; it has been encoded by then and may be
// changed. done, which may be nil and must not block, is called once from the
// store's goroutine, in the order of the calls, when w is on disk or is not
// going to be: core.ErrInvalid for a write without identifiers, core.ErrFull
// when 64 MiB wait already, or what the disk said. After such a failure every
// later write fails too, until Load. After Close done gets ErrClosed, from a
// goroutine of its own.
func (db *DB) Commit(w *core.Write, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	ops, size, err := encodeWrite(w)
	e := entry{ops: ops, size: size, done: done}
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.mu.closing {
		go done(ErrClosed)
		return
	}
	db.mu.read = nil
	if db.mu.failed == nil && err != nil {
		db.mu.failed = fmt.Errorf("commit: %w", err)
	}
	if db.mu.failed == nil && db.mu.queued > queuedMax {
		db.mu.failed = fmt.Errorf("commit: %d bytes wait for the disk: %w", db.mu.queued, core.ErrFull)
	}
	if db.mu.failed != nil {
		e = entry{done: done, err: db.mu.failed}
	}
	db.mu.queue = append(db.mu.queue, e)
	db.mu.queued += e.size
	db.mu.wake.Signal()
}

// write is the store's goroutine: it commits what waits, as one transaction.
func (db *DB) write() {
	defer close(db.stopped)
	for {
		group, asides := db.next()
		if group == nil {
			return
		}
		if err := db.commitGroup(group, asides); err != nil {
			db.refuse(group, fmt.Errorf("commit: %w", err))
		}
		for i := range group {
			group[i].done(group[i].err)
		}
	}
}

// next waits for writes and takes up to groupMax of them; nil means closed.
func (db *DB) next() ([]entry, []aside) {
	db.mu.Lock()
	defer db.mu.Unlock()
	for len(db.mu.queue) == 0 {
		if db.mu.closing {
			return nil, nil
		}
		db.mu.wake.Wait()
	}
	n := min(len(db.mu.queue), groupMax)
	group := db.mu.queue[:n:n]
	db.mu.queue = db.mu.queue[n:]
	for i := range group {
		db.mu.queued -= group[i].size
	}
	return group, db.mu.asides
}

// refuse fails the group, all that wait behind it, and all later writes. What
// was refused before keeps its own reason.
func (db *DB) refuse(group []entry, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.mu.failed == nil {
		db.mu.failed = err
	}
	for _, entries := range [][]entry{group, db.mu.queue} {
		for i := range entries {
			if entries[i].err == nil {
				entries[i].err, entries[i].ops = err, nil
			}
		}
	}
}

func (db *DB) commitGroup(group []entry, asides []aside) error {
	some := false
	for i := range group {
		some = some || group[i].err == nil
	}
	if !some {
		return nil
	}
	crash.Point("store.commit.before")
	err := db.update(func(tx *bolt.Tx) error {
		if err := setAside(tx, asides, db.now()); err != nil {
			return err
		}
		t := tables{tx: tx, open: make(map[string]*bolt.Bucket, len(stateBuckets))}
		for i := range group {
			for _, op := range group[i].ops {
				if err := t.apply(op); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	crash.Point("store.commit.after")
	if len(asides) > 0 {
		db.mu.Lock()
		db.mu.asides = nil
		db.mu.Unlock()
	}
	return nil
}

// tables are the buckets of one transaction, looked up once.
type tables struct {
	tx   *bolt.Tx
	open map[string]*bolt.Bucket
}

func (t *tables) bucket(name string) *bolt.Bucket {
	b := t.open[name]
	if b == nil {
		b = t.tx.Bucket([]byte(name))
		t.open[name] = b
	}
	return b
}

func (t *tables) apply(op op) error {
	switch op.kind {
	case opRaise:
		b := t.bucket(bucketCounters)
		present, err := decodeNumber(b.Get(op.key))
		wanted, _ := decodeNumber(op.value)
		if err == nil && present >= wanted {
			return nil
		}
		return b.Put(op.key, op.value)
	case opDelete:
		return t.bucket(op.bucket).Delete(op.key)
	case opRemoveEntity:
		for _, name := range []string{bucketEntitySpecs, bucketEntityStates} {
			if err := t.bucket(name).Delete(op.key); err != nil {
				return err
			}
		}
		for _, name := range []string{bucketJobSpecs, bucketJobStates} {
			b := t.bucket(name)
			for _, key := range keysWithPrefix(b, op.key) {
				if err := b.Delete(key); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return t.bucket(op.bucket).Put(op.key, op.value)
}

// keysWithPrefix copies the keys that start with prefix.
func keysWithPrefix(b *bolt.Bucket, prefix []byte) [][]byte {
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	return keys
}

// encodeWrite turns w into changes, removals last, and their size in bytes.
func encodeWrite(w *core.Write) ([]op, int, error) {
	var e encoder
	for i := range w.Entities {
		s := &w.Entities[i]
		e.put(bucketEntitySpecs, s.ID != 0, entityKey(s.ID), s)
	}
	for i := range w.EntityStates {
		s := &w.EntityStates[i]
		e.put(bucketEntityStates, s.ID != 0, entityKey(s.ID), s)
	}
	for _, s := range w.Jobs {
		e.put(bucketJobSpecs, s.ID != 0 && s.Entity != 0 && s.Seq != 0, jobKey(s.Entity, s.ID), s)
	}
	for i := range w.JobStates {
		s := &w.JobStates[i]
		e.put(bucketJobStates, s.ID != 0 && s.Entity != 0, jobKey(s.Entity, s.ID), s)
	}
	for i := range w.Instances {
		r := &w.Instances[i]
		e.put(bucketInstances, r.Instance != "" && len(r.Instance) <= instanceNameMax, []byte(r.Instance), r)
	}
	e.raise(counterSession, uint64(w.Session))
	e.raise(counterNextEntity, uint64(w.NextEntity))
	e.raise(counterNextJob, uint64(w.NextJob))
	for _, name := range w.RemoveInstances {
		e.add(op{kind: opDelete, bucket: bucketInstances, key: []byte(name)})
	}
	for _, id := range w.RemoveEntities {
		e.add(op{kind: opRemoveEntity, key: entityKey(id)})
	}
	return e.ops, e.size, e.err
}

type encoder struct {
	ops  []op
	size int
	err  error
}

func (e *encoder) add(o op) {
	e.ops = append(e.ops, o)
	e.size += len(o.key) + len(o.value)
}

func (e *encoder) put(bucket string, valid bool, key []byte, record any) {
	if !valid {
		e.err = fmt.Errorf("%s: record without its identifier: %w", bucket, core.ErrInvalid)
		return
	}
	value, err := encodeRecord(record)
	if err != nil {
		e.err = fmt.Errorf("%s: %w: %w", bucket, err, core.ErrInvalid)
		return
	}
	e.add(op{kind: opPut, bucket: bucket, key: key, value: value})
}

func (e *encoder) raise(counter string, n uint64) {
	if n != 0 {
		e.add(op{kind: opRaise, bucket: bucketCounters, key: []byte(counter), value: encodeNumber(n)})
	}
}
