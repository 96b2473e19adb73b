package mali

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// exceptionRows are a row for each code of CS_FAULT and CS_FATAL.
func exceptionRows() []row {
	var list []row
	for _, e := range []abi.Exception{abi.ExceptionKaboom, abi.ExceptionResourceTerminated, abi.ExceptionBus, abi.ExceptionInherit, abi.ExceptionInvalidPC,
		abi.ExceptionInvalidEncoding, abi.ExceptionBarrier, abi.ExceptionDataInvalid, abi.ExceptionTileRange, abi.ExceptionAddressRange,
		abi.ExceptionImprecise, abi.ExceptionEvictionTimeout} {
		list = append(list, row{name: fmt.Sprintf("fault-%02x", uint8(e)), failure: fmt.Sprintf("CS_FAULT %#02x %s, EXTRACT inside the job", uint8(e), e),
			reaction: "the job is to blame, its entity guilty", plan: fmt.Sprintf("instruction/RUN_COMPUTE id=0 fault=%#x", uint8(e)), guilty: []string{"a"}})
	}
	for _, r := range [][2]abi.Exception{{0xC0, 0xC4}, {0xC8, 0xCB}, {0xD9, 0xDB}, {0xE0, 0xE0}, {0xE4, 0xE7}, {0xE8, 0xEB}} {
		for e := r[0]; e <= r[1]; e++ {
			list = append(list, row{name: fmt.Sprintf("fault-%02x", uint8(e)), failure: fmt.Sprintf("CS_FAULT %#02x %s, EXTRACT inside the job", uint8(e), e), reaction: "the job is to blame, for its memory; its entity guilty",
				plan: fmt.Sprintf("instruction/RUN_COMPUTE id=0 fault=%#x", uint8(e)), guilty: []string{"a"}, cause: core.CauseMemory})
		}
	}
	list = append(list, row{name: "fault-late", failure: "CS_FAULT with EXTRACT past the job", reaction: "no job is to blame: logged, all jobs end", warned: "stream fault without a job",
		plan: "instruction/SYNC_ADD64 id=0 fault-late=0x5b"})
	for _, e := range []abi.Exception{abi.ExceptionEndpoint, abi.ExceptionInvalidInstruction, abi.ExceptionCallStack} {
		list = append(list, row{name: fmt.Sprintf("fatal-%02x", uint8(e)), failure: fmt.Sprintf("CS_FATAL %#02x %s", uint8(e), e), reaction: "the group is terminated, its entity guilty",
			plan: fmt.Sprintf("instruction/RUN_COMPUTE id=0 fatal-is=%#x", uint8(e)), guilty: []string{"a"}, warned: "stream halted"})
	}
	for _, e := range []abi.Exception{abi.ExceptionConfig, abi.ExceptionBus, abi.ExceptionFirmware} {
		list = append(list, row{name: fmt.Sprintf("fatal-%02x", uint8(e)), failure: fmt.Sprintf("CS_FATAL %#02x %s", uint8(e), e),
			reaction: "the group is terminated; no job can do that: a victim", plan: fmt.Sprintf("instruction/RUN_COMPUTE id=0 fatal-is=%#x", uint8(e)), victims: []string{"a"}, warned: "stream halted"})
	}
	return append(list, row{name: "fatal-41", failure: "CS_FATAL 0x41 CS_UNRECOVERABLE", reaction: "GPU reset; the group whose stream halted is a victim, who can be suspended goes on",
		plan: "instruction/RUN_COMPUTE id=0 fatal-is=0x41", resets: 1, victims: []string{"a"}, warned: "stream halted"})
}

// groupRows are rows that only groups with raw streams meet: failure, reaction, test.
var groupRows = [][3]string{
	{"a SYNC_WAIT that is never satisfied", "5 s, although nothing progresses on the hardware: the group timed out", "TestIGT/scheduler-sync-wait-never"},
	{"sync object with a status that is inherited", "CS_FAULT 0x4B: the job's fence has the error, the queue goes on", "TestIGT/sync-inherited-status"},
	{"several queues, one of them fatal", "that queue's fences have the fault, the others' are cancelled", "TestIGT/scheduler-fatal-fault"},
}
