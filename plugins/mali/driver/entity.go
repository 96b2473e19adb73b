package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/sdk"
)

var (
	_ sdk.Device         = (*Driver)(nil)
	_ sdk.Entity         = (*entity)(nil)
	_ sdk.PropertySetter = (*entity)(nil)
	_ sdk.Suspender      = (*entity)(nil)
	_ sdk.Saver          = (*entity)(nil)
	_ sdk.Sampler        = (*entity)(nil)
)

// entity is a group with one queue, as the core knows it. Everything but progress
// belongs to the driver's goroutine.
type entity struct {
	*group
	id      core.EntityID
	report  sdk.Reporter
	buffers []host.Buffer
	// slots is the device memory of descriptors, ring and sync object; 0 before the first job.
	slots     uint64
	slotsFree []uint32
	// inherited is what an earlier life left, until the first job says whether it fits.
	inherited *privateState
	// executed is the time in execution of the jobs that have ended.
	executed time.Duration

	suspended    bool
	suspendWaits []func(error)
	destroyWaits []func(error)

	// progress is what Progress reads, from any goroutine.
	progress struct {
		sync.Mutex
		started []work
	}
}

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

// Create implements sdk.Device. The group gets its memory with its first job.
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
	if strides[spec.Properties.Priority] == 0 {
		return nil, fmt.Errorf("%s: priority %q: %w", what, spec.Properties.Priority, core.ErrInvalid)
	}
	buffers, err := d.memory.Place(spec.Buffers)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	e := &entity{id: spec.ID, report: report, buffers: buffers}
	e.inherit(d, header)
	if err = d.memory.Fill(ctx, buffers, image); err == nil {
		err = d.loop.Call(ctx, "make group", func(done func(error)) {
			g, err := d.newGroup(e, spec.Properties.Priority, 1)
			e.group = g
			done(err)
		})
	}
	if err != nil {
		return nil, d.undo(what, e, err)
	}
	return e, nil
}

// undo frees the memory of an entity that never came to be.
func (d *Driver) undo(what string, e *entity, err error) error {
	_ = d.loop.Post(func() { // After Close the whole memory goes.
		if e.group != nil {
			// Made, but nobody waited for it any more.
			e.destroy = true
			e.leave()
			return
		}
		if free := e.freed(); free != nil {
			d.log.Error("device memory leaked", "entity", e.id, "error", free)
		}
	})
	return fmt.Errorf("%s: %w", what, err)
}

// freed implements what group.free asks of its owner.
func (e *entity) freed() error {
	m := e.memory()
	if m == nil {
		return nil
	}
	var all error
	if e.space != nil {
		e.d.dropSpace(e.space)
		all = m.FreeLow(e.space.table)
	}
	all = errors.Join(all, m.FreeHigh(e.slots), m.Unplace(e.buffers))
	host.Answer(&e.destroyWaits, nil)
	return all
}

func (e *entity) memory() *host.Memory {
	if e.group == nil {
		return nil
	}
	return e.d.memory
}

// layOut takes memory with the first job, so that an entity without one costs nothing there.
func (e *entity) layOut() error {
	if e.slots != 0 {
		return nil
	}
	d, credits := e.d, uint64(e.d.config.Credits)
	sizes := []uint32{ringSize(d.config.Credits)}
	extra := laySize(sizes)
	size := credits*host.SlotSize + extra
	slots, err := d.memory.High(size, "dispatch descriptors")
	if err != nil {
		return err
	}
	table, err := d.memory.Map(e.buffers, slots, size)
	if err != nil {
		return errors.Join(err, d.memory.FreeHigh(slots))
	}
	e.slots, e.space = slots, &space{table: table, groups: 1}
	for slot := range d.config.Credits {
		e.slotsFree = append(e.slotsFree, d.config.Credits-1-slot)
	}
	behind := host.SlotAt(slots, d.config.Credits)
	return e.lay(sizes, behind.Device, behind.Virtual)
}

// ringSize is twice the room of the credits, as a power of two: a job that is done may not have left the ring yet.
func ringSize(credits uint32) uint32 {
	size := abi.RingSizeMin
	for size < 2*credits*jobBytes {
		size *= 2
	}
	return size
}

// Run implements sdk.Entity.
func (e *entity) Run(ctx context.Context, r sdk.Job) error {
	return e.d.loop.Call(ctx, fmt.Sprintf("run job %d", r.Spec.ID), func(done func(error)) {
		err := e.accept(r)
		if err == nil {
			e.refresh()
		}
		done(err)
	})
}

// Cancel implements sdk.Entity: it returns once the job is marked; the report follows
// when the group is off its slot.
func (e *entity) Cancel(ctx context.Context, id core.JobID) error {
	return e.d.loop.Call(ctx, fmt.Sprintf("cancel job %d", id), func(done func(error)) {
		for _, j := range e.queues[0].jobs {
			if j.id == id && !e.buried {
				j.work.cancel, e.taking = true, true
				e.leave()
				break
			}
		}
		done(nil)
	})
}

// errGone is for who wants something of a group that dies.
func (e *entity) errGone() error { return fmt.Errorf("group is being torn down: %w", core.ErrClosed) }

// Suspend implements sdk.Entity: at once when the group is on no slot, else with the
// acknowledgement of its SUSPEND and a flush.
func (e *entity) Suspend(ctx context.Context) error {
	return e.d.loop.Call(ctx, "suspend", func(done func(error)) {
		if e.buried || e.destroy {
			done(e.errGone())
			return
		}
		e.suspended, e.hold = true, true
		e.suspendWaits = append(e.suspendWaits, done)
		e.leave()
	})
}

// Resume implements sdk.Entity.
func (e *entity) Resume(ctx context.Context) error {
	return e.d.loop.Call(ctx, "resume", func(done func(error)) {
		if e.buried || e.destroy {
			done(e.errGone())
			return
		}
		e.suspended, e.hold = false, false
		host.Answer(&e.suspendWaits, fmt.Errorf("resumed meanwhile: %w", core.ErrStale))
		e.refresh()
		done(nil)
	})
}

// SetProperties implements sdk.Entity. Errors wrap core.ErrInvalid.
func (e *entity) SetProperties(ctx context.Context, p core.Properties) error {
	return e.d.loop.Call(ctx, "set properties", func(done func(error)) {
		if strides[p.Priority] == 0 {
			done(fmt.Errorf("priority %q: %w", p.Priority, core.ErrInvalid))
			return
		}
		if e.state != gone && e.priority != p.Priority {
			e.vtime = e.vtime / strides[e.priority] * strides[p.Priority]
			e.priority = p.Priority
			e.d.check(e.d.arbiter.SetPriority(e.key, p.Priority))
		}
		done(nil)
	})
}

// Progress implements sdk.Entity: it reads the descriptors in memory.
func (e *entity) Progress() []sdk.JobUsage {
	if !e.d.memory.Enter() {
		return nil
	}
	defer e.d.memory.Leave()
	e.progress.Lock()
	defer e.progress.Unlock()
	var list []sdk.JobUsage
	for i := range e.progress.started {
		w := &e.progress.started[i]
		if report, err := w.report(); err == nil {
			list = append(list, sdk.JobUsage{Job: w.spec.Spec.ID, Usage: w.usageOf(report)})
		}
	}
	return list
}

// Destroy implements sdk.Entity. It returns when the group is off the hardware and
// its memory free; a repeat does nothing.
func (e *entity) Destroy(ctx context.Context) error {
	return e.d.loop.Call(ctx, "destroy", func(done func(error)) {
		if e.state == gone {
			done(nil)
			return
		}
		e.destroy = true
		e.destroyWaits = append(e.destroyWaits, done)
		host.Answer(&e.suspendWaits, fmt.Errorf("destroyed: %w", core.ErrClosed))
		e.leave()
	})
}
