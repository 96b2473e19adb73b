package fw

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// A suspend image is what a group leaves in its suspend buffer. It is the
// firmware's own: the host keeps it and knows its size only. Header:
//
//	offset size  field
//	0x00   4     magic, "CSGS"
//	0x04   2     format
//	0x06   1     suspend type of the slot
//	0x07   1     number of streams
//	0x08   8     build of the firmware
//	0x10   4     length of header and records
//	0x14   4     CRC-32 of header and records, counted with 0 here
//	0x18   8     generation: rises with each suspend of the group
//
// then a record of streamRecord bytes for each stream. Slot, address space,
// doorbell, priority and endpoints are not in it, nor is any moment.
const (
	imageMagic        uint32 = 'C' | 'S'<<8 | 'G'<<16 | 'S'<<24
	imageFormat       uint16 = 1
	imageHeader              = 32
	imageLengthOffset        = 0x10
	imageChecksum            = 0x14
	imageBuildOffset         = 0x08
	streamRecord             = 1792
	flagStarted       uint32 = 1 << 0
	flagHalted        uint32 = 1 << 1
	flagFailed        uint32 = 1 << 2
	flagFaultHeld     uint32 = 1 << 3
)

// suspendSize is SUSPEND_SIZE: whole pages.
func (f *Firmware) suspendSize() uint32 {
	return uint32(align(uint64(imageHeader+f.cfg.Streams*streamRecord), hw.PageSize))
}

// save writes the image of a group whose streams stand still: a scratch copy,
// its checksum, then memory. Errors are *access.
func (f *Firmware) save(g *group) error {
	at, _, err := f.mcuBytes(g.suspendVA, uint64(f.suspendSize()), abi.AccessWrite)
	if err != nil {
		return err
	}
	g.generation++
	b := make([]byte, 0, f.suspendSize())
	le := binary.LittleEndian
	b = le.AppendUint32(b, imageMagic)
	b = le.AppendUint16(b, imageFormat)
	b = append(b, f.cfg.SuspendType, uint8(f.cfg.Streams))
	b = le.AppendUint64(b, f.cfg.Build)
	b = le.AppendUint32(b, uint32(imageHeader+f.cfg.Streams*streamRecord))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint64(b, g.generation)
	for _, s := range g.streams {
		end := len(b) + streamRecord
		b = s.appendRecord(b)
		b = append(b, make([]byte, end-len(b))...)
	}
	content := len(b)
	rules, lost := f.meet(PointSuspend, "", uint64(g.slot))
	if lost {
		return nil
	}
	for _, r := range rules {
		switch r.Action {
		case FaultBuild:
			le.PutUint64(b[imageBuildOffset:], r.Number())
		case FaultSize:
			le.PutUint32(b[imageLengthOffset:], uint32(r.Number()))
		}
	}
	le.PutUint32(b[imageChecksum:], crc32.ChecksumIEEE(b))
	for _, r := range rules {
		switch r.Action {
		case FaultCorrupt:
			b[content/2] ^= 0x10
		case FaultLost:
			return nil
		}
	}
	b = append(b, make([]byte, int(f.suspendSize())-content)...)
	f.writeL2(at, b)
	return nil
}

// appendRecord appends what an image keeps of a stream.
func (s *stream) appendRecord(b []byte) []byte {
	le := binary.LittleEndian
	flags := uint32(0)
	for bit, set := range map[uint32]bool{flagStarted: s.started, flagHalted: s.halted, flagFailed: s.failed, flagFaultHeld: s.faultHeld} {
		if set {
			flags |= bit
		}
	}
	for _, w := range [...]uint32{flags, uint32(s.wait.reason), s.wait.status.Encode(), s.failure, s.size, uint32(len(s.frames))} {
		b = le.AppendUint32(b, w)
	}
	for _, w := range [...]uint64{s.wait.pointer, s.wait.value, s.base, s.extract, s.handler[0], s.handler[1], s.progress, s.heap} {
		b = le.AppendUint64(b, w)
	}
	for i := range framesMax {
		var fr frame
		if i < len(s.frames) {
			fr = s.frames[i]
		}
		b = le.AppendUint64(le.AppendUint64(b, fr.pc), fr.end)
	}
	b = append(b, s.endpoint, s.other, uint8(s.resources), uint8(len(s.ops)), uint8(len(s.dispatches)), 0, 0, 0)
	for _, w := range s.heapCounts {
		b = le.AppendUint32(b, w)
	}
	for _, w := range s.regs {
		b = le.AppendUint32(b, w)
	}
	for _, o := range s.ops {
		b = le.AppendUint64(b, o.ins.Encode())
		b = le.AppendUint16(b, o.waitMask)
		b = append(b, o.slot)
	}
	for _, d := range s.dispatches {
		for _, w := range d.regs {
			b = le.AppendUint32(b, w)
		}
		b = append(b, d.spd, d.axis, d.slot, 0)
		b = le.AppendUint16(b, d.increment)
		b = le.AppendUint64(b, d.next)
	}
	return b
}

// recordReader reads a record; it runs dry without a panic.
type recordReader struct{ b []byte }

func (r *recordReader) take(n int) []byte {
	if len(r.b) < n {
		r.b = nil
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *recordReader) u8() uint8   { return r.take(1)[0] }
func (r *recordReader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *recordReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *recordReader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// record is a decoded record.
type record struct {
	flags uint32
	wait  wait
	csContext
	ops []*op
}

// decodeRecord reads what an image keeps of a stream. Counts beyond their
// bounds are errors.
func decodeRecord(b []byte) (record, error) {
	r := recordReader{b}
	var c record
	c.flags = r.u32()
	c.wait.reason, c.wait.status = abi.BlockedReason(r.u32()), abi.DecodeWaitStatus(r.u32())
	c.failure, c.size = r.u32(), r.u32()
	depth := r.u32()
	c.wait.pointer, c.wait.value, c.base, c.extract = r.u64(), r.u64(), r.u64(), r.u64()
	c.handler = [2]uint64{r.u64(), r.u64()}
	c.progress, c.heap = r.u64(), r.u64()
	if depth > framesMax {
		return c, fmt.Errorf("%d frames", depth)
	}
	for i := range uint32(framesMax) {
		fr := frame{r.u64(), r.u64()}
		if i < depth {
			c.frames = append(c.frames, fr)
		}
	}
	c.endpoint, c.other, c.resources = r.u8()%scoreboardsMax, r.u8()%scoreboardsMax, abi.Resources(r.u8())
	ops, dispatches := r.u8(), r.u8()
	r.take(3)
	if ops > deferralsMax || dispatches > dispatchesMax {
		return c, fmt.Errorf("%d operations, %d dispatches", ops, dispatches)
	}
	for i := range c.heapCounts {
		c.heapCounts[i] = r.u32()
	}
	for i := range c.regs {
		c.regs[i] = r.u32()
	}
	for range ops {
		ins, err := abi.DecodeInstruction(r.u64())
		o := &op{ins: ins, waitMask: r.u16(), slot: r.u8() % scoreboardsMax}
		if err != nil {
			return c, err
		}
		c.ops = append(c.ops, o)
	}
	for range dispatches {
		d := &dispatch{}
		for i := range d.regs {
			d.regs[i] = r.u32()
		}
		d.spd, d.axis, d.slot = r.u8(), r.u8(), r.u8()%scoreboardsMax
		r.u8()
		d.increment, d.next = r.u16(), r.u64()
		c.dispatches = append(c.dispatches, d)
	}
	c.failed = c.flags&flagFailed != 0
	return c, nil
}

// restore reads a group's image and brings its streams back; an error means
// that nothing was restored.
func (f *Firmware) restore(g *group) error {
	size := uint64(f.suspendSize())
	at, mem, err := f.mcuBytes(g.suspendVA, size, abi.AccessRead)
	if err != nil {
		return err
	}
	// What is in the cache is newer than memory, and is written back when it is read.
	f.l2 = slices.DeleteFunc(f.l2, func(d dirty) bool {
		if d.at == at {
			copy(mem, d.bytes)
		}
		return d.at == at
	})
	b := append([]byte(nil), mem...)
	records, generation, err := f.decodeImage(b)
	if err != nil {
		return err
	}
	for i, s := range g.streams {
		if records[i].flags&flagStarted == 0 || !s.armed {
			continue
		}
		if err := s.fits(records[i]); err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	g.generation = generation
	for i, s := range g.streams {
		switch {
		case !s.armed:
		case records[i].flags&flagStarted == 0:
			s.begin()
		default:
			s.resume(records[i])
		}
	}
	return nil
}

// decodeImage checks an image and reads its records.
func (f *Firmware) decodeImage(b []byte) ([]record, uint64, error) {
	le := binary.LittleEndian
	length := imageHeader + f.cfg.Streams*streamRecord
	switch {
	case len(b) < length:
		return nil, 0, fmt.Errorf("image of %d bytes", len(b))
	case le.Uint32(b) != imageMagic || le.Uint16(b[4:]) != imageFormat:
		return nil, 0, fmt.Errorf("no image of format %d", imageFormat)
	case b[6] != f.cfg.SuspendType || int(b[7]) != f.cfg.Streams:
		return nil, 0, fmt.Errorf("image of suspend type %d with %d streams", b[6], b[7])
	case le.Uint64(b[imageBuildOffset:]) != f.cfg.Build:
		return nil, 0, fmt.Errorf("image of build %d", le.Uint64(b[imageBuildOffset:]))
	case int(le.Uint32(b[imageLengthOffset:])) != length:
		return nil, 0, fmt.Errorf("image says %d bytes", le.Uint32(b[imageLengthOffset:]))
	}
	sum := le.Uint32(b[imageChecksum:])
	le.PutUint32(b[imageChecksum:], 0)
	if crc32.ChecksumIEEE(b[:length]) != sum {
		return nil, 0, fmt.Errorf("image is damaged")
	}
	records := make([]record, f.cfg.Streams)
	for i := range records {
		var err error
		if records[i], err = decodeRecord(b[imageHeader+i*streamRecord:][:streamRecord]); err != nil {
			return nil, 0, fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return records, le.Uint64(b[0x18:]), nil
}

// fits checks a record against what the host programmed.
func (s *stream) fits(c record) error {
	f := s.g.f
	if base, size := f.load64(s.in+abi.StreamBase), f.load(s.in+abi.StreamSize); base != c.base || size != c.size {
		return fmt.Errorf("ring at %#x of %d bytes, image has %#x of %d", base, size, c.base, c.size)
	}
	in, err := f.translate(0, f.load64(s.in+abi.StreamUserInput), 2*8, abi.AccessRead)
	if err != nil {
		return err
	}
	if insert := f.load64(in + abi.RingInsert); c.extract%abi.InstructionSize != 0 || c.extract > insert || insert-c.extract > uint64(c.size) {
		return fmt.Errorf("EXTRACT %#x, INSERT %#x", c.extract, insert)
	}
	for _, fr := range c.frames {
		if fr.pc%abi.InstructionSize != 0 || fr.pc > fr.end {
			return fmt.Errorf("call at %#x to %#x", fr.pc, fr.end)
		}
	}
	if c.flags&flagHalted == 0 && len(c.frames) > 0 {
		if pc := c.frames[len(c.frames)-1]; pc.pc != pc.end {
			if _, err := f.translate(s.g.as, pc.pc, abi.InstructionSize, abi.AccessExecute); err != nil {
				return err
			}
		}
	}
	return nil
}

// resume goes on where a record was taken.
func (s *stream) resume(c record) {
	f := s.g.f
	s.csContext = csContext{}
	if !s.latch() {
		s.fatal(abi.ExceptionConfig, s.base)
		return
	}
	s.csContext, s.wait, s.ops = c.csContext, c.wait, c.ops
	s.halted, s.faultHeld = c.flags&flagHalted != 0, c.flags&flagFaultHeld != 0
	s.insert = s.extract
	if len(s.frames) > 0 { // The call that it is in stood below INSERT, whatever INSERT reads as now.
		s.insert += abi.InstructionSize
	}
	s.showExtract()
	f.store(s.userOut+abi.RingActive, 1)
	s.readInsert()
	for _, d := range s.dispatches {
		d.s = s
	}
	for _, d := range slices.Clone(s.dispatches) {
		if err := f.find(d, true); err != nil {
			f.say("RUN", fmt.Sprintf("csg=%d cs=%d %v", s.g.slot, s.index, err))
			f.remove(d)
			s.fault(abi.ExceptionDataInvalid, d.program())
		}
	}
}
