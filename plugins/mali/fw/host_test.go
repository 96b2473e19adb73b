package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

const (
	us = time.Microsecond
	ms = time.Millisecond

	// Where the host of the tests maps things.
	heapVA   = 0x1000_0000 // For the MCU: ring pages and suspend buffers.
	heapSize = 8 << 20
	bufferVA = 0x1_0000_0000    // For a group: what kernels see.
	systemVA = 0x7f00_0000_0000 // For a group: rings, streams, descriptors, kernels.
	vmSize   = 2 << 20
	ringSize = 4 << 10
)

// testClock is the virtual clock as the test engine declares it.
type testClock struct{ *hw.VirtualClock }

func (c testClock) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return c.VirtualClock.AfterFunc(d, f)
}

// host plays the driver by hand.
type host struct {
	testing.TB
	arena  *hw.Arena
	clock  *hw.VirtualClock
	ports  hw.Ports
	trace  *hw.Trace
	eng    engine.Engine
	fw     *fw.Firmware
	cfg    fw.Config
	faults *hw.Faults
	next   uint64
	heap   uint64 // Device address behind heapVA.
	used   uint64
	image  []abi.Section
	places []uint64
	shared uint64
	jobs   uint64
	table  uint64
	mapMCU func()
	// settle lets a firmware that runs on its own goroutine work for some time.
	settle func(time.Duration)
}

// newHost makes a device without power, with the image loaded into memory.
func newHost(t testing.TB, plan string, change func(*fw.Config)) *host {
	t.Helper()
	arena, err := hw.NewArena(256 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Close() })
	regs, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{TB: t, arena: arena, clock: hw.NewVirtualClock(), trace: hw.NewTrace(5000), next: 1 << 20,
		ports: hw.Ports{Registers: regs, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}}
	p, err := hw.ParsePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	if h.faults, err = fw.NewFaults(p); err != nil {
		t.Fatal(err)
	}
	h.eng = testengine.New(testengine.Config{Clock: testClock{h.clock}})
	h.cfg = fw.Config{Arena: arena, Ports: h.ports, Engine: h.eng, Clock: h.clock, Trace: h.trace, Faults: h.faults}
	if change != nil {
		change(&h.cfg)
	}
	if h.fw, err = fw.New(h.cfg); err != nil {
		t.Fatal(err)
	}
	b, err := fw.Image(h.cfg.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if h.image, err = abi.DecodeImage(b); err != nil {
		t.Fatal(err)
	}
	h.heap = h.alloc(heapSize)
	var mcu hw.Space
	for _, s := range h.image {
		at := h.alloc(s.End - s.Start)
		h.places = append(h.places, at)
		mcu = append(mcu, hw.Mapping{Address: s.Start, Device: at, Size: s.End - s.Start})
		if s.Flags&abi.SectionShared != 0 {
			h.shared = at
		}
	}
	h.load()
	mcu = append(mcu, hw.Mapping{Address: heapVA, Device: h.heap, Size: heapSize})
	h.mapMCU = func() { h.setSpace(0, h.table, mcu) }
	h.table = h.alloc(hw.SpaceSizeMax)
	return h
}

// load fills the sections as a slow restart does.
func (h *host) load() {
	for i, s := range h.image {
		b, _ := h.arena.Bytes(h.places[i], s.End-s.Start)
		clear(b)
		copy(b, s.Content)
	}
}

// newReady makes a device whose firmware is up and configured.
func newReady(t testing.TB, plan string, change func(*fw.Config)) *host {
	t.Helper()
	h := newHost(t, plan, change)
	h.boot()
	return h
}

// boot powers, maps and starts the firmware, and configures the global interface.
func (h *host) boot() {
	h.Helper()
	h.powerUp()
	h.start()
	if h.reg(abi.RegMCUStatus) != abi.MCUEnabled || h.reg(abi.RegJobIntRaw)&abi.JobIntGlobal == 0 {
		h.Fatalf("no boot: status %d\n%s", h.reg(abi.RegMCUStatus), h.lines())
	}
	h.configure()
}

func (h *host) powerUp() {
	h.set(abi.RegGPUIntMask, ^uint32(0))
	h.set(abi.RegL2PowerOn, 1)
	h.step()
	h.mapMCU()
}

func (h *host) start() {
	h.set(abi.RegMCUControl, abi.MCUControlAuto)
	h.run(10 * us)
}

func (h *host) configure() {
	h.set(abi.RegJobIntClear, ^uint32(0))
	h.set(abi.RegJobIntMask, ^uint32(0))
	h.set(abi.RegMMUIntMask, ^uint32(0))
	in := h.glb(abi.GlobalInputAddress)
	h.put64(in+abi.GlobalAllocEnable, uint64(h.reg(abi.RegShaderPresent)))
	h.put(in+abi.GlobalProgressTimer, 2_560_000)
	h.put(in+abi.GlobalIdleTimer, abi.TimerUnits(800, 24_000_000))
	h.put(in+abi.GlobalAckIRQMask, ^uint32(0))
	req := h.get(in + abi.GlobalReq)
	ack := h.get(h.glb(abi.GlobalOutputAddress) + abi.GlobalAck)
	h.put(in+abi.GlobalReq, abi.Toggle(req&^abi.GlobalHalt, ack, abi.GlobalCfgAllocEnable|abi.GlobalCfgPowerOffTimer|abi.GlobalCfgProgressTimer)|abi.GlobalIdleEnable)
	h.ring(0)
}

// alloc returns the device address of fresh memory in whole granules.
func (h *host) alloc(size uint64) uint64 {
	at := h.next
	h.next += (size + hw.Granule - 1) / hw.Granule * hw.Granule
	return at
}

// heapAlloc returns an address of the MCU and its device address.
func (h *host) heapAlloc(size uint64) (uint64, uint64) {
	at := h.used
	h.used += (size + 4095) / 4096 * 4096
	return heapVA + at, h.heap + at
}

func (h *host) get(at uint64) uint32   { v, _ := h.arena.Load32(at); return v }
func (h *host) get64(at uint64) uint64 { v, _ := h.arena.Load64(at); return v }
func (h *host) put(at uint64, v uint32) {
	h.Helper()
	if err := h.arena.Store32(at, v); err != nil {
		h.Fatal(err)
	}
}
func (h *host) put64(at, v uint64) {
	h.Helper()
	if err := h.arena.Store64(at, v); err != nil {
		h.Fatal(err)
	}
}
func (h *host) reg(offset uint32) uint32    { return h.ports.Registers.Load(offset) }
func (h *host) set(offset uint32, v uint32) { h.ports.Registers.Store(offset, v) }

// glb returns the device address of a global block.
func (h *host) glb(address uint64) uint64 {
	return h.shared + uint64(h.get(h.shared+address)) - abi.SharedBase
}

// ring writes a doorbell and lets the firmware work.
func (h *host) ring(i uint32) {
	h.Helper()
	h.set(abi.RegDoorbell(i), 1)
	h.ports.Doorbell.Raise()
	h.step()
}

// step lets the firmware work and checks its invariants.
func (h *host) step() {
	h.Helper()
	if h.settle != nil {
		h.settle(0)
		return
	}
	h.fw.Step()
	if err := h.fw.Check(); err != nil {
		h.Fatalf("%v\n%s", err, h.lines())
	}
}

// run advances the clock by d, stepping at every moment something falls due.
func (h *host) run(d time.Duration) {
	h.Helper()
	if h.settle != nil {
		h.settle(d)
		return
	}
	end := h.clock.Now() + d
	for steps := 0; ; steps++ {
		h.step()
		at, ok := h.clock.Next()
		if !ok || at > end {
			break
		}
		if steps > 1_000_000 {
			h.Fatalf("busy at %v\n%s", h.clock.Now(), h.lines())
		}
		h.clock.Advance(at - h.clock.Now())
	}
	h.clock.Advance(end - h.clock.Now())
	h.step()
}

// lines are the last of the trace.
func (h *host) lines() string {
	out := ""
	for _, l := range h.trace.Last(60) {
		out += l.String() + "\n"
	}
	return out
}

// setSpace writes an address space table and gives it to the MMU.
func (h *host) setSpace(as uint32, table uint64, space hw.Space) {
	h.Helper()
	if table != 0 {
		if err := hw.WriteSpace(h.arena, table, space); err != nil {
			h.Fatal(err)
		}
	}
	base := abi.ASBase(as)
	h.set(base+abi.RegASTransTab, uint32(table))
	h.set(base+abi.RegASTransTab+4, uint32(table>>32))
	h.set(base+abi.RegASCommand, abi.ASCommandUpdate)
	if h.reg(base+abi.RegASStatus)&abi.ASStatusBusy == 0 {
		h.Fatal("the command is not busy at once")
	}
	h.step()
}
