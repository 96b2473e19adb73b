package mali

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// rows are the compute rows of section 7 of the reference that an entity can meet.
var rows = slices.Concat(bootRows, exceptionRows(), contradictions(), []row{
	{name: "ping-unanswered", failure: "PING never acknowledged", reaction: "GPU reset at most 12.1 s after the last one; who is suspended in it goes on",
		plan: "glb-ack/PING drop", resets: 1, run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 14_000, "workgroup=1ms")))
			begun := s.clock.Now()
			s.until("the reset", func() bool { return s.driver.Resets() > 0 })
			if took := s.clock.Now() - begun; took > 12_150*time.Millisecond {
				s.t.Errorf("noticed after %s", took)
			}
			s.settled()
		}},
	{name: "start-unanswered", failure: "START never acknowledged", reaction: "GPU reset after 100 ms; its job is a victim if it was begun", plan: "csg-ack/START id=0 drop", resets: 1, victims: []string{"a"}},
	{name: "start-unanswered-done", failure: "START never acknowledged, and its job ends before the reset", reaction: "GPU reset after 100 ms; the next job begins behind it", plan: "csg-ack/START id=0 drop", resets: 1,
		run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 20, "workgroup=1ms")))
			s.until("the reset", func() bool { return s.driver.Resets() > 0 && s.driver.Up() })
			s.ok(s.a.Run(background, s.job(2, 20, "workgroup=1ms")))
			s.settled()
		}},
	{name: "resume-unanswered", failure: "RESUME never acknowledged", reaction: "GPU reset after 100 ms; its job is a victim", plan: "csg-ack/RESUME drop", resets: 1, victims: []string{"a"},
		run: func(s *scene) { s.start(); s.ok(s.a.Suspend(background)); s.ok(s.a.Resume(background)); s.settled() }},
	{name: "endpoints-unanswered", failure: "EP_CFG never acknowledged", reaction: "GPU reset after 100 ms; everybody is suspended in it and goes on", plan: "csg-ack/EP_CFG nth=4 drop", resets: 1},
	{name: "status-unanswered", failure: "STATUS_UPDATE never acknowledged", reaction: "GPU reset after 100 ms; everybody is suspended in it and goes on", plan: "csg-ack/STATUS_UPDATE nth=3 drop", resets: 1},
	{name: "suspend-unanswered", failure: "SUSPEND never acknowledged", reaction: "GPU reset after 100 ms, TERMINATE: timed out and innocent, a victim; the others go on", plan: "csg-ack/SUSPEND id=0 drop", resets: 1, victims: []string{"a"},
		run: func(s *scene) { s.start(); s.run(30 * time.Millisecond); _ = s.a.Suspend(background); s.settled() }},
	{name: "suspend-unanswered-in-reset", failure: "SUSPEND never acknowledged in a reset", reaction: "TERMINATE: timed out and innocent, a victim; the others go on",
		plan: "csg-ack/STATUS_UPDATE nth=8 drop; csg-ack/SUSPEND id=1 drop", resets: 1, victims: []string{"b"}},
	{name: "suspend-unanswered-in-sleep", failure: "SUSPEND never acknowledged on the way to sleep", reaction: "TERMINATE: timed out and innocent, a victim; the device sleeps, the others go on",
		plan: "csg-ack/SUSPEND id=0 drop", victims: []string{"a"}, run: func(s *scene) {
			s.start()
			s.run(30 * time.Millisecond)
			s.ok(s.driver.Sleep(background))
			s.run(time.Second)
			s.ok(s.driver.Wake(background))
			s.settled()
		}},
	{name: "terminate-unanswered-in-sleep", failure: "TERMINATE never acknowledged on the way to sleep", reaction: "forced: the GPU is reset on the way anyway",
		plan: "csg-ack/SUSPEND id=0 drop; csg-ack/TERMINATE id=0 drop", victims: []string{"a"}, run: func(s *scene) {
			s.start()
			s.run(30 * time.Millisecond)
			s.ok(s.driver.Sleep(background))
			s.run(time.Second)
			s.ok(s.driver.Wake(background))
			s.settled()
		}},
	{name: "frozen-in-sleep", failure: "the MCU stands still on the way to sleep, under jobs on endpoints", reaction: "nothing was heard of the firmware, so nobody is accused: who does not leave is a victim",
		plan: "csg-ack/SUSPEND nth=1 freeze", victims: []string{"a", "b", "c"}, run: func(s *scene) {
			s.start()
			s.run(30 * time.Millisecond)
			s.ok(s.driver.Sleep(background))
			s.run(time.Second)
			s.ok(s.driver.Wake(background))
			s.settled()
		}},
	{name: "terminate-unanswered", failure: "TERMINATE never acknowledged", reaction: "GPU reset, which takes the slot away; its memory is free after it", plan: "csg-ack/TERMINATE id=0 drop", resets: 1,
		run: func(s *scene) { s.start(); s.run(30 * time.Millisecond); s.ok(s.a.Destroy(background)); s.settled() }},
	{name: "terminate-unanswered-twice", failure: "TERMINATE never acknowledged, in a reset neither", reaction: "forced: the reset takes the slot away", plan: "csg-ack/TERMINATE id=0 times=2 drop", resets: 1,
		run: func(s *scene) { s.start(); s.run(30 * time.Millisecond); s.ok(s.a.Destroy(background)); s.settled() }},
	{name: "suspend-slow", failure: "suspend slow, below 100 ms", reaction: "passes", plan: "csg-ack/SUSPEND id=0 delay=60ms",
		run: func(s *scene) {
			s.start()
			s.run(30 * time.Millisecond)
			s.ok(s.a.Suspend(background))
			s.ok(s.a.Resume(background))
			s.settled()
		}},
	{name: "suspend-slow-twice", failure: "suspend slow, between 100 and 200 ms", reaction: "GPU reset, which waits as long once more: it goes on", plan: "csg-ack/SUSPEND id=0 delay=150ms", resets: 1,
		run: func(s *scene) {
			s.start()
			s.run(30 * time.Millisecond)
			_ = s.a.Suspend(background)
			s.ok(s.a.Resume(background))
			s.settled()
		}},
	{name: "suspend-too-slow", failure: "suspend slow, above 200 ms", reaction: "GPU reset; a victim", plan: "csg-ack/SUSPEND id=0 delay=250ms", resets: 1, victims: []string{"a"},
		run: func(s *scene) { s.start(); s.run(30 * time.Millisecond); _ = s.a.Suspend(background); s.settled() }},
	{name: "interrupts-lost", failure: "interrupts lost, acknowledgements in memory", reaction: "the last look before a deadline, and one every 50 ms, find them", plan: "irq/group times=always drop"},
	{name: "host-asleep", failure: "acknowledged in time, but the host sleeps beyond its deadline", reaction: "the last look finds it: no reset", plan: "irq/group times=always drop", run: func(s *scene) {
		s.start()
		for range 50 {
			s.clock.Advance(time.Millisecond)
			s.driver.Step()
			s.firmware.Step()
			s.clock.Advance(150 * time.Millisecond) // The deadline's timer comes before any other look.
		}
		s.settled()
	}},
	{name: "interrupts-doubled", failure: "interrupts twice, late, and for nothing", reaction: "ignored", plan: "irq times=40 duplicate; irq nth=50 times=40 delay=60ms; doorbell times=40 spurious"},
	{name: "doorbell-lost", failure: "user doorbell lost", reaction: "the ring stalls until the next kick: rung again after 5 s", plan: "doorbell/user drop", run: func(s *scene) {
		s.a = s.create("a", nil)
		s.ok(s.a.Run(background, s.job(1, 20, "workgroup=1ms")))
		s.until("the first job", func() bool { return s.a.ended[1] != "" })
		s.ok(s.a.Run(background, s.job(2, 20, "workgroup=1ms")))
		s.settled()
	}, config: func(s *setup) { s.driver = func(c *driver.Config) { c.RuntimeIdle = -1 } }},
	{name: "doorbells-lost", failure: "user doorbell lost again and again", reaction: "after the third time GPU reset; the job was not begun and goes on", plan: "doorbell/user times=4 drop", resets: 1, run: func(s *scene) {
		s.a = s.create("a", nil)
		s.ok(s.a.Run(background, s.job(1, 20, "workgroup=1ms")))
		s.until("the first job", func() bool { return s.a.ended[1] != "" })
		s.ok(s.a.Run(background, s.job(2, 20, "workgroup=1ms")))
		s.settled()
	}, config: func(s *setup) { s.driver = func(c *driver.Config) { c.RuntimeIdle = -1 } }},
	{name: "second-event", failure: "a second event while the first is looked at", reaction: "IRQ_ACK is written before: it is not lost", plan: "instruction/RUN_COMPUTE id=0 fault=0x58; event/FAULT id=0 then=0x49", guilty: []string{"a"}, warned: "stream halted",
		run: func(s *scene) {
			// The firmware goes on while the driver is at the first one.
			s.log.heard = func(message string) {
				if message == "job faulted" {
					s.firmware.Step()
				}
			}
			s.start()
			s.settled()
		}},
	{name: "event-repeated", failure: "an event that is told twice", reaction: "the second finds nothing new", plan: "instruction/RUN_COMPUTE id=0 fault=0x58; event/FAULT id=0 again", guilty: []string{"a"}},
	{name: "memory-fault", failure: "MMU fault with a CS_FAULT", reaction: "the address space is disabled; its entity is guilty", plan: "instruction/RUN_COMPUTE id=0 mmu", guilty: []string{"a"}, warned: "memory fault"},
	{name: "memory-fault-fatal", failure: "MMU fault with a CS_FATAL", reaction: "the queue is fatal, the entity guilty", plan: "instruction/RUN_COMPUTE id=0 mmu-fatal", guilty: []string{"a"}, warned: "memory fault"},
	{name: "memory-fault-only", failure: "MMU fault without a word of the stream", reaction: "all queues are fatal, the entity is guilty", plan: "instruction/RUN_COMPUTE id=0 mmu-only", guilty: []string{"a"}, warned: "memory fault"},
	{name: "endpoint-hangs", failure: "an endpoint that hangs, nobody leaves", reaction: "5 s without the end of a workgroup: guilty", plan: "run id=0 hang", guilty: []string{"a"},
		run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 300, "workgroup=1ms")))
			s.settled()
		}},
	{name: "endpoint-hangs-for-others", failure: "an endpoint that hangs while others wait for it", reaction: "it loses its endpoints and stays: 5 s without the end of a workgroup: guilty", plan: "run id=0 hang", guilty: []string{"a"}},
	{name: "endpoint-hangs-suspended", failure: "an endpoint that hangs under a SUSPEND", reaction: "no acknowledgement, and a firmware that lives: guilty, GPU reset; the others go on", plan: "run id=0 hang", resets: 1, guilty: []string{"a"},
		run: func(s *scene) { s.start(); s.run(30 * time.Millisecond); _ = s.a.Suspend(background); s.settled() }},
	{name: "unrecoverable-in-tick", failure: "CS_FATAL 0x41 that is found while slots change hands", reaction: "GPU reset at once: nobody gets a slot any more, and who was suspended goes on",
		plan: "instruction/RUN_COMPUTE id=0 fatal-is=0x41; irq/group id=0 times=always drop; irq/stream id=0 times=always drop", resets: 1, victims: []string{"a"},
		config: func(s *setup) {
			set := s.firmware
			s.firmware = func(c *fw.Config) { set(c); c.Groups = 3 }
			s.driver = func(c *driver.Config) { c.Timeouts.Poll = 20 * time.Second }
		}, run: func(s *scene) {
			var all []*life
			for id := range core.JobID(6) {
				all = append(all, s.create(string(rune('a'+id)), nil))
				s.ok(all[id].Run(background, s.job(1+id, 200, "workgroup=1ms")))
			}
			s.run(100 * time.Millisecond)
			_ = all[0].Suspend(background)
			s.settled()
		}},
	{name: "unrecoverable-in-sleep", failure: "CS_FATAL 0x41 that is found on the way to sleep", reaction: "GPU reset; then the device sleeps, and who was suspended goes on",
		plan: "instruction/RUN_COMPUTE id=0 fatal-is=0x41; irq/group id=0 times=always drop; irq/stream id=0 times=always drop", resets: 1, victims: []string{"a"},
		config: func(s *setup) {
			set := s.firmware
			s.firmware = func(c *fw.Config) { set(c); c.BootDelay = 200 * time.Millisecond } // Longer than a halt may take.
			s.driver = func(c *driver.Config) { c.Timeouts.Poll = 20 * time.Second }
		},
		run: func(s *scene) {
			s.start()
			s.run(30 * time.Millisecond)
			s.ok(s.driver.Sleep(background))
			s.run(time.Second)
			if off, _, _ := s.driver.Power(); off != 1 || s.over() {
				s.t.Errorf("powered off %d times, reports %q", off, s.world.log)
			}
			s.ok(s.driver.Wake(background))
			s.settled()
		}},
	{name: "progress-event", failure: "progress timer event", reaction: "timed out: guilty", plan: "run id=0 hang", guilty: []string{"a"}, config: func(s *setup) {
		s.driver = func(c *driver.Config) { c.Timeouts.Hang = 3 * time.Second; c.Timeouts.Poll = 20 * time.Second }
	}, run: func(s *scene) {
		s.a = s.create("a", nil)
		s.ok(s.a.Run(background, s.job(1, 300, "workgroup=1ms")))
		s.settled()
	}},
	{name: "kernel-hangs", failure: "a kernel that hangs", reaction: "5 s without the end of a workgroup: guilty", guilty: []string{"a"},
		run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 30, "workgroup=1ms hang at 9")))
			s.settled()
		}},
	{name: "kernel-traps", failure: "a kernel that traps", reaction: "guilty, with the descriptor's cause", plan: "", guilty: []string{"a"},
		run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 30, "workgroup=1ms trap at 9")))
			s.settled()
		}},
	{name: "endpoint-stuck", failure: "an endpoint that never stops", reaction: "the reset fails: the device is given up, the entity is guilty", plan: "run id=0 stuck", resets: 1, failed: true, guilty: []string{"a"},
		run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 300, "workgroup=1ms")))
			s.until("the failure", func() bool { return len(s.failed) > 0 })
		}},
	{name: "endpoint-stuck-frozen", failure: "an endpoint that never stops, under an MCU that stands still", reaction: "nothing was heard of the firmware, so nobody is accused: the reset fails, the device is given up, all are victims",
		plan: "run id=0 stuck; csg-ack/STATUS_UPDATE nth=8 freeze", resets: 1, failed: true, victims: []string{"a", "b", "c"},
		run: func(s *scene) {
			s.start()
			s.until("the failure", func() bool { return len(s.failed) > 0 })
		}},
	{name: "halt-unreached", failure: "HALT not reached", reaction: "slow restart", plan: "halt drop", run: sleepOnce(0, 1), warned: "firmware does not halt"},
	{name: "halt-panic", failure: "HALT_STATUS 0x4E, panic", reaction: "slow restart", plan: "halt status=0x4e", run: sleepOnce(0, 1), warned: "firmware halted badly"},
	{name: "halt-watchdog", failure: "HALT_STATUS 0x4F, watchdog", reaction: "slow restart", plan: "halt status=0x4f", run: sleepOnce(0, 1), warned: "firmware halted badly"},
	{name: "fast-restart-fails", failure: "fast restart fails once", reaction: "slow restart", plan: "boot/warm fatal", run: sleepOnce(0, 1), warned: "fast boot failed"},
	{name: "crash", failure: "MCU crash, its status says so, the interface stands still", reaction: "no acknowledgement in 100 ms, or no answer to PING: GPU reset; who had begun is a victim", plan: "csg-ack/STATUS_UPDATE nth=8 crash", resets: 1, victims: []string{"a", "b", "c"}},
	{name: "freeze", failure: "the MCU stands still and nothing says so", reaction: "the same", plan: "csg-ack/STATUS_UPDATE nth=8 freeze", resets: 1, victims: []string{"a", "b", "c"}},
	{name: "boot-fails-after-reset", failure: "boot fails after a reset", reaction: "the device is given up (unplugged), the process is replaced", plan: "csg-ack/STATUS_UPDATE nth=3 drop; boot/cold nth=2 fatal", resets: 1, failed: true,
		run: func(s *scene) { s.start(); s.until("the failure", func() bool { return len(s.failed) > 0 }) }},
	{name: "image-corrupt", failure: "suspend buffer damaged", reaction: "RESUME ends in CS_FATAL 0x40, nothing runs as garbage: started anew from the portable part", plan: "suspend id=0 corrupt", run: suspendOnce},
	{name: "image-other-build", failure: "suspend buffer of another firmware", reaction: "the same", plan: "suspend id=0 build=99", run: suspendOnce},
	{name: "image-wrong-size", failure: "suspend buffer of a wrong size", reaction: "the same", plan: "suspend id=0 size=32", run: suspendOnce},
	{name: "image-lost", failure: "suspend buffer never written", reaction: "the same", plan: "suspend id=0 lost", run: suspendOnce},
	{name: "image-lost-later", failure: "suspend buffer not written, an older image is still in it", reaction: "the older one is not taken: the same", plan: "suspend id=0 nth=2 lost", warned: "stream halted", run: func(s *scene) {
		s.start()
		for range 2 {
			s.run(30 * time.Millisecond)
			s.ok(s.a.Suspend(background))
			s.ok(s.a.Resume(background))
		}
		s.settled()
	}},
	{name: "flush-unanswered", failure: "cache flush after SUSPEND not done", reaction: "GPU reset; a suspended one has its buffer, the others are suspended in it", plan: "command/flush stuck", resets: 1, run: suspendOnce},
	{name: "flush-unanswered-in-reset", failure: "cache flush in a reset not done", reaction: "what was saved is given up: who had begun is a victim", plan: "csg-ack/STATUS_UPDATE nth=6 drop; command/flush stuck", resets: 1, victims: []string{"a"}, warned: "cache not flushed"},
	{name: "space-busy", failure: "an address space that stays busy", reaction: "GPU reset after 100 ms", plan: "command/mmu id=2 stuck", resets: 1},
	{name: "insert-torn", failure: "torn INSERT", reaction: "one store of 64 bits; what the firmware misreads it reads again", plan: "insert id=0 nth=2 torn", config: func(s *setup) { s.driver = func(c *driver.Config) { c.RuntimeIdle = -1 } }, run: func(s *scene) {
		s.a = s.create("a", nil)
		for id := core.JobID(1); id < 4; id++ {
			s.ok(s.a.Run(background, s.job(id, 20, "workgroup=1ms")))
			s.run(3 * time.Millisecond)
		}
		s.settled()
	}},
	{name: "start-of-stream-unanswered", failure: "CS START never acknowledged", reaction: "nobody waits for it, as in panthor: the job runs", plan: "cs-ack/START id=0 drop"},
	{name: "resets-in-a-row", failure: "more than three resets in a row without a job's end", reaction: "the device is given up", plan: "csg-ack/STATUS_UPDATE times=always drop", resets: 4, failed: true,
		run: func(s *scene) {
			s.a = s.create("a", nil)
			s.ok(s.a.Run(background, s.job(1, 14_000, "workgroup=1ms")))
			s.b = s.create("b", nil)
			s.ok(s.b.Run(background, s.job(2, 14_000, "workgroup=1ms")))
			s.until("the failure", func() bool { return len(s.failed) > 0 })
		}},
})

// contradictions are a row for each state that nobody can request.
func contradictions() []row {
	var list []row
	for state := 4; state <= 7; state++ {
		list = append(list, row{name: fmt.Sprintf("state-%d", state), failure: fmt.Sprintf("state %d acknowledged", state),
			reaction: "the group is UNKNOWN: GPU reset, its job is a victim", plan: fmt.Sprintf("csg-ack/SUSPEND id=0 state=%d", state),
			resets: 1, victims: []string{"a"}, warned: "group state contradicts",
			run: func(s *scene) {
				s.start()
				s.run(30 * time.Millisecond)
				_ = s.a.Suspend(background)
				s.settled()
			}})
	}
	return list
}

// bootRows are what a firmware may say of itself that the driver must refuse.
var bootRows = []row{
	{name: "boot-silent", failure: "boot: no interrupt", reaction: "the device does not come up: nothing in 1 s", plan: "boot/cold no-irq", refused: true},
	{name: "boot-fatal", failure: "boot: status fatal", reaction: "the device does not come up", plan: "boot/cold fatal", refused: true},
	{name: "boot-version", failure: "boot: version 0", reaction: "refused", plan: "boot/cold version=0", refused: true},
	{name: "boot-few-groups", failure: "boot: 2 groups", reaction: "refused", plan: "boot/cold groups=2", refused: true},
	{name: "boot-many-groups", failure: "boot: 32 groups", reaction: "refused", plan: "boot/cold groups=32", refused: true},
	{name: "boot-few-streams", failure: "boot: 7 streams", reaction: "refused", plan: "boot/cold streams=7", refused: true},
	{name: "boot-outside", failure: "boot: a block outside of the shared section", reaction: "refused", plan: "boot/cold address", refused: true},
	{name: "boot-unequal", failure: "boot: groups that differ", reaction: "refused", plan: "boot/cold unequal", refused: true},
	{name: "boot-no-power", failure: "boot: L2 power does not come", reaction: "the device does not come up: nothing in 20 ms", plan: "command/power stuck", refused: true},
}

// suspendOnce suspends a in the middle of its job and lets it go on.
func suspendOnce(s *scene) {
	s.start()
	s.run(30 * time.Millisecond)
	s.ok(s.a.Suspend(background))
	s.run(50 * time.Millisecond)
	s.ok(s.a.Resume(background))
	s.settled()
}

// sleepOnce lets the device be powered off once between two jobs, and checks how it came back.
func sleepOnce(fast, slow int) func(*scene) {
	return func(s *scene) {
		s.a = s.create("a", nil)
		s.ok(s.a.Run(background, s.job(1, 20, "workgroup=1ms")))
		s.until("the first job", func() bool { return s.a.ended[1] != "" })
		s.run(500 * time.Millisecond)
		s.ok(s.a.Run(background, s.job(2, 20, "workgroup=1ms")))
		s.settled()
		if off, f, sl := s.driver.Power(); off != 1 || f != fast || sl != slow {
			s.t.Errorf("powered off %d times, back fast %d and slowly %d times", off, f, sl)
		}
	}
}
