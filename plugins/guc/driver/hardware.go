package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// loadPoll is the period in which the registers of a reset, a load or a change of
// power are looked at.
const loadPoll = time.Millisecond

// write stores to a register and tells the device so.
func (d *Driver) write(offset, v uint32) {
	d.config.Ports.Registers.Store(offset, v)
	d.config.Ports.Doorbell.Raise()
}

func (d *Driver) read(offset uint32) uint32 { return d.config.Ports.Registers.Load(offset) }

// restart resets the whole GT, loads the firmware anew and then calls done.
func (d *Driver) restart(done func()) {
	d.write(abi.RegReset, abi.ResetFull)
	d.wait("GT reset", d.config.Timeouts.Load, func() (bool, error) {
		v := d.read(abi.RegReset)
		if abi.Present(v) && v&abi.ResetFailed != 0 {
			return false, fmt.Errorf("an engine did not stop")
		}
		return abi.Present(v) && v&abi.ResetFull == 0, nil
	}, func() {
		d.write(abi.RegLoad, abi.LoadFirmware)
		d.wait("firmware load", d.config.Timeouts.Load, func() (bool, error) {
			v, status := d.read(abi.RegLoad), d.read(abi.RegStatus)
			if !abi.Present(v) || !abi.Present(status) || v&abi.LoadStart != 0 {
				return false, nil
			}
			if code := abi.LoadStatus(status); code != abi.LoadReady {
				return false, fmt.Errorf("load status %#x", code)
			}
			return true, nil
		}, done)
	})
}

// wait looks at the device until it is ready; when that fails, or takes longer than bound,
// the device is given up. A later wait takes the place of an earlier one.
func (d *Driver) wait(what string, bound time.Duration, ready func() (bool, error), done func()) {
	d.waits++
	mine, until := d.waits, d.config.Clock.Now()+bound
	var look func()
	look = func() {
		if d.waits != mine || d.failed() {
			return
		}
		ok, err := ready()
		switch {
		case err != nil:
			d.fail(d.because(fmt.Errorf("%s: %w", what, err)))
		case ok:
			done()
		case d.config.Clock.Now() >= until:
			d.fail(d.because(fmt.Errorf("%s: not done in %s", what, bound)))
		default:
			d.loop.After(loadPoll, look)
		}
	}
	look()
}

// because adds what the last reset was for.
func (d *Driver) because(err error) error {
	if d.resets.reason == nil {
		return err
	}
	return fmt.Errorf("%w: after: %w", err, d.resets.reason)
}
