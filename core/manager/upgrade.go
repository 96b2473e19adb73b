package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/core/sched"
)

const (
	// evacuateMax bounds the wait until the entities of a device have left the old
	// instance: a suspend may take as long as the schedulers wait for an answer,
	// and its image has to be written.
	evacuateMax = 5 * time.Minute
	// upgradeWaiter names the wave of an upgrade among those of its device.
	upgradeWaiter = 1
)

// Upgrade replaces the plugin process of a backend in place by one of the
// executable as it is now: the new process starts and is probed, the entities
// are suspended and leave the old one, the new one opens the devices, the old one
// is verifiably ended, and the entities go on. Until it has ended the old one
// is there to go back to. The error says why it is still the old one. Without a
// running process there is nothing to do.
func (m *Manager) Upgrade(ctx context.Context, backend string) error {
	for _, s := range m.supervisors {
		if s.backend != backend {
			continue
		}
		answer := make(chan error, 1)
		select {
		case s.upgrades <- answer:
		case <-s.done:
			return errStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case err := <-answer:
			return err
		case <-s.done:
			return errStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("upgrade plugin %s: %w", backend, core.ErrNotFound)
}

// tenure is an instance with its open sessions.
type tenure struct {
	inst  Instance
	rec   core.InstanceRecord
	links []Link
}

func (t *tenure) close() {
	for _, l := range t.links {
		l.Close()
	}
	t.links = nil
}

// upgrade replaces t by a new instance. The first error says why it is still the
// old one; the second that there are no sessions any more.
func (s *supervisor) upgrade(ctx context.Context, t *tenure) (failed, down error) {
	s.log.Info("upgrade begun", "instance", t.rec.Instance)
	inst, rec, err := s.bring(ctx, nil, true)
	s.candidate.Store(&rec)
	defer s.candidate.Store(nil)
	if err == nil {
		err = s.probe(t, inst)
	}
	next := &tenure{inst: inst, rec: rec}
	if err == nil {
		err = s.moveTo(ctx, t, next)
	}
	if err == nil {
		s.log.Info("upgrade done", "instance", rec.Instance, "pid", rec.Process.PID)
		*t = *next
		return nil, nil
	}
	next.close()
	if inst != nil {
		inst.Detach()
	}
	if ctx.Err() != nil && s.manager.detach.Load() {
		return err, err // both are on record
	}
	if endErr := s.retire(context.Background(), rec, nil); endErr != nil {
		return err, endErr // the next start goes on with it
	}
	if len(t.links) == 0 && ctx.Err() == nil { // back to the old one
		t.links, down = s.open(ctx, t.inst, false)
	}
	s.release()
	s.log.Warn("upgrade failed", "instance", rec.Instance, "error", err)
	return err, down
}

// probe looks at what the new instance says of itself.
func (s *supervisor) probe(t *tenure, inst Instance) error {
	before, now := t.inst.Describe(), inst.Describe()
	switch {
	case now.Name != before.Name:
		return fmt.Errorf("new plugin is backend %q, want %q: %w", now.Name, before.Name, core.ErrInvalid)
	case now.Level < before.Level:
		return fmt.Errorf("new plugin declares level %d, the old one %d: %w", now.Level, before.Level, core.ErrUnsupported)
	}
	return nil
}

// moveTo takes the entities off t, opens the devices on next and ends t. When it
// returns an error t still lives; its links are closed if they had to be.
func (s *supervisor) moveTo(ctx context.Context, t, next *tenure) error {
	crash.Point("manager.upgrade.before")
	if err := s.evacuate(ctx, t); err != nil {
		return err
	}
	crash.Point("manager.evacuate.after")
	takes := make([]core.DeviceDescription, len(t.links))
	for i, l := range t.links {
		takes[i] = l.Describe()
	}
	t.close()
	var err error
	if next.links, err = s.open(ctx, next.inst, true); err != nil {
		return err
	}
	for i, l := range next.links {
		if err := sameFormats(takes[i], l.Describe()); err != nil {
			return err
		}
	}
	crash.Point("manager.upgrade.mid")
	next.rec.Candidate = false
	if err := s.retire(ctx, t.rec, &next.rec); err != nil {
		return err
	}
	t.inst.Detach()
	crash.Point("manager.upgrade.after")
	s.current.Store(&next.rec)
	s.forgetRestarts()
	s.release()
	return nil
}

// sameFormats refuses a device that does not take any more what it took: its jobs
// would be refused.
func sameFormats(before, now core.DeviceDescription) error {
	takes := make(map[string]bool)
	for _, f := range now.Formats {
		takes[f] = true
	}
	for _, f := range before.Formats {
		if !takes[f] {
			return fmt.Errorf("new plugin's device %s does not take format %s: %w", now.Name, f, core.ErrUnsupported)
		}
	}
	return nil
}

// evacuate takes every entity off the instance and returns when none is on it.
func (s *supervisor) evacuate(ctx context.Context, t *tenure) error {
	ctx, cancel := context.WithTimeoutCause(ctx, evacuateMax, core.ErrDeadline)
	defer cancel()
	events := s.manager.Subscribe()
	defer events.Close()
	down, stop := anyDown(t.links)
	defer stop()
	s.hold()
	for _, d := range s.devices {
		for {
			empty, err := read(ctx, d, func() (bool, error) { return d.empty(), nil })
			if err != nil {
				return fmt.Errorf("take entities off device %s: %w", d.spec.Name, err)
			}
			if empty {
				break
			}
			select {
			case <-events.C:
			case <-t.inst.Gone():
				return fmt.Errorf("plugin %s: %w", s.backend, core.ErrGone)
			// What ends a watch is left to the next one.
			case <-down:
				return fmt.Errorf("session of plugin %s: %w", s.backend, core.ErrGone)
			case <-s.reopens:
				s.reopen()
				return errReopen
			case reason := <-s.restarts:
				s.restart(reason)
				return errors.New(reason)
			case <-ctx.Done():
				return fmt.Errorf("take entities off device %s: %w", d.spec.Name, context.Cause(ctx))
			}
		}
	}
	return nil
}

// hold asks the entities off the instance, whenever there is one.
func (s *supervisor) hold() {
	for _, d := range s.devices {
		d.do(func() {
			d.evacuating = true
			d.evacuate()
		})
	}
}

// release lets the entities come back, wherever the session is.
func (s *supervisor) release() {
	for _, d := range s.devices {
		d.do(func() {
			d.evacuating = false
			_ = d.step(&sched.Event{Kind: sched.EventRelease, Waiter: upgradeWaiter})
		})
	}
}

// evacuate asks all entities off the instance; those that come later stay off it.
func (d *device) evacuate() {
	_ = d.step(&sched.Event{Kind: sched.EventPreempt, Waiter: upgradeWaiter, Away: true})
}

// empty reports whether no entity is on the instance, on record too.
func (d *device) empty() bool {
	if d.rebuilding || d.writing || d.next != nil {
		return false
	}
	for _, r := range d.records {
		if r.state.Residency != core.Away {
			return false
		}
	}
	return true
}

// retire ends an instance that holds nothing, verifiably, and removes its
// record; successor, when not nil, is recorded in the same commit.
func (s *supervisor) retire(ctx context.Context, rec core.InstanceRecord, successor *core.InstanceRecord) error {
	if rec.Instance == "" {
		return nil
	}
	if err := s.end(ctx, rec); err != nil {
		return err
	}
	w := &core.Write{RemoveInstances: []string{rec.Instance}}
	if successor != nil {
		w.Instances = []core.InstanceRecord{*successor}
	}
	for wait := backoffMin; ; wait = min(2*wait, backoffMax) {
		err := s.manager.commit(w)
		switch {
		case err == nil:
			s.discard(rec)
			return nil
		case successor == nil:
			s.log.Error("instance record not removed", "instance", rec.Instance, "error", err)
			return nil // the next start removes it
		}
		// Nothing may be on an instance that the records call a candidate.
		s.log.Error("successor not recorded", "instance", successor.Instance, "error", err)
		select {
		case <-time.After(wait):
		case <-s.manager.killed:
			return err
		case <-ctx.Done():
			return err
		}
	}
}
