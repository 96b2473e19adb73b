package abi

// The shared section of the firmware's memory, as addresses of the MCU: the
// global control block is its first byte. Control blocks are read-only for the
// host, input blocks are written by the host only, output blocks by the firmware
// only: no word has two writers.
const (
	SharedBase uint64 = 0x04000000
	SharedMax  uint64 = 0x04000000
	// GroupControlOffset is where the control block of CSG slot 0 begins; the
	// global block says how far apart they are.
	GroupControlOffset uint64 = 0x1000
	// StreamControlOffset is where the control block of CS 0 begins, from its group's.
	StreamControlOffset uint64 = 0x40

	// GroupsMin to GroupsMax, StreamsMin to StreamsMax are what a host accepts.
	GroupsMin, GroupsMax   = 3, 31
	StreamsMin, StreamsMax = 8, 32
)

// Global control block (panthor_fw.h): offsets.
const (
	GlobalVersion          = 0x00
	GlobalFeatures         = 0x04
	GlobalInputAddress     = 0x08
	GlobalOutputAddress    = 0x0C
	GlobalGroupCount       = 0x10
	GlobalGroupStride      = 0x14
	GlobalCounterSize      = 0x18
	GlobalInstrFeatures    = 0x1C
	GlobalControlSize      = 0x20
	FeatureComputeSuspend  = 1 << 0 // A compute job can be suspended in the middle.
	FeatureFragmentSuspend = 1 << 1
	FeatureTilerSuspend    = 1 << 2
)

// Global input block: offsets. The two ALLOC_EN words are one mask of cores.
const (
	GlobalReq           = 0x00
	GlobalAckIRQMask    = 0x04
	GlobalDoorbellReq   = 0x08
	GlobalProgressTimer = 0x10
	GlobalPowerOffTimer = 0x14
	GlobalAllocEnable   = 0x18
	GlobalIdleTimer     = 0x80
	GlobalInputSize     = 0x84
)

// Global output block: offsets.
const (
	GlobalAck          = 0x00
	GlobalDoorbellAck  = 0x08
	GlobalHaltStatus   = 0x10
	GlobalSampleStatus = 0x14
	GlobalSampleInsert = 0x18
	GlobalOutputSize   = 0x20
)

// Values of GlobalHaltStatus.
const (
	HaltOK       uint32 = 0
	HaltPanic    uint32 = 0x4E
	HaltWatchdog uint32 = 0x4F
)

// GLB_REQ and GLB_ACK.
//
//	0   HALT, level: ends with MCU_STATUS halted, not with an ack
//	1   CFG_PROGRESS_TIMER    2   CFG_ALLOC_EN      3   CFG_PWROFF_TIMER
//	4   PROTM_ENTER           5   PRFCNT_ENABLE, level
//	6   PRFCNT_SAMPLE         7   COUNTER_EN, level
//	8   PING                  9   FWCFG_UPDATE      10  IDLE_EN, level
//	12  SLEEP, level (not modelled; a wider state field from interface 4.1 on)
//	20  INACTIVE_COMPUTE, event     21  INACTIVE_FRAGMENT, event
//	22  INACTIVE_TILER, event       23  PROTM_EXIT, event
//	24  PRFCNT_THRESHOLD, event     25  PRFCNT_OVERFLOW, event
//	26  IDLE, event                 30  DBG_CSF    31  DBG_HOST
const (
	GlobalHalt             uint32 = 1 << 0
	GlobalCfgProgressTimer uint32 = 1 << 1
	GlobalCfgAllocEnable   uint32 = 1 << 2
	GlobalCfgPowerOffTimer uint32 = 1 << 3
	GlobalProtectedEnter   uint32 = 1 << 4
	GlobalSampleEnable     uint32 = 1 << 5
	GlobalSample           uint32 = 1 << 6
	GlobalCounterEnable    uint32 = 1 << 7
	GlobalPing             uint32 = 1 << 8
	GlobalConfigUpdate     uint32 = 1 << 9
	GlobalIdleEnable       uint32 = 1 << 10
	GlobalSleep            uint32 = 1 << 12
	GlobalIdle             uint32 = 1 << 26
	GlobalDebugCSF         uint32 = 1 << 30
	GlobalDebugHost        uint32 = 1 << 31

	// GlobalToggles are the requests that are acknowledged by their own bit.
	GlobalToggles = GlobalCfgProgressTimer | GlobalCfgAllocEnable | GlobalCfgPowerOffTimer | GlobalProtectedEnter |
		GlobalSample | GlobalPing | GlobalConfigUpdate | GlobalDebugCSF | GlobalDebugHost
	// GlobalLevels carry a value; the ack has it once it is reached.
	GlobalLevels = GlobalSampleEnable | GlobalCounterEnable | GlobalIdleEnable
	GlobalEvents = 0x7F << 20
)

// CSG control block: offsets.
const (
	GroupFeatures       = 0x00
	GroupInputAddress   = 0x04
	GroupOutputAddress  = 0x08
	GroupSuspendSize    = 0x0C
	GroupProtectedSize  = 0x10
	GroupStreamCount    = 0x14
	GroupStreamStride   = 0x18
	GroupControlSize    = 0x1C
	GroupSuspendTypeMax = 0xFF // FEATURES 7:0: slots of equal type can exchange suspend buffers.
)

// CSG input block: offsets. The masks and buffers are 64 bits wide.
const (
	GroupReq              = 0x00
	GroupAckIRQMask       = 0x04
	GroupDoorbellReq      = 0x08
	GroupIRQAck           = 0x0C
	GroupAllowCompute     = 0x20
	GroupAllowFragment    = 0x28
	GroupAllowOther       = 0x30
	GroupEndpointReq      = 0x34
	GroupEndpointReqWide  = 0x38 // From interface 4.0 on; not modelled.
	GroupSuspendBuffer    = 0x40
	GroupProtectedBuffer  = 0x48
	GroupConfig           = 0x50
	GroupIterationTracing = 0x54
	GroupInputSize        = 0x58
)

// CSG output block: offsets.
const (
	GroupAck             = 0x00
	GroupDoorbellAck     = 0x08
	GroupIRQReq          = 0x0C
	GroupEndpointCurrent = 0x10
	GroupEndpointStatus  = 0x14
	GroupStatusState     = 0x18
	GroupResourceDep     = 0x1C
	GroupOutputSize      = 0x20

	// GroupStatusIdle is bit 0 of GroupStatusState.
	GroupStatusIdle uint32 = 1
)

// GroupState is the state field of CSG_REQ and CSG_ACK.
type GroupState uint32

// The states.
const (
	// GroupTerminate drops everything and saves nothing; then start or resume.
	GroupTerminate GroupState = 0
	// GroupStart begins without restoring; then suspend or terminate.
	GroupStart GroupState = 1
	// GroupSuspend saves into the suspend buffer, then refreshes the status
	// registers; then start, resume or terminate.
	GroupSuspend GroupState = 2
	// GroupResume restores from the suspend buffer and goes on; then suspend or terminate.
	GroupResume GroupState = 3
)

// CSG_REQ and CSG_ACK.
//
//	2:0  STATE, level           4   EP_CFG             5   STATUS_UPDATE
//	28   SYNC_UPDATE, event     29  IDLE, event        31  PROGRESS_TIMER_EVENT, event
const (
	GroupStateMask     uint32 = 7
	GroupEndpointCfg   uint32 = 1 << 4
	GroupStatusUpdate  uint32 = 1 << 5
	GroupSyncUpdate    uint32 = 1 << 28
	GroupIdle          uint32 = 1 << 29
	GroupProgressEvent uint32 = 1 << 31
	GroupToggles              = GroupEndpointCfg | GroupStatusUpdate
	GroupEvents               = GroupSyncUpdate | GroupIdle | GroupProgressEvent
)

// CS control block: offsets, and the size of one block.
const (
	StreamFeatures      = 0x00
	StreamInputAddress  = 0x04
	StreamOutputAddress = 0x08
	StreamControlSize   = 12
)

// CS input block: offsets.
const (
	StreamReq          = 0x00
	StreamConfig       = 0x04
	StreamAckIRQMask   = 0x0C
	StreamBase         = 0x10 // Address of the ring in the group's address space, 64 bits.
	StreamSize         = 0x18 // Bytes, a power of two.
	StreamHeapStart    = 0x20
	StreamHeapEnd      = 0x28
	StreamUserInput    = 0x30 // Address of the MCU, 64 bits.
	StreamUserOutput   = 0x38
	StreamInstrConfig  = 0x40
	StreamInstrSize    = 0x44
	StreamInstrBase    = 0x48
	StreamInstrPointer = 0x50
	StreamInputSize    = 0x58
)

// CS output block: offsets.
const (
	StreamAck             = 0x00
	StreamStatusPC        = 0x40 // 64 bits.
	StreamStatusWait      = 0x48
	StreamStatusResource  = 0x4C
	StreamWaitPointer     = 0x50 // 64 bits.
	StreamWaitValue       = 0x58
	StreamScoreboards     = 0x5C
	StreamBlockedReason   = 0x60
	StreamWaitValueHigh   = 0x64
	StreamFault           = 0x80
	StreamFatal           = 0x84
	StreamFaultInfo       = 0x88 // 64 bits.
	StreamFatalInfo       = 0x90 // 64 bits.
	StreamHeapVertexStart = 0xC0
	StreamHeapVertexEnd   = 0xC4
	StreamHeapFragmentEnd = 0xCC
	StreamHeapAddress     = 0xD0 // 64 bits.
	StreamOutputSize      = 0xD8
)

// CS_REQ and CS_ACK.
//
//	2:0  STATE, level: 0 stop, 1 start        4   EXTRACT_EVENT
//	8    IDLE_SYNC_WAIT, level                9   IDLE_PROTM_PEND, level
//	10   IDLE_EMPTY, level                    11  IDLE_RESOURCE_REQ, level
//	26   TILER_OOM, event                     27  PROTM_PEND, event
//	30   FATAL, event                         31  FAULT, event
const (
	StreamStateMask      uint32 = 7
	StreamStop           uint32 = 0
	StreamStart          uint32 = 1
	StreamExtractEvent   uint32 = 1 << 4
	StreamIdleSyncWait   uint32 = 1 << 8
	StreamIdleProtected  uint32 = 1 << 9
	StreamIdleEmpty      uint32 = 1 << 10
	StreamIdleResource   uint32 = 1 << 11
	StreamTilerOOM       uint32 = 1 << 26
	StreamProtectedPend  uint32 = 1 << 27
	StreamFatalEvent     uint32 = 1 << 30
	StreamFaultEvent     uint32 = 1 << 31
	StreamIdleConditions        = StreamIdleSyncWait | StreamIdleProtected | StreamIdleEmpty | StreamIdleResource
	StreamEvents                = StreamTilerOOM | StreamProtectedPend | StreamFatalEvent | StreamFaultEvent
	RingSizeMin          uint32 = 4 << 10
	RingSizeMax          uint32 = 64 << 10
	InstructionSize             = 8
	JobAlignInstructions        = 8  // Jobs are filled up to a cache line.
	FrameDepthMax               = 8  // Call frames, the active one included.
	UnpreservedRegisters        = 4  // The kernel uses the last ones.
	RegistersMax                = 96 // v10.
	ScoreboardsMax              = 8
	PriorityMax                 = 15 // Of groups, and of streams inside a group.
	StreamDoorbellMax           = 255
)

// The ring pages of a stream: the host writes the input page, the firmware the
// output page. The counters are bytes and never wrap; the place in the ring is
// the counter modulo its size. The ring is empty when both are equal.
const (
	RingInsert      = 0x00 // Input page, 64 bits.
	RingExtractInit = 0x08 // Input page, 64 bits: where START begins.
	RingExtract     = 0x00 // Output page, 64 bits.
	RingActive      = 0x08 // Output page, 32 bits.
	RingPageSize    = 4 << 10
)

// Sync objects in memory: value, then status, which a failed signaller sets.
const (
	Sync32Size   = 8
	Sync32Status = 4
	Sync64Size   = 16
	Sync64Status = 8
)
