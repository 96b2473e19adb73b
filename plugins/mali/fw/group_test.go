package fw_test

import (
	"crypto/sha256"
	"slices"
	"time"

	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

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
