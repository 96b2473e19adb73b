package fw

import "fmt"

// Check verifies what must hold between two Steps, for tests and simulations.
// The error names the first thing that does not hold.
func (f *Firmware) Check() error {
	if f.phase == phaseCrashed || f.injected.doom != nil {
		return nil
	}
	if f.phase != phaseReady && (len(f.running) > 0 || f.halt.active) {
		return fmt.Errorf("%s with %d commands", f.phase, len(f.running))
	}
	if len(f.running) > f.cfg.Width {
		return fmt.Errorf("%d commands at once", len(f.running))
	}
	if f.halt.active && len(f.running) > 0 {
		return fmt.Errorf("%d commands run on a halted GPU", len(f.running))
	}
	on := map[*command]bool{}
	for _, c := range f.running {
		if c.q.current != c || c.q.state != queueRunning || c.dead {
			return fmt.Errorf("queue %d: its command runs and it is %s", c.q.info.UUID, c.q.state)
		}
		if c.run == nil || c.run.exec == nil {
			return fmt.Errorf("queue %d: its command is on the pipe without work", c.q.info.UUID)
		}
		on[c] = true
	}
	for _, c := range f.halt.dead {
		on[c] = true
	}
	stopped := 0 // Or stored.
	for _, q := range f.order {
		if err := q.check(on); err != nil {
			return fmt.Errorf("queue %d (%s): %w", q.info.UUID, q.state, err)
		}
		if f.queues[q.va] != q {
			return fmt.Errorf("queue %d is listed and not known", q.info.UUID)
		}
		if (q.state == queueStopped || q.state == queueStored) && q.current != nil {
			stopped++
		}
	}
	if len(f.queues) != len(f.order) {
		return fmt.Errorf("%d queues known, %d listed", len(f.queues), len(f.order))
	}
	if c := f.counters; c.Started != c.Retired+uint64(len(f.running)+len(f.halt.dead)+stopped) {
		return fmt.Errorf("%d commands started, %d retired, %d run, %d died, %d stopped", c.Started, c.Retired, len(f.running), len(f.halt.dead), stopped)
	}
	return nil
}

// check verifies one queue by itself; on are the commands on the pipe.
func (q *workQueue) check(on map[*command]bool) error {
	between := (q.read + q.items - q.done) % q.items
	switch {
	case (q.write+q.items-q.done)%q.items < between:
		return fmt.Errorf("read %d is beyond write %d, done %d", q.read, q.write, q.done)
	case q.state == queueIdle && (q.read != q.write || q.done != q.read || q.current != nil):
		return fmt.Errorf("read %d done %d write %d", q.read, q.done, q.write)
	case q.state == queueReady && (q.read == q.write || between != 0):
		return fmt.Errorf("read %d done %d write %d", q.read, q.done, q.write)
	case (q.state == queueBlocked || q.state == queueRunning || q.state == queueStored) && between != 1:
		return fmt.Errorf("read %d, done %d", q.read, q.done)
	case q.state == queueRunning && !on[q.current]:
		return fmt.Errorf("its command is not on the pipe")
	}
	return nil
}

// QueueStatus is where a work queue stands, for tests.
type QueueStatus struct {
	UUID, Slot, Level uint32
	State             string
	// Read, Done and Write are its ring's indices as the firmware has them.
	Read, Done, Write uint32
}

// Queues returns the work queues that the firmware knows, in the order they
// came. A queue that a barrier holds is "blocked", which no event ever tells.
func (f *Firmware) Queues() []QueueStatus {
	var out []QueueStatus
	for _, q := range f.order {
		out = append(out, QueueStatus{UUID: q.info.UUID, Slot: q.slot, Level: q.level, State: q.state.String(), Read: q.read, Done: q.done, Write: q.write})
	}
	return out
}

// Phase names what the coprocessor does, and Powered says whether the GPU is on.
func (f *Firmware) Phase() string { return f.phase.String() }

// Powered reports whether the GPU is on.
func (f *Firmware) Powered() bool { return f.power.on }

// Idle reports whether nothing runs, waits or is to be sent. Blocked and stopped
// queues do not count.
func (f *Firmware) Idle() bool {
	return len(f.running) == 0 && len(f.given) == 0 && len(f.out) == 0 && len(f.events) == 0 && !f.halt.active && !f.kicked &&
		(f.phase != phaseReady || f.pick() == nil)
}
