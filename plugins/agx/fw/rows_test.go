package fw_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// halted is what a test of a halt expects.
type halted struct {
	plan  string
	valid bool  // the fault register
	vm    uint8 // in it
	slot  int32 // of the Timeout; faultEvent for a Fault
	cause hw.Cause
}

const faultEvent = -100

// TestHalts are rows 1, 2, 4, 5 and 6: two commands run, one is to blame.
func TestHalts(t *testing.T) {
	for _, c := range []halted{
		{"command id=2 fault", true, 1, faultEvent, hw.CauseMemory},
		{"command id=2 fault-vm=9", true, 9, faultEvent, hw.CauseMemory},
		{"command id=2 fault-unknown", false, 0, faultEvent, hw.CauseMemory},
		{"command id=2 hang", false, 0, 11, hw.CauseHang},
		{"command id=2 hang-fault", true, 1, 11, hw.CauseHang},
		{"command id=2 hang-nobody", false, 0, -1, hw.CauseHang},
	} {
		t.Run(c.plan, func(t *testing.T) {
			h := newPlanned(t, c.plan, func(cfg *fw.Config) { cfg.Width, cfg.HaltGrace = 2, time.Second })
			bad, good := h.queue(2, 11, 1), h.queue(2, 12, 2)
			var badWork, goodWork uint64
			var badValue, goodValue uint32
			want := []abi.PendingStamp{{Slot: 12, Value: abi.StampStep}, {Slot: 11, Value: abi.StampStep}}
			if c.slot == faultEvent { // Comes at once: the victim has to be there.
				goodWork, goodValue = good.submit("workgroup=10ms", 100)
				h.advance(15 * time.Millisecond)
				badWork, badValue = bad.submit("workgroup=1ms", 10)
			} else { // Comes with the watchdog: the victim must not be first.
				badWork, badValue = bad.submit("workgroup=1ms", 10)
				h.advance(time.Second)
				goodWork, goodValue = good.submit("workgroup=300ms", 100)
				slices.Reverse(want)
			}
			next, _ := good.submit("workgroup=1ms", 1)
			h.advance(5 * time.Second)
			if r := h.report(badWork, 10); r.Status != hw.StatusFault || r.Cause != c.cause {
				t.Errorf("guilty: %+v", r)
			}
			if r := h.report(goodWork, 100); r.Status != hw.StatusPreempted || r.Cause != hw.CauseNone || r.Done == 0 {
				t.Errorf("victim: %+v", r)
			}
			if r := h.report(next, 1); r.Status != hw.StatusDone {
				t.Errorf("next: %+v", r)
			}
			fault, ok := abi.DecodeMMUFault(h.faultRegister)
			if ok != c.valid || ok && fault.VMSlot != c.vm {
				t.Errorf("fault register %#x", h.faultRegister)
			}
			if !slices.Equal(h.halts, want) {
				t.Errorf("pending stamps %v, want %v", h.halts, want)
			}
			switch e := h.seen[0].(type) {
			case *abi.Fault:
				if c.slot != faultEvent {
					t.Error("a Fault")
				}
			case *abi.Timeout:
				if e.Slot != c.slot || e.Counter != 0 {
					t.Errorf("timeout %+v", e)
				}
			}
			if h.status.Load(abi.FwStatusHaltCount) != 1 || h.status.Load(abi.FwStatusResume) != 0 || h.ports.Registers.Load(abi.RegFaultInfo) != 0 {
				t.Error("halt protocol")
			}
			if h.stamp(11) != badValue || goodValue != abi.StampStep || h.fwStamp(11) != badValue || !slices.Contains(h.flags(), 11) {
				t.Errorf("stamp %#x", h.stamp(11))
			}
			if n := h.fw.Counters(); n.Halts != 1 || n.Killed != 2 {
				t.Errorf("%+v", n)
			}
		})
	}
}

// TestSoftFault is row 3.
func TestSoftFault(t *testing.T) {
	h := newPlanned(t, "command soft-fault", nil)
	work, value := h.queue(2, 1, 1).submit("workgroup=1ms", 3)
	h.advance(time.Millisecond)
	if r := h.report(work, 3); r.Status != hw.StatusDone || r.Executed != 0 || h.stamp(1) != value || h.fw.Counters().Halts != 0 {
		t.Errorf("%+v, stamp %#x", r, h.stamp(1))
	}
}

// TestStaleTimeout is row 7.
func TestStaleTimeout(t *testing.T) {
	h := newPlanned(t, "command hang; halt stale", nil)
	h.queue(2, 1, 1).submit("workgroup=1ms", 3)
	h.advance(5 * time.Second)
	var counters []uint32
	for _, e := range h.seen {
		if e, ok := e.(*abi.Timeout); ok {
			counters = append(counters, e.Counter)
		}
	}
	if !slices.Equal(counters, []uint32{0, 0}) || h.fw.Counters().Halts != 1 {
		t.Errorf("counters %v", counters)
	}
}

// TestRecoveryFails are rows 8, 9 and 10 during recovery.
func TestRecoveryFails(t *testing.T) {
	for plan, check := range map[string]func(h *host) bool{
		"command fault; halt never-halts":   func(h *host) bool { return h.status.Load(abi.FwStatusHalted) == 0 && len(h.halts) == 0 },
		"command fault; halt ignore-resume": func(h *host) bool { return h.status.Load(abi.FwStatusResume) == 1 && h.stamp(1) == 0 },
		"command fault; halt crash":         func(h *host) bool { return h.crashed && h.stamp(1) == 0 },
		"command fault; halt again": func(h *host) bool {
			return h.status.Load(abi.FwStatusHaltCount) == 2 && len(h.halts) == 2 && h.stamp(1) == abi.StampStep
		},
	} {
		h := newPlanned(t, plan, nil)
		h.queue(2, 1, 1).submit("workgroup=1ms", 3)
		if h.advance(time.Second); !check(h) {
			t.Errorf("%s: halted %d resume %d, %d pending, stamp %#x", plan, h.status.Load(abi.FwStatusHalted),
				h.status.Load(abi.FwStatusResume), len(h.halts), h.stamp(1))
		}
	}
}

// TestCrashes is row 10: everything is frozen in every phase.
func TestCrashes(t *testing.T) {
	for _, plan := range []string{"pipe crash", "command crash", "stamp crash", "retired crash", "event crash", "rx nth=3 crash", "barrier crash", "power-off crash", "log nth=2 crash"} {
		h := newPlanned(t, plan, nil)
		a, b := h.queue(2, 1, 1), h.queue(2, 2, 2)
		a.submit("workgroup=1ms", 1)
		h.advance(2 * time.Millisecond)
		if !h.fw.Dead() {
			b.barrier(a, a.value)
			b.submit("workgroup=1ms", 1)
			h.do(&abi.Control{Type: abi.ControlGrowTVBAck}) // Makes a line of the log.
		}
		h.advance(10 * time.Millisecond)
		if !h.crashed || !h.fw.Dead() {
			t.Errorf("%s: %s", plan, h.fw.Phase())
			continue
		}
		if text, err := abi.DecodeCrashLog(h.bytes(h.crashLog, 4*abi.BufferPageBytes)); err != nil || text != h.fw.CrashText() {
			t.Errorf("%s: %q, %v", plan, text, err)
		}
		before, waiting := h.fw.Counters(), h.in.Len()
		h.send(abi.DoorbellMessage(abi.DoorbellKick))
		h.ports.Registers.Store(abi.RegCPUControl, 0)
		h.step()
		h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
		h.advance(time.Second)
		if h.fw.Counters() != before || h.in.Len() != waiting+1 {
			t.Errorf("%s: it lives: %+v", plan, h.fw.Counters())
		}
	}
}

// TestCrashWaitsForRoom: a crash that finds the mailbox full is told when the host takes from it.
func TestCrashWaitsForRoom(t *testing.T) {
	h := newReady(t, nil)
	h.paused = true
	for h.out.Put(abi.RXMessage().Encode()) {
	}
	h.fw.Crash("no room")
	if h.fw.Step(); !h.fw.Dead() || h.ports.Registers.Load(abi.RegCPUStatus) != abi.CPUStopped {
		t.Errorf("%s", h.fw.Phase())
	}
	if h.advance(10 * time.Millisecond); !h.crashed {
		t.Error("nobody was told")
	}
	if _, pending := h.clock.Next(); pending {
		t.Error("a dead firmware has something to do")
	}
}

// TestEvents are rows 13, 14, 17 and 26: what happens to an event.
func TestEvents(t *testing.T) {
	for plan, want := range map[string][]uint32{
		"event/Flag drop":            nil,
		"rx nth=3 times=always drop": {1},
		"event/Flag duplicate":       {1, 1},
		"event/Flag slot-is=99":      {99},
		"event/Flag id=1 delay=5ms":  {1},
		"event/Flag type=5":          {1},
		"event/Flag id=7 drop":       {1},
	} {
		h := newPlanned(t, plan, nil)
		_, value := h.queue(2, 1, 1).submit("workgroup=1ms", 1)
		h.advance(2 * time.Millisecond)
		if got := h.flags(); plan == "event/Flag id=1 delay=5ms" && len(got) > 0 {
			t.Errorf("%s: too early", plan)
		} else if plan != "event/Flag id=1 delay=5ms" && !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", plan, got, want)
		}
		if h.advance(10 * time.Millisecond); h.stamp(1) != value {
			t.Errorf("%s: stamp %#x", plan, h.stamp(1))
		}
		if (h.unknown == 1) != (plan == "event/Flag type=5") {
			t.Errorf("%s: %d unknown events", plan, h.unknown)
		}
	}
}

// TestSpoiltStamps are rows 14 and 15.
func TestSpoiltStamps(t *testing.T) {
	for plan, want := range map[string]uint32{"stamp id=1 keep": 0x800, "stamp id=1 back=3": 0x600, "stamp id=1 jump=200": 0x800 + 201*0x100} {
		h := newPlanned(t, plan, nil)
		h.setStamps(1, 0x800)
		q := h.queue(2, 1, 1)
		q.submit("workgroup=1ms", 1)
		h.advance(2 * time.Millisecond)
		if h.stamp(1) != want || h.fwStamp(1) != 0x900 || !slices.Equal(h.flags(), []uint32{1}) {
			t.Errorf("%s: stamp %#x, want %#x", plan, h.stamp(1), want)
		}
		q.submit("workgroup=1ms", 1)
		if h.advance(2 * time.Millisecond); h.stamp(1) != 0xa00 {
			t.Errorf("%s: afterwards %#x", plan, h.stamp(1))
		}
	}
}

// TestFrozenRings are rows 18 and 19.
func TestFrozenRings(t *testing.T) {
	h := newPlanned(t, "pipe nth=2 freeze=20ms; device-control/DestroyContext freeze=20ms", nil)
	q := h.queue(2, 1, 1)
	q.submit("workgroup=1ms", 1)
	h.advance(5 * time.Millisecond)
	_, value := q.submit("workgroup=1ms", 1)
	if h.do(abi.Flush()) {
		t.Error("a frozen ring was consumed")
	}
	if h.advance(10 * time.Millisecond); h.stamp(1) == value {
		t.Error("a frozen pipe was read")
	}
	full := 0
	for {
		if _, err := h.pipes[2].Send(h.abi.Bytes(q.message())); err != nil {
			break
		}
		full++
	}
	if full != abi.RingEntries-2 {
		t.Errorf("%d messages fill the pipe", full)
	}
	if h.advance(30 * time.Millisecond); h.stamp(1) != value || h.fw.Counters().Flushes != 1 {
		t.Errorf("stamp %#x, %d flushes", h.stamp(1), h.fw.Counters().Flushes)
	}
	h = newPlanned(t, "device-control/Write32 drop", nil)
	cell := h.alloc(abi.ClassShared, 4)
	if !h.do(&abi.Write32{Address: cell, Value: 7}) || h.words(cell, 4).Load(0) != 0 {
		t.Error("a message that was to be lost")
	}
}

// TestEventOverflow is row 20, both ways.
func TestEventOverflow(t *testing.T) {
	for _, drop := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.EventDrop = drop })
		h.paused = true
		q := h.queue(2, 1, 1)
		for range abi.RingEntries + 20 {
			q.submit("workgroup=1ms", 1)
			h.advance(2 * time.Millisecond)
		}
		stalled, dropped := h.stamp(1) != q.value, h.fw.Counters().EventsDropped
		if stalled == drop || (dropped > 0) != drop {
			t.Errorf("drop %t: stamp %#x of %#x, %d dropped", drop, h.stamp(1), q.value, dropped)
		}
		h.paused = false
		h.advance(100 * time.Millisecond)
		if n := len(h.flags()); h.stamp(1) != q.value || drop != (n < abi.RingEntries) {
			t.Errorf("drop %t: stamp %#x of %#x, %d flags", drop, h.stamp(1), q.value, n)
		}
	}
	h := newPlanned(t, "event full=5ms", nil)
	h.queue(2, 1, 1).submit("workgroup=1ms", 1)
	if h.advance(3 * time.Millisecond); len(h.flags()) != 0 {
		t.Error("an event in a full ring")
	}
	if h.advance(10 * time.Millisecond); len(h.flags()) != 1 {
		t.Error("the event is lost")
	}
}

// TestChannelErrors is row 21: the queue stops until it is recovered, others go on.
func TestChannelErrors(t *testing.T) {
	for kind := range uint32(4) {
		h := newPlanned(t, "command id=2 channel-error="+string(rune('0'+kind)), nil)
		bad, good := h.queue(0, 1, 1), h.queue(3, 2, 2)
		_, value := bad.submit("workgroup=1ms", 1)
		next, _ := bad.submit("workgroup=1ms", 1)
		good.submit("workgroup=1ms", 1)
		h.advance(10 * time.Millisecond)
		e, ok := h.seen[0].(*abi.ChannelError)
		if !ok || *e != (abi.ChannelError{Error: kind, Pipe: uint32(abi.PipeCompute), Slot: 1, Value: value}) {
			t.Fatalf("events %v", h.seen)
		}
		if h.stamp(1) != 0 || h.stamp(2) != good.value || h.fw.Queues()[0].State != "stopped" {
			t.Errorf("stamps %#x %#x, %v", h.stamp(1), h.stamp(2), h.fw.Queues())
		}
		if !h.do(&abi.RecoverChannel{Pipe: uint32(abi.PipeCompute), Queue: bad.info, Value: value}) || h.stamp(1) != value {
			t.Errorf("not recovered: stamp %#x", h.stamp(1))
		}
		if h.advance(10 * time.Millisecond); h.report(next, 1).Status != hw.StatusDone || h.stamp(1) != bad.value {
			t.Errorf("the next one: stamp %#x", h.stamp(1))
		}
	}
}

// TestBlocked is row 22: a barrier that nothing satisfies is no hang of the GPU.
func TestBlocked(t *testing.T) {
	h := newPlanned(t, "barrier id=3 block=1s", nil)
	a, b, c := h.queue(2, 1, 1), h.queue(2, 2, 2), h.queue(2, 3, 3)
	c.barrier(a, 0x5000) // Never.
	c.submit("workgroup=1ms", 1)
	a.submit("workgroup=1ms", 1)
	b.barrier(a, a.value)
	b.submit("workgroup=1ms", 1)
	h.advance(900 * time.Millisecond)
	if h.stamp(1) != a.value || h.stamp(2) != 0 || h.fw.Queues()[0].State != "blocked" || h.fw.Queues()[2].State != "blocked" || h.fw.Counters().Halts != 0 {
		t.Errorf("stamps %#x %#x, %v", h.stamp(1), h.stamp(2), h.fw.Queues())
	}
	h.advance(200 * time.Millisecond)
	if h.stamp(2) != b.value || h.stamp(3) != 0 {
		t.Errorf("stamps %#x %#x", h.stamp(2), h.stamp(3))
	}
	// A circle.
	h = newReady(t, nil)
	a, b = h.queue(2, 1, 1), h.queue(2, 2, 2)
	a.barrier(b, b.value+abi.StampStep)
	b.barrier(a, a.value+abi.StampStep)
	a.submit("workgroup=1ms", 1)
	b.submit("workgroup=1ms", 1)
	if h.advance(time.Minute); h.stamp(1)|h.stamp(2) != 0 || h.fw.Counters().Halts != 0 || !h.fw.Idle() {
		t.Error("a circle of barriers")
	}
}

// TestLog is row 26 for the log, and that lines arrive.
func TestLog(t *testing.T) {
	for plan, want := range map[string]func(index uint64, text string) bool{
		"log times=always index=4096": func(index uint64, text string) bool { return index == 4096 },
		"log times=always endless":    func(index uint64, text string) bool { return index < abi.RingEntries && len(text) == abi.LogTextSize },
		"log nth=999 crash":           func(index uint64, text string) bool { return text == "initdata taken" },
	} {
		h := newPlanned(t, plan, nil)
		index, text := h.logs(abi.LogInfo)()
		if !want(index, text) {
			t.Errorf("%s: %d %q", plan, index, text)
		}
	}
}

// logs returns what reads the lines of a level of the log, one by one: index of the payload, and text.
func (h *host) logs(level abi.LogLevel) func() (uint64, string) {
	h.Helper()
	c, size := h.pointers.FwLog, uint32(abi.LogEntry)*abi.RingEntries
	r, err := abi.NewRing(h.words(c.State+abi.VA(uint32(level)*abi.StateSize), abi.StateSize), h.bytes(c.Ring+abi.VA(uint32(level)*size), size), abi.LogEntry, abi.RingEntries)
	if err != nil {
		h.Fatal(err)
	}
	in, _ := abi.NewReceiver(r)
	return func() (uint64, string) {
		h.Helper()
		entry, _ := in.Receive()
		if entry == nil {
			return 0, ""
		}
		var index abi.LogIndex
		if err := h.abi.Decode(entry, &index); err != nil {
			h.Fatal(err)
		}
		var line abi.LogPayload
		if index.Index < abi.RingEntries {
			at := h.pointers.FwLogPayloads + abi.VA((uint64(level)*abi.RingEntries+index.Index)*abi.LogPayloadSize)
			if err := h.abi.Decode(h.bytes(at, abi.LogPayloadSize), &line); err != nil {
				h.Fatal(err)
			}
		}
		return index.Index, line.Text()
	}
}

// TestLogPayloads: a line that was not read keeps its payload, however many lines of other levels follow.
func TestLogPayloads(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.Lenient = true })
	unknown := func(kind byte) {
		_, _ = h.control.Send([]byte{kind})
		h.send(abi.DoorbellMessage(abi.DoorbellDeviceControl))
		h.step()
	}
	unknown(0x77)
	for range abi.RingEntries - 1 {
		h.do(&abi.Write32{Address: 3}) // An error.
	}
	unknown(0x78)
	next := h.logs(abi.LogWarn)
	first, one := next()
	second, other := next()
	if first == second || !strings.Contains(one, "0x77") || !strings.Contains(other, "0x78") {
		t.Errorf("lines %d %q and %d %q", first, one, second, other)
	}
}

// TestSoftFaults: they are not modelled, and the firmware says so to a host that asks for them.
func TestSoftFaults(t *testing.T) {
	for _, control := range []uint32{0, abi.FaultControlSoft} {
		h := newHost(t, nil)
		h.setGlobal(abi.GlobalFaultControl, control)
		h.bringUp()
		if _, text := h.logs(abi.LogWarn)(); strings.Contains(text, "soft faults are not modelled") != (control != 0) {
			t.Errorf("fault_control %#x: %q", control, text)
		}
	}
}
