package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// commandsMax bounds the commands that wait to be sent on one link; a plugin
// that leaves that many unread is not usable, so the link goes down.
const commandsMax = 1 << 18

// An acknowledgement travels with the next commands, or alone when it covers
// ackFew events or ackPause went by without a newer one.
const (
	ackFew   = 512
	ackPause = time.Millisecond
)

// heldMax bounds the entities a plugin may claim to hold.
const heldMax = 1 << 18

// HeldEntity is what a plugin reports of an entity when a session opens.
type HeldEntity struct {
	Entity core.EntityID
	Epoch  core.Epoch
	// Applied is the sequence number of the last command taken.
	Applied core.CommandSeq
}

// Link is the open session of one device. Its methods may be called from any
// goroutine, also from the events function.
type Link struct {
	instance    *Instance
	device      string
	description core.DeviceDescription
	held        []HeldEntity
	stream      grpc.BidiStreamingClient[apiv1.SessionRequest, apiv1.SessionReply]
	events      func([]core.BackendEvent)
	ctx         context.Context
	cancel      context.CancelCauseFunc
	down        chan struct{}
	// wake tells the sender that there is something.
	wake chan struct{}

	mu struct {
		sync.Mutex
		queue []core.Command
		ack   core.EventSeq
		ended bool
	}
}

// Open opens the session of one device; its number must already be committed.
// events receives batches in order, from one goroutine, with progress mixed in.
// ctx bounds the opening only.
func (i *Instance) Open(ctx context.Context, device core.DeviceSpec, session core.Session, events func([]core.BackendEvent)) (*Link, error) {
	k := &Link{
		instance: i, device: device.Name, events: events,
		down: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	k.ctx, k.cancel = context.WithCancelCause(i.ctx)
	unbind := context.AfterFunc(ctx, func() { k.cancel(context.Cause(ctx)) })
	i.mu.Lock()
	i.mu.sessions[device.Name] = session
	acked := i.mu.acked[device.Name]
	i.mu.Unlock()
	err := k.open(&apiv1.OpenDevice{Spec: wire.FromDeviceSpec(device), Session: uint64(session), Acked: uint64(acked)})
	if err == nil && !unbind() {
		err = context.Cause(ctx)
	}
	if err != nil {
		k.cancel(err)
		return nil, fmt.Errorf("open device %s: %w", device.Name, err)
	}
	i.running.Go(func() { k.end(k.receive()) })
	i.running.Go(func() { k.end(k.send()) })
	return k, nil
}

func (k *Link) open(m *apiv1.OpenDevice) error {
	var err error
	if k.stream, err = k.instance.client.Session(k.ctx); err != nil {
		return wire.FromStatus(err)
	}
	// An error of Send only says that the stream ended; Recv says why.
	_ = k.stream.Send(&apiv1.SessionRequest{Open: m})
	reply, err := k.stream.Recv()
	if err != nil {
		return wire.FromStatus(err)
	}
	opened := reply.GetOpened()
	if opened == nil || len(opened.GetHeld()) > heldMax {
		return fmt.Errorf("description of the device: %w", core.ErrCorrupt)
	}
	if k.description, err = wire.ToDeviceDescription(opened.GetDescription()); err != nil {
		return err
	}
	if k.description.Name != k.device {
		return fmt.Errorf("plugin describes device %q: %w", wire.Cut(k.description.Name), core.ErrCorrupt)
	}
	seen := make(map[core.EntityID]bool, len(opened.GetHeld()))
	for _, h := range opened.GetHeld() {
		held := HeldEntity{core.EntityID(h.GetEntity()), core.Epoch(h.GetEpoch()), core.CommandSeq(h.GetApplied())}
		if held.Entity == 0 || held.Epoch == 0 || seen[held.Entity] {
			return fmt.Errorf("entities of the device: %w", core.ErrCorrupt)
		}
		seen[held.Entity] = true
		k.held = append(k.held, held)
	}
	return nil
}

// Describe returns what the backend declares of the device.
func (k *Link) Describe() core.DeviceDescription { return k.description }

// Entities lists what the plugin holds on this device, as of Open.
func (k *Link) Entities() []HeldEntity { return k.held }

// Send queues commands in order and returns at once; false means that the link
// is down and nothing was queued.
func (k *Link) Send(commands []core.Command) bool {
	k.mu.Lock()
	ended := k.mu.ended
	full := !ended && len(k.mu.queue)+len(commands) > commandsMax
	if !ended && !full {
		k.mu.queue = append(k.mu.queue, commands...)
	}
	k.mu.Unlock()
	if full {
		k.end(fmt.Errorf("plugin leaves %d commands unread: %w", commandsMax, core.ErrFull))
	}
	k.notify()
	return !ended && !full
}

// Ack says that events up to seq are durable. Later calls may have higher
// numbers only; lower ones do nothing.
func (k *Link) Ack(seq core.EventSeq) {
	k.instance.mu.Lock()
	k.instance.mu.acked[k.device] = max(k.instance.mu.acked[k.device], seq)
	k.instance.mu.Unlock()
	k.mu.Lock()
	k.mu.ack = max(k.mu.ack, seq)
	k.mu.Unlock()
	k.notify()
}

// Down is closed when the stream has ended.
func (k *Link) Down() <-chan struct{} { return k.down }

// Close ends the stream; the plugin keeps its state.
func (k *Link) Close() { k.end(context.Canceled) }

func (k *Link) notify() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// end takes the link down, once.
func (k *Link) end(cause error) {
	k.mu.Lock()
	first := !k.mu.ended
	k.mu.ended = true
	k.mu.queue = nil
	k.mu.Unlock()
	if !first {
		return
	}
	if !errors.Is(cause, context.Canceled) && k.instance.ctx.Err() == nil {
		k.instance.log.Warn("session ended", "device", k.device, "error", cause)
	}
	k.cancel(cause)
	close(k.down)
}

// send packs what is queued into batches.
func (k *Link) send() error {
	var encoder wire.CommandEncoder
	var queue []core.Command
	var body []byte
	var acked core.EventSeq
	late := false
	for {
		clear(queue)
		k.mu.Lock()
		queue, k.mu.queue = k.mu.queue, queue[:0]
		ack := k.mu.ack
		k.mu.Unlock()
		if len(queue) == 0 && (ack == acked || ack-acked < ackFew && !late) {
			var later <-chan time.Time
			if ack != acked {
				later = time.After(ackPause)
			}
			select {
			case <-k.wake:
			case <-later:
				late = true
			case <-k.ctx.Done():
				return context.Cause(k.ctx)
			}
			continue
		}
		late = false
		for rest := queue; len(rest) > 0 || ack != acked; {
			m := &apiv1.SessionRequest{}
			if ack != acked {
				m.Ack, acked = uint64(ack), ack
			}
			n := 0
			body = wire.Begin(body)
			for n < len(rest) && n < wire.BatchCount && len(body) < wire.BatchBytes {
				var err error
				if body, err = encoder.Append(body, &rest[n]); err != nil {
					return err
				}
				n++
			}
			if n > 0 {
				m.Commands = wire.Finish(body, n)
			}
			rest = rest[n:]
			if err := k.stream.Send(m); err != nil {
				// Recv has the reason.
				<-k.ctx.Done()
				return context.Cause(k.ctx)
			}
		}
	}
}

// receive validates events and hands them on.
func (k *Link) receive() error {
	var last core.EventSeq
	for {
		m, err := k.stream.Recv()
		if err != nil {
			return wire.FromStatus(err)
		}
		if m.GetOpened() != nil {
			return fmt.Errorf("device %s described twice: %w", k.device, core.ErrCorrupt)
		}
		var batch []core.BackendEvent
		if b := m.GetEvents(); len(b) > 0 {
			if batch, err = wire.DecodeEvents(b, false, nil); err != nil {
				return err
			}
		}
		for n := range batch {
			if last != 0 && batch[n].Seq != last+1 {
				return fmt.Errorf("event %d after %d: %w", batch[n].Seq, last, core.ErrCorrupt)
			}
			last = batch[n].Seq
		}
		if b := m.GetProgress(); len(b) > 0 {
			if batch, err = wire.DecodeEvents(b, true, batch); err != nil {
				return err
			}
		}
		if len(batch) > 0 && k.ctx.Err() == nil {
			k.events(batch)
		}
	}
}
