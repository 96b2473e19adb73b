package plugintest

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Hello forwards.
func (p *proxy) Hello(ctx context.Context, m *apiv1.HelloRequest) (*apiv1.HelloReply, error) {
	return p.inner.Hello(ctx, m)
}

// Health forwards.
func (p *proxy) Health(ctx context.Context, m *apiv1.HealthRequest) (*apiv1.HealthReply, error) {
	if p.lie.health != nil {
		p.lie.health(ctx, p)
	}
	return p.inner.Health(ctx, m)
}

// Shutdown forwards; the process ends with the good plugin.
func (p *proxy) Shutdown(ctx context.Context, m *apiv1.ShutdownRequest) (*apiv1.ShutdownReply, error) {
	return p.inner.Shutdown(ctx, m)
}

// Logs forwards.
func (p *proxy) Logs(m *apiv1.LogsRequest, stream apiv1.Backend_LogsServer) error {
	up, err := p.inner.Logs(stream.Context(), m)
	if err != nil {
		return err
	}
	return pass(up.Recv, stream.Send)
}

// Trace forwards.
func (p *proxy) Trace(m *apiv1.TraceRequest, stream apiv1.Backend_TraceServer) error {
	up, err := p.inner.Trace(stream.Context(), m)
	if err != nil {
		return err
	}
	return pass(up.Recv, stream.Send)
}

// PutKernel forwards.
func (p *proxy) PutKernel(stream apiv1.Backend_PutKernelServer) error {
	up, err := p.inner.PutKernel(stream.Context())
	if err != nil {
		return err
	}
	return p.say(stream.Context(), upload(stream, up, nil))
}

// PutImage forwards.
func (p *proxy) PutImage(stream apiv1.Backend_PutImageServer) error {
	up, err := p.inner.PutImage(stream.Context())
	if err != nil {
		return err
	}
	if p.lie.hasty {
		return wire.ToStatus(core.ErrDeadline, 0)
	}
	return p.say(stream.Context(), upload(stream, up, func(m *apiv1.PutImageRequest) {
		if t := m.GetTarget(); t != nil && p.lie.foreign != nil && m.GetHeader().GetBackend() == foreignName {
			r := p.relay(t.GetDevice())
			r.mu.Lock()
			defer r.mu.Unlock()
			p.lie.foreign(&r.state, core.EntityID(t.GetEntity()))
		}
	}))
}

// say is the status of a call, as the proxy tells it.
func (p *proxy) say(ctx context.Context, err error) error {
	if err != nil && p.lie.endless && errors.Is(wire.FromStatus(err), core.ErrDeadline) {
		<-ctx.Done()
	}
	if err != nil && p.lie.status != nil {
		return p.lie.status(err)
	}
	return err
}

// upload forwards a stream of messages, which see may look at, and the answer, which
// may come before the last message.
func upload[Req, Reply any](stream grpc.ClientStreamingServer[Req, Reply], up grpc.ClientStreamingClient[Req, Reply], see func(*Req)) error {
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				_ = up.CloseSend()
				return
			}
			if see != nil {
				see(m)
			}
			if up.Send(m) != nil {
				return
			}
		}
	}()
	reply := new(Reply)
	if err := up.RecvMsg(reply); err != nil {
		return err
	}
	return stream.SendAndClose(reply)
}

// GetImage forwards both ways.
func (p *proxy) GetImage(stream apiv1.Backend_GetImageServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	up, err := p.inner.GetImage(ctx)
	if err != nil {
		return err
	}
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				_ = up.CloseSend()
				return
			}
			_ = up.Send(m)
		}
	}()
	data := 0
	for {
		m, err := up.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return p.say(ctx, err)
		}
		if p.lie.hasty && m.GetNames() != nil {
			return wire.ToStatus(core.ErrDeadline, 0)
		}
		if m.GetHeader() == nil && m.GetNames() == nil && m.GetTrailer() == nil {
			data++
		}
		if p.lie.image != nil && !p.lie.image(data, m) {
			return nil
		}
		if err := stream.Send(m); err != nil {
			return err
		}
	}
}

// pass forwards a stream of replies.
func pass[M any](recv func() (*M, error), send func(*M) error) error {
	for {
		m, err := recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = send(m)
		}
		if err != nil {
			return err
		}
	}
}
