package abi

// EngineClass is a class in the firmware's numbering.
type EngineClass uint32

// The engine classes.
const (
	ClassRender       EngineClass = 0
	ClassVideo        EngineClass = 1
	ClassVideoEnhance EngineClass = 2
	ClassBlitter      EngineClass = 3
	ClassCompute      EngineClass = 4
	ClassGSC          EngineClass = 5
)

// GUCID is a context index; 0..GUCIDMax-1 are valid.
type GUCID uint32

// The bounds of context indices.
const (
	// GUCIDMax counts the valid ids.
	GUCIDMax = 65535
	// GUCIDUnknown stands in a CAT error that could not be attributed.
	GUCIDUnknown GUCID = 0xFFFFFFFF
)

// RegisterContext makes a context known to the firmware. 12 dw, no reply.
//
//	dw1   flags: bit 0 kernel-mode driver, 2:1 type (0 normal)
//	dw2   guc_id
//	dw3   engine class
//	dw4   submit mask: bit n = logical instance n
//	dw5,6 WQ descriptor lo, hi (0: single LRC)
//	dw7,8 WQ buffer lo, hi (0)
//	dw9   WQ size in bytes (0)
//	dw10,11 LRC descriptor lo, hi
type RegisterContext struct {
	Flags         uint32
	ID            GUCID
	Class         EngineClass
	SubmitMask    uint32
	WQDescriptor  uint64
	WQBuffer      uint64
	WQSize        uint32
	LRCDescriptor uint64
}

// ContextFlagKMD is set by every kernel-mode driver in RegisterContext.Flags.
const ContextFlagKMD uint32 = 1

// DeregisterContext forgets a disabled context; answered by DeregisterContextDone. 2 dw.
//
//	dw1   guc_id
type DeregisterContext struct{ ID GUCID }

// UpdateContextPolicies changes how a context is scheduled. 2+2n dw, no reply.
//
//	dw1   guc_id
//	dw2.. KLVs of length 1
type UpdateContextPolicies struct {
	ID       GUCID
	Policies []KLV
}

// Policies builds the message that follows a registration: priority, execution
// quantum and preemption timeout in µs, frequency hint.
func Policies(id GUCID, priority, quantumUS, preemptionUS, frequency uint32) UpdateContextPolicies {
	return UpdateContextPolicies{ID: id, Policies: []KLV{
		Word(KLVPriority, priority), Word(KLVExecutionQuantum, quantumUS),
		Word(KLVPreemptionTimeout, preemptionUS), Word(KLVFrequency, frequency),
	}}
}

// SchedContext says that an enabled context has new work. 2 dw, no reply.
//
//	dw1   guc_id
type SchedContext struct{ ID GUCID }

// SchedContextModeSet enables or disables a context; answered by SchedContextModeDone. 3 dw.
//
//	dw1   guc_id
//	dw2   0 disable, 1 enable
type SchedContextModeSet struct {
	ID     GUCID
	Enable bool
}

// SelfCfg announces one address or size of the host. 4 dw, MMIO or request; the
// reply's DATA0 counts the entries taken.
//
//	dw1   31:16 key, 15:0 length (1 or 2)
//	dw2,3 value lo, hi
type SelfCfg struct {
	Key    KLVKey
	Length uint16
	Value  uint64
}

// ControlCTB switches both CTBs on or off. 2 dw, MMIO or request.
//
//	dw1   1 enable, 0 disable
type ControlCTB struct{ Enable bool }

// MatchVersion asks for an ABI version, 0 = any. 2 dw, MMIO.
//
//	dw1   31:24 branch, 23:16 major, 15:8 minor, 7:0 patch (0 in the request)
type MatchVersion struct{ Version Version }

// Version is an ABI version.
type Version struct{ Branch, Major, Minor, Patch uint8 }

// Encode packs the version as MatchVersion and its reply carry it.
func (v Version) Encode() uint32 {
	return uint32(v.Branch)<<24 | uint32(v.Major)<<16 | uint32(v.Minor)<<8 | uint32(v.Patch)
}

// DecodeVersion unpacks a version.
func DecodeVersion(dw uint32) Version {
	return Version{Branch: uint8(dw >> 24), Major: uint8(dw >> 16), Minor: uint8(dw >> 8), Patch: uint8(dw)}
}

// QuerySingleKLV reads one entry. 2 dw, MMIO. The reply's DATA0 15:0 is the
// length, then up to three value dwords.
//
//	dw1   15:0 key
type QuerySingleKLV struct{ Key KLVKey }

// ClientSoftReset makes the firmware forget all contexts of the client. 1 dw, MMIO.
type ClientSoftReset struct{}

// UpdateSchedulingPolicies changes global policies. 1+n dw, request; the reply's
// DATA0 counts the entries taken.
//
//	dw1.. KLVs
type UpdateSchedulingPolicies struct{ Policies []KLV }

// GlobalSchedPolicyChange says that the policy block changed. 2 dw, no reply.
//
//	dw1   GGTT address of a block of PolicyBlockDwords
type GlobalSchedPolicyChange struct{ Block uint32 }

// The block that GlobalSchedPolicyChange names: 24 dw.
//
//	0..15 queue depth per class (0)
//	16    promote time in µs
//	17    is valid (1)
//	18    work items per call, at most
//	19    flags: bit 0 = no engine reset when a preemption fails
//	20..23 zero
const (
	PolicyBlockDwords      = 24
	PolicyBlockPromote     = 16
	PolicyBlockValid       = 17
	PolicyBlockItems       = 18
	PolicyBlockFlags       = 19
	PolicyFlagDisableReset = 1
)

// OptInFeature switches on optional behaviour. 4 dw, request.
//
//	dw1,2 GGTT address lo, hi of a list of KLVs of length 0
//	dw3   size of the list in dwords
type OptInFeature struct {
	Address uint64
	Dwords  uint32
}

// TLBInvalidation drops translations; acknowledged by TLBInvalidationDone. 3 or 7 dw.
//
//	dw1   seqno 1..0xFFFFF
//	dw2   7:0 type (0 full, 1 page-selective, 2 by context, 3 the firmware's own),
//	      8 mode (0 heavy, 1 lite), 31 flush cache
//	dw3   ASID, or guc_id for type 2 (types 1 and 2 only, as the rest)
//	dw4,5 address lo, hi
//	dw6   log2(length) - 12
type TLBInvalidation struct {
	Seqno   uint32
	Op      uint32
	ASID    uint32
	Address uint64
	Order   uint32
}

// Ranged reports whether the message carries dw3..6.
func (t TLBInvalidation) Ranged() bool { return t.Op&0xFF == 1 || t.Op&0xFF == 2 }

// TLBInvalidationAll drops all translations. 3 dw.
//
//	dw1   seqno
//	dw2   as in TLBInvalidation
type TLBInvalidationAll struct{ Seqno, Op uint32 }

// Opaque is an action whose parameters are not modelled.
type Opaque struct {
	Opcode Action
	// Data0 has 12 bits.
	Data0  uint16
	Params []uint32
}

// Action implements Body.
func (RegisterContext) Action() Action          { return ActionRegisterContext }
func (DeregisterContext) Action() Action        { return ActionDeregisterContext }
func (UpdateContextPolicies) Action() Action    { return ActionUpdateContextPolicies }
func (SchedContext) Action() Action             { return ActionSchedContext }
func (SchedContextModeSet) Action() Action      { return ActionSchedContextModeSet }
func (SelfCfg) Action() Action                  { return ActionSelfCfg }
func (ControlCTB) Action() Action               { return ActionControlCTB }
func (MatchVersion) Action() Action             { return ActionMatchVersion }
func (QuerySingleKLV) Action() Action           { return ActionQuerySingleKLV }
func (ClientSoftReset) Action() Action          { return ActionClientSoftReset }
func (UpdateSchedulingPolicies) Action() Action { return ActionUpdateSchedulingPolicies }
func (GlobalSchedPolicyChange) Action() Action  { return ActionGlobalSchedPolicyChange }
func (OptInFeature) Action() Action             { return ActionOptInFeature }
func (TLBInvalidation) Action() Action          { return ActionTLBInvalidation }
func (TLBInvalidationAll) Action() Action       { return ActionTLBInvalidationAll }
func (o Opaque) Action() Action                 { return o.Opcode }

func (RegisterContext) aux() uint32          { return uint32(ActionRegisterContext) }
func (DeregisterContext) aux() uint32        { return uint32(ActionDeregisterContext) }
func (UpdateContextPolicies) aux() uint32    { return uint32(ActionUpdateContextPolicies) }
func (SchedContext) aux() uint32             { return uint32(ActionSchedContext) }
func (SchedContextModeSet) aux() uint32      { return uint32(ActionSchedContextModeSet) }
func (SelfCfg) aux() uint32                  { return uint32(ActionSelfCfg) }
func (ControlCTB) aux() uint32               { return uint32(ActionControlCTB) }
func (MatchVersion) aux() uint32             { return uint32(ActionMatchVersion) }
func (QuerySingleKLV) aux() uint32           { return uint32(ActionQuerySingleKLV) }
func (ClientSoftReset) aux() uint32          { return uint32(ActionClientSoftReset) }
func (UpdateSchedulingPolicies) aux() uint32 { return uint32(ActionUpdateSchedulingPolicies) }
func (GlobalSchedPolicyChange) aux() uint32  { return uint32(ActionGlobalSchedPolicyChange) }
func (OptInFeature) aux() uint32             { return uint32(ActionOptInFeature) }
func (TLBInvalidation) aux() uint32          { return uint32(ActionTLBInvalidation) }
func (TLBInvalidationAll) aux() uint32       { return uint32(ActionTLBInvalidationAll) }
func (o Opaque) aux() uint32                 { return uint32(o.Data0&0xFFF)<<16 | uint32(o.Opcode) }

func (m RegisterContext) payload(dst []uint32) []uint32 {
	return append(dst, m.Flags, uint32(m.ID), uint32(m.Class), m.SubmitMask,
		lo(m.WQDescriptor), hi(m.WQDescriptor), lo(m.WQBuffer), hi(m.WQBuffer), m.WQSize,
		lo(m.LRCDescriptor), hi(m.LRCDescriptor))
}
func (m DeregisterContext) payload(dst []uint32) []uint32 { return append(dst, uint32(m.ID)) }
func (m UpdateContextPolicies) payload(dst []uint32) []uint32 {
	return AppendKLVs(append(dst, uint32(m.ID)), m.Policies)
}
func (m SchedContext) payload(dst []uint32) []uint32 { return append(dst, uint32(m.ID)) }
func (m SchedContextModeSet) payload(dst []uint32) []uint32 {
	return append(dst, uint32(m.ID), bit(m.Enable))
}
func (m SelfCfg) payload(dst []uint32) []uint32 {
	return append(dst, uint32(m.Key)<<16|uint32(m.Length), lo(m.Value), hi(m.Value))
}
func (m ControlCTB) payload(dst []uint32) []uint32     { return append(dst, bit(m.Enable)) }
func (m MatchVersion) payload(dst []uint32) []uint32   { return append(dst, m.Version.Encode()) }
func (m QuerySingleKLV) payload(dst []uint32) []uint32 { return append(dst, uint32(m.Key)) }
func (ClientSoftReset) payload(dst []uint32) []uint32  { return dst }
func (m UpdateSchedulingPolicies) payload(dst []uint32) []uint32 {
	return AppendKLVs(dst, m.Policies)
}
func (m GlobalSchedPolicyChange) payload(dst []uint32) []uint32 { return append(dst, m.Block) }
func (m OptInFeature) payload(dst []uint32) []uint32 {
	return append(dst, lo(m.Address), hi(m.Address), m.Dwords)
}
func (m TLBInvalidation) payload(dst []uint32) []uint32 {
	dst = append(dst, m.Seqno, m.Op)
	if m.Ranged() {
		dst = append(dst, m.ASID, lo(m.Address), hi(m.Address), m.Order)
	}
	return dst
}
func (m TLBInvalidationAll) payload(dst []uint32) []uint32 { return append(dst, m.Seqno, m.Op) }
func (o Opaque) payload(dst []uint32) []uint32             { return append(dst, o.Params...) }

func lo(v uint64) uint32 { return uint32(v) }
func hi(v uint64) uint32 { return uint32(v >> 32) }

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
