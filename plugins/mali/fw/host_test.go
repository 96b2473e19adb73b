package fw_test

import (
	"crypto/sha256"
	"slices"
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
	h.fw.Step()
	if err := h.fw.Check(); err != nil {
		h.Fatalf("%v\n%s", err, h.lines())
	}
}

// run advances the clock by d, stepping at every moment something falls due.
func (h *host) run(d time.Duration) {
	h.Helper()
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

// vm is an address space with two mappings.
type vm struct {
	h              *host
	as             uint32
	table          uint64
	system, buffer uint64 // Device addresses.
	used           uint64
}

func (h *host) vm(as uint32) *vm {
	v := &vm{h: h, as: as, table: h.alloc(hw.SpaceSizeMax), system: h.alloc(vmSize), buffer: h.alloc(hw.Granule)}
	v.activate()
	return v
}

func (v *vm) activate() {
	v.h.setSpace(v.as, v.table, hw.Space{{Address: bufferVA, Device: v.buffer, Size: hw.Granule},
		{Address: systemVA, Device: v.system, Size: vmSize, Private: true}})
}

func (v *vm) alloc(size, align uint64) uint64 {
	v.used = (v.used + align - 1) / align * align
	at := v.used
	v.used += size
	if v.used > vmSize {
		v.h.Fatal("the test's address space is full")
	}
	return systemVA + at
}

// at is the device address of an address of the group.
func (v *vm) at(va uint64) uint64 {
	if va >= systemVA {
		return v.system + va - systemVA
	}
	return v.buffer + va - bufferVA
}

// stream puts instructions into memory and returns their address and length.
func (v *vm) stream(is ...abi.Instruction) (uint64, uint32) {
	va := v.alloc(uint64(len(is))*8, 64)
	b, _ := v.h.arena.Bytes(v.at(va), uint64(len(is))*8)
	abi.EncodeStream(b, is)
	return va, uint32(len(is) * 8)
}

// group is a group of queues, on a slot or not.
type group struct {
	*vm
	slot      uint32
	queues    []*queue
	suspendVA uint64
	suspend   uint64
	endpoints abi.Endpoints
}

type queue struct {
	g           *group
	index       uint32
	ringVA      uint64
	inVA, outVA uint64
	in, out     uint64
	sync        uint64 // Address of its sync object.
	insert      uint64
	priority    uint8
}

func (h *host) group(v *vm, slot uint32, queues int) *group {
	g := &group{vm: v, slot: slot, endpoints: abi.Endpoints{Compute: 4, Fragment: 4, Tiler: 1, Priority: uint8(15 - slot)}}
	size := uint64(h.get(h.shared + abi.GroupControlOffset + abi.GroupSuspendSize))
	g.suspendVA, g.suspend = h.heapAlloc(size)
	for i := range queues {
		q := &queue{g: g, index: uint32(i), ringVA: v.alloc(ringSize, 4096), sync: v.alloc(16, 16)}
		q.inVA, q.in = h.heapAlloc(2 * abi.RingPageSize)
		q.outVA, q.out = q.inVA+abi.RingPageSize, q.in+abi.RingPageSize
		g.queues = append(g.queues, q)
	}
	return g
}

// The blocks of the group's slot.
func (g *group) control() uint64 {
	return g.h.shared + abi.GroupControlOffset + uint64(g.slot)*uint64(g.h.get(g.h.shared+abi.GlobalGroupStride))
}
func (g *group) in() uint64 {
	return g.h.shared + uint64(g.h.get(g.control()+abi.GroupInputAddress)) - abi.SharedBase
}
func (g *group) out() uint64 {
	return g.h.shared + uint64(g.h.get(g.control()+abi.GroupOutputAddress)) - abi.SharedBase
}
func (q *queue) control() uint64 {
	return q.g.control() + abi.StreamControlOffset + uint64(q.index)*abi.StreamControlSize
}
func (q *queue) blockIn() uint64 {
	return q.g.h.shared + uint64(q.g.h.get(q.control()+abi.StreamInputAddress)) - abi.SharedBase
}
func (q *queue) blockOut() uint64 {
	return q.g.h.shared + uint64(q.g.h.get(q.control()+abi.StreamOutputAddress)) - abi.SharedBase
}

// program writes everything that START and RESUME need.
func (g *group) program() {
	h := g.h
	for _, q := range g.queues {
		h.put64(q.in+abi.RingExtractInit, h.get64(q.out+abi.RingExtract))
		in := q.blockIn()
		h.put64(in+abi.StreamBase, q.ringVA)
		h.put(in+abi.StreamSize, ringSize)
		h.put64(in+abi.StreamUserInput, q.inVA)
		h.put64(in+abi.StreamUserOutput, q.outVA)
		h.put(in+abi.StreamConfig, abi.StreamConfigWord(q.priority, uint8(g.slot+1)))
		h.put(in+abi.StreamAckIRQMask, ^uint32(0))
		h.put(in+abi.StreamReq, abi.SetField(h.get(in+abi.StreamReq), abi.StreamStateMask, abi.StreamStart)|abi.StreamIdleEmpty|abi.StreamIdleSyncWait)
	}
	in := g.in()
	h.put64(in+abi.GroupAllowCompute, uint64(h.reg(abi.RegShaderPresent)))
	h.put64(in+abi.GroupAllowFragment, uint64(h.reg(abi.RegShaderPresent)))
	h.put(in+abi.GroupAllowOther, 1)
	h.put(in+abi.GroupEndpointReq, g.endpoints.Encode())
	h.put(in+abi.GroupConfig, g.as)
	h.put64(in+abi.GroupSuspendBuffer, g.suspendVA)
	h.put(in+abi.GroupAckIRQMask, ^uint32(0))
	g.kickStreams(1<<len(g.queues) - 1)
}

func (g *group) kickStreams(mask uint32) {
	req, ack := g.h.get(g.in()+abi.GroupDoorbellReq), g.h.get(g.out()+abi.GroupDoorbellAck)
	g.h.put(g.in()+abi.GroupDoorbellReq, abi.Toggle(req, ack, mask))
}

// request writes a state and toggles bits, and rings.
func (g *group) request(state abi.GroupState, toggles uint32) {
	h := g.h
	h.Helper()
	req := abi.SetField(h.get(g.in()+abi.GroupReq), abi.GroupStateMask, uint32(state))
	h.put(g.in()+abi.GroupReq, abi.Toggle(req, h.get(g.out()+abi.GroupAck), toggles))
	g.kick()
}

// kick rings for the group.
func (g *group) kick() {
	h := g.h
	h.Helper()
	in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
	h.put(in+abi.GlobalDoorbellReq, abi.Toggle(h.get(in+abi.GlobalDoorbellReq), h.get(out+abi.GlobalDoorbellAck), 1<<g.slot))
	h.ring(0)
}

func (g *group) state() abi.GroupState {
	return abi.GroupState(g.h.get(g.out()+abi.GroupAck) & abi.GroupStateMask)
}

// start puts the group on its slot for the first time.
func (g *group) start() { g.h.Helper(); g.enter(abi.GroupStart) }

// resume does it again.
func (g *group) resume() { g.h.Helper(); g.enter(abi.GroupResume) }

func (g *group) enter(state abi.GroupState) {
	g.h.Helper()
	g.program()
	g.request(state, abi.GroupEndpointCfg)
	if g.state() != state {
		g.h.Fatalf("%s: ack %s\n%s", state, g.state(), g.h.lines())
	}
}

// leave suspends or terminates, waiting up to d.
func (g *group) leave(state abi.GroupState, d time.Duration) {
	g.h.Helper()
	g.request(state, 0)
	g.h.run(d)
	if g.state() != state {
		g.h.Fatalf("%s: ack %s\n%s", state, g.state(), g.h.lines())
	}
	for _, q := range g.queues {
		in := q.blockIn()
		g.h.put(in+abi.StreamReq, abi.SetField(g.h.get(in+abi.StreamReq), abi.StreamStateMask, abi.StreamStop))
	}
}

// submit puts instructions into the ring and rings the user doorbell.
func (q *queue) submit(is ...abi.Instruction) {
	q.g.h.Helper()
	q.write(is...)
	q.g.h.ring(q.g.slot + 1)
}

// write puts instructions into the ring, without a doorbell.
func (q *queue) write(is ...abi.Instruction) {
	h := q.g.h
	h.Helper()
	for _, i := range is {
		h.put64(q.g.at(q.ringVA+q.insert%ringSize), i.Encode())
		q.insert += 8
	}
	h.put64(q.in+abi.RingInsert, q.insert)
}

func (q *queue) extract() uint64 { return q.g.h.get64(q.out + abi.RingExtract) }
func (q *queue) done() bool      { return q.extract() == q.insert }
func (q *queue) seqno() uint64   { return q.g.h.get64(q.g.at(q.sync)) }

// call is a job as the kernel writes it: flush, call a stream, wait, count up the sync
// object, barrier.
func (q *queue) call(va uint64, length uint32) []abi.Instruction {
	is := []abi.Instruction{
		{Op: abi.OpMove32, Dest: 94, Imm: uint64(q.g.h.reg(abi.RegLatestFlush))},
		{Op: abi.OpFlushCache2, L2: abi.FlushCleanInvalidate, LSC: abi.FlushCleanInvalidate, OtherCaches: abi.FlushInvalidate, Source: 94},
		{Op: abi.OpMove48, Dest: 92, Imm: va},
		{Op: abi.OpMove32, Dest: 94, Imm: uint64(length)},
		{Op: abi.OpWait, Mask: 1},
		{Op: abi.OpCall, Address: 92, Length: 94},
		{Op: abi.OpMove48, Dest: 92, Imm: q.sync},
		{Op: abi.OpMove48, Dest: 94, Imm: 1},
		{Op: abi.OpWait, Mask: 0xFF},
		{Op: abi.OpSyncAdd64, Source: 94, Address: 92, Propagate: true},
		{Op: abi.OpErrorBarrier},
	}
	for len(is)%8 != 0 {
		is = append(is, abi.Instruction{})
	}
	return is
}

// job calls a stream of these instructions.
func (q *queue) job(is ...abi.Instruction) {
	q.g.h.Helper()
	va, length := q.g.stream(is...)
	q.submit(q.call(va, length)...)
}

// compute is a dispatch descriptor with its shader program.
type compute struct {
	v     *vm
	at    uint64 // Device address of the descriptor.
	spd   uint64
	grid  [3]uint32
	group [3]uint32
	count uint64
	job   uint64
}

// kernel makes a dispatch of n workgroups of a script of the test engine.
func (v *vm) kernel(script string, n uint32) *compute {
	h := v.h
	h.Helper()
	h.jobs++
	put := func(b []byte, align uint64) uint64 {
		va := v.alloc(uint64(len(b)), align)
		to, _ := h.arena.Bytes(v.at(va), uint64(len(b)))
		copy(to, b)
		return va
	}
	code := []byte(script + " ")
	args := make([]byte, hw.ArgSize)
	if err := hw.EncodeArgs(args, []hw.Arg{{Buffer: true, Bits: bufferVA}}); err != nil {
		h.Fatal(err)
	}
	c := &compute{v: v, grid: [3]uint32{n, 1, 1}, group: [3]uint32{8, 4, 1}, count: uint64(n), job: h.jobs}
	d := hw.Dispatch{KernelAddress: put(code, 8), KernelSize: uint64(len(code)), Digest: sha256.Sum256(code), Format: testengine.Format, Entry: "any",
		ArgsAddress: put(args, 16), ArgsCount: 1, Grid: c.grid, Group: c.group, Count: uint64(n), Job: h.jobs, Epoch: 1}
	b := make([]byte, hw.DispatchSize)
	if err := d.Encode(b); err != nil {
		h.Fatal(err)
	}
	binary := put(b, hw.DispatchAlign)
	c.at = v.at(binary)
	s := make([]byte, abi.ShaderProgramSize)
	abi.ShaderProgram{Stage: abi.StageCompute, Binary: binary}.Encode(s)
	c.spd = put(s, 64)
	return c
}

// instructions dispatch it.
func (c *compute) instructions() []abi.Instruction {
	is := []abi.Instruction{
		{Op: abi.OpReqResource, Resources: abi.ResourceCompute},
		{Op: abi.OpMove48, Dest: abi.Selected(abi.RegisterSPD, 0), Imm: c.spd},
		{Op: abi.OpMove32, Dest: abi.RegisterGroupSize, Imm: uint64(abi.WorkgroupSize{X: c.group[0], Y: c.group[1], Z: c.group[2]}.Encode())},
	}
	for i := range uint8(3) {
		is = append(is, abi.Instruction{Op: abi.OpMove32, Dest: abi.RegisterOffset + i},
			abi.Instruction{Op: abi.OpMove32, Dest: abi.RegisterSize + i, Imm: uint64(c.grid[i])})
	}
	return append(is, abi.Instruction{Op: abi.OpRunCompute, Increment: 1, Axis: 0})
}

func (c *compute) report() hw.Report {
	r, err := hw.ReadReport(c.v.h.arena, c.at, c.count)
	if err != nil {
		c.v.h.Error(err)
	}
	return r
}

// output fails unless the buffer holds what these scripts' workgroups write.
func (v *vm) output(counts ...uint64) {
	v.h.Helper()
	want := make([]byte, hw.Granule)
	for _, n := range counts {
		testengine.Apply(want, 0, n)
	}
	have, _ := v.h.arena.Bytes(v.buffer, hw.Granule)
	if !slices.Equal(want, have) {
		v.h.Errorf("the buffer does not hold %v workgroups\n%s", counts, v.h.lines())
	}
}
