// Package mali is the backend for Arm Mali GPUs with a command stream frontend. It
// joins what must not know each other: the driver (host side), the firmware
// emulator, and the engine under it.
package mali

import (
	"context"
	"errors"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/board"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// Name is what a deployment file calls the backend.
const Name = "mali"

// Options are what the executable decides, not the deployment file.
type Options = board.Settings

type backend struct{ engines *board.Engines }

// New returns the backend. Nothing is opened before Open.
func New(options Options) sdk.Backend { return &backend{board.NewEngines(options)} }

// Describe implements sdk.Backend.
func (b *backend) Describe() core.BackendDescription {
	return core.BackendDescription{Name: Name, Version: b.engines.Version(), Engines: b.engines.Names(), Level: core.LevelPortable}
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
	arena, err := hw.NewArena(0)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	trace := hw.NewTrace(board.TraceLines)
	host, firmware, err := assemble(spec.Name, set, arena, eng, clock, trace, log, failed)
	if err != nil {
		return nil, errors.Join(err, eng.Close(), arena.Close())
	}
	dev := board.Assemble(board.Parts{Driver: host, Firmware: firmware, Engine: eng, Arena: arena, Trace: trace, Leave: set.leaveBound()})
	if err := host.Start(ctx); err != nil {
		return nil, errors.Join(err, dev.Close(ctx))
	}
	return dev, nil
}

// assemble makes firmware and driver in one process; nothing runs yet.
func assemble(name string, set settings, arena *hw.Arena, eng engine.Engine, clock hw.Clock, trace *hw.Trace, log hclog.Logger, failed func(error)) (*driver.Driver, *fw.Firmware, error) {
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		return nil, nil, err
	}
	ports := hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}
	firmware, err := fw.New(set.firmware(fw.Config{Arena: arena, Ports: ports, Engine: eng, Clock: clock, Trace: trace}))
	if err != nil {
		return nil, nil, err
	}
	config, err := set.driver(driver.Config{
		Arena: arena, Ports: ports, Clock: clock, Log: log, Failed: failed, Name: name, Engine: eng.Name(), Formats: eng.Formats(),
	})
	if err != nil {
		return nil, nil, err
	}
	host, err := driver.New(config)
	return host, firmware, err
}
