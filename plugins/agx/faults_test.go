package agx

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/hashicorp/go-hclog"
)

// TestFaultPlanOfADevice: an MMU fault of one entity, because the option faults says so, halts the GPU under the
// job of another one, which ends right on the same device.
func TestFaultPlanOfADevice(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	spec := core.DeviceSpec{Name: "agx0", Backend: Name, Options: map[string]string{"slice": "5ms", "faults": "command id=2 fault"}}
	dev, err := New(Options{}).Open(ctx, spec, hclog.NewNullLogger(), func(err error) { t.Errorf("device failed: %v", err) })
	must(err)
	code, err := os.ReadFile(filepath.Join("..", "engine", "wasm", "testdata", "basic.wasm"))
	must(err)
	k := core.Kernel{Digest: core.DigestOf(code), Format: core.FormatWasm, Code: code}
	must(dev.LoadKernel(ctx, k))
	create := func(id core.EntityID) (rig.Entity, heard) {
		spec := &core.EntitySpec{ID: id, Name: "e", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal},
			Buffers: []core.BufferSpec{{Name: "out", Size: 8 * fillGroups}, {Name: "count", Size: 64}}}
		h := newHeard()
		made, err := dev.Create(ctx, spec, rig.Zeroes(spec.Buffers), h)
		must(err)
		return made.(rig.Entity), h
	}
	guilty, lost := create(1) // The vendor's first queue id is 2.
	victim, ended := create(2)
	must(victim.Run(ctx, fillJob(k, 0, 1)))
	await(t, ended.begun, "started")
	must(guilty.Run(ctx, fillJob(k, 0, 1)))
	select {
	case got := <-lost.ended:
		if !strings.HasPrefix(got, "lost: ") {
			t.Errorf("the guilty one: %s", got)
		}
	case <-ctx.Done():
		t.Fatal("nothing is lost")
	}
	await(t, ended.ended, "completed")
	must(victim.Suspend(ctx))
	image, err := victim.Save(ctx)
	must(err)
	_, contents, err := rig.Copy(image)
	must(err)
	if n := binary.LittleEndian.Uint64(contents[1]); n != fillGroups {
		t.Errorf("%d workgroups counted, want %d", n, fillGroups)
	}
	must(victim.Destroy(ctx))
	must(guilty.Destroy(ctx))
	must(dev.Close(ctx))
}
