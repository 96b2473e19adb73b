package sdk

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// lane is the serial executor of one entity. A goroutine exists only while
// work is queued.
type lane struct {
	d  *device
	id core.EntityID

	// Guarded by the device's mutex.
	applied core.CommandSeq
	epoch   core.Epoch
	created core.Epoch
	// over is the highest epoch that ended; only the executor changes it.
	over    core.Epoch
	items   []item
	running bool
	// ahead is how many items the executor has taken and not begun; they wait like
	// those in items. It counts them down without the mutex.
	ahead atomic.Int32

	// Owned by the executor.
	entity    Entity
	live      core.Epoch // epoch of entity
	report    *reporter
	suspended bool
	runs      runWindow
	// loaded is a kernel that is known to be loaded, if hasLoaded.
	loaded    core.Digest
	hasLoaded bool
}

// item is one piece of queued work: a run or another request. There may be
// thousands of runs, so they are kept small.
type item struct {
	// job has a specification when the item is a run, of that sequence number.
	job   Job
	seq   core.CommandSeq
	other *request
}

// request is a command that is no run, a sample or a save.
type request struct {
	command  core.Command
	received time.Time
	sample   bool
	save     *saving
}

func newItem(c *core.Command, received time.Time) item {
	if c.Kind == core.CommandRun {
		return item{job: Job{Spec: c.JobSpec, First: c.First, Epoch: c.Epoch}, seq: c.Seq}
	}
	return item{other: &request{command: *c, received: received}}
}

// run executes what is queued, and ends when nothing is.
func (l *lane) run() {
	var items []item
	for {
		clear(items)
		var ok bool
		if items, ok = l.d.next(l, items[:0]); !ok {
			return
		}
		for i := range items {
			if l.d.ctx.Err() != nil {
				break
			}
			l.ahead.Add(-1)
			l.do(&items[i])
		}
		l.endRuns()
	}
}

// endRuns closes what a row of Run calls shares: a deadline, and one message for
// what they report.
func (l *lane) endRuns() {
	if l.runs.ctx != nil {
		l.runs.end()
		l.d.events.release()
	}
}

// beginRun returns the context that a row of Run calls shares.
func (l *lane) beginRun() context.Context {
	if l.runs.ctx == nil {
		l.runs.begin(l.d)
		l.d.events.hold()
	}
	return l.runs.ctx
}

func (l *lane) do(it *item) {
	other := it.other
	if other != nil && other.command.Kind == 0 {
		if other.sample {
			l.sample()
			return
		}
		l.endRuns()
		other.save.finish(l.save(other.save))
		return
	}
	if l.d.events.roomFor() != nil {
		l.endRuns()
		if l.d.events.wait(l.d.ctx) != nil {
			return
		}
	}
	crash.Point("sdk.command.before")
	if other == nil {
		l.execRun(it)
	} else {
		// Other calls may take long; only runs are reported together.
		l.endRuns()
		l.exec(&other.command, other.received)
	}
	crash.Point("sdk.command.after")
	l.d.pending.Add(-1)
}

// present reports whether a command of the epoch has an entity to go to. An
// epoch that has ended, or an entity that was lost, answers nothing more: the
// event that ended it is the answer.
func (l *lane) present(c *core.Command) bool {
	if l.entity != nil && l.live == c.Epoch {
		return !l.d.events.lost(l.report)
	}
	if c.Epoch > l.over && c.Epoch > l.live {
		l.refuse(c, fmt.Errorf("entity %d of epoch %d: %w", l.id, c.Epoch, core.ErrNotFound))
	}
	return false
}

func (l *lane) exec(c *core.Command, received time.Time) {
	switch c.Kind {
	case core.CommandCreate:
		l.execCreate(c)
	case core.CommandDestroy:
		l.execDestroy(c)
	case core.CommandCancel:
		if l.present(c) {
			err := l.d.call("cancel", controlBound, func(ctx context.Context) error { return l.entity.Cancel(ctx, c.Job) })
			if err != nil {
				l.refuse(c, fmt.Errorf("cancel job %d: %w", c.Job, err))
			}
		}
	case core.CommandMessage:
		if l.present(c) {
			l.execMessage(c, received)
		}
	}
}

func (l *lane) execRun(it *item) {
	if l.entity == nil || l.live != it.job.Epoch || l.d.events.lost(l.report) {
		// Says why, where somebody waits for an answer.
		l.present(it.command())
		return
	}
	err := l.ready(it.job.Spec.Kernels)
	if err == nil {
		ctx := l.beginRun()
		l.d.events.enter(l.report, &it.job)
		err = l.d.guard("run", func() error { return l.entity.Run(ctx, it.job) })
		if err != nil {
			l.d.events.leave(l.report, it.job.Spec.ID)
		}
	}
	if err != nil {
		l.refuse(it.command(), fmt.Errorf("run job %d: %w", it.job.Spec.ID, err))
	}
}

// command returns as much of a run's command as a refusal names.
func (it *item) command() *core.Command {
	return &core.Command{Kind: core.CommandRun, Epoch: it.job.Epoch, Seq: it.seq, Job: it.job.Spec.ID}
}

// ready waits for a kernel of a job. A kernel that was loaded stays so, and most
// jobs have the kernel of the one before.
func (l *lane) ready(wanted map[string]core.Digest) error {
	for _, format := range l.d.description.Formats {
		if digest, ok := wanted[format]; ok && l.hasLoaded && digest == l.loaded {
			return nil
		}
	}
	digest, err := l.d.kernels.ready(wanted)
	if errors.Is(err, errAwaited) {
		l.endRuns()
		digest, err = l.d.kernels.wait(l.d.ctx, wanted)
	}
	if err == nil {
		l.loaded, l.hasLoaded = digest, true
	}
	return err
}

func (l *lane) execMessage(c *core.Command, received time.Time) {
	done := core.BackendEvent{Kind: core.EventMessageDone, Entity: l.id, Epoch: c.Epoch, Command: c.Seq}
	var err error
	switch c.Message {
	case core.MessageSuspend, core.MessageResume:
		s, ok := l.entity.(Suspender)
		switch {
		case !ok:
			err = unsupported("suspend and resume")
		case c.Message == core.MessageResume:
			l.suspended = false
			err = l.d.call("resume", controlBound, s.Resume)
		default:
			if err = l.d.call("suspend", l.d.leave, s.Suspend); err == nil {
				l.suspended = true
				done.Cost = time.Since(received)
			}
		}
	case core.MessageBarrier:
		// Every command before it was carried out: there is nothing to do.
	case core.MessageSetProperties:
		s, ok := l.entity.(PropertySetter)
		if !ok {
			err = unsupported("set properties")
			break
		}
		err = l.d.call("set properties", controlBound, func(ctx context.Context) error {
			return s.SetProperties(ctx, c.Properties)
		})
	default:
		handler, ok := l.entity.(MessageHandler)
		if !ok || c.Message < core.MessageBackend {
			err = unsupported(fmt.Sprintf("message %d", c.Message))
			break
		}
		err = l.d.call("message", controlBound, func(ctx context.Context) (err error) {
			done.Reply, err = handler.Message(ctx, c.Message, c.Payload)
			return err
		})
		if len(done.Reply) > wire.PayloadMax {
			err = fmt.Errorf("message %d: reply of %d bytes: %w", c.Message, len(done.Reply), core.ErrInvalid)
		}
	}
	if err != nil {
		l.refuse(c, err)
		return
	}
	l.d.events.append(l.report, &done)
}

func (l *lane) execCreate(c *core.Command) {
	if l.entity != nil && l.live >= c.Epoch || c.Epoch <= l.over {
		l.refuse(c, fmt.Errorf("create entity %d of epoch %d: %w", l.id, c.Epoch, core.ErrExists))
		return
	}
	if l.entity != nil {
		if err := l.remove(); err != nil {
			l.refuse(c, fmt.Errorf("create entity %d: %w", l.id, err))
			return
		}
	}
	if err := l.create(c); err != nil {
		l.d.setOver(l, c.Epoch)
		l.refuse(c, fmt.Errorf("create entity %d: %w", l.id, err))
		return
	}
	l.d.events.append(l.report, &core.BackendEvent{Kind: core.EventApplied, Entity: l.id, Epoch: c.Epoch, Command: c.Seq})
}

// create waits for the image and hands it to the backend.
func (l *lane) create(c *core.Command) (err error) {
	up, err := l.d.claim(uploadKey{l.id, c.Epoch})
	if err != nil {
		return err
	}
	defer func() { up.finish(err) }()
	report := &reporter{log: l.d.events, entity: l.id, epoch: c.Epoch}
	src := &uploadSource{upload: up}
	bound := createBound + imageTime(up.header.Buffers)
	var made Entity
	err = l.d.call("create", bound, func(ctx context.Context) (err error) {
		defer context.AfterFunc(ctx, func() { up.finish(fmt.Errorf("create: %w", core.ErrDeadline)) })()
		made, err = l.d.dev.Create(ctx, c.EntitySpec, src, report)
		if err != nil {
			return err
		}
		return src.drain()
	})
	if err != nil {
		l.d.events.silence(report)
		if made != nil {
			_ = l.d.call("destroy", l.d.leave, made.Destroy)
		}
		return err
	}
	l.entity, l.live, l.report, l.suspended = made, c.Epoch, report, false
	l.d.setCreated(l, c.Epoch)
	return nil
}

func (l *lane) execDestroy(c *core.Command) {
	if l.entity != nil && l.live > c.Epoch {
		return
	}
	report := l.report
	done := core.BackendEvent{Kind: core.EventDestroyed, Entity: l.id, Epoch: c.Epoch, Command: c.Seq}
	if l.entity != nil {
		if err := l.removeAt(&done); err != nil {
			return
		}
	}
	l.d.setOver(l, c.Epoch)
	if report != nil {
		l.d.events.silence(report)
	}
	l.d.events.append(nil, &done)
}

// removeAt removes the entity and notes in done how far the job that was executing
// came: samples are not kept, and this is the last word. The engine's own
// count, where there is one, also has what ran after the last sample.
func (l *lane) removeAt(done *core.BackendEvent) error {
	job, epoch := l.d.events.executing(l.report), l.live
	if job != 0 {
		_ = l.d.guard("progress", func() error {
			for _, u := range progress(l.entity) {
				if u.Job == job {
					done.Job, done.Done, done.Executed, done.ExecutedTime = job, u.Done, u.Executed, u.ExecutedTime
				}
			}
			return nil
		})
	}
	if err := l.remove(); err != nil || job == 0 || UsageFile() == "" {
		return err
	}
	counts, err := usage.Read(UsageFile())
	if err != nil {
		l.d.log.Warn("usage not read", "entity", l.id, "error", err)
		return nil
	}
	done.Job = job
	done.Executed = max(done.Executed, counts[usage.Key{Job: job, Epoch: epoch}])
	return nil
}

// remove destroys the entity on the device. When that fails nobody knows what
// still executes, so the device as a whole is given up.
func (l *lane) remove() error {
	err := l.d.call("destroy", l.d.leave, l.entity.Destroy)
	if err != nil {
		err = fmt.Errorf("destroy entity %d of epoch %d: %w", l.id, l.live, err)
		l.d.fail(err)
		return err
	}
	l.d.events.silence(l.report)
	l.d.setOver(l, l.live)
	l.entity, l.report, l.suspended = nil, nil, false
	return nil
}

func (l *lane) sample() {
	if l.entity == nil || l.d.events.lost(l.report) {
		return
	}
	var usage []JobUsage
	_ = l.d.guard("progress", func() error { usage = progress(l.entity); return nil })
	l.d.events.sample(l.report, usage)
}

// progress samples an entity that can be sampled.
func progress(e Entity) []JobUsage {
	if s, ok := e.(Sampler); ok {
		return s.Progress()
	}
	return nil
}

func unsupported(what string) error { return fmt.Errorf("%s: %w", what, core.ErrUnsupported) }

// refuse reports that c was not carried out.
func (l *lane) refuse(c *core.Command, err error) {
	l.d.log.Debug("command refused", "entity", l.id, "job", c.Job, "epoch", c.Epoch, "error", err)
	l.d.events.append(nil, &core.BackendEvent{
		Kind: core.EventRefused, Entity: l.id, Epoch: c.Epoch, Command: c.Seq, Job: c.Job,
		Guilty: guilty(err), Cause: causeOf(c.Kind, err), Error: wire.Cut(err.Error()),
	})
}

// guilty reports whether the entity's work hung or faulted.
func guilty(err error) bool {
	var fault *core.FaultError
	return errors.As(err, &fault) && (fault.Cause == core.CauseTrap || fault.Cause == core.CauseMemory || fault.Cause == core.CauseHang)
}

// causeOf finds the closed code for an error of a backend.
func causeOf(kind core.CommandKind, err error) core.Cause {
	var fault *core.FaultError
	switch {
	case errors.As(err, &fault) && fault.Cause != core.CauseNone:
		return fault.Cause
	case errors.Is(err, errKernel):
		return core.CauseKernel
	case kind == core.CommandCreate && (errors.Is(err, core.ErrCorrupt) || errors.Is(err, core.ErrDeadline)):
		return core.CauseImage
	case kind == core.CommandMessage && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, core.ErrDeadline)):
		return core.CauseHang
	}
	return core.CauseRefused
}

// runWindow shares one deadline among the Run calls of a batch, because a
// timer for each would cost more than the call.
type runWindow struct {
	ctx   context.Context
	close func()
}

func (w *runWindow) begin(d *device) {
	w.ctx, w.close = d.window("run", runBound)
}

func (w *runWindow) end() {
	w.close()
	w.ctx, w.close = nil, nil
}
