package mali

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// liveCrowd is how many entities share the device of TestLiveCrowd: more than it has slots.
const liveCrowd = 12

// livePlan disturbs without a reason for a reset, so that nobody may be lost.
const livePlan = "irq nth=20 times=200 duplicate; irq nth=300 times=10 delay=60ms; irq nth=400 times=20 drop; doorbell times=50 spurious; csg-ack/SUSPEND nth=3 times=3 delay=60ms"

// TestLiveCrowd runs driver and firmware side by side in real time, with more entities than slots,
// which suspend, resume, leave and come again from their images while interrupts are lost, late and doubled.
// All bytes are those of an undisturbed run, and the firmware saw no mistake.
func TestLiveCrowd(t *testing.T) {
	ctx, cancel := context.WithTimeout(background, 2*time.Minute)
	defer cancel()
	set, err := parseSettings(core.DeviceSpec{Options: map[string]string{"faults": livePlan}})
	if err != nil {
		t.Fatal(err)
	}
	clock := hw.NewRealClock()
	eng, err := wasm.New(wasm.Config{Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	arena, err := hw.NewArena(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	host, firmware, err := assemble("mali0", set, arena, eng, clock, nil, hclog.NewNullLogger(), func(err error) { t.Errorf("device failed: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	power, off := context.WithCancel(background)
	ended := make(chan error, 1)
	go func() { ended <- firmware.Run(power) }()
	if err := host.Start(ctx); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(filepath.Join("..", "engine", "wasm", "testdata", "basic.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	k := core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
	if err := host.LoadKernel(ctx, k); err != nil {
		t.Fatal(err)
	}
	want, err := crowdRun(ctx, host, k.Digest, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range liveCrowd {
		all.Go(func() {
			id := core.EntityID(2 + i)
			got, err := crowdRun(ctx, host, k.Digest, id, rand.New(rand.NewPCG(uint64(id), 0)))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("entity %d: %v, bytes equal %t", id, err, bytes.Equal(got, want))
			}
		})
	}
	all.Wait()
	if err := host.Close(ctx); err != nil {
		t.Error(err)
	}
	off()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if v := firmware.Violations(); len(v) > 0 || host.Resets() > 0 || set.faults.Fired() == 0 {
		t.Errorf("violations %q, %d resets, %d faults", v, host.Resets(), set.faults.Fired())
	}
}

// crowdGroups is enough work for many turns.
const crowdGroups = 1 << 15

// crowdRun runs one entity's job to its end and returns the bytes; with random it is disturbed on the way.
func crowdRun(ctx context.Context, d sdk.Device, kernel core.Digest, id core.EntityID, random *rand.Rand) ([]byte, error) {
	spec := &core.EntitySpec{ID: id, Name: "e", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
		Buffers: []core.BufferSpec{{Name: "out", Size: 8 * crowdGroups}, {Name: "count", Size: 64}}}
	job := sdk.Job{Epoch: 1, Spec: &core.JobSpec{ID: core.JobID(id), Kernels: map[string]core.Digest{core.FormatWasm: kernel}, Entry: "fill",
		Grid: [3]uint32{crowdGroups, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "out"}, {Kind: core.ArgBuffer, Buffer: "count"}, {Kind: core.ArgU64, Bits: 42}}}}
	var image core.ImageSource = sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Buffers: spec.Buffers},
		[][]byte{make([]byte, 8*crowdGroups), make([]byte, 64)})
	for {
		r := ends{make(chan struct{}), make(chan string, 4)}
		made, err := d.Create(ctx, spec, image, r)
		if err != nil {
			return nil, err
		}
		e := made.(entity)
		if err := e.Run(ctx, job); err != nil {
			return nil, err
		}
		again := false
		for range 4 {
			if random == nil {
				break
			}
			if random.IntN(2) == 0 {
				p := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}[random.IntN(3)]
				err = errors.Join(err, e.SetProperties(ctx, core.Properties{Priority: p}))
			}
			err = errors.Join(err, e.Suspend(ctx))
			if err != nil {
				return nil, err
			}
			if random.IntN(3) == 0 {
				again = true
				break
			}
			e.Progress()
			if err := e.Resume(ctx); err != nil {
				return nil, err
			}
		}
		if !again {
			select {
			case how := <-r.ended:
				if how != "completed" {
					return nil, fmt.Errorf("the job %s", how)
				}
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			if err := e.Suspend(ctx); err != nil {
				return nil, err
			}
		}
		saved, contents, err := crowdSave(ctx, e, spec)
		if err = errors.Join(err, e.Destroy(ctx)); err != nil {
			return nil, err
		}
		if len(saved.Jobs) == 0 {
			return bytes.Join(contents, nil), nil
		}
		image, job.First, job.Epoch = sdk.BufferImage(saved, contents), saved.Jobs[0].Cursor, job.Epoch+1
	}
}

// crowdSave copies an entity's image.
func crowdSave(ctx context.Context, e entity, spec *core.EntitySpec) (core.ImageHeader, [][]byte, error) {
	image, err := e.Save(ctx)
	if err != nil {
		return core.ImageHeader{}, nil, err
	}
	header := image.Header()
	header.Private = bytes.Clone(header.Private)
	var contents [][]byte
	for _, b := range spec.Buffers {
		contents = append(contents, make([]byte, b.Size))
	}
	return header, contents, image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		copy(contents[ref.Buffer][ref.Index*core.ChunkSize:], chunk)
		return nil
	})
}
