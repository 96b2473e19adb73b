// Package mali is the backend for Arm Mali GPUs with a command stream frontend. It
// joins what must not know each other: the driver (host side), the firmware
// emulator, and the engine under it.
package mali

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/device"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/sdk"
)

// Name is what a deployment file calls the backend.
const Name = "mali"

// Options are what the executable decides, not the deployment file.
type Options = device.Options

// New returns the backend. Nothing is opened before Open.
func New(options Options) sdk.Backend {
	return device.New(device.Vendor{Name: Name, Settings: parseSettings}, options)
}

// settings are the options of one device in a deployment file:
//
//	quantum        the tick: how long a group keeps its slot while another waits; 10ms (default) to 100s
//	hang-deadline  how long a workgroup may take to a preemption point; 10ms to 100s, default 10s
//	cores          cores of the engine, 0 (default) means all
//	min-run        how long a group keeps its slot at least; at most a quantum, which is the default
//	runtime-idle   how long nothing may have happened before the GPU is powered off; 10ms to 24h, default 50ms
type settings struct {
	common                      device.Common
	quantum, hang, minRun, idle time.Duration
}

const (
	quantumMin  = 10 * time.Millisecond
	hangDefault = fw.LiveProgressMin
	idleMax     = 24 * time.Hour
	// answerSlack is what a busy machine may add to any wait for the firmware.
	answerSlack = 10 * time.Second
	// resetGrace is how long a reset waits for a workgroup to end before it
	// fails, and the process is replaced: the workgroup has had its hang deadline already.
	resetGrace = 2 * time.Second
	// leaveMargin covers flush, last polls and the way of the answer.
	leaveMargin = 5 * time.Second
)

func parseSettings(spec core.DeviceSpec) (device.Settings, error) {
	s := &settings{quantum: quantumMin, hang: hangDefault}
	err := s.common.Parse(spec, []device.Option{
		{Name: "quantum", Set: device.Duration(&s.quantum, quantumMin, device.DurationMax)},
		{Name: "hang-deadline", Set: device.Duration(&s.hang, device.HangMin, device.DurationMax)},
		{Name: "min-run", Set: device.Duration(&s.minRun, 0, device.DurationMax)},
		{Name: "runtime-idle", Set: device.Duration(&s.idle, device.HangMin, idleMax)},
	})
	if _, given := spec.Options["min-run"]; given && s.minRun == 0 {
		s.minRun = -1 // Not at all.
	}
	if err == nil && s.minRun > s.quantum {
		err = fmt.Errorf("option min-run: %s, the quantum is %s: %w", s.minRun, s.quantum, core.ErrInvalid)
	}
	return s, err
}

// Common implements device.Settings.
func (s *settings) Common() device.Common { return s.common }

// timeouts gives the driver's bounds for a live engine: a firmware emulated on
// cores that kernels use too is slower than silicon.
func (s *settings) timeouts() driver.Timeouts {
	return driver.Timeouts{
		Ack: s.hang + answerSlack, Boot: answerSlack, Halt: answerSlack, Reset: resetGrace + answerSlack,
		Flush: answerSlack, Space: answerSlack, Power: answerSlack, Hang: s.hang, Start: answerSlack,
	}
}

// LeaveBound implements device.Settings: the suspend, which may have to wait for the hang
// deadline, its escalation in a reset, and what else is to be said.
func (s *settings) LeaveBound() time.Duration {
	return s.timeouts().Ack + 2*resetGrace + answerSlack + leaveMargin
}

// Assemble implements device.Settings.
func (s *settings) Assemble(p device.Parts) (device.Driver, device.Firmware, error) {
	registers, err := hw.NewRegisters(p.Arena, abi.RegWindows[:]...)
	if err != nil {
		return nil, nil, err
	}
	ports := hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	firmware, err := fw.New(fw.Config{
		Arena: p.Arena, Ports: ports, Engine: p.Engine, Clock: p.Clock, Trace: p.Trace,
		ProgressMin: s.hang, Rotation: s.quantum, ResetGrace: resetGrace,
	})
	if err != nil {
		return nil, nil, err
	}
	image, err := fw.Image(fw.Identity{})
	if err != nil {
		return nil, nil, err
	}
	host, err := driver.New(driver.Config{
		Arena: p.Arena, Ports: ports, Clock: p.Clock, Firmware: image, Log: p.Log, Failed: p.Failed,
		Name: p.Name, Engine: p.Engine.Name(), Formats: p.Engine.Formats(),
		Tick: s.quantum, MinRun: s.minRun, RuntimeIdle: s.idle, Timeouts: s.timeouts(),
	})
	if err != nil {
		return nil, nil, err
	}
	return host, firmware, nil
}
