package fw_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/engine"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// TestBadWork: how each kind of bad work ends, and that the next job of another queue runs.
func TestBadWork(t *testing.T) {
	descriptor := func(h *host, at uint64) []byte {
		b, err := h.arena.Bytes(at, hw.DispatchSize)
		if err != nil {
			h.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		script string
		spoil  func(h *host, at uint64)
		fault  bool
		cause  hw.Cause
	}{
		"trap":         {"trap at 2", nil, true, hw.CauseTrap},
		"no script":    {"nonsense", nil, false, hw.CauseKernel},
		"digest":       {"workgroup=1ms", func(h *host, at uint64) { descriptor(h, at)[0x18]++ }, false, hw.CauseKernel},
		"kernel":       {"workgroup=1ms", func(h *host, at uint64) { descriptor(h, at)[0x0d] = 0x77 }, true, hw.CauseMemory},
		"arguments":    {"workgroup=1ms", func(h *host, at uint64) { descriptor(h, at)[0x8c] = 0x77 }, true, hw.CauseMemory},
		"magic":        {"workgroup=1ms", func(h *host, at uint64) { descriptor(h, at)[0]++ }, false, hw.CauseDescriptor},
		"report":       {"workgroup=1ms", func(h *host, at uint64) { descriptor(h, at)[hw.ReportOffset] = 99 }, false, hw.CauseDescriptor},
		"empty grid":   {"workgroup=1ms", func(h *host, at uint64) { clear(descriptor(h, at)[0x98:0xa4]) }, false, hw.CauseDescriptor},
		"unmapped VM":  {"workgroup=1ms", func(h *host, at uint64) { _ = h.arena.Store64(tableAt+abi.ContextEntry(1), 0) }, true, hw.CauseNone},
		"broken space": {"workgroup=1ms", func(h *host, at uint64) { _ = h.arena.Store32(spacesAt+0x1000, 1) }, true, hw.CauseNone},
	} {
		t.Run(name, func(t *testing.T) {
			h := newReady(t, nil)
			q, other := h.queue(2, 1, 1), h.queue(2, 2, 2)
			work := h.dispatch(c.script, 4)
			value := q.command(work, nil)
			if c.spoil != nil {
				c.spoil(h, work)
			}
			q.expect(1)
			q.kick()
			other.submit("workgroup=1ms", 1)
			h.advance(20 * time.Millisecond)
			if r, err := hw.ReadReport(h.arena, work, 4); err == nil && c.cause != hw.CauseNone && (r.Status != hw.StatusFault || r.Cause != c.cause || r.Detail == "") {
				t.Errorf("%+v, want %s", r, c.cause)
			}
			if fault, valid := abi.DecodeMMUFault(h.faultRegister); valid != c.fault || valid && fault.VMSlot != 1 {
				t.Errorf("fault register %#x", h.faultRegister)
			}
			if !c.fault {
				if e, ok := h.seen[0].(*abi.ChannelError); !ok || abi.ChannelErrorType(e.Error) != abi.ChannelDMKill {
					t.Fatalf("events %v", h.seen)
				}
				h.do(&abi.RecoverChannel{Pipe: uint32(abi.PipeCompute), Queue: q.info, Value: value})
			}
			if h.stamp(1) != value || h.stamp(2) != other.value {
				t.Errorf("stamps %#x %#x", h.stamp(1), h.stamp(2))
			}
		})
	}
}

// TestWatchdog: a workgroup that hangs, and what counts.
func TestWatchdog(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fw.Config)
		script string
		at     time.Duration // 0: never
	}{
		"vendor":          {nil, "hang at 2", 2500 * time.Millisecond},
		"unit":            {func(c *fw.Config) { c.WatchdogUnit = time.Millisecond }, "hang at 2", 250 * time.Millisecond},
		"live":            {func(c *fw.Config) { c.Watchdog = fw.LiveWatchdog }, "hang at 2", 10 * time.Second},
		"slow":            {nil, "workgroup=300ms", 2500 * time.Millisecond},
		"slow, progress":  {func(c *fw.Config) { c.WatchdogByProgress = true }, "workgroup=300ms", 0},
		"hung, progress":  {func(c *fw.Config) { c.WatchdogByProgress = true }, "workgroup=2s hang at 1", 5 * time.Second},
		"short, progress": {func(c *fw.Config) { c.WatchdogByProgress = true }, "workgroup=1ms", 0},
	} {
		h := newReady(t, c.change)
		q := h.queue(2, 1, 1)
		work, value := q.submit(c.script, 20)
		if c.at == 0 {
			if h.advance(time.Minute); h.report(work, 20).Status != hw.StatusDone || h.fw.Counters().Halts != 0 {
				t.Errorf("%s: %+v", name, h.report(work, 20))
			}
			continue
		}
		if h.advance(c.at - 1); h.fw.Counters().Halts != 0 {
			t.Errorf("%s: too early", name)
		}
		h.advance(2 * time.Millisecond)
		if r := h.report(work, 20); r.Status != hw.StatusFault || r.Cause != hw.CauseHang || h.stamp(1) != value {
			t.Errorf("%s: %+v, stamp %#x", name, r, h.stamp(1))
		}
	}
}

// TestNeverLeaves: a dispatch that nothing takes off makes the firmware give up,
// with everything said before.
func TestNeverLeaves(t *testing.T) {
	h := newPlanned(t, "command stuck", nil)
	work, value := h.queue(2, 9, 1).submit("workgroup=1ms", 4)
	h.advance(2500 * time.Millisecond)
	e, ok := h.seen[0].(*abi.Timeout)
	if !ok || e.Slot != 9 || h.status.Load(abi.FwStatusHalted) != 0 || h.status.Load(abi.FwStatusHaltCount) != 1 {
		t.Fatalf("events %v", h.seen)
	}
	base := h.abi.PendingStampsOffset() / 4
	if p, ok := h.abi.DecodePendingStamp(h.globals.Load(base), h.globals.Load(base+1)); !ok || p.Slot != 9 || p.Value != value {
		t.Errorf("pending %+v", p)
	}
	h.advance(100 * time.Millisecond)
	if r := h.report(work, 4); !h.crashed || r.Status != hw.StatusFault || r.Cause != hw.CauseHang {
		t.Errorf("%s, %+v", h.fw.Phase(), r)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.fw.Run(ctx); !errors.Is(err, hw.ErrRunning) {
		t.Errorf("run: %v", err)
	}
}

// TestSlowVictim: a victim that does not come to the end of a workgroup is ended
// in the middle of it, where the engine can do that.
func TestSlowVictim(t *testing.T) {
	h := newPlanned(t, "command id=3 fault", func(c *fw.Config) { c.Width = 2 })
	a, b := h.queue(2, 1, 1), h.queue(2, 2, 2)
	victim, _ := a.submit("workgroup=1s", 3)
	h.advance(time.Millisecond)
	b.submit("workgroup=1ms", 1)
	h.advance(time.Second)
	if r := h.report(victim, 3); r.Status != hw.StatusFault || r.Cause != hw.CauseEngine || h.fw.Dead() {
		t.Errorf("%s, %+v", h.fw.Phase(), r)
	}
	if h.stamp(1) != a.value || h.stamp(2) != b.value {
		t.Errorf("stamps %#x %#x", h.stamp(1), h.stamp(2))
	}
}

// refusing is an engine that starts nothing.
type refusing struct{ engine.Engine }

func (refusing) Start(engine.Dispatch, func()) (engine.Execution, error) {
	return nil, errors.New("no memory")
}

// counting counts what is forgotten.
type counting struct {
	engine.Engine
	forgotten *[]uint64
	started   *[]uint64
}

func (c counting) Forget(space uint64) { *c.forgotten = append(*c.forgotten, space) }
func (c counting) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	*c.started = append(*c.started, d.Space)
	return c.Engine.Start(d, notify)
}

func TestEngineRefuses(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.Engine = refusing{c.Engine} })
	work, _ := h.queue(2, 1, 1).submit("workgroup=1ms", 1)
	if r := h.report(work, 1); r.Cause != hw.CauseEngine || r.Status != hw.StatusFault || len(h.seen) != 1 {
		t.Errorf("%+v, events %v", r, h.seen)
	}
}

// TestSpaces: a changed address space is a new one for the engine, and the old one
// is forgotten when nothing runs in it.
func TestSpaces(t *testing.T) {
	var forgotten, started []uint64
	h := newReady(t, func(c *fw.Config) { c.Engine, c.Width = counting{c.Engine, &forgotten, &started}, 2 })
	q, twin := h.queue(2, 1, 1), h.queue(2, 2, 1)
	q.submit("workgroup=10ms", 1)
	if err := hw.WriteSpace(h.arena, spacesAt+0x1000, hw.Space{
		{Address: bufferVA, Device: buffersAt + 40*hw.Granule, Size: hw.Granule},
		{Address: kernelVA, Device: kernelsAt, Size: hw.Granule, Private: true},
		{Address: workVA, Device: objectsAt, Size: 32 << 20, Private: true},
	}); err != nil {
		t.Fatal(err)
	}
	twin.submit("workgroup=1ms", 1)
	twin.submit("workgroup=1ms", 1)
	if h.advance(5 * time.Millisecond); len(forgotten) != 0 {
		t.Errorf("forgotten while it runs: %v", forgotten)
	}
	if h.advance(10 * time.Millisecond); len(forgotten) != 1 || forgotten[0] != started[0] || started[1] == started[0] || started[2] != started[1] {
		t.Errorf("started %v, forgotten %v", started, forgotten)
	}
	_ = h.arena.Store64(tableAt+abi.ContextEntry(1), 0)
	if h.do(abi.Flush()); len(forgotten) != 2 {
		t.Errorf("forgotten %v", forgotten)
	}
}

// TestContinue: a descriptor that was done in part goes on, one that is done is passed over.
func TestContinue(t *testing.T) {
	h := newReady(t, nil)
	q := h.queue(2, 1, 1)
	for done, want := range map[uint64]time.Duration{3: 2 * time.Millisecond, 5: 0} {
		work := h.dispatch("workgroup=1ms", 5)
		if err := hw.WriteReport(h.arena, work, hw.Report{Status: hw.StatusPreempted, Done: done, Executed: done}); err != nil {
			t.Fatal(err)
		}
		value := q.command(work, nil)
		q.expect(1)
		q.kick()
		h.advance(want)
		if r := h.report(work, 5); r.Done != 5 || r.Executed != 5 || h.stamp(1) != value {
			t.Errorf("%+v, stamp %#x", r, h.stamp(1))
		}
		h.advance(10 * time.Millisecond)
	}
}

// TestRun runs the shell in real time.
func TestRun(t *testing.T) {
	h := newHost(t, func(c *fw.Config) {
		c.Clock = hw.NewRealClock()
		c.Engine = testengine.New(testengine.Config{Clock: realClock{c.Clock}})
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
	go func() { ended <- h.fw.Run(ctx) }()
	<-h.ports.Interrupt.C()
	if m := h.take(); len(m) != 1 || m[0].String() != "HELLO 11..12" {
		t.Errorf("messages %v", m)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

type realClock struct{ hw.Clock }

func (c realClock) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return c.Clock.AfterFunc(d, f)
}
