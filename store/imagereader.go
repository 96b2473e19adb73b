package store

import (
	"fmt"
	"runtime"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// readAheadMax bounds the chunks that are read and verified ahead of their turn.
const readAheadMax = 8

// ImageReader is an open generation, for one goroutine. It is an alias for the
// same reason as ImageWriter.
type ImageReader = interface {
	core.ImageSource
	// Close lets go of the file. A repeat does nothing.
	Close() error
}

// imageReader implements ImageReader.
type imageReader struct {
	file   *imageFile
	gen    *generation
	closed bool
}

// Open opens a committed generation; the caller closes it. core.ErrNotFound when
// there is none, core.ErrCorrupt when the file, the header or the table is damaged.
// A generation that Begin has set aside with its file counts as long as no other
// of its number was committed.
func (im *Images) Open(entity core.EntityID, gen core.Generation) (r ImageReader, err error) {
	err = im.lookUp(entity, func(f *imageFile) error {
		opened, err := f.openGeneration(gen)
		if err == nil {
			r = opened
		}
		return err
	})
	return r, err
}

// openGeneration returns a reader, which holds the file once more.
func (f *imageFile) openGeneration(gen core.Generation) (*imageReader, error) {
	var g *generation
	err := f.view(func(tx *bolt.Tx) (err error) {
		g, err = readGeneration(tx, gen)
		return err
	})
	if err != nil {
		return nil, f.say("open image", err)
	}
	f.hold()
	return &imageReader{file: f, gen: g}, nil
}

// Header implements core.ImageSource.
func (r *imageReader) Header() core.ImageHeader { return r.gen.header }

// Close implements ImageReader.
func (r *imageReader) Close() error {
	if !r.closed {
		r.closed = true
		r.file.release()
	}
	return nil
}

// fetched is a chunk on its way to the caller.
type fetched struct {
	ref  core.ChunkRef
	data []byte
	err  error
	done chan struct{}
}

// Chunks implements core.ImageSource. Every chunk is verified before f sees it;
// the error of one that is not what its digest says wraps core.ErrCorrupt and
// names buffer and chunk. Chunks of zeroes come with data == nil. No transaction
// is open while f runs, and no goroutine is left when Chunks returns.
func (r *imageReader) Chunks(f func(ref core.ChunkRef, data []byte) error) error {
	if r.closed {
		return fmt.Errorf("read image: reader is closed: %w", core.ErrInvalid)
	}
	ahead := min(2*runtime.GOMAXPROCS(0), readAheadMax)
	slots := make([]fetched, ahead)
	buffers := make([][]byte, ahead)
	sent, next := 0, 0
	deliver := func() error {
		slot := &slots[next%ahead]
		next++
		<-slot.done
		if slot.err != nil {
			name := r.gen.header.Buffers[slot.ref.Buffer].Name
			return r.file.say("read image", fmt.Errorf("buffer %s: chunk %d: %w", name, slot.ref.Index, slot.err))
		}
		return f(slot.ref, slot.data)
	}
	err := r.gen.refs(func(ref core.ChunkRef) error {
		if sent-next == ahead {
			if err := deliver(); err != nil {
				return err
			}
		}
		i := sent % ahead
		sent++
		slots[i] = fetched{ref: ref, done: make(chan struct{})}
		if ref.Digest == zeroDigest(ref.Size) {
			close(slots[i].done)
			return nil
		}
		if buffers[i] == nil {
			buffers[i] = make([]byte, core.ChunkSize)
		}
		go r.fetch(&slots[i], buffers[i])
		return nil
	})
	for err == nil && next < sent {
		err = deliver()
	}
	for ; next < sent; next++ {
		<-slots[next%ahead].done
	}
	return err
}

// fetch reads and verifies one chunk.
func (r *imageReader) fetch(slot *fetched, buffer []byte) {
	defer close(slot.done)
	slot.err = r.file.view(func(tx *bolt.Tx) (err error) {
		slot.data, err = readChunk(tx, slot.ref, buffer)
		return err
	})
}
