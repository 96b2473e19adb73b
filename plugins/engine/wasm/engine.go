package wasm

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/tetratelabs/wazero"
)

// Name is what a device's `engine:` says.
const Name = "wasm"

// Config is how an engine is made.
type Config struct {
	// Cores is how many cores one dispatch uses; 0, or more than there are, means all.
	Cores int
	// Usage takes the counts of executed workgroups; nil counts for nobody.
	Usage *usage.File
	// CacheDir keeps compiled kernels between processes; empty means none.
	CacheDir string
	// MemoryMax bounds the linear memory of one address space and kernel, in
	// bytes; 0 means what the kernel declares, at most 4 GiB.
	MemoryMax uint64
	// Failed, unless nil, is called when the process should be replaced, because a
	// workgroup that does not end keeps the garbage collector out (gate.go). It
	// comes on a goroutine of the package's, must not call Close, and may come again.
	Failed func(error)
	// Now is the clock of executed time, read at least once per progress; nil
	// means the machine's. It may be called from any goroutine.
	Now func() time.Duration
}

// Engine executes wasm kernels. See engine.Engine for what its methods promise.
type Engine struct {
	config  Config
	ctx     context.Context
	runtime wazero.Runtime
	cache   wazero.CompilationCache

	mu struct {
		sync.Mutex
		closed    bool
		modules   map[core.Digest]*module
		instances map[uint64][]*instance // idle ones by address space
		idle      int
		running   int
		clock     uint64 // rises with every use, for least-recently-used
	}
}

var _ engine.Engine = (*Engine)(nil)

// New starts an engine; nothing runs yet. As long as one is open, the garbage
// collector of the process is run by this package (see the package comment).
func New(c Config) (*Engine, error) {
	if n := runtime.NumCPU(); c.Cores <= 0 || c.Cores > n {
		c.Cores = n
	}
	if c.MemoryMax == 0 || c.MemoryMax > memoryLimit {
		c.MemoryMax = memoryLimit
	}
	c.MemoryMax &^= pageSize - 1
	if start := time.Now(); c.Now == nil {
		c.Now = func() time.Duration { return time.Since(start) }
	}
	e := &Engine{config: c, ctx: context.Background()}
	rc := wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features)
	if c.CacheDir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(c.CacheDir)
		if err != nil {
			return nil, fmt.Errorf("open compilation cache: %w", err)
		}
		e.cache = cache
		rc = rc.WithCompilationCache(cache)
	}
	e.mu.modules = make(map[core.Digest]*module)
	e.mu.instances = make(map[uint64][]*instance)
	processGate.open(e)
	e.runtime = wazero.NewRuntimeWithConfig(e.ctx, rc)
	return e, nil
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Formats implements engine.Engine.
func (e *Engine) Formats() []string { return []string{core.FormatWasm} }

// Check implements engine.Engine. Errors wrap core.ErrInvalid, or
// core.ErrUnsupported when it is another format.
func (e *Engine) Check(k core.Kernel, entry string) error {
	m, err := e.compiled(k)
	if err != nil {
		return err
	}
	defer e.unuse(m)
	return m.info.CheckEntry(entry)
}

// Start implements engine.Engine. An error means that the dispatch is malformed
// (core.ErrInvalid) or the engine closed (core.ErrClosed); then notify is not
// called. Everything that is the kernel's or its arguments' fault is in the Result.
// The slices in d must not change until then.
func (e *Engine) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	total := uint64(d.Grid[0]) * uint64(d.Grid[1])
	if hi := uint64(d.Grid[2]); hi > 1 && total > ^uint64(0)/hi {
		return nil, fmt.Errorf("%w: grid %v is too large", core.ErrInvalid, d.Grid)
	} else {
		total *= hi
	}
	if d.First > total || d.Count > total-d.First {
		return nil, fmt.Errorf("%w: workgroups %d to %d of %d", core.ErrInvalid, d.First, d.First+d.Count, total)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return nil, fmt.Errorf("start dispatch: engine: %w", core.ErrClosed)
	}
	e.mu.running++
	x := newExecution(e, d, notify)
	go x.run()
	return x, nil
}

// Forget implements engine.Engine. The memory of a dispatch that still runs
// goes when that ends.
func (e *Engine) Forget(space uint64) {
	e.mu.Lock()
	idle := e.mu.instances[space]
	delete(e.mu.instances, space)
	e.mu.idle -= len(idle)
	e.mu.Unlock()
	for _, inst := range idle {
		inst.close()
	}
}

// Close implements engine.Engine. With a dispatch that cannot be stopped, its
// memory and code stay until the process ends. Closing twice is no error.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		return nil
	}
	e.mu.closed = true
	var idle []*instance
	for _, list := range e.mu.instances {
		idle = append(idle, list...)
	}
	e.mu.instances, e.mu.idle = nil, 0
	running := e.mu.running
	e.mu.Unlock()
	for _, inst := range idle {
		inst.close()
	}
	defer processGate.close(e)
	if running > 0 {
		return nil
	}
	err := e.runtime.Close(e.ctx)
	if e.cache != nil {
		if cacheErr := e.cache.Close(e.ctx); err == nil {
			err = cacheErr
		}
	}
	return err
}

// ended is called once by each execution, after its instance was given back.
func (e *Engine) ended() {
	e.mu.Lock()
	e.mu.running--
	e.mu.Unlock()
}
