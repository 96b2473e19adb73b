package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// A device moves as a whole, as a virtual function does: its owner pauses it, saves the
// firmware's state, copies the memory, and restores both elsewhere. The guest, which is
// the driver with its queues, then fixes what the move left half done. Here owner and guest are one on
// the source; on the target the owner is a driver of its own, which ends when it has resumed the function.

// recoveriesMax bounds how often the fix-ups start over.
const recoveriesMax = 10

// Pause takes the device off its engines and returns the firmware's state. Nothing is
// sent any more; memory may be copied. Then Attach goes on elsewhere, or Unpause here.
// No other method may be under way.
func (d *Driver) Pause(ctx context.Context) ([]uint32, error) {
	var saved []uint32
	err := d.loop.Call(ctx, "pause device", func(done func(error)) {
		if d.phase == phaseHot {
			d.rouse()
		}
		d.whenUp(func(err error) {
			if err != nil {
				done(err)
				return
			}
			d.phase = phaseMoving
			d.moving = &moving{}
			d.control(abi.VFPause, func(err error) {
				if err != nil {
					done(err)
					return
				}
				d.saveFunction(func(dw []uint32, err error) {
					saved = dw
					done(err)
				})
			})
		})
	})
	return saved, err
}

// moving is what is remembered between a pause and its end.
type moving struct {
	// paused says that VF_STATE_NOTIFY came; it may come before the reply.
	paused bool
	then   func(error)
	marker uint16
	tries  int
}

// whenUp calls f when the device takes work, at once if it does.
func (d *Driver) whenUp(f func(error)) {
	if d.phase == phaseUp {
		f(nil)
		return
	}
	if d.phase == phaseCold || d.phase == phaseDown || d.phase == phaseMoving || d.phase == phaseSleeping {
		f(fmt.Errorf("device is not up: %w", core.ErrInvalid))
		return
	}
	d.upWaits = append(d.upWaits, f)
}

// control sends one command to the function; a pause is over when the
// notification came too.
func (d *Driver) control(c abi.VFCommand, done func(error)) {
	d.request(abi.VFControl{Function: abi.FunctionSelf, Command: c}, func(_ abi.Success, err error) {
		if err != nil || c != abi.VFPause || d.moving.paused {
			done(err)
			return
		}
		d.moving.then = done
		m := d.moving
		d.loop.After(d.config.Timeouts.Ack, func() {
			if m.then != nil {
				m.then = nil
				done(fmt.Errorf("pause not confirmed in %s", d.config.Timeouts.Ack))
			}
		})
	})
}

// notified takes VF_STATE_NOTIFY.
func (d *Driver) notified(m abi.VFStateNotify) {
	d.log.Debug("function state", "state", m.State)
	if m.State != abi.VFStatePauseDone || d.moving == nil {
		return
	}
	d.moving.paused = true
	if then := d.moving.then; then != nil {
		d.moving.then = nil
		then(nil)
	}
}

// saveFunction asks for the size, makes room and saves.
func (d *Driver) saveFunction(done func([]uint32, error)) {
	d.request(abi.SaveRestoreVF{Function: abi.FunctionSelf}, func(size abi.Success, err error) {
		if err == nil && size.Data0 == 0 {
			err = errors.New("save device: nothing to save")
		}
		if err != nil {
			done(nil, err)
			return
		}
		buffer, err := d.memory.Low(4*uint64(size.Data0), "room for the firmware's state")
		if err != nil {
			done(nil, err)
			return
		}
		d.request(abi.SaveRestoreVF{Function: abi.FunctionSelf, Address: buffer, Dwords: size.Data0}, func(used abi.Success, err error) {
			var dw []uint32
			if err == nil && used.Data0 > size.Data0 {
				err = fmt.Errorf("save device: %d dwords of %d", used.Data0, size.Data0)
			}
			if err == nil {
				var words hw.Words
				if words, err = d.config.Arena.Words(buffer, used.Data0); err == nil {
					for i := range words.Len() {
						dw = append(dw, words.Load(i))
					}
				}
			}
			done(dw, errors.Join(err, d.memory.FreeLow(buffer)))
		})
	})
}

// Unpause lets a paused device go on where it is: the move did not come about.
func (d *Driver) Unpause(ctx context.Context) error {
	return d.loop.Call(ctx, "resume device", func(done func(error)) {
		if d.phase != phaseMoving {
			done(fmt.Errorf("device is not paused: %w", core.ErrInvalid))
			return
		}
		d.control(abi.VFResume, func(err error) {
			if err == nil {
				d.moving = nil
				d.rearm()
				d.up()
			}
			done(err)
		})
	})
}

// rearm gives the firmware its whole time again for what it was asked before a pause, in
// which it answers nothing and nobody judges it.
func (d *Driver) rearm() {
	for _, q := range d.ordered() {
		if q.state.pending() && !q.leaked {
			q.disarm()
			q.asked = d.config.Clock.Now()
			q.arm()
		}
	}
}

// Restore is the owner's side on the target, on a driver that was just started there and has
// no entities: the firmware gets the state and interrupts the guest. The driver is of no use afterwards.
func (d *Driver) Restore(ctx context.Context, saved []uint32) error {
	return d.loop.Call(ctx, "restore device", func(done func(error)) {
		if d.phase != phaseUp || len(d.queues) > 0 {
			done(fmt.Errorf("device is in use: %w", core.ErrInvalid))
			return
		}
		buffer, err := d.memory.Low(4*uint64(len(saved)), "room for the firmware's state")
		if err != nil {
			done(err)
			return
		}
		words, err := d.config.Arena.Words(buffer, uint32(len(saved)))
		if err != nil {
			done(err)
			return
		}
		for i, v := range saved {
			words.Store(uint32(i), v)
		}
		d.phase = phaseMoving
		d.moving = &moving{}
		d.control(abi.VFPause, func(err error) {
			if err != nil {
				done(err)
				return
			}
			m := abi.SaveRestoreVF{Restore: true, Function: abi.FunctionSelf, Address: buffer, Dwords: words.Len()}
			d.request(m, func(_ abi.Success, err error) {
				if err != nil {
					done(err)
					return
				}
				d.control(abi.VFResume, done)
			})
		})
	})
}

// Attach goes on with a paused device on other hardware, whose memory is a copy of the
// old one's and whose firmware was restored. It returns when the device takes work, and nobody
// uses the old memory then. No other method but Progress may be under way.
func (d *Driver) Attach(ctx context.Context, arena *hw.Arena, ports hw.Ports) error {
	return d.loop.Call(ctx, "attach device", func(done func(error)) {
		if d.phase != phaseMoving {
			done(fmt.Errorf("device is not paused: %w", core.ErrInvalid))
			return
		}
		d.config.Arena, d.config.Ports = arena, ports
		for _, q := range d.queues {
			q.progress.Lock()
			q.progress.arena = arena
			q.progress.Unlock()
		}
		d.loop.Listen(ports.Interrupt)
		if err := d.memory.Move(arena); err != nil {
			d.fail(err)
			return
		}
		d.upWaits = append(d.upWaits, done)
		d.wait("migration interrupt", d.config.Timeouts.Load, func() (bool, error) {
			v := d.read(abi.RegInterruptSource)
			return abi.Present(v) && v&abi.InterruptMigrated != 0, nil
		}, d.recover)
	})
}

// recover is the guest's side: what came with the memory is read, what was asked and
// not answered is taken back, addresses are written anew, and then asked again.
func (d *Driver) recover() {
	d.write(abi.RegInterruptSource, 0)
	old := d.ct
	var err error
	if d.ct, err = mapTransport(d, d.block, false); err != nil {
		d.fail(err)
		return
	}
	d.ct.fence, d.ct.tracked, d.ct.outstanding, d.ct.space = old.fence, old.tracked, old.outstanding, old.space
	d.ct.open = true
	d.receive()
	if d.failed() || d.phase != phaseMoving {
		return
	}
	d.ct.halt()
	before := map[*queue]state{}
	for _, q := range d.ordered() {
		d.scanQueue(q)
		q.disarm()
		before[q] = q.state
		q.again = q.state.known()
		q.advance(revert)
		q.leaked = false
		q.rebase()
	}
	d.resfix(before)
}

// resfix tells the firmware of the fix-ups; when the device moved meanwhile they start over.
func (d *Driver) resfix(before map[*queue]state) {
	m := d.moving
	if m.tries++; m.tries > recoveriesMax {
		d.fail(fmt.Errorf("recovery from a move: started over %d times", recoveriesMax))
		return
	}
	m.marker = m.marker%abi.MarkerMax + 1
	again := func(f abi.Failure) {
		if f.Code != abi.ErrorVFMigrated {
			d.fail(fmt.Errorf("recovery from a move: %w", f))
			return
		}
		d.log.Warn("recovery starts over", "attempt", m.tries)
		d.resfix(before)
	}
	d.mail(&mailbox{left: []abi.Body{abi.ResfixStart{Marker: m.marker}}, refused: again, done: func(abi.Success) {
		d.reopen()
		d.mail(&mailbox{left: []abi.Body{abi.ResfixDone{Marker: m.marker}}, refused: again, done: func(abi.Success) {
			d.moving = nil
			d.redo(before)
		}})
	}})
}

// redo asks again for what was under way, before anything new: whether the
// firmware did it nobody knows, and doing it twice is harmless.
func (d *Driver) redo(before map[*queue]state) {
	d.phase = phaseUp
	for _, q := range d.ordered() {
		switch before[q] {
		case enabling:
			q.enable(sendEnable)
		case resuming:
			q.enable(sendResume)
		case suspending:
			q.disable(sendSuspend)
		case disabling:
			q.disable(sendDisable)
		case enabled:
			if q.again = false; q.published > 0 && q.advance(sendKick) {
				d.send(abi.SchedContext{ID: q.id}, creditNone, 0)
			}
			q.policies = true
		case resetPending, reset, banning, killedEnabling, killedDisabling, killed, destroying, deregistering:
		default:
			q.again = false
			q.policies = q.state.known() && q.state.alive()
		}
	}
	d.up()
}

// rebase writes everything that names GGTT addresses anew: the context image and
// the programs that are in the ring.
func (q *queue) rebase() {
	if !q.laid() {
		return
	}
	q.store(q.register(abi.RegRingStart), uint32(q.lrc))
	q.store(q.register(abi.RegPDP0Lo), uint32(q.table))
	q.store(q.register(abi.RegPDP0Hi), uint32(q.table>>32))
	tail := q.tail
	for _, j := range q.jobs {
		q.tail = j.start
		q.emit(j)
	}
	q.tail = tail
}
