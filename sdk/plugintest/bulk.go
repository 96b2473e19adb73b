package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// picture is an image as the kit holds it. What is wrong with one that came from the
// plugin stands in faults, by what is looked at, so that each check judges its own.
type picture struct {
	header  core.ImageHeader
	buffers [][]byte
	faults  map[string]string
	// sent is how many chunks came with their bytes.
	sent int
}

// What is looked at in an image.
const (
	aboutNames   = "names"
	aboutOrder   = "order"
	aboutBytes   = "bytes"
	aboutTrailer = "trailer"
	aboutEnd     = "end"
)

func (i *picture) fault(about, format string, args ...any) {
	if i.faults[about] == "" {
		i.faults[about] = fmt.Sprintf(format, args...)
	}
}

// load puts the kit's kernels on the device of a session, once for an instance.
func (p *probe) load(l *line) {
	if l.in.loaded[l.device] {
		return
	}
	if err := p.putKernel(l, p.kernelHeader(l, p.kit.kernel), p.kit.kernel.Code); err != nil {
		p.failf("the kit's kernels do not load: %v", err)
	}
	l.in.loaded[l.device] = true
}

func (p *probe) kernelHeader(l *line, k core.Kernel) *apiv1.KernelHeader {
	return &apiv1.KernelHeader{Device: l.device, Session: uint64(l.number), Digest: k.Digest[:], Format: k.Format, Size: uint64(len(k.Code))}
}

// putKernel sends the pieces and returns the plugin's answer, as it is on the wire.
func (p *probe) putKernel(l *line, h *apiv1.KernelHeader, pieces ...[]byte) error {
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := l.in.client.PutKernel(ctx)
	if err != nil {
		return err
	}
	m := &apiv1.PutKernelRequest{Header: h}
	for _, piece := range pieces {
		m.Code = piece
		if stream.Send(m) != nil {
			break
		}
		m = &apiv1.PutKernelRequest{}
	}
	_, err = stream.CloseAndRecv()
	return err
}

// putImage uploads an image; damage may change each message, or end the upload by
// returning false.
func (p *probe) putImage(l *line, entity core.EntityID, epoch core.Epoch, from picture, damage func(n int, m *apiv1.PutImageRequest) bool) error {
	ctx, cancel := p.bound()
	defer cancel()
	return p.putImageIn(ctx, l, entity, epoch, from, damage)
}

func (p *probe) putImageIn(ctx context.Context, l *line, entity core.EntityID, epoch core.Epoch, from picture, damage func(n int, m *apiv1.PutImageRequest) bool) error {
	stream, err := l.in.client.PutImage(ctx, grpc.MaxCallSendMsgSize(wire.MessageMax))
	if err != nil {
		return err
	}
	n, whole := 0, true
	from.messages(l, entity, epoch, func(m *apiv1.PutImageRequest) {
		whole = whole && (damage == nil || damage(n, m)) && stream.Send(m) == nil
		n++
	})
	_, err = stream.CloseAndRecv()
	return err
}

// stallImage sends the first messages of an image and nothing more, and returns how
// the plugin ended the call.
func (p *probe) stallImage(l *line, entity core.EntityID, epoch core.Epoch, from picture, messages int) error {
	stream, err := l.in.client.PutImage(p.ctx, grpc.MaxCallSendMsgSize(wire.MessageMax))
	if err != nil {
		return err
	}
	n := 0
	from.messages(l, entity, epoch, func(m *apiv1.PutImageRequest) {
		if n++; n <= messages {
			_ = stream.Send(m)
		}
	})
	return stream.RecvMsg(new(apiv1.PutImageReply))
}

// messages calls send with what an upload consists of.
func (i *picture) messages(l *line, entity core.EntityID, epoch core.Epoch, send func(*apiv1.PutImageRequest)) {
	header, err := wire.FromImageHeader(i.header)
	if err != nil {
		panic(err) // a slip of the kit
	}
	send(&apiv1.PutImageRequest{Header: header, Target: &apiv1.ImageTarget{
		Device: l.device, Session: uint64(l.number), Entity: uint64(entity), Epoch: uint64(epoch),
	}})
	order := wire.NewSequence(i.header.Buffers)
	err = sdk.BufferImage(i.header, i.buffers).Chunks(func(ref core.ChunkRef, data []byte) error {
		name := wire.Name{ChunkRef: ref, Zero: data == nil}
		send(&apiv1.PutImageRequest{Names: &apiv1.ChunkNames{Refs: wire.PutCount(wire.AppendName(nil, name), 1)}, Data: data})
		return order.Next(name)
	})
	if err != nil {
		panic(err) // a slip of the kit
	}
	trailer, err := order.Trailer()
	if err != nil {
		panic(err) // a slip of the kit
	}
	send(&apiv1.PutImageRequest{Trailer: trailer})
}

// image saves a suspended entity; anything wrong with the image fails.
func (e *life) image() picture {
	i, err := e.tryImage(nil)
	if err != nil {
		e.p.failf("the image of entity %d was refused: %v", e.id, err)
	}
	for about, fault := range i.faults {
		e.p.failf("the image of entity %d (%s): %s", e.id, about, fault)
	}
	return i
}

// cells saves the entity and returns its first buffer.
func (e *life) cells() []uint32 { return toCells(e.image().buffers[0]) }

// tryImage saves the entity with its own session. want chooses chunks; all without it.
func (e *life) tryImage(want func(n int) bool) (picture, error) {
	return e.p.getImage(e.l, uint64(e.l.number), e.id, e.epoch, want)
}

func (p *probe) getImage(l *line, session uint64, entity core.EntityID, epoch core.Epoch, want func(n int) bool) (picture, error) {
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := l.in.client.GetImage(ctx)
	if err != nil {
		return picture{}, err
	}
	_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{Device: l.device, Session: session, Entity: uint64(entity), Epoch: uint64(epoch)}})
	m, err := stream.Recv()
	if err != nil {
		return picture{}, err
	}
	i := picture{faults: make(map[string]string)}
	if i.header, err = wire.ToImageHeader(m.GetHeader()); err != nil {
		return i, err
	}
	i.header.Private = bytes.Clone(i.header.Private)
	for _, b := range i.header.Buffers {
		i.buffers = append(i.buffers, make([]byte, 0, b.Size))
	}
	order, count := wire.NewSequence(i.header.Buffers), 0
	for {
		m, err := stream.Recv()
		if err != nil {
			i.fault(aboutEnd, "it ends before its trailer: %v", err)
			return i, nil
		}
		if t := m.GetTrailer(); t != nil {
			if err := order.Check(t); err != nil {
				i.fault(aboutTrailer, "count or digest of the trailer do not fit the names that came")
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				i.fault(aboutEnd, "after the trailer came %v; the call must end without an error", err)
			}
			return i, nil
		}
		if !i.window(stream, m, order, &count, want) {
			return i, nil
		}
	}
}

// stallSave asks for an image, takes its first window, and does not answer it. It
// returns how the plugin ended the call.
func (e *life) stallSave() error {
	stream, err := e.l.in.client.GetImage(e.p.ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{
		Device: e.l.device, Session: uint64(e.l.number), Entity: uint64(e.id), Epoch: uint64(e.epoch),
	}})
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// window takes one window of names and the chunks that were wanted.
func (i *picture) window(stream apiv1.Backend_GetImageClient, m *apiv1.GetImageReply, order *wire.Sequence, count *int, want func(n int) bool) bool {
	names, err := wire.DecodeNames(m.GetNames().GetRefs(), wire.WindowChunks)
	if err != nil || len(names) == 0 {
		i.fault(aboutNames, "a window of %d bytes does not decode to 1 to %d names: %v", len(m.GetNames().GetRefs()), wire.WindowChunks, err)
		return false
	}
	wanted := make([]byte, len(names))
	for n, name := range names {
		if err := order.Next(name); err != nil {
			i.fault(aboutOrder, "%v", err)
			return false
		}
		if !name.Zero && (want == nil || want(*count+n)) {
			wanted[n] = 1
		}
	}
	*count += len(names)
	_ = stream.Send(&apiv1.GetImageRequest{Want: wanted})
	for n, name := range names {
		data := wire.Zeroes[:name.Size]
		if wanted[n] == 1 {
			m, err := stream.Recv()
			if err != nil {
				i.fault(aboutEnd, "it ends before chunk %d of buffer %d, which was wanted: %v", name.Index, name.Buffer, err)
				return false
			}
			i.sent++
			data = m.GetData()
			if err := wire.CheckData(name, data); err != nil {
				i.fault(aboutBytes, "the bytes of chunk %d of buffer %d are not those of its digest", name.Index, name.Buffer)
			}
		}
		i.buffers[name.Buffer] = append(i.buffers[name.Buffer], data...)
	}
	return true
}
