package wire

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
	"github.com/gpuwm/gpuwm/core/output"
	"github.com/gpuwm/gpuwm/sdk/host"
)

// launcher and instance make the plugin host the manager's: Go wants the very
// type of the interface that a method returns.
type launcher struct{ *host.Launcher }

func (l launcher) Start(ctx context.Context, prepared core.InstanceRecord) (manager.Instance, core.InstanceRecord, error) {
	in, rec, err := l.Launcher.Start(ctx, prepared)
	if err != nil {
		return nil, rec, err
	}
	return instance{in}, rec, nil
}

func (l launcher) Adopt(ctx context.Context, record core.InstanceRecord) (manager.Instance, error) {
	in, err := l.Launcher.Adopt(ctx, record)
	if err != nil {
		return nil, err
	}
	return instance{in}, nil
}

type instance struct{ *host.Instance }

func (i instance) Open(ctx context.Context, device core.DeviceSpec, session core.Session, events func([]core.BackendEvent)) (manager.Link, error) {
	l, err := i.Instance.Open(ctx, device, session, events)
	if err != nil {
		return nil, err
	}
	return link{l}, nil
}

type link struct{ *host.Link }

func (l link) Entities() []manager.HeldEntity {
	held := l.Link.Entities()
	entities := make([]manager.HeldEntity, len(held))
	for i, h := range held {
		entities[i] = manager.HeldEntity(h)
	}
	return entities
}

// initialImage is the first image of an entity: buffers of zeroes, or filled from files.
type initialImage struct {
	specs []core.BufferSpec
	inits []configs.BufferInit
	// interrupted ends Chunks with errInterrupted when it says so.
	interrupted func() bool
}

// Header implements core.ImageSource.
func (s initialImage) Header() core.ImageHeader {
	return core.ImageHeader{Version: core.ImageVersion, Buffers: s.specs}
}

// Chunks implements core.ImageSource. A file that has changed since it was
// checked is an error.
func (s initialImage) Chunks(yield func(core.ChunkRef, []byte) error) error {
	for i := range s.specs {
		if err := s.buffer(i, yield); err != nil {
			return fmt.Errorf("buffer %s: %w", s.specs[i].Name, err)
		}
	}
	return nil
}

func (s initialImage) buffer(i int, yield func(core.ChunkRef, []byte) error) error {
	path := s.inits[i].Path
	if path == "" {
		return s.chunks(i, strings.NewReader(""), yield)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if err := s.chunks(i, io.TeeReader(f, sum), yield); err != nil {
		return err
	}
	if core.Digest(sum.Sum(nil)) != s.inits[i].Digest {
		return fmt.Errorf("file %s has changed meanwhile: %w", path, core.ErrInvalid)
	}
	return nil
}

func (s initialImage) chunks(i int, file io.Reader, yield func(core.ChunkRef, []byte) error) error {
	chunk := make([]byte, core.ChunkSize)
	for at, index := uint64(0), uint64(0); at < s.specs[i].Size; index++ {
		if s.interrupted() {
			return errInterrupted
		}
		data := chunk[:min(uint64(len(chunk)), s.specs[i].Size-at)]
		n, err := io.ReadFull(file, data)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		clear(data[n:])
		ref := core.ChunkRef{Buffer: i, Index: index, Size: len(data), Digest: core.DigestOf(data)}
		if err := yield(ref, data); err != nil {
			return err
		}
		at += uint64(len(data))
	}
	return nil
}

// writeOutput writes one result file from an image.
func writeOutput(spec core.SaveSpec, src core.ImageSource) error {
	buffer := -1
	buffers := src.Header().Buffers
	for i := range buffers {
		if buffers[i].Name == spec.Buffer {
			buffer = i
		}
	}
	if buffer < 0 {
		return fmt.Errorf("image has no buffer %s: %w", spec.Buffer, core.ErrCorrupt)
	}
	r, w := io.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		zeroes := make([]byte, core.ChunkSize)
		w.CloseWithError(src.Chunks(func(ref core.ChunkRef, data []byte) error {
			if ref.Buffer != buffer {
				return nil
			}
			if data == nil {
				data = zeroes[:ref.Size]
			}
			_, err := w.Write(data)
			return err
		}))
	}()
	err := output.Write(spec, r)
	r.CloseWithError(io.ErrClosedPipe)
	<-ended // nothing reads the image after the return
	return err
}
