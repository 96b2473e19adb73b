package sdk

import (
	"bytes"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// BufferImage returns an image over memory: buffers[i] holds the bytes of
// header.Buffers[i] and is read, not copied, while Chunks runs; nothing may
// write to it meanwhile. It can be read any number of times. Chunks that are
// all zeroes come with data == nil. When the lengths do not fit the header,
// Chunks returns core.ErrInvalid.
func BufferImage(header core.ImageHeader, buffers [][]byte) core.ImageSource {
	return bufferImage{header, buffers}
}

type bufferImage struct {
	header  core.ImageHeader
	buffers [][]byte
}

// Header implements core.ImageSource.
func (s bufferImage) Header() core.ImageHeader { return s.header }

// Chunks implements core.ImageSource.
func (s bufferImage) Chunks(f func(core.ChunkRef, []byte) error) error {
	if len(s.buffers) != len(s.header.Buffers) {
		return fmt.Errorf("image of %d buffers, header of %d: %w", len(s.buffers), len(s.header.Buffers), core.ErrInvalid)
	}
	for i, b := range s.buffers {
		if uint64(len(b)) != s.header.Buffers[i].Size {
			return fmt.Errorf("buffer %s of %d bytes, header says %d: %w",
				s.header.Buffers[i].Name, len(b), s.header.Buffers[i].Size, core.ErrInvalid)
		}
		for index := uint64(0); len(b) > 0; index++ {
			chunk := b[:min(len(b), core.ChunkSize)]
			b = b[len(chunk):]
			ref := core.ChunkRef{Buffer: i, Index: index, Size: len(chunk)}
			if bytes.Equal(chunk, wire.Zeroes[:len(chunk)]) {
				ref.Digest, chunk = wire.ZeroDigest(len(chunk)), nil
			} else {
				ref.Digest = core.DigestOf(chunk)
			}
			if err := f(ref, chunk); err != nil {
				return err
			}
		}
	}
	return nil
}
