package abi

import (
	"fmt"
	"strings"
)

// bitNames are the names of the bits of a word, lowest first.
type bitNames []struct {
	bit  uint32
	name string
}

var (
	globalBits = bitNames{
		{GlobalHalt, "HALT"}, {GlobalCfgProgressTimer, "CFG_PROGRESS_TIMER"}, {GlobalCfgAllocEnable, "CFG_ALLOC_EN"},
		{GlobalCfgPowerOffTimer, "CFG_PWROFF_TIMER"}, {GlobalProtectedEnter, "PROTM_ENTER"}, {GlobalSampleEnable, "PRFCNT_ENABLE"},
		{GlobalSample, "PRFCNT_SAMPLE"}, {GlobalCounterEnable, "COUNTER_EN"}, {GlobalPing, "PING"}, {GlobalConfigUpdate, "FWCFG_UPDATE"},
		{GlobalIdleEnable, "IDLE_EN"}, {GlobalSleep, "SLEEP"}, {GlobalIdle, "IDLE"}, {GlobalDebugCSF, "DBG_CSF"}, {GlobalDebugHost, "DBG_HOST"},
	}
	groupBits = bitNames{
		{GroupEndpointCfg, "EP_CFG"}, {GroupStatusUpdate, "STATUS_UPDATE"}, {GroupSyncUpdate, "SYNC_UPDATE"},
		{GroupIdle, "IDLE"}, {GroupProgressEvent, "PROGRESS_TIMER_EVENT"},
	}
	streamBits = bitNames{
		{StreamExtractEvent, "EXTRACT_EVENT"}, {StreamIdleSyncWait, "IDLE_SYNC_WAIT"}, {StreamIdleProtected, "IDLE_PROTM_PEND"},
		{StreamIdleEmpty, "IDLE_EMPTY"}, {StreamIdleResource, "IDLE_RESOURCE_REQ"}, {StreamTilerOOM, "TILER_OOM"},
		{StreamProtectedPend, "PROTM_PEND"}, {StreamFatalEvent, "FATAL"}, {StreamFaultEvent, "FAULT"},
	}
)

// text names the bits of a word, and what has no name as a number.
func (n bitNames) text(v uint32) string {
	var words []string
	for _, b := range n {
		if v&b.bit != 0 {
			words = append(words, b.name)
			v &^= b.bit
		}
	}
	if v != 0 {
		words = append(words, fmt.Sprintf("%#x", v))
	}
	return strings.Join(words, "|")
}

// DescribeGlobal names bits of GLB_REQ or GLB_ACK.
func DescribeGlobal(bits uint32) string { return globalBits.text(bits) }

// DescribeGroup names the bits of a CSG_REQ or CSG_ACK that differ, with the
// value of the state if it does.
func DescribeGroup(value, differ uint32) string {
	return join(differ&GroupStateMask != 0, GroupState(value&GroupStateMask).String(), groupBits.text(differ&^GroupStateMask))
}

// DescribeStream is DescribeGroup for a CS_REQ or CS_ACK.
func DescribeStream(value, differ uint32) string {
	state := "START"
	switch value & StreamStateMask {
	case StreamStart:
	case StreamStop:
		state = "STOP"
	default:
		state = fmt.Sprintf("STATE_%d", value&StreamStateMask)
	}
	return join(differ&StreamStateMask != 0, state, streamBits.text(differ&^StreamStateMask))
}

func join(withState bool, state, bits string) string {
	switch {
	case !withState:
		return bits
	case bits == "":
		return state
	}
	return state + "|" + bits
}

// String names the state.
func (s GroupState) String() string {
	names := [...]string{"TERMINATE", "START", "SUSPEND", "RESUME"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("STATE_%d", uint32(s))
}

// DescribeInterrupt names bits of JOB_INT.
func DescribeInterrupt(bits uint32) string {
	var words []string
	for slot := range uint32(31) {
		if bits&JobIntGroup(slot) != 0 {
			words = append(words, fmt.Sprintf("CSG%d", slot))
		}
	}
	if bits&JobIntGlobal != 0 {
		words = append(words, "GLB")
	}
	return strings.Join(words, "|")
}

// DescribeFault names a CS_FAULT or CS_FATAL.
func DescribeFault(v uint32) string {
	f := DecodeFault(v)
	if f.Data == 0 {
		return f.Exception.String()
	}
	return fmt.Sprintf("%s data=%#x", f.Exception, f.Data)
}

// ASCommandName names a value of AS_COMMAND.
func ASCommandName(v uint32) string {
	names := [...]string{"NOP", "UPDATE", "LOCK", "UNLOCK", "FLUSH_PT", "FLUSH_MEM"}
	if v < uint32(len(names)) {
		return names[v]
	}
	return fmt.Sprintf("COMMAND_%d", v)
}
