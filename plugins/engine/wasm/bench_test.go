package wasm

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// direct is the floor: wazero called in a loop, one instance per core on one
// shared memory, each core its share of the range.
type direct struct {
	entries []api.Function
	args    uint64
}

func newDirect(b *testing.B, cores int, rounds uint64) *direct {
	b.Helper()
	ctx := context.Background()
	k := kernel(b, "basic")
	in, err := Inspect(k.Code)
	if err != nil {
		b.Fatal(err)
	}
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCoreFeatures(features))
	b.Cleanup(func() { _ = r.Close(ctx) })
	const pages = 1024
	memory, err := reserve(pages * pageSize)
	if err != nil {
		b.Fatal(err)
	}
	withMemory := experimental.WithMemoryAllocator(ctx, memory)
	env, err := r.InstantiateWithConfig(withMemory, envModule(pages, pages, true), wazero.NewModuleConfig().WithName("env"))
	if err != nil {
		b.Fatal(err)
	}
	code, err := r.CompileModule(ctx, k.Code)
	if err != nil {
		b.Fatal(err)
	}
	d := &direct{args: in.base}
	for w := range cores {
		mod, err := r.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(""))
		if err != nil {
			b.Fatal(err)
		}
		mod.ExportedGlobal("__stack_pointer").(api.MutableGlobal).Set(in.base + uint64(w+2)*4*pageSize)
		d.entries = append(d.entries, mod.ExportedFunction("spin"))
	}
	var args [16]byte
	binary.LittleEndian.PutUint64(args[:], in.base+512*pageSize)
	binary.LittleEndian.PutUint64(args[8:], rounds)
	env.Memory().Write(uint32(d.args), args[:])
	return d
}

func (d *direct) run(workgroups uint64) {
	var wg sync.WaitGroup
	share := workgroups / uint64(len(d.entries))
	for w, entry := range d.entries {
		wg.Go(func() {
			var stack [4]uint64
			for i := uint64(w) * share; i < uint64(w+1)*share; i++ {
				stack = [4]uint64{d.args, i, 0, 0}
				if err := entry.CallWithStack(context.Background(), stack[:]); err != nil {
					panic(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkEngineAgainstWazero runs the same workgroups through the engine and
// in a bare loop; ratio is the engine's speed over the loop's (budget: 0.85).
func BenchmarkEngineAgainstWazero(b *testing.B) {
	for _, cores := range []int{1, runtime.NumCPU()} {
		for _, rounds := range []uint64{500, 20_000} {
			b.Run(fmt.Sprintf("cores=%d/rounds=%d", cores, rounds), func(b *testing.B) {
				workgroups := 200_000_000 / rounds / 10 &^ 63
				floor := newDirect(b, cores, rounds)
				e := newEngine(b, Config{Cores: cores})
				segments := arena(b, false, pageSize)
				d := engine.Dispatch{Kernel: kernel(b, "basic"), Entry: "spin", Args: []engine.Arg{buffer(segments[0]), scalar(rounds)},
					Grid: [3]uint32{uint32(workgroups), 1, 1}, Count: workgroups, Space: 1, Segments: segments}
				var ours, theirs time.Duration
				run(b, e, d)
				floor.run(workgroups)
				for b.Loop() {
					begin := time.Now()
					run(b, e, d)
					middle := time.Now()
					floor.run(workgroups)
					ours += middle.Sub(begin)
					theirs += time.Since(middle)
				}
				report(b, workgroups, ours, theirs)
			})
		}
	}
}

// BenchmarkSlicing runs a range in one dispatch, and in slices of about 10 ms as
// a firmware with a quantum does; ratio is sliced speed over unsliced (budget: 0.98).
func BenchmarkSlicing(b *testing.B) {
	e := newEngine(b, Config{})
	segments := arena(b, false, pageSize)
	const workgroups, slices = 2560, 20
	d := engine.Dispatch{Kernel: kernel(b, "basic"), Entry: "spin", Args: []engine.Arg{buffer(segments[0]), scalar(20_000)},
		Grid: [3]uint32{workgroups, 1, 1}, Count: workgroups, Space: 1, Segments: segments}
	run(b, e, d)
	var sliced, whole time.Duration
	for b.Loop() {
		begin := time.Now()
		run(b, e, d)
		middle := time.Now()
		for i := range uint64(slices) {
			s := d
			s.First, s.Count = i*workgroups/slices, (i+1)*workgroups/slices-i*workgroups/slices
			run(b, e, s)
		}
		whole += middle.Sub(begin)
		sliced += time.Since(middle)
	}
	report(b, workgroups, sliced, whole)
}

// report prints our figure, the floor's and the ratio.
func report(b *testing.B, workgroups uint64, ours, floor time.Duration) {
	total := float64(workgroups) * float64(b.N)
	b.ReportMetric(total/ours.Seconds(), "workgroups/s")
	b.ReportMetric(total/floor.Seconds(), "floor-workgroups/s")
	b.ReportMetric(floor.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}
