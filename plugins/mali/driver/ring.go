package driver

import (
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// queue is one command stream of a group: a ring, its pages, a sync object that counts the jobs done.
type queue struct {
	g        *group
	index    uint8
	priority uint8
	size     uint32
	// ring, pages and sync are device addresses, ringVA and syncVA those of the group.
	ring, ringVA uint64
	pages        uint64
	sync, syncVA uint64
	// seqno is the last one handed out.
	seqno uint64
	// insert is where the next job goes, begin where a START begins, or the first RESUME of a state that
	// an image brought; both count bytes and only rise.
	insert, begin uint64
	jobs          []*job
	watch         watch
}

// job is one entry of a ring. What an entity's job is beside that is in work.
type job struct {
	seqno      uint64
	start, end uint64
	stream     Stream
	// fault is what a CS_FAULT said of it.
	fault *evidence

	id core.JobID
	// work is what an entity's job is about, nil for a raw stream; done is called for a raw stream.
	work *work
	done func(error)
}

// Stream is a command stream in the group's address space: 64-byte aligned, whole instructions.
type Stream struct{ Address, Size uint64 }

// extract is how far the firmware says that it has come.
func (q *queue) extract() uint64 { return q.g.d.load64(q.pages + abi.RingPageSize + abi.RingExtract) }

// from is where the firmware is to go on: EXTRACT, or what was written anew or saved behind it.
func (q *queue) from() uint64 { return max(q.extract(), q.begin) }

// room reports whether another job fits: what was not extracted since the last START counts.
func (q *queue) room() bool {
	return q.insert+jobBytes-q.from() <= uint64(q.size)
}

// program is what stands in the ring for a job.
func (q *queue) program(s Stream) []abi.Instruction {
	return jobProgram(q.g.d.iface.features, s, q.syncVA, uint64(q.g.d.read(abi.RegLatestFlush)))
}

// jobProgram flushes, calls a stream, waits for everything, counts it in a sync object, and has
// a barrier behind which faults of it count no more.
func jobProgram(f abi.CSFeatures, s Stream, sync, flush uint64) []abi.Instruction {
	address, value := uint8(f.Registers-4), uint8(f.Registers-2)
	return []abi.Instruction{
		{Op: abi.OpMove32, Dest: value, Imm: flush},
		{Op: abi.OpFlushCache2, L2: abi.FlushCleanInvalidate, LSC: abi.FlushCleanInvalidate, OtherCaches: abi.FlushInvalidate, Source: value},
		{Op: abi.OpMove48, Dest: address, Imm: s.Address},
		{Op: abi.OpMove32, Dest: value, Imm: s.Size},
		{Op: abi.OpWait, Mask: 1},
		{Op: abi.OpCall, Address: address, Length: value},
		{Op: abi.OpMove48, Dest: address, Imm: sync},
		{Op: abi.OpMove48, Dest: value, Imm: 1},
		{Op: abi.OpWait, Mask: 1<<f.Scoreboards - 1},
		{Op: abi.OpSyncAdd64, Address: address, Source: value, Propagate: true, Scope: abi.ScopeSystem},
		{Op: abi.OpErrorBarrier},
	}
}

// emit writes a job into the ring, around its end if need be, and shows it to the firmware.
func (q *queue) emit(j *job) {
	q.seqno++
	j.seqno, j.start = q.seqno, q.insert
	var words [jobBytes / abi.InstructionSize]uint64 // NOP is 0.
	for i, instruction := range q.program(j.stream) {
		words[i] = instruction.Encode()
	}
	for i, word := range words {
		at := (q.insert + uint64(i)*abi.InstructionSize) & uint64(q.size-1)
		q.g.d.store64(q.ring+at, word)
	}
	q.insert += jobBytes
	j.end = q.insert
	q.jobs = append(q.jobs, j)
	q.publish()
}

// publish makes INSERT known; a resident queue is told by its doorbell.
func (q *queue) publish() {
	d, g := q.g.d, q.g
	if g.slot == nil {
		d.store64(q.pages+abi.RingExtractInit, q.from())
	}
	d.store64(q.pages+abi.RingInsert, q.insert)
	if g.slot != nil { // Also while its START is under way: INSERT may have been read already.
		q.ringDoorbell()
	}
}

// ringDoorbell makes the firmware read INSERT of the slot's queues again.
func (q *queue) ringDoorbell() {
	d := q.g.d
	d.write(abi.RegDoorbell(q.g.slot.index+1), 1)
}

// count is how many jobs the firmware says are done; status is what it propagated into the sync object.
func (q *queue) count() uint64 { return q.g.d.load64(q.sync) }

// scan completes what is done, in order.
func (g *group) scan() {
	if g.buried || g.evidence != nil {
		return // Who is to blame has been settled.
	}
	for _, q := range g.queues {
		if len(q.jobs) == 0 {
			continue
		}
		if o, ok := g.owner.(interface{ watchStart() }); ok {
			o.watchStart()
		}
		for done := q.count(); len(q.jobs) > 0 && q.jobs[0].seqno <= done && !g.buried && g.evidence == nil; {
			j := q.jobs[0]
			q.jobs = q.jobs[1:]
			q.watch = watch{at: g.d.now()}
			g.resumed = false
			g.d.resets.row = 0
			g.owner.completed(j, j.fault)
		}
	}
	if !g.busy() {
		g.refresh()
	}
}

// restart drops whatever the firmware saved of the group: its next START begins behind
// everything that is in its rings, which the owner fills again.
func (g *group) restart() bool {
	if !g.advance(rebuild) {
		return false
	}
	for _, q := range g.queues {
		if q.pages == 0 {
			continue
		}
		q.begin = q.insert
		q.seqno = q.count()
		g.d.store(q.sync+abi.Sync64Status, 0)
		q.watch = watch{at: g.d.now()}
		q.jobs = nil
	}
	g.resumed = false
	g.setBlocked(0)
	return true
}

// lay gives the group's queues their memory: ring pages and suspend buffer; ring and
// sync object lie at device, which the group sees at virtual. Errors wrap core.ErrFull.
func (g *group) lay(sizes []uint32, device, virtual uint64) error {
	d := g.d
	var err error
	if g.suspend, err = d.memory.Low(d.iface.suspendSize, "suspend buffer"); err != nil {
		return err
	}
	for m, q := range g.queues {
		if q.pages, err = d.memory.Low(2*abi.RingPageSize, "ring pages"); err != nil {
			return err
		}
		q.size = sizes[m]
		q.ring, q.ringVA = device, virtual
		device, virtual = device+uint64(q.size), virtual+uint64(q.size)
	}
	for _, q := range g.queues {
		q.sync, q.syncVA = device, virtual
		device, virtual = device+abi.Sync64Size, virtual+abi.Sync64Size
	}
	return nil
}

// laySize is the room that lay takes behind device.
func laySize(sizes []uint32) uint64 {
	total := uint64(len(sizes)) * abi.Sync64Size
	for _, size := range sizes {
		total += uint64(size)
	}
	return total
}

// accuse makes evidence against the first job of the first queue that has one.
func (g *group) accuse(cause core.Cause, detail string) *evidence {
	for _, q := range g.queues {
		if len(q.jobs) > 0 {
			return &evidence{job: q.jobs[0], queue: q, cause: cause, detail: detail}
		}
	}
	return &evidence{cause: core.CauseDevice, detail: detail}
}

// errOf is what a raw stream's submitter gets for evidence.
func errOf(e *evidence) error {
	if e == nil {
		return nil
	}
	return &core.FaultError{Cause: e.cause, Detail: e.detail}
}
