package agx

import (
	"fmt"
	"strings"
	"testing"
)

// troubles are what the drivers of this firmware found hard (section 5.7 of the reference), how each
// is solved here, and the test that says so.
var troubles = []struct{ trouble, solution, test string }{
	{"the kernel's scheduler thinks that it schedules; the firmware does", "one scheduler per entity in the core; the driver keeps what is in flight in the queue, and the core only hears of starts and ends", "TestTwoEntitiesShare"},
	{"teardown with jobs in flight left them dangling", "kill forgets the jobs at once and keeps the commands: the ring runs out, the context is destroyed, then the memory goes; nothing is reported after that", "TestDestroyWhileRunning"},
	{"fences had to be outlived by their scheduler", "a report is a value with entity, epoch and job; queue, device and process may be gone", "TestClientsComeAndGo"},
	{"nobody wrote down which lifetimes hold", "one table of states and events, in this page, and a test that it is total", "TestTransitions"},
	{"limits are no credits: ring room, 127 stamps, 64 commands a submission", "credits are jobs; the other limits hold commands back on the host, one at a time, and the rest of the job waits in the queue", "TestManyCommands"},
	{"no more than 64 commands in a submission", "one kick announces at most so many", "TestOneKickHasSixtyFour"},
	{"128 event slots and 63 VM slots for any number of queues", "both are held only while something is in the ring, taken together or not at all, and who has waited longest is next", "TestThousandEntities"},
	{"one fence context per queue, halves that end out of order", "there is only the compute half: a queue's commands end in order, and so do an entity's jobs", "TestLifeOfJobs"},
	{"completion is a counter with coalesced notice", "every command up to the stamp is looked at, in order, and several jobs are reported at once", "TestManyCommands"},
	{"a threshold raised too early held back the event that was waited for", "it is raised with the kick and never before; and the stamps are looked at without an event too", "TestFlagComesWithItsStamp"},
	{"a stamp alone does not say that the work was done", "the command's descriptor has to agree, or nothing is completed", "TestFailures/stamp-too-early"},
	{"no \"cancelled\" beside \"killed\"", "a cancelled job ends at the next command boundary as cancelled; killed with another's fault is a victim, and goes on from its image", "TestCancel"},
	{"innocent work that ran was lost and never replayed", "guilty by the fault register's VM or the time-out's slot; everybody else is a victim, and the core restores it", "TestFailures/fault-with-victims"},
	{"the global time-out could do nothing", "the firmware's watchdog ends what hangs; the host's only ends a firmware that does not", "TestFailures/watchdog"},
	{"nothing can be suspended", "commands are slices, and all rings together hold no more than a suspend may take", "TestSuspendLatency"},
	{"a strict level starves who wants to leave", "nobody who would go before it is kicked meanwhile", "TestSuspendOfTheWeak"},
	{"freed memory is still in the firmware's cache", "a garbage list, and a flush before anything of it is used again", "TestGarbage"},
	{"a priority is fixed in the work queue", "another priority is another work queue, when nothing is in the ring", "TestPriorities"},
	{"a crashed firmware stays dead", "the device is given up, and a new process has a new one", "TestFailures/crash"},
}

// TestTroublesInDocs keeps the page's table equal to this one, and its tests there.
func TestTroublesInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| trouble | here | test |\n|---|---|---|\n")
	for _, x := range troubles {
		name := x.test
		if name != "TestTransitions" { // That one is the driver's own.
			existsTest(t, name)
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", x.trouble, x.solution, name)
	}
	embed(t, "troubles", b.String())
}
