package mali

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/board"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// settings are the options of one device in a deployment file:
//
//	quantum        the tick: how long an entity keeps its slot while another waits; 10ms (default) to 100s
//	hang-deadline  how long a workgroup may take to a preemption point; 10ms to 76s, default 10s
//	cores          cores of the engine, 0 (default) means all
//	min-run        how long an entity keeps its slot at least; a quantum by default, and more is cut to that
//	runtime-idle   how long nothing may have happened before the GPU is powered off; 10ms to 24h, default 50ms
//	faults         what goes wrong in the firmware (hw.Plan, fw.Vocabulary); nothing unless given
type settings struct {
	// engine is wasm (the default) or test.
	engine                      string
	cores                       int
	quantum, hang, minRun, idle time.Duration
	// faults is nil without a plan.
	faults *hw.Faults
}

const (
	quantumMin  = 10 * time.Millisecond
	settingMax  = 100 * time.Second
	hangMin     = 10 * time.Millisecond
	hangDefault = fw.LiveProgressMin
	idleMost    = 24 * time.Hour
	coresMax    = 1 << 16
	// answerSlack is what a busy machine may add to any wait for the firmware.
	answerSlack = 10 * time.Second
	// resetGrace is how long a reset waits for a workgroup to end before it
	// fails, and the process is replaced: the workgroup has had its hang deadline already.
	resetGrace = 2 * time.Second
	// resetSlack is what a busy machine may add to that, and to the end of a group whose workgroup has had
	// its hang deadline: when it is too short, a process is replaced and victims go on from their images.
	resetSlack = 2 * time.Second
	// leaveMargin covers the flush, the last polls and the way of the answer.
	leaveMargin = 5 * time.Second
)

// parseSettings checks engine and options; errors wrap core.ErrInvalid.
func parseSettings(spec core.DeviceSpec) (settings, error) {
	s := settings{quantum: quantumMin, hang: hangDefault}
	var err error
	s.engine, err = board.Parse(spec,
		board.Duration("quantum", &s.quantum, quantumMin, settingMax),
		board.Duration("hang-deadline", &s.hang, hangMin, settingMax),
		board.Number("cores", &s.cores, 0, coresMax),
		board.Duration("min-run", &s.minRun, 0, settingMax),
		board.Duration("runtime-idle", &s.idle, hangMin, idleMost),
		board.Faults("faults", &s.faults, fw.Vocabulary()))
	if err != nil {
		return s, err
	}
	if _, given := spec.Options["min-run"]; given && s.minRun == 0 {
		s.minRun = -1 // Not at all.
	}
	return s, board.CheckLeave(s.hang, s.leaveBound())
}

// CheckOptions reports what is wrong with the options of a device, without opening it. Errors wrap core.ErrInvalid.
func CheckOptions(options map[string]string) error {
	_, err := parseSettings(core.DeviceSpec{Options: options})
	return err
}

// timeouts gives the driver's bounds for a live engine: a firmware emulated on
// cores that kernels use too is slower than silicon.
func (s settings) timeouts() driver.Timeouts {
	return driver.Timeouts{
		Ack: s.hang + answerSlack, Boot: answerSlack, Halt: answerSlack, Reset: resetGrace + resetSlack, Kill: resetSlack,
		Flush: answerSlack, Space: answerSlack, Power: answerSlack, Hang: s.hang, Start: answerSlack, Leave: answerSlack,
	}
}

// leaveBound is the longest that a suspend or destroy may take: its acknowledgement, which may have
// to wait for the hang deadline, then a reset with its escalation, and what else is to be said.
func (s settings) leaveBound() time.Duration {
	return s.timeouts().Ack + 2*s.timeouts().Leave + s.timeouts().Reset + leaveMargin
}

// firmware and driver fill in what the options decide.
func (s settings) firmware(c fw.Config) fw.Config {
	c.ProgressMin, c.Rotation, c.ResetGrace, c.Faults = s.hang, s.quantum, resetGrace, s.faults
	return c
}

func (s settings) driver(c driver.Config) (driver.Config, error) {
	c.Tick, c.MinRun, c.RuntimeIdle, c.Timeouts = s.quantum, s.minRun, s.idle, s.timeouts()
	var err error
	c.Firmware, err = fw.Image(fw.Identity{})
	return c, err
}
