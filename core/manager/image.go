package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/core/sched"
)

// transferMax bounds one save or restore: 4 GiB at 8 MiB/s.
const transferMax = 10 * time.Minute

// kernelTries bounds the attempts to upload a kernel. What may pass by itself is
// tried for kernelMax: so long the run that was sent already waits for it. The
// pause between two attempts doubles from kernelPauseMin.
const (
	kernelTries    = 3
	kernelMax      = 30 * time.Second
	kernelPauseMin = 20 * time.Millisecond
)

// operations runs what touches one entity's image file, one thing after the
// other. A goroutine exists only while there is something to do.
type operations struct {
	ctx    context.Context
	cancel context.CancelFunc
	queue  []func()
	idle   bool
}

// operate appends f to the entity's operations.
func (d *device) operate(entity core.EntityID, f func(context.Context)) {
	o := d.operations[entity]
	if o == nil {
		o = &operations{idle: true}
		d.operations[entity] = o
	}
	if o.ctx == nil || o.ctx.Err() != nil {
		o.ctx, o.cancel = context.WithCancel(context.Background())
	}
	ctx := o.ctx
	o.queue = append(o.queue, func() { f(ctx) })
	if o.idle {
		o.idle = false
		d.nextOperation(entity, o)
	}
}

func (d *device) nextOperation(entity core.EntityID, o *operations) {
	if len(o.queue) == 0 {
		o.idle = true
		delete(d.operations, entity)
		o.cancel()
		return
	}
	f := o.queue[0]
	o.queue = o.queue[1:]
	d.manager.busy.Add(1)
	go func() {
		defer d.manager.busy.Done()
		f()
		d.post(func() { d.nextOperation(entity, o) })
	}()
}

// cancelOperations ends what is under way; those that come later get a new context.
func (d *device) cancelOperations() {
	for _, o := range d.operations {
		o.cancel()
	}
}

// upload sends the image of a create command. The plugin waits for it.
func (d *device) upload(c core.Command) {
	instance := d.instance
	kernels := d.kernelsToRun(c.Entity)
	d.operate(c.Entity, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, transferMax)
		defer cancel()
		err := d.readable(c.Entity, kernels)
		if err == nil {
			err = d.putImage(ctx, instance, c)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		d.log.Warn("image not restored", "entity", c.EntitySpec.Name, "image", c.Generation, "error", err)
		if errors.Is(err, core.ErrCorrupt) || errors.Is(err, core.ErrNotFound) {
			d.do(func() { d.badImage(c, err) })
		}
	})
}

func (d *device) putImage(ctx context.Context, instance Instance, c core.Command) error {
	src, err := d.manager.config.Images.Open(c.Entity, c.Generation)
	if err != nil {
		return fmt.Errorf("open image %d: %w", c.Generation, err)
	}
	defer src.Close()
	crash.Point("manager.restore.mid")
	return instance.PutImage(ctx, d.spec.Name, c.Entity, c.Epoch, src)
}

// kernelsToRun returns the kernels of the jobs that an entity is still to run, or
// to run again.
func (d *device) kernelsToRun(entity core.EntityID) []core.Digest {
	r := d.records[entity]
	if r == nil {
		return nil
	}
	var kernels []core.Digest
	for _, j := range r.jobs {
		digest, found := d.kernelOf(j.spec)
		if found && j.spec.Seq > r.state.Cut && !slices.Contains(kernels, digest) {
			kernels = append(kernels, digest)
		}
	}
	return kernels
}

// kernelOf returns the kernel of a job in the format that the device likes best.
func (d *device) kernelOf(spec *core.JobSpec) (core.Digest, bool) {
	for _, f := range d.formats {
		if digest, found := spec.Kernels[f]; found {
			return digest, true
		}
	}
	return core.Digest{}, false
}

// readable reads kernels before anything is restored: a job that was sent and
// whose kernel does not come fails, and would be blamed for our file.
func (d *device) readable(entity core.EntityID, kernels []core.Digest) error {
	for _, digest := range kernels {
		if _, err := d.manager.config.Images.Kernel(entity, digest); err != nil {
			return fmt.Errorf("read kernel: %w", err)
		}
	}
	return nil
}

// badImage suspends an entity whose image cannot be read; trying again would not help.
func (d *device) badImage(c core.Command, err error) {
	_ = d.step(&sched.Event{
		Kind: sched.EventGoal, Entity: c.Entity, Goal: core.GoalSuspend,
		Cause: core.CauseImage, Error: sentence("%v", err),
	})
}

// uploadKernel sends the kernel that a run command needs, once per instance.
func (d *device) uploadKernel(c *core.Command) {
	name := c.JobSpec.Name
	entity := c.Entity
	digest, found := d.kernelOf(c.JobSpec)
	if !found || d.kernels[digest] {
		return
	}
	d.kernels[digest] = true
	instance := d.instance
	d.operate(entity, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, transferMax)
		defer cancel()
		k, err := d.manager.config.Images.Kernel(entity, digest)
		crash.Point("manager.kernel.mid")
		if err == nil {
			err = d.putKernel(ctx, instance, k, name)
		}
		if err == nil {
			return
		}
		d.log.Warn("kernel not uploaded", "job", name, "error", err)
		d.post(func() {
			if d.instance == instance {
				delete(d.kernels, digest)
			}
		})
	})
}

// putKernel uploads a kernel for a job, over sessions that end if need be.
func (d *device) putKernel(ctx context.Context, instance Instance, k core.Kernel, job string) error {
	ctx, cancel := context.WithTimeout(ctx, kernelMax)
	defer cancel()
	for tries, wait := 1, kernelPauseMin; ; tries, wait = tries+1, 2*wait {
		err := instance.PutKernel(ctx, d.spec.Name, k)
		if err == nil || tries >= kernelTries && !passing(err) {
			return err
		}
		d.log.Debug("kernel upload tried again", "job", job, "error", err)
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return err
		}
	}
}

// passing says whether an error speaks of the connection, not of what was sent.
func passing(err error) bool {
	return errors.Is(err, core.ErrDeadline) || errors.Is(err, core.ErrGone) ||
		errors.Is(err, core.ErrStale) || errors.Is(err, core.ErrBusy)
}

// uploadKernels sends, in a new session, the kernels of jobs that the instance
// has taken already: the manager that sent their run commands may have died
// before their kernels were through.
func (d *device) uploadKernels(held []HeldEntity) {
	for _, h := range held {
		r := d.records[h.Entity]
		if r == nil || r.state.Epoch != h.Epoch {
			continue
		}
		for _, j := range r.jobs {
			if j.state.Run != 0 && j.spec.Seq > r.state.Cut {
				d.uploadKernel(&core.Command{Entity: h.Entity, JobSpec: j.spec})
			}
		}
	}
}

// save writes an image and the result files that are due with it.
func (d *device) save(f sched.Effect) {
	instance, r, asker := d.instance, d.records[f.Entity], d.core
	if instance == nil || r == nil {
		return // the end of the instance is on its way to the schedulers
	}
	saves, buffers := r.spec.Saves, r.spec.Buffers
	d.operate(f.Entity, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, transferMax)
		defer cancel()
		started := time.Now()
		header, err := d.getImage(ctx, instance, f, buffers)
		output := ""
		if err == nil {
			output = d.writeFiles(f, saves)
		}
		d.do(func() {
			if d.instance != instance || d.core != asker {
				return // of a life that has ended; schedulers made anew ask again
			}
			if err != nil {
				d.log.Warn("image not saved", "entity", r.spec.Name, "image", f.Generation, "error", err)
				_ = d.step(&sched.Event{
					Kind: sched.EventSaveFailed, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation,
					Cause: core.CauseImage, Error: sentence("%v", err),
				})
				return
			}
			d.log.Debug("image saved", "entity", r.spec.Name, "image", f.Generation,
				"cursors", cursors(header), "took", time.Since(started).Round(time.Millisecond))
			_ = d.step(&sched.Event{
				Kind: sched.EventSaved, Entity: f.Entity, Epoch: f.Epoch, Generation: f.Generation,
				ImageJobs: header.Jobs, OutputError: output, Final: f.Final,
			})
		})
	})
}

func cursors(h core.ImageHeader) string {
	text := ""
	for _, j := range h.Jobs {
		text += fmt.Sprintf("%d:%d ", j.Job, j.Cursor)
	}
	return text
}

// imageSink is the writer of one image together with what the image must hold.
type imageSink struct {
	ImageWriter
	buffers []core.BufferSpec
}

// CheckHeader implements core.HeaderChecker: the buffers are those of the
// entity, in name, size and order, or nothing of the image is taken.
func (s *imageSink) CheckHeader(h core.ImageHeader) error {
	if !slices.Equal(h.Buffers, s.buffers) {
		return fmt.Errorf("image has other buffers than the entity: %w", core.ErrCorrupt)
	}
	return nil
}

func (d *device) getImage(ctx context.Context, instance Instance, f sched.Effect, buffers []core.BufferSpec) (core.ImageHeader, error) {
	crash.Point("manager.save.before")
	w, err := d.manager.config.Images.Begin(f.Entity, f.Generation)
	if err != nil {
		return core.ImageHeader{}, fmt.Errorf("begin image: %w", err)
	}
	defer w.Abort()
	sink := &imageSink{w, buffers}
	header, err := instance.GetImage(ctx, d.spec.Name, f.Entity, f.Epoch, sink)
	if err == nil {
		// Whatever the instance made of the sink, nothing else is committed.
		err = sink.CheckHeader(header)
	}
	if err != nil {
		return header, fmt.Errorf("get image: %w", err)
	}
	crash.Point("manager.save.mid")
	if err := w.Commit(header); err != nil {
		return header, fmt.Errorf("commit image: %w", err)
	}
	crash.Point("manager.save.after")
	return header, nil
}

// writeFiles writes the result files that are due and returns what went wrong, if anything.
func (d *device) writeFiles(f sched.Effect, saves []core.SaveSpec) string {
	due := false
	for _, s := range saves {
		due = due || f.Final || s.AtCheckpoint
	}
	if !due {
		return ""
	}
	src, err := d.manager.config.Images.Open(f.Entity, f.Generation)
	if err != nil {
		return fmt.Sprintf("open image %d: %v", f.Generation, err)
	}
	defer src.Close()
	for _, s := range saves {
		if !f.Final && !s.AtCheckpoint {
			continue
		}
		crash.Point("manager.output.before")
		if err := d.manager.config.Output(s, src); err != nil {
			return fmt.Sprintf("save buffer %s to %s: %v", s.Buffer, s.Path, err)
		}
		crash.Point("manager.output.after")
	}
	return ""
}

// retain drops the generations before the recorded one.
func (d *device) retain(f sched.Effect) {
	d.operate(f.Entity, func(context.Context) {
		if err := d.manager.config.Images.Retain(f.Entity, f.Generation); err != nil {
			d.log.Warn("old images not dropped", "entity", f.Entity, "error", err)
		}
	})
}
