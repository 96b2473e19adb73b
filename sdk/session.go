package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

type sessionStream = grpc.BidiStreamingServer[apiv1.SessionRequest, apiv1.SessionReply]

// session is one stream between a host and a device.
type session struct {
	number core.Session
	d      *device
	stream sessionStream
	ctx    context.Context
	end    context.CancelCauseFunc
}

// Session implements the service.
func (s *server) Session(stream sessionStream) error {
	return wire.ToStatus(s.session(stream), 0)
}

func (s *server) session(stream sessionStream) error {
	first, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("receive open: %w", err)
	}
	open := first.GetOpen()
	if open == nil || open.GetSession() == 0 {
		return fmt.Errorf("session without a number: %w", core.ErrInvalid)
	}
	spec, err := wire.ToDeviceSpec(open.GetSpec())
	if err != nil {
		return err
	}
	leave, err := s.enter()
	if err != nil {
		return err
	}
	defer leave()
	d, err := s.open(stream.Context(), spec)
	if err != nil {
		return err
	}
	ss := &session{number: core.Session(open.GetSession()), d: d, stream: stream}
	ss.ctx, ss.end = context.WithCancelCause(stream.Context())
	defer ss.end(nil)
	ids, held, err := d.attach(ss)
	if err != nil {
		return err
	}
	defer d.detach(ss)
	acked, err := d.ack(ss, core.EventSeq(open.GetAcked()))
	if err != nil {
		return err
	}
	opened := &apiv1.DeviceOpened{Description: wire.FromDeviceDescription(d.description), Acked: uint64(acked)}
	for i, id := range ids {
		opened.Held = append(opened.Held, &apiv1.HeldEntity{
			Entity: uint64(id), Epoch: uint64(held[i].epoch), Applied: uint64(held[i].applied),
		})
	}
	if err := stream.Send(&apiv1.SessionReply{Opened: opened}); err != nil {
		return fmt.Errorf("send description: %w", err)
	}
	// The stream's Recv and Send return only when this function has, so they
	// have goroutines of their own.
	wake := d.events.attach()
	go func() { ss.end(ss.receive()) }()
	go func() { ss.end(ss.send(wake, acked)) }()
	go ss.sample()
	select {
	case <-ss.ctx.Done():
	case <-d.ctx.Done():
		return context.Cause(d.ctx)
	}
	if err := context.Cause(ss.ctx); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// receive takes commands and acknowledgements; it never waits for an executor.
func (ss *session) receive() error {
	var decoder wire.CommandDecoder
	var commands []core.Command
	for {
		m, err := ss.stream.Recv()
		if err != nil {
			return err
		}
		if m.GetOpen() != nil {
			return fmt.Errorf("session opened twice: %w", core.ErrInvalid)
		}
		if _, err := ss.d.ack(ss, core.EventSeq(m.GetAck())); err != nil {
			return err
		}
		if len(m.GetCommands()) == 0 {
			continue
		}
		clear(commands)
		if commands, err = decoder.Decode(m.GetCommands(), commands[:0]); err != nil {
			return err
		}
		if err := ss.d.take(ss, commands); err != nil {
			return err
		}
	}
}

// send sends events in order from the first after sent, and samples as they come.
func (ss *session) send(wake <-chan struct{}, sent core.EventSeq) error {
	var progress []core.BackendEvent
	for {
		var body []byte
		body, sent, progress = ss.d.events.take(sent, progress[:0])
		if len(body) == 0 && len(progress) == 0 {
			select {
			case <-wake:
				// Whoever reported may have more to report at once.
				runtime.Gosched()
				continue
			case <-ss.ctx.Done():
				return context.Cause(ss.ctx)
			}
		}
		reply := &apiv1.SessionReply{Events: body}
		if len(progress) > 0 {
			var samples wire.EventBatch
			for i := range progress {
				samples.Append(&progress[i])
			}
			reply.Progress = samples.Body()
		}
		crash.Point("sdk.event.before")
		if err := ss.stream.Send(reply); err != nil {
			return err
		}
		crash.Point("sdk.event.after")
	}
}

// sample has the progress of executing entities sampled while the session lasts.
func (ss *session) sample() {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var scratch []core.EntityID
	for {
		select {
		case <-tick.C:
			scratch = ss.d.sample(scratch)
			ss.d.events.flush()
		case <-ss.ctx.Done():
			return
		}
	}
}
