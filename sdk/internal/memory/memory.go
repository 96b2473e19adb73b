// Package memory is a backend without a device: its entities are byte slices,
// and what a job does is said by its entry point. The tests of the seam use it.
// Jobs in the format of the conformance kit are carried out as that says.
package memory

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
)

// The entry points.
const (
	// Instant completes inside Run.
	Instant = "instant"
	// Fill adds one to every byte of the first buffer and completes.
	Fill = "fill"
	// Slow runs until it is cancelled; every sample sees one more workgroup.
	Slow = "slow"
	// Trap is refused with a fault.
	Trap = "trap"
	// Panic panics inside Run.
	Panic = "panic"
	// Lose loses the entity.
	Lose = "lose"
	// Block blocks Run until its context ends.
	Block = "block"
	// Print writes to standard output and error.
	Print = "print"
	// Pile stays in the ring, unreported, until a Stamp.
	Pile = "pile"
	// Stamp completes everything up to itself, twice.
	Stamp = "stamp"
)

// Reverse is the backend's own message.
const Reverse = core.MessageBackend + 1

const name = "memory"

// memoryMax bounds the bytes of an entity's buffers.
const memoryMax = 1 << 30

// BadKernel is code that LoadKernel refuses.
const BadKernel = "bad"

// Backend implements sdk.Backend.
type Backend struct {
	// Calls, when set, is told of every call, in order per entity.
	Calls func(entity core.EntityID, epoch core.Epoch, call string)
	// Credits of an entity's ring; 256 when zero.
	Credits uint32
	// Failed is what Open was given, for the test to call.
	Failed func(error)
	// SuspendTakes is how long Suspend takes, unless its context ends before;
	// LeaveBound, when set, is what the devices say of it.
	SuspendTakes, LeaveBound time.Duration
	// TraceLines, when set, is how many lines of trace the devices keep.
	TraceLines int
}

// Describe implements sdk.Backend.
func (b *Backend) Describe() core.BackendDescription {
	return core.BackendDescription{
		Name: name, Version: "1", Engines: []string{"none"}, Level: core.LevelPortable,
		ConfigSchema: []byte(`{"type": "object", "properties": {}, "additionalProperties": false}`),
		Messages:     []core.MessageType{{Kind: Reverse, Name: "reverse", Doc: "The reply is the payload, reversed."}},
	}
}

// Open implements sdk.Backend.
func (b *Backend) Open(_ context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (sdk.Device, error) {
	if spec.Engine != "" && spec.Engine != "none" {
		return nil, fmt.Errorf("engine %s: %w", spec.Engine, core.ErrInvalid)
	}
	if len(spec.Options) > 0 {
		return nil, fmt.Errorf("options: there are none: %w", core.ErrInvalid)
	}
	b.Failed = failed
	log.Info("device opened", "engine", spec.Engine)
	d := &device{b: b, spec: spec}
	if b.TraceLines > 0 {
		d.trace = newTrace(b.TraceLines)
		return traced{d}, nil
	}
	if b.LeaveBound > 0 {
		return bounded{d}, nil
	}
	return d, nil
}

func (b *Backend) called(id core.EntityID, epoch core.Epoch, call string) {
	if b.Calls != nil {
		b.Calls(id, epoch, call)
	}
}

type device struct {
	b    *Backend
	spec core.DeviceSpec
	// trace is nil when none is kept.
	trace *trace
}

// bounded is a device that is an sdk.LeaveBounder.
type bounded struct{ *device }

// LeaveBound implements sdk.LeaveBounder.
func (d bounded) LeaveBound() time.Duration { return d.b.LeaveBound }

// Describe implements sdk.Device.
func (d *device) Describe() core.DeviceDescription {
	return core.DeviceDescription{
		Name: d.spec.Name, Engine: d.spec.Engine, Granularity: core.GranularityWorkgroup,
		Formats: []string{Format, core.FormatWasm}, Credits: max(d.b.Credits, 256), EntitiesMax: 1024,
		MemoryMax: memoryMax, SavesImages: true,
	}
}

// LoadKernel implements sdk.Device.
func (d *device) LoadKernel(_ context.Context, k core.Kernel) error {
	if string(k.Code) == BadKernel || k.Format == Format && string(k.Code) != code {
		return fmt.Errorf("no such kernel: %w", core.ErrInvalid)
	}
	return nil
}

// Create implements sdk.Device.
func (d *device) Create(_ context.Context, spec *core.EntitySpec, image core.ImageSource, report sdk.Reporter) (sdk.Entity, error) {
	e := &entity{b: d.b, trace: d.trace, spec: spec, header: image.Header(), report: report}
	e.mill.e = e
	var sum uint64
	for _, s := range spec.Buffers {
		sum += s.Size
	}
	if sum > memoryMax {
		return nil, fmt.Errorf("buffers of %d bytes: %w", sum, core.ErrFull)
	}
	for _, s := range e.header.Buffers {
		e.buffers = append(e.buffers, make([]byte, s.Size))
	}
	err := image.Chunks(func(ref core.ChunkRef, data []byte) error {
		copy(e.buffers[ref.Buffer][ref.Index*core.ChunkSize:], data)
		return nil
	})
	if err != nil {
		return nil, err
	}
	d.b.called(spec.ID, 0, "create")
	return e, nil
}

// Close implements sdk.Device.
func (d *device) Close(context.Context) error {
	d.b.called(0, 0, "close")
	return nil
}

type entity struct {
	b       *Backend
	trace   *trace
	spec    *core.EntitySpec
	header  core.ImageHeader
	buffers [][]byte
	report  sdk.Reporter
	mu      sync.Mutex
	slow    []sdk.JobUsage
	mill    mill
}

// Run implements sdk.Entity.
func (e *entity) Run(ctx context.Context, job sdk.Job) error {
	id, all := job.Spec.ID, job.Spec.Workgroups()
	if e.b.Calls != nil {
		e.b.Calls(e.spec.ID, job.Epoch, fmt.Sprintf("run %d", id))
	}
	e.trace.add("RUN", fmt.Sprintf("job %d %s", id, job.Spec.Entry))
	if _, ok := job.Spec.Kernels[Format]; ok {
		return e.mill.run(job)
	}
	done := sdk.Usage{Done: all, Executed: all - job.First, ExecutedTime: time.Millisecond}
	switch job.Spec.Entry {
	case Trap:
		return &core.FaultError{Cause: core.CauseTrap, Entity: e.spec.ID, Job: id, Detail: "unreachable"}
	case Panic:
		panic("asked for")
	case Lose:
		e.report.Started(id)
		e.report.Lost(true, id, sdk.Usage{Done: 1}, core.CauseHang, "did not end")
		return nil
	case Pile:
		return nil
	case Stamp:
		for range 2 {
			e.report.(sdk.UpToReporter).CompletedThrough(id, done)
		}
		return nil
	case Block:
		<-ctx.Done()
		return ctx.Err()
	case Slow:
		e.mu.Lock()
		e.slow = append(e.slow, sdk.JobUsage{Job: id, Usage: sdk.Usage{Done: job.First}})
		e.mu.Unlock()
		e.report.Started(id)
		return nil
	case Print:
		for range 10_000 {
			fmt.Fprintln(os.Stdout, "a line that nobody asked for")
			fmt.Fprintln(os.Stderr, `{"@message": 1, "@level": [], "@timestamp": {}}`)
		}
	case Fill:
		for i := range e.buffers[0] {
			e.buffers[0][i]++
		}
	}
	e.report.Started(id)
	e.report.Completed(id, done)
	return nil
}

// Cancel implements sdk.Entity.
func (e *entity) Cancel(_ context.Context, job core.JobID) error {
	e.mill.cancel(job)
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, u := range e.slow {
		if u.Job == job {
			e.slow = slices.Delete(e.slow, i, i+1)
			e.report.Cancelled(job, u.Usage)
			return nil
		}
	}
	return nil
}

// Suspend implements sdk.Suspender.
func (e *entity) Suspend(ctx context.Context) error {
	e.b.called(e.spec.ID, 0, "suspend")
	if e.b.SuspendTakes > 0 {
		select {
		case <-time.After(e.b.SuspendTakes):
		case <-ctx.Done():
			return fmt.Errorf("suspend: %w", core.ErrDeadline)
		}
	}
	return e.mill.stop(ctx)
}

// Resume implements sdk.Suspender.
func (e *entity) Resume(context.Context) error {
	e.b.called(e.spec.ID, 0, "resume")
	e.mill.start()
	return nil
}

// SetProperties implements sdk.PropertySetter.
func (e *entity) SetProperties(_ context.Context, p core.Properties) error {
	e.b.called(e.spec.ID, 0, "set "+string(p.Priority))
	return nil
}

// Message implements sdk.MessageHandler.
func (e *entity) Message(_ context.Context, kind core.MessageKind, payload []byte) ([]byte, error) {
	if kind != Reverse {
		return nil, fmt.Errorf("message %d: %w", kind, core.ErrUnsupported)
	}
	reply := slices.Clone(payload)
	slices.Reverse(reply)
	return reply, nil
}

// Progress implements sdk.Sampler.
func (e *entity) Progress() []sdk.JobUsage {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.slow {
		e.slow[i].Done++
		e.slow[i].Executed++
	}
	return append(e.mill.progress(), e.slow...)
}

// Save implements sdk.Saver. The private part is what Create was given.
func (e *entity) Save(context.Context) (core.ImageSource, error) {
	h := e.header
	h.Version, h.Backend, h.Jobs = core.ImageVersion, name, e.mill.unfinished()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, u := range e.slow {
		h.Jobs = append(h.Jobs, core.ImageJob{Job: u.Job, Cursor: u.Done, Executed: u.Executed})
	}
	return sdk.BufferImage(h, e.buffers), nil
}

// Destroy implements sdk.Entity.
func (e *entity) Destroy(ctx context.Context) error {
	e.b.called(e.spec.ID, 0, "destroy")
	return e.mill.stop(ctx)
}
