package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

// Name is a chunk's reference as it crosses the seam; Zero says that all its
// bytes are zero and do not cross.
type Name struct {
	core.ChunkRef
	Zero bool
}

// AppendName packs n behind b.
func AppendName(b []byte, n Name) []byte {
	b = binary.AppendUvarint(b, uint64(n.Buffer))
	b = binary.AppendUvarint(b, n.Index)
	b = binary.AppendUvarint(b, uint64(n.Size))
	b = append(b, n.Digest[:]...)
	if n.Zero {
		return append(b, 1)
	}
	return append(b, 0)
}

// DecodeNames unpacks at most limit names.
func DecodeNames(b []byte, limit int) ([]Name, error) {
	r := reader{b: b}
	n := r.count("count of chunks", limit)
	names := make([]Name, 0, n)
	for range n {
		var c Name
		c.Buffer = int(r.within("chunk buffer", BuffersMax))
		c.Index = r.uvarint("chunk index")
		c.Size = int(r.within("chunk size", core.ChunkSize))
		c.Digest = r.digest("chunk digest")
		zero := r.byte("chunk zero")
		if zero > 1 {
			r.fail("chunk zero")
		}
		c.Zero = zero == 1
		names = append(names, c)
	}
	if err := r.end("names of chunks"); err != nil {
		return nil, err
	}
	return names, nil
}

// Sequence checks that the chunks of an image come in buffer order, then index
// order, each of them once and of the right size, and sums their names for the
// trailer. Both the sender and the receiver of an image keep one.
type Sequence struct {
	buffers []core.BufferSpec
	buffer  int
	index   uint64
	count   uint64
	sum     hash.Hash
	scratch []byte
}

// NewSequence starts at the first chunk of the image's buffers.
func NewSequence(buffers []core.BufferSpec) *Sequence {
	s := &Sequence{buffers: buffers, sum: sha256.New()}
	s.skip()
	return s
}

// skip moves past buffers that are exhausted.
func (s *Sequence) skip() {
	for s.buffer < len(s.buffers) && s.index*core.ChunkSize >= s.buffers[s.buffer].Size {
		s.buffer++
		s.index = 0
	}
}

// Next takes the next chunk's name.
func (s *Sequence) Next(n Name) error {
	if s.buffer >= len(s.buffers) || n.Buffer != s.buffer || n.Index != s.index {
		return fmt.Errorf("chunk %d of buffer %d: out of order: %w", n.Index, n.Buffer, core.ErrCorrupt)
	}
	want := min(s.buffers[s.buffer].Size-s.index*core.ChunkSize, core.ChunkSize)
	if uint64(n.Size) != want {
		return fmt.Errorf("chunk %d of buffer %d: %d bytes, want %d: %w", n.Index, n.Buffer, n.Size, want, core.ErrCorrupt)
	}
	if n.Zero && n.Digest != ZeroDigest(n.Size) {
		return fmt.Errorf("chunk %d of buffer %d: digest is not of zeroes: %w", n.Index, n.Buffer, core.ErrCorrupt)
	}
	s.scratch = AppendName(s.scratch[:0], n)
	s.sum.Write(s.scratch)
	s.count++
	s.index++
	s.skip()
	return nil
}

// Trailer returns what closes the image; an error says that chunks are missing.
func (s *Sequence) Trailer() (*apiv1.Trailer, error) {
	if s.buffer < len(s.buffers) {
		return nil, fmt.Errorf("image ends at chunk %d of buffer %d: %w", s.index, s.buffer, core.ErrCorrupt)
	}
	return &apiv1.Trailer{Chunks: s.count, Digest: s.sum.Sum(nil)}, nil
}

// Check compares a received trailer with what was seen.
func (s *Sequence) Check(t *apiv1.Trailer) error {
	own, err := s.Trailer()
	if err != nil {
		return err
	}
	if t.GetChunks() != own.Chunks || string(t.GetDigest()) != string(own.Digest) {
		return fmt.Errorf("trailer of image: %w", core.ErrCorrupt)
	}
	return nil
}

// CheckData says whether data are the bytes that n names.
func CheckData(n Name, data []byte) error {
	if len(data) != n.Size || core.DigestOf(data) != n.Digest {
		return fmt.Errorf("bytes of chunk %d of buffer %d: %w", n.Index, n.Buffer, core.ErrCorrupt)
	}
	return nil
}

// Zeroes are the bytes of an all-zero chunk; nobody writes to them.
var Zeroes [core.ChunkSize]byte

var zeroDigest = sync.OnceValue(func() core.Digest { return core.DigestOf(Zeroes[:]) })

// ZeroDigest returns the digest of size zero bytes, at most core.ChunkSize.
func ZeroDigest(size int) core.Digest {
	if size == core.ChunkSize {
		return zeroDigest()
	}
	return core.DigestOf(Zeroes[:size])
}
