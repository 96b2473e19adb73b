package check

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
)

const page = 64 << 10

func kernel(t testing.TB, name string) core.Kernel {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("..", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
}

// segments makes buffers of the given sizes that can be mapped.
func segments(t testing.TB, sizes ...int) []engine.Segment {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "memory")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	var list []engine.Segment
	var at int
	for _, size := range sizes {
		size = (size + page - 1) / page * page
		if err := f.Truncate(int64(at + size)); err != nil {
			t.Fatal(err)
		}
		b, err := syscall.Mmap(int(f.Fd()), int64(at), size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Munmap(b) })
		list = append(list, engine.Segment{Address: uint64(page + at), Size: uint64(size), Bytes: b, File: int(f.Fd()), Offset: int64(at)})
		at += size
	}
	return list
}

func words(s engine.Segment) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(&s.Bytes[0])), len(s.Bytes)/8)
}

func buffer(s engine.Segment) engine.Arg { return engine.Arg{Buffer: true, Bits: s.Address} }
func scalar(v uint64) engine.Arg         { return engine.Arg{Bits: v} }

// run executes the whole grid in one dispatch.
func run(t testing.TB, cores int, d engine.Dispatch) {
	t.Helper()
	e, err := wasm.New(wasm.Config{Cores: cores})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	d.Count = uint64(d.Grid[0]) * uint64(d.Grid[1]) * uint64(d.Grid[2])
	over := make(chan struct{})
	x, err := e.Start(d, func() { close(over) })
	if err != nil {
		t.Fatal(err)
	}
	<-over
	if r := x.Result(); r.Err != nil || r.Done != d.Count {
		t.Fatalf("done %d of %d: %v", r.Done, d.Count, r.Err)
	}
}
