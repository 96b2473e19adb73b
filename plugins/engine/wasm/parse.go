package wasm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gpuwm/gpuwm/core"
)

// Section numbers and kinds of the binary format (WebAssembly core 2.0, 5.5).
const (
	sectionCustom = 0
	sectionImport = 2
	sectionMemory = 5
	sectionGlobal = 6
	sectionExport = 7

	externFunc   = 0
	externTable  = 1
	externMemory = 2
	externGlobal = 3

	typeI32      = 0x7f
	opI32Const   = 0x41
	opEnd        = 0x0b
	limitsMax    = 1
	limitsShared = 2
)

// customName is the section in which a kernel declares its arguments.
const customName = "gpuwm"

// limits are those of a memory, in pages.
type limits struct {
	min, max uint64
	shared   bool
}

// global is a global defined in the module; value is valid when known is.
type global struct {
	i32, mutable, known bool
	value               uint32
}

// shape is what the engine needs to know of a module beyond what wazero tells.
type shape struct {
	imported, own *limits
	// memoryExport is the name under which the own memory is exported.
	memoryExport string
	foreign      []string // imports that no kernel can have
	globals      []global
	globalExport map[string]uint32
	declared     string
}

var errTruncated = errors.New("module ends early")

// reader walks the binary format; the first error sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) byte() byte {
	b := r.take(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail(errTruncated)
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// uint reads an unsigned LEB128 number of up to 32 bits, 64 for limits of a memory.
func (r *reader) uint() uint64 {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		c := r.byte()
		v |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return v
		}
	}
	r.fail(errors.New("number too long"))
	return 0
}

func (r *reader) int32() int32 {
	var v int64
	for shift := 0; shift < 35; shift += 7 {
		c := r.byte()
		v |= int64(c&0x7f) << shift
		if c&0x80 == 0 {
			if shift += 7; c&0x40 != 0 {
				v |= -1 << shift
			}
			return int32(v)
		}
	}
	r.fail(errors.New("number too long"))
	return 0
}

func (r *reader) name() string { return string(r.take(r.uint())) }

func (r *reader) limits() limits {
	flags := r.byte()
	l := limits{min: r.uint(), max: memoryLimit / pageSize, shared: flags&limitsShared != 0}
	if flags&limitsMax != 0 {
		l.max = min(l.max, r.uint())
	}
	return l
}

// parse reads the sections that matter. code was validated by wazero before,
// so that what it cannot read is only ever something new in the format.
func parse(code []byte) (*shape, error) {
	r := &reader{b: code}
	r.take(8)
	s := &shape{globalExport: make(map[string]uint32)}
	for len(r.b) > 0 && r.err == nil {
		id := r.byte()
		body := &reader{b: r.take(r.uint())}
		switch id {
		case sectionCustom:
			if body.name() == customName {
				s.declared += string(body.b)
			}
		case sectionImport:
			s.imports(body)
		case sectionMemory:
			for range min(body.uint(), 1) {
				l := body.limits()
				s.own = &l
			}
		case sectionGlobal:
			for n := body.uint(); n > 0 && body.err == nil; n-- {
				s.globals = append(s.globals, body.global())
			}
		case sectionExport:
			s.exports(body)
		}
		if body.err != nil {
			r.fail(fmt.Errorf("section %d: %w", id, body.err))
		}
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", core.ErrInvalid, r.err)
	}
	return s, nil
}

func (s *shape) imports(r *reader) {
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		module, name := r.name(), r.name()
		kind := r.byte()
		switch kind {
		case externFunc:
			r.uint()
		case externTable:
			r.byte()
			r.limits()
		case externMemory:
			l := r.limits()
			if module == "env" && name == "memory" {
				s.imported = &l
				continue
			}
		case externGlobal:
			r.take(2)
		default:
			r.fail(fmt.Errorf("import of kind %d", kind))
		}
		s.foreign = append(s.foreign, module+"."+name)
	}
}

// global reads one definition; only constants of type i32 have a known value.
func (r *reader) global() global {
	g := global{i32: r.byte() == typeI32, mutable: r.byte() == 1}
	if len(r.b) > 0 && r.b[0] == opI32Const && g.i32 {
		r.byte()
		g.value = uint32(r.int32())
		g.known = true
		if r.byte() == opEnd {
			return g
		}
		r.fail(errors.New("unexpected constant expression"))
	}
	g.known = false
	r.skipExpression()
	return g
}

// skipExpression passes a constant expression of any other kind.
func (r *reader) skipExpression() {
	for r.err == nil {
		switch op := r.byte(); op {
		case opEnd:
			return
		case opI32Const, 0x42, 0x23, 0xd2: // i32.const, i64.const, global.get, ref.func
			for r.err == nil && r.byte()&0x80 != 0 {
			}
		case 0x43: // f32.const
			r.take(4)
		case 0x44: // f64.const
			r.take(8)
		case 0xd0: // ref.null
			r.byte()
		case 0xfd: // v128.const
			r.uint()
			r.take(16)
		default:
			r.fail(fmt.Errorf("opcode %#x in a constant expression", op))
		}
	}
}

func (s *shape) exports(r *reader) {
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		name, kind, index := r.name(), r.byte(), r.uint()
		switch kind {
		case externMemory:
			s.memoryExport = name
		case externGlobal:
			s.globalExport[name] = uint32(index)
		}
	}
}

// exported returns the global exported under name; there are no imported ones.
func (s *shape) exported(name string) (global, bool) {
	i, found := s.globalExport[name]
	if !found || uint64(i) >= uint64(len(s.globals)) {
		return global{}, false
	}
	g := s.globals[i]
	return g, g.i32
}

// hiddenStack reports that the module may keep a stack whose pointer the
// engine cannot set: a mutable i32 global, and no exported __stack_pointer.
func (s *shape) hiddenStack() bool {
	if sp, found := s.exported("__stack_pointer"); found && sp.mutable {
		return false
	}
	tls, hasTLS := s.globalExport["__tls_base"]
	for i, g := range s.globals {
		if g.i32 && g.mutable && !(hasTLS && uint32(i) == tls) {
			return true
		}
	}
	return false
}

// declarations reads the custom section: entry name to argument kinds.
func declarations(text string) (map[string][]core.ArgKind, error) {
	entries := make(map[string][]core.ArgKind)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		kinds := make([]core.ArgKind, 0, len(words)-1)
		for _, w := range words[1:] {
			switch k := core.ArgKind(w); k {
			case core.ArgBuffer, core.ArgU32, core.ArgI32, core.ArgF32, core.ArgU64, core.ArgI64, core.ArgF64:
				kinds = append(kinds, k)
			default:
				return nil, fmt.Errorf("%w: entry %s declares an argument of unknown kind %q", core.ErrInvalid, words[0], w)
			}
		}
		if _, twice := entries[words[0]]; twice {
			return nil, fmt.Errorf("%w: entry %s is declared twice", core.ErrInvalid, words[0])
		}
		entries[words[0]] = kinds
	}
	return entries, nil
}
