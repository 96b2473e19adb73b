package agx

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
)

// TestManyCommands fills a ring up to the vendor's limit of outstanding stamps again and
// again, around the ring's end and the stamp's: back-pressure, and one Flag for many commands.
func TestManyCommands(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.Credits = 2000 }})
	a := w.Create("a", nil)
	const jobs = 2*abi.QueueItems + 100
	next, most := core.JobID(0), 0
	for next < jobs || !a.Over() {
		w.Still = true // Nothing ends while they are handed over.
		for range 300 {
			if next < jobs && len(a.Given())-len(a.Ended) < 1500 {
				next++
				w.OK(a.Run(background, w.Job(next, 1, "workgroup=10us")))
			}
		}
		w.Still = false
		most = max(most, w.driver.Queues()[0].Outstanding)
		if !w.Pump() {
			w.Broken("nothing happens any more")
		}
	}
	if most != driver.DepthMax {
		t.Errorf("at most %d commands were in the ring, the limit is %d", most, driver.DepthMax)
	}
	if a.Through() == 0 {
		t.Error("every job was reported alone, although the firmware told of many at once")
	}
	c := w.firmware.Counters()
	if c.Flags*10 > c.Retired {
		t.Errorf("%d flags for %d commands", c.Flags, c.Retired)
	}
	w.OK(a.Destroy(background))
	w.law.quiet()
}

// TestOneKickHasSixtyFour: a message to the firmware announces no more commands than a submission may have.
func TestOneKickHasSixtyFour(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.Credits = 200 }})
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 1, "workgroup=10us")))
	w.Until("the first", a.Over)
	kicks := w.firmware.Counters().Kicks
	w.Still = true
	for id := core.JobID(2); id <= 150; id++ {
		w.OK(a.Entity.Suspend(background))
		w.OK(a.Run(background, w.Job(id, 1, "workgroup=10us")))
	}
	w.OK(a.Resume(background))
	w.Settle()
	if got := w.firmware.Counters().Kicks - kicks; got != 2 {
		t.Errorf("%d commands were announced by %d messages", driver.DepthMax, got)
	}
	w.Still = false
	w.Until("all", a.Over)
	w.law.quiet()
}

// TestPipeFull: a pipe that the firmware does not read is never overwritten. What found no room is told when there is some,
// and a pipe or a mailbox that stays full ends the device.
func TestPipeFull(t *testing.T) {
	kicks := uint64(0) // Those of the first jobs, in every case the same.
	for _, c := range []struct {
		plan   string
		mute   bool
		failed string
	}{{}, {plan: "pipe nth=%d freeze", failed: "pipe 2 is full for 1s"}, {mute: true, failed: "mailbox is full for 1s"}} {
		if c.plan != "" {
			c.plan = fmt.Sprintf(c.plan, kicks+1)
		}
		w := testWorld(t, setup{plan: c.plan, driver: func(c *driver.Config) { c.Credits = 200 }})
		w.Light = true
		var lives []*rig.Life
		next := core.JobID(0)
		run := func(l *rig.Life) {
			next++
			w.OK(l.Run(background, w.Job(next, 1, "workgroup=10us")))
		}
		for range 3 {
			l := w.Create("e", nil)
			lives = append(lives, l)
			w.Still = true
			for range driver.DepthMax {
				run(l)
			}
			w.Still = false
			w.Until("the first jobs", l.Over) // It is known what one takes, and there is room for many.
		}
		kicks = w.firmware.Counters().Kicks
		w.Mute, w.Still = c.plan == "", true
		for range 120 {
			for _, l := range lives {
				run(l)
			}
		}
		w.Mute, w.Still = c.mute, false
		if c.failed != "" {
			w.Run(1500 * time.Millisecond)
			if len(w.Failed) != 1 || !strings.Contains(w.Failed[0].Error(), c.failed) {
				t.Errorf("failed %v, want %q", w.Failed, c.failed)
			}
			continue
		}
		w.Until("all jobs", func() bool { return lives[0].Over() && lives[1].Over() && lives[2].Over() })
		if got := w.firmware.Counters().Kicks - kicks; got < abi.RingEntries-1 || got > abi.RingEntries+10 {
			t.Errorf("%d messages for 360 commands in a pipe of %d", got, abi.RingEntries)
		}
		done := make([]uint64, driver.DepthMax+120)
		for i := range done {
			done[i] = 1
		}
		for _, l := range lives {
			w.Check(l, done...)
			w.OK(l.Destroy(background))
		}
		w.law.quiet()
	}
}

// TestShallow: whatever the depth, the rings hold no more time than the slice target.
func TestShallow(t *testing.T) {
	w := testWorld(t, setup{})
	var lives []*rig.Life
	for i := range 10 {
		l := w.Create("e", nil)
		lives = append(lives, l)
		w.OK(l.Run(background, w.Job(core.JobID(i+1), 300, "workgroup=1ms")))
	}
	for {
		if load := w.driver.State().Load; load > 50*time.Millisecond {
			t.Fatalf("%s of work in the rings", load)
		}
		over := true
		for _, l := range lives {
			over = over && l.Over()
		}
		if over || !w.Pump() {
			break
		}
	}
	for _, l := range lives {
		w.Check(l, 300)
	}
}

// TestThousandEntities: far more entities than event slots and VM slots come on.
func TestThousandEntities(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	for _, slots := range []struct{ event, vm uint32 }{{10, 3}, {3, 4}, {64, 63}, {62, 63}} {
		t.Run(fmt.Sprintf("%d and %d", slots.event, slots.vm), func(t *testing.T) {
			w := testWorld(t, setup{arena: 16 << 30, driver: func(c *driver.Config) {
				c.EventSlots, c.VMSlots, c.Slice = slots.event, slots.vm, 200*time.Millisecond
			}})
			w.Light = true
			var lives []*rig.Life
			for i := range 1000 {
				l := w.Create("e", nil)
				lives = append(lives, l)
				w.OK(l.Run(background, w.Job(core.JobID(i+1), 5, "workgroup=100us")))
			}
			w.Until("all of them", func() bool {
				for _, l := range lives {
					if !l.Over() {
						return false
					}
				}
				return true
			})
			for _, l := range lives {
				if u := l.Usage[l.Given()[0]]; u.Done != 5 {
					t.Fatalf("%s: %+v", l.Name, u)
				}
			}
			w.Check(lives[999], 5)
			if c := w.firmware.Counters(); c.Misuses > 0 || c.Violations > 0 {
				t.Errorf("%+v", c)
			}
			for _, l := range lives {
				w.OK(l.Destroy(background))
			}
			w.law.quiet()
		})
	}
}

// TestSlotsAreSticky: who comes back gets the slots it had, so that nothing is bound anew.
func TestSlotsAreSticky(t *testing.T) {
	w := testWorld(t, setup{})
	a, b := w.Create("a", nil), w.Create("b", nil)
	w.OK(a.Run(background, w.Job(1, 5, "workgroup=1ms")))
	w.Until("a", a.Over)
	w.OK(b.Run(background, w.Job(2, 5, "workgroup=1ms")))
	w.Until("b", b.Over)
	before := w.driver.Queues()
	w.OK(b.Run(background, w.Job(3, 5, "workgroup=1ms")))
	w.Until("b again", b.Over)
	w.OK(a.Run(background, w.Job(4, 5, "workgroup=1ms")))
	w.Until("a again", a.Over)
	after := w.driver.Queues()
	for i := range after {
		if after[i].Slot != before[i].Slot || after[i].VM != before[i].VM {
			t.Errorf("queue %d moved from %+v to %+v", after[i].ID, before[i], after[i])
		}
	}
	if after[0].Slot == after[1].Slot || after[0].VM == after[1].VM {
		t.Error("both had the same slot although there were free ones")
	}
}

// TestStampsWrap: the default first stamp lies just before the wrap, and a slot's next owner counts on.
func TestStampsWrap(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.EventSlots, c.VMSlots = 1, 1; c.FirstStamp = 0xFFFF_FD00 }})
	a, b := w.Create("a", nil), w.Create("b", nil)
	for id := core.JobID(1); id <= 10; id++ {
		w.OK(a.Run(background, w.Job(id, 1, "workgroup=1ms")))
		w.OK(b.Run(background, w.Job(id+100, 1, "workgroup=1ms")))
	}
	w.Until("both", func() bool { return a.Over() && b.Over() })
	if at := w.driver.Queues()[0].Submitted; at > 0x1000_0000 {
		t.Errorf("the stamp is at %#x and did not wrap", at)
	}
	w.Check(a, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)
	w.law.quiet()
}

// TestGarbage: freed private memory comes back with a flush, which is forced by what has gathered.
func TestGarbage(t *testing.T) {
	for _, c := range []struct {
		name           string
		objects, bytes uint64
	}{{"objects", 20, 1 << 30}, {"bytes", 1 << 30, 20 << 10}} {
		t.Run(c.name, func(t *testing.T) {
			w := testWorld(t, setup{driver: func(d *driver.Config) { d.GarbageObjects, d.GarbageBytes = c.objects, c.bytes }})
			a := w.Create("a", nil)
			low := uint64(0)
			for id := core.JobID(1); id <= 200; id++ {
				w.OK(a.Run(background, w.Job(id, 1, "workgroup=1ms")))
				w.Until("the job", a.Over)
				if id == 50 {
					low = w.driver.State().Low
				}
			}
			s := w.driver.State()
			if s.Flushes < 10 || s.Garbage > 30 || s.Low+64<<10 < low {
				t.Errorf("%+v, %d bytes were free before", s, low)
			}
		})
	}
}

// TestCheckerCatches proves that the firmware's checker sees what the garbage list
// is for: with one that is never waited for, memory is used again under the cache.
func TestCheckerCatches(t *testing.T) {
	w := testWorld(t, setup{plan: "device-control/DestroyContext times=always drop", driver: func(d *driver.Config) { d.GarbageObjects = 4 }})
	w.Light = true // The law would end the test.
	a := w.Create("a", nil)
	for id := core.JobID(1); id <= 100; id++ {
		w.OK(a.Run(background, w.Job(id, 1, "workgroup=1ms")))
		w.Until("the job", func() bool { return a.Over() || w.firmware.Counters().Violations > 0 || len(w.Failed) > 0 })
		if w.firmware.Counters().Violations > 0 {
			return
		}
	}
	t.Error("memory was used again without a flush, and nobody noticed")
}

// TestConfigs refuses what cannot work.
func TestConfigs(t *testing.T) {
	for name, change := range map[string]func(*driver.Config){
		"slice":   func(c *driver.Config) { c.Slice = time.Microsecond },
		"long":    func(c *driver.Config) { c.Slice = time.Minute },
		"depth":   func(c *driver.Config) { c.Depth = 127 },
		"slots":   func(c *driver.Config) { c.EventSlots = 129 },
		"vms":     func(c *driver.Config) { c.VMSlots = 64 },
		"stamp":   func(c *driver.Config) { c.FirstStamp = 1 },
		"version": func(c *driver.Config) { c.Version.Firmware = "14.8" },
		"clock":   func(c *driver.Config) { c.Clock = nil },
		"credits": func(c *driver.Config) { c.Credits = 1 << 20 },
	} {
		w := testWorld(t, setup{})
		config := driver.Config{Arena: w.Arena, Clock: w.Clock}
		var err error
		if config.Ports, err = openPorts(w.Arena); err != nil {
			t.Fatal(err)
		}
		change(&config)
		if _, err := driver.New(config); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSettings reads the options of a device.
func TestSettings(t *testing.T) {
	s, err := parseSettings(core.DeviceSpec{Options: map[string]string{"slice": "20ms", "hang-deadline": "1s", "cores": "2", "firmware": "12.3"}})
	if err != nil || s.slice != 20*time.Millisecond || s.hang != time.Second || s.cores != 2 || s.version().Firmware != abi.V12_3 {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := parseSettings(core.DeviceSpec{}); err != nil || s.slice != 50*time.Millisecond || s.hang != fw.LiveWatchdog || s.version() != abi.Target {
		t.Errorf("%+v, %v", s, err)
	}
	for name, value := range map[string]string{"slice": "20", "firmware": "14", "cores": "-1", "quantum": "1s", "hang-deadline": "200s"} {
		if _, err := parseSettings(core.DeviceSpec{Options: map[string]string{name: value}}); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s %s: %v", name, value, err)
		}
	}
}

// TestSettingsRanges: what is out of range is refused with a sentence that says what the range is.
func TestSettingsRanges(t *testing.T) {
	for options, says := range map[[2]string]string{
		{"slice", "11s"}: "want ", {"hang-deadline", "101s"}: "want 10ms to 1m40s", {"hang-deadline", "97951ms"}: "want at most 1m37.95s with these options",
		{"firmware", "14"}: "want ", {"faults", "command trap"}: "no action", {"quantum", "1s"}: "unknown; there are",
	} {
		err := CheckOptions(map[string]string{options[0]: options[1]})
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), options[0]) {
			t.Errorf("%s: %v", options, err)
		}
	}
	s, err := parseSettings(core.DeviceSpec{Options: map[string]string{"hang-deadline": "88s", "slice": "10s", "faults": "command nth=9 fault"}})
	if err != nil || s.leaveBound() != sdk.LeaveBoundMax || s.firmware().Faults == nil {
		t.Errorf("%s, %v", s.leaveBound(), err)
	}
}

// TestFlagComesWithItsStamp: a job that waits behind a command does not hold back its event, because the
// threshold is raised with the kick. The stamps are looked at much later only.
func TestFlagComesWithItsStamp(t *testing.T) {
	w := testWorld(t, setup{driver: func(c *driver.Config) { c.Slice, c.Timeouts.Poll = 10*time.Second, 10*time.Second }})
	a := w.Create("a", nil)
	w.Still = true
	w.OK(a.Run(background, w.Job(1, 1, "workgroup=10ms"))) // It is alone in the ring until it is known what it takes.
	w.Settle()
	for id := core.JobID(2); id <= 4; id++ {
		w.OK(a.Run(background, w.Job(id, 1, "workgroup=10ms")))
	}
	w.Still = false
	if c := w.firmware.Counters(); c.Kicks != 1 || c.Retired != 0 {
		t.Fatalf("not alone: %+v", c)
	}
	w.Until("all", a.Over)
	var stamps, flags []time.Duration
	for _, line := range w.Trace.Since(0, 1<<14) {
		switch {
		case line.Kind == "STAMP" && strings.Contains(line.Text, "shared="):
			stamps = append(stamps, line.At)
		case line.Kind == "EVENT":
			flags = append(flags, line.At)
		}
	}
	if len(flags) == 0 || stamps[0] != flags[0] {
		t.Errorf("stamps at %s, flags at %s", stamps, flags)
	}
}
