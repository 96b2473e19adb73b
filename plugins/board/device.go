package board

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// TraceLines is how many firmware messages of a device are kept.
const TraceLines = 4096

// Firmware is an emulated firmware with a goroutine of its own.
type Firmware interface {
	// Run steps it until ctx ends; an error means that a kernel does not end.
	Run(ctx context.Context) error
}

// Parts are what a device is made of.
type Parts struct {
	// Driver is the vendor's.
	Driver   sdk.Device
	Firmware Firmware
	Engine   engine.Engine
	Arena    *hw.Arena
	Trace    *hw.Trace
	// Leave bounds a suspend or destroy.
	Leave time.Duration
}

// Device is one device with everything below it.
type Device struct {
	sdk.Device
	parts Parts
	// stop ends the firmware; ended carries what its Run returned.
	stop  context.CancelFunc
	ended chan error
	once  sync.Once
	err   error

	mu struct {
		sync.Mutex
		// kernels are those that were loaded and can be looked into.
		kernels map[core.Digest]wasm.Info
	}
}

// Entity is what the drivers make: everything that an entity can do.
type Entity interface {
	sdk.Entity
	sdk.PropertySetter
	sdk.Suspender
	sdk.Saver
	sdk.Sampler
}

// entity refuses jobs that could only fail on the device, with all that it holds.
type entity struct {
	Entity
	d *Device
}

var (
	_ sdk.LeaveBounder = (*Device)(nil)
	_ sdk.Tracer       = (*Device)(nil)
	_ Entity           = entity{}
)

// Assemble makes a device; the firmware runs when it returns. Close ends all parts.
func Assemble(p Parts) *Device {
	ctx, stop := context.WithCancel(context.Background())
	d := &Device{Device: p.Driver, parts: p, stop: stop, ended: make(chan error, 1)}
	d.mu.kernels = make(map[core.Digest]wasm.Info)
	go func() { d.ended <- p.Firmware.Run(ctx) }()
	return d
}

// LeaveBound implements sdk.LeaveBounder.
func (d *Device) LeaveBound() time.Duration { return d.parts.Leave }

// Trace implements sdk.Tracer: the messages between driver and firmware, and what
// the firmware says of itself, each with the device's time.
func (d *Device) Trace(after uint64) ([]core.TraceLine, <-chan struct{}) {
	held := d.parts.Trace.Since(after, TraceLines)
	lines := make([]core.TraceLine, len(held))
	for i, l := range held {
		lines[i] = core.TraceLine{Number: l.Seq, Kind: l.Kind, Text: fmt.Sprintf("%.6f %s", l.At.Seconds(), l.Text)}
		after = l.Seq
	}
	return lines, d.parts.Trace.Changed(after)
}

// LoadKernel implements sdk.Device: it refuses what the engine could not load.
func (d *Device) LoadKernel(ctx context.Context, k core.Kernel) error {
	if k.Format != core.FormatWasm {
		return d.Device.LoadKernel(ctx, k)
	}
	info, err := wasm.Inspect(k.Code)
	if err != nil {
		return fmt.Errorf("load kernel %s: %w", k.Digest, err)
	}
	if err := d.Device.LoadKernel(ctx, k); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.kernels[k.Digest] = info
	return nil
}

// Create implements sdk.Device.
func (d *Device) Create(ctx context.Context, spec *core.EntitySpec, image core.ImageSource, report sdk.Reporter) (sdk.Entity, error) {
	made, err := d.Device.Create(ctx, spec, image, report)
	if err != nil {
		return nil, err
	}
	return entity{made.(Entity), d}, nil
}

// Run implements sdk.Entity. An entry that the kernel does not have, or that takes other
// arguments, is a *core.FaultError with core.CauseKernel.
func (e entity) Run(ctx context.Context, j sdk.Job) error {
	e.d.mu.Lock()
	info, known := e.d.mu.kernels[j.Spec.Kernels[core.FormatWasm]]
	e.d.mu.Unlock()
	if known {
		if err := info.CheckJob(j.Spec.Entry, j.Spec.Args, 0); err != nil {
			return &core.FaultError{Cause: core.CauseKernel, Detail: err.Error()}
		}
	}
	return e.Entity.Run(ctx, j)
}

// Close implements sdk.Device: driver first, so that nobody touches the memory,
// then firmware and engine. When a kernel does not end, the memory stays mapped
// until the process ends. A repeat returns what the first call did.
func (d *Device) Close(ctx context.Context) error {
	d.once.Do(func() { d.err = d.close(ctx) })
	return d.err
}

func (d *Device) close(ctx context.Context) error {
	err := d.Device.Close(ctx)
	d.stop()
	select {
	case ended := <-d.ended:
		if ended != nil {
			return errors.Join(err, ended)
		}
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("close device: firmware: %w", core.ErrDeadline))
	}
	if err != nil {
		return errors.Join(err, d.parts.Engine.Close())
	}
	return errors.Join(d.parts.Engine.Close(), d.parts.Arena.Close())
}
