package device

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
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// Options are what the executable decides, not the deployment file.
type Options struct {
	// Version is what Describe says; default "dev".
	Version string
	// CacheDir keeps compiled kernels between processes; empty means none.
	CacheDir string
	// UsageFile counts executed workgroups; default sdk.UsageFile().
	UsageFile string
}

// Vendor is what one backend has of its own.
type Vendor struct {
	// Name is what a deployment file calls the backend.
	Name string
	// Settings checks the options of a device; errors wrap core.ErrInvalid.
	Settings func(core.DeviceSpec) (Settings, error)
}

// Settings are the options of one device, checked.
type Settings interface {
	// Common are those that every device has.
	Common() Common
	// LeaveBound is the longest that a suspend or destroy may take.
	LeaveBound() time.Duration
	// Assemble makes firmware and driver, which do nothing yet.
	Assemble(Parts) (Driver, Firmware, error)
}

// Common are the options that every device has.
type Common struct {
	// Engine is wasm or test, Cores its cores, 0 for all.
	Engine string
	Cores  int
}

// Parts are what a device is made of.
type Parts struct {
	Name   string
	Engine engine.Engine
	Clock  hw.Clock
	Arena  *hw.Arena
	Trace  *hw.Trace
	Log    hclog.Logger
	Failed func(error)
}

// Driver is the host's side of a device.
type Driver interface {
	sdk.Device
	// Start returns when the device takes work; it is called once, with the firmware running.
	Start(ctx context.Context) error
}

// Firmware is the other side. Run returns when ctx has ended; an error says that
// the memory must stay mapped.
type Firmware interface {
	Run(ctx context.Context) error
}

// TraceLines is how many firmware messages of a device are kept.
const TraceLines = 4096

type backend struct {
	vendor  Vendor
	options Options
	mu      struct {
		sync.Mutex
		// usage is opened with the first device and stays open as long as the process.
		usage *usage.File
	}
}

// New returns the vendor's backend. Nothing is opened before Open.
func New(v Vendor, options Options) sdk.Backend {
	if options.Version == "" {
		options.Version = "dev"
	}
	if options.UsageFile == "" {
		options.UsageFile = sdk.UsageFile()
	}
	return &backend{vendor: v, options: options}
}

// Describe implements sdk.Backend.
func (b *backend) Describe() core.BackendDescription {
	return core.BackendDescription{
		Name: b.vendor.Name, Version: b.options.Version, Engines: []string{wasm.Name, testengine.Name}, Level: core.LevelPortable,
	}
}

// Open implements sdk.Backend.
func (b *backend) Open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (sdk.Device, error) {
	dev, err := b.open(ctx, spec, log, failed)
	if err != nil {
		return nil, fmt.Errorf("open device %s: %w", spec.Name, err)
	}
	return dev, nil
}

func (b *backend) open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (*device, error) {
	set, err := b.vendor.Settings(spec)
	if err != nil {
		return nil, err
	}
	counts, err := b.usage()
	if err != nil {
		return nil, err
	}
	clock := hw.NewRealClock()
	eng, err := b.engine(set.Common(), counts, clock, failed)
	if err != nil {
		return nil, err
	}
	dev, err := assemble(set, Parts{Name: spec.Name, Engine: eng, Clock: clock, Log: log, Failed: failed})
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
func (b *backend) engine(set Common, counts *usage.File, clock hw.Clock, failed func(error)) (engine.Engine, error) {
	if set.Engine == testengine.Name {
		return testengine.New(testengine.Config{Clock: TestClock{clock}, Usage: counts}), nil
	}
	return wasm.New(wasm.Config{Cores: set.Cores, Usage: counts, CacheDir: b.options.CacheDir, Now: clock.Now, Failed: failed})
}

// TestClock is a device's clock as the test engine declares it.
type TestClock struct{ hw.Clock }

// AfterFunc implements the test engine's Clock.
func (c TestClock) AfterFunc(d time.Duration, f func()) testengine.Timer {
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
