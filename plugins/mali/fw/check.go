package fw

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// inspect looks after each Step for words that are the firmware's and that the host wrote:
// acknowledgements, and the output page of a ring. Status registers are not looked at: only the host reads them.
func (f *Firmware) inspect() {
	if f.mcu.status != abi.MCUEnabled || f.mcu.frozen {
		return
	}
	own := func(what string, at uint64, want uint32) {
		if have := f.load(at); have != want {
			f.violation("%s is %#x, the firmware wrote %#x", what, have, want)
			f.store(at, want)
		}
	}
	own("GLB_ACK", f.glb.out+abi.GlobalAck, f.glb.ack)
	own("GLB_DB_ACK", f.glb.out+abi.GlobalDoorbellAck, f.glb.dbAck)
	for _, g := range f.groups {
		own("CSG_ACK", g.out+abi.GroupAck, g.ack)
		own("CSG_DB_ACK", g.out+abi.GroupDoorbellAck, g.dbAck)
		own("CSG_IRQ_REQ", g.out+abi.GroupIRQReq, g.irqReq)
		if !g.active() {
			continue
		}
		for _, s := range g.streams {
			own("CS_ACK", s.out+abi.StreamAck, s.ack)
			if s.userOut != 0 {
				own("ACTIVE", s.userOut+abi.RingActive, 1)
				own("EXTRACT", s.userOut+abi.RingExtract, uint32(s.shown))
				own("EXTRACT (high)", s.userOut+abi.RingExtract+4, uint32(s.shown>>32))
			}
		}
	}
}

// Check verifies what must hold between two Steps, for tests and simulations.
// The error names the first thing that does not hold. What the host did wrong is in
// Violations.
func (f *Firmware) Check() error {
	if len(f.runs) > f.cfg.Executions {
		return fmt.Errorf("%d executions", len(f.runs))
	}
	for _, r := range f.runs {
		if r.d == nil {
			continue
		}
		if r.d.run != r || r.d.s == nil || !slices.Contains(r.d.s.dispatches, r.d) || !r.d.s.g.active() {
			return fmt.Errorf("an execution belongs to no dispatch of an active group")
		}
	}
	if f.mcu.status != abi.MCUEnabled {
		if len(f.groups) > 0 && !f.mcu.frozen {
			return fmt.Errorf("%d groups without firmware", len(f.groups))
		}
		return nil
	}
	for _, g := range f.groups {
		if g.leaving != nil && !g.active() {
			return fmt.Errorf("group %d leaves in %s", g.slot, g.state)
		}
		for _, s := range g.streams {
			if err := s.check(); err != nil {
				return fmt.Errorf("group %d (%s) stream %d: %w", g.slot, g.state, s.index, err)
			}
		}
	}
	return nil
}

// check verifies one stream by itself.
func (s *stream) check() error {
	switch {
	case s.started && !s.g.active():
		return fmt.Errorf("has a context")
	case s.started && s.armed:
		return fmt.Errorf("is started and to be started")
	case !s.started && len(s.ops)+len(s.dispatches) > 0:
		return fmt.Errorf("works without a context")
	case len(s.frames) > framesMax || len(s.dispatches) > dispatchesMax:
		return fmt.Errorf("%d frames, %d dispatches", len(s.frames), len(s.dispatches))
	case s.userIn != 0 && (s.extract > s.insert || s.insert-s.extract > uint64(s.size)):
		return fmt.Errorf("EXTRACT %#x, INSERT %#x, ring of %#x", s.extract, s.insert, s.size)
	}
	for _, d := range s.dispatches {
		if d.s != s || d.next > d.work.Count {
			return fmt.Errorf("dispatch at %d of %d", d.next, d.work.Count)
		}
	}
	return nil
}

// Halted reports whether the MCU is halted, Enabled whether it serves.
func (f *Firmware) Halted() bool { return f.mcu.status == abi.MCUHalted }

// Enabled reports whether the firmware serves.
func (f *Firmware) Enabled() bool { return f.mcu.status == abi.MCUEnabled && !f.mcu.frozen }

// Idle reports whether nothing runs and no stream has anything to execute.
func (f *Firmware) Idle() bool {
	if len(f.runs) > 0 || f.steps.Pending() {
		return false
	}
	for _, g := range f.groups {
		for _, s := range g.streams {
			if s.started && !s.halted && (!s.empty() || s.busy(nil) != 0) {
				return false
			}
		}
	}
	return true
}
