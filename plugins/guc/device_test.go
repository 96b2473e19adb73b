package guc

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

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
	fillTwice(t, dev)
	lines, more := dev.(sdk.Tracer).Trace(0)
	if !slices.ContainsFunc(lines, func(l core.TraceLine) bool {
		return l.Kind == "G2H" && strings.HasSuffix(l.Text, "DEREGISTER_CONTEXT_DONE guc_id=1")
	}) || more == nil {
		t.Errorf("trace %+v", lines)
	}
	if bound := dev.(sdk.LeaveBounder).LeaveBound(); bound <= fw.LivePreemptionMin+answerSlack {
		t.Errorf("a suspend gets %s, the firmware may take longer", bound)
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
	if _, err := dev.Create(context.Background(), spec, rig.Zeroes(spec.Buffers), newAwaited()); !errors.Is(err, core.ErrClosed) {
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
	script := scripts("workgroup=1ms cores=4")
	got := perform(t, dev, script, false)
	want := make([]byte, 8*fillGroups)
	testengine.Apply(want, 0, script.groups)
	if !bytes.Equal(got[:len(want)], want) {
		t.Error("the buffer differs from what the script does")
	}
	if err := dev.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestDeviceResets: the firmware dies again and again while driver and firmware run side by side. Nothing was
// begun then, and everything goes on.
func TestDeviceResets(t *testing.T) {
	const rounds = 8
	var plan hw.Plan
	for i := range uint64(rounds) {
		// Two of the three to four enables and disables of each entity.
		plan = append(plan, hw.Rule{Point: fw.PointH2G, Name: abi.ActionSchedContextModeSet.String(), Nth: 1 + 4*i, Times: 2, Action: fw.FaultCrash})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	spec := core.DeviceSpec{Name: "guc0", Backend: Name, Engine: testengine.Name, Options: map[string]string{"faults": plan.String()}}
	dev, err := New(Options{}).Open(ctx, spec, hclog.NewNullLogger(), func(err error) { t.Errorf("device failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	script := scripts("workgroup=100us")
	want := make([]byte, 8*fillGroups)
	testengine.Apply(want, 0, script.groups)
	for range 2 * rounds {
		if got := perform(t, dev, script, false); !bytes.Equal(got[:len(want)], want) {
			t.Fatal("the buffer differs from what the script does")
		}
	}
	crashes, loads := 0, 0
	lines, _ := dev.(sdk.Tracer).Trace(0)
	for _, l := range lines {
		if l.Kind == "FAULT" {
			crashes++
		}
		if l.Kind == "FW" && strings.HasSuffix(l.Text, "unloaded -> ready") {
			loads++
		}
	}
	if crashes != 2*rounds || loads != crashes {
		t.Errorf("%d crashes and %d loads, want %d", crashes, loads, 2*rounds)
	}
	if err := dev.Close(ctx); err != nil {
		t.Error(err)
	}
}

// TestDeviceProgressDuringAMove: progress may be asked for from any goroutine, also while the memory changes.
func TestDeviceProgressDuringAMove(t *testing.T) {
	w, err := setup{arena: 32 << 20}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 1000, "workgroup=1ms")))
	w.Until("the start", func() bool { return a.Started[1] })
	ctx, stop := context.WithCancel(background)
	ended := make(chan struct{})
	t.Cleanup(func() { stop(); <-ended }) // Before the memory goes.
	go func() {
		defer close(ended)
		last := uint64(0)
		for ctx.Err() == nil {
			for _, p := range a.Progress() {
				if p.Done < last {
					t.Errorf("progress fell from %d to %d", last, p.Done)
				}
				last = p.Done
			}
		}
	}()
	for range 20 {
		w.OK(w.move())
		w.Run(10 * time.Millisecond)
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
	e, err := dev.Create(ctx, spec, rig.Zeroes(spec.Buffers), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(ctx, sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: 5, Kernels: map[string]core.Digest{core.FormatWasm: k.Digest}, Entry: "trap",
		Grid: [3]uint32{100, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU32, Bits: 40}}}}); err != nil {
		t.Fatal(err)
	}
	lost := wait(t, "loss", r.lost)
	if !lost.Guilty || lost.Job != 5 || lost.Cause != core.CauseTrap || lost.Detail == "" {
		t.Errorf("lost %+v", lost)
	}
	if err := e.Destroy(ctx); err != nil {
		t.Fatal(err)
	}
	perform(t, dev, fill(t), false)
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

// scripts is the work of a script of the test engine.
func scripts(script string) work {
	const groups = 40
	code, spec := []byte(script), wasmSpec("e")
	k := core.Kernel{Digest: core.DigestOf(code), Format: testengine.Format, Code: code}
	return work{kernel: k, spec: spec, image: rig.Zeroes(spec.Buffers), groups: groups,
		job: func(first uint64, epoch core.Epoch) sdk.Job {
			job := fillJob(k, 1, first, epoch)
			job.Spec.Grid, job.Spec.Kernels = [3]uint32{groups, 1, 1}, map[string]core.Digest{testengine.Format: k.Digest}
			return job
		}}
}
