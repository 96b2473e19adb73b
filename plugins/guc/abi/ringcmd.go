package abi

// Opcode is the opcode of an MI command, bits 28:23 of its first dword.
type Opcode uint8

// The MI commands that a job uses.
const (
	OpNoop          Opcode = 0x00
	OpUserInterrupt Opcode = 0x02
	OpArbCheck      Opcode = 0x05
	OpArbOnOff      Opcode = 0x08
	OpBatchEnd      Opcode = 0x0A
	OpStoreDataImm  Opcode = 0x20
	OpStoreRegister Opcode = 0x24
	OpFlush         Opcode = 0x26
	OpBatchStart    Opcode = 0x31
)

const (
	opcodeShift     = 23
	cmdGGTT         = 1 << 22
	cmdAddCSOffset  = 1 << 19
	cmdFlushStore   = 1 << 14
	cmdPPGTT        = 1 << 8
	cmdArbOn        = 1
	flushGGTT       = 1 << 2
	commandMax      = 4
	opcodeCount     = 64
	shapeOneDword   = 1
	shapeThreeDword = 3
	shapeFourDword  = 4
)

// Command is one MI command of a ring.
//
//	31:29 0
//	28:23 OPCODE
//	22    GGTT (store data, store register)
//	19    register offset is relative to the engine (store register, always set)
//	15:14 1 = write the value after the flush (flush, always set)
//	8     PPGTT: the batch address is virtual (batch start)
//	0     on (arb on/off)
//	5:0   dwords - 2, for commands of more than one
//
// Store data imm, 4 dw: address lo, hi, value. Store register, 4 dw: register,
// address lo, hi. Flush, 4 dw: address lo with bit 2 = GGTT, hi, value. Batch
// start, 3 dw: address lo, hi. The rest have 1 dw.
type Command struct {
	Op Opcode
	// Address is a multiple of 4, of 8 for OpFlush.
	Address uint64
	// Value is stored by OpStoreDataImm and OpFlush.
	Value uint32
	// Register is the byte offset that OpStoreRegister reads.
	Register uint32
	// GGTT says that Address is a GGTT address (stores and flush).
	GGTT bool
	// Virtual says that the batch address lies in the context's address space.
	Virtual bool
	// On is the argument of OpArbOnOff.
	On bool
}

var shapes = [opcodeCount]int{
	OpNoop: shapeOneDword, OpUserInterrupt: shapeOneDword, OpArbCheck: shapeOneDword, OpArbOnOff: shapeOneDword,
	OpBatchEnd: shapeOneDword, OpStoreDataImm: shapeFourDword, OpStoreRegister: shapeFourDword,
	OpFlush: shapeFourDword, OpBatchStart: shapeThreeDword,
}

// Append appends the command's dwords.
func (c Command) Append(dst []uint32) []uint32 {
	dw := uint32(c.Op) << opcodeShift
	if n := shapes[c.Op%opcodeCount]; n > 1 {
		dw |= uint32(n - 2)
	}
	switch c.Op {
	case OpArbOnOff:
		dw |= bit(c.On)
	case OpStoreDataImm:
		return append(dst, dw|bit(c.GGTT)*cmdGGTT, lo(c.Address), hi(c.Address), c.Value)
	case OpStoreRegister:
		return append(dst, dw|cmdAddCSOffset|bit(c.GGTT)*cmdGGTT, c.Register, lo(c.Address), hi(c.Address))
	case OpFlush:
		return append(dst, dw|cmdFlushStore, lo(c.Address)|bit(c.GGTT)*flushGGTT, hi(c.Address), c.Value)
	case OpBatchStart:
		return append(dst, dw|bit(c.Virtual)*cmdPPGTT, lo(c.Address), hi(c.Address))
	}
	return append(dst, dw)
}

// DecodeCommand decodes the first command of dw and returns its length in
// dwords (at most 4). Unknown opcodes, stray bits and cut commands are *WireErrors.
func DecodeCommand(dw []uint32) (Command, int, error) {
	if len(dw) == 0 {
		return Command{}, 0, wire(ErrorInvalidParams, "no ring command")
	}
	c := Command{Op: Opcode(dw[0] >> opcodeShift & (opcodeCount - 1))}
	n := shapes[c.Op]
	if n == 0 || n > len(dw) {
		return c, 0, wire(ErrorInvalidParams, "ring command %#08x: unknown or cut at %d dwords", dw[0], len(dw))
	}
	switch c.Op {
	case OpArbOnOff:
		c.On = dw[0]&cmdArbOn != 0
	case OpStoreDataImm:
		c.GGTT, c.Address, c.Value = dw[0]&cmdGGTT != 0, wide(dw[1:]), dw[3]
	case OpStoreRegister:
		c.GGTT, c.Register, c.Address = dw[0]&cmdGGTT != 0, dw[1], wide(dw[2:])
	case OpFlush:
		c.GGTT, c.Address, c.Value = dw[1]&flushGGTT != 0, wide(dw[1:])&^flushGGTT, dw[3]
	case OpBatchStart:
		c.Virtual, c.Address = dw[0]&cmdPPGTT != 0, wide(dw[1:])
	}
	var again [commandMax]uint32
	for i, want := range c.Append(again[:0]) {
		if dw[i] != want {
			return c, 0, wire(ErrorInvalidParams, "ring command %08x: stray bits", dw[:n])
		}
	}
	if c.Address%4 != 0 {
		return c, 0, wire(ErrorInvalidParams, "ring command %08x: address not aligned", dw[:n])
	}
	return c, n, nil
}

// JobDwords is the length of a job's program, a multiple of the tail's alignment.
const JobDwords = 20

// JobProgram is what one job puts into the ring, in order: save the context's
// timestamp as the job's stamp; write the start seqno; start the batch;
// arbitration off; flush and write the seqno; user interrupt; arbitration on;
// arbitration check; NOOP. A skipped job has NOOPs in place of the batch start.
type JobProgram struct {
	// LRC is the GGTT address of the LRC, whose PPHWSP takes the seqnos.
	LRC   uint64
	Seqno uint32
	// Batch is the virtual address of the job's dispatch descriptor.
	Batch uint64
	Skip  bool
}

// BatchDword is the index of the batch start in a program, BatchDwords its length.
const (
	BatchDword  = 8
	BatchDwords = shapeThreeDword
)

// Append appends the program's JobDwords dwords.
func (j JobProgram) Append(dst []uint32) []uint32 {
	status := j.LRC + PPHWSPOffset
	dst = Command{Op: OpStoreRegister, Register: RegisterTimestamp, Address: status + PPHWSPJobTimestamp, GGTT: true}.Append(dst)
	dst = Command{Op: OpStoreDataImm, Address: status + PPHWSPStartSeqno, Value: j.Seqno, GGTT: true}.Append(dst)
	if j.Skip {
		dst = append(dst, 0, 0, 0)
	} else {
		dst = Command{Op: OpBatchStart, Address: j.Batch, Virtual: true}.Append(dst)
	}
	dst = Command{Op: OpArbOnOff}.Append(dst)
	dst = Command{Op: OpFlush, Address: status + PPHWSPSeqno, Value: j.Seqno, GGTT: true}.Append(dst)
	dst = Command{Op: OpUserInterrupt}.Append(dst)
	dst = Command{Op: OpArbOnOff, On: true}.Append(dst)
	dst = Command{Op: OpArbCheck}.Append(dst)
	return Command{Op: OpNoop}.Append(dst)
}

// DecodeJobProgram decodes exactly what Append produces.
func DecodeJobProgram(dw []uint32) (JobProgram, error) {
	if len(dw) != JobDwords {
		return JobProgram{}, wire(ErrorInvalidSize, "job program of %d dwords", len(dw))
	}
	j := JobProgram{LRC: wide(dw[5:]) - PPHWSPStartSeqno - PPHWSPOffset, Seqno: dw[7]}
	if j.Skip = dw[BatchDword] == 0; !j.Skip {
		j.Batch = wide(dw[BatchDword+1:])
	}
	var again [JobDwords]uint32
	for i, want := range j.Append(again[:0]) {
		if dw[i] != want {
			return JobProgram{}, wire(ErrorInvalidParams, "job program: dword %d is %#08x", i, dw[i])
		}
	}
	return j, nil
}
