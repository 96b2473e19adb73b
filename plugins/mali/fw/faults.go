package fw

import (
	"slices"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// The points of a fault plan; texts says what passes them. A stream's id is
// slot*32 + stream.
const (
	PointBoot        = "boot"
	PointCommand     = "command"
	PointDoorbell    = "doorbell"
	PointGlobal      = "glb-ack"
	PointGroup       = "csg-ack"
	PointStream      = "cs-ack"
	PointInterrupt   = "irq"
	PointEvent       = "event"
	PointInstruction = "instruction"
	PointInsert      = "insert"
	PointRun         = "run"
	PointSuspend     = "suspend"
	PointHalt        = "halt"
)

// Names of what passes the points, besides opcodes and requests.
const (
	bootCold       = "cold"
	bootWarm       = "warm"
	commandReset   = "reset"
	commandFlush   = "flush"
	commandMMU     = "mmu"
	commandPower   = "power"
	doorbellGlobal = "global"
	doorbellUser   = "user"
	irqGlobal      = "global"
	irqGroup       = "group"
	irqStream      = "stream"
	irqMMU         = "mmu"
	eventFault     = "FAULT"
	eventFatal     = "FATAL"
)

// The actions of a fault plan; texts says what they do.
const (
	FaultDrop      = "drop"
	FaultDelay     = "delay"
	FaultDuplicate = "duplicate"
	FaultSpurious  = "spurious"
	FaultState     = "state"
	FaultNoIRQ     = "no-irq"
	FaultFatal     = "fatal"
	FaultVersion   = "version"
	FaultGroups    = "groups"
	FaultStreams   = "streams"
	FaultAddress   = "address"
	FaultUnequal   = "unequal"
	FaultStuck     = "stuck"
	FaultAgain     = "again"
	FaultThen      = "then"
	FaultFault     = "fault"
	FaultLate      = "fault-late"
	FaultHalt      = "fatal-is"
	FaultMMU       = "mmu"
	FaultMMUFatal  = "mmu-fatal"
	FaultMMUOnly   = "mmu-only"
	FaultTorn      = "torn"
	FaultHang      = "hang"
	FaultTrap      = "trap"
	FaultCorrupt   = "corrupt"
	FaultBuild     = "build"
	FaultSize      = "size"
	FaultLost      = "lost"
	FaultStatus    = "status"
	FaultCrash     = "crash"
	FaultFreeze    = "freeze"
)

// texts says what passes the points, and what the actions do.
var texts = map[string]string{
	PointBoot:        "a boot of the MCU, cold, or warm in memory that was halted",
	PointCommand:     "a command through a register: reset, flush, mmu (by address space), power",
	PointDoorbell:    "a doorbell that rang: global or user, by number",
	PointGlobal:      "an acknowledgement of the global interface, by request",
	PointGroup:       "an acknowledgement of a group, by request or state, and slot",
	PointStream:      "an acknowledgement of a stream's state, by slot*32 + stream",
	PointInterrupt:   "an interrupt about to be raised: global, group (by slot), stream (by slot*32 + stream), mmu (by address space)",
	PointEvent:       "a CS_FAULT or CS_FATAL about to be told, by slot*32 + stream",
	PointInstruction: "an instruction about to be executed, by opcode and slot*32 + stream",
	PointInsert:      "a look at INSERT, by slot*32 + stream",
	PointRun:         "a dispatch about to be started on the engine, by slot*32 + stream",
	PointSuspend:     "a suspend image about to be written, by slot",
	PointHalt:        "a request to halt the MCU",

	FaultDrop:      "loses it; what is acknowledged was done",
	FaultDelay:     "does it so much later",
	FaultDuplicate: "raises it twice, the second time a millisecond later",
	FaultSpurious:  "raises job interrupts for nothing beside it",
	FaultState:     "acknowledges this state in place of the one that was reached",
	FaultNoIRQ:     "does not tell that the firmware is up",
	FaultFatal:     "ends it fatally",
	FaultVersion:   "publishes this version",
	FaultGroups:    "publishes this number of groups",
	FaultStreams:   "publishes this number of streams in every group",
	FaultAddress:   "publishes an address outside of the shared section",
	FaultUnequal:   "publishes a group that differs from the others",
	FaultStuck:     "never ends it",
	FaultAgain:     "tells it a second time, once the host has acknowledged the interrupt of the first",
	FaultThen:      "the stream has CS_FATAL of this code beside it, once the host has cleared the interrupt of the first",
	FaultFault:     "the stream has CS_FAULT of this code instead",
	FaultLate:      "the stream has CS_FAULT of this code once its ring is empty",
	FaultHalt:      "the stream has CS_FATAL of this code instead",
	FaultMMU:       "an MMU fault and the CS_FAULT it causes instead",
	FaultMMUFatal:  "an MMU fault and CS_FATAL instead",
	FaultMMUOnly:   "an MMU fault of which the stream knows nothing beside it",
	FaultTorn:      "reads the new high half and a wrong low half",
	FaultHang:      "starts nothing that would ever end; a reset or terminate ends it",
	FaultTrap:      "the kernel traps at once",
	FaultCorrupt:   "flips a bit of it after the checksum",
	FaultBuild:     "writes it in the name of this build",
	FaultSize:      "writes this length into it",
	FaultLost:      "does not write it",
	FaultStatus:    "puts this into HALT_STATUS",
	FaultCrash:     "the MCU crashes instead: MCU_STATUS says fatal, the interface stands still",
	FaultFreeze:    "the MCU stands still instead, and nothing says so",
}

func globalNames() []string {
	var names []string
	for bit := uint32(1); bit != 0; bit <<= 1 {
		if bit&abi.GlobalToggles&^abi.GlobalProtectedEnter != 0 {
			names = append(names, abi.DescribeGlobal(bit))
		}
	}
	return names
}

func opcodeNames() []string {
	var names []string
	for _, o := range abi.Opcodes() {
		names = append(names, o.String())
	}
	return names
}

// vocabulary is what Vocabulary returns.
var vocabulary = func() hw.Vocabulary {
	act := func(name string, kind hw.ValueKind, samples ...string) hw.FaultAction {
		return hw.FaultAction{Name: name, Kind: kind, Samples: samples, Text: texts[name]}
	}
	point := func(name string, names []string, ids bool, actions ...hw.FaultAction) hw.FaultPoint {
		return hw.FaultPoint{Name: name, Names: names, IDs: ids, Actions: actions, Text: texts[name]}
	}
	drop, delay := act(FaultDrop, hw.ValueNone), act(FaultDelay, hw.ValueDuration, "60ms", "150ms")
	crash, freeze, stuck := act(FaultCrash, hw.ValueNone), act(FaultFreeze, hw.ValueNone), act(FaultStuck, hw.ValueNone)
	states := []string{abi.GroupStart.String(), abi.GroupResume.String(), abi.GroupSuspend.String(), abi.GroupTerminate.String(), "EP_CFG", "STATUS_UPDATE"}
	return hw.Vocabulary{
		point(PointBoot, []string{bootCold, bootWarm}, false, act(FaultNoIRQ, hw.ValueNone), act(FaultFatal, hw.ValueNone),
			act(FaultVersion, hw.ValueNumber, "0"), act(FaultGroups, hw.ValueNumber, "2", "32"), act(FaultStreams, hw.ValueNumber, "7"),
			act(FaultAddress, hw.ValueNone), act(FaultUnequal, hw.ValueNone)),
		point(PointCommand, []string{commandReset, commandFlush, commandMMU, commandPower}, true, stuck),
		point(PointDoorbell, []string{doorbellGlobal, doorbellUser}, true, drop, act(FaultSpurious, hw.ValueNone), crash, freeze),
		point(PointGlobal, globalNames(), false, drop, delay, crash, freeze),
		point(PointGroup, states, true, drop, delay, act(FaultState, hw.ValueNumber, "4", "7"), crash, freeze),
		point(PointStream, []string{"START", "STOP"}, true, drop, delay),
		point(PointInterrupt, []string{irqGlobal, irqGroup, irqStream, irqMMU}, true, drop, delay, act(FaultDuplicate, hw.ValueNone)),
		point(PointEvent, []string{eventFault, eventFatal}, true, drop, act(FaultAgain, hw.ValueNone), act(FaultThen, hw.ValueNumber, "0x49")),
		point(PointInstruction, opcodeNames(), true, act(FaultFault, hw.ValueNumber, "0x4b", "0x58"), act(FaultLate, hw.ValueNumber, "0x5b"),
			act(FaultHalt, hw.ValueNumber, "0x44", "0x49", "0x41"), act(FaultMMU, hw.ValueNone), act(FaultMMUFatal, hw.ValueNone),
			act(FaultMMUOnly, hw.ValueNone), crash, freeze),
		point(PointInsert, nil, true, act(FaultTorn, hw.ValueNone), drop),
		point(PointRun, nil, true, act(FaultHang, hw.ValueNone), stuck, act(FaultTrap, hw.ValueNone), act(FaultMMU, hw.ValueNone)),
		point(PointSuspend, nil, true, act(FaultCorrupt, hw.ValueNone), act(FaultBuild, hw.ValueNumber, "99"), act(FaultSize, hw.ValueNumber, "32"),
			act(FaultLost, hw.ValueNone)),
		point(PointHalt, nil, false, drop, act(FaultStatus, hw.ValueNumber, "0x4e", "0x4f")),
	}
}()

// Vocabulary is what fault plans of this firmware can say.
func Vocabulary() hw.Vocabulary { return slices.Clone(vocabulary) }

// NewFaults makes a plan ready for Config.Faults. Errors wrap hw.ErrPlan.
func NewFaults(p hw.Plan) (*hw.Faults, error) { return hw.NewFaults(p, vocabulary) }
