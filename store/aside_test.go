package store

import (
	"math/rand"
	"os"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// TestGenerationInAFileSetAside: the recorded generation is found where Begin has
// set it aside, until the next one is on record.
func TestGenerationInAFileSetAside(t *testing.T) {
	dir := t.TempDir()
	im := openImages(t, dir)
	random := rand.New(rand.NewSource(1))
	first, second := newMemory(1, random, 1000, core.ChunkSize), newMemory(1, random, 1000, core.ChunkSize)
	kernel := core.Kernel{Digest: core.DigestOf([]byte("k")), Format: "wasm", Code: []byte("k")}
	if err := im.PutKernel(1, kernel); err != nil {
		t.Fatal(err)
	}
	if err := first.write(im, 1); err != nil {
		t.Fatal(err)
	}
	im.mu.damaged[1] = true
	if err := second.write(im, 2); err != nil {
		t.Fatal(err)
	}
	// A crash before the record names generation 2.
	im = openImages(t, dir)
	sameMemory(t, im, 1, first)
	sameMemory(t, im, 2, second)
	_, err := im.Open(1, 3)
	wantError(t, "open what never was", err, core.ErrNotFound)

	// A crash before the new file was made.
	if err := os.Remove(im.path(1)); err != nil {
		t.Fatal(err)
	}
	im = openImages(t, dir)
	sameMemory(t, im, 1, first)
	got, err := im.Kernel(1, kernel.Digest)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "kernel", kernel, got)
	if _, err := im.Kernel(2, kernel.Digest); err == nil {
		t.Error("a kernel of nobody")
	}
	if err := im.Remove(1); err != nil {
		t.Fatal(err)
	}
	_, err = im.Open(1, 1)
	wantError(t, "open after the removal", err, core.ErrNotFound)
}
