package sdk

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// device is one open device: its lanes, its events, its present session.
type device struct {
	spec        core.DeviceSpec
	description core.DeviceDescription
	dev         Device
	// leave bounds suspend and destroy.
	leave   time.Duration
	log     hclog.Logger
	events  *eventLog
	kernels *kernels
	fatal   func(string)
	// ctx ends when the device is being closed.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// pending counts commands taken and not yet executed.
	pending  atomic.Int64
	failOnce sync.Once

	mu struct {
		sync.Mutex
		session core.Session
		current *session
		lanes   map[core.EntityID]*lane
		tombs   map[core.EntityID]tomb
		// buried are the keys of tombs, oldest first.
		buried  []core.EntityID
		uploads map[uploadKey]*upload
		// spare are empty queues of lanes that went idle.
		spare [][]item
		// arrived is closed when an upload was added.
		arrived chan struct{}
	}
}

// tomb remembers an entity that has ended, so that a repeated command does not
// bring it back.
type tomb struct {
	epoch   core.Epoch
	applied core.CommandSeq
}

func newDevice(spec core.DeviceSpec, log hclog.Logger, fatal func(string)) *device {
	d := &device{spec: spec, log: log, fatal: fatal, events: newEventLog(log), leave: leaveBound}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.kernels = &kernels{d: d}
	d.kernels.mu.known = make(map[core.Digest]*kernelState)
	d.kernels.mu.changed = make(chan struct{})
	d.mu.lanes = make(map[core.EntityID]*lane)
	d.mu.tombs = make(map[core.EntityID]tomb)
	d.mu.uploads = make(map[uploadKey]*upload)
	d.mu.arrived = make(chan struct{})
	return d
}

// close stops the executors and closes the backend's device.
func (d *device) close(cause error) {
	d.cancel(cause)
	if d.dev == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeBound)
	defer cancel()
	if err := d.guard("close", func() error { return d.dev.Close(ctx) }); err != nil {
		d.log.Warn("device not closed", "error", err)
	}
}

// fail reports, once, that the device as a whole is lost.
func (d *device) fail(err error) {
	d.failOnce.Do(func() {
		d.log.Error("device failed", "error", err)
		d.events.append(nil, &core.BackendEvent{
			Kind: core.EventDeviceHealth, Cause: core.CauseDevice, Error: wire.Cut(err.Error()),
		})
	})
}

// guard calls the backend; a panic there ends the process.
func (d *device) guard(name string, f func() error) error {
	defer func() {
		if p := recover(); p != nil {
			d.fatal(fmt.Sprintf("backend panicked in %s of device %s: %v\n%s", name, d.spec.Name, p, debug.Stack()))
			panic(p)
		}
	}()
	return f()
}

// window returns a context with a deadline for calls into the backend. When it
// is not closed within callGrace after that, the device is reported as failed.
func (d *device) window(name string, bound time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(d.ctx, bound)
	stuck := time.AfterFunc(bound+callGrace, func() {
		d.fail(fmt.Errorf("backend does not return from %s: %w", name, core.ErrDeadline))
	})
	return ctx, func() {
		stuck.Stop()
		cancel()
	}
}

// call makes one call into the backend with a deadline.
func (d *device) call(name string, bound time.Duration, f func(context.Context) error) error {
	ctx, done := d.window(name, bound)
	defer done()
	return d.guard(name, func() error { return f(ctx) })
}

// full reports whether as much waits for an entity as may. The mutex is held.
func (d *device) full(l *lane) bool {
	return len(l.items)+int(l.ahead.Load()) >= 2*int(min(d.description.Credits, 1<<20))+laneSlack
}

// take queues the commands of a session. An error ends the session.
func (d *device) take(from *session, commands []core.Command) error {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.present(from); err != nil {
		return err
	}
	var l *lane
	for i := range commands {
		c := &commands[i]
		if l == nil || l.id != c.Entity {
			var err error
			if l, err = d.lane(c); err != nil {
				return err
			}
		}
		if l == nil || c.Seq <= l.applied || c.Epoch < l.epoch {
			continue
		}
		if d.full(l) {
			return fmt.Errorf("commands of entity %d: %w", c.Entity, core.ErrFull)
		}
		l.applied, l.epoch = c.Seq, c.Epoch
		d.pending.Add(1)
		d.queue(l, newItem(c, now))
	}
	return nil
}

// ack drops the events that a session acknowledged and returns up to which all
// are dropped. An error ends the session. The log's mutex is taken inside the
// device's, never the other way round: a session that is replaced meanwhile must
// not drop events after its successor was told where they begin.
func (d *device) ack(from *session, seq core.EventSeq) (core.EventSeq, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.present(from); err != nil {
		return 0, err
	}
	acked, ok := d.events.ack(seq)
	if !ok {
		return 0, fmt.Errorf("acknowledged event %d of device %s: %w", seq, d.spec.Name, core.ErrInvalid)
	}
	return acked, nil
}

// present refuses a session that was replaced. The mutex is held.
func (d *device) present(from *session) error {
	if d.mu.current != from {
		return fmt.Errorf("session %d of device %s was replaced by %d: %w", from.number, d.spec.Name, d.mu.session, core.ErrStale)
	}
	return nil
}

// lane returns the lane for a command; nil when the command belongs to an entity
// that has ended. The mutex is held.
func (d *device) lane(c *core.Command) (*lane, error) {
	l := d.mu.lanes[c.Entity]
	if l != nil {
		return l, nil
	}
	t := d.mu.tombs[c.Entity]
	if c.Seq <= t.applied || (c.Epoch <= t.epoch && c.Kind != core.CommandDestroy) {
		return nil, nil
	}
	if len(d.mu.lanes) >= lanesMax {
		return nil, fmt.Errorf("entities of device %s: %w", d.spec.Name, core.ErrFull)
	}
	l = &lane{d: d, id: c.Entity, over: t.epoch}
	d.mu.lanes[c.Entity] = l
	return l, nil
}

// queue adds an item and starts the executor if none runs. The mutex is held.
func (d *device) queue(l *lane, it item) {
	if l.items == nil && len(d.mu.spare) > 0 {
		last := len(d.mu.spare) - 1
		l.items, d.mu.spare = d.mu.spare[last], d.mu.spare[:last]
	}
	l.items = append(l.items, it)
	if !l.running {
		l.running = true
		go l.run()
	}
}

// next swaps the queued items of l for the empty slice spare. When there are
// none the executor ends, and an entity that does not exist any more is buried.
func (d *device) next(l *lane, spare []item) ([]item, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return nil, false
	}
	if len(l.items) > 0 {
		items := l.items
		l.items = spare
		l.ahead.Store(int32(len(items)))
		return items, true
	}
	for _, queue := range [][]item{l.items, spare} {
		if c := cap(queue); c > 0 && c <= itemsSpare && len(d.mu.spare) < queuesSpare {
			d.mu.spare = append(d.mu.spare, queue[:0])
		}
	}
	l.running, l.items = false, nil
	if l.entity == nil {
		delete(d.mu.lanes, l.id)
		d.bury(l.id, tomb{l.over, l.applied})
	}
	return nil, false
}

// bury remembers an ended entity. The mutex is held.
func (d *device) bury(id core.EntityID, t tomb) {
	if _, known := d.mu.tombs[id]; !known {
		d.mu.buried = append(d.mu.buried, id)
	}
	d.mu.tombs[id] = t
	for len(d.mu.tombs) > tombsMax {
		delete(d.mu.tombs, d.mu.buried[0])
		d.mu.buried = d.mu.buried[1:]
	}
}

// setOver notes that the epochs up to one have ended, before anybody is told of it.
func (d *device) setOver(l *lane, epoch core.Epoch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.over = max(l.over, epoch)
}

func (d *device) setCreated(l *lane, epoch core.Epoch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	l.created = epoch
}

// sample queues a sample for every entity that executes and is not busy.
func (d *device) sample(scratch []core.EntityID) []core.EntityID {
	scratch = d.events.running(scratch[:0])
	if len(scratch) == 0 {
		return scratch
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range scratch {
		if l := d.mu.lanes[id]; l != nil && !l.running {
			d.queue(l, item{other: &request{sample: true}})
		}
	}
	return scratch
}

// attach makes s the session of the device, ends the older one and returns what
// is held.
func (d *device) attach(s *session) ([]core.EntityID, []tomb, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.number < d.mu.session {
		return nil, nil, fmt.Errorf("session %d of device %s, %d was seen: %w", s.number, d.spec.Name, d.mu.session, core.ErrStale)
	}
	if d.mu.current != nil {
		d.mu.current.end(fmt.Errorf("session %d replaced by %d: %w", d.mu.session, s.number, core.ErrStale))
	}
	d.mu.session, d.mu.current = s.number, s
	ids := make([]core.EntityID, 0, len(d.mu.lanes))
	held := make([]tomb, 0, len(d.mu.lanes))
	for id, l := range d.mu.lanes {
		ids, held = append(ids, id), append(held, tomb{l.epoch, l.applied})
	}
	return ids, held, nil
}

// detach forgets s if it is still the session of the device.
func (d *device) detach(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.current == s {
		d.mu.current = nil
	}
}

// stale says whether bulk data come from a session that was replaced.
func (d *device) stale(number core.Session) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if number == 0 || number < d.mu.session {
		return fmt.Errorf("session %d of device %s, %d was seen: %w", number, d.spec.Name, d.mu.session, core.ErrStale)
	}
	return nil
}
