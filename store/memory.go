package store

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Memory holds what state.db holds, in memory: the same keys, the same sealed
// bytes, written by the same encoder and read by the same reader. It is for a
// simulation, which decides itself when a write is durable and what a crash
// loses; nothing of it survives the process. One goroutine at a time may use it.
type Memory struct {
	buckets map[string]map[string][]byte
}

// Change is one encoded write, as it goes to the medium.
type Change struct{ ops []op }

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	m := &Memory{buckets: make(map[string]map[string][]byte, len(stateBuckets))}
	for _, name := range stateBuckets {
		m.buckets[name] = make(map[string][]byte)
	}
	return m
}

// Encode returns w as the bytes that Commit would write. It has the errors of
// Commit about the write itself.
func Encode(w *core.Write) (Change, error) {
	ops, _, err := encodeWrite(w)
	return Change{ops}, err
}

// Apply makes the changes durable, in their order.
func (m *Memory) Apply(changes ...Change) {
	for _, c := range changes {
		for i := range c.ops {
			m.apply(&c.ops[i])
		}
	}
}

func (m *Memory) apply(o *op) {
	key := string(o.key)
	switch o.kind {
	case opRaise:
		counters := m.buckets[bucketCounters]
		present, err := decodeNumber(counters[key])
		wanted, _ := decodeNumber(o.value)
		if err != nil || present < wanted {
			counters[key] = o.value
		}
	case opDelete:
		delete(m.buckets[o.bucket], key)
	case opRemoveEntity:
		for _, name := range []string{bucketEntitySpecs, bucketEntityStates, bucketJobSpecs, bucketJobStates} {
			maps.DeleteFunc(m.buckets[name], func(k string, _ []byte) bool { return strings.HasPrefix(k, key) })
		}
	default:
		m.buckets[o.bucket][key] = o.value
	}
}

// Load returns everything on record, as DB.Load does. Its errors wrap core.ErrCorrupt.
func (m *Memory) Load() (*core.Snapshot, error) {
	found, err := readRecords(func(bucket string, f func(key, value []byte) error) {
		pairs := m.buckets[bucket]
		for _, k := range slices.Sorted(maps.Keys(pairs)) {
			_ = f([]byte(k), bytes.Clone(pairs[k]))
		}
	}, time.Unix(0, 0))
	return found.snapshot, err
}
