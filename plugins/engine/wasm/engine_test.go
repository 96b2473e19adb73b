package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/plugins/engine"
)

const spaceBase = 0x1_0000_0000

func kernel(t testing.TB, name string) core.Kernel {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("testdata", name+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
}

func newEngine(t testing.TB, c Config) *Engine {
	t.Helper()
	e, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// arena makes segments of the given sizes, one after another in the address
// space, in one memory file; without files when copied is set.
func arena(t testing.TB, copied bool, sizes ...uint64) []engine.Segment {
	t.Helper()
	var total uint64
	for _, s := range sizes {
		total += s
	}
	f, err := os.CreateTemp(t.TempDir(), "arena")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(total)); err != nil {
		t.Fatal(err)
	}
	b, err := syscall.Mmap(int(f.Fd()), 0, int(total), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(b); _ = f.Close() })
	var segments []engine.Segment
	var at uint64
	for _, s := range sizes {
		file := int(f.Fd())
		if copied {
			file = -1
		}
		segments = append(segments, engine.Segment{Address: spaceBase + at, Size: s, Bytes: b[at : at+s], File: file, Offset: int64(at)})
		at += s
	}
	return segments
}

func buffer(s engine.Segment) engine.Arg { return engine.Arg{Buffer: true, Bits: s.Address} }
func scalar(bits uint64) engine.Arg      { return engine.Arg{Bits: bits} }

func words(s engine.Segment) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(&s.Bytes[0])), len(s.Bytes)/8)
}

// start begins a dispatch; the channel is closed at its end, and a second notice panics.
func start(t testing.TB, e engine.Engine, d engine.Dispatch) (engine.Execution, chan struct{}) {
	t.Helper()
	over := make(chan struct{})
	x, err := e.Start(d, func() { close(over) })
	if err != nil {
		t.Fatal(err)
	}
	return x, over
}

func run(t testing.TB, e engine.Engine, d engine.Dispatch) engine.Result {
	t.Helper()
	x, over := start(t, e, d)
	<-over
	return x.Result()
}

// fill is a dispatch of the kernel `fill` over n workgroups of a grid 7 wide.
func fill(t testing.TB, segments []engine.Segment, n uint32) engine.Dispatch {
	return engine.Dispatch{Kernel: kernel(t, "basic"), Entry: "fill", Grid: [3]uint32{7, n / 7, 1}, Group: [3]uint32{1, 1, 1},
		Args: []engine.Arg{buffer(segments[0]), buffer(segments[1]), scalar(42)}, Count: uint64(n / 7 * 7), Space: 1, Segments: segments, Job: 5, Epoch: 2}
}

func TestMappedCopiedOneCoreAndAllCoresAgree(t *testing.T) {
	var want []byte
	for _, c := range []struct {
		name   string
		cores  int
		copied bool
	}{{"one core", 1, false}, {"all cores", 0, false}, {"copied", 0, true}} {
		e := newEngine(t, Config{Cores: c.cores})
		segments := arena(t, c.copied, pageSize, pageSize)
		got := run(t, e, fill(t, segments, 7000))
		if got.Err != nil || got.Done != 7000 {
			t.Fatalf("%s: %+v", c.name, got)
		}
		if n := words(segments[1])[0]; n != 7000 {
			t.Errorf("%s: %d workgroups ran, want 7000", c.name, n)
		}
		if want == nil {
			want = bytes.Clone(segments[0].Bytes)
		} else if !bytes.Equal(want, segments[0].Bytes) {
			t.Errorf("%s: other bytes than on one core", c.name)
		}
	}
}

func TestArgumentsGridAndGroup(t *testing.T) {
	e := newEngine(t, Config{})
	segments := arena(t, false, pageSize, pageSize)
	d := engine.Dispatch{Kernel: kernel(t, "basic"), Entry: "echo", Grid: [3]uint32{3, 4, 5}, Group: [3]uint32{8, 2, 1}, Count: 60, Space: 9, Segments: segments,
		Args: []engine.Arg{{Buffer: true, Bits: segments[1].Address + 800}, scalar(math.MaxUint32), scalar(uint64(math.MaxUint32)), scalar(uint64(math.Float32bits(1.5))),
			scalar(1 << 63), scalar(math.MaxUint64), scalar(math.Float64bits(2.25))}}
	if got := run(t, e, d); got.Err != nil {
		t.Fatal(got.Err)
	}
	minus := uint64(math.MaxUint64)
	want := []uint64{math.MaxUint32, minus, 1500, 1 << 63, minus, 2250, 3, 4, 5, 8, 2, 1, 2, 3, 4}
	for i, w := range want {
		if got := words(segments[1])[100+i]; got != w {
			t.Errorf("word %d: %d, want %d", i, got, w)
		}
	}
}

func TestOwnMemoryRunsOnOneCore(t *testing.T) {
	for _, copied := range []bool{false, true} {
		e := newEngine(t, Config{})
		segments := arena(t, copied, pageSize)
		d := engine.Dispatch{Kernel: kernel(t, "own"), Entry: "ordered", Grid: [3]uint32{1000, 1, 1}, Count: 1000, Space: 1, Segments: segments, Args: []engine.Arg{buffer(segments[0])}}
		if got := run(t, e, d); got.Err != nil || got.Done != 1000 {
			t.Fatalf("%+v", got)
		}
		for i := range uint32(1000) {
			if got := binary.LittleEndian.Uint32(segments[0].Bytes[4*i:]); got != i*3+1 {
				t.Fatalf("copied=%v: word %d is %d", copied, i, got)
			}
		}
	}
}

func TestKernelInCpp(t *testing.T) {
	e := newEngine(t, Config{})
	segments := arena(t, false, pageSize, pageSize)
	x := unsafe.Slice((*float32)(unsafe.Pointer(&segments[0].Bytes[0])), 4096)
	y := unsafe.Slice((*float32)(unsafe.Pointer(&segments[1].Bytes[0])), 4096)
	for i := range x {
		x[i], y[i] = float32(i), 1
	}
	d := engine.Dispatch{Kernel: kernel(t, "saxpy"), Entry: "saxpy", Grid: [3]uint32{64, 1, 1}, Group: [3]uint32{64, 1, 1}, Count: 64, Space: 1, Segments: segments,
		Args: []engine.Arg{buffer(segments[0]), buffer(segments[1]), scalar(uint64(math.Float32bits(2)))}}
	if got := run(t, e, d); got.Err != nil {
		t.Fatal(got.Err)
	}
	for i := range y {
		if y[i] != 2*float32(i)+1 {
			t.Fatalf("y[%d] = %v", i, y[i])
		}
	}
}

func TestFaults(t *testing.T) {
	e := newEngine(t, Config{})
	all := arena(t, false, pageSize)
	zero := scalar(0)
	for _, c := range []struct {
		entry  string
		args   []engine.Arg
		cause  core.Cause
		detail string
		done   uint64
	}{
		{"trap", []engine.Arg{buffer(all[0]), scalar(37)}, core.CauseTrap, "wasm error: unreachable in workgroup (37, 0, 0)", 37},
		{"wild", []engine.Arg{buffer(all[0]), scalar(12)}, core.CauseTrap, "out of bounds memory access in workgroup (12, 0, 0)", 12},
		{"divide", []engine.Arg{buffer(all[0]), zero}, core.CauseTrap, "integer divide by zero", 0},
		{"overflow", []engine.Arg{buffer(all[0])}, core.CauseTrap, "in workgroup (0, 0, 0)", 0},
		{"hungry", []engine.Arg{buffer(all[0])}, core.CauseMemory, "memory had grown to the limit of 4194304 bytes", 0},
		{"none", []engine.Arg{buffer(all[0])}, core.CauseKernel, `no entry "none"; it has divide, endless, hungry`, 0},
		{"trap", []engine.Arg{{Buffer: true, Bits: 5}, zero}, core.CauseKernel, "argument 1: address 0x5 is in no buffer", 0},
	} {
		clear(all[0].Bytes)
		d := engine.Dispatch{Kernel: kernel(t, "faults"), Entry: c.entry, Args: c.args, Grid: [3]uint32{100, 1, 1}, Count: 100, Space: 1, Segments: all}
		got := run(t, e, d)
		var fault *core.FaultError
		if !errors.As(got.Err, &fault) || fault.Cause != c.cause || !strings.Contains(fault.Detail, c.detail) {
			t.Errorf("%s: %v, want cause %q and %q", c.entry, got.Err, c.cause, c.detail)
		}
		if got.Done != c.done || strings.Contains(got.Err.Error(), "\n") {
			t.Errorf("%s: done %d, want %d; error %q", c.entry, got.Done, c.done, got.Err)
		}
		if ran := words(all[0])[0]; c.cause == core.CauseTrap && ran < c.done {
			t.Errorf("%s: %d workgroups counted, but %d are done", c.entry, ran, c.done)
		}
	}
	// After all that the same space still works.
	d := engine.Dispatch{Kernel: kernel(t, "faults"), Entry: "trap", Args: []engine.Arg{buffer(all[0]), scalar(1000)}, Grid: [3]uint32{100, 1, 1}, Count: 100, Space: 1, Segments: all}
	if got := run(t, e, d); got.Err != nil || got.Done != 100 {
		t.Errorf("after faults: %+v", got)
	}
}

func TestBuffersBeyondTheMemoryAreAMemoryFault(t *testing.T) {
	e := newEngine(t, Config{})
	segments := arena(t, false, 8<<20)
	d := engine.Dispatch{Kernel: kernel(t, "faults"), Entry: "trap", Args: []engine.Arg{buffer(segments[0]), scalar(5)}, Grid: [3]uint32{1, 1, 1}, Count: 1, Space: 1, Segments: segments}
	var fault *core.FaultError
	if got := run(t, e, d); !errors.As(got.Err, &fault) || fault.Cause != core.CauseMemory {
		t.Errorf("kernel's limit: %v", got.Err)
	}
	small := newEngine(t, Config{MemoryMax: 1 << 20})
	d = fill(t, arena(t, false, 2<<20, pageSize), 70)
	if got := run(t, small, d); !errors.As(got.Err, &fault) || fault.Cause != core.CauseMemory {
		t.Errorf("engine's limit: %v", got.Err)
	}
}

func TestStartRefusesMalformedDispatches(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	d := fill(t, arena(t, false, pageSize, pageSize), 70)
	never := func() { t.Error("notify was called") }
	for _, bad := range []func(*engine.Dispatch){
		func(d *engine.Dispatch) { d.Count++ },
		func(d *engine.Dispatch) { d.First = math.MaxUint64 },
		func(d *engine.Dispatch) { d.Grid = [3]uint32{math.MaxUint32, math.MaxUint32, math.MaxUint32} },
	} {
		b := d
		bad(&b)
		if _, err := e.Start(b, never); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%v from %d, %d: %v", b.Grid, b.First, b.Count, err)
		}
	}
	for range 2 {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Start(d, never); !errors.Is(err, core.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
}

func TestCheck(t *testing.T) {
	e := newEngine(t, Config{CacheDir: t.TempDir()})
	k := kernel(t, "basic")
	if err := e.Check(k, "fill"); err != nil {
		t.Error(err)
	}
	if err := e.Check(k, "fil"); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("missing entry: %v", err)
	}
	wrong := core.Kernel{Format: core.FormatWasm, Code: []byte("nonsense"), Digest: core.DigestOf([]byte("nonsense"))}
	if err := e.Check(wrong, "fill"); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
	wrong = core.Kernel{Format: core.FormatWasm, Code: k.Code}
	if err := e.Check(wrong, "fill"); !errors.Is(err, core.ErrCorrupt) {
		t.Errorf("wrong digest: %v", err)
	}
	wrong = core.Kernel{Format: core.FormatOpenCL, Code: k.Code, Digest: core.DigestOf([]byte{1})}
	if err := e.Check(wrong, "fill"); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("other format: %v", err)
	}
}

func TestUsageCountsEveryWorkgroupOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage")
	u, err := usage.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = u.Close() })
	e := newEngine(t, Config{Usage: u})
	segments := arena(t, false, pageSize, pageSize)
	d := fill(t, segments, 7000)
	run(t, e, d)
	d.First, d.Count = 100, 50
	run(t, e, d)
	d.Epoch = 3
	run(t, e, d)
	got, err := usage.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if got[usage.Key{Job: 5, Epoch: 2}] != 7050 || got[usage.Key{Job: 5, Epoch: 3}] != 50 || len(got) != 2 {
		t.Errorf("counts %v", got)
	}
}
