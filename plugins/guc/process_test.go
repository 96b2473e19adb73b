package guc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
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
	registers, err := hw.NewRegisters(arena, abi.RegWindow)
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
	eng, err := wasm.New(wasm.Config{})
	if err != nil {
		return err
	}
	firmware, err := fw.New(fw.Config{
		Arena: arena, Ports: hw.Ports{Registers: registers, Doorbell: doorbell, Interrupt: interrupt},
		Engine: eng, Clock: hw.NewRealClock(), QuantumMin: fw.LiveQuantumMin, PreemptionMin: fw.LivePreemptionMin,
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
	registers, err := hw.NewRegisters(arena, abi.RegWindow)
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
	lost  chan lostReport
}

func newAwaited() *awaited {
	return &awaited{begun: make(chan struct{}), ended: make(chan string, 16), usage: make(chan sdk.Usage, 16), lost: make(chan lostReport, 16)}
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
	a.lost <- lostReport{guilty, job, u, cause, detail}
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
	code, err := os.ReadFile(filepath.Join("..", "engine", "wasm", "testdata", name+".wasm"))
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

func zeroes(spec *core.EntitySpec) core.ImageSource {
	var contents [][]byte
	for _, b := range spec.Buffers {
		contents = append(contents, make([]byte, b.Size))
	}
	return sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: spec.Buffers}, contents)
}

func fillJob(k core.Kernel, id core.JobID, first uint64, epoch core.Epoch) sdk.Job {
	return sdk.Job{First: first, Epoch: epoch, Spec: &core.JobSpec{ID: id, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest},
		Entry: "fill", Grid: [3]uint32{fillGroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU64, Bits: 42}}}}
}

// saved suspends the entity and returns its header and all bytes.
func saved(t *testing.T, e sdk.Entity) (core.ImageSource, []byte) {
	t.Helper()
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
		if p := e.Progress(); len(p) == 0 || p[0].Done > 0 {
			return
		}
		<-look.C
	}
}

// fillInterrupted runs fill with a suspend, a save and a move to a second
// entity in the middle, or undisturbed, and returns the final bytes.
func fillInterrupted(t *testing.T, d sdk.Device, disturb bool) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	k := wasmKernel(t, "basic")
	must(d.LoadKernel(ctx, k))
	spec, r := wasmSpec("e"), newAwaited()
	e, err := d.Create(ctx, spec, zeroes(spec), r)
	must(err)
	must(e.Run(ctx, fillJob(k, 1, 0, 1)))
	if disturb {
		wait(t, "start", r.begun)
		progressed(ctx, e)
		image, _ := saved(t, e)
		header := image.Header()
		if len(header.Jobs) == 1 {
			t.Logf("moved after %d of %d workgroups", header.Jobs[0].Cursor, fillGroups)
			r = newAwaited()
			moved, err := d.Create(ctx, spec, image, r)
			must(err)
			must(e.Destroy(ctx))
			e = moved
			must(e.Run(ctx, fillJob(k, 1, header.Jobs[0].Cursor, 2)))
			if u := wait(t, "end", r.usage); u.Done != fillGroups || u.Executed != fillGroups-header.Jobs[0].Cursor {
				t.Errorf("usage %+v after a cut at %d", u, header.Jobs[0].Cursor)
			}
		}
	}
	if how := wait(t, "end", r.ended); how != "completed" {
		t.Fatalf("the job %s", how)
	}
	_, all := saved(t, e)
	must(e.Destroy(ctx))
	if n := binary.LittleEndian.Uint64(all[8*fillGroups:]); n != fillGroups {
		t.Errorf("%d workgroups counted, want %d", n, fillGroups)
	}
	return all
}

// TestTwoProcesses proves the boundary: driver here, firmware and engine in
// another process, and nothing shared but the memory file and two pipes.
func TestTwoProcesses(t *testing.T) {
	d := startFirmware(t, func(err error) { t.Errorf("device failed: %v", err) })
	plain := fillInterrupted(t, d, false)
	if moved := fillInterrupted(t, d, true); !bytes.Equal(plain, moved) {
		t.Error("a suspend in the middle changed the result")
	}
}

func openDevice(t *testing.T, options map[string]string, failed func(error)) sdk.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dev, err := New(Options{}).Open(ctx, core.DeviceSpec{Name: "guc0", Backend: Name, Options: options}, hclog.NewNullLogger(), failed)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// TestDevice runs the same through the backend's own front door.
func TestDevice(t *testing.T) {
	dev := openDevice(t, map[string]string{"quantum": "20ms"}, func(err error) { t.Errorf("device failed: %v", err) })
	if about := dev.Describe(); about.Engine != wasm.Name || about.Credits != 64 || !about.SavesImages || about.Granularity != core.GranularityWorkgroup {
		t.Errorf("described as %+v", about)
	}
	plain := fillInterrupted(t, dev, false)
	if moved := fillInterrupted(t, dev, true); !bytes.Equal(plain, moved) {
		t.Error("a suspend in the middle changed the result")
	}
	junk := core.Kernel{Digest: core.DigestOf([]byte("junk")), Format: core.FormatWasm, Code: []byte("junk")}
	if err := dev.LoadKernel(context.Background(), junk); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("loaded a kernel that is no module: %v", err)
	}
	for range 2 {
		if err := dev.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	spec := wasmSpec("late")
	if _, err := dev.Create(context.Background(), spec, zeroes(spec), newAwaited()); !errors.Is(err, core.ErrClosed) {
		t.Errorf("created on a closed device: %v", err)
	}
}

// TestDeviceWithTestEngine runs a script on the real clock.
func TestDeviceWithTestEngine(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spec := core.DeviceSpec{Name: "guc0", Backend: Name, Engine: testengine.Name}
	dev, err := New(Options{}).Open(ctx, spec, hclog.NewNullLogger(), func(err error) { t.Errorf("device failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	code := []byte("workgroup=1ms cores=4")
	k := core.Kernel{Digest: core.DigestOf(code), Format: testengine.Format, Code: code}
	if err := dev.LoadKernel(ctx, k); err != nil {
		t.Fatal(err)
	}
	entity, r := wasmSpec("e"), newAwaited()
	e, err := dev.Create(ctx, entity, zeroes(entity), r)
	if err != nil {
		t.Fatal(err)
	}
	job := fillJob(k, 1, 0, 1)
	job.Spec.Grid, job.Spec.Kernels = [3]uint32{40, 1, 1}, map[string]core.Digest{testengine.Format: k.Digest}
	if err := e.Run(ctx, job); err != nil {
		t.Fatal(err)
	}
	if how := wait(t, "end", r.ended); how != "completed" {
		t.Fatalf("the job %s", how)
	}
	_, got := saved(t, e)
	want := make([]byte, 8*fillGroups)
	testengine.Apply(want, 0, 40)
	if !bytes.Equal(got[:len(want)], want) {
		t.Error("the buffer differs from what the script does")
	}
	if err := dev.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestDeviceFault: a trap ends its entity only.
func TestDeviceFault(t *testing.T) {
	dev := openDevice(t, nil, func(err error) { t.Errorf("device failed: %v", err) })
	defer dev.Close(context.Background())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	k := wasmKernel(t, "faults")
	if err := dev.LoadKernel(ctx, k); err != nil {
		t.Fatal(err)
	}
	spec, r := wasmSpec("guilty"), newAwaited()
	e, err := dev.Create(ctx, spec, zeroes(spec), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(ctx, sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: 5, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest}, Entry: "trap",
		Grid: [3]uint32{100, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU32, Bits: 40}}}}); err != nil {
		t.Fatal(err)
	}
	lost := wait(t, "loss", r.lost)
	if !lost.guilty || lost.job != 5 || lost.cause != core.CauseTrap || lost.detail == "" {
		t.Errorf("lost %+v", lost)
	}
	if err := e.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	fillInterrupted(t, dev, false)
}

func TestSettings(t *testing.T) {
	bad := []core.DeviceSpec{
		{Engine: "steam"}, {Options: map[string]string{"quantm": "1s"}}, {Options: map[string]string{"quantum": "1ms"}},
		{Options: map[string]string{"hang-deadline": "101s"}}, {Options: map[string]string{"instances": "0"}}, {Options: map[string]string{"instances": "-1"}},
	}
	for _, spec := range bad {
		if _, err := New(Options{}).Open(context.Background(), spec, hclog.NewNullLogger(), nil); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v: %v", spec, err)
		}
	}
	s, err := parseSettings(core.DeviceSpec{Engine: wasm.Name, Options: map[string]string{"hang-deadline": "1s", "cores": "2", "instances": "2"}})
	if err != nil || s.hang != time.Second || s.cores != 2 || s.instances != 2 || s.quantum != fw.LiveQuantumMin {
		t.Errorf("%+v, %v", s, err)
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
