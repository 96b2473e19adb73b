package host

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Commands that wait to be sent on one link are bounded in number and in bytes;
// a plugin that leaves that many unread is not usable, so the link goes down.
const (
	commandsMax     = 1 << 18
	commandBytesMax = 256 << 20
)

// batchesSpare is how many empty batches a link keeps.
const batchesSpare = 16

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
	// first is the number that the first event of the session must have.
	first  core.EventSeq
	ctx    context.Context
	cancel context.CancelCauseFunc
	down   chan struct{}
	// wake tells the sender that there is something.
	wake chan struct{}

	mu struct {
		sync.Mutex
		// queue are the commands that wait, packed by Send; spare are empty.
		queue []*wire.CommandBatch
		spare []*wire.CommandBatch
		// count and size are of the commands in queue.
		count, size int
		ack         core.EventSeq
		ended       bool
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
	if err := k.begin(core.EventSeq(m.GetAcked()), core.EventSeq(opened.GetAcked())); err != nil {
		return err
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

// begin checks where the plugin says that its events begin: after what this host
// told it, or more that went over a session before; where this host knows nothing
// yet, after what the plugin was told by an earlier one.
func (k *Link) begin(told, acked core.EventSeq) error {
	k.instance.mu.Lock()
	durable := k.instance.mu.acked[k.device]
	k.instance.mu.Unlock()
	if acked < told || told != 0 && acked > durable || acked == math.MaxUint64 {
		return fmt.Errorf("plugin keeps events after %d, %d were acknowledged: %w", acked, durable, core.ErrCorrupt)
	}
	k.first = acked + 1
	return nil
}

// Describe returns what the backend declares of the device.
func (k *Link) Describe() core.DeviceDescription { return k.description }

// Entities lists what the plugin holds on this device, as of Open.
func (k *Link) Entities() []HeldEntity { return k.held }

// Send queues commands in order and returns at once; false means that the link
// is down and nothing was queued. The commands are not kept.
func (k *Link) Send(commands []core.Command) bool {
	k.mu.Lock()
	sent, err := !k.mu.ended, error(nil)
	if sent {
		err = k.pack(commands)
	}
	k.mu.Unlock()
	if err != nil {
		k.end(err)
		return false
	}
	k.notify()
	return sent
}

// pack puts commands into batches. The mutex is held.
func (k *Link) pack(commands []core.Command) error {
	for i := range commands {
		var b *wire.CommandBatch
		if n := len(k.mu.queue); n > 0 && !k.mu.queue[n-1].Full() {
			b = k.mu.queue[n-1]
		} else {
			b = k.emptyBatch()
			k.mu.queue = append(k.mu.queue, b)
		}
		before := b.Size()
		if err := b.Append(&commands[i]); err != nil {
			return err
		}
		k.mu.count++
		k.mu.size += b.Size() - before
	}
	if k.mu.count > commandsMax || k.mu.size > commandBytesMax {
		return fmt.Errorf("plugin leaves %d commands of %d bytes unread: %w", k.mu.count, k.mu.size, core.ErrFull)
	}
	return nil
}

func (k *Link) emptyBatch() *wire.CommandBatch {
	n := len(k.mu.spare)
	if n == 0 {
		return &wire.CommandBatch{}
	}
	b := k.mu.spare[n-1]
	k.mu.spare = k.mu.spare[:n-1]
	return b
}

// unpack takes the next batch from the queue, nil when there is none, and gives
// back the last.
func (k *Link) unpack(last *wire.CommandBatch) (*wire.CommandBatch, core.EventSeq) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if last != nil && len(k.mu.spare) < batchesSpare && last.Size() < wire.BatchBytes/8 {
		last.Reset()
		k.mu.spare = append(k.mu.spare, last)
	}
	if len(k.mu.queue) == 0 {
		return nil, k.mu.ack
	}
	b := k.mu.queue[0]
	k.mu.queue[0] = nil
	if k.mu.queue = k.mu.queue[1:]; len(k.mu.queue) == 0 {
		k.mu.queue = nil
	}
	k.mu.count -= b.Count()
	k.mu.size -= b.Size()
	return b, k.mu.ack
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
	k.mu.queue, k.mu.spare = nil, nil
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

// send sends the queued batches, and acknowledgements with them.
func (k *Link) send() error {
	var batch *wire.CommandBatch
	var ack, acked core.EventSeq
	late := time.NewTimer(ackPause)
	defer late.Stop()
	waited := false
	for {
		batch, ack = k.unpack(batch)
		if batch == nil && (ack == acked || ack-acked < ackFew && !waited) {
			var later <-chan time.Time
			if ack != acked {
				late.Reset(ackPause)
				later = late.C
			}
			select {
			case <-k.wake:
			case <-later:
				waited = true
			case <-k.ctx.Done():
				return context.Cause(k.ctx)
			}
			continue
		}
		waited = false
		m := &apiv1.SessionRequest{}
		if ack != acked {
			m.Ack, acked = uint64(ack), ack
		}
		if batch != nil {
			m.Commands = batch.Body()
		}
		if err := k.stream.Send(m); err != nil {
			// Recv has the reason.
			<-k.ctx.Done()
			return context.Cause(k.ctx)
		}
	}
}

// receive validates events and hands them on.
func (k *Link) receive() error {
	next := k.first
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
			if batch[n].Seq != next {
				return fmt.Errorf("event %d, %d was to come: %w", batch[n].Seq, next, core.ErrCorrupt)
			}
			next++
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
