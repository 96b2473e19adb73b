package sdk

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// eventLog keeps the numbered events of a device until they are acknowledged,
// and the latest progress samples. Any goroutine may use it; nothing but room blocks.
//
// Events are packed as they are reported and kept as the bytes that are sent: a
// busy device makes millions in a second, and keeping them as values that are
// packed later cost several times as much.
type eventLog struct {
	log hclog.Logger
	// full says, without the mutex, that eventsMax events are not acknowledged.
	full atomic.Bool
	mu   struct {
		sync.Mutex
		// blocks[head:] have the events after acked up to last, in order; the
		// first may begin with some that are acknowledged, the last may be open.
		blocks      []eventBlock
		head        int
		acked, last core.EventSeq
		// space is where the next block is packed.
		space []byte
		// progress has the samples not yet sent.
		progress map[core.EntityID][]core.BackendEvent
		// active are the reporters of entities with started jobs.
		active []*reporter
		// held counts the executors in the middle of a batch; due says that the
		// open block is to be sent although it is not full.
		held int
		due  bool
		// room is closed when an acknowledgement made room.
		room chan struct{}
		// wake tells the sender of the present session that there is something.
		wake chan struct{}
	}
}

// eventBlock is the events of one message.
type eventBlock struct {
	batch wire.EventBatch
	first core.EventSeq
	// body is set when the block is sealed: nothing is added any more, and
	// senders may read it without the mutex.
	body []byte
}

func (b *eventBlock) last() core.EventSeq { return b.first + core.EventSeq(b.batch.Count()) - 1 }

func newEventLog(log hclog.Logger) *eventLog {
	l := &eventLog{log: log}
	l.mu.progress = make(map[core.EntityID][]core.BackendEvent)
	l.mu.room = make(chan struct{})
	l.mu.wake = make(chan struct{}, 1)
	return l
}

// attach returns the channel that wakes a new session's sender.
func (l *eventLog) attach() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.wake = make(chan struct{}, 1)
	l.mu.wake <- struct{}{}
	l.mu.due = true
	return l.mu.wake
}

// append numbers e and keeps it. r, when not nil, is who reports.
func (l *eventLog) append(r *reporter, e *core.BackendEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(r, e)
}

// add is append with the mutex held.
func (l *eventLog) add(r *reporter, e *core.BackendEvent) {
	if r != nil {
		if r.closed.Load() {
			return
		}
		l.track(r, e)
	}
	l.mu.last++
	e.Seq = l.mu.last
	b := l.open()
	b.batch.Append(e)
	if l.mu.last-l.mu.acked == eventsMax {
		l.full.Store(true)
	}
	if l.mu.held == 0 {
		l.mu.due = true
	}
	if l.mu.due || b.batch.Full() {
		l.notify()
	}
}

// open returns the block that takes the next event.
func (l *eventLog) open() *eventBlock {
	if n := len(l.mu.blocks); n > l.mu.head {
		if b := &l.mu.blocks[n-1]; b.body == nil && !b.batch.Full() {
			return b
		}
		l.seal(&l.mu.blocks[n-1])
	}
	if cap(l.mu.space) < blockSpace {
		l.mu.space = make([]byte, 0, blocksBytes)
	}
	l.mu.blocks = append(l.mu.blocks, eventBlock{batch: wire.NewEventBatch(l.mu.space), first: l.mu.last})
	l.mu.space = nil
	return &l.mu.blocks[len(l.mu.blocks)-1]
}

// seal ends a block; the next one is packed behind it.
func (l *eventLog) seal(b *eventBlock) {
	if b.body == nil {
		b.body = b.batch.Body()
		l.mu.space = b.batch.Rest()
	}
}

// hold announces an executor that is about to make events in a row, so that
// they leave together; release, which must follow, sends them.
func (l *eventLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.held++
}

func (l *eventLog) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.held--
	if n := len(l.mu.blocks); n > l.mu.head && l.mu.blocks[n-1].body == nil {
		l.mu.due = true
		l.notify()
	}
}

// flush sends what was held by an executor that takes long.
func (l *eventLog) flush() { l.hold(); l.release() }

// track follows which jobs are started, so that only those are sampled.
func (l *eventLog) track(r *reporter, e *core.BackendEvent) {
	switch e.Kind {
	case core.EventStarted:
		if !slices.Contains(r.started, e.Job) {
			r.started = append(r.started, e.Job)
		}
		l.activate(r)
	case core.EventCompleted, core.EventCancelled:
		r.leave(e.Job)
		if i := slices.Index(r.started, e.Job); i >= 0 {
			r.started = slices.Delete(r.started, i, i+1)
		}
		if len(l.mu.progress) > 0 {
			if kept, ok := l.mu.progress[r.entity]; ok {
				l.mu.progress[r.entity] = slices.DeleteFunc(kept, func(p core.BackendEvent) bool { return p.Job == e.Job })
			}
		}
		if len(r.started) == 0 {
			l.deactivate(r)
		}
	case core.EventEntityLost, core.EventDestroyed:
		r.closed.Store(true)
		r.started, r.ring, r.head = nil, nil, 0
		l.deactivate(r)
		delete(l.mu.progress, r.entity)
	}
}

func (l *eventLog) activate(r *reporter) {
	if r.place == 0 {
		l.mu.active = append(l.mu.active, r)
		r.place = len(l.mu.active)
	}
}

func (l *eventLog) deactivate(r *reporter) {
	if r.place == 0 {
		return
	}
	end := len(l.mu.active) - 1
	moved := l.mu.active[end]
	l.mu.active[r.place-1], moved.place = moved, r.place
	l.mu.active[end] = nil
	l.mu.active, r.place = l.mu.active[:end], 0
}

func (l *eventLog) notify() {
	select {
	case l.mu.wake <- struct{}{}:
	default:
	}
}

// sample replaces the progress of r's entity.
func (l *eventLog) sample(r *reporter, usage []JobUsage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.closed.Load() || len(r.started) == 0 {
		return
	}
	var samples []core.BackendEvent
	for _, u := range usage {
		if slices.Contains(r.started, u.Job) {
			samples = append(samples, core.BackendEvent{
				Kind: core.EventProgress, Entity: r.entity, Epoch: r.epoch, Job: u.Job,
				Done: u.Done, Executed: u.Executed, ExecutedTime: u.ExecutedTime,
			})
		}
	}
	l.mu.progress[r.entity] = samples
	l.notify()
}

// lost reports whether r has ended: the entity was lost or destroyed.
func (l *eventLog) lost(r *reporter) bool { return r.closed.Load() }

// enter notes a job that is being handed to Run; leave takes back one that was
// refused.
func (l *eventLog) enter(r *reporter, job *Job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !r.closed.Load() {
		r.ring = append(r.ring, ringJob{job.Spec.ID, job.First, job.Spec.Workgroups()})
	}
}

func (l *eventLog) leave(r *reporter, job core.JobID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.leave(job)
}

// completeThrough reports the jobs of r in the ring up to one, in one piece: two
// callers at once do not mix their jobs.
func (l *eventLog) completeThrough(r *reporter, job core.JobID, u Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.ContainsFunc(r.ring[r.head:], func(x ringJob) bool { return x.job == job }) {
		return
	}
	for {
		x := r.ring[r.head]
		e := core.BackendEvent{Kind: core.EventCompleted, Entity: r.entity, Epoch: r.epoch, Job: x.job}
		if x.job == job {
			e.Done, e.Executed, e.ExecutedTime = u.Done, u.Executed, u.ExecutedTime
		} else {
			e.Done, e.Executed = x.end, x.end-x.first
		}
		l.add(r, &e)
		if x.job == job {
			return
		}
	}
}

// silence ends r without an event.
func (l *eventLog) silence(r *reporter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.track(r, &core.BackendEvent{Kind: core.EventDestroyed})
}

// executing returns the oldest job of r that has started and not ended, 0 when
// there is none.
func (l *eventLog) executing(r *reporter) core.JobID {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r == nil || len(r.started) == 0 {
		return 0
	}
	return r.started[0]
}

// running lists the entities with started jobs.
func (l *eventLog) running(out []core.EntityID) []core.EntityID {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.mu.active {
		out = append(out, r.entity)
	}
	return out
}

// take returns the next packed events after the number sent with the number of
// the last of them, nothing when there are none, and samples. The body stays as
// it is.
func (l *eventLog) take(sent core.EventSeq, progress []core.BackendEvent) ([]byte, core.EventSeq, []core.BackendEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for entity, samples := range l.mu.progress {
		if len(progress)+len(samples) > wire.BatchCount {
			l.notify()
			break
		}
		progress = append(progress, samples...)
		delete(l.mu.progress, entity)
	}
	sent = max(sent, l.mu.acked)
	if sent == l.mu.last {
		return nil, sent, progress
	}
	kept := l.mu.blocks[l.mu.head:]
	i, _ := slices.BinarySearchFunc(kept, sent+1, func(b eventBlock, seq core.EventSeq) int {
		return cmp.Compare(b.last(), seq)
	})
	b := &kept[i]
	if b.body == nil {
		if !l.mu.due && !b.batch.Full() {
			return nil, sent, progress
		}
		l.mu.due = false
		l.seal(b)
	}
	if b.first == sent+1 {
		return b.body, b.last(), progress
	}
	return b.after(sent), b.last(), progress
}

// after packs the events of a sealed block after the number sent. It is needed
// when a session ended in the middle of a block.
func (b *eventBlock) after(sent core.EventSeq) []byte {
	events, err := wire.DecodeEvents(b.body, false, nil)
	if err != nil {
		panic(fmt.Sprintf("events that were packed here: %v", err))
	}
	var rest wire.EventBatch
	for i := range events {
		if events[i].Seq > sent {
			rest.Append(&events[i])
		}
	}
	return rest.Body()
}

// ack drops the events up to seq and returns up to which all are dropped. A
// number that was never given is refused.
func (l *eventLog) ack(seq core.EventSeq) (core.EventSeq, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq > l.mu.last {
		return l.mu.acked, false
	}
	l.mu.acked = max(l.mu.acked, seq)
	for l.mu.head < len(l.mu.blocks) && l.mu.blocks[l.mu.head].last() <= seq {
		l.mu.blocks[l.mu.head] = eventBlock{}
		l.mu.head++
	}
	if l.mu.head > len(l.mu.blocks)/2 {
		n := copy(l.mu.blocks, l.mu.blocks[l.mu.head:])
		clear(l.mu.blocks[n:])
		l.mu.blocks, l.mu.head = l.mu.blocks[:n], 0
		if n == 0 && cap(l.mu.blocks) > blocksSpare {
			l.mu.blocks = nil
		}
	}
	if l.full.Load() && l.mu.last-l.mu.acked < eventsMax {
		l.full.Store(false)
		close(l.mu.room)
		l.mu.room = make(chan struct{})
	}
	return l.mu.acked, true
}

// roomFor returns nil when there is room for an event, else a channel that is
// closed when there may be.
func (l *eventLog) roomFor() <-chan struct{} {
	if !l.full.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.full.Load() {
		return nil
	}
	return l.mu.room
}

// wait returns when there is room, or with the cause of ctx.
func (l *eventLog) wait(ctx context.Context) error {
	for {
		room := l.roomFor()
		if room == nil {
			return nil
		}
		select {
		case <-room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reporter is what one entity's backend reports to, in one epoch.
type reporter struct {
	log    *eventLog
	entity core.EntityID
	epoch  core.Epoch
	// closed says that the entity was lost or destroyed; it changes under the
	// log's mutex, which also guards the others.
	closed  atomic.Bool
	started []core.JobID
	// ring[head:] are the jobs handed to Run that have not ended, in order.
	ring []ringJob
	head int
	// place is the position in the log's active reporters, counted from 1; 0
	// when it is not among them.
	place int
}

// ringJob is a job in the ring that executes the workgroups from first to before end.
type ringJob struct {
	job        core.JobID
	first, end uint64
}

// leave takes a job out of the ring, nearly always the first. The log's mutex is held.
func (r *reporter) leave(job core.JobID) {
	i := slices.IndexFunc(r.ring[r.head:], func(x ringJob) bool { return x.job == job })
	switch {
	case i < 0:
		return
	case i == 0:
		r.head++
	default:
		r.ring = slices.Delete(r.ring, r.head+i, r.head+i+1)
	}
	switch {
	case r.head < len(r.ring)/2:
	case r.head < len(r.ring):
		r.ring, r.head = slices.Delete(r.ring, 0, r.head), 0
	case cap(r.ring) > ringSpare:
		r.ring, r.head = nil, 0
	default:
		r.ring, r.head = r.ring[:0], 0
	}
}

func (r *reporter) report(kind core.BackendEventKind, job core.JobID, u Usage) {
	if job == 0 {
		r.log.log.Error("report without a job", "entity", r.entity, "kind", kind)
		return
	}
	r.log.append(r, &core.BackendEvent{
		Kind: kind, Entity: r.entity, Epoch: r.epoch, Job: job,
		Done: u.Done, Executed: u.Executed, ExecutedTime: u.ExecutedTime,
	})
}

var _ UpToReporter = (*reporter)(nil)

// Started implements Reporter.
func (r *reporter) Started(job core.JobID) { r.report(core.EventStarted, job, Usage{}) }

// Completed implements Reporter.
func (r *reporter) Completed(job core.JobID, u Usage) { r.report(core.EventCompleted, job, u) }

// CompletedThrough implements UpToReporter.
func (r *reporter) CompletedThrough(job core.JobID, u Usage) { r.log.completeThrough(r, job, u) }

// Cancelled implements Reporter.
func (r *reporter) Cancelled(job core.JobID, u Usage) { r.report(core.EventCancelled, job, u) }

// Lost implements Reporter.
func (r *reporter) Lost(guilty bool, job core.JobID, u Usage, cause core.Cause, detail string) {
	r.log.append(r, &core.BackendEvent{
		Kind: core.EventEntityLost, Entity: r.entity, Epoch: r.epoch, Job: job, Guilty: guilty,
		Done: u.Done, Executed: u.Executed, ExecutedTime: u.ExecutedTime, Cause: cause, Error: detail,
	})
}
