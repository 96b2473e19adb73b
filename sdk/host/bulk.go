package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

func (i *Instance) session(device string) uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return uint64(i.mu.sessions[device])
}

// bound returns a context that also ends with the instance.
func (i *Instance) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(i.ctx, func() { cancel(context.Cause(i.ctx)) })
	return ctx, func() { stop(); cancel(nil) }
}

// PutKernel uploads a kernel; it returns when the device has loaded it. A
// repeat of a loaded kernel is no error. The device's session must be open.
func (i *Instance) PutKernel(ctx context.Context, device string, k core.Kernel) error {
	ctx, cancel := i.bound(ctx)
	defer cancel()
	stream, err := i.client.PutKernel(ctx)
	if err != nil {
		return fmt.Errorf("put kernel %s: %w", k.Digest, wire.FromStatus(err))
	}
	m := &apiv1.PutKernelRequest{Header: &apiv1.KernelHeader{
		Device: device, Session: i.session(device), Digest: k.Digest[:], Format: k.Format, Size: uint64(len(k.Code)),
	}}
	code := k.Code
	for {
		m.Code = code[:min(len(code), wire.PieceBytes)]
		code = code[len(m.Code):]
		// After an error of Send, CloseAndRecv says why.
		if stream.Send(m) != nil || len(code) == 0 {
			break
		}
		m = &apiv1.PutKernelRequest{}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("put kernel %s: %w", k.Digest, wire.FromStatus(err))
	}
	return nil
}

// PutImage uploads the image for the create command of (entity, epoch); it
// returns when the device has read it, or nobody asked for it within a minute.
func (i *Instance) PutImage(ctx context.Context, device string, entity core.EntityID, epoch core.Epoch, src core.ImageSource) error {
	ctx, cancel := i.bound(ctx)
	defer cancel()
	if err := i.putImage(ctx, i.target(device, entity, epoch), src); err != nil {
		return fmt.Errorf("put image of entity %d: %w", entity, err)
	}
	return nil
}

func (i *Instance) target(device string, entity core.EntityID, epoch core.Epoch) *apiv1.ImageTarget {
	return &apiv1.ImageTarget{Device: device, Session: i.session(device), Entity: uint64(entity), Epoch: uint64(epoch)}
}

func (i *Instance) putImage(ctx context.Context, t *apiv1.ImageTarget, src core.ImageSource) error {
	h := src.Header()
	header, err := wire.FromImageHeader(h)
	if err != nil {
		return err
	}
	stream, err := i.client.PutImage(ctx)
	if err != nil {
		return wire.FromStatus(err)
	}
	err = sendImage(stream, &apiv1.PutImageRequest{Target: t, Header: header}, h, src)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	// When the plugin has ended the stream, this says why.
	_, err = stream.CloseAndRecv()
	return wire.FromStatus(err)
}

func sendImage(stream grpc.ClientStreamingClient[apiv1.PutImageRequest, apiv1.PutImageReply], first *apiv1.PutImageRequest, h core.ImageHeader, src core.ImageSource) error {
	if err := stream.Send(first); err != nil {
		return err
	}
	order := wire.NewSequence(h.Buffers)
	var refs []byte
	err := src.Chunks(func(ref core.ChunkRef, data []byte) error {
		n := wire.Name{ChunkRef: ref, Zero: data == nil}
		if err := order.Next(n); err != nil {
			return err
		}
		refs = wire.AppendName(refs[:0], n)
		return stream.Send(&apiv1.PutImageRequest{Names: &apiv1.ChunkNames{Refs: wire.PutCount(refs, 1)}, Data: data})
	})
	if err != nil {
		return err
	}
	trailer, err := order.Trailer()
	if err != nil {
		return err
	}
	return stream.Send(&apiv1.PutImageRequest{Trailer: trailer})
}

// GetImage saves a suspended entity into sink: every chunk once, in order, with
// data == nil where sink has it. A sink that is a core.HeaderChecker sees the
// header first, and no chunk when it refuses. The bytes of every chunk that crosses are
// checked against its digest.
func (i *Instance) GetImage(ctx context.Context, device string, entity core.EntityID, epoch core.Epoch, sink core.ImageSink) (core.ImageHeader, error) {
	ctx, cancel := i.bound(ctx)
	defer cancel()
	h, err := i.getImage(ctx, i.target(device, entity, epoch), sink)
	if err != nil {
		return core.ImageHeader{}, fmt.Errorf("get image of entity %d: %w", entity, err)
	}
	return h, nil
}

func (i *Instance) getImage(ctx context.Context, t *apiv1.ImageTarget, sink core.ImageSink) (core.ImageHeader, error) {
	stream, err := i.client.GetImage(ctx)
	if err != nil {
		return core.ImageHeader{}, wire.FromStatus(err)
	}
	_ = stream.Send(&apiv1.GetImageRequest{Target: t})
	m, err := stream.Recv()
	if err != nil {
		return core.ImageHeader{}, wire.FromStatus(err)
	}
	h, err := wire.ToImageHeader(m.GetHeader())
	if err != nil {
		return h, err
	}
	if uint64(h.Entity) != t.GetEntity() {
		return h, fmt.Errorf("image of entity %d: %w", h.Entity, core.ErrCorrupt)
	}
	if c, ok := sink.(core.HeaderChecker); ok {
		if err := c.CheckHeader(h); err != nil {
			return h, err
		}
	}
	h.Private = bytes.Clone(h.Private)
	order := wire.NewSequence(h.Buffers)
	for {
		m, err := stream.Recv()
		if err != nil {
			return h, brokenOff(err)
		}
		if m.GetTrailer() != nil {
			if err := order.Check(m.GetTrailer()); err != nil {
				return h, err
			}
			// The status after the trailer is the plugin's last word.
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				return h, brokenOff(err)
			}
			return h, nil
		}
		if err := receiveWindow(stream, m, order, sink); err != nil {
			return h, err
		}
	}
}

// brokenOff makes an early end of the stream an error.
func brokenOff(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("image breaks off: %w", core.ErrCorrupt)
	}
	return wire.FromStatus(err)
}

type imageStream = grpc.BidiStreamingClient[apiv1.GetImageRequest, apiv1.GetImageReply]

// receiveWindow answers one window of names and takes its chunks.
func receiveWindow(stream imageStream, m *apiv1.GetImageReply, order *wire.Sequence, sink core.ImageSink) error {
	names, err := wire.DecodeNames(m.GetNames().GetRefs(), wire.WindowChunks)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("window without names: %w", core.ErrCorrupt)
	}
	want := make([]byte, len(names))
	has := make([]bool, len(names))
	for n := range names {
		if err := order.Next(names[n]); err != nil {
			return err
		}
		if has[n] = sink.Has(names[n].Digest); !has[n] && !names[n].Zero {
			want[n] = 1
		}
	}
	_ = stream.Send(&apiv1.GetImageRequest{Want: want})
	for n := range names {
		var data []byte
		switch {
		case has[n]:
		case names[n].Zero:
			data = wire.Zeroes[:names[n].Size]
		default:
			m, err := stream.Recv()
			if err != nil {
				return brokenOff(err)
			}
			data = m.GetData()
			if err := wire.CheckData(names[n], data); err != nil {
				return err
			}
		}
		if err := sink.Put(names[n].ChunkRef, data); err != nil {
			return err
		}
	}
	return nil
}
