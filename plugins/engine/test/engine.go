// Package test is an engine for seeded runs: workgroups take scripted times on
// a clock that the caller owns, hang and trap where the script says, and really
// write into their buffer, so that outputs can be compared. It starts no
// goroutine; everything after Start happens in the clock's callbacks, so that a
// virtual clock makes a run exactly repeatable.
//
// A kernel of format "test" is a text of words, in any order:
//
//	workgroup=1ms    how long one workgroup takes (default 1ms)
//	cores=2          how many run at once (default 1)
//	hang at 7        workgroup 7 of the grid, in linear order, never ends
//	trap at 9        workgroup 9 misbehaves when its time is over
//
// The cores work in step: every workgroup's time, as many workgroups end as
// there are cores. Each adds a hash of its number to one word of the first
// buffer argument (see Apply), which commutes but is not idempotent: a workgroup
// that is lost or run twice shows.
package test

import (
	"fmt"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

// Name is what a device's `engine:` says, Format the kernels it takes.
const (
	Name   = "test"
	Format = "test"
)

// Clock is the time the engine lives in. AfterFunc calls f once, d from now,
// unless it was stopped before; never inside AfterFunc itself.
type Clock interface {
	Now() time.Duration
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a pending call; Stop reports whether it prevented the call.
type Timer interface{ Stop() bool }

// Config is how an engine is made.
type Config struct {
	Clock Clock
	// Usage takes the counts of executed workgroups; nil counts for nobody.
	Usage *usage.File
}

// Engine executes test kernels. See engine.Engine for what its methods promise.
type Engine struct {
	config Config
	mu     struct {
		sync.Mutex
		closed bool
	}
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine on the clock, which must not be nil.
func New(c Config) *Engine { return &Engine{config: c} }

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Formats implements engine.Engine.
func (e *Engine) Formats() []string { return []string{Format} }

// Check implements engine.Engine; a script has every entry point but the empty one.
func (e *Engine) Check(k core.Kernel, entry string) error {
	if k.Format != Format {
		return fmt.Errorf("%w: kernel format %q", core.ErrUnsupported, k.Format)
	}
	if entry == "" {
		return fmt.Errorf("%w: no entry", core.ErrInvalid)
	}
	_, err := parse(string(k.Code))
	return err
}

// Start implements engine.Engine. An error means that the dispatch is malformed
// (core.ErrInvalid) or the engine closed (core.ErrClosed); then notify is not
// called. A kernel that is no script is in the Result.
func (e *Engine) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	total := uint64(d.Grid[0]) * uint64(d.Grid[1])
	if z := uint64(d.Grid[2]); z > 1 && total > ^uint64(0)/z {
		return nil, fmt.Errorf("%w: grid %v is too large", core.ErrInvalid, d.Grid)
	}
	total *= uint64(d.Grid[2])
	if d.First > total || d.Count > total-d.First {
		return nil, fmt.Errorf("%w: workgroups %d to %d of %d", core.ErrInvalid, d.First, d.First+d.Count, total)
	}
	e.mu.Lock()
	closed := e.mu.closed
	e.mu.Unlock()
	if closed {
		return nil, fmt.Errorf("start dispatch: engine: %w", core.ErrClosed)
	}
	x := &Execution{clock: e.config.Clock, dispatch: d, notify: notify,
		begun: e.config.Clock.Now(), executed: e.config.Usage.Slot(d.Job, d.Epoch)}
	x.start(e.Check(d.Kernel, d.Entry))
	return x, nil
}

// Forget implements engine.Engine: nothing is cached.
func (e *Engine) Forget(uint64) {}

// Close implements engine.Engine.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.mu.closed = true
	e.mu.Unlock()
	return nil
}
