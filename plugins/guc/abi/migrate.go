package abi

import "fmt"

// FunctionSelf is the number (VFID) under which a device that is one function
// migrates as a whole. 0 would be the physical function. The choice is ours.
const FunctionSelf uint32 = 1

// VFCommand is what VFControl asks for.
type VFCommand uint32

// The commands.
const (
	// VFPause takes everything off the engines; then resume, stop, or save and restore.
	VFPause VFCommand = 1
	// VFResume goes on, after a restore with fix-ups first.
	VFResume VFCommand = 2
	// VFStop is final; then only a function level reset.
	VFStop VFCommand = 3
	// VFResetStart forgets everything; then VFResetFinish.
	VFResetStart VFCommand = 4
	// VFResetFinish ends a function level reset.
	VFResetFinish VFCommand = 5
)

// String names the command.
func (c VFCommand) String() string {
	if names := [...]string{"", "pause", "resume", "stop", "flr-start", "flr-finish"}; c >= VFPause && c <= VFResetFinish {
		return names[c]
	}
	return fmt.Sprintf("command %d", uint32(c))
}

// VFState is what VFStateNotify tells.
type VFState uint32

// The states.
const (
	VFStateReset     VFState = 1
	VFStateResetDone VFState = 2
	VFStatePauseDone VFState = 3
	VFStateFixupDone VFState = 4
)

// String names the state.
func (s VFState) String() string {
	if names := [...]string{"", "flr", "flr-done", "pause-done", "fixup-done"}; s >= VFStateReset && s <= VFStateFixupDone {
		return names[s]
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// VFControl changes the state of a function. 3 dw, request.
//
//	dw1   VFID
//	dw2   1 pause, 2 resume, 3 stop, 4 FLR start, 5 FLR finish
type VFControl struct {
	Function uint32
	Command  VFCommand
}

// VFStateNotify tells that a function's state has changed; it may come before
// the reply to the VFControl that changed it. 3 dw.
//
//	dw1   VFID
//	dw2   1 FLR, 2 FLR done, 3 pause done, 4 fix-up done
type VFStateNotify struct {
	Function uint32
	State    VFState
}

// SaveRestoreVF writes the firmware's state of a paused function into memory,
// or takes it from there. Save with address and size 0 asks for the size. 5 dw,
// request; the reply's DATA0 is the size that was used.
//
//	dw0   27:16 DATA0: 0 save, 1 restore
//	dw1   VFID
//	dw2,3 GGTT address lo, hi of the buffer
//	dw4   27:0 size of the buffer in dwords
type SaveRestoreVF struct {
	Restore  bool
	Function uint32
	Address  uint64
	Dwords   uint32
}

// SaveDwordsMax is the largest size that fits into the message.
const SaveDwordsMax = 1<<28 - 1

// ResfixStart and ResfixDone enclose the fix-ups of a function that was
// migrated. 1 dw each, MMIO. The marker has 12 bits, is not 0, and is the same
// in both; otherwise the fix-ups start over.
//
//	dw0   27:16 DATA0: marker
type (
	ResfixStart struct{ Marker uint16 }
	ResfixDone  struct{ Marker uint16 }
)

// MarkerMax is the largest marker.
const MarkerMax = 0xFFF

// Action implements Body.
func (VFControl) Action() Action     { return ActionVFControl }
func (VFStateNotify) Action() Action { return ActionVFStateNotify }
func (SaveRestoreVF) Action() Action { return ActionSaveRestoreVF }
func (ResfixStart) Action() Action   { return ActionResfixStart }
func (ResfixDone) Action() Action    { return ActionResfixDone }

func (VFControl) aux() uint32     { return uint32(ActionVFControl) }
func (VFStateNotify) aux() uint32 { return uint32(ActionVFStateNotify) }
func (m SaveRestoreVF) aux() uint32 {
	return bit(m.Restore)<<16 | uint32(ActionSaveRestoreVF)
}
func (m ResfixStart) aux() uint32 { return uint32(m.Marker&MarkerMax)<<16 | uint32(ActionResfixStart) }
func (m ResfixDone) aux() uint32  { return uint32(m.Marker&MarkerMax)<<16 | uint32(ActionResfixDone) }

func (m VFControl) payload(dst []uint32) []uint32 {
	return append(dst, m.Function, uint32(m.Command))
}
func (m VFStateNotify) payload(dst []uint32) []uint32 {
	return append(dst, m.Function, uint32(m.State))
}
func (m SaveRestoreVF) payload(dst []uint32) []uint32 {
	return append(dst, m.Function, lo(m.Address), hi(m.Address), m.Dwords)
}
func (ResfixStart) payload(dst []uint32) []uint32 { return dst }
func (ResfixDone) payload(dst []uint32) []uint32  { return dst }

// parseMigrate decodes the messages of this file; data0 is the one of dword 0.
func parseMigrate(action Action, data0 uint32, p []uint32) Body {
	switch action {
	case ActionVFControl:
		if m := (VFControl{Function: p[0], Command: VFCommand(p[1])}); m.Command >= VFPause && m.Command <= VFResetFinish {
			return m
		}
	case ActionVFStateNotify:
		if m := (VFStateNotify{Function: p[0], State: VFState(p[1])}); m.State >= VFStateReset && m.State <= VFStateFixupDone {
			return m
		}
	case ActionSaveRestoreVF:
		if data0 <= 1 && p[3] <= SaveDwordsMax {
			return SaveRestoreVF{Restore: data0 == 1, Function: p[0], Address: wide(p[1:]), Dwords: p[3]}
		}
	case ActionResfixStart:
		if data0 != 0 {
			return ResfixStart{Marker: uint16(data0)}
		}
	case ActionResfixDone:
		if data0 != 0 {
			return ResfixDone{Marker: uint16(data0)}
		}
	}
	return nil
}

// describeMigrate shows the messages of this file; "" for others.
func describeMigrate(b Body) string {
	switch m := b.(type) {
	case VFControl:
		return fmt.Sprintf("vfid=%d command=%s", m.Function, m.Command)
	case VFStateNotify:
		return fmt.Sprintf("vfid=%d state=%s", m.Function, m.State)
	case SaveRestoreVF:
		return fmt.Sprintf("vfid=%d restore=%t address=%#x dwords=%d", m.Function, m.Restore, m.Address, m.Dwords)
	case ResfixStart:
		return fmt.Sprintf("marker=%#x", m.Marker)
	case ResfixDone:
		return fmt.Sprintf("marker=%#x", m.Marker)
	}
	return ""
}
