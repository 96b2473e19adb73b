package mali

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// firmwareEnv makes the test binary a firmware process; its files are the
// arena, the doorbell's reading end and the interrupt's writing end.
const firmwareEnv = "GPUWM_TEST_MALI_FIRMWARE"

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
	set, err := parseSettings(core.DeviceSpec{})
	if err != nil {
		return err
	}
	firmware, err := fw.New(set.firmware(fw.Config{Arena: arena, Ports: hw.Ports{Registers: registers, Doorbell: doorbell, Interrupt: interrupt}, Engine: eng, Clock: clock}))
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
func startFirmware(t *testing.T) *driver.Driver {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	arena, err := hw.NewArena(1 << 30)
	must(err)
	shared, err := unix.FcntlInt(uintptr(arena.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	must(err)
	bellR, bellW, err := os.Pipe()
	must(err)
	irqR, irqW, err := os.Pipe()
	must(err)
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env, child.Stderr = append(os.Environ(), firmwareEnv+"=1"), os.Stderr
	child.ExtraFiles = []*os.File{os.NewFile(uintptr(shared), "arena"), bellR, irqW}
	must(child.Start())
	for _, f := range child.ExtraFiles {
		f.Close()
	}
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	must(err)
	must(fw.Bus(registers)) // The wiring of the bus is the same on both sides.
	doorbell, err := hw.PipeLine(nil, bellW)
	must(err)
	interrupt, err := hw.PipeLine(irqR, nil)
	must(err)
	set, err := parseSettings(core.DeviceSpec{})
	must(err)
	config, err := set.driver(driver.Config{
		Arena: arena, Ports: hw.Ports{Registers: registers, Doorbell: doorbell, Interrupt: interrupt}, Clock: hw.NewRealClock(),
		Log: hclog.NewNullLogger(), Failed: func(err error) { t.Errorf("device failed: %v", err) },
		Name: "mali0", Engine: wasm.Name, Formats: []string{core.FormatWasm},
	})
	must(err)
	d, err := driver.New(config)
	must(err)
	t.Cleanup(func() {
		if err := d.Close(background); err != nil {
			t.Error(err)
		}
		doorbell.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("firmware process: %v", err)
		}
		interrupt.Close()
		arena.Close()
	})
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	// The device has power when its identity can be read; the flush id comes last.
	for registers.Load(abi.RegLatestFlush) == 0 {
		if runtime.Gosched(); ctx.Err() != nil {
			t.Fatal("the other process does not come up")
		}
	}
	must(d.Start(ctx))
	return d
}

// ends takes the reports of one entity over channels.
type ends struct {
	begun chan struct{}
	ended chan string
}

func (e ends) Started(core.JobID)              { close(e.begun) }
func (e ends) Completed(core.JobID, sdk.Usage) { e.ended <- "completed" }
func (e ends) Cancelled(core.JobID, sdk.Usage) { e.ended <- "cancelled" }
func (e ends) Lost(_ bool, _ core.JobID, _ sdk.Usage, _ core.Cause, detail string) {
	e.ended <- "lost: " + detail
}

// fillGroups is enough work for a suspend to come in the middle.
const fillGroups = 1 << 16

// fill runs a kernel that writes every word and counts workgroups; move suspends it, and goes
// on in another entity with its image. It returns the final bytes.
func fill(t *testing.T, d sdk.Device, move bool) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	code, err := os.ReadFile(filepath.Join("..", "engine", "wasm", "testdata", "basic.wasm"))
	must(err)
	k := core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
	must(d.LoadKernel(ctx, k))
	spec := &core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers: []core.BufferSpec{{Name: "out", Size: 8 * fillGroups}, {Name: "count", Size: 64}}}
	job := sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: 1, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest}, Entry: "fill",
		Grid: [3]uint32{fillGroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU64, Bits: 42}}}}
	var image core.ImageSource = sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: spec.Buffers}, [][]byte{make([]byte, 8*fillGroups), make([]byte, 64)})
	r := ends{make(chan struct{}), make(chan string, 4)}
	made, err := d.Create(ctx, spec, image, r)
	must(err)
	must(made.Run(ctx, job))
	if move {
		<-r.begun
		must(made.(entity).Suspend(ctx))
		image, err = made.(entity).Save(ctx)
		must(err)
		if jobs := image.Header().Jobs; len(jobs) == 1 {
			t.Logf("moved after %d of %d workgroups", jobs[0].Cursor, fillGroups)
			r = ends{make(chan struct{}), make(chan string, 4)}
			second, err := d.Create(ctx, spec, image, r)
			must(err)
			must(made.Destroy(ctx))
			made, job.First, job.Epoch = second, jobs[0].Cursor, 2
			must(made.Run(ctx, job))
		} else {
			must(made.(entity).Resume(ctx))
		}
	}
	select {
	case how := <-r.ended:
		if how != "completed" {
			t.Fatalf("the job %s", how)
		}
	case <-ctx.Done():
		t.Fatal("no end in a minute")
	}
	must(made.(entity).Suspend(ctx))
	image, err = made.(entity).Save(ctx)
	must(err)
	var all bytes.Buffer
	must(image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		if chunk == nil {
			chunk = make([]byte, ref.Size)
		}
		all.Write(chunk)
		return nil
	}))
	must(made.Destroy(ctx))
	return all.Bytes()
}

// TestTwoProcesses proves the boundary: driver here, firmware and engine in
// another process, and nothing shared but the memory file and two pipes. A kernel
// gives the same bytes there, moved in the middle or not, as in one process.
func TestTwoProcesses(t *testing.T) {
	two := startFirmware(t)
	plain, moved := fill(t, two, false), fill(t, two, true)
	dev, err := New(Options{}).Open(background, core.DeviceSpec{Name: "mali0", Backend: Name}, hclog.NewNullLogger(), func(err error) { t.Errorf("device failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	one := fill(t, dev, true)
	if err := dev.Close(background); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(plain, moved) || !bytes.Equal(plain, one) {
		t.Error("the bytes differ between the arrangements")
	}
}
