package guc

import (
	"context"
	"errors"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// rows are the rows of section 5 of the reference that are marked yes.
var rows = []row{
	{name: "enable-unanswered", reason: "no answer in state enabling", failure: "MODE_DONE lost, of an enable", reaction: "after 5 s GT reset; the context's begun job is a victim, what was not begun goes on",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=0 drop", resets: 1, victims: []string{"a"},
		run: func(s *scene) { s.start(long); s.settled() }},
	{name: "suspend-unanswered", reason: "no answer in state suspending", failure: "MODE_DONE lost, of a suspend", reaction: "after 5 s GT reset; the suspend ends with the loss of the victim, or is granted if its job was not begun",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=0 nth=2 drop", resets: 1, victims: []string{"a"},
		run: func(s *scene) {
			s.start(long)
			if err := s.a.Suspend(background); !errors.Is(err, core.ErrClosed) {
				s.t.Errorf("suspend: %v", err)
			}
			s.settled()
		}},
	{name: "cancel-unanswered", reason: "no answer in state disabling", failure: "MODE_DONE lost, of a cancel", reaction: "as of a suspend",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=0 nth=2 drop", resets: 1, victims: []string{"a"},
		run: func(s *scene) { s.start(long); s.OK(s.a.Cancel(background, 1)); s.settled() }},
	{name: "destroy-unanswered", reason: "no answer in state destroying", failure: "MODE_DONE lost, of a destroy", reaction: "after 5 s GT reset; the context is freed in it",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=0 nth=2 drop", resets: 1,
		run: func(s *scene) { s.start(long); s.OK(s.a.Destroy(background)); s.settled() }},
	{name: "deregistration-unanswered", failure: "DEREGISTER_DONE lost", reaction: "nothing waits beyond 5 s; id, memory and credit stay taken until the next GT reset scrubs them",
		plan: "g2h/DEREGISTER_CONTEXT_DONE id=0 drop; g2h/DEREGISTER_CONTEXT_DONE id=1 crash", resets: 1, warned: "context not deregistered",
		run: deregistrationUnanswered},
	{name: "submission-lost", failure: "SCHED_CONTEXT lost", reaction: "told again after 5 s, at most three times while no engine executes",
		plan: "h2g/SCHED_CONTEXT id=0 drop", run: secondJob},
	{name: "submissions-lost", reason: "does not execute", failure: "SCHED_CONTEXT lost again and again", reaction: "after the third time GT reset; the job was not begun and goes on",
		plan: "h2g/SCHED_CONTEXT times=4 drop", resets: 1, run: secondJob},
	{name: "interrupts-lost", failure: "user interrupts lost", reaction: "the driver's own look every 50 ms finds seqno and messages", plan: "irq times=always drop"},
	{name: "requests-not-taken", failure: "H2G not consumed", reaction: "no answer in 5 s, or no sign of life in 1 s and then two questions unanswered: GT reset",
		plan: "h2g/SCHED_CONTEXT_MODE_SET nth=2 deaf", resets: 1, victims: []string{"a"}, run: func(s *scene) { s.start(long); s.settled() }},
	{name: "request-ring-full", reason: "no forward progress", failure: "H2G ring full", reaction: "no forward progress in 1 s: GT reset",
		plan: "h2g/UPDATE_CONTEXT_POLICIES id=0 nth=2 deaf", resets: 1, victims: []string{"a"}, run: ringFull},
	{name: "credits-exhausted", reason: "no forward progress", failure: "G2H credits exhausted", reaction: "no forward progress in 1 s: GT reset",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE times=always delay=4s", resets: 1, large: true, config: func(s *setup) {
			s.arena = 8 << 30
			s.driver = func(c *driver.Config) { c.EntitiesMax, c.Credits = 5000, 1 }
		}, run: creditsExhausted},
	{name: "answer-ring-status", reason: "ctb status", failure: "G2H descriptor STATUS set", reaction: "at the next read GT reset",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=1 status=2", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "request-ring-status", failure: "H2G descriptor STATUS set", reaction: "at the next write, or without an answer: GT reset",
		plan: "h2g/SCHED_CONTEXT_MODE_SET nth=2 status=1", resets: 1, victims: []string{"a"}, run: func(s *scene) { s.start(long); s.settled() }},
	{name: "pointer-out-of-range", reason: "ctb tail", failure: "ring pointer out of range", reaction: "STATUS is set, GT reset", resets: 1, victims: []string{"a"}, run: pointerOutOfRange},
	{name: "truncated", reason: "ctb", failure: "truncated message", reaction: "STATUS is set, GT reset", plan: "g2h/SCHED_CONTEXT_MODE_DONE id=1 truncate", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "wrong-header", reason: "ct", failure: "reserved bits in a header", reaction: "STATUS is set, GT reset", plan: "g2h/SCHED_CONTEXT_MODE_DONE id=1 header", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "wrong-origin", reason: "origin is not the firmware", failure: "wrong origin", reaction: "GT reset", plan: "g2h/SCHED_CONTEXT_MODE_DONE id=1 origin", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "unknown-type", reason: "is not taken", failure: "unknown message type", reaction: "GT reset", plan: "g2h/SCHED_CONTEXT_MODE_DONE id=1 type=4", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "busy-over-ct", reason: "is not taken", failure: "BUSY over the CT", reaction: "GT reset: neither driver takes it", plan: "g2h/SCHED_CONTEXT_MODE_DONE id=1 type=3", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "event-length", failure: "event of a wrong length", reaction: "logged and dropped", plan: "g2h/STATE_CAPTURE_NOTIFICATION length", warned: "firmware event malformed",
		guilty: []string{"a"}, cause: core.CauseHang, run: hangWithWaiter},
	{name: "event-of-nobody", failure: "event with an unknown guc_id", reaction: "logged and dropped; the fault stands in the descriptor too and is found there",
		plan: "g2h/CONTEXT_RESET_NOTIFICATION id-is=77", warned: "event without context", guilty: []string{"a"}, cause: core.CauseHang, run: hangWithWaiter},
	{name: "event-in-wrong-state", failure: "event in a wrong state", reaction: "logged and dropped; what it should have said is missed after 5 s: GT reset",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=0 state", resets: 1, victims: []string{"a"}, warned: "illegal context event", run: func(s *scene) { s.start(long); s.settled() }},
	{name: "unknown-event", failure: "unknown event", reaction: "logged and dropped", plan: "g2h/STATE_CAPTURE_NOTIFICATION action=0x1fff", warned: "unknown firmware event",
		guilty: []string{"a"}, cause: core.CauseHang, run: hangWithWaiter},
	{name: "fast-request-refused", reason: "was answered", failure: "FAILURE for a FAST_REQUEST", reaction: "GT reset, the log names the request",
		plan: "h2g/SCHED_CONTEXT_MODE_SET id=1 fail=0x100", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "request-refused", failure: "FAILURE for a REQUEST", reaction: "logged; a setting is done without", plan: "h2g/UPDATE_SCHEDULING_POLICIES_KLV fail=0x30", warned: "firmware setting refused"},
	{name: "request-retried", failure: "RETRY for a REQUEST", reaction: "sent again after 5 ms × n, at most 50 times", plan: "h2g/UPDATE_SCHEDULING_POLICIES_KLV times=50 retry"},
	{name: "request-retried-too-often", failure: "RETRY for a REQUEST, more than 50 times", reaction: "given up as refused", plan: "h2g/UPDATE_SCHEDULING_POLICIES_KLV times=51 retry", warned: "firmware setting refused"},
	{name: "request-unanswered", failure: "no reply to a REQUEST", reaction: "given up after 1 s, the channel stays up", plan: "h2g/UPDATE_SCHEDULING_POLICIES_KLV drop", warned: "firmware setting refused"},
	{name: "late-reply", failure: "late reply after the timeout", reaction: "logged, the credit is taken back", plan: "g2h/SUCCESS delay=3s", warned: "reply without request",
		run: func(s *scene) { s.start(4000); s.settled() }},
	{name: "duplicate-answer", reason: "credit returned", failure: "duplicate MODE_DONE", reaction: "logged, more credit comes back than was taken: GT reset",
		plan: "g2h/SCHED_CONTEXT_MODE_DONE id=0 duplicate", resets: 1, warned: "gt reset", victims: []string{"a"},
		run: func(s *scene) { s.start(long); s.settled() }},
	{name: "hang-with-waiter", failure: "context hang, somebody waits", reaction: "the firmware's preemption timeout; the context's entity is guilty", guilty: []string{"a"}, cause: core.CauseHang, run: hangWithWaiter},
	{name: "hang-alone", failure: "context hang, nobody waits", reaction: "the driver sees execution without the end of a workgroup for 5 s, and takes the context off with PT = 1 µs: guilty",
		guilty: []string{"a"}, cause: core.CauseHang, warned: "job hang detected", run: func(s *scene) {
			s.a = s.Create("a", nil)
			s.OK(s.a.Run(background, s.Job(1, 50, "workgroup=1ms hang=3")))
			s.settled()
		}},
	{name: "hang-taken-off", failure: "context hang, while it is taken off", reaction: "guilty, in whichever order MODE_DONE and CONTEXT_RESET come; nothing is suspended or cancelled",
		guilty: []string{"a"}, cause: core.CauseHang, run: func(s *scene) {
			s.a = s.Create("a", nil)
			s.OK(s.a.Run(background, s.Job(1, 50, "workgroup=1ms hang=3")))
			s.Run(20 * time.Millisecond)
			s.OK(s.a.Cancel(background, 1))
			s.settled()
		}},
	{name: "will-not-preempt", reason: "no answer in state suspending", failure: "will not preempt, engine resets off", reaction: "no MODE_DONE in 5 s, and a firmware that lives: guilty, GT reset",
		plan: "batch id=0 hang", config: func(s *setup) { s.driver = func(c *driver.Config) { c.NoEngineResets = true } },
		resets: 1, guilty: []string{"a"}, cause: core.CauseHang, run: func(s *scene) {
			s.start(short)
			if err := s.a.Suspend(background); !errors.Is(err, core.ErrClosed) {
				s.t.Errorf("suspend: %v", err)
			}
			s.settled()
		}},
	{name: "memory-error", failure: "CAT error, known context", reaction: "guilty", plan: "batch id=0 cat", guilty: []string{"a"}, cause: core.CauseMemory},
	{name: "memory-error-misnamed", failure: "CAT error that names another context", reaction: "the firmware's word counts; who it was stands in the descriptor and is found there: both are guilty",
		plan: "batch id=0 nth=2 cat; g2h/NOTIFY_MEMORY_CAT_ERROR id-is=1", guilty: []string{"a", "b"}, cause: core.CauseMemory, run: func(s *scene) {
			s.startLate(short)
			s.settled()
		}},
	{name: "memory-error-of-nobody", failure: "CAT error, unknown context", reaction: "logged", plan: "batch id=0 cat-unknown", warned: "memory error without context"},
	{name: "trap", failure: "fault of a kernel", reaction: "guilty, with the descriptor's cause", plan: "batch id=0 trap", guilty: []string{"a"}, cause: core.CauseTrap},
	{name: "engine-not-reset", reason: "could not be reset", failure: "engine reset failure", reaction: "the hung context is guilty, GT reset",
		plan: "engine-reset id=0 fail", resets: 1, guilty: []string{"a"}, cause: core.CauseHang, run: hangWithWaiter},
	{name: "crash", reason: "CRASH", failure: "crash dump posted", reaction: "GT reset", plan: "h2g/SCHED_CONTEXT_MODE_SET id=1 crash", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "exception", reason: "EXCEPTION", failure: "exception", reaction: "GT reset", plan: "h2g/SCHED_CONTEXT_MODE_SET id=1 exception", resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "silent-death", reason: "firmware is silent", failure: "silent firmware death", reaction: "no sign of life in 1 s, two questions unanswered for 1 s each: GT reset",
		plan: "h2g/SCHED_CONTEXT_MODE_SET id=1 mute", resets: 1, victims: []string{"a"}, run: func(s *scene) {
			s.startLate(long)
			begun := s.Clock.Now()
			s.Until("the reset", func() bool { return s.driver.Resets() > 0 })
			if took := s.Clock.Now() - begun; took > 3500*time.Millisecond {
				s.t.Errorf("noticed after %s: not by its silence", took)
			}
			s.settled()
		}},
	{name: "mailbox-wiped", reason: "CRASH", failure: "mailbox reads as zero", reaction: "asked once more when its 50 ms are over", plan: rebooted("SELF_CFG nth=7 wipe"), resets: 1, warned: "mailbox request wiped", victims: []string{"a"}, run: lateEnable},
	{name: "mailbox-wiped-twice", because: "SELF_CFG: no reply in 50ms", failure: "mailbox reads as zero again", reaction: "the device is given up", plan: rebooted("SELF_CFG nth=7 times=2 wipe"), resets: 1, failed: true, victims: []string{"a"}, run: givenUp},
	{name: "mailbox-unanswered", because: "CONTROL_CTB: no reply in 50ms", failure: "no reply in the mailbox", reaction: "the device is given up", plan: rebooted("CONTROL_CTB nth=2 drop"), resets: 1, failed: true, victims: []string{"a"}, run: givenUp},
	{name: "mailbox-busy", reason: "CRASH", failure: "BUSY in the mailbox", reaction: "2 s more for the definite reply", plan: rebooted("CONTROL_CTB nth=2 busy=1900ms"), resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "mailbox-busy-too-long", because: "CONTROL_CTB: no reply in 2s", failure: "BUSY in the mailbox for more than 2 s", reaction: "the device is given up", plan: rebooted("CONTROL_CTB nth=2 busy=2100ms"), resets: 1, failed: true, victims: []string{"a"}, run: givenUp},
	{name: "mailbox-retried", reason: "CRASH", failure: "RETRY in the mailbox", reaction: "sent again at once, at most 50 times", plan: rebooted("SELF_CFG nth=7 times=50 retry"), resets: 1, victims: []string{"a"}, run: lateEnable},
	{name: "mailbox-retried-too-often", because: "SELF_CFG: refused 50 times", failure: "RETRY in the mailbox, more than 50 times", reaction: "the device is given up", plan: rebooted("SELF_CFG nth=7 times=51 retry"), resets: 1, failed: true, victims: []string{"a"}, run: givenUp},
	{name: "mailbox-refused", because: "CONTROL_CTB: firmware answered: error 0x30a", failure: "FAILURE in the mailbox", reaction: "the device is given up", plan: rebooted("CONTROL_CTB nth=2 fail=0x30a"), resets: 1, failed: true, victims: []string{"a"}, run: givenUp},
	{name: "mailbox-wrong-type", because: "SELF_CFG", failure: "unknown message type in the mailbox", reaction: "the device is given up", plan: rebooted("SELF_CFG nth=7 type=4"), resets: 1, failed: true, victims: []string{"a"}, run: givenUp},
	{name: "load-failure", because: "load status 0x71", failure: "firmware load failure after a reset", reaction: "wedged: the device is given up, the process is replaced",
		plan: "h2g/SCHED_CONTEXT_MODE_SET id=1 crash; load fail=0x71", resets: 1, failed: true, run: givenUp},
	{name: "stuck-engine", because: "an engine did not stop", failure: "an engine that never stops", reaction: "the reset fails: the device is given up", plan: "batch id=0 stuck", resets: 1, failed: true,
		guilty: []string{"a"}, cause: core.CauseHang, run: func(s *scene) {
			s.startLate(short)
			s.Until("the failure", func() bool { return len(s.Failed) > 0 })
		}},
	{name: "resets-in-a-row", because: "3 GT resets in a row", failure: "more than three resets in a row without a job's end", reaction: "the device is given up",
		plan: "h2g/SCHED_CONTEXT_MODE_SET id=1 times=always crash", resets: 4, failed: true, victims: []string{"a"}, run: givenUp},
}

// rebooted is a plan that makes the firmware die, so that the channel is registered anew, and then does this to
// the mailbox; each bring-up is six SELF_CFG and a CONTROL_CTB.
func rebooted(mailbox string) string {
	return "h2g/SCHED_CONTEXT_MODE_SET id=1 crash; mmio/" + mailbox
}

// givenUp lets the fault hit the enable of b while a's job executes, and waits for the device's end.
func givenUp(s *scene) {
	s.startLate(long)
	s.Until("the failure", func() bool { return len(s.Failed) > 0 })
}

// lateEnable lets the fault hit the enable of b while a's job executes.
func lateEnable(s *scene) {
	s.startLate(long)
	s.settled()
}

// startLate is start with a job of b, which is told of last.
func (s *scene) startLate(workgroups uint32) {
	s.start(workgroups)
	s.Run(20 * time.Millisecond)
	s.OK(s.b.Run(background, s.Job(2, 30, "workgroup=1ms")))
}

// hangWithWaiter: the second job of a hangs while b waits.
func hangWithWaiter(s *scene) {
	s.start(30)
	s.OK(s.a.Run(background, s.Job(5, 50, "workgroup=1ms hang=3")))
	s.Until("the start", func() bool { return s.a.Started[5] })
	s.Run(20 * time.Millisecond)
	s.OK(s.b.Run(background, s.Job(2, 30, "workgroup=1ms")))
	s.settled()
}

// secondJob: the context is enabled already when the job comes.
func secondJob(s *scene) {
	s.a = s.Create("a", nil)
	s.OK(s.a.Run(background, s.Job(1, 20, "workgroup=1ms")))
	s.settled()
	s.OK(s.a.Run(background, s.Job(2, 20, "workgroup=1ms")))
	s.settled()
}

func deregistrationUnanswered(s *scene) {
	s.start(short)
	s.OK(s.b.Run(background, s.Job(2, 30, "workgroup=1ms")))
	s.settled()
	s.OK(s.a.Destroy(background))
	d := s.Create("d", nil)
	for _, c := range s.driver.Contexts() {
		if c.Entity == d.Spec.ID && c.ID == 0 {
			s.t.Error("the id was used again before the context was forgotten")
		}
	}
	if free, _, all := s.driver.Credits(); free != all-3 {
		s.t.Errorf("credit %d of %d", free, all)
	}
	s.OK(s.b.Destroy(background)) // The firmware dies: the reset scrubs a too.
	s.OK(d.Run(background, s.Job(6, 30, "workgroup=1ms")))
	s.Until("d's job", func() bool { return d.Ended[6] != "" })
	if e := s.Create("e", nil); s.driver.Contexts()[0].Entity != e.Spec.ID {
		s.t.Error("the id did not come back with the reset")
	}
}

// ringFull changes properties until the H2G ring of a firmware that takes nothing is full.
func ringFull(s *scene) {
	s.start(long)
	s.Still = true
	begun := s.Clock.Now()
	for i := range 200 {
		p := core.Properties{Priority: core.PriorityNormal}
		if i%2 == 0 {
			p.Priority = core.PriorityHigh
		}
		s.OK(s.a.SetProperties(background, p))
	}
	s.Still = false
	s.Until("the reset", func() bool { return s.driver.Resets() > 0 })
	if took := s.Clock.Now() - begun; took > 1100*time.Millisecond {
		s.t.Errorf("noticed after %s: not by the full ring", took)
	}
	s.settled()
}

// creditsExhausted enables so many contexts that the credits of their answers
// are more than there are.
func creditsExhausted(s *scene) {
	const count = 4200
	s.Light, s.Still = true, true
	begun := s.Clock.Now()
	var lives []*rig.Life
	for i := range count {
		lives = append(lives, s.Create("many", nil))
		s.OK(lives[i].Run(background, s.Job(core.JobID(1000+i), 1, "workgroup=1us")))
	}
	s.Still = false
	s.Until("a reset", func() bool { return s.driver.Resets() > 0 })
	if took := s.Clock.Now() - begun; took > 1100*time.Millisecond {
		s.t.Errorf("noticed after %s: not by the credits", took)
	}
	s.faults.Disarm()
	for i, l := range lives {
		s.Until("a job", func() bool { return l.Ended[core.JobID(1000+i)] != "" })
	}
}

// pointerOutOfRange puts HEAD of the H2G ring beyond its end.
func pointerOutOfRange(s *scene) {
	s.start(long)
	s.Run(20 * time.Millisecond)
	// The transport is the first thing in memory; the G2H descriptor lies in it as Xe has it.
	s.OK(s.Arena.Store32(hw.MemoryBase+0x800+4*abi.DescTail, 1<<20))
	s.settled()
}

var _ = context.Background
