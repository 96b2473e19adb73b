package sdk_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
)

// abacus is a whole backend. Its kernels have one entry, add(buffer, u64): each
// workgroup adds the number to the first eight bytes of the buffer.
type abacus struct{}

// Describe implements sdk.Backend.
func (abacus) Describe() core.BackendDescription {
	return core.BackendDescription{
		Name: "abacus", Version: "1", Level: core.LevelPortable,
		Messages: []core.MessageType{{Kind: messageRing, Name: "ring", Doc: "Replies with the number of jobs in the ring, one byte."}},
	}
}

// Open implements sdk.Backend.
func (abacus) Open(_ context.Context, spec core.DeviceSpec, _ hclog.Logger, _ func(error)) (sdk.Device, error) {
	return frame{spec}, nil
}

const (
	messageRing  = core.MessageBackend
	abacusFormat = "abacus"
	ringMax      = 8
)

// frame is a device.
type frame struct{ spec core.DeviceSpec }

// Describe implements sdk.Device.
func (d frame) Describe() core.DeviceDescription {
	return core.DeviceDescription{
		Name: d.spec.Name, Granularity: core.GranularityWorkgroup, Formats: []string{abacusFormat},
		Credits: ringMax, MemoryMax: 1 << 20, SavesImages: true,
	}
}

// LoadKernel implements sdk.Device.
func (frame) LoadKernel(_ context.Context, k core.Kernel) error {
	if string(k.Code) != "add" {
		return fmt.Errorf("kernel %q: %w", k.Code, core.ErrInvalid)
	}
	return nil
}

// Create implements sdk.Device: the image fills the buffers.
func (frame) Create(_ context.Context, _ *core.EntitySpec, image core.ImageSource, report sdk.Reporter) (sdk.Entity, error) {
	r := &rod{report: report, header: image.Header()}
	for _, b := range r.header.Buffers {
		r.buffers = append(r.buffers, make([]byte, b.Size))
	}
	return r, image.Chunks(func(ref core.ChunkRef, data []byte) error {
		copy(r.buffers[ref.Buffer][ref.Index*core.ChunkSize:], data)
		return nil
	})
}

// Close implements sdk.Device. What executes ends with the process.
func (frame) Close(context.Context) error { return nil }

// rod is an entity. One goroutine executes while there is something to execute;
// the mutex is for what it shares with the calls of the SDK.
type rod struct {
	report  sdk.Reporter
	header  core.ImageHeader
	buffers [][]byte
	mu      sync.Mutex
	ring    []*bead
	halted  bool
	busy    sync.WaitGroup
	working bool
}

// bead is a job in the ring.
type bead struct {
	spec    *core.JobSpec
	usage   sdk.Usage
	started bool
}

// What an entity can do besides jobs.
var (
	_ sdk.MessageHandler = (*rod)(nil)
	_ sdk.PropertySetter = (*rod)(nil)
	_ sdk.Saver          = (*rod)(nil)
	_ sdk.Sampler        = (*rod)(nil)
	_ sdk.Suspender      = (*rod)(nil)
)

// Run implements sdk.Entity: it appends to the ring and returns.
func (r *rod) Run(_ context.Context, j sdk.Job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case j.Spec.Entry != "add" || len(j.Spec.Args) != 2:
		return &core.FaultError{Cause: core.CauseKernel, Job: j.Spec.ID, Detail: "no such entry"}
	case len(r.ring) >= ringMax:
		return fmt.Errorf("ring: %w", core.ErrFull)
	}
	r.ring = append(r.ring, &bead{spec: j.Spec, usage: sdk.Usage{Done: j.First}})
	r.kick()
	return nil
}

// kick starts the goroutine when there is work for it. The mutex is held.
func (r *rod) kick() {
	if !r.working && !r.halted && len(r.ring) > 0 {
		r.working = true
		r.busy.Go(r.work)
	}
}

// work executes one workgroup after another: between two of them anything may
// happen to the ring.
func (r *rod) work() {
	for {
		r.mu.Lock()
		if r.halted || len(r.ring) == 0 {
			r.working = false
			r.mu.Unlock()
			return
		}
		r.workgroup(r.ring[0])
		r.mu.Unlock()
	}
}

// workgroup executes the next workgroup of a job and reports. The mutex is held.
func (r *rod) workgroup(b *bead) {
	if !b.started {
		b.started = true
		r.report.Started(b.spec.ID)
	}
	if b.usage.Done < b.spec.Workgroups() {
		began := time.Now()
		cell := r.buffers[slices.IndexFunc(r.header.Buffers, func(s core.BufferSpec) bool { return s.Name == b.spec.Args[0].Buffer })]
		binary.LittleEndian.PutUint64(cell, binary.LittleEndian.Uint64(cell)+b.spec.Args[1].Bits)
		b.usage.Done++
		b.usage.Executed++
		b.usage.ExecutedTime += time.Since(began)
	}
	if b.usage.Done == b.spec.Workgroups() {
		r.ring = r.ring[1:]
		r.report.Completed(b.spec.ID, b.usage)
	}
}

// Cancel implements sdk.Entity.
func (r *rod) Cancel(_ context.Context, job core.JobID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.ring, func(b *bead) bool { return b.spec.ID == job }); i >= 0 {
		r.report.Cancelled(job, r.ring[i].usage)
		r.ring = slices.Delete(r.ring, i, i+1)
	}
	return nil
}

// Suspend implements sdk.Suspender: it returns when nothing executes any more.
func (r *rod) Suspend(context.Context) error {
	r.mu.Lock()
	r.halted = true
	r.mu.Unlock()
	r.busy.Wait()
	return nil
}

// Resume implements sdk.Suspender.
func (r *rod) Resume(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halted = false
	r.kick()
	return nil
}

// Save implements sdk.Saver: buffers, and how far each job has come.
func (r *rod) Save(context.Context) (core.ImageSource, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.header
	h.Jobs = nil
	for _, u := range r.ring {
		h.Jobs = append(h.Jobs, core.ImageJob{
			Job: u.spec.ID, Cursor: u.usage.Done, Executed: u.usage.Executed, ExecutedTime: u.usage.ExecutedTime,
		})
	}
	return sdk.BufferImage(h, r.buffers), nil
}

// Progress implements sdk.Sampler.
func (r *rod) Progress() []sdk.JobUsage {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) == 0 || !r.ring[0].started {
		return nil
	}
	return []sdk.JobUsage{{Job: r.ring[0].spec.ID, Usage: r.ring[0].usage}}
}

// SetProperties implements sdk.PropertySetter. One rod is as fast as another.
func (r *rod) SetProperties(context.Context, core.Properties) error { return nil }

// Message implements sdk.MessageHandler.
func (r *rod) Message(_ context.Context, kind core.MessageKind, _ []byte) ([]byte, error) {
	if kind != messageRing {
		return nil, fmt.Errorf("message %d: %w", kind, core.ErrUnsupported)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return []byte{byte(len(r.ring))}, nil
}

// Destroy implements sdk.Entity.
func (r *rod) Destroy(ctx context.Context) error { return r.Suspend(ctx) }

// A whole backend, and what its host sees of a job: it runs, is asked about, is
// suspended and read, and goes. The main of such a plugin is sdk.Serve(abacus{}).
func Example() {
	h := newExampleHost(abacus{})
	defer h.close()
	fmt.Println("device:", h.open("frame0"))
	h.putKernel(abacusFormat, "add")

	h.create(1, core.BufferSpec{Name: "sum", Size: 8})
	h.message(1, core.MessageSuspend)
	job := core.JobSpec{
		ID: 7, Entry: "add", Grid: [3]uint32{100, 10, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "sum"}, {Kind: core.ArgU64, Bits: 3}},
	}
	h.run(1, job)
	h.message(1, messageRing)
	h.message(1, core.MessageResume)
	h.await(core.EventCompleted)
	h.message(1, core.MessageSuspend)
	fmt.Println("sum:", binary.LittleEndian.Uint64(h.image(1)))

	job.ID, job.Entry = 8, "subtract"
	h.run(1, job)
	h.await(core.EventRefused)
	h.destroy(1)

	// Output:
	// device: frame0 takes abacus
	// applied
	// message done
	// message done, reply 01
	// message done
	// started job 7
	// completed job 7: 1000 of 1000
	// message done
	// sum: 3000
	// refused job 8: kernel
	// destroyed
}
