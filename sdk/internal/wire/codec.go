package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/gpuwm/gpuwm/core"
)

// reader takes a packed message apart. After the first error every method
// returns a zero value, and err says what was wrong.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("decode %s: %w", what, core.ErrCorrupt)
	}
	r.b = nil
}

func (r *reader) byte(what string) byte {
	if len(r.b) == 0 {
		r.fail(what)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) uvarint(what string) uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := uint64(r.b[0])
		r.b = r.b[1:]
		return v
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail(what)
		return 0
	}
	r.b = r.b[n:]
	return v
}

// within reads a uvarint of at most limit.
func (r *reader) within(what string, limit uint64) uint64 {
	v := r.uvarint(what)
	if v > limit {
		r.fail(what)
		return 0
	}
	return v
}

// id reads a uvarint that is not zero.
func (r *reader) id(what string) uint64 {
	v := r.uvarint(what)
	if v == 0 {
		r.fail(what)
	}
	return v
}

func (r *reader) duration(what string) time.Duration {
	return time.Duration(r.within(what, math.MaxInt64))
}

// blob returns a slice of the message, valid as long as the message is.
func (r *reader) blob(what string, limit int) []byte {
	n := r.within(what, uint64(limit))
	if uint64(len(r.b)) < n {
		r.fail(what)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// text is blob for UTF-8.
func (r *reader) text(what string, limit int) []byte {
	v := r.blob(what, limit)
	if !utf8.Valid(v) {
		r.fail(what)
		return nil
	}
	return v
}

func (r *reader) str(what string, limit int) string { return string(r.text(what, limit)) }

func (r *reader) digest(what string) (d core.Digest) {
	if len(r.b) < len(d) {
		r.fail(what)
		return d
	}
	copy(d[:], r.b)
	r.b = r.b[len(d):]
	return d
}

// count reads a number of things that take at least one byte each.
func (r *reader) count(what string, limit int) int {
	n := r.within(what, uint64(limit))
	if n > uint64(len(r.b)) {
		r.fail(what)
		return 0
	}
	return int(n)
}

// items reads the count of a batch, which has at least one item.
func (r *reader) items(what string) int {
	n := r.count(what, BatchCount)
	if n == 0 {
		r.fail(what)
	}
	return n
}

// end reports the first error, or that bytes are left over.
func (r *reader) end(what string) error {
	if r.err == nil && len(r.b) != 0 {
		r.fail(what)
	}
	return r.err
}

// extend appends n zero values to list. Memory that is allocated is zero
// already, and clearing it again would cost as much as the rest of a decoder.
func extend[T any](list []T, n int) []T {
	old := len(list)
	if cap(list)-old < n {
		grown := make([]T, old+n)
		copy(grown, list)
		return grown
	}
	list = list[:old+n]
	clear(list[old:])
	return list
}

func appendStr(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBlob(b, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// Cut shortens a sentence to ErrorMax bytes of valid UTF-8.
func Cut(s string) string {
	if len(s) > ErrorMax {
		s = s[:ErrorMax]
		for len(s) > 0 && !utf8.RuneStart(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) > 0 && s[len(s)-1] >= utf8.RuneSelf {
			s = s[:len(s)-1]
		}
	}
	if utf8.ValidString(s) {
		return s
	}
	valid := make([]rune, 0, len(s))
	for _, c := range s {
		if c != utf8.RuneError {
			valid = append(valid, c)
		}
	}
	return string(valid)
}
