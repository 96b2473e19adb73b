package store

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// ErrNewerSchema is returned when a file was written by a release whose schema
// this one cannot read.
var ErrNewerSchema = errors.New("written by a newer release")

// The buckets of state.db; doc.go shows what is in them.
const (
	bucketMeta         = "meta"
	bucketEntitySpecs  = "entity_specs"
	bucketEntityStates = "entity_states"
	bucketJobSpecs     = "job_specs"
	bucketJobStates    = "job_states"
	bucketInstances    = "instances"
	bucketCounters     = "counters"
	bucketQuarantine   = "quarantine"
)

var stateBuckets = []string{
	bucketMeta, bucketEntitySpecs, bucketEntityStates, bucketJobSpecs,
	bucketJobStates, bucketInstances, bucketCounters, bucketQuarantine,
}

// firstSchema is the schema of the first release.
const firstSchema = 1

// migration is one step forward: from the schema before it to the next.
type migration struct {
	// about completes the sentence "schema n: …".
	about string
	// compatible is the lowest schema whose release still reads the result.
	compatible int
	apply      func(*bolt.Tx) error
}

// migrations are the steps from firstSchema on, in order; a new step is added
// at the end and none is ever changed. Schema 1 is current, so there is none yet.
var migrations []migration

// createState writes an empty state.db of the first schema.
func createState(now time.Time) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		for _, name := range stateBuckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		if err := putSchema(tx, firstSchema, firstSchema); err != nil {
			return err
		}
		created := []byte(now.UTC().Format(time.RFC3339))
		return tx.Bucket([]byte(bucketMeta)).Put([]byte("created"), created)
	}
}

func putSchema(tx *bolt.Tx, schema, compatible int) error {
	meta := tx.Bucket([]byte(bucketMeta))
	if err := meta.Put([]byte("schema"), strconv.AppendInt(nil, int64(schema), 10)); err != nil {
		return err
	}
	return meta.Put([]byte("compatible"), strconv.AppendInt(nil, int64(compatible), 10))
}

// readSchema returns the schema of a file and the lowest that reads it.
// Errors wrap core.ErrCorrupt.
func readSchema(tx *bolt.Tx) (schema, compatible int, err error) {
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil {
		return 0, 0, fmt.Errorf("no schema: %w", core.ErrCorrupt)
	}
	schema, err = strconv.Atoi(string(meta.Get([]byte("schema"))))
	if err != nil || schema < firstSchema {
		return 0, 0, fmt.Errorf("schema %q: %w", meta.Get([]byte("schema")), core.ErrCorrupt)
	}
	compatible, err = strconv.Atoi(string(meta.Get([]byte("compatible"))))
	if err != nil || compatible < firstSchema {
		return 0, 0, fmt.Errorf("lowest schema %q: %w", meta.Get([]byte("compatible")), core.ErrCorrupt)
	}
	return schema, compatible, nil
}

// checkSchema refuses a file that a release with schema current cannot read.
func checkSchema(schema, compatible, current int) error {
	if schema > current && compatible > current {
		return fmt.Errorf("schema %d, this release reads up to %d; use the release that wrote it: %w",
			schema, current, ErrNewerSchema)
	}
	return nil
}

// migrate brings the file at path forward with steps, after a copy to
// `<path>.schema-<n>`. All steps are one transaction: a crash leaves the old
// schema or the new one.
func migrate(db *bolt.DB, path string, steps []migration) error {
	current := firstSchema + len(steps)
	var schema, compatible int
	err := db.View(func(tx *bolt.Tx) (err error) {
		schema, compatible, err = readSchema(tx)
		return err
	})
	if err != nil {
		return err
	}
	if err := checkSchema(schema, compatible, current); err != nil {
		return err
	}
	if schema >= current {
		return nil
	}
	if err := backup(db, fmt.Sprintf("%s.schema-%d", path, schema)); err != nil {
		return fmt.Errorf("back up before the migration from schema %d: %w", schema, err)
	}
	return db.Update(func(tx *bolt.Tx) error {
		for n := schema; n < current; n++ {
			step := steps[n-firstSchema]
			if err := step.apply(tx); err != nil {
				return fmt.Errorf("migrate to schema %d (%s): %w", n+1, step.about, err)
			}
			if err := putSchema(tx, n+1, step.compatible); err != nil {
				return err
			}
		}
		return nil
	})
}

// backup writes a consistent copy of db to path.
func backup(db *bolt.DB, path string) error {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = db.View(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(f)
		return err
	})
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return replaceFile(temporary, path)
}
