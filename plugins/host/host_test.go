package host_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

var errClosed = errors.Join(errors.New("gone"), core.ErrClosed)

// hooks counts what the loop calls.
type hooks struct{ looks, flushes, idles int }

func (h *hooks) Look()  { h.looks++ }
func (h *hooks) Flush() { h.flushes++ }
func (h *hooks) Idle()  { h.idles++ }

func TestLoopOnAVirtualClock(t *testing.T) {
	clock, line, h := hw.NewVirtualClock(), hw.NewLine(), &hooks{}
	var l *host.Loop
	l = host.NewLoop(host.LoopConfig{Clock: clock, Interrupt: line, Closed: errClosed, Hooks: h, Pump: func() bool {
		l.Step()
		at, pending := clock.Next()
		clock.Advance(at - clock.Now())
		return pending
	}})
	l.Start()
	line.Raise()
	if !l.Step() || l.Step() || h.looks != 1 || h.idles != 2 || h.flushes != 3 {
		t.Errorf("%+v", *h)
	}
	ctx := context.Background()
	err := l.Call(ctx, "wait", func(done func(error)) {
		stopped := l.After(time.Millisecond, func() { done(errors.New("a stopped timer")) })
		l.After(time.Second, func() { done(nil); done(errors.New("twice")) })
		stopped.Stop()
	})
	if err != nil || clock.Now() != time.Second {
		t.Errorf("%v at %s", err, clock.Now())
	}
	if err := l.Call(ctx, "wait", func(func(error)) {}); !errors.Is(err, core.ErrDeadline) {
		t.Errorf("nobody answers: %v", err)
	}
	lost := errors.New("lost")
	err = l.Call(ctx, "wait", func(func(error)) {
		l.After(time.Second, func() { t.Error("a timer after the failure") })
		l.Fail(lost)
		l.Fail(errors.New("again"))
		l.LookAgain() // Nobody looks any more.
	})
	clock.Advance(time.Minute)
	line.Raise() // A device that was given up may still signal.
	l.Step()
	if again := l.Call(ctx, "wait", func(func(error)) {}); !errors.Is(err, lost) || !errors.Is(again, lost) {
		t.Errorf("%v, %v", err, again)
	}
	if err := l.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := l.Call(ctx, "wait", func(func(error)) {}); !errors.Is(err, core.ErrClosed) || l.Post(func() {}) {
		t.Errorf("after close: %v", err)
	}
}

// TestStoppedTimer stops a timer between the clock's call and the loop's next step.
func TestStoppedTimer(t *testing.T) {
	clock := hw.NewVirtualClock()
	l := host.NewLoop(host.LoopConfig{Clock: clock, Interrupt: hw.NewLine(), Closed: errClosed, Hooks: &hooks{}})
	calls := 0
	stopped := l.After(time.Second, func() { t.Error("a stopped timer acted") })
	l.After(time.Second, func() { calls++ })
	clock.Advance(time.Second)
	if !stopped.Stop() || stopped.Stop() {
		t.Error("stop reports wrongly")
	}
	l.Step()
	l.Step()
	if calls != 1 {
		t.Errorf("the other timer acted %d times", calls)
	}
}

// TestLoopListens: after a move only the other hardware is heard.
func TestLoopListens(t *testing.T) {
	before, after, h := hw.NewLine(), hw.NewLine(), &hooks{}
	l := host.NewLoop(host.LoopConfig{Clock: hw.NewVirtualClock(), Interrupt: before, Closed: errClosed, Hooks: h})
	l.Post(func() { l.Listen(after) })
	l.Step()
	before.Raise()
	l.Step()
	if h.looks != 0 {
		t.Error("the old line is heard")
	}
	after.Raise()
	l.Step()
	if h.looks != 1 {
		t.Errorf("%d looks after a signal", h.looks)
	}
}

func TestLoopWithItsGoroutine(t *testing.T) {
	line, h := hw.NewLine(), &hooks{}
	l := host.NewLoop(host.LoopConfig{Clock: hw.NewRealClock(), Interrupt: line, Closed: errClosed, Hooks: h})
	l.Start()
	line.Raise()
	var waits []func(error)
	if err := l.Call(context.Background(), "wait", func(done func(error)) {
		waits = append(waits, done)
		l.Post(func() { host.Answer(&waits, nil) })
	}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Call(ctx, "wait", func(func(error)) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v", err)
	}
	for range 2 {
		if err := l.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

// TestMemoryMoves: what was handed out stays so in the copy, and what is handed out next lies there.
func TestMemoryMoves(t *testing.T) {
	var arenas [2]*hw.Arena
	for i := range arenas {
		var err error
		if arenas[i], err = hw.NewArena(16 << 20); err != nil {
			t.Fatal(err)
		}
		defer arenas[i].Close()
	}
	m, err := host.NewMemory(arenas[0], 1<<32, errClosed)
	if err != nil {
		t.Fatal(err)
	}
	low, high := m.Available()
	buffers, err := m.Place([]core.BufferSpec{{Name: "a", Size: 100}})
	if err != nil {
		t.Fatal(err)
	}
	small, err := hw.NewArena(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if err := m.Move(small); err == nil {
		t.Error("moved to where there is no room")
	}
	if err := m.Move(arenas[1]); err != nil {
		t.Fatal(err)
	}
	header := core.ImageHeader{Version: core.ImageVersion, Buffers: []core.BufferSpec{buffers[0].Spec}}
	if err := m.Fill(context.Background(), buffers, sdk.BufferImage(header, [][]byte{bytes.Repeat([]byte{7}, 100)})); err != nil {
		t.Fatal(err)
	}
	for i, want := range []byte{0, 7} {
		if got, err := arenas[i].Bytes(buffers[0].Device, 100); err != nil || got[0] != want {
			t.Errorf("arena %d holds %d, %v", i, got[0], err)
		}
	}
	if err := m.Unplace(buffers); err != nil {
		t.Error(err)
	}
	if l, h := m.Available(); l != low || h != high {
		t.Errorf("%d and %d are free, were %d and %d", l, h, low, high)
	}
}

func TestMemory(t *testing.T) {
	arena, err := hw.NewArena(16 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	m, err := host.NewMemory(arena, 1<<32, errClosed)
	if err != nil {
		t.Fatal(err)
	}
	low, high := m.Available()
	specs := []core.BufferSpec{{Name: "a", Size: 100}, {Name: "b", Size: hw.Granule + 1}}
	buffers, err := m.Place(specs)
	if err != nil || buffers[1].Virtual != buffers[0].Virtual+2*hw.Granule {
		t.Fatalf("%+v, %v", buffers, err)
	}
	if _, err := m.Place([]core.BufferSpec{specs[0], {Name: "large", Size: m.HighSize()}}); !errors.Is(err, core.ErrFull) {
		t.Errorf("more than there is: %v", err)
	}
	slots, err := m.High(2*host.SlotSize, "slots")
	if err != nil {
		t.Fatal(err)
	}
	table, err := m.Map(buffers, slots, 2*host.SlotSize)
	if err != nil {
		t.Fatal(err)
	}
	code := []byte("code")
	k := core.Kernel{Digest: core.DigestOf(code), Format: "script", Code: code}
	if err := m.Load(k, []string{"other"}); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("another format: %v", err)
	}
	if err := errors.Join(m.Load(k, []string{"script"}), m.Load(k, []string{"script"})); err != nil {
		t.Fatal(err)
	}
	job := sdk.Job{Epoch: 3, Spec: &core.JobSpec{ID: 7, Kernels: map[string]core.Digest{"script": k.Digest}, Entry: "main",
		Grid: [3]uint32{4, 1, 1}, Group: [3]uint32{1, 1, 1}, Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "b"}, {Kind: core.ArgU32, Bits: 9}}}}
	d, args, err := m.Dispatch(job, buffers, []string{"none", "script"})
	if err != nil || args[0].Bits != buffers[1].Virtual {
		t.Fatalf("%+v, %v", args, err)
	}
	d.First, d.Count = 1, 3
	slot := host.SlotAt(slots, 1)
	if err := host.WriteDispatch(arena, slot, d, args); err != nil {
		t.Fatal(err)
	}
	space, err := hw.ReadSpace(arena, table)
	if err != nil {
		t.Fatal(err)
	}
	if at, err := space.Resolve(slot.Virtual, hw.DispatchSize); err != nil || at != slot.Device {
		t.Errorf("the descriptor is at %#x, %v", at, err)
	}
	half, err := arena.Bytes(slot.Device, hw.DispatchSize)
	if err != nil {
		t.Fatal(err)
	}
	back, err := hw.DecodeDispatch(half)
	if at, where := space.Resolve(back.KernelAddress, back.KernelSize); err != nil || where != nil || back.Job != 7 || back.Count != 3 {
		t.Errorf("%+v at %#x, %v, %v", back, at, err, where)
	}
	job.Spec.Args[0].Buffer = "c"
	if _, _, err := m.Dispatch(job, buffers, []string{"script"}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("no such buffer: %v", err)
	}

	header := core.ImageHeader{Version: core.ImageVersion, Buffers: specs}
	image := sdk.BufferImage(header, [][]byte{bytes.Repeat([]byte{1}, 100), bytes.Repeat([]byte{2}, int(specs[1].Size))})
	if err := m.Fill(context.Background(), buffers, image); err != nil {
		t.Fatal(err)
	}
	saved, err := m.Image(core.ImageHeader{Version: core.ImageVersion}, buffers)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	each := func(_ core.ChunkRef, b []byte) error {
		for _, v := range b {
			sum += int(v)
		}
		return nil
	}
	if err := saved.Chunks(each); err != nil || sum != 100+2*int(specs[1].Size) {
		t.Errorf("%d, %v", sum, err)
	}
	if err := errors.Join(m.FreeLow(table), m.FreeHigh(slots), m.FreeLow(0), m.Unplace(buffers)); err != nil {
		t.Error(err)
	}
	if l, h := m.Available(); l != low || h != high {
		t.Errorf("%d and %d are free, were %d and %d", l, h, low, high)
	}
	m.Close()
	if err := saved.Chunks(each); !errors.Is(err, core.ErrClosed) {
		t.Errorf("an image after close: %v", err)
	}
}
