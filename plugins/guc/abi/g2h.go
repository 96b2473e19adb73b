package abi

// SchedContextModeDone answers SchedContextModeSet. 3 dw, 4 with the CTB header.
//
//	dw1   guc_id
//	dw2   runnable: 1 enabled, 0 disabled (off every engine)
type SchedContextModeDone struct {
	ID      GUCID
	Enabled bool
}

// DeregisterContextDone says that the id may be used again. 2 dw.
//
//	dw1   guc_id
type DeregisterContextDone struct{ ID GUCID }

// ContextReset says that the context hung or faulted and was reset; it is not
// scheduled any more. 2 dw.
//
//	dw1   guc_id
type ContextReset struct{ ID GUCID }

// EngineFailure says that an engine could not be reset; the firmware then stops. 4 dw.
//
//	dw1   engine class
//	dw2   logical instance
//	dw3   reason
type EngineFailure struct {
	Class    EngineClass
	Instance uint32
	Reason   uint32
}

// CatError says that the context touched memory that it must not. 2 dw, or 3 when
// the host opted in to the type.
//
//	dw1   guc_id, GUCIDUnknown if it is not known
//	dw2   type; CatTypeUnsupported if there is none
type CatError struct {
	ID GUCID
	// Extended says that Type is on the wire.
	Extended bool
	Type     uint32
}

// CatTypeUnsupported is the type of a CAT error without one.
const CatTypeUnsupported uint32 = 0xDEADBEEF

// StateCapture says that the engine's registers were saved before a reset. 2 dw.
//
//	dw1   7:0 status: 0 saved, 1 no space
type StateCapture struct{ Status uint32 }

// TLBInvalidationDone acknowledges all invalidations up to Seqno. 2 dw.
//
//	dw1   seqno
type TLBInvalidationDone struct{ Seqno uint32 }

// CrashDumpPosted and Exception say that the firmware has died. 1 dw each.
type (
	CrashDumpPosted struct{}
	Exception       struct{}
)

// Action implements Body.
func (SchedContextModeDone) Action() Action  { return ActionSchedContextModeDone }
func (DeregisterContextDone) Action() Action { return ActionDeregisterContextDone }
func (ContextReset) Action() Action          { return ActionContextReset }
func (EngineFailure) Action() Action         { return ActionEngineFailure }
func (CatError) Action() Action              { return ActionCatError }
func (StateCapture) Action() Action          { return ActionStateCapture }
func (TLBInvalidationDone) Action() Action   { return ActionTLBInvalidationDone }
func (CrashDumpPosted) Action() Action       { return ActionCrashDumpPosted }
func (Exception) Action() Action             { return ActionException }

func (SchedContextModeDone) aux() uint32  { return uint32(ActionSchedContextModeDone) }
func (DeregisterContextDone) aux() uint32 { return uint32(ActionDeregisterContextDone) }
func (ContextReset) aux() uint32          { return uint32(ActionContextReset) }
func (EngineFailure) aux() uint32         { return uint32(ActionEngineFailure) }
func (CatError) aux() uint32              { return uint32(ActionCatError) }
func (StateCapture) aux() uint32          { return uint32(ActionStateCapture) }
func (TLBInvalidationDone) aux() uint32   { return uint32(ActionTLBInvalidationDone) }
func (CrashDumpPosted) aux() uint32       { return uint32(ActionCrashDumpPosted) }
func (Exception) aux() uint32             { return uint32(ActionException) }

func (m SchedContextModeDone) payload(dst []uint32) []uint32 {
	return append(dst, uint32(m.ID), bit(m.Enabled))
}
func (m DeregisterContextDone) payload(dst []uint32) []uint32 { return append(dst, uint32(m.ID)) }
func (m ContextReset) payload(dst []uint32) []uint32          { return append(dst, uint32(m.ID)) }
func (m EngineFailure) payload(dst []uint32) []uint32 {
	return append(dst, uint32(m.Class), m.Instance, m.Reason)
}
func (m CatError) payload(dst []uint32) []uint32 {
	dst = append(dst, uint32(m.ID))
	if m.Extended {
		dst = append(dst, m.Type)
	}
	return dst
}
func (m StateCapture) payload(dst []uint32) []uint32        { return append(dst, m.Status) }
func (m TLBInvalidationDone) payload(dst []uint32) []uint32 { return append(dst, m.Seqno) }
func (CrashDumpPosted) payload(dst []uint32) []uint32       { return dst }
func (Exception) payload(dst []uint32) []uint32             { return dst }
