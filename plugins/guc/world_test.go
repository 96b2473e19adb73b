package guc

import (
	"io"
	"slices"
	"testing"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/hashicorp/go-hclog"
)

// world is driver, firmware and scripted engine on one goroutine and one clock.
type world struct {
	*rig.World
	ports hw.Ports
	// scripted is what stands behind World.Engine.
	scripted *scripted
	firmware *fw.Firmware
	// firmwareConfig is what it was made of.
	firmwareConfig fw.Config
	driver         *driver.Driver
	faults         *hw.Faults
	law            *law
}

// setup is how a world is made.
type setup struct {
	// plan is what goes wrong, as text.
	plan     string
	faults   *hw.Faults
	firmware func(*fw.Config)
	driver   func(*driver.Config)
	// arena is the size of the memory; 256 MiB by default.
	arena uint64
	clock *hw.VirtualClock
	// log takes the driver's warnings as JSON lines; nil drops them.
	log io.Writer
}

func newWorld(t rig.T, tweak func(*driver.Config)) (*world, func()) {
	t.Helper()
	w, err := setup{driver: tweak}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	return w, w.End
}

// make assembles a world; an error is the driver's that did not start.
func (s setup) make(t rig.T) (*world, error) {
	t.Helper()
	if s.clock == nil {
		s.clock = hw.NewVirtualClock()
	}
	if s.arena == 0 {
		s.arena = 256 << 20
	}
	w := &world{World: rig.New(t, s.clock, s.arena), scripted: newScripted(s.clock), faults: s.faults}
	w.Engine.Engine = w.scripted
	var err error
	if s.plan != "" {
		plan, err := hw.ParsePlan(s.plan)
		if err != nil {
			t.Fatal(err)
		}
		if w.faults, err = fw.NewFaults(plan); err != nil {
			t.Fatal(err)
		}
	}
	registers, err := hw.NewRegisters(w.Arena, abi.RegWindows[:]...)
	if err != nil {
		t.Fatal(err)
	}
	w.ports = hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	firmware := fw.Config{Arena: w.Arena, Ports: w.ports, Engine: w.Engine, Clock: w.Clock, Trace: w.Trace, Faults: w.faults}
	if s.firmware != nil {
		s.firmware(&firmware)
	}
	w.firmwareConfig = firmware
	made, err := fw.New(firmware)
	if err != nil {
		t.Fatal(err)
	}
	w.install(made)
	config := driver.Config{
		Arena: w.Arena, Ports: w.ports, Clock: w.Clock, Pump: w.Pump, Name: "guc0", Engine: w.scripted.Name(),
		Formats: w.scripted.Formats(), EntitiesMax: 64, Failed: w.Fail,
	}
	if s.log != nil {
		config.Log = hclog.New(&hclog.LoggerOptions{Output: s.log, Level: hclog.Warn, JSONFormat: true})
	}
	if s.driver != nil {
		s.driver(&config)
	}
	if w.driver, err = driver.New(config); err != nil {
		t.Fatal(err)
	}
	w.World.Driver = w.driver
	w.law = newLaw(w)
	w.Observe = w.law.observe
	return w, w.driver.Start(background)
}

// install makes a firmware the one that is stepped.
func (w *world) install(f *fw.Firmware) { w.firmware, w.World.Firmware = f, f }

// testWorld is a world that ends with its test.
func testWorld(t *testing.T, tweak func(*driver.Config)) *world {
	t.Helper()
	w, end := newWorld(t, tweak)
	t.Cleanup(end)
	return w
}

// expected is what a buffer holds after the jobs ran so many workgroups each, in order.
func expected(jobs ...rig.Done) []byte {
	out := make([]byte, rig.BufferSize)
	for _, j := range jobs {
		for at := range j.Count {
			mixInto(out, j.Job, at)
		}
	}
	return out
}

// check saves the entity, which must be idle or suspended after, and compares its buffer.
func (w *world) check(l *rig.Life, jobs ...rig.Done) {
	w.T.Helper()
	w.OK(l.Suspend(background))
	_, got := w.Contents(l)
	if !slices.Equal(got, expected(jobs...)) {
		w.Broken("%s: the buffer differs from %v", l.Name, jobs)
	}
	w.OK(l.Resume(background))
}

// idle checks that all credits are back once nothing is under way.
func (w *world) idle() {
	w.T.Helper()
	w.Settle()
	if !w.driver.Idle() || len(w.Failed) > 0 {
		w.Broken("not idle")
	}
}
