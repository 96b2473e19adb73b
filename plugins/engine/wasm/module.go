package wasm

import (
	"encoding/binary"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/tetratelabs/wazero"
)

// modulesMax bounds the compiled kernels that an engine keeps while none uses them.
const modulesMax = 256

// module is a compiled kernel. Users are counted, since native code must not go
// while an instance can run it.
type module struct {
	digest core.Digest
	info   Info
	code   wazero.CompiledModule
	// env exports the memory that the kernel imports; nil when it has its own.
	env  wazero.CompiledModule
	uses int    // guarded by Engine.mu
	used uint64 // guarded by Engine.mu
}

// compiled returns the kernel compiled; the caller calls unuse. Two callers may
// compile the same kernel at once, one of the results is dropped.
func (e *Engine) compiled(k core.Kernel) (*module, error) {
	if k.Format != core.FormatWasm {
		return nil, fmt.Errorf("%w: kernel format %q", core.ErrUnsupported, k.Format)
	}
	if m := e.known(k.Digest); m != nil {
		return m, nil
	}
	if core.DigestOf(k.Code) != k.Digest {
		return nil, fmt.Errorf("%w: %w: the kernel's code does not have its digest", core.ErrInvalid, core.ErrCorrupt)
	}
	guarded, err := guard(k.Code)
	if err != nil {
		return nil, err
	}
	code, err := e.runtime.CompileModule(e.ctx, guarded)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", core.ErrInvalid, err)
	}
	m := &module{digest: k.Digest, code: code}
	if m.info, err = describe(guarded, code); err == nil && !m.info.Own {
		pages := min(m.info.MemoryMax, e.config.MemoryMax) / pageSize
		m.env, err = e.runtime.CompileModule(e.ctx, envModule(m.info.MemoryMin/pageSize, max(pages, m.info.MemoryMin/pageSize), m.info.shared))
	}
	if err != nil {
		m.close(e)
		return nil, err
	}
	e.mu.Lock()
	present, found := e.mu.modules[k.Digest]
	if !found {
		present = m
		e.mu.modules[k.Digest] = m
	}
	present.uses++
	e.mu.clock++
	present.used = e.mu.clock
	drop := e.oldModules()
	e.mu.Unlock()
	if found {
		drop = append(drop, m)
	}
	for _, old := range drop {
		old.close(e)
	}
	return present, nil
}

func (e *Engine) known(d core.Digest) *module {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.mu.modules[d]
	if m != nil {
		m.uses++
		e.mu.clock++
		m.used = e.mu.clock
	}
	return m
}

func (e *Engine) unuse(m *module) {
	e.mu.Lock()
	m.uses--
	e.mu.Unlock()
}

// oldModules takes the unused modules beyond the limit out of the map, the
// least recently used first. The caller holds the lock and closes them after.
func (e *Engine) oldModules() []*module {
	var drop []*module
	for len(e.mu.modules) > modulesMax {
		var oldest *module
		for _, m := range e.mu.modules {
			if m.uses == 0 && (oldest == nil || m.used < oldest.used) {
				oldest = m
			}
		}
		if oldest == nil {
			break
		}
		delete(e.mu.modules, oldest.digest)
		drop = append(drop, oldest)
	}
	return drop
}

// close frees the native code, which wazero counts by content: another module
// of the same bytes keeps it.
func (m *module) close(e *Engine) {
	_ = m.code.Close(e.ctx)
	if m.env != nil {
		_ = m.env.Close(e.ctx)
	}
}

// envModule is the whole of module `env`: a memory with these limits in pages,
// exported as `memory`.
//
//	00 61 73 6d 01 00 00 00     magic, version 1
//	05 len 01 flags min max     memory section: one memory; flags: 1 has a maximum, 2 shared
//	07 0a 01 06 "memory" 02 00  export section: memory 0
func envModule(minPages, maxPages uint64, shared bool) []byte {
	flags := byte(limitsMax)
	if shared {
		flags |= limitsShared
	}
	limits := binary.AppendUvarint(binary.AppendUvarint([]byte{1, flags}, minPages), maxPages)
	b := []byte{0, 'a', 's', 'm', 1, 0, 0, 0, sectionMemory, byte(len(limits))}
	b = append(b, limits...)
	b = append(b, sectionExport, 10, 1, 6)
	return append(append(b, "memory"...), externMemory, 0)
}
