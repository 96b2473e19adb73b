package board

import (
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/plugins/engine"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// Settings are what the executable decides, not the deployment file.
type Settings struct {
	// Version is what Describe says; default "dev".
	Version string
	// CacheDir keeps compiled kernels between processes; empty means none.
	CacheDir string
	// UsageFile counts executed workgroups; default sdk.UsageFile().
	UsageFile string
}

// Engines makes the engines of a process. Its methods may be called from any goroutine.
type Engines struct {
	settings Settings
	mu       struct {
		sync.Mutex
		// usage is opened with the first device and stays open as long as the process.
		usage *usage.File
	}
}

// NewEngines fills in the defaults; nothing is opened yet.
func NewEngines(s Settings) *Engines {
	if s.Version == "" {
		s.Version = "dev"
	}
	if s.UsageFile == "" {
		s.UsageFile = sdk.UsageFile()
	}
	return &Engines{settings: s}
}

// Version is what the backend says of itself.
func (e *Engines) Version() string { return e.settings.Version }

// Names are what a device's `engine:` may say.
func (e *Engines) Names() []string { return []string{wasm.Name, testengine.Name} }

// Open makes what executes kernels under a firmware. An engine that fails calls failed.
func (e *Engines) Open(name string, cores int, clock hw.Clock, failed func(error)) (engine.Engine, error) {
	counts, err := e.usage()
	if err != nil {
		return nil, err
	}
	if name == testengine.Name {
		return testengine.New(testengine.Config{Clock: Clock{clock}, Usage: counts}), nil
	}
	return wasm.New(wasm.Config{Cores: cores, Usage: counts, CacheDir: e.settings.CacheDir, Now: clock.Now, Failed: failed})
}

// Clock is a device's clock as the test engine declares it.
type Clock struct{ hw.Clock }

// AfterFunc implements the test engine's Clock.
func (c Clock) AfterFunc(d time.Duration, f func()) testengine.Timer { return c.Clock.AfterFunc(d, f) }

// usage opens the count of executed workgroups; nil when nobody wants it.
func (e *Engines) usage() (*usage.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.settings.UsageFile == "" || e.mu.usage != nil {
		return e.mu.usage, nil
	}
	file, err := usage.Open(e.settings.UsageFile)
	if err != nil {
		return nil, err
	}
	e.mu.usage = file
	return file, nil
}
