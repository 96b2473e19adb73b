package sdk

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

type uploadKey struct {
	entity core.EntityID
	epoch  core.Epoch
}

// upload is an image on its way in: the service's goroutine waits in done while
// the entity's executor reads the stream.
type upload struct {
	key    uploadKey
	header core.ImageHeader
	stream grpc.ClientStreamingServer[apiv1.PutImageRequest, apiv1.PutImageReply]
	// claimed is guarded by the device's mutex.
	claimed bool
	once    sync.Once
	done    chan struct{}
	err     error
}

// finish lets the service answer the host, with the first result it is given.
func (u *upload) finish(err error) {
	u.once.Do(func() {
		u.err = err
		close(u.done)
	})
}

// imageTime is the time allowed for reading or writing the buffers of an image.
func imageTime(buffers []core.BufferSpec) time.Duration {
	var sum uint64
	for _, b := range buffers {
		sum += b.Size / imageRate
	}
	return time.Duration(min(sum, uint64(24*time.Hour/time.Second))) * time.Second
}

// PutImage implements the service.
func (s *server) PutImage(stream grpc.ClientStreamingServer[apiv1.PutImageRequest, apiv1.PutImageReply]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	t := first.GetTarget()
	return wire.ToStatus(s.putImage(stream, t, first.GetHeader()), core.Epoch(t.GetEpoch()))
}

func (s *server) putImage(stream grpc.ClientStreamingServer[apiv1.PutImageRequest, apiv1.PutImageReply], t *apiv1.ImageTarget, m *apiv1.ImageHeader) error {
	d, key, err := s.target(t)
	if err != nil {
		return err
	}
	header, err := wire.ToImageHeader(m)
	if err != nil {
		return err
	}
	if header.Entity != key.entity {
		return fmt.Errorf("image of entity %d for entity %d: %w", header.Entity, key.entity, core.ErrInvalid)
	}
	u := &upload{key: key, header: header, stream: stream, done: make(chan struct{})}
	created, err := d.offer(u)
	if err != nil {
		return err
	}
	if created {
		return stream.SendAndClose(&apiv1.PutImageReply{})
	}
	defer d.withdraw(u)
	unclaimed := time.AfterFunc(imageWait, func() {
		if !d.claimed(u) {
			u.finish(fmt.Errorf("no create for entity %d of epoch %d: %w", key.entity, key.epoch, core.ErrDeadline))
		}
	})
	defer unclaimed.Stop()
	select {
	case <-u.done:
	case <-stream.Context().Done():
		u.finish(context.Cause(stream.Context()))
		<-u.done
	case <-d.ctx.Done():
		u.finish(context.Cause(d.ctx))
		<-u.done
	}
	if u.err != nil {
		return u.err
	}
	return stream.SendAndClose(&apiv1.PutImageReply{})
}

// target finds the device and checks who asks.
func (s *server) target(t *apiv1.ImageTarget) (*device, uploadKey, error) {
	key := uploadKey{core.EntityID(t.GetEntity()), core.Epoch(t.GetEpoch())}
	if key.entity == 0 || key.epoch == 0 {
		return nil, key, fmt.Errorf("target of image: %w", core.ErrInvalid)
	}
	d, err := s.device(t.GetDevice())
	if err != nil {
		return nil, key, err
	}
	return d, key, d.stale(core.Session(t.GetSession()))
}

// offer makes an image available to the create command of its key. created
// says that the entity is already there, so that nobody needs it.
func (d *device) offer(u *upload) (created bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.mu.lanes[u.key.entity]
	if l != nil && l.created == u.key.epoch && l.over < u.key.epoch {
		return true, nil
	}
	if l != nil && max(l.created, l.over) >= u.key.epoch || d.mu.tombs[u.key.entity].epoch >= u.key.epoch {
		return false, fmt.Errorf("image of entity %d of epoch %d: %w", u.key.entity, u.key.epoch, core.ErrStale)
	}
	if old := d.mu.uploads[u.key]; old != nil {
		if old.claimed {
			return false, fmt.Errorf("image of entity %d of epoch %d is being read: %w", u.key.entity, u.key.epoch, core.ErrBusy)
		}
		old.finish(fmt.Errorf("image of entity %d of epoch %d was sent again: %w", u.key.entity, u.key.epoch, core.ErrStale))
	} else if len(d.mu.uploads) >= uploadsMax {
		return false, fmt.Errorf("images waiting on device %s: %w", d.spec.Name, core.ErrFull)
	}
	d.mu.uploads[u.key] = u
	close(d.mu.arrived)
	d.mu.arrived = make(chan struct{})
	return false, nil
}

func (d *device) withdraw(u *upload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.uploads[u.key] == u {
		delete(d.mu.uploads, u.key)
	}
}

func (d *device) claimed(u *upload) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return u.claimed
}

// claim waits for the image of key, at most imageWait.
func (d *device) claim(key uploadKey) (*upload, error) {
	timeout := time.NewTimer(imageWait)
	defer timeout.Stop()
	for {
		d.mu.Lock()
		u, arrived := d.mu.uploads[key], d.mu.arrived
		if u != nil {
			u.claimed = true
		}
		d.mu.Unlock()
		if u != nil {
			return u, nil
		}
		select {
		case <-arrived:
		case <-timeout.C:
			return nil, fmt.Errorf("image of epoch %d did not come: %w", key.epoch, core.ErrDeadline)
		case <-d.ctx.Done():
			return nil, context.Cause(d.ctx)
		}
	}
}

// uploadSource reads an upload once.
type uploadSource struct {
	upload  *upload
	started bool
	ended   bool
	err     error
}

// Header implements core.ImageSource.
func (s *uploadSource) Header() core.ImageHeader { return s.upload.header }

// Chunks implements core.ImageSource. The image can be read once.
func (s *uploadSource) Chunks(f func(core.ChunkRef, []byte) error) error {
	if s.started {
		return fmt.Errorf("image of entity %d is read twice: %w", s.upload.key.entity, core.ErrInvalid)
	}
	s.started = true
	s.err = s.read(f)
	return s.err
}

// drain reads what the backend did not, so that damage is noticed anyway.
func (s *uploadSource) drain() error {
	if !s.started {
		return s.Chunks(func(core.ChunkRef, []byte) error { return nil })
	}
	if s.err == nil && !s.ended {
		return fmt.Errorf("image of entity %d was not read to its end: %w", s.upload.key.entity, core.ErrCorrupt)
	}
	return s.err
}

func (s *uploadSource) read(f func(core.ChunkRef, []byte) error) error {
	idle := time.AfterFunc(imageIdle, func() { s.upload.finish(fmt.Errorf("image stalled: %w", core.ErrDeadline)) })
	defer idle.Stop()
	order := wire.NewSequence(s.upload.header.Buffers)
	for {
		m, err := s.upload.stream.Recv()
		if err != nil {
			return fmt.Errorf("image of entity %d breaks off: %w: %w", s.upload.key.entity, core.ErrCorrupt, err)
		}
		idle.Reset(imageIdle)
		if m.GetTrailer() != nil {
			s.ended = true
			return order.Check(m.GetTrailer())
		}
		names, err := wire.DecodeNames(m.GetNames().GetRefs(), 1)
		if err != nil {
			return err
		}
		if len(names) != 1 {
			return fmt.Errorf("chunk without a name: %w", core.ErrCorrupt)
		}
		if err := order.Next(names[0]); err != nil {
			return err
		}
		data := m.GetData()
		if names[0].Zero {
			data = nil
		} else if err := wire.CheckData(names[0], data); err != nil {
			return err
		}
		if err := f(names[0].ChunkRef, data); err != nil {
			return err
		}
		crash.Point("sdk.image.put.mid")
	}
}

// saving is a GetImage call that waits for the entity's executor.
type saving struct {
	epoch  core.Epoch
	stream grpc.BidiStreamingServer[apiv1.GetImageRequest, apiv1.GetImageReply]
	once   sync.Once
	done   chan struct{}
	err    error
}

func (s *saving) finish(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.done)
	})
}

// GetImage implements the service.
func (s *server) GetImage(stream grpc.BidiStreamingServer[apiv1.GetImageRequest, apiv1.GetImageReply]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	t := first.GetTarget()
	return wire.ToStatus(s.getImage(stream, t), core.Epoch(t.GetEpoch()))
}

func (s *server) getImage(stream grpc.BidiStreamingServer[apiv1.GetImageRequest, apiv1.GetImageReply], t *apiv1.ImageTarget) error {
	d, key, err := s.target(t)
	if err != nil {
		return err
	}
	save := &saving{epoch: key.epoch, stream: stream, done: make(chan struct{})}
	if err := d.enqueueSave(key, save); err != nil {
		return err
	}
	select {
	case <-save.done:
	case <-stream.Context().Done():
		save.finish(context.Cause(stream.Context()))
	case <-d.ctx.Done():
		save.finish(context.Cause(d.ctx))
	}
	<-save.done
	return save.err
}

func (d *device) enqueueSave(key uploadKey, save *saving) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.mu.lanes[key.entity]
	if l == nil {
		return fmt.Errorf("save entity %d: %w", key.entity, core.ErrNotFound)
	}
	if key.epoch < l.epoch {
		return fmt.Errorf("save entity %d of epoch %d: %w", key.entity, key.epoch, core.ErrStale)
	}
	if d.full(l) {
		return fmt.Errorf("commands of entity %d: %w", key.entity, core.ErrFull)
	}
	d.queue(l, item{other: &request{save: save}})
	return nil
}

// save takes the entity's image and streams it. It runs on the executor, so
// that nothing else happens to the entity meanwhile.
func (l *lane) save(s *saving) error {
	select {
	case <-s.done:
		return s.err
	default:
	}
	switch {
	case l.entity == nil || l.live != s.epoch:
		return fmt.Errorf("save entity %d of epoch %d: %w", l.id, s.epoch, core.ErrStale)
	case l.d.events.lost(l.report):
		return fmt.Errorf("save entity %d: lost: %w", l.id, core.ErrGone)
	case !l.suspended:
		return fmt.Errorf("save entity %d: not suspended: %w", l.id, core.ErrInvalid)
	}
	saver, ok := l.entity.(Saver)
	if !ok {
		return fmt.Errorf("save entity %d: %w", l.id, core.ErrUnsupported)
	}
	// The buffers are not known before Save; an image is at most MemoryMax large.
	bound := saveBound + imageTime([]core.BufferSpec{{Size: min(l.d.description.MemoryMax, wire.BufferMax)}})
	return l.d.call("save", bound, func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { s.finish(fmt.Errorf("save entity %d: %w", l.id, core.ErrDeadline)) })()
		src, err := saver.Save(ctx)
		if err != nil {
			return err
		}
		return s.send(src)
	})
}

func (s *saving) send(src core.ImageSource) error {
	idle := time.AfterFunc(imageIdle, func() { s.finish(fmt.Errorf("image stalled: %w", core.ErrDeadline)) })
	defer idle.Stop()
	h := src.Header()
	header, err := wire.FromImageHeader(h)
	if err != nil {
		return err
	}
	if err := s.stream.Send(&apiv1.GetImageReply{Header: header}); err != nil {
		return err
	}
	w := window{saving: s, order: wire.NewSequence(h.Buffers), idle: idle}
	if err := src.Chunks(w.add); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	trailer, err := w.order.Trailer()
	if err != nil {
		return err
	}
	return s.stream.Send(&apiv1.GetImageReply{Trailer: trailer})
}

// window collects chunks until their names are offered together.
type window struct {
	*saving
	order *wire.Sequence
	idle  *time.Timer
	names []wire.Name
	data  [wire.WindowChunks][]byte
}

func (w *window) add(ref core.ChunkRef, data []byte) error {
	n := wire.Name{ChunkRef: ref, Zero: data == nil || bytes.Equal(data, wire.Zeroes[:min(len(data), len(wire.Zeroes))])}
	if !n.Zero {
		// The backend's own slip would otherwise become a corrupt image.
		if len(data) != ref.Size {
			return fmt.Errorf("chunk %d of buffer %d: %d bytes, named %d: %w", ref.Index, ref.Buffer, len(data), ref.Size, core.ErrCorrupt)
		}
		i := len(w.names)
		w.data[i] = append(w.data[i][:0], data...)
	}
	if err := w.order.Next(n); err != nil {
		return err
	}
	w.names = append(w.names, n)
	if len(w.names) == wire.WindowChunks {
		return w.flush()
	}
	return nil
}

func (w *window) flush() error {
	if len(w.names) == 0 {
		return nil
	}
	var refs []byte
	for _, n := range w.names {
		refs = wire.AppendName(refs, n)
	}
	names := &apiv1.ChunkNames{Refs: wire.PutCount(refs, len(w.names))}
	if err := w.stream.Send(&apiv1.GetImageReply{Names: names}); err != nil {
		return err
	}
	m, err := w.stream.Recv()
	if err != nil {
		return err
	}
	w.idle.Reset(imageIdle)
	if len(m.GetWant()) != len(w.names) {
		return fmt.Errorf("answer for %d of %d chunks: %w", len(m.GetWant()), len(w.names), core.ErrCorrupt)
	}
	for i, want := range m.GetWant() {
		if want == 0 || w.names[i].Zero {
			continue
		}
		if err := w.stream.Send(&apiv1.GetImageReply{Data: w.data[i]}); err != nil {
			return err
		}
		w.idle.Reset(imageIdle)
	}
	crash.Point("sdk.image.get.mid")
	w.names = w.names[:0]
	return nil
}
