package fw_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Where the host of the tests puts things.
const (
	h2gDesc   = 0x10000
	g2hDesc   = 0x10800
	h2gBuffer = 0x11000
	g2hBuffer = 0x20000
	kernelAt  = 0x60000
	objects   = 0x200000 // Everything that contexts and jobs need, from here on.
	// Virtual addresses of every context.
	bufferVA = 0x1_0000_0000
	systemVA = 0x7f_0000_0000
)

var kernel = []byte("script kernel")

// host plays the driver by hand.
type host struct {
	testing.TB
	arena  *hw.Arena
	clock  *hw.VirtualClock
	ports  hw.Ports
	trace  *hw.Trace
	eng    *scriptEngine
	fw     *fw.Firmware
	h2g    *abi.Sender
	g2h    *abi.Receiver
	next   uint64
	nextID uint64
	// kernel and format are what jobs run.
	kernel []byte
	format string
}

// newHost makes a device that was just loaded.
func newHost(t testing.TB, change func(*fw.Config)) *host {
	t.Helper()
	arena, err := hw.NewArena(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Close() })
	regs, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{
		TB: t, arena: arena, clock: hw.NewVirtualClock(), trace: hw.NewTrace(100), next: objects,
		kernel: kernel, format: "script",
		ports: hw.Ports{Registers: regs, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()},
	}
	h.eng = newScriptEngine(h.clock)
	cfg := fw.Config{Arena: arena, Ports: h.ports, Engine: h.eng, Clock: h.clock, Trace: h.trace}
	if change != nil {
		change(&cfg)
	}
	if h.fw, err = fw.New(cfg); err != nil {
		t.Fatal(err)
	}
	b, _ := arena.Bytes(kernelAt, uint64(len(kernel)))
	copy(b, kernel)
	return h
}

// newReady makes a device whose CT buffers are up.
func newReady(t testing.TB, change func(*fw.Config)) *host {
	t.Helper()
	h := newHost(t, change)
	h.bringUp(4096, 8192)
	return h
}

// step lets the firmware work and checks its invariants.
func (h *host) step() {
	h.Helper()
	h.fw.Step()
	if err := h.fw.Check(); err != nil {
		h.Fatal(err)
	}
}

// run advances the clock by d, stepping at every moment something falls due.
func (h *host) run(d time.Duration) {
	h.Helper()
	end := h.clock.Now() + d
	for {
		h.step()
		at, ok := h.clock.Next()
		if !ok || at > end {
			break
		}
		h.clock.Advance(at - h.clock.Now())
	}
	h.clock.Advance(end - h.clock.Now())
	h.step()
}

// mmio sends one mailbox message and returns the reply.
func (h *host) mmio(dw ...uint32) [4]uint32 {
	h.Helper()
	for i := 3; i >= 0; i-- {
		v := uint32(0)
		if i < len(dw) {
			v = dw[i]
		}
		h.ports.Registers.Store(abi.RegScratch+4*uint32(i), v)
	}
	h.ports.Registers.Store(abi.RegNotify, 0)
	h.step()
	return h.box()
}

// box reads the mailbox.
func (h *host) box() (box [4]uint32) {
	for i := range box {
		box[i] = h.ports.Registers.Load(abi.RegScratch + 4*uint32(i))
	}
	return box
}

// wantMMIO sends a mailbox message and compares the first dword of the reply.
func (h *host) wantMMIO(want uint32, dw ...uint32) {
	h.Helper()
	if got := h.mmio(dw...); got[0] != want {
		h.Fatalf("mailbox %08x: reply %08x, want %08x", dw, got, want)
	}
}

// bringUp registers fresh CT buffers of these sizes and opens them.
func (h *host) bringUp(h2gSize, g2hSize uint32) {
	h.Helper()
	h.bringUpAt(0, h2gSize, g2hSize)
}

// bringUpAt does so that many bytes above the usual places.
func (h *host) bringUpAt(offset, h2gSize, g2hSize uint32) {
	h.Helper()
	at := func(a uint32) uint64 { return uint64(a + offset) }
	for _, r := range []struct {
		desc, buffer uint64
		size         uint32
	}{{at(h2gDesc), at(h2gBuffer), h2gSize}, {at(g2hDesc), at(g2hBuffer), g2hSize}} {
		d, _ := h.arena.Bytes(r.desc, 64)
		clear(d)
		b, _ := h.arena.Bytes(r.buffer, uint64(r.size))
		clear(b)
	}
	h.wantMMIO(0xF0000001, 0x508, 0x09030002, h2gDesc+offset, 0)
	h.wantMMIO(0xF0000001, 0x508, 0x09020002, h2gBuffer+offset, 0)
	h.wantMMIO(0xF0000001, 0x508, 0x09040001, h2gSize, 0)
	h.wantMMIO(0xF0000001, 0x508, 0x09060002, g2hDesc+offset, 0)
	h.wantMMIO(0xF0000001, 0x508, 0x09050002, g2hBuffer+offset, 0)
	h.wantMMIO(0xF0000001, 0x508, 0x09070001, g2hSize, 0)
	h.wantMMIO(0xF0000000, 0x4509, 1)
	var err error
	if h.h2g, err = abi.NewSender(h.ring(at(h2gDesc), at(h2gBuffer), h2gSize)); err != nil {
		h.Fatal(err)
	}
	if h.g2h, err = abi.NewReceiver(h.ring(at(g2hDesc), at(g2hBuffer), g2hSize)); err != nil {
		h.Fatal(err)
	}
}

func (h *host) ring(desc, buffer uint64, size uint32) abi.Ring {
	d, err := h.arena.Words(desc, 16)
	if err != nil {
		h.Fatal(err)
	}
	b, err := h.arena.Words(buffer, size/4)
	if err != nil {
		h.Fatal(err)
	}
	r, err := abi.NewRing(d, b, size)
	if err != nil {
		h.Fatal(err)
	}
	return r
}

// send writes one message, header dword first, and lets the firmware work.
func (h *host) send(dw ...uint32) {
	h.Helper()
	if err := h.h2g.Send(abi.Fence(dw[0]>>16), dw[1:]); err != nil {
		h.Fatal(err)
	}
	h.step()
}

// fast sends a fast request with fence 8001.
func (h *host) fast(b abi.Body) {
	h.Helper()
	hxg := abi.FastRequest(b).Dwords()
	h.send(append([]uint32{0x80010000 | uint32(len(hxg))}, hxg...)...)
}

// received returns the G2H messages that wait, header dword first.
func (h *host) received() [][]uint32 {
	h.Helper()
	var got [][]uint32
	for {
		fence, hxg, ok, err := h.g2h.Receive()
		if err != nil {
			h.Fatal(err)
		}
		if !ok {
			return got
		}
		got = append(got, append([]uint32{uint32(fence)<<16 | uint32(len(hxg))}, hxg...))
	}
}

// want compares the G2H messages that wait.
func (h *host) want(want ...[]uint32) {
	h.Helper()
	if got := h.received(); !slices.EqualFunc(got, want, slices.Equal) {
		h.Fatalf("G2H %08x\nwant %08x", got, want)
	}
}

// The events that tests await.
func modeDone(id, enabled uint32) []uint32 { return []uint32{3, 0x90001002, id, enabled} }
func deregistered(id uint32) []uint32      { return []uint32{2, 0x90004600, id} }
func captured() []uint32                   { return []uint32{2, 0x90008002, 0} }
func wasReset(id uint32) []uint32          { return []uint32{2, 0x90001008, id} }
func failed(code uint32) []uint32          { return []uint32{0x80010001, 0xE0000000 | code} }

// alloc returns the device address of size bytes, granule by granule.
func (h *host) alloc(size uint64) uint64 {
	addr := h.next
	h.next += (size + hw.Granule - 1) &^ (hw.Granule - 1)
	return addr
}

// gpuContext is a context as the host knows it.
type gpuContext struct {
	h      *host
	id     uint32
	lrc    uint64
	regs   hw.Words
	ring   hw.Words
	system uint64 // Device address of descriptors, arguments and the kernel's copy.
	buffer uint64
	tail   uint32
	seqno  uint32
	jobs   int
}

// context makes and registers a context with one buffer.
func (h *host) context(id uint32, class, mask uint32) *gpuContext {
	h.Helper()
	g := h.image(id)
	h.fast(abi.RegisterContext{Flags: 1, ID: abi.GUCID(id), Class: abi.EngineClass(class), SubmitMask: mask,
		LRCDescriptor: abi.LRCDescriptor{LRC: g.lrc, PrivateSpace: true}.Encode()})
	return g
}

// image lays out a context in memory without telling the firmware.
func (h *host) image(id uint32) *gpuContext {
	h.Helper()
	g := &gpuContext{h: h, id: id, lrc: h.alloc(abi.LRCSize), system: h.alloc(hw.Granule), buffer: h.alloc(hw.Granule), seqno: abi.FirstSeqno}
	table := h.alloc(hw.SpaceSize(2))
	if err := hw.WriteSpace(h.arena, table, hw.Space{
		{Address: bufferVA, Device: g.buffer, Size: hw.Granule},
		{Address: systemVA, Device: g.system, Size: hw.Granule, Private: true},
	}); err != nil {
		h.Fatal(err)
	}
	var err error
	if g.regs, err = h.arena.Words(g.lrc+abi.RegisterOffset, 1024); err != nil {
		h.Fatal(err)
	}
	if g.ring, err = h.arena.Words(g.lrc, abi.RingDwords); err != nil {
		h.Fatal(err)
	}
	g.regs.Store(abi.RegRingStart, uint32(g.lrc))
	g.regs.Store(abi.RegRingControl, abi.RingControl)
	g.regs.Store(abi.RegPDP0Lo, uint32(table))
	b, _ := h.arena.Bytes(g.system+0xF000, uint64(len(h.kernel)))
	copy(b, h.kernel)
	h.arena.Store32(g.lrc+abi.PPHWSPOffset+abi.PPHWSPSeqno, g.seqno-1)
	return g
}

// gpuJob is one job in a ring.
type gpuJob struct {
	g     *gpuContext
	at    uint64 // Device address of the descriptor.
	va    uint64
	seqno uint32
	id    uint64
	count uint64
	start uint32 // Ring offset of its program.
}

// job puts a dispatch of count workgroups, each taking per, into the ring.
func (g *gpuContext) job(entry string, count uint32, per time.Duration) *gpuJob {
	g.h.Helper()
	g.h.nextID++
	j := &gpuJob{g: g, at: g.system + uint64(g.jobs)*1024, va: systemVA + uint64(g.jobs)*1024, id: g.h.nextID, count: uint64(count)}
	g.jobs++
	d := hw.Dispatch{
		KernelAddress: systemVA + 0xF000, KernelSize: uint64(len(g.h.kernel)), Digest: sha256.Sum256(g.h.kernel),
		Format: g.h.format, Entry: entry, ArgsAddress: j.va + hw.DispatchSize, ArgsCount: 2,
		Grid: [3]uint32{count, 1, 1}, Group: [3]uint32{1, 1, 1}, Count: uint64(count), Job: j.id, Epoch: 1,
	}
	b, err := g.h.arena.Bytes(j.at, 1024)
	if err != nil {
		g.h.Fatal(err)
	}
	clear(b)
	if err := d.Encode(b); err != nil {
		g.h.Fatal(err)
	}
	if err := hw.EncodeArgs(b[hw.DispatchSize:], []hw.Arg{{Bits: uint64(per / time.Microsecond)}, {Buffer: true, Bits: bufferVA}}); err != nil {
		g.h.Fatal(err)
	}
	j.seqno = g.seqno
	j.start = g.tail
	g.seqno++
	g.emit(abi.JobProgram{LRC: g.lrc, Seqno: j.seqno, Batch: j.va}.Append(nil)...)
	return j
}

// emit appends commands to the ring and publishes the tail.
func (g *gpuContext) emit(dw ...uint32) {
	for _, v := range dw {
		g.ring.Store(g.tail/4, v)
		g.tail = (g.tail + 4) % abi.RingSize
	}
	g.regs.Store(abi.RegRingTail, g.tail)
}

func (g *gpuContext) enable()  { g.h.Helper(); g.mode(true) }
func (g *gpuContext) disable() { g.h.Helper(); g.mode(false) }

func (g *gpuContext) mode(on bool) {
	g.h.Helper()
	g.h.fast(abi.SchedContextModeSet{ID: abi.GUCID(g.id), Enable: on})
}

func (g *gpuContext) kick() {
	g.h.Helper()
	g.h.fast(abi.SchedContext{ID: abi.GUCID(g.id)})
}

// policies sends priority, quantum and preemption timeout.
func (g *gpuContext) policies(priority uint32, quantum, timeout time.Duration) {
	g.h.Helper()
	g.h.fast(abi.Policies(abi.GUCID(g.id), priority, uint32(quantum/time.Microsecond), uint32(timeout/time.Microsecond), 0))
}

// seqnoNow reads the seqno that the ring wrote.
func (g *gpuContext) seqnoNow() uint32 {
	v, _ := g.h.arena.Load32(g.lrc + abi.PPHWSPOffset + abi.PPHWSPSeqno)
	return v
}

// done reports whether the job's seqno has been reached.
func (j *gpuJob) done() bool { return abi.Passed(j.g.seqnoNow(), j.seqno) }

// begun reports whether the job's start seqno has been reached.
func (j *gpuJob) begun() bool {
	v, _ := j.g.h.arena.Load32(j.g.lrc + abi.PPHWSPOffset + abi.PPHWSPStartSeqno)
	return v != 0 && abi.Passed(v, j.seqno)
}

// report reads the firmware half of the job's descriptor.
func (j *gpuJob) report() hw.Report {
	j.g.h.Helper()
	r, err := hw.ReadReport(j.g.h.arena, j.at, j.count)
	if err != nil {
		j.g.h.Fatal(err)
	}
	return r
}
