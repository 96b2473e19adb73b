package wasm

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

func inspect(t *testing.T, name string) Info {
	t.Helper()
	in, err := Inspect(kernel(t, name).Code)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestInspect(t *testing.T) {
	in := inspect(t, "basic")
	if !slices.Equal(in.Entries, []string{"echo", "fill", "spin", "step"}) || in.Own || !in.Cores || in.MemoryMax != memoryLimit {
		t.Errorf("basic: %+v", in)
	}
	if want := []core.ArgKind{core.ArgBuffer, core.ArgBuffer, core.ArgU64}; !slices.Equal(in.Declared["fill"], want) {
		t.Errorf("fill declares %v", in.Declared["fill"])
	}
	if in.stack < 64<<10 || in.base%pageSize != 0 || in.base == 0 {
		t.Errorf("stack of %d bytes, base at %d", in.stack, in.base)
	}
	if own := inspect(t, "own"); !own.Own || own.Cores {
		t.Errorf("own: %+v", own)
	}
	if faults := inspect(t, "faults"); faults.MemoryMax != 4<<20 {
		t.Errorf("faults: %+v", faults)
	}
}

func TestInspectRefuses(t *testing.T) {
	head := "\x00asm\x01\x00\x00\x00"
	types := "\x01\x08\x01\x60\x04\x7f\x7f\x7f\x7f\x00" // one type: (i32 i32 i32 i32) -> ()
	env := "\x02\x10\x01\x03env\x06memory\x02\x03\x01\x10"
	function := "\x03\x02\x01\x00"
	export := "\x07\x05\x01\x01k\x00\x00"
	code := "\x0a\x04\x01\x02\x00\x0b"
	for _, c := range []struct{ name, module, want string }{
		{"empty", "", "not a wasm module"},
		{"text", "#include <gpuwm.h>", "not a wasm module"},
		{"cut", head + types[:5], ""},
		{"more globals than bytes", head + "\x06\x05\xff\xff\xff\xff\x0f", "4294967295 items in 0 bytes"},
		{"more parameters than bytes", head + "\x01\x07\x01\x60\xff\xff\xff\xff\x0f", "4294967295 items in 0 bytes"},
		{"locals without end", head + "\x0a\x09\x01\x07\x01\xff\xff\xff\xff\x0f\x7f", "more than 50000 locals"},
		{"long data", head + "\x0b\x07\x01\x01\xff\xff\xff\xff\x0f", "module ends early"},
		{"large table", head + "\x04\x08\x01\x70\x00\xff\xff\xff\xff\x0f", "table of 4294967295 entries"},
		{"no memory", head + types + function + export + code, "neither imports env.memory nor exports a memory"},
		{"no heap base", head + types + env + function + export + code, "does not export __heap_base"},
		{"foreign import", head + types + "\x02\x09\x01\x01a\x03log\x00\x00" + function + code, "imports a.log"},
		{"no entry", head + "\x05\x03\x01\x00\x01" + "\x07\x05\x01\x01m\x02\x00", "exports no entry point"},
		{"declared only", head + "\x05\x03\x01\x00\x01" + "\x07\x05\x01\x01m\x02\x00" + custom("ghost u32\n"), "ghost is declared but not exported"},
		{"unknown kind", head + "\x05\x03\x01\x00\x01" + "\x07\x05\x01\x01m\x02\x00" + custom("k u128\n"), `unknown kind "u128"`},
		{"declared twice", head + "\x05\x03\x01\x00\x01" + "\x07\x05\x01\x01m\x02\x00" + custom("k\nk\n"), "declared twice"},
	} {
		_, err := Inspect([]byte(c.module))
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func custom(text string) string {
	return string(append([]byte{0, byte(len(text) + 6), 5}, "gpuwm"+text...))
}

func TestCheckJob(t *testing.T) {
	in, small := inspect(t, "basic"), inspect(t, "faults")
	b := core.Arg{Kind: core.ArgBuffer, Buffer: "b"}
	u64, u32 := core.Arg{Kind: core.ArgU64}, core.Arg{Kind: core.ArgU32}
	if err := in.CheckJob("fill", []core.Arg{b, b, u64}, 1<<30); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		in     Info
		entry  string
		args   []core.Arg
		buffer uint64
		want   string
	}{
		{in, "fil", nil, 0, `no entry "fil"; it has echo, fill, spin, step`},
		{in, "fill", []core.Arg{b, b}, 0, "entry fill takes 3 arguments (buffer buffer u64), got 2"},
		{in, "fill", []core.Arg{b, b, u32}, 0, "argument 3 of entry fill is a u64, got u32"},
		{in, "fill", []core.Arg{b, b, u64}, 1 << 32, "buffers of 4294967296 bytes do not fit"},
		{in, "fill", []core.Arg{b, b, u64}, 1<<64 - 1, "do not fit"},
		{small, "hungry", []core.Arg{b}, 4 << 20, "the kernel's memory ends at 4194304 bytes"},
	} {
		err := c.in.CheckJob(c.entry, c.args, c.buffer)
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.entry, err, c.want)
		}
	}
}

// TestCheckJobAgreesWithTheEngine: what just fits by CheckJob runs, 64 KiB more does not.
func TestCheckJobAgreesWithTheEngine(t *testing.T) {
	in := inspect(t, "faults")
	args := []core.Arg{{Kind: core.ArgBuffer}, {Kind: core.ArgU32}}
	size := uint64(pageSize)
	for in.CheckJob("trap", args, size+pageSize) == nil {
		size += pageSize
	}
	e := newEngine(t, Config{})
	for _, fits := range []bool{true, false} {
		segments := arena(t, false, size)
		d := engine.Dispatch{Kernel: kernel(t, "faults"), Entry: "trap", Grid: [3]uint32{4, 1, 1}, Count: 4, Space: 1,
			Args: []engine.Arg{buffer(segments[0]), scalar(99)}, Segments: segments}
		if r := run(t, e, d); (r.Err == nil) != fits {
			t.Errorf("%d bytes: %+v, want fit %v", size, r, fits)
		}
		size += pageSize
	}
}

// FuzzInspect: no panic, whatever the bytes, and no error but core.ErrInvalid.
func FuzzInspect(f *testing.F) {
	for _, name := range []string{"basic", "faults", "own", "saxpy"} {
		b, err := os.ReadFile("testdata/" + name + ".wasm")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		if _, err := Inspect(code); err != nil && !errors.Is(err, core.ErrInvalid) {
			t.Errorf("error of another kind: %v", err)
		}
		if s, err := parse(code); err == nil && len(code) >= 8 {
			_, _ = declarations(s.declared)
			_ = stackSize(s)
		}
	})
}
