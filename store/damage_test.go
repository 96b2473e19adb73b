package store

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// closedStore makes a store with two entities and returns its directory.
func closedStore(t *testing.T) string {
	t.Helper()
	db, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, db, entityWrite(1, 1, 3))
	mustCommit(t, db, entityWrite(2, 4, 5))
	mustCommit(t, db, &core.Write{Instances: []core.InstanceRecord{{Instance: "x1"}}, Session: 5})
	for id := core.EntityID(1); id <= 2; id++ {
		if err := newMemory(id, rand.New(rand.NewSource(1)), 1000).write(db.Images(), 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return db.dir
}

func TestBadRecordsAreSetAside(t *testing.T) {
	put := func(bucket string, key, value []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key, value) }
	}
	remove := func(bucket string, key []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete(key) }
	}
	other, _ := json.Marshal(entitySpec(9))
	tests := []struct {
		name     string
		edit     func(*bolt.Tx) error
		sentence string
		entities int
	}{
		{"spec cut", put(bucketEntitySpecs, entityKey(1), []byte("{")), "entity 1 with its 3 jobs: spec: 1 bytes", 1},
		{"spec without checksum", put(bucketEntitySpecs, entityKey(1), other), "entity 1 with its 3 jobs: spec: checksum", 1},
		{"spec of another", put(bucketEntitySpecs, entityKey(1), seal(other)), "record of entity 9 under entity 1", 1},
		{"spec not JSON", put(bucketEntitySpecs, entityKey(1), seal([]byte("x"))), "invalid character", 1},
		{"spec gone", remove(bucketEntitySpecs, entityKey(1)), "entity 1 with its 3 jobs: state without a spec", 1},
		{"state gone", remove(bucketEntityStates, entityKey(1)), `entity 1 "e1" with its 3 jobs: spec without a state`, 1},
		{"state bad", put(bucketEntityStates, entityKey(1), nil), `entity 1 "e1" with its 3 jobs: state: 0 bytes`, 1},
		{"job spec bad", put(bucketJobSpecs, jobKey(1, 2), []byte("12345")), "job 2: spec: checksum", 1},
		{"job state bad", put(bucketJobStates, jobKey(1, 2), []byte("12345")), "job 2: state: checksum", 1},
		{"job state gone", remove(bucketJobStates, jobKey(1, 2)), "job 2: spec without a state", 1},
		{"job spec gone", remove(bucketJobSpecs, jobKey(1, 2)), "job 2: state without a spec", 1},
		{"stray key", put(bucketJobSpecs, []byte("stray"), nil), "job_specs 7374726179: key of 5 bytes", 2},
		{"instance bad", put(bucketInstances, []byte("x1"), nil), "instances 7831: 0 bytes", 2},
		{"counter bad", put(bucketCounters, []byte(counterSession), []byte("123456789012")), "counters 73657373696f6e: checksum", 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := closedStore(t)
			edit(t, filepath.Join(dir, "state.db"), tt.edit)
			db := openStore(t, dir)
			s := mustLoad(t, db)
			if len(s.Quarantined) != 1 || !strings.Contains(s.Quarantined[0], tt.sentence) {
				t.Errorf("quarantined %q, want %q", s.Quarantined, tt.sentence)
			}
			if len(s.Entities) != tt.entities || s.NextEntity != 3 || s.NextJob != 6 || s.Session < 5 {
				t.Errorf("%d entities, next %d and %d, session %d", len(s.Entities), s.NextEntity, s.NextJob, s.Session)
			}
			mustCommit(t, db, &core.Write{NextJob: 7})
			if err := db.Images().Sweep(func(id core.EntityID) bool { return id == 2 }); err != nil {
				t.Fatal(err)
			}
			// Quarantine is emptied by hand only, and protects the image.
			again := reload(t, db)
			if again.Quarantined != nil {
				t.Errorf("reported twice: %q", again.Quarantined)
			}
			_, err := os.Stat(db.images.path(1))
			if kept := err == nil; kept != (tt.entities == 1) {
				t.Errorf("image kept: %v", kept)
			}
		})
	}
}

func TestDamagedStateIsSetAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty":   func([]byte) []byte { return nil },
		"cut":     func(b []byte) []byte { return b[:3*pageSize] },
		"garbage": func(b []byte) []byte { return bytes.Repeat([]byte("garbage!"), len(b)/8) },
		"metas":   func(b []byte) []byte { clear(b[:2*pageSize]); return b },
		"pages":   func(b []byte) []byte { clear(b[2*pageSize:]); return b },
		"ones": func(b []byte) []byte {
			for i := 2 * pageSize; i < len(b); i++ {
				b[i] = 0xff
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := closedStore(t)
			path := filepath.Join(dir, "state.db")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := damage(b)
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			db := openStore(t, dir)
			s := mustLoad(t, db)
			if len(s.Quarantined) != 1 || !strings.Contains(s.Quarantined[0], "state.db.damaged-1") {
				t.Errorf("quarantined %q", s.Quarantined)
			}
			if len(s.Entities) != 0 {
				t.Error("records out of nothing")
			}
			mustCommit(t, db, entityWrite(1, 1, 1))
			kept, err := os.ReadFile(path + ".damaged-1")
			if err != nil || !bytes.Equal(kept, damaged) {
				t.Errorf("damaged file is not kept as it was: %v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "images.damaged-1", filepath.Base(db.images.path(1)))); err != nil {
				t.Error(err)
			}
			if _, err := readMemory(db.Images(), 1, 1); err == nil {
				t.Error("the new store shows an image of the old")
			}
		})
	}
}

// TestAnyDamagedPage overwrites each page, one at a time: the store opens, or
// sets the file aside, and works on.
func TestAnyDamagedPage(t *testing.T) {
	dir := closedStore(t)
	whole, err := os.ReadFile(filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewSource(1))
	for page := range len(whole) / pageSize {
		b := bytes.Clone(whole)
		random.Read(b[page*pageSize : (page+1)*pageSize])
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "state.db"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(dir, Options{})
		if err != nil {
			t.Fatalf("page %d: %v", page, err)
		}
		mustLoad(t, db)
		mustCommit(t, db, &core.Write{Session: 77})
		if s := mustLoad(t, db); s.Session < 77 {
			t.Errorf("page %d: session %d", page, s.Session)
		}
		if err := db.Close(); err != nil {
			t.Errorf("page %d: %v", page, err)
		}
	}
}

func TestStateIsRebuiltAfterADamagedWrite(t *testing.T) {
	dir := closedStore(t)
	edit(t, filepath.Join(dir, "state.db"), func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketInstances)).Put([]byte("bad"), nil)
	})
	db := openStore(t, dir)
	want := mustLoad(t, db)
	mustCommit(t, db, &core.Write{Session: 6})
	want.Quarantined, want.Session = nil, 6
	db.fault = func(step string) error {
		if step == "inside" {
			panic("page 7 already freed")
		}
		return nil
	}
	wantError(t, "commit", commit(db, &core.Write{Session: 8}), core.ErrCorrupt)
	db.fault = nil
	got := reload(t, db)
	if len(got.Quarantined) != 1 || !strings.Contains(got.Quarantined[0], "met damage") {
		t.Errorf("quarantined %q", got.Quarantined)
	}
	got.Quarantined = nil
	same(t, "records", want, got)
	if _, err := os.Stat(filepath.Join(dir, "state.db.damaged-1")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "state.db"+suspectSuffix)); err == nil {
		t.Error("the mark is still there")
	}
}

func TestOtherErrorsDoNotSetAside(t *testing.T) {
	dir := closedStore(t)
	path := filepath.Join(dir, "state.db")
	held, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Options{Timeout: time.Millisecond})
	wantError(t, "open file", err, core.ErrBusy)
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".x"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); err == nil {
		t.Error("a directory opened as a file")
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".x", path); err != nil {
		t.Fatal(err)
	}
	if s := mustLoad(t, openStore(t, dir)); len(s.Entities) != 2 || s.Quarantined != nil {
		t.Errorf("%d entities, %q", len(s.Entities), s.Quarantined)
	}
}

func FuzzRecords(f *testing.F) {
	for _, v := range []any{entitySpec(1), entityState(1), jobSpec(1, 1, 1), jobState(1, 1), core.InstanceRecord{Instance: "12345678"}} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(jobKey(1, 1), b, true)
		f.Add(entityKey(1), b, true)
		f.Add(entityKey(1), b, false)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, sealed bool) {
		if sealed {
			value = seal(bytes.Clone(value))
		}
		if s, err := decodeEntitySpec(key, value); err == nil {
			again(t, s, func(b []byte) (any, error) { return decodeEntitySpec(key, b) })
		}
		if s, err := decodeEntityState(key, value); err == nil {
			again(t, s, func(b []byte) (any, error) { return decodeEntityState(key, b) })
		}
		if s, err := decodeJobSpec(key, value); err == nil {
			again(t, s, func(b []byte) (any, error) { return decodeJobSpec(key, b) })
		}
		if s, err := decodeJobState(key, value); err == nil {
			again(t, s, func(b []byte) (any, error) { return decodeJobState(key, b) })
		}
		if r, err := decodeInstance(key, value); err == nil {
			again(t, r, func(b []byte) (any, error) { return decodeInstance(key, b) })
		}
		if n, err := decodeNumber(value); err == nil && !bytes.Equal(encodeNumber(n), value) {
			t.Errorf("number %d from %x", n, value)
		}
		_, _ = decodeKernel(key, value)
		_, _ = decodeGeneration(key, value)
		_, _ = decodeGeneration(sealDigest(bytes.Clone(key)), sealDigest(bytes.Clone(value)))
	})
}

// again encodes what was decoded and decodes it once more.
func again(t *testing.T, v any, decode func([]byte) (any, error)) {
	t.Helper()
	b, err := encodeRecord(v)
	if err != nil {
		t.Fatal(err)
	}
	w, err := decode(b)
	if err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	c, err := encodeRecord(w)
	if err != nil || !bytes.Equal(b, c) {
		t.Errorf("%s became %s: %v", b, c, err)
	}
}
