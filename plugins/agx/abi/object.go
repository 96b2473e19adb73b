package abi

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// field is one place in a structure. size is 1, 2, 4 or 8 bytes, or 0 when the
// version does not have it.
type field struct {
	name      string
	off, size uint32
}

// constant is a place that always holds the same.
type constant struct {
	off, size uint32
	value     uint64
}

// record is the layout of one structure in one version. Its fields have the
// same order in all versions. Bytes that no field and no constant names are 0.
type record struct {
	name      string
	size      uint32
	fields    []field
	constants []constant
}

// Object is a structure or message with a layout. The pointer types of this
// package implement it.
type Object interface {
	// layout returns the table and pointers to the values, in the table's order.
	layout(a *ABI) (*record, []any)
}

// Size returns how many bytes an object takes.
func (a *ABI) Size(o Object) uint32 {
	r, _ := o.layout(a)
	return r.size
}

// Offset returns where a field of an object lies, by its name in the table, and
// its size; false when this version does not have it.
func (a *ABI) Offset(o Object, name string) (off, size uint32, ok bool) {
	r, _ := o.layout(a)
	for _, f := range r.fields {
		if f.name == name && f.size > 0 {
			return f.off, f.size, true
		}
	}
	return 0, 0, false
}

// Encode writes an object into the first Size bytes of b. Errors are *WireError.
func (a *ABI) Encode(b []byte, o Object) error {
	r, values := o.layout(a)
	if uint64(len(b)) < uint64(r.size) {
		return wire(r.name, "%d bytes, want %d", len(b), r.size)
	}
	r.encode(b[:r.size], values)
	return nil
}

// Bytes is Encode into new memory.
func (a *ABI) Bytes(o Object) []byte {
	r, values := o.layout(a)
	b := make([]byte, r.size)
	r.encode(b, values)
	return b
}

// Decode reads an object from the first Size bytes of b, which may be changing:
// it is copied once. What Encode cannot produce is refused. Errors are
// *WireError; o is undefined then.
func (a *ABI) Decode(b []byte, o Object) error {
	r, values := o.layout(a)
	if uint64(len(b)) < uint64(r.size) {
		return wire(r.name, "%d bytes, want %d", len(b), r.size)
	}
	both := make([]byte, 2*r.size)
	have, want := both[:r.size], both[r.size:]
	copy(have, b)
	for i, f := range r.fields {
		if f.size > 0 {
			assign(values[i], get(have[f.off:], f.size))
		}
	}
	r.encode(want, values)
	for i := range have {
		if have[i] != want[i] {
			return wire(r.name, "byte %#x is %#02x, want %#02x", i, have[i], want[i])
		}
	}
	return nil
}

// encode writes everything into b, which has the record's size.
func (r *record) encode(b []byte, values []any) {
	clear(b)
	for _, c := range r.constants {
		put(b[c.off:], c.size, c.value)
	}
	for i, f := range r.fields {
		if f.size > 0 {
			put(b[f.off:], f.size, value(values[i]))
		}
	}
}

// Text shows an object on one line: its name and the fields that are not 0.
func (a *ABI) Text(o Object) string {
	r, values := o.layout(a)
	var b strings.Builder
	b.WriteString(r.name)
	for i, f := range r.fields {
		v := value(values[i]) & (1<<(8*f.size) - 1)
		if f.size == 0 || v == 0 {
			continue
		}
		if s, ok := values[i].(*int32); ok {
			fmt.Fprintf(&b, " %s=%d", f.name, *s)
		} else if v < 10 {
			fmt.Fprintf(&b, " %s=%d", f.name, v)
		} else {
			fmt.Fprintf(&b, " %s=%#x", f.name, v)
		}
	}
	return b.String()
}

func get(b []byte, size uint32) uint64 {
	switch size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func put(b []byte, size uint32, v uint64) {
	switch size {
	case 1:
		b[0] = uint8(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
}

// assign stores v behind a pointer to a value of an object.
func assign(p any, v uint64) {
	switch p := p.(type) {
	case *uint8:
		*p = uint8(v)
	case *uint16:
		*p = uint16(v)
	case *uint32:
		*p = uint32(v)
	case *int32:
		*p = int32(uint32(v))
	case *uint64:
		*p = v
	case *VA:
		*p = VA(v)
	case *bool:
		*p = v != 0
	}
}

// value is what stands behind a pointer to a value of an object.
func value(p any) uint64 {
	switch p := p.(type) {
	case *uint8:
		return uint64(*p)
	case *uint16:
		return uint64(*p)
	case *uint32:
		return uint64(*p)
	case *int32:
		return uint64(uint32(*p))
	case *uint64:
		return *p
	case *VA:
		return uint64(*p)
	case *bool:
		if *p {
			return 1
		}
	}
	return 0
}
