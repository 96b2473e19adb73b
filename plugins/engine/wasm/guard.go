package wasm

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// Limits of a module, far beyond what compilers make.
const (
	codeMax   = 64 << 20 // bytes of the module
	localsMax = 50_000   // locals of a function
	tableMax  = 1 << 20  // initial entries of a table
)

// The other sections that guard knows (see parse.go).
const (
	sectionType    = 1
	sectionTable   = 4
	sectionElement = 9
	sectionCode    = 10
	sectionData    = 11

	sectionStart     = 8
	sectionDataCount = 12
)

// guard returns the module without its debug names, or refuses it when it
// claims more items than it has bytes. wazero makes room for all of a vector
// before it reads the first, so that a file of a few bytes would end the process
// for lack of memory. Whether the module is valid is not looked at here.
func guard(code []byte) ([]byte, error) {
	if len(code) > codeMax {
		return nil, fmt.Errorf("%w: module of %d bytes, at most %d", core.ErrInvalid, len(code), codeMax)
	}
	r := &reader{b: code}
	kept := append(make([]byte, 0, len(code)), r.take(8)...)
	for len(r.b) > 0 {
		start := r.b
		id := r.byte()
		body := &reader{b: r.take(r.uint())}
		if r.err != nil {
			break
		}
		if id == sectionCustom && body.name() == "name" {
			continue
		}
		guardSection(id, body)
		if body.err != nil {
			return nil, fmt.Errorf("%w: section %d: %w", core.ErrInvalid, id, body.err)
		}
		kept = append(kept, start[:len(start)-len(r.b)]...)
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: %w", core.ErrInvalid, r.err)
	}
	return kept, nil
}

// guardSection walks the items of a section as far as they have counts in them.
func guardSection(id byte, r *reader) {
	if id == sectionCustom || id == sectionStart || id == sectionDataCount {
		return
	}
	var item func(*reader)
	switch id {
	case sectionType:
		item = guardType
	case sectionImport:
		new(shape).imports(r)
		return
	case sectionTable:
		item = guardTable
	case sectionGlobal:
		item = func(r *reader) { r.global() }
	case sectionExport:
		(&shape{globalExport: make(map[string]uint32)}).exports(r)
		return
	case sectionElement:
		item = guardElement
	case sectionCode:
		item = guardFunction
	case sectionData:
		item = guardData
	}
	n := r.count()
	for ; n > 0 && item != nil && r.err == nil; n-- {
		item(r)
	}
}

// count reads the length of a vector, each item of which takes a byte or more.
func (r *reader) count() uint64 {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.fail(fmt.Errorf("%d items in %d bytes", n, len(r.b)))
		return 0
	}
	return n
}

func guardType(r *reader) {
	const function = 0x60
	if form := r.byte(); form != function {
		r.fail(fmt.Errorf("type of form %#x", form))
	}
	for range 2 { // parameters, results
		for n := r.count(); n > 0; n-- {
			r.valueType()
		}
	}
}

// valueType reads a type of one byte; those that go on come with proposals
// that are switched off.
func (r *reader) valueType() {
	if t := r.byte(); t == 0x63 || t == 0x64 {
		r.fail(fmt.Errorf("value type %#x", t))
	}
}

func guardTable(r *reader) {
	r.valueType()
	if l := r.limits(); l.min > tableMax {
		r.fail(fmt.Errorf("table of %d entries, at most %d", l.min, tableMax))
	}
}

func guardElement(r *reader) {
	flags := r.uint()
	if flags&1 == 0 {
		if flags&2 != 0 {
			r.uint() // table
		}
		r.skipExpression()
	}
	if flags&3 != 0 {
		r.byte() // kind or type
	}
	for n := r.count(); n > 0 && r.err == nil; n-- {
		if flags&4 != 0 {
			r.skipExpression()
		} else {
			r.uint()
		}
	}
}

func guardFunction(r *reader) {
	body := &reader{b: r.take(r.uint())}
	var locals uint64
	for n := body.count(); n > 0 && body.err == nil; n-- {
		locals += min(body.uint(), localsMax+1)
		body.valueType()
		if locals > localsMax {
			body.fail(fmt.Errorf("more than %d locals in a function", localsMax))
		}
	}
	if body.err != nil {
		r.fail(body.err)
	}
}

func guardData(r *reader) {
	const passive, explicit = 1, 2
	flags := r.uint()
	if flags == explicit {
		r.uint() // memory
	}
	if flags != passive {
		r.skipExpression()
	}
	r.take(r.uint())
}
