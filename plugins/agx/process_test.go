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

// faultsEnv is its fault plan.
const faultsEnv = "GPUWM_TEST_AGX_FAULTS"

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
	plan, err := hw.ParsePlan(os.Getenv(faultsEnv))
	if err != nil {
		return err
	}
	if config.Faults, err = fw.NewFaults(plan); err != nil {
		return err
	}
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

// startFirmware starts the other process, with a fault plan, and returns a driver's side of it.
func startFirmware(t *testing.T, plan string) *driver.Driver {
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
	child.Env = append(os.Environ(), firmwareEnv+"=1", faultsEnv+"="+plan)
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

// live is an entity on a device with goroutines of its own.
type live struct {
	rig.Entity
	heard
	spec *core.EntitySpec
}

// place makes an entity for the job from an image, nil for one of zeroes, and loads the kernel.
func place(ctx context.Context, t *testing.T, d sdk.Device, image core.ImageSource) (live, core.Kernel) {
	t.Helper()
	code, err := os.ReadFile(filepath.Join("..", "engine", "wasm", "testdata", "basic.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	k := core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
	if err := d.LoadKernel(ctx, k); err != nil {
		t.Fatal(err)
	}
	l := live{heard: newHeard(), spec: &core.EntitySpec{ID: 1, Name: "e", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers: []core.BufferSpec{{Name: "out", Size: 8 * fillGroups}, {Name: "count", Size: 64}}}}
	if image == nil {
		image = rig.Zeroes(l.spec.Buffers)
	}
	made, err := d.Create(ctx, l.spec, image, l.heard)
	if err != nil {
		t.Fatal(err)
	}
	l.Entity = made.(rig.Entity)
	return l, k
}

// contents suspends the entity, takes its bytes and ends it.
func (l live) contents(ctx context.Context, t *testing.T) [][]byte {
	t.Helper()
	if err := l.Suspend(ctx); err != nil {
		t.Fatal(err)
	}
	image, err := l.Save(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, contents, err := rig.Copy(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	return contents
}

// fill runs the job on a device, moved to a second entity in the middle if that is wanted, and returns
// the final bytes. moved says that there was a middle: on a quick machine the job may be over before.
func fill(t *testing.T, d sdk.Device, move bool) (contents [][]byte, moved bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	e, k := place(ctx, t, d, nil)
	must(e.Run(ctx, fillJob(k, 0, 1)))
	await(t, e.begun, "started")
	if move {
		must(e.Suspend(ctx))
		image, err := e.Save(ctx)
		must(err)
		if jobs := image.Header().Jobs; len(jobs) == 1 {
			moved = true
			next, _ := place(ctx, t, d, image)
			must(e.Destroy(ctx))
			e = next
			must(e.Run(ctx, fillJob(k, jobs[0].Cursor, 2)))
		}
	}
	await(t, e.ended, "completed")
	return e.contents(ctx, t), moved
}

// movesMax is how often a job may be over before it is suspended.
const movesMax = 20

// check compares both ways of running the job, and counts its workgroups.
func check(t *testing.T, d sdk.Device) {
	t.Helper()
	plain, _ := fill(t, d, false)
	for range movesMax {
		contents, moved := fill(t, d, true)
		if !bytes.Equal(plain[0], contents[0]) || !bytes.Equal(plain[1], contents[1]) {
			t.Error("a suspend in the middle changed the result")
		}
		if n := binary.LittleEndian.Uint64(plain[1]); n != fillGroups {
			t.Errorf("%d workgroups counted, want %d", n, fillGroups)
		}
		if moved {
			return
		}
	}
	t.Error("the job was over before every suspend")
}

// TestTwoProcesses proves the boundary: driver here, firmware and engine in
// another process, and nothing shared but the memory file and two pipes.
func TestTwoProcesses(t *testing.T) { check(t, startFirmware(t, "")) }

// TestTroubleInTwoProcesses: across the same boundary a fault, a kill, a cancel and another priority; who
// works beside them ends right.
func TestTroubleInTwoProcesses(t *testing.T) {
	d := startFirmware(t, "command id=2 nth=3 fault; command id=3 nth=4 channel-error=1")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all []live
	var k core.Kernel
	for range 6 {
		var l live
		l, k = place(ctx, t, d, nil)
		all = append(all, l)
		if err := l.Run(ctx, fillJob(k, 0, 1)); err != nil {
			t.Fatal(err)
		}
	}
	faulty, stopped, cancelled, killed, strong, calm := all[0], all[1], all[2], all[3], all[4], all[5]
	for i, err := range []error{
		strong.SetProperties(ctx, core.Properties{Priority: core.PriorityHigh}), cancelled.Cancel(ctx, 1), killed.Destroy(ctx),
	} {
		if err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	for _, lost := range []live{faulty, stopped} {
		if how := ended(ctx, t, lost); !strings.HasPrefix(how, "lost: ") {
			t.Errorf("the one with a fault: %s", how)
		}
		if err := lost.Destroy(ctx); err != nil {
			t.Error(err)
		}
	}
	if how := ended(ctx, t, cancelled); how != "cancelled" && how != "completed" {
		t.Errorf("cancelled: %s", how) // It may have come too late.
	}
	if err := cancelled.Destroy(ctx); err != nil {
		t.Error(err)
	}
	for _, l := range []live{strong, calm} {
		if how := ended(ctx, t, l); how != "completed" {
			t.Fatalf("beside them: %s", how)
		}
		if n := binary.LittleEndian.Uint64(l.contents(ctx, t)[1]); n != fillGroups {
			t.Errorf("%d workgroups counted, want %d", n, fillGroups)
		}
	}
	check(t, d)
}

// ended waits for the end of an entity's job.
func ended(ctx context.Context, t *testing.T, l live) string {
	t.Helper()
	select {
	case how := <-l.ended:
		return how
	case <-ctx.Done():
		t.Fatal("a job has no end")
		return ""
	}
}

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
