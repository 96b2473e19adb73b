// Package agx is the backend for GPUs whose work Apple's AGX firmware
// schedules. It joins what must not know each other: the driver (host side),
// the firmware emulator, and the engine under it. Per device it owns one
// memory file, one firmware goroutine, one driver goroutine and one engine.
//
// The emulated device is all there is so far: the firmware runs in the plugin's
// process. Driver and firmware share the memory file and two signal lines only,
// and a test runs them in two processes.
package agx

import (
	"context"
	"errors"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/board"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

// Name is what a deployment file calls the backend.
const Name = "agx"

// Options are what the executable decides, not the deployment file.
type Options = board.Settings

type backend struct{ engines *board.Engines }

// New returns the backend. Nothing is opened before Open.
func New(options Options) sdk.Backend { return &backend{engines: board.NewEngines(options)} }

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
	dev, host, err := assemble(spec, set, eng, clock, log, failed)
	if err != nil {
		return nil, errors.Join(err, eng.Close())
	}
	if err := host.Start(ctx); err != nil {
		return nil, errors.Join(err, dev.Close(ctx))
	}
	return dev, nil
}

// openPorts makes the device's registers and lines within one process.
func openPorts(arena *hw.Arena) (hw.Ports, error) {
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		return hw.Ports{}, err
	}
	return hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}, nil
}

// assemble makes memory, firmware and driver; the firmware runs when it returns.
func assemble(spec core.DeviceSpec, set settings, eng engine.Engine, clock hw.Clock, log hclog.Logger, failed func(error)) (*board.Device, *driver.Driver, error) {
	arena, err := hw.NewArena(0)
	if err != nil {
		return nil, nil, err
	}
	ports, err := openPorts(arena)
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	trace := hw.NewTrace(board.TraceLines)
	config := set.firmware()
	config.Arena, config.Ports, config.Engine, config.Clock, config.Trace = arena, ports, eng, clock, trace
	firmware, err := fw.New(config)
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	host, err := driver.New(driver.Config{
		Arena: arena, Ports: ports, Clock: clock, Log: log, Failed: failed, Version: set.version(),
		Name: spec.Name, Engine: eng.Name(), Formats: eng.Formats(), Slice: set.slice, Timeouts: set.timeouts(),
	})
	if err != nil {
		return nil, nil, errors.Join(err, arena.Close())
	}
	return board.Assemble(board.Parts{
		Driver: host, Firmware: firmware, Engine: eng, Arena: arena, Trace: trace, Leave: set.leaveBound(),
	}), host, nil
}
