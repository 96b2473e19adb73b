package guc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// firmwareEnv makes the test binary a firmware process; its files are the
// arena, the doorbell's reading end and the interrupt's writing end.
const firmwareEnv = "GPUWM_TEST_GUC_FIRMWARE"

func TestMain(m *testing.M) {
	if os.Getenv(firmwareEnv) != "" {
		if err := firmwareProcess(); err != nil {
			fmt.Fprintln(os.Stderr, "firmware process:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// firmwareProcess runs firmware and engine until nobody can ring the doorbell any more.
func firmwareProcess() error {
	arena, err := hw.OpenArena(3)
	if err != nil {
		return err
	}
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		return err
	}
	doorbell, err := hw.PipeLine(os.NewFile(4, "doorbell"), nil)
	if err != nil {
		return err
	}
	interrupt, err := hw.PipeLine(nil, os.NewFile(5, "interrupt"))
	if err != nil {
		return err
	}
	clock := hw.NewRealClock()
	eng, err := wasm.New(wasm.Config{Now: clock.Now})
	if err != nil {
		return err
	}
	firmware, err := fw.New(fw.Config{
		Arena: arena, Ports: hw.Ports{Registers: registers, Doorbell: doorbell, Interrupt: interrupt},
		Engine: eng, Clock: clock, QuantumMin: fw.LiveQuantumMin, PreemptionMin: fw.LivePreemptionMin,
	})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		<-doorbell.Gone()
		stop()
	}()
	return firmware.Run(ctx)
}

// startFirmware starts the other process and returns a driver's side of it.
func startFirmware(t *testing.T, failed func(error)) *driver.Driver {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	arena, err := hw.NewArena(1 << 30)
	must(err)
	bellR, bellW, err := os.Pipe()
	must(err)
	irqR, irqW, err := os.Pipe()
	must(err)
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), firmwareEnv+"=1")
	child.Stderr = os.Stderr
	child.ExtraFiles = []*os.File{duplicate(t, arena.Fd()), bellR, irqW}
	must(child.Start())
	for _, f := range child.ExtraFiles {
		f.Close()
	}
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	must(err)
	doorbell, err := hw.PipeLine(nil, bellW)
	must(err)
	interrupt, err := hw.PipeLine(irqR, nil)
	must(err)
	d, err := driver.New(driver.Config{
		Arena: arena, Ports: hw.Ports{Registers: registers, Doorbell: doorbell, Interrupt: interrupt}, Clock: hw.NewRealClock(),
		Log: hclog.NewNullLogger(), Failed: failed, Name: "guc0", Engine: wasm.Name, Formats: []string{core.FormatWasm},
		Quantum: fw.LiveQuantumMin, Preemption: fw.LivePreemptionMin, Timeouts: settings{hang: fw.LivePreemptionMin}.timeouts(),
	})
	must(err)
	t.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
		doorbell.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("firmware process: %v", err)
		}
		interrupt.Close()
		arena.Close()
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(d.Start(ctx))
	return d
}

// awaited reports job ends over channels, for drivers with a goroutine.
type awaited struct {
	once  sync.Once
	begun chan struct{}
	ended chan string
	usage chan sdk.Usage
	lost  chan rig.LostReport
}

func newAwaited() *awaited {
	return &awaited{begun: make(chan struct{}), ended: make(chan string, 16), usage: make(chan sdk.Usage, 16), lost: make(chan rig.LostReport, 16)}
}

func (a *awaited) Started(core.JobID) { a.once.Do(func() { close(a.begun) }) }
func (a *awaited) Completed(_ core.JobID, u sdk.Usage) {
	a.usage <- u
	a.ended <- "completed"
}
func (a *awaited) Cancelled(_ core.JobID, u sdk.Usage) {
	a.usage <- u
	a.ended <- "cancelled"
}
func (a *awaited) Lost(guilty bool, job core.JobID, u sdk.Usage, cause core.Cause, detail string) {
	a.lost <- rig.LostReport{Guilty: guilty, Job: job, Usage: u, Cause: cause, Detail: detail}
	a.ended <- "lost"
}

func wait[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("%s: nothing in a minute", what)
		panic("unreachable")
	}
}

// wasmKernel reads one of the engine's test kernels.
func wasmKernel(t *testing.T, name string) core.Kernel {
	t.Helper()
	return kernelFile(t, filepath.Join("..", "engine", "wasm", "testdata", name+".wasm"))
}

func kernelFile(t *testing.T, path string) core.Kernel {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
}

// fillGroups is enough work for a suspend to come in the middle.
const fillGroups = 1 << 16

// wasmSpec and wasmJobs: every workgroup of fill changes one word and adds to a
// count that a repetition would spoil.
func wasmSpec(name string) *core.EntitySpec {
	return &core.EntitySpec{ID: 1, Name: name, Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers: []core.BufferSpec{{Name: "out", Size: 8 * fillGroups}, {Name: "count", Size: 64}}}
}

func fillJob(k core.Kernel, id core.JobID, first uint64, epoch core.Epoch) sdk.Job {
	return sdk.Job{First: first, Epoch: epoch, Spec: &core.JobSpec{ID: id, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest},
		Entry: "fill", Grid: [3]uint32{fillGroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU64, Bits: 42}}}}
}

// saved suspends the entity and returns its header and all bytes.
func saved(t *testing.T, made sdk.Entity) (core.ImageSource, []byte) {
	t.Helper()
	e := made.(rig.Entity)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := e.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	image, err := e.Save(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	if err := image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		if chunk == nil {
			chunk = make([]byte, ref.Size)
		}
		all.Write(chunk)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return image, all.Bytes()
}

// progressed returns when some workgroups are done, or the job has ended.
func progressed(ctx context.Context, e sdk.Entity) {
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for ctx.Err() == nil {
		if p := e.(sdk.Sampler).Progress(); len(p) == 0 || p[0].Done > 0 {
			return
		}
		<-look.C
	}
}

// work is a job with its entity, which can be run again and again.
type work struct {
	kernel core.Kernel
	spec   *core.EntitySpec
	image  core.ImageSource
	groups uint64
	job    func(first uint64, epoch core.Epoch) sdk.Job
}

// attemptsMax bounds how often a job is run until a suspend comes in its middle.
const attemptsMax = 10

// perform runs the work undisturbed, or with a suspend, a save and a move to a
// second entity in the middle, and returns the final bytes.
func perform(t *testing.T, d sdk.Device, w work, disturb bool) []byte {
	t.Helper()
	for range attemptsMax {
		if all, moved := attempt(t, d, w, disturb); moved == disturb {
			return all
		}
	}
	t.Fatalf("the job was over before the suspend, %d times", attemptsMax)
	return nil
}

// attempt runs the work once and reports whether it was moved in the middle.
func attempt(t *testing.T, d sdk.Device, w work, disturb bool) (all []byte, moved bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.LoadKernel(ctx, w.kernel))
	r := newAwaited()
	e, err := d.Create(ctx, w.spec, w.image, r)
	must(err)
	must(e.Run(ctx, w.job(0, 1)))
	if disturb {
		wait(t, "start", r.begun)
		progressed(ctx, e)
		image, _ := saved(t, e)
		if jobs := image.Header().Jobs; len(jobs) == 1 {
			moved = true
			cursor := jobs[0].Cursor
			t.Logf("moved after %d of %d workgroups", cursor, w.groups)
			r = newAwaited()
			second, err := d.Create(ctx, w.spec, image, r)
			must(err)
			must(e.Destroy(ctx))
			e = second
			must(e.Run(ctx, w.job(cursor, 2)))
			if u := wait(t, "end", r.usage); u.Done != w.groups || u.Executed != w.groups-cursor {
				t.Errorf("usage %+v after a cut at %d", u, cursor)
			}
		}
	}
	if how := wait(t, "end", r.ended); how != "completed" {
		t.Fatalf("the job %s", how)
	}
	_, all = saved(t, e)
	must(e.Destroy(ctx))
	return all, moved
}

// fill is the work of fillJob.
func fill(t *testing.T) work {
	k, spec := wasmKernel(t, "basic"), wasmSpec("e")
	return work{kernel: k, spec: spec, image: rig.Zeroes(spec.Buffers), groups: fillGroups,
		job: func(first uint64, epoch core.Epoch) sdk.Job { return fillJob(k, 1, first, epoch) }}
}

// fillTwice runs fill undisturbed and with a move, and checks the bytes.
func fillTwice(t *testing.T, d sdk.Device) {
	t.Helper()
	plain, moved := perform(t, d, fill(t), false), perform(t, d, fill(t), true)
	if !bytes.Equal(plain, moved) {
		t.Error("a suspend in the middle changed the result")
	}
	if n := binary.LittleEndian.Uint64(plain[8*fillGroups:]); n != fillGroups {
		t.Errorf("%d workgroups counted, want %d", n, fillGroups)
	}
}

// mersenne is a range of the kernel that the examples run for months: the
// factors of a few Mersenne numbers below 2·blocks·blockSize·p.
func mersenne(t *testing.T) work {
	t.Helper()
	const rows, blocks, blockSize = 16, 80, 1 << 16
	exponents := []uint64{11, 23, 29, 37, 41, 43}
	k := kernelFile(t, filepath.Join("..", "..", "configs", "kernels", "mersenne.wasm"))
	spec := &core.EntitySpec{ID: 1, Name: "mersenne", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers: []core.BufferSpec{{Name: "exponents", Size: uint64(8 * len(exponents))}, {Name: "found", Size: uint64(16 * rows * len(exponents))}}}
	var in []byte
	for _, p := range exponents {
		in = binary.LittleEndian.AppendUint64(in, p)
	}
	image := sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: spec.Buffers}, [][]byte{in, make([]byte, spec.Buffers[1].Size)})
	return work{kernel: k, spec: spec, image: image, groups: uint64(blocks * len(exponents)),
		job: func(first uint64, epoch core.Epoch) sdk.Job {
			return sdk.Job{First: first, Epoch: epoch, Spec: &core.JobSpec{ID: 1, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest},
				Entry: "factor", Grid: [3]uint32{blocks, uint32(len(exponents)), 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
				Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "exponents"}, {Kind: core.ArgBuffer, Buffer: "found"}, {Kind: core.ArgU32},
					{Kind: core.ArgU32, Bits: rows}, {Kind: core.ArgU64, Bits: 1}, {Kind: core.ArgU32, Bits: blockSize}}}}
		}}
}

// TestTwoProcesses proves the boundary: driver here, firmware and engine in
// another process, and nothing shared but the memory file and two pipes. A real
// kernel gives the same bytes there, disturbed or not, as in one process.
func TestTwoProcesses(t *testing.T) {
	failed := func(err error) { t.Errorf("device failed: %v", err) }
	two := startFirmware(t, failed)
	fillTwice(t, two)

	plain, moved := perform(t, two, mersenne(t), false), perform(t, two, mersenne(t), true)
	dev := openDevice(t, nil, failed)
	one := perform(t, dev, mersenne(t), false)
	if err := dev.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(plain, moved) || !bytes.Equal(plain, one) {
		t.Error("the factors differ between the arrangements")
	}
	found := plain[8*6:]
	for i, want := range []uint64{11, 23, 11, 89, 0, 0} { // 2^11 - 1 = 23 · 89
		if got := binary.LittleEndian.Uint64(found[8*i:]); got != want {
			t.Errorf("word %d of the factors found is %d, want %d", i, got, want)
		}
	}
}

// duplicate makes a file of the arena's descriptor that may be closed.
func duplicate(t *testing.T, fd int) *os.File {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(n), "arena")
}
