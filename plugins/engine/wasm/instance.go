package wasm

import (
	"context"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// instancesMax bounds the idle instances that an engine keeps.
const instancesMax = 64

// instance is a kernel made ready for an address space: its linear memory with
// the buffers in it, and one wazero instance per worker. One execution uses it at a time.
type instance struct {
	module  *module
	engine  *Engine
	space   uint64
	placed  []placed
	memory  *reservation
	argsAt  uint64
	env     api.Module
	workers []api.Module
	used    uint64 // guarded by Engine.mu
}

// placed is a segment with its place in the linear memory.
type placed struct {
	segment engine.Segment
	at      uint64
	mapped  bool
}

// same reports whether the instance has exactly these segments in it.
func (i *instance) same(m *module, segments []engine.Segment) bool {
	return i.module == m && slices.EqualFunc(i.placed, segments, func(p placed, s engine.Segment) bool {
		q := p.segment
		return q.Address == s.Address && q.Size == s.Size && q.File == s.File && q.Offset == s.Offset &&
			len(q.Bytes) == len(s.Bytes) && (len(s.Bytes) == 0 || &q.Bytes[0] == &s.Bytes[0])
	})
}

// acquire returns an instance for the kernel and the segments that the
// arguments name: an idle one, or a new one. Errors are *core.FaultError when
// the kernel or its arguments are at fault, and others when the system gave no memory.
func (e *Engine) acquire(k core.Kernel, entry string, space uint64, segments []engine.Segment) (*instance, error) {
	m, err := e.compiled(k)
	if err != nil {
		return nil, &core.FaultError{Cause: core.CauseKernel, Detail: err.Error()}
	}
	if err := m.info.CheckEntry(entry); err != nil {
		e.unuse(m)
		return nil, &core.FaultError{Cause: core.CauseKernel, Detail: err.Error()}
	}
	if inst := e.takeIdle(m, space, segments); inst != nil {
		e.unuse(m) // the instance counts as one user itself
		return inst, nil
	}
	inst := &instance{module: m, engine: e, space: space}
	if err := inst.build(segments); err != nil {
		if inst.memory != nil && inst.memory.failure() != nil {
			err = inst.memory.failure()
		}
		inst.close()
		return nil, err
	}
	return inst, nil
}

func (e *Engine) takeIdle(m *module, space uint64, segments []engine.Segment) *instance {
	e.mu.Lock()
	defer e.mu.Unlock()
	list := e.mu.instances[space]
	for i, inst := range list {
		if inst.same(m, segments) {
			e.mu.instances[space] = slices.Delete(list, i, i+1)
			e.mu.idle--
			return inst
		}
	}
	return nil
}

// giveBack keeps the instance for the next dispatch, or closes it when dirty.
func (e *Engine) giveBack(inst *instance, dirty bool) {
	if dirty {
		inst.close()
		return
	}
	e.mu.Lock()
	if e.mu.closed {
		e.mu.Unlock()
		inst.close()
		return
	}
	e.mu.clock++
	inst.used = e.mu.clock
	e.mu.instances[inst.space] = append(e.mu.instances[inst.space], inst)
	e.mu.idle++
	var old *instance
	if e.mu.idle > instancesMax {
		old = e.takeOldest()
	}
	e.mu.Unlock()
	if old != nil {
		old.close()
	}
}

// takeOldest removes the least recently used idle instance; the caller holds the lock.
func (e *Engine) takeOldest() *instance {
	var old *instance
	for _, list := range e.mu.instances {
		for _, inst := range list {
			if old == nil || inst.used < old.used {
				old = inst
			}
		}
	}
	list := e.mu.instances[old.space]
	i := slices.Index(list, old)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(e.mu.instances, old.space)
	} else {
		e.mu.instances[old.space] = list
	}
	e.mu.idle--
	return old
}

// build lays out and fills the linear memory, then makes the workers.
func (i *instance) build(segments []engine.Segment) error {
	info, limit := i.module.info, min(i.module.info.MemoryMax, i.engine.config.MemoryMax)
	var bufferBytes uint64
	for _, s := range segments {
		bufferBytes += align(s.Size)
	}
	workers := 1
	if info.Cores {
		workers = i.engine.config.Cores
	}
	for workers > 1 && info.layoutSize(workers, bufferBytes) > limit {
		workers--
	}
	size := info.layoutSize(workers, bufferBytes)
	if size > limit {
		return memoryFault("the kernel and its buffers need %d bytes, its memory ends at %d", size, limit)
	}
	var err error
	if i.memory, err = reserve(limit); err != nil {
		return err
	}
	memory, err := i.instantiate()
	if err != nil {
		return err
	}
	if memory == nil {
		return &core.FaultError{Cause: core.CauseKernel, Detail: "the module's memory is not exported"}
	}
	have, _ := memory.Grow(0)
	if _, ok := memory.Grow(uint32(size/pageSize) - have); !ok {
		return memoryFault("grow the kernel's memory from %d to %d bytes", uint64(have)*pageSize, size)
	}
	i.place(segments, workers)
	return i.addWorkers(workers)
}

func memoryFault(format string, args ...any) error {
	return &core.FaultError{Cause: core.CauseMemory, Detail: fmt.Sprintf(format, args...)}
}

// instantiate makes the memory: that of module env, or of the kernel itself,
// which then is the first and only worker.
func (i *instance) instantiate() (api.Memory, error) {
	ctx := experimental.WithMemoryAllocator(i.engine.ctx, i.memory)
	code := i.module.code
	if i.module.env != nil {
		code = i.module.env
	}
	mod, err := i.engine.runtime.InstantiateModule(ctx, code, moduleConfig())
	if err != nil {
		return nil, kernelFault("instantiate", err)
	}
	if i.module.env == nil {
		i.workers = []api.Module{mod}
		return mod.ExportedMemory(i.module.info.owned), nil
	}
	i.env = mod
	return mod.ExportedMemory("memory"), nil
}

func moduleConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").WithStartFunctions()
}

func kernelFault(verb string, err error) error {
	return &core.FaultError{Cause: core.CauseKernel, Detail: verb + ": " + firstLine(err)}
}

// place decides where the arguments and segments stand and maps what can be mapped.
func (i *instance) place(segments []engine.Segment, workers int) {
	i.argsAt = i.module.info.base
	at := i.module.info.layoutSize(workers, 0)
	for _, s := range segments {
		i.placed = append(i.placed, placed{segment: s, at: at, mapped: i.memory.mapFile(at, s)})
		at += align(s.Size)
	}
}

// addWorkers instantiates the kernel once per worker onto the shared memory,
// each with a stack of its own. The first keeps the stack the linker gave it.
func (i *instance) addWorkers(n int) error {
	ctx := experimental.WithImportResolver(i.engine.ctx, func(name string) api.Module {
		if name == "env" {
			return i.env
		}
		return nil
	})
	info := i.module.info
	for len(i.workers) < n {
		mod, err := i.engine.runtime.InstantiateModule(ctx, i.module.code, moduleConfig())
		if err != nil {
			return kernelFault("instantiate", err)
		}
		w := len(i.workers)
		i.workers = append(i.workers, mod)
		if w == 0 || info.stack == 0 {
			continue
		}
		sp, ok := mod.ExportedGlobal("__stack_pointer").(api.MutableGlobal)
		if !ok {
			return kernelFault("instantiate", fmt.Errorf("__stack_pointer is not a mutable global"))
		}
		// Stacks grow down from their end: worker w's ends where w's region does.
		sp.Set(i.argsAt + pageSize + uint64(w)*(pageSize+info.stack))
	}
	return nil
}

// copyIn and copyOut serve the segments that could not be mapped.
func (i *instance) copyIn() {
	for _, p := range i.placed {
		if !p.mapped {
			copy(i.memory.bytes[p.at:p.at+p.segment.Size], p.segment.Bytes)
		}
	}
}

func (i *instance) copyOut() {
	for _, p := range i.placed {
		if !p.mapped {
			copy(p.segment.Bytes, i.memory.bytes[p.at:p.at+p.segment.Size])
		}
	}
}

// close frees memory and instances; nothing runs in it.
func (i *instance) close() {
	ctx := context.Background()
	for _, w := range i.workers {
		_ = w.Close(ctx)
	}
	if i.env != nil {
		_ = i.env.Close(ctx)
	}
	if i.memory != nil {
		i.memory.Free()
	}
	i.engine.unuse(i.module)
}
