package order_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/order"
)

var errUnmapped = errors.New("unmapped")

// memory is a space of one mapping of kernels and one that they see.
func memory(t *testing.T) (*hw.Arena, order.Memory) {
	t.Helper()
	arena, err := hw.NewArena(1 << 22)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = arena.Close() })
	seen := hw.Mapping{Address: 1 << 40, Device: 1 << 20, Size: hw.Granule}
	return arena, order.Memory{
		Arena: arena, Visible: hw.Space{seen}, Read: arena.Bytes,
		Unmapped: func(address uint64, err error) error {
			return fmt.Errorf("%w at %#x: %w", errUnmapped, address, err)
		},
	}
}

func write(t *testing.T, arena *hw.Arena, at uint64, b []byte) {
	t.Helper()
	to, err := arena.Bytes(at, uint64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	copy(to, b)
}

func TestOrder(t *testing.T) {
	arena, from := memory(t)
	code := []byte("a kernel")
	const kernelAt, argsAt = 1 << 21, 1<<21 + 1<<12
	write(t, arena, kernelAt, code)
	slots := make([]byte, 2*hw.ArgSize)
	if err := hw.EncodeArgs(slots, []hw.Arg{{Buffer: true, Bits: 1<<40 + 64}, {Bits: 7}}); err != nil {
		t.Fatal(err)
	}
	write(t, arena, argsAt, slots)
	d := hw.Dispatch{
		KernelAddress: kernelAt, KernelSize: uint64(len(code)), Digest: core.DigestOf(code), Format: "test", Entry: "run",
		ArgsAddress: argsAt, ArgsCount: 2, Grid: [3]uint32{10, 1, 1}, Group: [3]uint32{1, 1, 1}, First: 2, Count: 8, Job: 3, Epoch: 4,
	}
	var kernels order.Kernels
	work, err := kernels.Order(d, 5, from)
	if err != nil {
		t.Fatal(err)
	}
	if work.First != 7 || work.Count != 3 || work.Job != 3 || work.Epoch != 4 || len(work.Args) != 2 || !work.Args[0].Buffer || work.Args[1].Bits != 7 ||
		len(work.Segments) != 1 || work.Segments[0].Offset != 1<<20 || string(work.Kernel.Code) != "a kernel" {
		t.Errorf("%+v", work)
	}

	// A verified kernel is a copy: what the host writes over it does not count.
	write(t, arena, kernelAt, []byte("another!"))
	if work, err = kernels.Order(d, 0, from); err != nil || string(work.Kernel.Code) != "a kernel" {
		t.Errorf("%q, %v", work.Kernel.Code, err)
	}
	var fe *core.FaultError
	if _, err = new(order.Kernels).Order(d, 0, from); !errors.As(err, &fe) || fe.Cause != core.CauseKernel {
		t.Errorf("a kernel without its digest: %v", err)
	}

	from.Visible = nil
	if _, err = kernels.Order(d, 0, from); !errors.Is(err, errUnmapped) {
		t.Errorf("an argument that kernels do not see: %v", err)
	}
	write(t, arena, argsAt, []byte{0xff})
	if _, err = kernels.Order(d, 0, from); !errors.Is(err, hw.ErrInvalid) {
		t.Errorf("a malformed argument: %v", err)
	}
	d.ArgsAddress = 1 << 30
	if _, err = kernels.Order(d, 0, from); !errors.Is(err, hw.ErrBounds) {
		t.Errorf("arguments nowhere: %v", err)
	}
}

// execution says what it is told to.
type execution struct {
	done uint64
	took time.Duration
	ends engine.Result
}

func (x execution) Stop()                             {}
func (x execution) Progress() (uint64, time.Duration) { return x.done, x.took }
func (x execution) Result() engine.Result             { return x.ends }

func TestReports(t *testing.T) {
	base := hw.Report{Done: 4, Executed: 6, ExecutedTime: 10}
	x := execution{9, 5, engine.Result{Done: 3, Executed: 4, Err: errUnmapped}}
	if r := order.Progress(base, 10, x); r.Done != 10 || r.Executed != 15 || r.ExecutedTime != 15 {
		t.Errorf("no more than the range is done: %+v", r)
	}
	if r, err := order.Settle(base, 10, x); r.Done != 7 || r.Executed != 15 || r.ExecutedTime != 14 || err != errUnmapped {
		t.Errorf("what is done is a prefix: %+v, %v", r, err)
	}
	trap := &core.FaultError{Cause: core.CauseTrap}
	if order.FaultOf(fmt.Errorf("run: %w", trap)) != trap || order.FaultOf(errUnmapped).Cause != core.CauseDevice {
		t.Error("faults")
	}
	for c, want := range map[core.Cause]hw.Cause{core.CauseTrap: hw.CauseTrap, core.CauseMemory: hw.CauseMemory, core.CauseHang: hw.CauseHang,
		core.CauseKernel: hw.CauseKernel, core.CauseDevice: hw.CauseEngine} {
		if order.CauseOf(c) != want {
			t.Errorf("%s: %v", c, order.CauseOf(c))
		}
	}
}
