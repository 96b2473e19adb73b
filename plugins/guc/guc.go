// Package guc is the backend for GPUs whose work Intel's GuC firmware
// schedules. It joins what must not know each other: the driver (host side),
// the firmware emulator, and the engine under it. Per device it owns one
// memory file, one firmware goroutine, one driver goroutine and one engine.
//
// The emulated device is all there is so far: the firmware runs in the plugin's
// process. Driver and firmware share the memory file and two signal lines only,
// and a test runs them in two processes.
package guc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/plugins/engine"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// Name is what a deployment file calls the backend.
const Name = "guc"

// Options are what the executable decides, not the deployment file.
type Options struct {
	// Version is what Describe says; default "dev".
	Version string
	// CacheDir keeps compiled kernels between processes; empty means none.
	CacheDir string
	// UsageFile counts executed workgroups; default sdk.UsageFile().
	UsageFile string
}

// traceLines is how many firmware messages of a device are kept.
const traceLines = 4096

type backend struct {
	options Options
	mu      struct {
		sync.Mutex
		// usage is opened with the first device and stays open as long as the process.
		usage *usage.File
	}
}

// New returns the backend. Nothing is opened before Open.
func New(options Options) sdk.Backend {
	if options.Version == "" {
		options.Version = "dev"
	}
	if options.UsageFile == "" {
		options.UsageFile = sdk.UsageFile()
	}
	return &backend{options: options}
}

// Describe implements sdk.Backend.
func (b *backend) Describe() core.BackendDescription {
	return core.BackendDescription{
		Name: Name, Version: b.options.Version, Engines: []string{wasm.Name, testengine.Name}, Level: core.LevelPortable,
	}
}

// Open implements sdk.Backend. spec.Options are described at settings.
func (b *backend) Open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (sdk.Device, error) {
	dev, err := b.open(ctx, spec, log, failed)
	if err != nil {
		return nil, fmt.Errorf("open device %s: %w", spec.Name, err)
	}
	return dev, nil
}

func (b *backend) open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (*device, error) {
	set, err := parseSettings(spec)
	if err != nil {
		return nil, err
	}
	counts, err := b.usage()
	if err != nil {
		return nil, err
	}
	clock := hw.NewRealClock()
	eng, err := b.engine(set, counts, clock, failed)
	if err != nil {
		return nil, err
	}
	dev, err := assemble(spec, set, eng, clock, log, failed)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	if err := dev.Start(ctx); err != nil {
		return nil, errors.Join(err, dev.Close(ctx))
	}
	return dev, nil
}

// engine makes what executes kernels under the firmware. An engine that fails
// takes the device with it.
func (b *backend) engine(set settings, counts *usage.File, clock hw.Clock, failed func(error)) (engine.Engine, error) {
	if set.engine == testengine.Name {
		return testengine.New(testengine.Config{Clock: testClock{clock}, Usage: counts}), nil
	}
	return wasm.New(wasm.Config{Cores: set.cores, Usage: counts, CacheDir: b.options.CacheDir, Now: clock.Now, Failed: failed})
}

// testClock is a device's clock as the test engine declares it.
type testClock struct{ hw.Clock }

// AfterFunc implements the test engine's Clock.
func (c testClock) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return c.Clock.AfterFunc(d, f)
}

// usage opens the count of executed workgroups; nil when nobody wants it.
func (b *backend) usage() (*usage.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.options.UsageFile == "" || b.mu.usage != nil {
		return b.mu.usage, nil
	}
	file, err := usage.Open(b.options.UsageFile)
	if err != nil {
		return nil, err
	}
	b.mu.usage = file
	return file, nil
}

var (
	_ sdk.LeaveBounder = (*device)(nil)
	_ sdk.Tracer       = (*device)(nil)
)

// device is one device with everything below it.
type device struct {
	*driver.Driver
	engine engine.Engine
	arena  *hw.Arena
	trace  *hw.Trace
	// leave bounds a suspend or destroy.
	leave time.Duration
	// stop ends the firmware; ended carries what its Run returned.
	stop  context.CancelFunc
	ended chan error
	once  sync.Once
	err   error
}

// assemble makes memory, firmware and driver; the firmware runs when it returns.
func assemble(spec core.DeviceSpec, set settings, eng engine.Engine, clock hw.Clock, log hclog.Logger, failed func(error)) (*device, error) {
	arena, err := hw.NewArena(0)
	if err != nil {
		return nil, err
	}
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}
	ports := hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	trace := hw.NewTrace(traceLines)
	firmware, err := fw.New(fw.Config{
		Arena: arena, Ports: ports, Engine: eng, Clock: clock, Trace: trace,
		Classes:    map[abi.EngineClass]int{abi.ClassCompute: set.instances},
		QuantumMin: set.quantum, PreemptionMin: set.hang, ResetGrace: resetGrace,
	})
	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}
	host, err := driver.New(driver.Config{
		Arena: arena, Ports: ports, Clock: clock, Log: log, Failed: failed,
		Name: spec.Name, Engine: eng.Name(), Formats: eng.Formats(), Instances: set.instances,
		Quantum: set.quantum, Preemption: set.hang, Timeouts: set.timeouts(),
		MinRun: set.minRun, RuntimeIdle: set.idle,
	})
	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	dev := &device{Driver: host, engine: eng, arena: arena, trace: trace, leave: set.leaveBound(), stop: stop, ended: make(chan error, 1)}
	go func() { dev.ended <- firmware.Run(ctx) }()
	return dev, nil
}

// LeaveBound implements sdk.LeaveBounder.
func (d *device) LeaveBound() time.Duration { return d.leave }

// Trace implements sdk.Tracer: the messages between driver and firmware, and what
// the firmware says of contexts, engines and interrupts, each with the device's time.
func (d *device) Trace(after uint64) ([]core.TraceLine, <-chan struct{}) {
	held := d.trace.Since(after, traceLines)
	lines := make([]core.TraceLine, len(held))
	for i, l := range held {
		lines[i] = core.TraceLine{Number: l.Seq, Kind: l.Kind, Text: fmt.Sprintf("%.6f %s", l.At.Seconds(), l.Text)}
		after = l.Seq
	}
	return lines, d.trace.Changed(after)
}

// LoadKernel implements sdk.Device: it refuses what the engine could not load.
func (d *device) LoadKernel(ctx context.Context, k core.Kernel) error {
	if k.Format == core.FormatWasm {
		if _, err := wasm.Inspect(k.Code); err != nil {
			return fmt.Errorf("load kernel %s: %w", k.Digest, err)
		}
	}
	return d.Driver.LoadKernel(ctx, k)
}

// Close implements sdk.Device: driver first, so that nobody touches the memory,
// then firmware and engine. When a kernel does not end, the memory stays mapped
// until the process ends. A repeat returns what the first call did.
func (d *device) Close(ctx context.Context) error {
	d.once.Do(func() { d.err = d.close(ctx) })
	return d.err
}

func (d *device) close(ctx context.Context) error {
	err := d.Driver.Close(ctx)
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
		return errors.Join(err, d.engine.Close())
	}
	return errors.Join(d.engine.Close(), d.arena.Close())
}
