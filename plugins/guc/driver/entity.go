package driver

import (
	"context"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

var (
	_ sdk.Device         = (*Driver)(nil)
	_ sdk.Entity         = (*queue)(nil)
	_ sdk.PropertySetter = (*queue)(nil)
	_ sdk.Suspender      = (*queue)(nil)
	_ sdk.Saver          = (*queue)(nil)
	_ sdk.Sampler        = (*queue)(nil)
)

// Describe implements sdk.Device.
func (d *Driver) Describe() core.DeviceDescription {
	return core.DeviceDescription{
		Name: d.config.Name, Engine: d.config.Engine, Granularity: core.GranularityWorkgroup,
		Formats: slices.Clone(d.config.Formats), Credits: d.config.Credits, EntitiesMax: d.config.EntitiesMax,
		MemoryMax: d.memory.HighSize(), SavesImages: true,
	}
}

// LoadKernel implements sdk.Device: the code is placed in device memory once, and
// stays until Close. Errors wrap core.ErrUnsupported, core.ErrInvalid or core.ErrFull.
func (d *Driver) LoadKernel(_ context.Context, k core.Kernel) error {
	return d.memory.Load(k, d.config.Formats)
}

// Create implements sdk.Device. The context is registered with the firmware with its first job.
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
	if _, known := firmwarePriority[spec.Properties.Priority]; !known {
		return nil, fmt.Errorf("%s: priority %q: %w", what, spec.Properties.Priority, core.ErrInvalid)
	}
	buffers, err := d.memory.Place(spec.Buffers)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	q := &queue{placement: placement{buffers: buffers}, d: d, entity: spec.ID, report: report, priority: spec.Properties.Priority}
	q.inherit(header)
	if err = d.memory.Fill(ctx, q.buffers, image); err == nil {
		err = d.loop.Call(ctx, "reserve guc_id", func(done func(error)) { done(d.admit(q)) })
	}
	if err != nil {
		return nil, d.undo(what, q, err)
	}
	return q, nil
}

// undo frees the memory of an entity that never came to be.
func (d *Driver) undo(what string, q *queue, err error) error {
	posted := d.loop.Post(func() {
		if d.queues[q.id] == q {
			// Admitted, but nobody waited for it any more.
			q.destroy = true
			q.settle()
			return
		}
		if free := d.unplace(q.placement); free != nil {
			d.log.Error("device memory leaked", "entity", q.entity, "error", free)
		}
	})
	_ = posted // After Close the whole memory goes.
	return fmt.Errorf("%s: %w", what, err)
}

// admit gives the queue its guc_id, which it keeps until it is gone.
func (d *Driver) admit(q *queue) error {
	if !d.ready {
		return fmt.Errorf("device is not up: %w", core.ErrInvalid)
	}
	id, err := d.ids.take()
	if err != nil {
		return err
	}
	q.id = id
	q.progress.arena = d.config.Arena
	d.queues[id] = q
	return nil
}

// inherit takes over what an earlier life left in an image of this backend.
func (q *queue) inherit(header core.ImageHeader) {
	q.last = privateState{seqno: abi.FirstSeqno - 1}
	if header.Backend == backendName && len(header.Private) > 0 {
		if earlier, err := decodePrivate(header.Private); err != nil {
			q.d.log.Warn("private image ignored", "entity", q.entity, "error", err)
		} else {
			q.last = earlier
		}
	}
	q.seqno = q.last.seqno
}

// lay takes memory for the ring with the first job, so that an entity without
// one costs nothing there, and writes the LRC. Errors wrap core.ErrFull.
func (q *queue) lay() error {
	if q.laid() {
		return nil
	}
	if err := q.d.lay(&q.placement); err != nil {
		return err
	}
	for slot := range q.d.config.Credits {
		q.slotsFree = append(q.slotsFree, q.d.config.Credits-1-slot)
	}
	q.store(q.status(abi.PPHWSPSeqno), q.seqno)
	q.store(q.status(abi.PPHWSPStartSeqno), q.seqno)
	q.store(q.status(abi.PPHWSPJobTimestamp), q.last.jobTimestamp)
	q.ticks = q.last.timestamp
	q.store(q.register(abi.RegTimestampLo), uint32(q.last.timestamp))
	q.store(q.register(abi.RegTimestampHi), uint32(q.last.timestamp>>32))
	q.store(q.register(abi.RegRingStart), uint32(q.lrc))
	q.store(q.register(abi.RegRingControl), abi.RingControl)
	q.store(q.register(abi.RegPDP0Lo), uint32(q.table))
	q.store(q.register(abi.RegPDP0Hi), uint32(q.table>>32))
	return nil
}

// laid reports whether the ring has its memory.
func (q *queue) laid() bool { return q.lrc != 0 }

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

// Cancel implements sdk.Entity: it returns once the job is marked; the report follows.
func (q *queue) Cancel(ctx context.Context, id core.JobID) error {
	return q.d.loop.Call(ctx, fmt.Sprintf("cancel job %d", id), func(done func(error)) {
		if at := slices.IndexFunc(q.jobs, func(j *job) bool { return j.id == id }); at >= 0 {
			q.jobs[at].cancel = true
			q.settle()
		}
		done(nil)
	})
}

// Suspend implements sdk.Entity. A queue without work for the firmware stays enabled: it gets none.
func (q *queue) Suspend(ctx context.Context) error {
	return q.d.loop.Call(ctx, "suspend", func(done func(error)) {
		if q.lost || q.destroy {
			done(fmt.Errorf("context is being torn down: %w", core.ErrClosed))
			return
		}
		q.suspend = true
		q.suspendWaits = append(q.suspendWaits, done)
		q.settle()
	})
}

// Resume implements sdk.Entity.
func (q *queue) Resume(ctx context.Context) error {
	return q.d.loop.Call(ctx, "resume", func(done func(error)) {
		if q.lost || q.destroy {
			done(fmt.Errorf("context is being torn down: %w", core.ErrClosed))
			return
		}
		q.suspend = false
		host.Answer(&q.suspendWaits, fmt.Errorf("resumed meanwhile: %w", core.ErrStale))
		q.settle()
		done(nil)
	})
}

// SetProperties implements sdk.Entity. Errors wrap core.ErrInvalid.
func (q *queue) SetProperties(ctx context.Context, p core.Properties) error {
	return q.d.loop.Call(ctx, "set properties", func(done func(error)) {
		if _, known := firmwarePriority[p.Priority]; !known {
			done(fmt.Errorf("priority %q: %w", p.Priority, core.ErrInvalid))
			return
		}
		changed := q.priority != p.Priority
		q.priority = p.Priority
		if changed {
			q.policies = true
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
	for _, ref := range q.progress.started {
		report := hw.Report{Status: hw.StatusDone}
		if ref.count > 0 {
			var err error
			if report, err = hw.ReadReport(q.progress.arena, ref.descriptor, ref.count); err != nil {
				continue
			}
		}
		list = append(list, sdk.JobUsage{Job: ref.id, Usage: usageOf(ref.first, report)})
	}
	return list
}

// Destroy implements sdk.Entity. It returns when the firmware has forgotten the
// context and the memory is free; a repeat does nothing.
func (q *queue) Destroy(ctx context.Context) error {
	return q.d.loop.Call(ctx, "destroy", func(done func(error)) {
		if q.state == gone {
			done(nil)
			return
		}
		q.destroy = true
		q.destroyWaits = append(q.destroyWaits, done)
		host.Answer(&q.suspendWaits, fmt.Errorf("destroyed: %w", core.ErrClosed))
		q.settle()
	})
}
