package wasm

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gpuwm/gpuwm/core"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const features = api.CoreFeaturesV2 | experimental.CoreFeaturesThreads

// Info is what a kernel says of itself.
type Info struct {
	// Entries are the entry points, sorted; Declared has the argument kinds of
	// those that the kernel declares.
	Entries  []string
	Declared map[string][]core.ArgKind
	// Own says that the module has a memory of its own and runs on one core.
	Own bool
	// Cores says that its workgroups can run on several cores.
	Cores bool
	// MemoryMin and MemoryMax are the limits of its linear memory in bytes.
	MemoryMin, MemoryMax uint64

	base  uint64 // first address that is the engine's
	stack uint64 // size of a worker's stack, 0 when it has none in memory
	owned string // export name of the own memory
	// shared is what the imported memory is declared as.
	shared bool
}

// Inspect reads a module and checks that it keeps to the kernel contract. It
// runs nothing. Errors wrap core.ErrInvalid.
func Inspect(code []byte) (Info, error) {
	if !bytes.HasPrefix(code, []byte("\x00asm")) {
		return Info{}, fmt.Errorf("%w: this is not a wasm module", core.ErrInvalid)
	}
	code, err := guard(code)
	if err != nil {
		return Info{}, err
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(features))
	defer r.Close(ctx)
	m, err := r.CompileModule(ctx, code)
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", core.ErrInvalid, err)
	}
	return describe(code, m)
}

// describe joins what wazero and parse know of a valid module.
func describe(code []byte, m wazero.CompiledModule) (Info, error) {
	s, err := parse(code)
	if err != nil {
		return Info{}, err
	}
	if len(s.foreign) > 0 {
		return Info{}, fmt.Errorf("%w: the module imports %s; a kernel imports env.memory only", core.ErrInvalid, strings.Join(s.foreign, ", "))
	}
	in := Info{Cores: !s.hiddenStack()}
	switch {
	case s.imported != nil && s.own == nil:
		in.shared = s.imported.shared
		in.Cores = in.Cores && in.shared
		in.MemoryMin, in.MemoryMax = s.imported.min*pageSize, s.imported.max*pageSize
	case s.own != nil && s.memoryExport != "":
		in.Own, in.Cores, in.owned = true, false, s.memoryExport
		in.MemoryMin, in.MemoryMax = s.own.min*pageSize, s.own.max*pageSize
	default:
		return Info{}, fmt.Errorf("%w: the module neither imports env.memory nor exports a memory", core.ErrInvalid)
	}
	heap, found := s.exported("__heap_base")
	if !in.Own && (!found || !heap.known) {
		return Info{}, fmt.Errorf("%w: the module does not export __heap_base", core.ErrInvalid)
	}
	in.base = align(max(uint64(heap.value), in.MemoryMin))
	in.stack = stackSize(s)
	if in.Declared, err = declarations(s.declared); err != nil {
		return Info{}, err
	}
	for name, f := range m.ExportedFunctions() {
		if isEntry(f) {
			in.Entries = append(in.Entries, name)
		} else if in.Declared[name] != nil {
			return Info{}, fmt.Errorf("%w: entry %s %s", core.ErrInvalid, name, wrongSignature)
		}
	}
	slices.Sort(in.Entries)
	for name := range maps.Keys(in.Declared) {
		if !slices.Contains(in.Entries, name) {
			return Info{}, fmt.Errorf("%w: entry %s is declared but not exported", core.ErrInvalid, name)
		}
	}
	if len(in.Entries) == 0 {
		return Info{}, fmt.Errorf("%w: the module exports no entry point: no function %s", core.ErrInvalid, signature)
	}
	return in, nil
}

const (
	signature      = "(args: i32, group_x: i32, group_y: i32, group_z: i32)"
	wrongSignature = "does not have the signature " + signature
	// stackDefault serves modules that do not say how large their stack is.
	stackDefault = 256 << 10
)

// stackSize finds how large the module's own stack is: wasm-ld puts it between
// __data_end and the initial __stack_pointer, or below everything.
func stackSize(s *shape) uint64 {
	sp, found := s.exported("__stack_pointer")
	if !found || !sp.mutable {
		return 0
	}
	end, found := s.exported("__data_end")
	switch {
	case !found || !end.known || !sp.known:
		return stackDefault
	case sp.value > end.value:
		return align(uint64(sp.value - end.value))
	}
	return align(uint64(sp.value))
}

func isEntry(f api.FunctionDefinition) bool {
	p := f.ParamTypes()
	return len(f.ResultTypes()) == 0 && len(p) == 4 &&
		!slices.ContainsFunc(p, func(t api.ValueType) bool { return t != api.ValueTypeI32 })
}

func align(n uint64) uint64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// CheckEntry reports whether there is such an entry point; the error lists those there are.
func (in Info) CheckEntry(entry string) error {
	if slices.Contains(in.Entries, entry) {
		return nil
	}
	return fmt.Errorf("%w: the kernel has no entry %q; it has %s", core.ErrInvalid, entry, strings.Join(in.Entries, ", "))
}

// CheckJob reports whether a job of these arguments can run. bufferBytes is the
// size of all buffers that its arguments name, each rounded up to 64 KiB.
// Errors wrap core.ErrInvalid and are one sentence for a user.
func (in Info) CheckJob(entry string, args []core.Arg, bufferBytes uint64) error {
	if err := in.CheckEntry(entry); err != nil {
		return err
	}
	if len(args) > argsMax {
		return fmt.Errorf("%w: %d arguments, at most %d", core.ErrInvalid, len(args), argsMax)
	}
	if kinds, declared := in.Declared[entry]; declared {
		if len(kinds) != len(args) {
			return fmt.Errorf("%w: entry %s takes %d arguments (%s), got %d", core.ErrInvalid, entry, len(kinds), join(kinds), len(args))
		}
		for i, want := range kinds {
			if args[i].Kind != want {
				return fmt.Errorf("%w: argument %d of entry %s is a %s, got %s", core.ErrInvalid, i+1, entry, want, args[i].Kind)
			}
		}
	}
	limit := min(in.MemoryMax, memoryLimit)
	if used := in.layoutSize(1, 0); used > limit || bufferBytes > limit-used {
		return fmt.Errorf("%w: buffers of %d bytes do not fit: the kernel's memory ends at %d bytes, of which it uses %d itself",
			core.ErrInvalid, bufferBytes, limit, min(used, limit))
	}
	return nil
}

func join(kinds []core.ArgKind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, " ")
}

// layoutSize is the size of the linear memory for so many workers and bytes of buffers.
func (in Info) layoutSize(workers int, bufferBytes uint64) uint64 {
	size := in.base + pageSize
	if in.stack > 0 {
		size += uint64(workers-1) * (pageSize + in.stack)
	}
	return size + pageSize + bufferBytes
}
