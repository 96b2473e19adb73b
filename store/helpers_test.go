package store

import (
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// openStore opens dir and closes it at the end of the test, followed by a check.
func openStore(t testing.TB, dir string) *DB {
	t.Helper()
	db, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		checked(t, dir)
	})
	return db
}

// checked fails the test for every problem of the store in dir.
func checked(t testing.TB, dir string) {
	t.Helper()
	problems, err := Check(dir)
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Error("check:", p)
	}
}

// openImages uses dir for images, with a check at the end of the test.
func openImages(t testing.TB, dir string) *Images {
	t.Helper()
	im, err := OpenImages(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { checkedImages(t, dir) })
	return im
}

func checkedImages(t testing.TB, dir string) {
	t.Helper()
	problems, err := CheckImages(dir)
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		t.Error("check:", p)
	}
}

// commit commits w and waits.
func commit(db *DB, w *core.Write) error {
	done := make(chan error, 1)
	db.Commit(w, func(err error) { done <- err })
	return <-done
}

func mustCommit(t testing.TB, db *DB, w *core.Write) {
	t.Helper()
	if err := commit(db, w); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t testing.TB, db *DB) *core.Snapshot {
	t.Helper()
	s, err := db.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// reload closes db and returns what a new process would load.
func reload(t testing.TB, db *DB) *core.Snapshot {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return mustLoad(t, openStore(t, db.dir))
}

func entitySpec(id core.EntityID) core.EntitySpec {
	return core.EntitySpec{ID: id, Name: fmt.Sprint("e", id), Device: "guc0", Mode: core.ModeLongRunning,
		OnFailure: core.OnFailureStop, Properties: core.Properties{Priority: core.PriorityNormal, Checkpoint: time.Second},
		Buffers: []core.BufferSpec{{Name: "a", Size: 3 * core.ChunkSize}}, Identity: core.DigestOf([]byte{byte(id)})}
}

func entityState(id core.EntityID) core.EntityState {
	return core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away}
}

func jobSpec(entity core.EntityID, job core.JobID, seq core.JobSeq) *core.JobSpec {
	return &core.JobSpec{ID: job, Entity: entity, Seq: seq, Name: fmt.Sprint("j", job),
		Kernels: map[string]core.Digest{core.FormatWasm: core.DigestOf([]byte("kernel"))}, Entry: "main",
		Grid: [3]uint32{128, 128, 1}, Group: [3]uint32{8, 8, 1},
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "a"}, {Kind: core.ArgU32, Bits: 7}}, Credits: 1}
}

func jobState(entity core.EntityID, job core.JobID) core.JobState {
	return core.JobState{ID: job, Entity: entity, Phase: core.JobQueued, Submitted: 1763800000000000000}
}

// entityWrite makes an entity with jobs first to last.
func entityWrite(id core.EntityID, first, last core.JobID) *core.Write {
	w := &core.Write{Entities: []core.EntitySpec{entitySpec(id)}, EntityStates: []core.EntityState{entityState(id)},
		NextEntity: id + 1, NextJob: last + 1}
	for job := first; job <= last; job++ {
		w.Jobs = append(w.Jobs, jobSpec(id, job, core.JobSeq(job-first+1)))
		w.JobStates = append(w.JobStates, jobState(id, job))
	}
	return w
}

// edit changes state.db of a closed store behind its back.
func edit(t testing.TB, path string, f func(*bolt.Tx) error) {
	t.Helper()
	file, err := openFile(path, time.Second)
	if err == nil {
		err = errors.Join(file.Update(f), file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func same(t testing.TB, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// copyTree copies the files of a data directory but its lock, as a crash would
// leave them.
func copyTree(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// faultAt returns a hook that fails the n-th time it is passed, from 1, and a
// way to see whether it did.
func faultAt(n int) (hook func(string) error, hit func() bool) {
	passed := 0
	hook = func(step string) error {
		if passed++; passed == n {
			return fmt.Errorf("injected %s a transaction", step)
		}
		return nil
	}
	return hook, func() bool { return passed >= n }
}

// memory is an image in memory, a core.ImageSource's content.
type memory struct {
	header  core.ImageHeader
	buffers [][]byte
}

// newMemory makes buffers of the given sizes with random content.
func newMemory(entity core.EntityID, random *rand.Rand, sizes ...int) *memory {
	m := &memory{header: core.ImageHeader{Version: core.ImageVersion, Entity: entity, Backend: "guc", Private: []byte("ring")}}
	for i, size := range sizes {
		b := make([]byte, size)
		random.Read(b)
		m.buffers = append(m.buffers, b)
		m.header.Buffers = append(m.header.Buffers, core.BufferSpec{Name: fmt.Sprint("b", i), Size: uint64(size)})
	}
	return m
}

func (m *memory) clone() *memory {
	c := &memory{header: m.header}
	for _, b := range m.buffers {
		c.buffers = append(c.buffers, append([]byte{}, b...))
	}
	return c
}

// each calls f for every chunk.
func (m *memory) each(f func(core.ChunkRef, []byte) error) error {
	for i, b := range m.buffers {
		for index := uint64(0); index*core.ChunkSize < uint64(len(b)); index++ {
			data := b[index*core.ChunkSize : min(uint64(len(b)), (index+1)*core.ChunkSize)]
			ref := core.ChunkRef{Buffer: i, Index: index, Size: len(data), Digest: core.DigestOf(data)}
			if err := f(ref, data); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes m as generation gen; chunks that are known go by name.
func (m *memory) write(im *Images, gen core.Generation) error {
	w, err := im.Begin(m.header.Entity, gen)
	if err != nil {
		return err
	}
	err = m.each(func(ref core.ChunkRef, data []byte) error {
		if w.Has(ref.Digest) {
			data = nil
		}
		return w.Put(ref, data)
	})
	if err != nil {
		w.Abort()
		return err
	}
	return w.Commit(m.header)
}

// readMemory reads a generation back.
func readMemory(im *Images, entity core.EntityID, gen core.Generation) (*memory, error) {
	r, err := im.Open(entity, gen)
	if err != nil {
		return nil, err
	}
	m := &memory{header: r.Header()}
	for _, b := range m.header.Buffers {
		m.buffers = append(m.buffers, make([]byte, b.Size))
	}
	err = r.Chunks(func(ref core.ChunkRef, data []byte) error {
		copy(m.buffers[ref.Buffer][ref.Index*core.ChunkSize:], data)
		return nil
	})
	return m, errors.Join(err, r.Close())
}

func sameMemory(t testing.TB, im *Images, gen core.Generation, want *memory) {
	t.Helper()
	got, err := readMemory(im, want.header.Entity, gen)
	if err != nil {
		t.Fatalf("generation %d: %v", gen, err)
	}
	same(t, "header", want.header, got.header)
	for i := range want.buffers {
		if string(want.buffers[i]) != string(got.buffers[i]) {
			t.Errorf("generation %d: buffer %d differs", gen, i)
		}
	}
}

// flip inverts one byte in the middle of the first place where sample stands in a file.
func flip(t testing.TB, path string, find func([]byte) int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := find(b)
	if at < 0 {
		t.Fatalf("%s: no such bytes", filepath.Base(path))
	}
	b[at] ^= 0xff
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
