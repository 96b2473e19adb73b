package agx

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/board"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// settings are the options of one device in a deployment file:
//
//	slice          how long a suspend may take, and so all commands in the rings together; 1ms to 10s, default 50ms
//	hang-deadline  how long a workgroup may take; 10ms to 98s without slice, default 10s
//	cores          cores of the engine, 0 (default) means all
//	firmware       the firmware's version, 13.5 (default) or 12.3
//	faults         what goes wrong in the firmware (hw.Plan, fw.Vocabulary); nothing unless given
type settings struct {
	// engine is wasm (the default) or test.
	engine      string
	slice, hang time.Duration
	cores       int
	speaks      string
	// faults is nil without a plan.
	faults *hw.Faults
}

const (
	sliceDefault = 50 * time.Millisecond
	hangMin      = 10 * time.Millisecond
	hangMax      = 100 * time.Second
	coresMax     = 1 << 16
	// answerSlack is what a busy machine may add to any wait for the firmware.
	answerSlack = 10 * time.Second
	// haltGrace is how long a halt waits for workgroups to end before the firmware gives up and the
	// process is replaced: the one that hangs has had its deadline already.
	haltGrace = 2 * time.Second
	// leaveMargin covers the last polls and the way of the answer.
	leaveMargin = 5 * time.Second
)

// parseSettings checks engine and options; errors wrap core.ErrInvalid.
func parseSettings(spec core.DeviceSpec) (settings, error) {
	s := settings{slice: sliceDefault, hang: fw.LiveWatchdog, speaks: string(abi.Target.Firmware)}
	var words []string
	for _, v := range abi.Versions() {
		words = append(words, string(v.Firmware))
	}
	var err error
	s.engine, err = board.Parse(spec,
		board.Duration("slice", &s.slice, driver.SliceMin, driver.SliceMax),
		board.Duration("hang-deadline", &s.hang, hangMin, hangMax),
		board.Number("cores", &s.cores, 0, coresMax),
		board.Word("firmware", &s.speaks, words...),
		board.Faults("faults", &s.faults, fw.Vocabulary()))
	if err != nil {
		return s, err
	}
	return s, board.CheckLeave(s.hang, s.leaveBound())
}

// CheckOptions reports what is wrong with the options of a device, without opening it. Errors wrap core.ErrInvalid.
func CheckOptions(options map[string]string) error {
	_, err := parseSettings(core.DeviceSpec{Options: options})
	return err
}

// version is the interface that both sides speak.
func (s settings) version() abi.Version {
	return abi.Version{Generation: abi.G13, Firmware: abi.Firmware(s.speaks)}
}

// firmware gives the emulator's settings for a live engine: a workgroup on a CPU may honestly
// take a second, so the watchdog asks for the end of a workgroup and not of the command.
func (s settings) firmware() fw.Config {
	return fw.Config{Version: s.version(), Watchdog: s.hang, HaltGrace: haltGrace, Faults: s.faults, OpenPoints: fw.OpenPoints{WatchdogByProgress: true}}
}

// timeouts gives the driver's bounds for a live engine: a firmware emulated on
// cores that kernels use too is slower than silicon.
func (s settings) timeouts() driver.Timeouts {
	return driver.Timeouts{
		Boot: answerSlack, Control: answerSlack, Halt: haltGrace + answerSlack, Retire: answerSlack,
		Hang: s.hang + answerSlack, Start: answerSlack, Heartbeat: answerSlack,
	}
}

// leaveBound is the longest that a suspend or destroy may take: what is in the rings, the watchdog if it hangs, the
// halt, and what else is to be said. A hang that ends the process ends earlier.
func (s settings) leaveBound() time.Duration {
	return s.slice + s.hang + haltGrace + answerSlack + leaveMargin
}
