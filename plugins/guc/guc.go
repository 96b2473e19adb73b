// Package guc is the backend for GPUs whose work Intel's GuC firmware
// schedules. It joins what must not know each other: the driver (host side),
// the firmware emulator, and the engine under it. Per device it owns one
// memory file, one firmware goroutine, one driver goroutine and one engine.
//
// The emulated device is all there is so far: the firmware runs in the plugin's
// process. Driver and firmware share the memory file and two signal lines only,
// and a test runs them in two processes.
package guc

import (
	"context"
	"errors"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/board"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// Name is what a deployment file calls the backend.
const Name = "guc"

// Options are what the executable decides, not the deployment file.
type Options = board.Settings

type backend struct{ engines *board.Engines }

// New returns the backend. Nothing is opened before Open.
func New(options Options) sdk.Backend { return &backend{engines: board.NewEngines(options)} }

// Describe implements sdk.Backend.
func (b *backend) Describe() core.BackendDescription {
	return core.BackendDescription{
		Name: Name, Version: b.engines.Version(), Engines: b.engines.Names(), Level: core.LevelPortable,
	}
}

// Open implements sdk.Backend. spec.Options are described at settings.
func (b *backend) Open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (sdk.Device, error) {
	set, err := parseSettings(spec)
	if err != nil {
		return nil, err
	}
	clock := hw.NewRealClock()
	eng, err := b.engines.Open(set.engine, set.cores, clock, failed)
	if err != nil {
		return nil, err
	}
	dev, host, err := assemble(spec, set, eng, clock, log, failed)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	if err := host.Start(ctx); err != nil {
		return nil, errors.Join(err, dev.Close(ctx))
	}
	return dev, nil
}

// assemble makes memory, firmware and driver; the firmware runs when it returns.
func assemble(spec core.DeviceSpec, set settings, eng engine.Engine, clock hw.Clock, log hclog.Logger, failed func(error)) (*board.Device, *driver.Driver, error) {
	arena, err := hw.NewArena(0)
	if err != nil {
		return nil, nil, err
	}
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	ports := hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	trace := hw.NewTrace(board.TraceLines)
	firmware, err := fw.New(fw.Config{
		Arena: arena, Ports: ports, Engine: eng, Clock: clock, Trace: trace,
		Classes:    map[abi.EngineClass]int{abi.ClassCompute: set.instances},
		QuantumMin: set.quantum, PreemptionMin: set.hang, ResetGrace: resetGrace,
		Faults: set.faults,
	})
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	host, err := driver.New(driver.Config{
		Arena: arena, Ports: ports, Clock: clock, Log: log, Failed: failed,
		Name: spec.Name, Engine: eng.Name(), Formats: eng.Formats(), Instances: set.instances,
		Quantum: set.quantum, Preemption: set.hang, Timeouts: set.timeouts(),
		MinRun: set.minRun, RuntimeIdle: set.idle,
	})
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	return board.Assemble(board.Parts{
		Driver: host, Firmware: firmware, Engine: eng, Arena: arena, Trace: trace, Leave: set.leaveBound(),
	}), host, nil
}
