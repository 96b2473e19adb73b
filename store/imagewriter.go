package store

import (
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	bolt "go.etcd.io/bbolt"
)

// batchSize is how many bytes of chunks one transaction writes.
const batchSize = 16 << 20

// ImageWriter receives one generation, from one goroutine; exactly one of
// Commit and Abort ends it. It is an alias of an unnamed interface, so that a
// user's own declaration of the same methods is the same type.
type ImageWriter = interface {
	core.ImageSink
	// Commit makes the generation durable, with its header, in one transaction
	// with the chunks that still wait. core.ErrInvalid when header is of another
	// entity, or the chunks are not those of its buffers. After an error nothing
	// of the generation counts.
	Commit(core.ImageHeader) error
	// Abort forgets the generation; the next Retain frees the chunks it has
	// written. After Commit it does nothing.
	Abort()
}

// imageWriter implements ImageWriter.
type imageWriter struct {
	file *imageFile
	gen  core.Generation
	// refs are the chunks so far, in order.
	refs []core.ChunkRef
	// batch are the chunks that wait for the next transaction, pending their digests.
	batch   []pendingChunk
	size    int
	pending map[core.Digest]bool
	// spare are buffers of written chunks, used again.
	spare [][]byte
	err   error
	ended bool
}

type pendingChunk struct {
	digest core.Digest
	data   []byte
}

// Begin starts writing generation gen. A committed generation of that number,
// left by a crash, is replaced when this one is committed. Chunks that the file
// holds already are not written again. A damaged file is set aside first, its
// readable kernels taken over. core.ErrBusy when a writer of the entity is open.
func (im *Images) Begin(entity core.EntityID, gen core.Generation) (ImageWriter, error) {
	if entity == 0 || gen == 0 {
		return nil, fmt.Errorf("begin image %d of entity %d: %w", gen, entity, core.ErrInvalid)
	}
	im.mu.Lock()
	damaged := im.mu.damaged[entity]
	im.mu.Unlock()
	f, err := (*imageFile)(nil), error(nil)
	if !damaged {
		f, err = im.acquire(entity, true)
		damaged = errors.Is(err, core.ErrCorrupt)
	}
	if damaged {
		if err := im.setAside(entity); err != nil {
			return nil, err
		}
		f, err = im.acquire(entity, true)
	}
	if err != nil {
		return nil, err
	}
	f.turn <- struct{}{}
	im.mu.Lock()
	busy := f.writing
	f.writing = true
	im.mu.Unlock()
	<-f.turn
	if busy {
		f.release()
		return nil, fmt.Errorf("begin image %d of entity %d: another is being written: %w", gen, entity, core.ErrBusy)
	}
	return &imageWriter{file: f, gen: gen, pending: make(map[core.Digest]bool)}, nil
}

// Has implements core.ImageSink.
func (w *imageWriter) Has(d core.Digest) bool {
	if w.ended || d == zeroChunk {
		return !w.ended
	}
	if w.pending[d] {
		return true
	}
	found := false
	err := w.file.view(func(tx *bolt.Tx) error {
		found = chunkSize(tx, d) > 0
		return nil
	})
	if err != nil {
		w.err = w.file.say("look up chunk", err)
	}
	return found && err == nil
}

// Put implements core.ImageSink; data is verified, and may also be nil when the
// chunk is all zeroes. Errors wrap core.ErrInvalid (order, size, missing bytes) or
// core.ErrCorrupt (data is not what the digest says); after one the generation
// cannot be committed.
func (w *imageWriter) Put(ref core.ChunkRef, data []byte) error {
	if w.ended {
		return fmt.Errorf("put chunk: writer has ended: %w", core.ErrInvalid)
	}
	if w.err == nil {
		w.err = w.put(ref, data)
	}
	return w.err
}

func (w *imageWriter) put(ref core.ChunkRef, data []byte) error {
	if err := w.follows(ref); err != nil {
		return err
	}
	if len(data) > 0 && (len(data) != ref.Size || core.DigestOf(data) != ref.Digest) {
		return fmt.Errorf("put chunk %d of buffer %d: not what its digest says: %w", ref.Index, ref.Buffer, core.ErrCorrupt)
	}
	w.refs = append(w.refs, ref)
	if ref.Digest == zeroDigest(ref.Size) || w.Has(ref.Digest) {
		return w.err
	}
	if len(data) == 0 {
		return fmt.Errorf("put chunk %d of buffer %d: bytes are missing: %w", ref.Index, ref.Buffer, core.ErrInvalid)
	}
	w.batch = append(w.batch, pendingChunk{ref.Digest, append(w.buffer(), data...)})
	w.pending[ref.Digest] = true
	w.size += len(data)
	if w.size < w.file.images.batch {
		return nil
	}
	err := w.file.update(w.writeBatch)
	if err != nil {
		return w.file.say("write chunks", err)
	}
	w.forgetBatch()
	crash.Point("store.image.chunk.mid")
	return nil
}

// follows checks that ref comes after the last chunk.
func (w *imageWriter) follows(ref core.ChunkRef) error {
	last := core.ChunkRef{Buffer: -1}
	if len(w.refs) > 0 {
		last = w.refs[len(w.refs)-1]
	}
	next := ref.Buffer == last.Buffer && ref.Index == last.Index+1 || ref.Buffer > last.Buffer && ref.Index == 0
	if !next || ref.Size < 1 || ref.Size > core.ChunkSize || len(w.refs) >= imageChunksMax {
		return fmt.Errorf("put chunk %d (%d bytes) of buffer %d: order or size: %w", ref.Index, ref.Size, ref.Buffer, core.ErrInvalid)
	}
	return nil
}

// buffer returns an empty buffer with room for a chunk.
func (w *imageWriter) buffer() []byte {
	n := len(w.spare)
	if n == 0 {
		return make([]byte, 0, core.ChunkSize)
	}
	b := w.spare[n-1]
	w.spare = w.spare[:n-1]
	return b[:0]
}

// writeBatch writes the chunks that wait.
func (w *imageWriter) writeBatch(tx *bolt.Tx) error {
	for _, c := range w.batch {
		if err := putChunk(tx, c.digest, c.data); err != nil {
			return err
		}
	}
	return nil
}

func (w *imageWriter) forgetBatch() {
	for _, c := range w.batch {
		w.spare = append(w.spare, c.data)
	}
	w.batch, w.size = w.batch[:0], 0
	clear(w.pending)
}

// Commit implements ImageWriter.
func (w *imageWriter) Commit(header core.ImageHeader) error {
	if w.ended {
		return fmt.Errorf("commit image: writer has ended: %w", core.ErrInvalid)
	}
	defer w.end()
	if w.err != nil {
		return w.err
	}
	g, err := w.generation(header)
	if err != nil {
		return fmt.Errorf("commit image %d of entity %d: %w", w.gen, w.file.entity, err)
	}
	crash.Point("store.image.commit.before")
	err = w.file.update(func(tx *bolt.Tx) error {
		if err := w.writeBatch(tx); err != nil {
			return err
		}
		return putGeneration(tx, w.gen, g)
	})
	if err != nil {
		return w.file.say("commit image", err)
	}
	crash.Point("store.image.commit.after")
	return nil
}

// Abort implements ImageWriter.
func (w *imageWriter) Abort() {
	if !w.ended {
		w.end()
	}
}

func (w *imageWriter) end() {
	w.ended = true
	w.batch, w.spare, w.refs, w.pending = nil, nil, nil, nil
	im := w.file.images
	im.mu.Lock()
	w.file.writing = false
	im.mu.Unlock()
	w.file.release()
}

// generation joins header and chunks, which must be exactly those of its buffers.
func (w *imageWriter) generation(header core.ImageHeader) (*generation, error) {
	if header.Entity != w.file.entity {
		return nil, fmt.Errorf("header of entity %d: %w", header.Entity, core.ErrInvalid)
	}
	total, ok := imageChunkTotal(header.Buffers)
	if !ok || total != uint64(len(w.refs)) {
		return nil, fmt.Errorf("%d chunks came, its buffers have %d: %w", len(w.refs), total, core.ErrInvalid)
	}
	g := &generation{header: header, table: make([]byte, total*uint64(len(core.Digest{})))}
	at := 0
	err := g.refs(func(want core.ChunkRef) error {
		got := w.refs[at]
		copy(g.table[at*len(got.Digest):], got.Digest[:])
		at++
		if got.Buffer != want.Buffer || got.Index != want.Index || got.Size != want.Size {
			return fmt.Errorf("chunk %d (%d bytes) of buffer %d in place of chunk %d (%d bytes) of buffer %d: %w",
				got.Index, got.Size, got.Buffer, want.Index, want.Size, want.Buffer, core.ErrInvalid)
		}
		return nil
	})
	return g, err
}

// putGeneration writes g in place of a generation of that number, after a look
// that every chunk is there with its size.
func putGeneration(tx *bolt.Tx, gen core.Generation, g *generation) error {
	err := g.refs(func(ref core.ChunkRef) error {
		if ref.Digest == zeroDigest(ref.Size) || chunkSize(tx, ref.Digest) == ref.Size {
			return nil
		}
		return fmt.Errorf("chunk %d of buffer %d: no such bytes of %d: %w", ref.Index, ref.Buffer, ref.Size, core.ErrInvalid)
	})
	if err != nil {
		return err
	}
	header, table, err := encodeGeneration(g)
	if err != nil {
		return err
	}
	generations := tx.Bucket([]byte(imageGenerations))
	if generations.Bucket(generationKey(gen)) != nil {
		if err := generations.DeleteBucket(generationKey(gen)); err != nil {
			return err
		}
	}
	b, err := generations.CreateBucket(generationKey(gen))
	if err != nil {
		return err
	}
	if err := b.Put(keyHeader, header); err != nil {
		return err
	}
	return b.Put(keyTable, table)
}
