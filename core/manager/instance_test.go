package manager_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestCrashAnywhere loses the manager at many moments; commands that were not
// taken are repeated, events that were not acknowledged come again.
func TestCrashAnywhere(t *testing.T) {
	for at := time.Duration(0); at < 40*time.Millisecond; at += time.Millisecond {
		t.Run(at.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.sched.ReplayMax = 20 * time.Millisecond
				e := r.entity("x", newJob("a", 5), newJob("b", 5), flushed(newJob("c", 15)))
				e.Spec.Properties.Checkpoint = 7 * time.Millisecond
				r.create(e)
				time.Sleep(at)
				r.crash()
				time.Sleep(3 * time.Millisecond)
				r.start(nil)
				r.ends(core.JobCompleted, "a", "b", "c")
				r.executed(0, "a", "b", "c")
			})
		})
	}
}

// TestKillAnywhere ends the instance at many moments, with and without the manager.
func TestKillAnywhere(t *testing.T) {
	for at := time.Duration(0); at < 40*time.Millisecond; at += time.Millisecond {
		for _, both := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,both=%t", at, both), func(t *testing.T) {
				bubble(t, func(t *testing.T, r *rig) {
					e := r.entity("x", newJob("a", 5), newJob("b", 5), flushed(newJob("c", 15)))
					e.Spec.Properties.Checkpoint = 7 * time.Millisecond
					r.create(e)
					p := r.process()
					time.Sleep(at)
					if both {
						r.crash()
					}
					r.kill(p)
					if both {
						r.start(nil)
					}
					r.ends(core.JobCompleted, "a", "b", "c")
					r.executed(25, "a", "b", "c")
					if r.liveMax != 1 {
						t.Errorf("%d instances lived at once", r.liveMax)
					}
				})
			})
		}
	}
}

func TestAdoptionRefused(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 300)))
		r.progressed("a", 150)
		r.stop(true)
		r.lock(func() { r.refuse = true })
		r.start(nil)
		r.ends(core.JobCompleted, "a")
		r.executed(70, "a")
		if r.started != 2 || r.liveMax != 1 {
			t.Errorf("%d instances, %d at once; want a second one after the first was ended", r.started, r.liveMax)
		}
	})
}

// TestBackOff: an instance that ends is started again, after rising pauses.
func TestBackOff(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.create(r.entity("x", newJob("a", 500)))
		for range 3 {
			p := r.process()
			r.progressed("a", 20)
			r.kill(p)
			begun := time.Now()
			r.within(time.Minute, "another instance", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				return r.live == 1
			})
			if time.Since(begun) < 50*time.Millisecond {
				t.Errorf("started again after %s", time.Since(begun))
			}
		}
		r.ends(core.JobCompleted, "a")
	})
}

// TestCrashLoop: the breaker suspends the entities with the reason; resuming
// closes it.
func TestCrashLoop(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.crashAfter = 5 * time.Millisecond
		r.sched.LossesMax = 1000
		r.stop(false)
		r.start(nil)
		id := r.create(r.entity("x", newJob("a", 50)))[0]
		s := r.suspended(id, core.CauseDevice)
		if !strings.Contains(s.Error, "ended 6 times") {
			t.Errorf("the reason is %q", s.Error)
		}
		started := r.started
		time.Sleep(time.Hour)
		if r.started != started {
			t.Errorf("%d instances were started behind an open breaker", r.started-started)
		}
		r.lock(func() { r.crashAfter = 0 })
		r.goal(id, core.GoalRun)
		r.ends(core.JobCompleted, "a")
	})
}

// TestDeviceWithoutImages: a plugin that cannot do what runs need is not tried again.
func TestDeviceWithoutImages(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lock(func() { r.imageless = true })
		id := r.create(r.entity("x", newJob("a", 50)))[0]
		s := r.suspended(id, core.CauseDevice)
		if !strings.Contains(s.Error, "device d0: it cannot save images") || r.started != 1 {
			t.Errorf("%d instances, the reason is %q", r.started, s.Error)
		}
	})
}

func TestStartFails(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lock(func() { r.failStarts = 3 })
		r.create(r.entity("x", newJob("a", 50)))
		r.ends(core.JobCompleted, "a")
		r.executed(0, "a")
	})
}

// TestLinkBreaks: the stream breaks many times while the instance lives; it is
// opened again, nothing is lost and nothing done twice.
func TestLinkBreaks(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.lock(func() { r.saveTime = 20 * time.Millisecond })
		r.create(r.entity("x", newJob("a", 100), newJob("b", 400)))
		p := r.process()
		for range 8 {
			time.Sleep(37 * time.Millisecond)
			r.lock(p.devices["d0"].down)
		}
		r.ends(core.JobCompleted, "a", "b")
		r.executed(0, "a", "b")
		if r.started != 1 {
			t.Errorf("%d instances were started for a broken stream", r.started)
		}
	})
}

// TestLinkBreaksRarely: the bound on reopening is on a minute, not on a life.
func TestLinkBreaksRarely(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		e := r.entity("x", newJob("a", 600_000))
		e.Spec.Properties.Checkpoint = time.Minute
		id := r.create(e)[0]
		p := r.process()
		for range 20 {
			time.Sleep(10 * time.Second)
			r.lock(p.devices["d0"].down)
		}
		if r.process() != p || r.started != 1 {
			t.Errorf("%d instances were started", r.started)
		}
		r.goal(id, core.GoalSuspend)
		r.suspended(id, core.CauseNone)
	})
}
