package device

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

var (
	_ sdk.LeaveBounder = (*device)(nil)
	_ sdk.Tracer       = (*device)(nil)
)

// device is one device with everything below it.
type device struct {
	Driver
	engine engine.Engine
	arena  *hw.Arena
	trace  *hw.Trace
	// leave bounds a suspend or destroy.
	leave time.Duration
	// stop ends the firmware; ended carries what its Run returned.
	stop  context.CancelFunc
	ended chan error
	once  sync.Once
	err   error
}

// assemble makes memory, firmware and driver; the firmware runs when it returns.
func assemble(set Settings, parts Parts) (*device, error) {
	arena, err := hw.NewArena(0)
	if err != nil {
		return nil, err
	}
	parts.Arena, parts.Trace = arena, hw.NewTrace(TraceLines)
	host, firmware, err := set.Assemble(parts)
	if err != nil {
		return nil, errors.Join(err, arena.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	dev := &device{Driver: host, engine: parts.Engine, arena: arena, trace: parts.Trace, leave: set.LeaveBound(), stop: stop, ended: make(chan error, 1)}
	go func() { dev.ended <- firmware.Run(ctx) }()
	return dev, nil
}

// LeaveBound implements sdk.LeaveBounder.
func (d *device) LeaveBound() time.Duration { return d.leave }

// Trace implements sdk.Tracer: the messages between driver and firmware, and what
// the firmware says of itself, each with the device's time.
func (d *device) Trace(after uint64) ([]core.TraceLine, <-chan struct{}) {
	held := d.trace.Since(after, TraceLines)
	lines := make([]core.TraceLine, len(held))
	for i, l := range held {
		lines[i] = core.TraceLine{Number: l.Seq, Kind: l.Kind, Text: fmt.Sprintf("%.6f %s", l.At.Seconds(), l.Text)}
		after = l.Seq
	}
	return lines, d.trace.Changed(after)
}

// LoadKernel implements sdk.Device: it refuses what the engine could not load.
func (d *device) LoadKernel(ctx context.Context, k core.Kernel) error {
	if k.Format == core.FormatWasm {
		if _, err := wasm.Inspect(k.Code); err != nil {
			return fmt.Errorf("load kernel %s: %w", k.Digest, err)
		}
	}
	return d.Driver.LoadKernel(ctx, k)
}

// Close implements sdk.Device: driver first, so that nobody touches the memory,
// then firmware and engine. When a kernel does not end, the memory stays mapped
// until the process ends. A repeat returns what the first call did.
func (d *device) Close(ctx context.Context) error {
	d.once.Do(func() { d.err = d.close(ctx) })
	return d.err
}

func (d *device) close(ctx context.Context) error {
	err := d.Driver.Close(ctx)
	d.stop()
	select {
	case ended := <-d.ended:
		if ended != nil {
			return errors.Join(err, ended)
		}
	case <-ctx.Done():
		return errors.Join(err, fmt.Errorf("close device: firmware: %w", core.ErrDeadline))
	}
	if err != nil {
		return errors.Join(err, d.engine.Close())
	}
	return errors.Join(d.engine.Close(), d.arena.Close())
}
