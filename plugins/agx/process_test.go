package agx

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// firmwareEnv makes the test binary a firmware process; its files are the
// arena, the doorbell's reading end and the interrupt's writing end.
const firmwareEnv = "GPUWM_TEST_AGX_FIRMWARE"

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
	config := defaults().firmware()
	config.Arena, config.Clock = arena, hw.NewRealClock()
	config.Ports = hw.Ports{Registers: registers, Doorbell: doorbell, Interrupt: interrupt}
	if config.Engine, err = wasm.New(wasm.Config{Now: config.Clock.Now}); err != nil {
		return err
	}
	firmware, err := fw.New(config)
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

func defaults() settings {
	s, _ := parseSettings(core.DeviceSpec{})
	return s
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
	bellR, bellW, err := os.Pipe()
	must(err)
	irqR, irqW, err := os.Pipe()
	must(err)
	fd, err := unix.FcntlInt(uintptr(arena.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	must(err)
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), firmwareEnv+"=1")
	child.Stderr = os.Stderr
	child.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "arena"), bellR, irqW}
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
		Log: hclog.NewNullLogger(), Failed: func(err error) { t.Errorf("device failed: %v", err) }, Name: "agx0", Engine: wasm.Name,
		Formats: []string{core.FormatWasm}, Slice: 5 * time.Millisecond, Timeouts: defaults().timeouts(),
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

// heard takes reports over channels, for drivers with a goroutine.
type heard struct{ begun, ended chan string }

func newHeard() heard { return heard{make(chan string, 16), make(chan string, 16)} }

func (h heard) Started(core.JobID)              { h.begun <- "started" }
func (h heard) Completed(core.JobID, sdk.Usage) { h.ended <- "completed" }
func (h heard) Cancelled(core.JobID, sdk.Usage) { h.ended <- "cancelled" }
func (h heard) Lost(_ bool, _ core.JobID, _ sdk.Usage, _ core.Cause, detail string) {
	h.ended <- "lost: " + detail
}

func await(t *testing.T, from <-chan string, want string) {
	t.Helper()
	select {
	case got := <-from:
		if got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatalf("no %q in a minute", want)
	}
}

// fillGroups is enough work for a suspend to come in the middle. Every workgroup of fill changes one
// word and adds to a count that a repetition would spoil.
const fillGroups = 1 << 16

func fillJob(k core.Kernel, first uint64, epoch core.Epoch) sdk.Job {
	return sdk.Job{First: first, Epoch: epoch, Spec: &core.JobSpec{ID: 1, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest},
		Entry: "fill", Grid: [3]uint32{fillGroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU64, Bits: 42}}}}
}

// fill runs the job on a device, moved to a second entity in the middle if that is wanted, and returns
// the final bytes.
func fill(t *testing.T, d sdk.Device, move bool) [][]byte {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	code, err := os.ReadFile(filepath.Join("..", "engine", "wasm", "testdata", "basic.wasm"))
	must(err)
	k := core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
	must(d.LoadKernel(ctx, k))
	spec := &core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers: []core.BufferSpec{{Name: "out", Size: 8 * fillGroups}, {Name: "count", Size: 64}}}
	h := newHeard()
	made, err := d.Create(ctx, spec, rig.Zeroes(spec.Buffers), h)
	must(err)
	e := made.(rig.Entity)
	must(e.Run(ctx, fillJob(k, 0, 1)))
	await(t, h.begun, "started")
	moved := false
	if move {
		must(e.Suspend(ctx))
		image, err := e.Save(ctx)
		must(err)
		if jobs := image.Header().Jobs; len(jobs) == 1 {
			moved = true
			h = newHeard()
			made, err := d.Create(ctx, spec, image, h)
			must(err)
			must(e.Destroy(ctx))
			e = made.(rig.Entity)
			must(e.Run(ctx, fillJob(k, jobs[0].Cursor, 2)))
		}
	}
	if move && !moved {
		t.Log("the job was over before the suspend")
	}
	await(t, h.ended, "completed")
	must(e.Suspend(ctx))
	image, err := e.Save(ctx)
	must(err)
	_, contents, err := rig.Copy(image)
	must(err)
	must(e.Destroy(ctx))
	return contents
}

// check compares both ways of running the job, and counts its workgroups.
func check(t *testing.T, d sdk.Device) {
	t.Helper()
	plain, moved := fill(t, d, false), fill(t, d, true)
	if !bytes.Equal(plain[0], moved[0]) || !bytes.Equal(plain[1], moved[1]) {
		t.Error("a suspend in the middle changed the result")
	}
	if n := binary.LittleEndian.Uint64(plain[1]); n != fillGroups {
		t.Errorf("%d workgroups counted, want %d", n, fillGroups)
	}
}

// TestTwoProcesses proves the boundary: driver here, firmware and engine in
// another process, and nothing shared but the memory file and two pipes.
func TestTwoProcesses(t *testing.T) { check(t, startFirmware(t)) }

// TestDevice runs the same through the backend's own front door, with both firmware versions.
func TestDevice(t *testing.T) {
	for _, v := range abi.Versions() {
		t.Run(string(v.Firmware), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			spec := core.DeviceSpec{Name: "agx0", Backend: Name, Options: map[string]string{"firmware": string(v.Firmware), "slice": "5ms"}}
			dev, err := New(Options{}).Open(ctx, spec, hclog.NewNullLogger(), func(err error) { t.Errorf("device failed: %v", err) })
			if err != nil {
				t.Fatal(err)
			}
			if about := dev.Describe(); about.Engine != wasm.Name || about.Credits != 64 || !about.SavesImages || about.Granularity != core.GranularityCommand {
				t.Errorf("described as %+v", about)
			}
			check(t, dev)
			lines, more := dev.(sdk.Tracer).Trace(0)
			if len(lines) == 0 || more == nil || !strings.Contains(fmt.Sprint(lines), "DestroyContext") {
				t.Errorf("%d lines of trace", len(lines))
			}
			if bound := dev.(sdk.LeaveBounder).LeaveBound(); bound <= defaults().hang {
				t.Errorf("a suspend gets %s, a hang alone may take longer", bound)
			}
			for range 2 {
				if err := dev.Close(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
