package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// The points of a fault plan; texts says what passes them.
const (
	PointH2G         = "h2g"
	PointG2H         = "g2h"
	PointMMIO        = "mmio"
	PointInterrupt   = "irq"
	PointBatch       = "batch"
	PointEngineReset = "engine-reset"
	PointLoad        = "load"
)

// The actions of a fault plan; texts says what they do. Those from FaultMute on
// are about the firmware as a whole, and can be at every point but
// PointEngineReset and PointLoad: up to FaultEngineFailure in place of what was about to
// happen, then beside it.
const (
	FaultDrop          = "drop"
	FaultDelay         = "delay"
	FaultDuplicate     = "duplicate"
	FaultReorder       = "reorder"
	FaultFail          = "fail"
	FaultRetry         = "retry"
	FaultBusy          = "busy"
	FaultWipe          = "wipe"
	FaultHeader        = "header"
	FaultTruncate      = "truncate"
	FaultOrigin        = "origin"
	FaultType          = "type"
	FaultLength        = "length"
	FaultID            = "id-is"
	FaultState         = "state"
	FaultAction        = "action"
	FaultFence         = "fence"
	FaultStatus        = "status"
	FaultPointer       = "pointer"
	FaultHang          = "hang"
	FaultStuck         = "stuck"
	FaultNoPreempt     = "no-preempt"
	FaultTrap          = "trap"
	FaultCat           = "cat"
	FaultMute          = "mute"
	FaultCrash         = "crash"
	FaultException     = "exception"
	FaultEngineFailure = "engine-failure"
	FaultDeaf          = "deaf"
	FaultSilent        = "silent"
	FaultCatUnknown    = "cat-unknown"
)

// texts says what passes the points, and what the actions do.
var texts = map[string]string{
	PointH2G:         "a message taken from the H2G ring, by action and guc_id",
	PointG2H:         "a message about to be written into the G2H ring: events by action and guc_id, replies as SUCCESS, FAILURE, RETRY",
	PointMMIO:        "a request taken from the mailbox, by action",
	PointInterrupt:   "an interrupt about to be raised: user (a job's, by guc_id), message, mailbox, migrated",
	PointBatch:       "a dispatch about to be started, by guc_id",
	PointEngineReset: "an engine about to be reset under a context, by guc_id",
	PointLoad:        "the load of the firmware after a reset of the device",

	FaultDrop:          "loses it; an H2G message was taken, but nothing was done",
	FaultDelay:         "does it later; H2G messages behind it wait, others pass",
	FaultDuplicate:     "does it twice",
	FaultReorder:       "holds it until a message of another id has left, or for so long (10 ms); later ones of its own id stay behind it",
	FaultFail:          "answers a failure with this code and does nothing else; a load ends with this status, an engine is not reset",
	FaultRetry:         "answers \"send again\" and does nothing else",
	FaultBusy:          "answers busy, and does it so much later",
	FaultWipe:          "makes the mailbox read as zero, as a function level reset does",
	FaultHeader:        "sets reserved bits in the CTB header",
	FaultTruncate:      "announces one dword more than the ring has",
	FaultOrigin:        "says that the host sent it",
	FaultType:          "puts another type into the HXG header: 4 is unused, 3 is BUSY",
	FaultLength:        "adds a dword",
	FaultID:            "puts another guc_id into an event",
	FaultState:         "turns enabled into disabled and back",
	FaultAction:        "puts another opcode into it",
	FaultFence:         "puts another fence into it",
	FaultStatus:        "sets bits in the STATUS of the ring in its place, and leaves both rings alone",
	FaultPointer:       "puts this into the firmware's own pointer of the ring (HEAD of H2G, TAIL of G2H) in its place, and leaves both rings alone",
	FaultHang:          "starts nothing: it never ends and never leaves the engine until the engine is reset",
	FaultStuck:         "the same, and the engine can't be reset either",
	FaultNoPreempt:     "runs it to its end whatever is asked",
	FaultTrap:          "makes it a fault of the kernel",
	FaultCat:           "makes it a memory (CAT) error of the context",
	FaultMute:          "ends the firmware without a word, until a reset of the device",
	FaultCrash:         "posts a crash dump, then mute",
	FaultException:     "posts an exception, then mute",
	FaultEngineFailure: "reports an engine that could not be reset, then mute",
	FaultDeaf:          "stops taking H2G messages, for so long or until a reset of the device",
	FaultSilent:        "stops raising interrupts, for so long or until a reset of the device",
	FaultCatUnknown:    "reports a memory (CAT) error of nobody",
}

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
	v := hw.Vocabulary{
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
	for i := range v {
		v[i].Text = texts[v[i].Name]
		for j := range v[i].Actions {
			v[i].Actions[j].Text = texts[v[i].Actions[j].Name]
		}
	}
	return v
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
