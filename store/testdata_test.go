package store

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

var rewrite = flag.Bool("rewrite", false, "write the databases of the present schema in testdata anew")

// exampleStore is what the databases in testdata hold.
func exampleStore(t *testing.T, dir string) {
	t.Helper()
	db, err := Open(dir, Options{Now: func() time.Time { return time.Unix(1763800000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	w := entityWrite(1, 1, 2)
	w.EntityStates[0].Generation, w.EntityStates[0].Cut = 1, 1
	w.JobStates[0].Phase = core.JobCompleted
	w.Instances = []core.InstanceRecord{{Backend: "guc", Instance: "x1"}}
	w.Session = 4
	mustCommit(t, db, w)
	err = errors.Join(db.Images().PutKernel(1, kernelOf("kernel")), exampleImage().write(db.Images(), 1), db.Close())
	if err != nil {
		t.Fatal(err)
	}
}

func exampleImage() *memory {
	m := newMemory(1, seeded(), 5000, 2*core.ChunkSize)
	clear(m.buffers[1])
	m.header.Jobs = []core.ImageJob{{Job: 2, Cursor: 17, Executed: 17, ExecutedTime: time.Second}}
	return m
}

// TestEarlierDatabases opens a copy of each database in testdata. With -rewrite
// the one of the present schema is made anew; those of earlier schemas never change.
func TestEarlierDatabases(t *testing.T) {
	if *rewrite {
		dir := filepath.Join("testdata", "schema-1")
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		exampleStore(t, dir)
		if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
			t.Fatal(err)
		}
	}
	found, err := filepath.Glob(filepath.Join("testdata", "schema-*"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no databases in testdata: %v", err)
	}
	fresh := t.TempDir()
	exampleStore(t, fresh)
	want := mustLoad(t, openStore(t, fresh))
	for _, dir := range found {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			db := openStore(t, copyTree(t, dir))
			same(t, "records", want, mustLoad(t, db))
			sameMemory(t, db.Images(), 1, exampleImage())
			k, err := db.Images().Kernel(1, kernelOf("kernel").Digest)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "kernel", kernelOf("kernel"), k)
			mustCommit(t, db, &core.Write{RemoveEntities: []core.EntityID{1}, Session: 5})
			same(t, "after a write", &core.Snapshot{Session: 5, NextEntity: 2, NextJob: 3, Instances: want.Instances}, mustLoad(t, db))
		})
	}
}
