package agx

import (
	"context"
	"io"
	"testing"

	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/hashicorp/go-hclog"
)

var background = context.Background()

// world is driver, firmware and test engine on one goroutine and one clock.
type world struct {
	*rig.World
	driver   *driver.Driver
	firmware *fw.Firmware
	faults   *hw.Faults
	law      *law
}

// setup is how a world is made.
type setup struct {
	// plan is what goes wrong, as text; faults is the same, ready.
	plan     string
	faults   *hw.Faults
	firmware func(*fw.Config)
	driver   func(*driver.Config)
	// arena is the size of the memory; 1 GiB by default.
	arena uint64
	clock *hw.VirtualClock
	// before, unless nil, is called whenever the firmware is about to be stepped during the start.
	before func(*world)
	// log takes the driver's warnings as JSON lines; nil drops them.
	log io.Writer
}

// make assembles a world; an error is the driver's that did not start.
func (s setup) make(t rig.T) (*world, error) {
	t.Helper()
	if s.clock == nil {
		s.clock = hw.NewVirtualClock()
	}
	if s.arena == 0 {
		s.arena = 1 << 30
	}
	w := &world{World: rig.New(t, s.clock, s.arena), faults: s.faults}
	if s.plan != "" {
		plan, err := hw.ParsePlan(s.plan)
		if err != nil {
			t.Fatal(err)
		}
		if w.faults, err = fw.NewFaults(plan); err != nil {
			t.Fatal(err)
		}
	}
	ports, err := openPorts(w.Arena)
	if err != nil {
		t.Fatal(err)
	}
	firmware := fw.Config{Arena: w.Arena, Ports: ports, Engine: w.Engine, Clock: w.Clock, Trace: w.Trace, Faults: w.faults}
	if s.firmware != nil {
		s.firmware(&firmware)
	}
	if w.firmware, err = fw.New(firmware); err != nil {
		t.Fatal(err)
	}
	config := driver.Config{
		Arena: w.Arena, Ports: ports, Clock: w.Clock, Pump: w.Pump, Version: firmware.Version, Name: "agx0", Engine: testengine.Name,
		Formats: []string{testengine.Format}, Failed: w.Fail,
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
	for _, c := range w.faults.Counts() {
		w.Note += c.Rule.String() + "; "
	}
	w.World.Driver, w.World.Firmware = w.driver, w.firmware
	w.law = newLaw(w)
	w.Observe = func() {
		w.law.observe()
		if s.before != nil {
			s.before(w)
		}
	}
	err = w.driver.Start(background)
	w.Observe = w.law.observe
	return w, err
}

// testWorld is a world that ends with its test.
func testWorld(t *testing.T, s setup) *world {
	t.Helper()
	w, err := s.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	return w
}
