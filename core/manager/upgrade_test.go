package manager_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// upgrading is a rig with a job that is some way on, and another version of the
// executable in place.
func upgrading(t *testing.T, f func(t *testing.T, r *rig, old *process)) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300), newJob("b", 20)), r.entity("y", newJob("c", 250)))
		r.progressed("a", 100)
		old := r.process()
		r.lock(func() { r.version++ })
		f(t, r, old)
	})
}

func (r *rig) upgrade() error { return r.manager.Upgrade(r.t.Context(), "fake") }

// ended reports whether a process has.
func (r *rig) hasEnded(p *process) (ended bool) {
	r.lock(func() { ended = p.ended })
	return ended
}

// TestUpgradeInPlace: the entities go on in the new process where they left the
// old one; nothing runs twice, nothing is lost.
func TestUpgradeInPlace(t *testing.T) {
	upgrading(t, func(t *testing.T, r *rig, old *process) {
		if err := r.upgrade(); err != nil {
			t.Fatal(err)
		}
		if !r.hasEnded(old) || r.process().version != 1 {
			t.Errorf("old ended: %t, the live one has version %d", r.hasEnded(old), r.process().version)
		}
		r.ends(core.JobCompleted, "a", "b", "c")
		r.executed(0, "a", "b", "c")
		if r.started != 2 {
			t.Errorf("%d instances were started, want 2", r.started)
		}
	})
}

// TestUpgradeGoesBack: when the new process cannot take over, the old one goes on
// as if nothing had been.
func TestUpgradeGoesBack(t *testing.T) {
	for name, spoil := range map[string]struct {
		how  func(*rig)
		want error
	}{
		"does not start":     {func(r *rig) { r.failStarts = 1 }, core.ErrNotFound},
		"is another backend": {func(r *rig) { r.names = map[int]string{1: "r"} }, core.ErrInvalid},
		"declares less": {func(r *rig) {
			r.levels = map[int]int{0: core.LevelPortable, 1: core.LevelRecovery}
		}, core.ErrUnsupported},
		"takes fewer formats": {func(r *rig) { r.formats = map[int]string{1: "other"} }, core.ErrUnsupported},
		"does not open":       {func(r *rig) { r.failOpens = 1 }, core.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			upgrading(t, func(t *testing.T, r *rig, old *process) {
				r.lock(func() { spoil.how(r) })
				if err := r.upgrade(); !errors.Is(err, spoil.want) {
					t.Errorf("upgrade: %v, want %v", err, spoil.want)
				}
				if r.hasEnded(old) || r.process() != old {
					t.Error("the old process does not go on")
				}
				r.ends(core.JobCompleted, "a", "b", "c")
				r.executed(0, "a", "b", "c")
			})
		})
	}
}

// TestUpgradeAndDeath loses the manager, or the old process, at every moment of
// an upgrade.
func TestUpgradeAndDeath(t *testing.T) {
	for name, die := range map[string]func(r *rig, old *process){
		"manager": func(r *rig, _ *process) {
			r.crash()
			time.Sleep(3 * time.Millisecond)
			r.start(nil)
		},
		"old":  func(r *rig, old *process) { r.kill(old) },
		"disk": func(r *rig, _ *process) { r.lock(func() { r.failCommits = 1 }) },
	} {
		for at := time.Duration(0); at < 30*time.Millisecond; at += time.Millisecond {
			t.Run(name+" "+at.String(), func(t *testing.T) {
				upgrading(t, func(t *testing.T, r *rig, old *process) {
					r.lock(func() { r.saveTime = 5 * time.Millisecond })
					asked := make(chan error, 1)
					m := r.manager
					go func() { asked <- m.Upgrade(t.Context(), "fake") }()
					time.Sleep(at)
					die(r, old)
					<-asked
					r.ends(core.JobCompleted, "a", "b", "c")
					r.executed(120, "a", "b", "c") // two checkpoints' worth
				})
			})
		}
	}
}

// TestOutdatedInstanceIsReplaced: whoever starts with another executable than the
// adopted process has upgrades it.
func TestOutdatedInstanceIsReplaced(t *testing.T) {
	upgrading(t, func(t *testing.T, r *rig, old *process) {
		r.stop(true)
		r.start(nil)
		r.ends(core.JobCompleted, "a", "b", "c")
		r.executed(0, "a", "b", "c")
		if !r.hasEnded(old) || r.started != 2 {
			t.Errorf("old ended: %t, %d instances were started", r.hasEnded(old), r.started)
		}
	})
}

// TestOutdatedInstanceGoesOn: when it cannot be replaced, or dies before it is, its
// entities are let go on.
func TestOutdatedInstanceGoesOn(t *testing.T) {
	upgrading(t, func(t *testing.T, r *rig, old *process) {
		r.stop(true)
		r.lock(func() { r.failOpens = 1 })
		r.start(nil)
		r.ends(core.JobCompleted, "a", "b", "c")
		r.executed(0, "a", "b", "c")
		if r.process() != old {
			t.Error("the old process does not go on")
		}
	})
	for at := time.Duration(0); at < 20*time.Millisecond; at += time.Millisecond {
		upgrading(t, func(t *testing.T, r *rig, old *process) {
			r.stop(true)
			r.start(nil)
			time.Sleep(at)
			r.kill(old)
			r.ends(core.JobCompleted, "a", "b", "c")
		})
	}
}

func TestUpgradeOfNothing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		if err := r.upgrade(); err != nil || r.started != 0 {
			t.Errorf("upgrade without an instance: %v, %d started", err, r.started)
		}
		if err := r.manager.Upgrade(t.Context(), "other"); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("upgrade of an unknown backend: %v", err)
		}
	})
}
