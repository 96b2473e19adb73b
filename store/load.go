package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// The keys of the counters bucket.
const (
	counterSession    = "session"
	counterNextEntity = "next_entity"
	counterNextJob    = "next_job"
)

// decodersMax bounds the goroutines that decode job records; below decodeMin
// records for each, another one costs more than it gains.
const (
	decodersMax = 8
	decodeMin   = 256
)

// contents is what a file holds.
type contents struct {
	snapshot *core.Snapshot
	asides   []aside
	// quarantined are entities that are in quarantine or will be.
	quarantined map[core.EntityID]bool
}

// aside is what the next commit moves to the quarantine bucket: one record, or
// when entity is not 0 all records of that entity.
type aside struct {
	entity core.EntityID
	bucket string
	key    []byte
	reason string
}

// quarantineRecord is one record of the quarantine bucket.
type quarantineRecord struct {
	Entity core.EntityID `json:"entity,omitempty"`
	Bucket string        `json:"bucket"`
	Key    []byte        `json:"key"`
	Value  []byte        `json:"value"`
	Reason string        `json:"reason"`
	At     time.Time     `json:"at"`
}

// jobPair is a job as found: either half may be missing.
type jobPair struct {
	entity core.EntityID
	job    core.JobID
	spec   []byte
	state  []byte
}

// decodedJob is a job, or why it is bad.
type decodedJob struct {
	record core.JobRecord
	err    error
}

// readContents reads all records of a file. It fails with core.ErrCorrupt only
// when a bucket is missing; a record that is bad goes to asides.
func readContents(tx *bolt.Tx, now time.Time) (contents, error) {
	for _, name := range stateBuckets {
		if tx.Bucket([]byte(name)) == nil {
			return contents{}, fmt.Errorf("bucket %s is missing: %w", name, core.ErrCorrupt)
		}
	}
	return readRecords(func(bucket string, f func(key, value []byte) error) {
		_ = tx.Bucket([]byte(bucket)).ForEach(f)
	}, now)
}

// readRecords reads the records of whatever holds them: scan calls its function
// for the pairs of one bucket, in key order.
func readRecords(scan func(bucket string, f func(key, value []byte) error), now time.Time) (contents, error) {
	r := reading{scan: scan, bad: make(map[core.EntityID]string), specs: make(map[core.EntityID]core.EntitySpec),
		states: make(map[core.EntityID]core.EntityState)}
	r.entities()
	pairs := r.jobs()
	jobs, err := decodeJobs(pairs)
	if err != nil {
		return contents{}, err
	}
	snapshot := &core.Snapshot{NextEntity: 1, NextJob: 1}
	r.snapshot = snapshot
	r.join(pairs, jobs)
	r.instances()
	r.counters(now)
	quarantined := r.quarantine()
	return contents{snapshot: snapshot, asides: r.asides, quarantined: quarantined}, nil
}

// reading collects what one transaction shows.
type reading struct {
	scan     func(bucket string, f func(key, value []byte) error)
	snapshot *core.Snapshot
	specs    map[core.EntityID]core.EntitySpec
	states   map[core.EntityID]core.EntityState
	// bad says why an entity cannot be used.
	bad    map[core.EntityID]string
	asides []aside
	// entityMax and jobMax are the highest identifiers seen, bad ones included.
	entityMax core.EntityID
	jobMax    core.JobID
}

func (r *reading) each(bucket string, f func(key, value []byte) error) {
	r.scan(bucket, func(k, v []byte) error {
		if err := f(k, v); err != nil {
			r.asides = append(r.asides, aside{bucket: bucket, key: bytes.Clone(k),
				reason: fmt.Sprintf("%s %x: %v", bucket, k, err)})
		}
		return nil
	})
}

func (r *reading) spoil(id core.EntityID, format string, args ...any) {
	if r.bad[id] == "" {
		r.bad[id] = fmt.Sprintf(format, args...)
	}
}

func (r *reading) entities() {
	r.each(bucketEntitySpecs, func(k, v []byte) error {
		id, err := splitEntityKey(k)
		if err != nil {
			return err
		}
		r.entityMax = max(r.entityMax, id)
		spec, err := decodeEntitySpec(k, v)
		if err != nil {
			r.spoil(id, "spec: %v", err)
			return nil
		}
		r.specs[id] = spec
		return nil
	})
	r.each(bucketEntityStates, func(k, v []byte) error {
		id, err := splitEntityKey(k)
		if err != nil {
			return err
		}
		r.entityMax = max(r.entityMax, id)
		state, err := decodeEntityState(k, v)
		if err != nil {
			r.spoil(id, "state: %v", err)
			return nil
		}
		r.states[id] = state
		if _, ok := r.specs[id]; !ok {
			r.spoil(id, "state without a spec")
		}
		return nil
	})
	for id := range r.specs {
		if _, ok := r.states[id]; !ok {
			r.spoil(id, "spec without a state")
		}
	}
}

// jobs lists the jobs in key order, both halves side by side and not decoded.
func (r *reading) jobs() []jobPair {
	var pairs []jobPair
	r.each(bucketJobSpecs, func(k, v []byte) error {
		entity, job, err := splitJobKey(k)
		if err != nil {
			return err
		}
		pairs = append(pairs, jobPair{entity: entity, job: job, spec: v})
		return nil
	})
	next, specs := 0, len(pairs)
	r.each(bucketJobStates, func(k, v []byte) error {
		entity, job, err := splitJobKey(k)
		if err != nil {
			return err
		}
		for next < specs && less(&pairs[next], entity, job) {
			next++
		}
		if next < specs && pairs[next].entity == entity && pairs[next].job == job {
			pairs[next].state = v
			return nil
		}
		pairs = append(pairs, jobPair{entity: entity, job: job, state: v})
		return nil
	})
	return pairs
}

func less(p *jobPair, entity core.EntityID, job core.JobID) bool {
	return p.entity < entity || p.entity == entity && p.job < job
}

// decodeJobs decodes on several cores; the transaction stays open meanwhile.
func decodeJobs(pairs []jobPair) ([]decodedJob, error) {
	jobs := make([]decodedJob, len(pairs))
	workers := min(runtime.GOMAXPROCS(0), decodersMax, 1+len(pairs)/decodeMin)
	errs := make([]error, workers)
	var wait sync.WaitGroup
	for w := range workers {
		from, to := w*len(pairs)/workers, (w+1)*len(pairs)/workers
		wait.Go(func() {
			errs[w] = guarded(func() error {
				for i := from; i < to; i++ {
					jobs[i].record, jobs[i].err = pairs[i].decode()
				}
				return nil
			})
		})
	}
	wait.Wait()
	return jobs, errors.Join(errs...)
}

func (p *jobPair) decode() (r core.JobRecord, err error) {
	key := jobKey(p.entity, p.job)
	switch {
	case p.spec == nil:
		return r, fmt.Errorf("job %d: state without a spec", p.job)
	case p.state == nil:
		return r, fmt.Errorf("job %d: spec without a state", p.job)
	}
	if r.Spec, err = decodeJobSpec(key, p.spec); err != nil {
		return r, fmt.Errorf("job %d: spec: %w", p.job, err)
	}
	if r.State, err = decodeJobState(key, p.state); err != nil {
		return r, fmt.Errorf("job %d: state: %w", p.job, err)
	}
	return r, nil
}

// join makes the entities of the snapshot.
func (r *reading) join(pairs []jobPair, decoded []decodedJob) {
	jobs := make(map[core.EntityID][]core.JobRecord, len(r.specs))
	counts := make(map[core.EntityID]int, len(r.specs))
	for i := range pairs {
		p := &pairs[i]
		r.entityMax, r.jobMax = max(r.entityMax, p.entity), max(r.jobMax, p.job)
		counts[p.entity]++
		if err := decoded[i].err; err != nil {
			r.spoil(p.entity, "%v", err)
			continue
		}
		if _, ok := r.specs[p.entity]; !ok {
			r.spoil(p.entity, "jobs without an entity")
		}
		jobs[p.entity] = append(jobs[p.entity], decoded[i].record)
	}
	for id, list := range jobs {
		slices.SortFunc(list, func(a, b core.JobRecord) int { return cmp.Compare(a.Spec.Seq, b.Spec.Seq) })
		for i := 1; i < len(list); i++ {
			if list[i].Spec.Seq == list[i-1].Spec.Seq {
				r.spoil(id, "jobs %d and %d have the same place %d", list[i-1].Spec.ID, list[i].Spec.ID, list[i].Spec.Seq)
			}
		}
	}
	for id, spec := range r.specs {
		if r.bad[id] == "" {
			r.snapshot.Entities = append(r.snapshot.Entities, core.EntityRecord{Spec: spec, State: r.states[id], Jobs: jobs[id]})
		}
	}
	slices.SortFunc(r.snapshot.Entities, func(a, b core.EntityRecord) int { return cmp.Compare(a.Spec.ID, b.Spec.ID) })
	for id, reason := range r.bad {
		name := ""
		if spec, ok := r.specs[id]; ok {
			name = fmt.Sprintf(" %q", spec.Name)
		}
		r.asides = append(r.asides, aside{entity: id,
			reason: fmt.Sprintf("entity %d%s with its %d jobs: %s", id, name, counts[id], reason)})
	}
}

func (r *reading) instances() {
	r.each(bucketInstances, func(k, v []byte) error {
		record, err := decodeInstance(k, v)
		if err == nil {
			r.snapshot.Instances = append(r.snapshot.Instances, record)
		}
		return err
	})
}

// counters reads the counters. In place of a bad one stands the present second:
// no counter that rises by one has come so far, so no number is given out twice.
func (r *reading) counters(now time.Time) {
	values := map[string]uint64{}
	r.each(bucketCounters, func(k, v []byte) error {
		n, err := decodeNumber(v)
		if err != nil {
			n = uint64(now.Unix())
		}
		values[string(k)] = n
		return err
	})
	r.snapshot.Session = core.Session(values[counterSession])
	r.snapshot.NextEntity = max(r.snapshot.NextEntity, core.EntityID(values[counterNextEntity]), r.entityMax+1)
	r.snapshot.NextJob = max(r.snapshot.NextJob, core.JobID(values[counterNextJob]), r.jobMax+1)
}

// quarantine writes the sentences, and returns the entities in quarantine.
func (r *reading) quarantine() map[core.EntityID]bool {
	entities := make(map[core.EntityID]bool)
	slices.SortFunc(r.asides, func(a, b aside) int {
		return cmp.Or(cmp.Compare(a.entity, b.entity), cmp.Compare(a.reason, b.reason))
	})
	for i := range r.asides {
		r.snapshot.Quarantined = append(r.snapshot.Quarantined, r.asides[i].reason)
		if id := r.asides[i].entity; id != 0 {
			entities[id] = true
		}
	}
	r.scan(bucketQuarantine, func(_, v []byte) error {
		var q quarantineRecord
		if decodeRecord(v, &q) == nil && q.Entity != 0 {
			entities[q.Entity] = true
			r.snapshot.NextEntity = max(r.snapshot.NextEntity, q.Entity+1)
		}
		return nil
	})
	return entities
}

// setAside moves records to the quarantine bucket.
func setAside(tx *bolt.Tx, asides []aside, now time.Time) error {
	for _, a := range asides {
		if a.entity == 0 {
			if err := a.move(tx, a.bucket, a.key, now); err != nil {
				return err
			}
			continue
		}
		for _, name := range []string{bucketEntitySpecs, bucketEntityStates, bucketJobSpecs, bucketJobStates} {
			for _, key := range keysWithPrefix(tx.Bucket([]byte(name)), entityKey(a.entity)) {
				if len(key) != 8 && len(key) != 16 {
					continue // listed on its own
				}
				if err := a.move(tx, name, key, now); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (a *aside) move(tx *bolt.Tx, bucket string, key []byte, now time.Time) error {
	from, to := tx.Bucket([]byte(bucket)), tx.Bucket([]byte(bucketQuarantine))
	value := from.Get(key)
	if value == nil {
		return nil
	}
	n, err := to.NextSequence()
	if err != nil {
		return err
	}
	record, err := encodeRecord(quarantineRecord{Entity: a.entity, Bucket: bucket, Key: key,
		Value: value, Reason: a.reason, At: now.UTC()})
	if err != nil {
		return err
	}
	if err := to.Put(binary.BigEndian.AppendUint64(nil, n), record); err != nil {
		return err
	}
	return from.Delete(key)
}
