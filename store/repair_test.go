package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestLoadsBesideACommit: two devices load at once, and a third commits.
func TestLoadsBesideACommit(t *testing.T) {
	db := openStore(t, t.TempDir())
	mustCommit(t, db, entityWrite(1, 1, 3))
	done := make(chan struct{})
	var loads, commits sync.WaitGroup
	for range 2 {
		loads.Go(func() {
			for range 200 {
				s, err := db.Load()
				if err != nil || s == nil || len(s.Entities) != 1 {
					t.Errorf("load: %v, %v", s, err)
					return
				}
			}
		})
	}
	room := make(chan struct{}, 64)
	commits.Go(func() {
		for {
			select {
			case <-done:
				return
			case room <- struct{}{}:
				db.Commit(&core.Write{}, func(error) { <-room })
			}
		}
	})
	loads.Wait()
	close(done)
	commits.Wait()
}

// crashed copies a data directory at every step of an opening, as a crash there
// would leave it.
func crashed(t *testing.T, dir string) []string {
	t.Helper()
	var copies []string
	db, err := Open(dir, Options{between: func() {
		to := copyTree(t, dir)
		copies = append(copies, to)
		kept, present := "state.db.damaged-1", "state.db"
		a, _ := os.Stat(filepath.Join(dir, kept))
		b, _ := os.Stat(filepath.Join(dir, present))
		if os.SameFile(a, b) { // two names of one file, in the copy too
			if err := errors.Join(os.Remove(filepath.Join(to, kept)), os.Link(filepath.Join(to, present), filepath.Join(to, kept))); err != nil {
				t.Error(err)
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if len(copies) == 0 {
		t.Fatal("nothing was repaired")
	}
	return copies
}

// sweptStore opens dir as a start does: the images of what is not on record go.
func sweptStore(t *testing.T, dir string) (*DB, *core.Snapshot) {
	t.Helper()
	db := openStore(t, dir)
	s := mustLoad(t, db)
	err := db.Images().Sweep(func(id core.EntityID) bool {
		return slices.ContainsFunc(s.Entities, func(r core.EntityRecord) bool { return r.Spec.ID == id })
	})
	if err != nil {
		t.Fatal(err)
	}
	return db, s
}

func TestCrashInTheRepairOfState(t *testing.T) {
	dir := closedStore(t)
	mark := filepath.Join(dir, "state.db"+suspectSuffix)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for i, dir := range crashed(t, dir) {
		db, s := sweptStore(t, dir)
		if len(s.Entities) != 2 {
			t.Errorf("crash %d: %d entities", i, len(s.Entities))
		}
		for id := core.EntityID(1); id <= 2; id++ {
			if _, err := readMemory(db.Images(), id, 1); err != nil {
				t.Errorf("crash %d: %v", i, err)
			}
		}
	}
}

// wantImagesKept looks for the image of entity 1 among those that were set aside.
func wantImagesKept(t *testing.T, what, dir string) {
	t.Helper()
	kept, err := filepath.Glob(filepath.Join(dir, "images.damaged-*", "0000000000000001.img"))
	if err != nil || len(kept) != 1 {
		t.Errorf("%s: images kept: %q, %v", what, kept, err)
	}
}

func TestCrashWhileStateIsSetAside(t *testing.T) {
	dir := closedStore(t)
	path := filepath.Join(dir, "state.db")
	if err := os.Truncate(path, 3*pageSize); err != nil {
		t.Fatal(err)
	}
	for i, dir := range crashed(t, dir) {
		what := fmt.Sprint("crash ", i)
		_, s := sweptStore(t, dir)
		if len(s.Quarantined) != 1 || !strings.Contains(s.Quarantined[0], "state.db.damaged-1 with its images in images.damaged-1") {
			t.Errorf("%s: quarantined %q", what, s.Quarantined)
		}
		wantImagesKept(t, what, dir)
		if b, err := os.ReadFile(filepath.Join(dir, "state.db.damaged-1")); err != nil || len(b) != 3*pageSize {
			t.Errorf("%s: state.db kept: %d bytes, %v", what, len(b), err)
		}
	}
}

func TestLostStateSetsItsImagesAside(t *testing.T) {
	dir := closedStore(t)
	if err := os.Remove(filepath.Join(dir, "state.db")); err != nil {
		t.Fatal(err)
	}
	_, s := sweptStore(t, dir)
	if len(s.Quarantined) != 1 || !strings.Contains(s.Quarantined[0], "images.damaged-1") {
		t.Errorf("quarantined %q", s.Quarantined)
	}
	wantImagesKept(t, "lost state.db", dir)
}

func TestMadeDirectoriesAreSynced(t *testing.T) {
	base := t.TempDir()
	var synced []string
	note := func(dir string) error { synced = append(synced, dir); return nil }
	if err := makeDirectory(filepath.Join(base, "a", "b"), note); err != nil {
		t.Fatal(err)
	}
	same(t, "synced", []string{filepath.Join(base, "a"), base}, synced)
	synced = nil
	if err := makeDirectory(filepath.Join(base, "a"), note); err != nil {
		t.Fatal(err)
	}
	same(t, "synced", []string(nil), synced)
}
