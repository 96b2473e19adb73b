package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

func seeded() *rand.Rand { return rand.New(rand.NewSource(7)) }

func kernelOf(text string) core.Kernel {
	return core.Kernel{Digest: core.DigestOf([]byte(text)), Format: core.FormatWasm, Code: []byte(text)}
}

func TestImageComesBack(t *testing.T) {
	im := openImages(t, t.TempDir())
	m := newMemory(1, seeded(), 3*core.ChunkSize+5, 0, 100, 70*core.ChunkSize)
	clear(m.buffers[3][core.ChunkSize : 2*core.ChunkSize])
	m.header.Jobs = []core.ImageJob{{Job: 4, Cursor: 10, Executed: 12}}
	if err := m.write(im, 1); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, im, 1, m)
	if len(im.mu.open) != 0 {
		t.Error("file stays open when not in use")
	}
	_, err := im.Open(1, 2)
	wantError(t, "other generation", err, core.ErrNotFound)
	_, err = im.Open(2, 1)
	wantError(t, "other entity", err, core.ErrNotFound)
}

func TestZeroesAreNotStored(t *testing.T) {
	im := openImages(t, t.TempDir())
	m := newMemory(1, seeded(), 0)
	m.buffers = [][]byte{make([]byte, 100*core.ChunkSize+3)}
	m.header.Buffers[0].Size = 100*core.ChunkSize + 3
	w, err := im.Begin(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	err = m.each(func(ref core.ChunkRef, _ []byte) error { return w.Put(ref, nil) })
	if err := errors.Join(err, w.Commit(m.header)); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, im, 1, m)
	if info, err := os.Stat(im.path(1)); err != nil || info.Size() > core.ChunkSize {
		t.Errorf("file of %d bytes: %v", info.Size(), err)
	}
}

// written returns the bytes that the file's transactions wrote since it was opened.
func written(f *imageFile) int64 {
	stats := f.bolt.Stats()
	return stats.TxStats.GetPageAlloc()
}

func TestUnchangedChunksAreNotWritten(t *testing.T) {
	const chunks, changed = 400, 4
	im := openImages(t, t.TempDir())
	m := newMemory(1, seeded(), chunks*core.ChunkSize)
	f, err := im.acquire(1, true)
	if err != nil {
		t.Fatal(err)
	}
	defer f.release()
	start := written(f)
	if err := m.write(im, 1); err != nil {
		t.Fatal(err)
	}
	first := written(f) - start
	if ratio := float64(first) / (chunks * core.ChunkSize); ratio > 1.05 {
		t.Errorf("first image: %.3f bytes written for a byte", ratio)
	}
	for gen := core.Generation(2); gen < 6; gen++ {
		for i := range changed {
			m.buffers[0][(i*97+int(gen)*13)*core.ChunkSize]++
		}
		start = written(f)
		if err := errors.Join(m.write(im, gen), im.Retain(1, gen)); err != nil {
			t.Fatal(err)
		}
		ratio := float64(written(f)-start) / (changed * core.ChunkSize)
		t.Logf("generation %d: %.3f bytes written for a byte in a changed chunk", gen, ratio)
		if ratio > 1.3 {
			t.Errorf("generation %d: %.3f bytes written for a byte in a changed chunk", gen, ratio)
		}
	}
	sameMemory(t, im, 5, m)
}

func TestRetainFreesChunks(t *testing.T) {
	im := openImages(t, t.TempDir())
	random := seeded()
	var size int64
	for gen := core.Generation(1); gen <= 12; gen++ {
		m := newMemory(1, random, 8*core.ChunkSize)
		if err := errors.Join(m.write(im, gen), im.Retain(1, gen)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(im.path(1))
		if err != nil {
			t.Fatal(err)
		}
		if gen == 3 {
			size = info.Size()
		}
		if gen > 3 && info.Size() > size {
			t.Fatalf("generation %d: file grew from %d to %d bytes", gen, size, info.Size())
		}
		sameMemory(t, im, gen, m)
		_, err = im.Open(1, gen-1)
		wantError(t, "dropped generation", err, core.ErrNotFound)
	}
	wantError(t, "retain what is not there", im.Retain(1, 99), core.ErrNotFound)
	wantError(t, "retain of no entity", im.Retain(2, 1), core.ErrNotFound)
	if _, err := readMemory(im, 1, 12); err != nil {
		t.Error("a refused retain dropped something:", err)
	}
}

func TestRetainBesideAWriter(t *testing.T) {
	im := openImages(t, t.TempDir())
	old := newMemory(1, seeded(), 4*core.ChunkSize)
	other := newMemory(1, rand.New(rand.NewSource(8)), 4*core.ChunkSize)
	if err := errors.Join(old.write(im, 1), other.write(im, 2)); err != nil {
		t.Fatal(err)
	}
	w, err := im.Begin(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	_, err = im.Begin(1, 4)
	wantError(t, "second writer", err, core.ErrBusy)
	put := func(retain int) error {
		n := 0
		return old.each(func(ref core.ChunkRef, _ []byte) error {
			if n++; n == retain {
				if err := im.Retain(1, 2); err != nil {
					return err
				}
			}
			if !w.Has(ref.Digest) {
				return fmt.Errorf("chunk %d is gone", ref.Index)
			}
			return w.Put(ref, nil)
		})
	}
	if err := errors.Join(put(3), w.Commit(old.header)); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, im, 3, old)
	sameMemory(t, im, 2, other)
	if err := im.Retain(1, 3); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, im, 3, old)
}

func TestWriterRefuses(t *testing.T) {
	data := bytes.Repeat([]byte{1}, core.ChunkSize)
	ref := core.ChunkRef{Size: core.ChunkSize, Digest: core.DigestOf(data)}
	header := core.ImageHeader{Entity: 1, Buffers: []core.BufferSpec{{Name: "a", Size: 2 * core.ChunkSize}}}
	with := func(f func(*core.ChunkRef)) core.ChunkRef { r := ref; f(&r); return r }
	tests := []struct {
		name   string
		puts   []core.ChunkRef
		data   []byte
		header core.ImageHeader
		want   error
	}{
		{"hole", []core.ChunkRef{with(func(r *core.ChunkRef) { r.Index = 1 })}, data, header, core.ErrInvalid},
		{"twice", []core.ChunkRef{ref, ref}, data, header, core.ErrInvalid},
		{"negative buffer", []core.ChunkRef{with(func(r *core.ChunkRef) { r.Buffer = -1 })}, data, header, core.ErrInvalid},
		{"no size", []core.ChunkRef{with(func(r *core.ChunkRef) { r.Size = 0 })}, nil, header, core.ErrInvalid},
		{"too large", []core.ChunkRef{with(func(r *core.ChunkRef) { r.Size++ })}, data, header, core.ErrInvalid},
		{"no bytes", []core.ChunkRef{ref}, nil, header, core.ErrInvalid},
		{"other bytes", []core.ChunkRef{ref}, make([]byte, core.ChunkSize), header, core.ErrCorrupt},
		{"fewer bytes", []core.ChunkRef{ref}, data[1:], header, core.ErrCorrupt},
		{"chunk missing", []core.ChunkRef{ref}, data, header, core.ErrInvalid},
		{"other buffers", []core.ChunkRef{ref, with(func(r *core.ChunkRef) { r.Buffer = 1 })}, data, header, core.ErrInvalid},
		{"other entity", nil, data, core.ImageHeader{Entity: 2}, core.ErrInvalid},
		{"endless buffer", nil, data, core.ImageHeader{Entity: 1, Buffers: []core.BufferSpec{{Size: 1<<64 - 1}}}, core.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			im := openImages(t, t.TempDir())
			w, err := im.Begin(1, 1)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range tt.puts {
				if err = w.Put(r, tt.data); err != nil {
					break
				}
			}
			commit := w.Commit(tt.header)
			wantError(t, "commit", commit, tt.want)
			if err != nil {
				wantError(t, "put", err, tt.want)
			}
			w.Abort()
			wantError(t, "put after the end", w.Put(ref, data), core.ErrInvalid)
			wantError(t, "commit after the end", w.Commit(tt.header), core.ErrInvalid)
			_, err = im.Open(1, 1)
			wantError(t, "open", err, core.ErrNotFound)
		})
	}
	im := openImages(t, t.TempDir())
	_, err := im.Begin(0, 1)
	wantError(t, "no entity", err, core.ErrInvalid)
	_, err = im.Begin(1, 0)
	wantError(t, "no generation", err, core.ErrInvalid)
}

// TestNameOfAnotherSize puts a chunk by the name of stored bytes of another size.
func TestNameOfAnotherSize(t *testing.T) {
	im := openImages(t, t.TempDir())
	m := newMemory(1, seeded(), 100)
	if err := m.write(im, 1); err != nil {
		t.Fatal(err)
	}
	for _, digest := range []core.Digest{core.DigestOf(m.buffers[0]), zeroChunk} {
		w, err := im.Begin(1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if !w.Has(digest) {
			t.Error("chunk is unknown")
		}
		if err := w.Put(core.ChunkRef{Size: 50, Digest: digest}, nil); err != nil {
			t.Fatal(err)
		}
		m.header.Buffers = []core.BufferSpec{{Name: "b0", Size: 50}}
		wantError(t, "commit", w.Commit(m.header), core.ErrInvalid)
	}
}

func TestLeftoverGenerationIsReplaced(t *testing.T) {
	im := openImages(t, t.TempDir())
	recorded := newMemory(1, seeded(), 3*core.ChunkSize)
	leftover, again := recorded.clone(), recorded.clone()
	leftover.buffers[0][0]++
	again.buffers[0][core.ChunkSize]++
	if err := errors.Join(recorded.write(im, 1), leftover.write(im, 2), again.write(im, 2)); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, im, 2, again)
	sameMemory(t, im, 1, recorded)
	w, err := im.Begin(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	_, err = im.Open(1, 3)
	wantError(t, "aborted", err, core.ErrNotFound)
}

func TestDamagedChunk(t *testing.T) {
	dir := t.TempDir()
	im := openImages(t, dir)
	m := newMemory(1, seeded(), core.ChunkSize, 5*core.ChunkSize)
	k := kernelOf("kernel")
	if err := errors.Join(im.PutKernel(1, k), m.write(im, 1)); err != nil {
		t.Fatal(err)
	}
	flip(t, im.path(1), func(b []byte) int { return bytes.Index(b, m.buffers[1][3*core.ChunkSize+7:][:64]) })
	_, err := readMemory(im, 1, 1)
	wantError(t, "read", err, core.ErrCorrupt)
	if err == nil || !strings.Contains(err.Error(), "buffer b1: chunk 3:") {
		t.Errorf("%v does not name the chunk", err)
	}
	problems, err := CheckImages(dir)
	if err != nil || len(problems) != 1 || !strings.Contains(problems[0], "buffer b1: chunk 3: digest differs") {
		t.Errorf("check: %q, %v", problems, err)
	}
	// The next image must not rely on the bad chunk.
	if err := m.write(im, 2); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, im, 2, m)
	got, err := im.Kernel(1, k.Digest)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "kernel out of the damaged file", k, got)
	if _, err := os.Stat(im.path(1) + ".damaged-1"); err != nil {
		t.Error(err)
	}
}

func TestDamagedFile(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"empty": func([]byte) []byte { return nil },
		"cut":   func(b []byte) []byte { return b[:len(b)/2] },
		"metas": func(b []byte) []byte { clear(b[:2*pageSize]); return b },
		"pages": func(b []byte) []byte { clear(b[2*pageSize:]); return b },
		"other": func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			im := openImages(t, t.TempDir())
			m := newMemory(1, seeded(), 9*core.ChunkSize)
			if err := m.write(im, 1); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(im.path(1))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(im.path(1), damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = readMemory(im, 1, 1)
			wantError(t, "open", err, core.ErrCorrupt)
			if err := m.write(im, 2); err != nil {
				t.Fatal(err)
			}
			sameMemory(t, im, 2, m)
			if _, err := os.Stat(im.path(1) + ".damaged-1"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKernels(t *testing.T) {
	im := openImages(t, t.TempDir())
	a, b := kernelOf("a"), kernelOf("b")
	_, err := im.Kernel(1, a.Digest)
	wantError(t, "no file", err, core.ErrNotFound)
	if err := errors.Join(im.PutKernel(1, a), im.PutKernel(1, a), im.PutKernel(1, b)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(newMemory(1, seeded(), 10).write(im, 1), im.Retain(1, 1)); err != nil {
		t.Fatal(err)
	}
	for _, k := range []core.Kernel{a, b} {
		got, err := im.Kernel(1, k.Digest)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "kernel", k, got)
	}
	_, err = im.Kernel(1, core.Digest{1})
	wantError(t, "unknown kernel", err, core.ErrNotFound)
	wantError(t, "wrong digest", im.PutKernel(1, core.Kernel{Digest: core.Digest{1}, Code: a.Code}), core.ErrInvalid)
	edit(t, im.path(1), func(tx *bolt.Tx) error { return tx.Bucket([]byte(imageKernels)).Put(b.Digest[:], []byte("\x04wasmB")) })
	_, err = im.Kernel(1, b.Digest)
	wantError(t, "damaged kernel", err, core.ErrCorrupt)
	if err := im.Remove(1); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveAndSweep(t *testing.T) {
	dir := t.TempDir()
	im := openImages(t, dir)
	for id := core.EntityID(1); id <= 4; id++ {
		if err := newMemory(id, seeded(), 10).write(im, 1); err != nil {
			t.Fatal(err)
		}
	}
	im.spare = func(id core.EntityID) bool { return id == 4 }
	for _, name := range []string{"0000000000000003.img.tmp", "0000000000000002.img.damaged-1", "0000000000000003.img.damaged-1", "note.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(im.Remove(1), im.Remove(1), im.Remove(9)); err != nil {
		t.Fatal(err)
	}
	if err := im.Sweep(func(id core.EntityID) bool { return id == 3 }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	same(t, "files", []string{"0000000000000003.img", "0000000000000003.img.damaged-1", "0000000000000004.img", "note.txt"}, names)
}

func TestRemoveWhileOpen(t *testing.T) {
	im := openImages(t, t.TempDir())
	m := newMemory(1, seeded(), core.ChunkSize)
	if err := m.write(im, 1); err != nil {
		t.Fatal(err)
	}
	r, err := im.Open(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(im.Remove(1), m.write(im, 2)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Chunks(func(core.ChunkRef, []byte) error { return nil }), r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	wantError(t, "closed reader", r.Chunks(nil), core.ErrInvalid)
	sameMemory(t, im, 2, m)
}

func TestReaderStops(t *testing.T) {
	im := openImages(t, t.TempDir())
	if err := newMemory(1, seeded(), 30*core.ChunkSize).write(im, 1); err != nil {
		t.Fatal(err)
	}
	r, err := im.Open(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	stop, n := errors.New("enough"), 0
	err = r.Chunks(func(core.ChunkRef, []byte) error {
		if n++; n == 5 {
			return stop
		}
		return nil
	})
	wantError(t, "chunks", errors.Join(err, r.Close()), stop)
	if n != 5 {
		t.Errorf("%d chunks came", n)
	}
}

// TestEveryImageWriteFailsOnce fails each transaction in each of its steps; what
// was committed before stays readable, also in a copy taken at that moment.
func TestEveryImageWriteFailsOnce(t *testing.T) {
	first := newMemory(1, seeded(), 5*core.ChunkSize)
	second := newMemory(1, rand.New(rand.NewSource(9)), 5*core.ChunkSize)
	for n := 1; ; n++ {
		im := openImages(t, t.TempDir())
		im.batch = 2 * core.ChunkSize
		if err := first.write(im, 1); err != nil {
			t.Fatal(err)
		}
		hook, hit := faultAt(n)
		im.fault = func(step string) error {
			copied := openImages(t, copyTree(t, im.dir))
			r, err := copied.Open(1, 2)
			switch {
			case err == nil:
				if err := r.Close(); err != nil {
					t.Error(err)
				}
				sameMemory(t, copied, 2, second)
			case errors.Is(err, core.ErrNotFound):
				sameMemory(t, copied, 1, first)
			default:
				t.Error(err)
			}
			return hook(step)
		}
		steps := []func() error{func() error { return second.write(im, 2) }, func() error { return im.Retain(1, 2) }}
		for _, step := range steps {
			if err := step(); err != nil {
				if err := step(); err != nil {
					t.Fatalf("fault %d: the repeat fails: %v", n, err)
				}
			}
		}
		sameMemory(t, im, 2, second)
		if !hit() {
			return
		}
	}
}

func TestImagesAgainstModel(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		root, err := os.MkdirTemp(dir, "")
		if err != nil {
			rt.Fatal(err)
		}
		im, err := OpenImages(root)
		if err != nil {
			rt.Fatal(err)
		}
		im.batch = 2 * core.ChunkSize
		random := rand.New(rand.NewSource(rapid.Int64().Draw(rt, "seed")))
		present := newMemory(1, random, rapid.IntRange(0, 3*core.ChunkSize).Draw(rt, "size"), core.ChunkSize)
		model := make(map[core.Generation]*memory)
		generations := rapid.Uint64Range(1, 4)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			gen := core.Generation(generations.Draw(rt, "generation"))
			switch op := rapid.SampledFrom([]string{"write", "write", "abort", "retain", "read", "remove"}).Draw(rt, "operation"); op {
			case "write":
				b := present.buffers[rapid.IntRange(0, 1).Draw(rt, "buffer")]
				if len(b) > 0 {
					at := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
					part := b[at:min(len(b), at+rapid.IntRange(0, core.ChunkSize).Draw(rt, "length"))]
					if rapid.Bool().Draw(rt, "zero") {
						clear(part)
					} else {
						random.Read(part)
					}
				}
				if err := present.write(im, gen); err != nil {
					rt.Fatal(err)
				}
				model[gen] = present.clone()
			case "abort":
				w, err := im.Begin(1, gen)
				if err == nil {
					err = present.each(func(ref core.ChunkRef, data []byte) error { return w.Put(ref, data) })
					w.Abort()
				}
				if err != nil {
					rt.Fatal(err)
				}
			case "retain":
				err := im.Retain(1, gen)
				if model[gen] == nil {
					if !errors.Is(err, core.ErrNotFound) {
						rt.Fatalf("retain %d: %v", gen, err)
					}
				} else if err != nil {
					rt.Fatal(err)
				} else {
					model = map[core.Generation]*memory{gen: model[gen]}
				}
			case "remove":
				if err := im.Remove(1); err != nil {
					rt.Fatal(err)
				}
				clear(model)
			}
			for gen := core.Generation(1); gen <= 4; gen++ {
				got, err := readMemory(im, 1, gen)
				want := model[gen]
				switch {
				case want == nil && errors.Is(err, core.ErrNotFound):
				case want == nil || err != nil:
					rt.Fatalf("generation %d: %v, in the model: %v", gen, err, want != nil)
				case !bytes.Equal(got.buffers[0], want.buffers[0]) || !bytes.Equal(got.buffers[1], want.buffers[1]):
					rt.Fatalf("generation %d differs", gen)
				}
			}
		}
		if problems, err := CheckImages(root); err != nil || len(problems) > 0 {
			rt.Fatalf("check: %q, %v", problems, err)
		}
	})
}
