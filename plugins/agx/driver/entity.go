package driver

import (
	"context"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
)

var (
	_ sdk.Entity         = (*queue)(nil)
	_ sdk.PropertySetter = (*queue)(nil)
	_ sdk.Suspender      = (*queue)(nil)
	_ sdk.Saver          = (*queue)(nil)
	_ sdk.Sampler        = (*queue)(nil)
)

// Create implements sdk.Device. The firmware hears of the entity with its first job.
func (d *Driver) Create(ctx context.Context, spec *core.EntitySpec, image core.ImageSource, report sdk.Reporter) (sdk.Entity, error) {
	what := "create entity " + spec.Name
	if !d.memory.Enter() {
		return nil, fmt.Errorf("%s: %w", what, errClosed)
	}
	defer d.memory.Leave()
	header := image.Header()
	if !slices.Equal(header.Buffers, spec.Buffers) {
		return nil, fmt.Errorf("%s: image has other buffers: %w", what, core.ErrInvalid)
	}
	if _, known := levels[spec.Properties.Priority]; !known {
		return nil, fmt.Errorf("%s: priority %q: %w", what, spec.Properties.Priority, core.ErrInvalid)
	}
	buffers, err := d.memory.Place(spec.Buffers)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	q := &queue{d: d, entity: spec.ID, report: report, priority: spec.Properties.Priority, buffers: buffers, rates: rates{}}
	q.inherit(header)
	if err = d.memory.Fill(ctx, buffers, image); err == nil {
		err = d.loop.Call(ctx, "admit", func(done func(error)) { done(d.admit(q)) })
	}
	if err != nil {
		return nil, d.undo(what, q, err)
	}
	return q, nil
}

// undo frees the memory of an entity that never came to be.
func (d *Driver) undo(what string, q *queue, err error) error {
	posted := d.loop.Post(func() {
		if d.queues[q.uuid] == q {
			// Admitted, but nobody waited for it any more.
			q.destroy = true
			q.settle()
			return
		}
		if free := d.memory.Unplace(q.buffers); free != nil {
			d.log.Error("device memory leaked", "entity", q.entity, "error", free)
		}
	})
	_ = posted // After Close the whole memory goes.
	return fmt.Errorf("%s: %w", what, err)
}

// admit gives the queue its id. Errors wrap core.ErrFull.
func (d *Driver) admit(q *queue) error {
	if d.phase != phaseUp {
		return fmt.Errorf("device is not up: %w", core.ErrInvalid)
	}
	if uint32(len(d.queues)) >= d.config.EntitiesMax {
		return fmt.Errorf("%d entities: %w", len(d.queues), core.ErrFull)
	}
	q.uuid = d.nextID
	d.nextID++
	d.queues[q.uuid] = q
	return nil
}

// Run implements sdk.Entity.
func (q *queue) Run(ctx context.Context, r sdk.Job) error {
	return q.d.loop.Call(ctx, fmt.Sprintf("run job %d", r.Spec.ID), func(done func(error)) {
		err := q.accept(r)
		if err == nil {
			q.settle()
		}
		done(err)
	})
}

// Cancel implements sdk.Entity: it returns once the job is marked. The job leaves at
// the next command boundary; the report follows then.
func (q *queue) Cancel(ctx context.Context, id core.JobID) error {
	return q.d.loop.Call(ctx, fmt.Sprintf("cancel job %d", id), func(done func(error)) {
		if at := slices.IndexFunc(q.jobs, func(j *job) bool { return j.id == id }); at >= 0 {
			q.jobs[at].cancel = true
			q.settle()
		}
		done(nil)
	})
}

// Suspend implements sdk.Entity: nothing more is kicked, and what is in the ring runs out.
func (q *queue) Suspend(ctx context.Context) error {
	return q.d.loop.Call(ctx, "suspend", func(done func(error)) {
		if err := q.torn(); err != nil {
			done(err)
			return
		}
		q.suspend = true
		q.suspendWaits = append(q.suspendWaits, done)
		q.settle()
	})
}

// torn is why nothing can be asked of the queue any more.
func (q *queue) torn() error {
	if q.lost || q.destroy {
		return fmt.Errorf("work queue is being torn down: %w", core.ErrClosed)
	}
	return nil
}

// Resume implements sdk.Entity.
func (q *queue) Resume(ctx context.Context) error {
	return q.d.loop.Call(ctx, "resume", func(done func(error)) {
		if err := q.torn(); err != nil {
			done(err)
			return
		}
		q.suspend = false
		q.answerSuspends(fmt.Errorf("resumed meanwhile: %w", core.ErrStale))
		q.settle()
		done(nil)
	})
}

// SetProperties implements sdk.Entity. The firmware takes no other priority for a
// work queue that it knows: the queue gets a new one when nothing is in its
// ring. Errors wrap core.ErrInvalid.
func (q *queue) SetProperties(ctx context.Context, p core.Properties) error {
	return q.d.loop.Call(ctx, "set properties", func(done func(error)) {
		if _, known := levels[p.Priority]; !known {
			done(fmt.Errorf("priority %q: %w", p.Priority, core.ErrInvalid))
			return
		}
		if q.priority != p.Priority {
			q.priority = p.Priority
			q.relay = q.work != nil && q.state.alive()
			q.settle()
		}
		done(nil)
	})
}

// Progress implements sdk.Entity: it reads the descriptors in memory.
func (q *queue) Progress() []sdk.JobUsage {
	if !q.d.memory.Enter() {
		return nil
	}
	defer q.d.memory.Leave()
	q.progress.Lock()
	defer q.progress.Unlock()
	var list []sdk.JobUsage
	for _, ref := range q.progress.refs {
		u := ref.usage
		if ref.count > 0 {
			u = q.d.add(u, ref.descriptor, ref.count)
		}
		list = append(list, sdk.JobUsage{Job: ref.id, Usage: u})
	}
	return list
}

// Destroy implements sdk.Entity. It returns when nothing of it is in the ring, the
// firmware has forgotten it and its memory is free; a repeat does nothing.
func (q *queue) Destroy(ctx context.Context) error {
	return q.d.loop.Call(ctx, "destroy", func(done func(error)) {
		if q.state == gone {
			done(nil)
			return
		}
		q.destroy = true
		q.destroyWaits = append(q.destroyWaits, done)
		q.answerSuspends(fmt.Errorf("destroyed: %w", core.ErrClosed))
		q.settle()
	})
}
