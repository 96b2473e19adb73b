package guc

import (
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/board"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// settings are the options of one device in a deployment file:
//
//	quantum        how long an entity runs while another waits; 10ms (default) to 100s
//	hang-deadline  how long a workgroup may take to a preemption point; 10ms to 98s without min-run, default 10s
//	cores          cores of the engine, 0 (default) means all
//	instances      compute engine instances, which execute entities side by side; 1 (default) to 9
//	min-run        how long an entity runs before a suspend takes it off; 0s to 10s, default 5ms
//	runtime-idle   how long nothing may have happened before the device sleeps (D3hot); 10ms to 24h, default 1s
//	faults         what goes wrong in the firmware (hw.Plan, fw.Vocabulary); nothing unless given
type settings struct {
	// engine is wasm (the default) or test.
	engine        string
	quantum, hang time.Duration
	cores         int
	instances     int
	// minRun and idle are as in driver.Config: 0 means the default.
	minRun, idle time.Duration
	// faults is nil without a plan.
	faults *hw.Faults
}

const (
	settingMax = 100 * time.Second
	hangMin    = 10 * time.Millisecond
	coresMax   = 1 << 16
	minRunMax  = 10 * time.Second
	idleMost   = 24 * time.Hour
	// answerSlack is what a busy machine may add to any wait for the firmware.
	answerSlack = 10 * time.Second
	// resetGrace is how long a reset of the GT waits for a workgroup to end before it
	// fails, and the process is replaced: the workgroup has had its hang deadline already.
	resetGrace = 2 * time.Second
	// leaveMargin covers the deregistration, the last polls and the way of the answer.
	leaveMargin = 5 * time.Second
)

// timeouts gives the driver's bounds for a live engine: a firmware emulated on
// cores that kernels use too is slower than silicon.
func (s settings) timeouts() driver.Timeouts {
	return driver.Timeouts{
		Mailbox: answerSlack, MailboxBusy: answerSlack, Reply: answerSlack, Stall: answerSlack,
		Ack: s.hang + answerSlack, Load: resetGrace + answerSlack, Hang: s.hang, Start: answerSlack, Heartbeat: answerSlack,
	}
}

// leaveBound is the longest that a suspend or destroy may take: the disable,
// which may have to wait for the minimum run and the hang deadline, the GT reset when even that does not help, and what else is to be said.
func (s settings) leaveBound() time.Duration {
	return max(s.minRun, 0) + s.timeouts().Ack + resetGrace + leaveMargin
}

// parseSettings checks engine and options; errors wrap core.ErrInvalid.
func parseSettings(spec core.DeviceSpec) (settings, error) {
	s := settings{quantum: fw.LiveQuantumMin, hang: fw.LivePreemptionMin, instances: 1, minRun: unset}
	var err error
	s.engine, err = board.Parse(spec,
		board.Duration("quantum", &s.quantum, fw.LiveQuantumMin, settingMax),
		board.Duration("hang-deadline", &s.hang, hangMin, settingMax),
		board.Number("cores", &s.cores, 0, coresMax),
		board.Number("instances", &s.instances, 1, driver.InstancesMax),
		board.Duration("min-run", &s.minRun, 0, minRunMax),
		board.Duration("runtime-idle", &s.idle, hangMin, idleMost),
		board.Faults("faults", &s.faults, fw.Vocabulary()))
	if err != nil {
		return s, err
	}
	switch s.minRun {
	case unset:
		s.minRun = 0 // The driver's default.
	case 0:
		s.minRun = -1 // Not at all.
	}
	return s, board.CheckLeave(s.hang, s.leaveBound())
}

// CheckOptions reports what is wrong with the options of a device, without opening it. Errors wrap core.ErrInvalid.
func CheckOptions(options map[string]string) error {
	_, err := parseSettings(core.DeviceSpec{Options: options})
	return err
}

// unset is no duration that an option may have.
const unset = time.Duration(-1 << 63)
