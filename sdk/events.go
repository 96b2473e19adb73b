package sdk

import (
	"context"
	"slices"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// eventLog keeps the numbered events of a device until they are acknowledged,
// and the latest progress samples. Any goroutine may use it; nothing but room blocks.
type eventLog struct {
	log hclog.Logger
	mu  struct {
		sync.Mutex
		// events[head:] are not acknowledged, in order of their numbers.
		events []core.BackendEvent
		head   int
		last   core.EventSeq
		// progress has the samples not yet sent.
		progress map[core.EntityID][]core.BackendEvent
		// active are the reporters of entities with started jobs.
		active map[*reporter]struct{}
		// held counts the executors in the middle of a batch, silent the events
		// appended since the sender was last woken.
		held, silent int
		// room is closed when an acknowledgement made room.
		room chan struct{}
		// wake tells the sender of the present session that there is something.
		wake chan struct{}
	}
}

func newEventLog(log hclog.Logger) *eventLog {
	l := &eventLog{log: log}
	l.mu.progress = make(map[core.EntityID][]core.BackendEvent)
	l.mu.active = make(map[*reporter]struct{})
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
	return l.mu.wake
}

// append numbers e and keeps it. r, when not nil, is who reports.
func (l *eventLog) append(r *reporter, e core.BackendEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r != nil {
		if r.closed {
			return
		}
		l.track(r, &e)
	}
	l.mu.last++
	e.Seq = l.mu.last
	l.mu.events = append(l.mu.events, e)
	if l.mu.silent++; l.mu.held == 0 || l.mu.silent >= eventsHeld {
		l.notify()
	}
}

// hold announces an executor that is about to make events in a row, so that
// they leave together; release, which must follow, wakes the sender.
func (l *eventLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.held++
}

func (l *eventLog) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.held--
	if l.mu.silent > 0 {
		l.notify()
	}
}

// flush wakes the sender for what was held by an executor that takes long.
func (l *eventLog) flush() { l.hold(); l.release() }

// track follows which jobs are started, so that only those are sampled.
func (l *eventLog) track(r *reporter, e *core.BackendEvent) {
	switch e.Kind {
	case core.EventStarted:
		if !slices.Contains(r.started, e.Job) {
			r.started = append(r.started, e.Job)
		}
		l.mu.active[r] = struct{}{}
	case core.EventCompleted, core.EventCancelled:
		r.started = slices.DeleteFunc(r.started, func(j core.JobID) bool { return j == e.Job })
		if kept, ok := l.mu.progress[r.entity]; ok {
			l.mu.progress[r.entity] = slices.DeleteFunc(kept, func(p core.BackendEvent) bool { return p.Job == e.Job })
		}
		if len(r.started) == 0 {
			delete(l.mu.active, r)
		}
	case core.EventEntityLost, core.EventDestroyed:
		r.closed, r.started = true, nil
		delete(l.mu.active, r)
		delete(l.mu.progress, r.entity)
	}
}

func (l *eventLog) notify() {
	l.mu.silent = 0
	select {
	case l.mu.wake <- struct{}{}:
	default:
	}
}

// sample replaces the progress of r's entity.
func (l *eventLog) sample(r *reporter, usage []JobUsage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.closed || len(r.started) == 0 {
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
func (l *eventLog) lost(r *reporter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return r.closed
}

// silence ends r without an event.
func (l *eventLog) silence(r *reporter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.track(r, &core.BackendEvent{Kind: core.EventDestroyed})
}

// running lists the entities with started jobs.
func (l *eventLog) running(out []core.EntityID) []core.EntityID {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.mu.active {
		out = append(out, r.entity)
	}
	return out
}

// take copies the next events after the number sent, and all samples.
func (l *eventLog) take(sent core.EventSeq, events, progress []core.BackendEvent) ([]core.BackendEvent, []core.BackendEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	pending := l.mu.events[l.mu.head:]
	if len(pending) > 0 && pending[0].Seq <= sent {
		pending = pending[min(uint64(sent-pending[0].Seq)+1, uint64(len(pending))):]
	}
	events = append(events, pending[:min(len(pending), wire.BatchCount)]...)
	for entity, samples := range l.mu.progress {
		if len(progress)+len(samples) > wire.BatchCount {
			l.notify()
			break
		}
		progress = append(progress, samples...)
		delete(l.mu.progress, entity)
	}
	return events, progress
}

// ack drops the events up to seq. A number that was never sent is refused.
func (l *eventLog) ack(seq core.EventSeq) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq > l.mu.last {
		return false
	}
	full := len(l.mu.events)-l.mu.head >= eventsMax
	for l.mu.head < len(l.mu.events) && l.mu.events[l.mu.head].Seq <= seq {
		l.mu.events[l.mu.head] = core.BackendEvent{}
		l.mu.head++
	}
	if l.mu.head == len(l.mu.events) {
		l.mu.events, l.mu.head = l.mu.events[:0], 0
		if cap(l.mu.events) > eventsSpare {
			l.mu.events = nil
		}
	} else if l.mu.head > len(l.mu.events)/2 && l.mu.head > 64 {
		n := copy(l.mu.events, l.mu.events[l.mu.head:])
		clear(l.mu.events[n:])
		l.mu.events, l.mu.head = l.mu.events[:n], 0
	}
	if full && len(l.mu.events)-l.mu.head < eventsMax {
		close(l.mu.room)
		l.mu.room = make(chan struct{})
	}
	return true
}

// roomFor returns nil when there is room for an event, else a channel that is
// closed when there may be.
func (l *eventLog) roomFor() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.events)-l.mu.head < eventsMax {
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
	// closed and started are guarded by the log's mutex.
	closed  bool
	started []core.JobID
}

func (r *reporter) report(kind core.BackendEventKind, job core.JobID, u Usage) {
	if job == 0 {
		r.log.log.Error("report without a job", "entity", r.entity, "kind", kind)
		return
	}
	r.log.append(r, core.BackendEvent{
		Kind: kind, Entity: r.entity, Epoch: r.epoch, Job: job,
		Done: u.Done, Executed: u.Executed, ExecutedTime: u.ExecutedTime,
	})
}

// Started implements Reporter.
func (r *reporter) Started(job core.JobID) { r.report(core.EventStarted, job, Usage{}) }

// Completed implements Reporter.
func (r *reporter) Completed(job core.JobID, u Usage) { r.report(core.EventCompleted, job, u) }

// Cancelled implements Reporter.
func (r *reporter) Cancelled(job core.JobID, u Usage) { r.report(core.EventCancelled, job, u) }

// Lost implements Reporter.
func (r *reporter) Lost(guilty bool, job core.JobID, u Usage, cause core.Cause, detail string) {
	r.log.append(r, core.BackendEvent{
		Kind: core.EventEntityLost, Entity: r.entity, Epoch: r.epoch, Job: job, Guilty: guilty,
		Done: u.Done, Executed: u.Executed, ExecutedTime: u.ExecutedTime, Cause: cause, Error: detail,
	})
}
