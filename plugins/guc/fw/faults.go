package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// The points of a fault plan.
const (
	// PointH2G is a message taken from the H2G ring, by action and guc_id.
	PointH2G = "h2g"
	// PointG2H is a message about to be written into the G2H ring: events by
	// action and guc_id, replies as SUCCESS, FAILURE and RETRY.
	PointG2H = "g2h"
	// PointMMIO is a request taken from the mailbox, by action.
	PointMMIO = "mmio"
	// PointInterrupt is an interrupt about to be raised: "user" (a job's, by
	// guc_id), "message" (G2H), "mailbox" or "migrated".
	PointInterrupt = "irq"
	// PointBatch is a dispatch about to be started, by guc_id.
	PointBatch = "batch"
	// PointEngineReset is an engine about to be reset under a context, by guc_id.
	PointEngineReset = "engine-reset"
	// PointLoad is the load of the firmware after a reset of the device.
	PointLoad = "load"
)

// What can be done to a message, a mailbox request, an interrupt or a dispatch.
const (
	// FaultDrop loses it. An H2G message was taken, but nothing was done.
	FaultDrop = "drop"
	// FaultDelay does it later. H2G messages behind it wait, others pass.
	FaultDelay = "delay"
	// FaultDuplicate does it twice.
	FaultDuplicate = "duplicate"
	// FaultReorder holds a G2H message until one of another id has left, or at
	// most for its value (10 ms); later ones of its own id stay behind it.
	FaultReorder = "reorder"
	// FaultFail answers a failure with this code, and does nothing else. At
	// PointLoad it is the load status, at PointEngineReset it takes no value.
	FaultFail = "fail"
	// FaultRetry answers "send again", and does nothing else.
	FaultRetry = "retry"
	// FaultBusy answers the mailbox busy, and does it later.
	FaultBusy = "busy"
	// FaultWipe makes the mailbox read as zero, as a function level reset does.
	FaultWipe = "wipe"
	// FaultHeader sets reserved bits in the header of a G2H message.
	FaultHeader = "header"
	// FaultTruncate announces more dwords than the ring has.
	FaultTruncate = "truncate"
	// FaultOrigin says that the host sent it.
	FaultOrigin = "origin"
	// FaultType puts another type into the HXG header (4 is unused, 3 is BUSY).
	FaultType = "type"
	// FaultLength adds a dword to the message.
	FaultLength = "length"
	// FaultID puts another guc_id into an event.
	FaultID = "id-is"
	// FaultState turns enabled into disabled and back.
	FaultState = "state"
	// FaultAction makes it an event with another opcode.
	FaultAction = "action"
	// FaultFence answers another fence.
	FaultFence = "fence"
	// FaultStatus sets bits in the STATUS of the ring in place of the message.
	FaultStatus = "status"
	// FaultPointer puts nonsense into the firmware's own pointer of the ring
	// (H2G HEAD, G2H TAIL), in place of the message.
	FaultPointer = "pointer"
	// FaultHang starts nothing: the dispatch never ends and never leaves the
	// engine, until the engine is reset.
	FaultHang = "hang"
	// FaultStuck is FaultHang on an engine that can't be reset either.
	FaultStuck = "stuck"
	// FaultNoPreempt runs the dispatch to its end whatever is asked.
	FaultNoPreempt = "no-preempt"
	// FaultTrap makes it a fault of the kernel.
	FaultTrap = "trap"
	// FaultCat makes it a memory (CAT) error of the context.
	FaultCat = "cat"
)

// What can be done to the firmware at every point but PointEngineReset and
// PointLoad, in place of what was about to happen.
const (
	// FaultMute ends the firmware without a word.
	FaultMute = "mute"
	// FaultCrash posts a crash dump, FaultException an exception; then mute.
	FaultCrash     = "crash"
	FaultException = "exception"
	// FaultEngineFailure reports an engine that could not be reset; then mute.
	FaultEngineFailure = "engine-failure"
)

// What can be done to the firmware beside what was about to happen.
const (
	// FaultDeaf stops taking H2G messages, for its value or until a reset.
	FaultDeaf = "deaf"
	// FaultSilent stops raising interrupts, for its value or until a reset.
	FaultSilent = "silent"
	// FaultCatUnknown reports a memory (CAT) error of nobody.
	FaultCatUnknown = "cat-unknown"
)

// reorderDefault bounds how long a message is held.
const reorderDefault = 10 * time.Millisecond

// Names of replies and interrupts in a plan.
const (
	nameSuccess = "SUCCESS"
	nameFailure = "FAILURE"
	nameRetry   = "RETRY"
	irqUser     = "user"
	irqMessage  = "message"
	irqMailbox  = "mailbox"
	irqMigrated = "migrated"
)

// Vocabulary is what a fault plan of this firmware can say.
func Vocabulary() hw.Vocabulary {
	general := []hw.FaultAction{
		{Name: FaultMute}, {Name: FaultCrash}, {Name: FaultException}, {Name: FaultEngineFailure}, {Name: FaultCatUnknown},
		{Name: FaultDeaf, Kind: hw.ValueDurationOptional, Samples: []string{"", "5ms", "2s"}},
		{Name: FaultSilent, Kind: hw.ValueDurationOptional, Samples: []string{"", "5ms", "2s"}},
	}
	with := func(own ...hw.FaultAction) []hw.FaultAction { return append(own, general...) }
	delay := hw.FaultAction{Name: FaultDelay, Kind: hw.ValueDuration, Samples: []string{"100us", "20ms", "3s", "20s"}}
	fail := number(FaultFail, "0x4", "0xa", "0x30", "0x100", "0x301", "0xf000")
	status, pointer := number(FaultStatus, "1", "2", "4", "8"), number(FaultPointer, "0xffffffff", "0x10000", "3")
	return hw.Vocabulary{
		{Name: PointH2G, Names: names(fromHost), IDs: true, Actions: with(
			hw.FaultAction{Name: FaultDrop}, delay, hw.FaultAction{Name: FaultDuplicate}, fail, hw.FaultAction{Name: FaultRetry}, status, pointer)},
		{Name: PointG2H, Names: append(names(fromGUC), nameSuccess, nameFailure, nameRetry), IDs: true, Actions: with(
			hw.FaultAction{Name: FaultDrop}, delay, hw.FaultAction{Name: FaultDuplicate},
			hw.FaultAction{Name: FaultReorder, Kind: hw.ValueDurationOptional, Samples: []string{"", "1ms"}},
			hw.FaultAction{Name: FaultHeader}, hw.FaultAction{Name: FaultTruncate}, hw.FaultAction{Name: FaultOrigin},
			number(FaultType, "3", "4"), hw.FaultAction{Name: FaultLength}, number(FaultID, "1", "77", "65535", "0xffffffff"),
			hw.FaultAction{Name: FaultState}, number(FaultAction, "0x1fff", "0x8002"), number(FaultFence, "0x7fff", "0xffff"), status, pointer)},
		{Name: PointMMIO, Names: names(fromMailbox), Actions: with(
			hw.FaultAction{Name: FaultDrop}, delay, fail, hw.FaultAction{Name: FaultRetry},
			hw.FaultAction{Name: FaultBusy, Kind: hw.ValueDuration, Samples: []string{"1ms", "500ms", "3s"}},
			hw.FaultAction{Name: FaultWipe}, number(FaultType, "1", "4"))},
		{Name: PointInterrupt, Names: []string{irqUser, irqMessage, irqMailbox, irqMigrated}, IDs: true, Actions: with(hw.FaultAction{Name: FaultDrop}, delay)},
		{Name: PointBatch, IDs: true, Actions: with(
			hw.FaultAction{Name: FaultHang}, hw.FaultAction{Name: FaultStuck}, hw.FaultAction{Name: FaultNoPreempt},
			hw.FaultAction{Name: FaultTrap}, hw.FaultAction{Name: FaultCat})},
		{Name: PointEngineReset, IDs: true, Actions: []hw.FaultAction{{Name: FaultFail}}},
		{Name: PointLoad, Actions: []hw.FaultAction{number(FaultFail, "0x71", "0x70")}},
	}
}

func number(name string, samples ...string) hw.FaultAction {
	return hw.FaultAction{Name: name, Kind: hw.ValueNumber, Samples: samples}
}

// The messages that pass each point.
var (
	fromHost = []abi.Action{
		abi.ActionRegisterContext, abi.ActionDeregisterContext, abi.ActionUpdateContextPolicies, abi.ActionSchedContext,
		abi.ActionSchedContextModeSet, abi.ActionUpdateSchedulingPolicies, abi.ActionGlobalSchedPolicyChange, abi.ActionOptInFeature,
		abi.ActionTLBInvalidation, abi.ActionTLBInvalidationAll, abi.ActionVFControl, abi.ActionSaveRestoreVF,
	}
	fromGUC = []abi.Action{
		abi.ActionSchedContextModeDone, abi.ActionDeregisterContextDone, abi.ActionContextReset, abi.ActionEngineFailure,
		abi.ActionCatError, abi.ActionStateCapture, abi.ActionTLBInvalidationDone, abi.ActionCrashDumpPosted,
		abi.ActionException, abi.ActionVFStateNotify,
	}
	fromMailbox = []abi.Action{
		abi.ActionSelfCfg, abi.ActionControlCTB, abi.ActionMatchVersion, abi.ActionQuerySingleKLV, abi.ActionClientSoftReset,
		abi.ActionResfixStart, abi.ActionResfixDone,
	}
)

func names(actions []abi.Action) []string {
	out := make([]string, len(actions))
	for i, a := range actions {
		out[i] = a.String()
	}
	return out
}

// NewFaults makes a plan ready for Config.Faults. Errors wrap hw.ErrPlan.
func NewFaults(p hw.Plan) (*hw.Faults, error) { return hw.NewFaults(p, Vocabulary()) }

// RandomPlan draws a plan of so many rules; all of them end.
func RandomPlan(seed uint64, rules int) hw.Plan { return hw.RandomPlan(seed, rules, Vocabulary()) }
