package abi

import "encoding/binary"

// The fields, each written once. Names that begin with % are registers.
var (
	fDest   = number("%dst", 55, 48, func(i *Instruction) *uint8 { return &i.Dest })
	fDest64 = number("dst", 55, 48, func(i *Instruction) *uint8 { return &i.Dest }).asPair()
	fBase   = number("%base", 55, 48, func(i *Instruction) *uint8 { return &i.Dest })
	fSrc    = number("%src", 47, 40, func(i *Instruction) *uint8 { return &i.Source })
	fSrc64  = number("src", 47, 40, func(i *Instruction) *uint8 { return &i.Source }).asPair()
	fSrc2   = number("%src2", 39, 32, func(i *Instruction) *uint8 { return &i.Source2 })
	fAddr   = number("addr", 47, 40, func(i *Instruction) *uint8 { return &i.Address }).asPair()
	fLength = number("%length", 39, 32, func(i *Instruction) *uint8 { return &i.Length })
	fData   = number("%data", 39, 32, func(i *Instruction) *uint8 { return &i.Source })
	fData64 = number("data", 39, 32, func(i *Instruction) *uint8 { return &i.Source }).asPair()
	fFlush  = number("%flush", 47, 40, func(i *Instruction) *uint8 { return &i.Source })

	fImm48   = number("imm", 47, 0, func(i *Instruction) *uint64 { return &i.Imm })
	fImm32   = number("imm", 31, 0, func(i *Instruction) *uint64 { return &i.Imm })
	fSigned  = fImm32.asSigned()
	fPayload = number("payload", 55, 0, func(i *Instruction) *uint64 { return &i.Imm })
	fCount   = number("instructions", 15, 0, func(i *Instruction) *uint64 { return &i.Imm })

	fOffset    = number("offset", 15, 0, func(i *Instruction) *int16 { return &i.Offset }).asSigned()
	fRegisters = number("mask", 31, 16, func(i *Instruction) *uint16 { return &i.Mask })
	fSBMask    = number("sb", 23, 16, func(i *Instruction) *uint16 { return &i.Mask })
	fCond      = number("cond", 30, 28, func(i *Instruction) *Condition { return &i.Condition })
	fSyncCond  = number("cond", 31, 28, func(i *Instruction) *Condition { return &i.Condition })
	fProgress  = boolean("progress", 32, func(i *Instruction) *bool { return &i.Progress })
	fQueue     = number("queue", 4, 0, func(i *Instruction) *uint8 { return &i.Queue })
	fKind      = number("kind", 7, 0, func(i *Instruction) *uint8 { return &i.Kind })

	fIncrement = number("increment", 13, 0, func(i *Instruction) *uint16 { return &i.Increment })
	fAxis      = number("axis", 15, 14, func(i *Instruction) *uint8 { return &i.Axis })
	fPerTask   = number("increment", 15, 0, func(i *Instruction) *uint16 { return &i.Increment })
	fSRT       = number("srt", 41, 40, func(i *Instruction) *uint8 { return &i.SRT })
	fSPD       = number("spd", 43, 42, func(i *Instruction) *uint8 { return &i.SPD })
	fTSD       = number("tsd", 45, 44, func(i *Instruction) *uint8 { return &i.TSD })
	fFAU       = number("fau", 47, 46, func(i *Instruction) *uint8 { return &i.FAU })

	fEndpoint  = number("endpoint", 3, 0, func(i *Instruction) *uint8 { return &i.Endpoint })
	fOther     = number("other", 7, 4, func(i *Instruction) *uint8 { return &i.Other })
	fResources = number("resources", 3, 0, func(i *Instruction) *Resources { return &i.Resources })

	fL2     = number("l2", 3, 0, func(i *Instruction) *FlushMode { return &i.L2 })
	fLSC    = number("lsc", 7, 4, func(i *Instruction) *FlushMode { return &i.LSC })
	fCaches = number("other", 11, 8, func(i *Instruction) *FlushMode { return &i.OtherCaches })

	fPropagate = boolean("propagate", 0, func(i *Instruction) *bool { return &i.Propagate })
	fReject    = boolean("reject", 0, func(i *Instruction) *bool { return &i.Reject })
	fScope     = number("scope", 2, 1, func(i *Instruction) *Scope { return &i.Scope })
	fState     = number("state", 33, 32, func(i *Instruction) *StoredState { return &i.State })
	fHeap      = number("op", 33, 32, func(i *Instruction) *HeapStep { return &i.Heap })

	fWaitMask = number("wait", 31, 16, func(i *Instruction) *uint16 { return &i.WaitMask })
	fSignal   = number("signal", 51, 48, func(i *Instruction) *uint8 { return &i.Signal })
)

// layout is what an opcode consists of.
type layout struct {
	name   string
	fields []field
}

// layouts has every known opcode.
var layouts = map[Opcode]layout{
	OpNop:                 {"NOP", []field{fPayload}},
	OpMove48:              {"MOVE48", []field{fDest64, fImm48}},
	OpMove32:              {"MOVE32", []field{fDest, fImm32}},
	OpWait:                {"WAIT", []field{fSBMask, fProgress}},
	OpRunCompute:          {"RUN_COMPUTE", []field{fIncrement, fAxis, fProgress, fSRT, fSPD, fTSD, fFAU}},
	OpRunTiling:           {"RUN_TILING", []field{fPayload}},
	OpRunIDVS:             {"RUN_IDVS", []field{fPayload}},
	OpRunFragment:         {"RUN_FRAGMENT", []field{fPayload}},
	OpRunFullscreen:       {"RUN_FULLSCREEN", []field{fPayload}},
	OpFinishTiling:        {"FINISH_TILING", []field{fPayload}},
	OpFinishFragment:      {"FINISH_FRAGMENT", []field{fPayload}},
	OpAddImm32:            {"ADD_IMM32", []field{fDest, fSrc, fSigned}},
	OpAddImm64:            {"ADD_IMM64", []field{fDest64, fSrc64, fSigned}},
	OpUMin32:              {"UMIN32", []field{fDest, fSrc, fSrc2}},
	OpLoadMultiple:        {"LOAD_MULTIPLE", []field{fBase, fAddr, fRegisters, fOffset}},
	OpStoreMultiple:       {"STORE_MULTIPLE", []field{fBase, fAddr, fRegisters, fOffset}},
	OpBranch:              {"BRANCH", []field{fSrc, fCond, fOffset}},
	OpSetSBEntry:          {"SET_SB_ENTRY", []field{fEndpoint, fOther}},
	OpProgressWait:        {"PROGRESS_WAIT", []field{fSrc64, fQueue}},
	OpSetExceptionHandler: {"SET_EXCEPTION_HANDLER", []field{fAddr, fLength, fKind}},
	OpCall:                {"CALL", []field{fAddr, fLength}},
	OpJump:                {"JUMP", []field{fAddr, fLength}},
	OpReqResource:         {"REQ_RESOURCE", []field{fResources}},
	OpFlushCache2:         {"FLUSH_CACHE2", []field{fL2, fLSC, fCaches, fFlush, fWaitMask, fSignal}},
	OpSyncAdd32:           {"SYNC_ADD32", []field{fData, fAddr, fPropagate, fScope, fWaitMask, fSignal}},
	OpSyncSet32:           {"SYNC_SET32", []field{fData, fAddr, fPropagate, fScope, fWaitMask, fSignal}},
	OpSyncWait32:          {"SYNC_WAIT32", []field{fData, fAddr, fReject, fSyncCond}},
	OpStoreState:          {"STORE_STATE", []field{fState, fAddr, fOffset, fWaitMask, fSignal}},
	OpProtRegion:          {"PROT_REGION", []field{fCount}},
	OpProgressStore:       {"PROGRESS_STORE", []field{fSrc64}},
	OpProgressLoad:        {"PROGRESS_LOAD", []field{fDest64}},
	OpRunComputeIndirect:  {"RUN_COMPUTE_INDIRECT", []field{fPerTask, fProgress, fSRT, fSPD, fTSD, fFAU}},
	OpErrorBarrier:        {"ERROR_BARRIER", nil},
	OpHeapSet:             {"HEAP_SET", []field{fAddr}},
	OpHeapOperation:       {"HEAP_OPERATION", []field{fHeap, fWaitMask, fSignal}},
	OpTracePoint:          {"TRACE_POINT", []field{fSrc2, fSrc, fWaitMask, fSignal}},
	OpSyncAdd64:           {"SYNC_ADD64", []field{fData64, fAddr, fPropagate, fScope, fWaitMask, fSignal}},
	OpSyncSet64:           {"SYNC_SET64", []field{fData64, fAddr, fPropagate, fScope, fWaitMask, fSignal}},
	OpSyncWait64:          {"SYNC_WAIT64", []field{fData64, fAddr, fReject, fSyncCond}},
}

func put64(b []byte, v uint64) { binary.LittleEndian.PutUint64(b, v) }
func get64(b []byte) uint64    { return binary.LittleEndian.Uint64(b) }
func put32(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }
func get32(b []byte) uint32    { return binary.LittleEndian.Uint32(b) }
