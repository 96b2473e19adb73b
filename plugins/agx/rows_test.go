package agx

import (
	"errors"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// a, b and c are the queues 2, 3 and 4; the event slot of a is 0.

// rows are the compute rows of section 8 of the reference.
var rows = []row{
	{name: "fault", failure: "1: MMU fault of a command", reaction: "the halt is waited for, the fault register blames the VM, the GPU resumes; guilty when the stamp comes, the others go on",
		plan: "command id=2 nth=5 fault", halts: 1, guilty: []string{"a"}, cause: core.CauseMemory},
	{name: "fault-with-victims", failure: "1: MMU fault while others run", reaction: "who ran beside the guilty VM is a victim; who was only kicked goes on", wide: true,
		plan: "command id=2 nth=5 fault", halts: 1, guilty: []string{"a"}, victims: []string{"b"}, cause: core.CauseMemory},
	{name: "trap", failure: "1: fault of a kernel", reaction: "the same, with the descriptor's cause", halts: 1, guilty: []string{"a"}, cause: core.CauseTrap, run: func(s *scene) {
		s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
		s.OK(s.a.Run(background, s.Job(1, 100, "workgroup=1ms trap at 60")))
		s.OK(s.b.Run(background, s.Job(2, 100, "workgroup=1ms")))
		s.settled()
		if u := s.a.Lost[0].Usage; s.a.Lost[0].Job != 1 || u.Done > 60 || u.Done < 30 {
			s.t.Errorf("lost %+v", s.a.Lost[0])
		}
	}},
	{name: "fault-of-another-vm", failure: "1: fault register names a VM that was not on the GPU", reaction: "nobody who ran is guilty: all listed are victims",
		plan: "command id=2 nth=5 fault-vm=63", halts: 1, victims: []string{"a"}},
	{name: "fault-unknown", failure: "2: fault with an invalid register", reaction: "the descriptor says whose work faulted; without its word all listed are victims", wide: true,
		plan: "command id=2 nth=5 fault-unknown", halts: 1, guilty: []string{"a"}, victims: []string{"b"}},
	{name: "soft-fault", failure: "3: soft fault", reaction: "nothing is noticed: the job succeeds", plan: "command id=2 nth=5 soft-fault", wrong: true},
	{name: "watchdog", failure: "4: watchdog time-out", reaction: "the slot that the event names is guilty, the others listed are victims", wide: true,
		plan: "command id=2 nth=5 hang", halts: 1, guilty: []string{"a"}, cause: core.CauseHang, run: hangBesideLong, victims: []string{"b"},
		// One command of each, so that b's go on while a's hangs.
		config: func(s *setup) {
			s.firmware = func(c *fw.Config) { c.Width = 2 }
			s.driver = func(c *driver.Config) { c.Depth = 1 }
		}},
	{name: "watchdog-alone", failure: "4: a workgroup that never ends, on an engine that can abort it", reaction: "the same with nobody beside it", halts: 1, guilty: []string{"a"}, cause: core.CauseHang, run: func(s *scene) {
		s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
		s.OK(s.a.Run(background, s.Job(1, 50, "workgroup=1ms hang at 30")))
		s.settled()
	}},
	{name: "watchdog-with-fault", failure: "5: time-out with fault information", reaction: "treated as a fault",
		plan: "command id=2 nth=5 hang-fault", halts: 1, guilty: []string{"a"}},
	{name: "watchdog-without-slot", failure: "6: time-out without a slot", reaction: "whose command was executing is guilty, whoever else is listed a victim",
		plan: "command id=2 nth=5 hang-nobody", halts: 1, guilty: []string{"a"}, cause: core.CauseHang},
	{name: "stale-timeout", failure: "7: old time-out after the recovery", reaction: "its counter is below the halts that were processed: logged and dropped",
		plan: "command id=2 nth=5 hang; halt stale", halts: 1, guilty: []string{"a"}, warned: "stale time-out"},
	{name: "duplicate-fault", failure: "7: the same fault event twice", reaction: "the second one finds no halt: logged and dropped",
		plan: "command id=2 nth=5 fault; event/Fault duplicate", halts: 1, guilty: []string{"a"}},
	{name: "never-halts", failure: "8: halted is never set", reaction: "100 ms, then the device is given up; what is known of the guilty is said", plan: "command id=2 nth=5 fault; halt never-halts",
		failed: "does not halt in 100ms", guilty: []string{"a"}},
	{name: "stuck", failure: "8: nothing takes the command off the GPU", reaction: "the firmware gives up after 100 ms and crashes; what is known of the guilty is said", plan: "command id=2 nth=5 stuck", failed: "the GPU did not halt in 100ms", guilty: []string{"a"}},
	{name: "ignores-resume", failure: "9: resume is ignored", reaction: "the doorbell is rung three times for 100 ms each, then the device is given up", plan: "command id=2 nth=5 fault; halt ignore-resume",
		failed: "does not resume, told 3 times", guilty: []string{"a"}, run: func(s *scene) {
			s.start()
			s.Until("the halt", func() bool { return s.firmware.Counters().Halts > 0 })
			halted := s.Clock.Now()
			s.settled()
			if took := s.Clock.Now() - halted; took < 300*time.Millisecond || len(s.Failed) == 0 {
				s.t.Errorf("lost %s after the halt, failed %v", took, s.Failed)
			}
		}},
	{name: "second-fault", failure: "9: another fault during the recovery", reaction: "one more recovery", plan: "command id=2 nth=5 fault; halt again", halts: 2, guilty: []string{"a"}},
	{name: "faults-without-end", failure: "9: one fault after the other", reaction: "after a bounded number without a command that ends well between them the device is given up",
		plan: "command times=always fault", failed: "halts in a row", run: func(s *scene) {
			for i := range 100 {
				if len(s.Failed) > 0 {
					break
				}
				l := s.Create("x", nil)
				_ = l.Run(background, s.Job(core.JobID(i+1), 3, "workgroup=1ms"))
				s.Until("the loss", func() bool { return len(s.Failed) > 0 || l.Over() })
				_ = l.Destroy(background)
				l.Lost = nil
			}
		}},
	{name: "dead-not-retired", failure: "9: a dead command is not retired after the resume", reaction: "after 1 s the device is given up, with the guilty named",
		plan: "command id=2 nth=5 fault; stamp id=0 nth=5 keep", failed: "a dead command was not retired in 1s", guilty: []string{"a"}, cause: core.CauseMemory},
	{name: "dead-not-retired-killed", failure: "9: the same, and its entity was killed before the halt", reaction: "the same; there is nobody to name",
		plan: "command id=2 nth=5 hang; stamp id=0 nth=5 keep", failed: "a dead command was not retired in 1s", run: killedWhileHanging},
	{name: "crash-before-init", failure: "10: crash before Init", reaction: "a clean error of the start", plan: "init crash", failed: "firmware crashed: \"injected at init\"", down: true},
	{name: "crash", failure: "10: crash while jobs run", reaction: "the device is given up, all its entities are victims of that, the crash log says why; the process is replaced",
		plan: "command id=2 nth=5 crash", failed: "firmware crashed: \"injected at command\"", run: func(s *scene) {
			s.start()
			s.settled()
			if err := s.c.Run(background, s.Job(9, 1, "workgroup=1ms")); err == nil {
				s.t.Error("a dead device took work")
			}
		}},
	{name: "crash-in-recovery", failure: "10: crash during a recovery", reaction: "the same; nobody is named, because nothing was found out yet", plan: "command id=2 nth=5 fault; halt crash", failed: "firmware crashed: \"injected at halt\""},
	{name: "crash-after-resume", failure: "10: crash when the dead commands are retired", reaction: "the same; who was found guilty before is said to be", plan: "command id=2 nth=5 fault; stamp id=0 nth=5 crash",
		failed: "firmware crashed: \"injected at stamp\"", guilty: []string{"a"}, cause: core.CauseMemory},
	{name: "silent-death", failure: "10: death without a word", reaction: "the poll sees that the coprocessor has stopped: the device is given up", plan: "command id=2 nth=5 mute", failed: "firmware stopped without a word", run: func(s *scene) {
		s.start()
		s.Until("the death", s.firmware.Dead)
		begun := s.Clock.Now()
		s.Until("the end of the device", func() bool { return len(s.Failed) > 0 })
		if took := s.Clock.Now() - begun; took > 15*time.Millisecond {
			s.t.Errorf("the device was given up after %s", took)
		}
	}},
	{name: "hello-version", failure: "12: HELLO of another version", reaction: "a clean error of the start", plan: "management/HELLO version=10", failed: "speaks RTKit 10 to 10", down: true},
	{name: "no-hello", failure: "12: no HELLO", reaction: "after 5 s an error that names what was awaited", plan: "management/HELLO drop", failed: "no HELLO in 5s", down: true},
	{name: "no-gpu", failure: "12: EPMAP without the GPU's endpoints", reaction: "a clean error of the start", plan: "management/EPMAP nth=2 no-gpu", failed: "no GPU endpoints", down: true},
	{name: "init-lost", failure: "12: Init is lost", reaction: "Initialize is not consumed: after 1 s an error that says so", plan: "init drop", failed: "Initialize not consumed in 1s", down: true},
	{name: "flags-lost", failure: "13: Flags are lost", reaction: "the stamps are looked at anyway, eight times in a slice", plan: "event/Flag times=always drop"},
	{name: "interrupts-lost", failure: "13: the message to look is lost", reaction: "the same", plan: "rx times=always drop"},
	{name: "flag-twice", failure: "14: Flag twice", reaction: "nothing new is found", plan: "event/Flag times=always duplicate"},
	{name: "flag-of-another", failure: "14: Flag of a free slot, and none of the right one", reaction: "dropped; the poll finds the stamp", plan: "event/Flag times=always slot-is=99"},
	{name: "stamp-kept", failure: "15: a stamp is not written", reaction: "the next one covers it; with none, descriptor and done pointer are believed after 2 s", plan: "stamp times=always keep", warned: "stamp was lost", run: oneJobEach},
	{name: "stamp-rolls-back", failure: "15: a stamp rolls back", reaction: "logged, believed in nothing; then as a lost one", plan: "stamp nth=3 back=2", warned: "stamp makes no sense", run: oneJobEach},
	{name: "stamp-jumps", failure: "15: a stamp beyond what was submitted", reaction: "logged, nothing that was not submitted is completed; then as a lost one", plan: "stamp nth=2 jump=200", warned: "stamp makes no sense", run: oneJobEach},
	{name: "stamp-kept-before-fault", failure: "15: a stamp is not written, and the next command faults", reaction: "the first one's descriptor is done: only the second one is to blame",
		plan: "stamp id=0 nth=4 keep; command id=2 nth=5 fault", halts: 1, guilty: []string{"a"}, cause: core.CauseMemory, run: func(s *scene) {
			s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
			s.Still = true
			for id := core.JobID(1); id <= 6; id++ {
				s.OK(s.a.Run(background, s.Job(id, 1, "workgroup=1ms")))
			}
			s.Still = false
			s.settled()
			if lost := s.a.Lost[0]; lost.Job != 5 || s.a.Ended[4] != "completed" {
				s.t.Errorf("lost %+v, ended %v", lost, s.a.Ended)
			}
		}},
	{name: "stamp-too-early", failure: "15: a stamp of a command that is under way", reaction: "the descriptor does not agree: logged, waited for", plan: "stamp id=0 nth=5 jump=1", warned: "stamp without work", run: func(s *scene) {
		s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
		s.OK(s.a.Run(background, s.Job(1, 300, "workgroup=1ms")))
		s.settled()
	}},
	{name: "stamp-too-early-killed", failure: "15: the same, and its entity is killed meanwhile", reaction: "its memory and its slots are kept until the descriptor says that the command is off the GPU", plan: "stamp id=0 nth=5 jump=1", warned: "stamp without work", run: func(s *scene) {
		s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
		s.OK(s.a.Run(background, s.Job(1, 300, "workgroup=1ms")))
		s.Until("the stamp", func() bool { return s.faults.Fired() > 0 })
		s.OK(s.a.Destroy(background)) // It checks that nothing of it is on the engine.
	}},
	{name: "descriptor-malformed", failure: "the descriptor of a command makes no sense", reaction: "believed in nothing; after 2 s the device is given up", failed: "the descriptor of job 1 makes no sense for 2s",
		run: func(s *scene) { s.spoiled(99) }},
	{name: "preempted-unasked", failure: "the descriptor says that a command left the GPU half done, and nobody halted it", reaction: "after 2 s the device is given up", failed: "neither halts nor retires a command that faulted",
		run: func(s *scene) { s.spoiled(uint32(hw.StatusPreempted)) }},
	{name: "events-late", failure: "17: Flags come late", reaction: "the poll sees the stamps, the late Flags nothing new", plan: "event/Flag times=always delay=20ms"},
	{name: "pipe-frozen", failure: "18: kicks are not taken", reaction: "kicked again after 2 s, three times, then the device is given up: nothing is overwritten", plan: "pipe nth=6 freeze", failed: "blocked: job 1 does not execute, kicked 3 times"},
	{name: "pipe-slow", failure: "18: kicks are not taken for a while", reaction: "waited for", plan: "pipe nth=6 freeze=500ms"},
	{name: "kick-lost", failure: "18: a kick is lost", reaction: "the next one, or a repeat after 2 s, says the same and more", plan: "pipe nth=6 drop"},
	{name: "control-frozen", failure: "19: device control is not consumed", reaction: "after 1 s the device is given up", plan: "device-control/DestroyContext freeze", failed: "DestroyContext not consumed in 1s", run: func(s *scene) {
		s.start()
		s.settled()
		if err := s.a.Destroy(background); err == nil {
			s.t.Error("destroyed without the firmware")
		}
	}},
	{name: "control-slow", failure: "19: device control is slow", reaction: "waited for", plan: "device-control/DestroyContext freeze=500ms", run: func(s *scene) {
		s.start()
		s.settled()
		s.OK(s.a.Destroy(background))
	}},
	{name: "event-ring-full", failure: "20: event ring full, the firmware stalls", reaction: "it goes on when there is room", plan: "event/Flag nth=3 full=200ms"},
	{name: "events-dropped", failure: "20: event ring full, the firmware drops", reaction: "the poll finds what was lost", plan: "event/Flag nth=3 full=200ms",
		config: func(s *setup) { s.firmware = func(c *fw.Config) { c.EventDrop = true } }},
	{name: "fault-event-lost", failure: "20: a Fault is dropped", reaction: "the poll sees the halted flag, and the recovery follows", plan: "command id=2 nth=5 fault; event/Fault drop", halts: 1, guilty: []string{"a"}},
	{name: "timeout-event-lost", failure: "20: a Timeout is dropped", reaction: "the same; the descriptor says who hung", plan: "command id=2 nth=5 hang; event/Timeout drop", halts: 1, guilty: []string{"a"}, cause: core.CauseHang},
	{name: "channel-memory", failure: "21: ChannelError, memory error", reaction: "that queue is guilty, RecoverChannel lets its ring run out, nobody else notices", plan: "command id=2 nth=5 channel-error=0", guilty: []string{"a"}, cause: core.CauseMemory, warned: "channel error"},
	{name: "channel-dm-kill", failure: "21: ChannelError, killed", reaction: "the same, trap", plan: "command id=2 nth=5 channel-error=1", guilty: []string{"a"}, cause: core.CauseTrap},
	{name: "channel-aborted", failure: "21: ChannelError, aborted", reaction: "the same, trap", plan: "command id=2 nth=5 channel-error=2", guilty: []string{"a"}, cause: core.CauseTrap},
	{name: "channel-unknown", failure: "21: ChannelError, unknown", reaction: "the same, trap", plan: "command id=2 nth=5 channel-error=3", guilty: []string{"a"}, cause: core.CauseTrap},
	{name: "channel-twice", failure: "21: the same ChannelError twice", reaction: "RecoverChannel is sent once; the second one is logged and dropped",
		plan: "command id=2 nth=5 channel-error=1; event/ChannelError duplicate", guilty: []string{"a"}, cause: core.CauseTrap, warned: "channel error again"},
	{name: "channel-error-killed", failure: "21: ChannelError of a queue whose entity was killed, and its stamp is lost", reaction: "after 1 s the device is given up",
		plan: "command id=2 nth=5 channel-error=1; event/ChannelError delay=100ms; stamp id=0 nth=5 keep", failed: "a dead command was not retired in 1s", run: killedWhileHanging},
	{name: "channel-event-lost", failure: "21: a ChannelError is lost", reaction: "the descriptor says that the work faulted, and nothing comes: after 2 s the device is given up, with the guilty named",
		plan: "command id=2 nth=5 channel-error=1; event/ChannelError drop", failed: "neither halts nor retires a command that faulted"},
	{name: "blocked", failure: "22: a queue is blocked and nobody says by what", reaction: "kicked again three times, reported as blocked and not as hung; the driver puts no barrier into a ring", plan: "pipe times=always drop", failed: "blocked: job 1 does not execute, kicked 3 times"},
	{name: "last-touch", failure: "25: the firmware touches its last command again", reaction: "it is kept until the next one is retired, or the context destroyed", plan: "retired times=always touch=20ms",
		config: func(s *setup) { s.driver = func(c *driver.Config) { c.GarbageObjects = 2 } }}, // What is freed is used again at once.
	{name: "unknown-event", failure: "26: unknown event", reaction: "logged and dropped", plan: "event/Flag type=99", warned: "firmware event malformed"},
	{name: "log-index", failure: "26: log index out of range", reaction: "logged and dropped", plan: "log index=256", warned: "firmware log index unknown"},
	{name: "log-endless", failure: "26: log text without an end", reaction: "cut", plan: "log endless"},
	{name: "grow-tvb", failure: "27: GrowTVB", reaction: "render only: logged and dropped, as it is not modelled", plan: "event/Flag times=always type=7", warned: "firmware event malformed"},
	{name: "power-race", failure: "28: kicked while the GPU goes off", reaction: "it waits for the power; nothing is lost", plan: "power-off times=always race=5ms", run: func(s *scene) {
		s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
		for i := range 20 {
			s.OK(s.a.Run(background, s.Job(core.JobID(i+1), 3, "workgroup=1ms")))
			s.Until("the job", s.a.Over)
			s.World.Run(time.Duration(1500+i*100) * time.Microsecond)
		}
	}},
	{name: "mailbox-mute", failure: "nothing takes from the mailbox any more", reaction: "as a death without a word: nothing moves for 1 s, a flush is not consumed in another", failed: "DestroyContext not consumed in 1s", run: func(s *scene) {
		s.start()
		s.World.Run(100 * time.Millisecond)
		s.Mute = true
		if err := s.a.Suspend(background); err == nil || errors.Is(err, core.ErrClosed) && len(s.Failed) == 0 {
			s.t.Errorf("suspend: %v", err)
		}
		s.settled()
	}},
	{name: "slow-power", failure: "the GPU takes long to come on", reaction: "waited for", plan: "power-off times=always race=1ms",
		config: func(s *setup) { s.firmware = func(c *fw.Config) { c.PowerOnDelay = 30 * time.Millisecond } }},
}

// elsewhere are the rows with a test of their own.
var elsewhere = []struct{ failure, reaction, test string }{
	{"4: a workgroup that never ends, on the default engine, which can't abort it", "the plugin's process ends; the job failed as hung, the others go on from their images in a new process", "agx-faults.txtar"},
	{"11: initdata of another version", "the firmware crashes with its reason, and the start fails with it", "TestOtherFirmware"},
	{"16: stamps wrap", "compared by signed difference; every device starts just before the wrap", "TestStampsWrap"},
	{"17: many completions in one Flag", "all are found at one look, and reported as \"everything up to here\"", "TestManyCommands"},
	{"18: a pipe is full", "nothing is overwritten; what found no room is told later, and after 1 s the device is given up", "TestPipeFull"},
	{"the mailbox is full and nothing takes from it", "after 1 s the device is given up", "TestPipeFull"},
	{"23: out of event slots and VM slots", "who has waited longest is next; nobody else is kicked before it, so that slots come back", "TestThousandEntities"},
	{"24: private memory used again without a flush", "a garbage list; the firmware's checker is read after every step of every test", "TestGarbage"},
	{"24: the checker itself", "it sees a flush that did nothing", "TestCheckerCatches"},
	{"25: the same after the end of its entity", "it is kept until the context is destroyed; no flush before that frees it", "TestLastCommandUntilDestroyed"},
	{"no memory for the work of one more entity", "it is taken when the first job is accepted, and that is refused; who has it comes on, with another priority too", "TestMemoryRunsOut"},
	{"the next entity has the VM slot and the addresses of one that ended", "the slot is unbound before DestroyContext, with which firmware and engine forget the address space", "TestSpaceEndsWithItsEntity"},
	{"9: the resume is taken when its time is over, and another halt follows", "the words are written once, so that nothing of the next halt is wiped out", "TestResumeIsTakenLate"},
	{"18: a reminder is not read before its queue ends", "DestroyContext waits until it is, because device control is looked at first; after 1 s the device is given up", "TestEndWaitsForThePipe"},
}

// oneJobEach gives a and b a job each that is one command in the end.
func oneJobEach(s *scene) {
	s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
	s.OK(s.a.Run(background, s.Job(1, 30, "workgroup=1ms")))
	s.OK(s.b.Run(background, s.Job(2, 30, "workgroup=1ms")))
	s.settled()
}

// hangBesideLong lets b execute a command that is under way when the watchdog bites.
func hangBesideLong(s *scene) {
	s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
	s.OK(s.a.Run(background, s.Job(1, workgroups, "workgroup=1ms")))
	s.OK(s.b.Run(background, s.Job(2, 1000, "workgroup=7ms")))
	s.settled()
}

// killedWhileHanging destroys a when the plan has begun; it does not end before the device does.
func killedWhileHanging(s *scene) {
	s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
	s.OK(s.a.Run(background, s.Job(1, workgroups, "workgroup=1ms")))
	s.Until("the fault", func() bool { return s.faults.Fired() > 0 })
	begun := s.Clock.Now()
	if err := s.a.Destroy(background); err == nil {
		s.t.Error("destroyed with a command in the ring")
	}
	if took := s.Clock.Now() - begun; took > 5*time.Second {
		s.t.Errorf("the device was given up after %s", took)
	}
}

// spoiled writes a status into the descriptor of every first command, whatever the firmware writes there.
func (s *scene) spoiled(status uint32) {
	s.a, s.b, s.c = s.Create("a", nil), s.Create("b", nil), s.Create("c", nil)
	s.OK(s.a.Run(background, s.Job(1, workgroups, "workgroup=1ms")))
	s.World.Run(50 * time.Millisecond)
	s.Observe = func() {
		s.law.observe()
		for _, q := range s.driver.Queues() {
			if q.Head != 0 {
				s.OK(s.Arena.Store32(q.Head+hw.ReportOffset, status))
			}
		}
	}
	begun := s.Clock.Now()
	s.settled()
	if took := s.Clock.Now() - begun; took > 3*time.Second {
		s.t.Errorf("the device was given up after %s", took)
	}
}
