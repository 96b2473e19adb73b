package hw_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
)

func TestStepperRepeatsWithinABound(t *testing.T) {
	s := hw.NewStepper(hw.NewVirtualClock())
	passes := 0
	s.Step(0, 5, func() bool { passes++; return passes < 3 })
	if passes != 3 || raised(s) {
		t.Errorf("%d passes, or the rest is asked for", passes)
	}
	passes = 0
	s.Step(0, 5, func() bool { passes++; return true })
	if passes != 5 || !raised(s) {
		t.Errorf("%d passes, or the rest is not asked for", passes)
	}
}

// raised reports whether Wake delivers.
func raised(s *hw.Stepper) bool {
	select {
	case <-s.Wake():
		return true
	default:
		return false
	}
}

func TestStepperKeepsOneTimer(t *testing.T) {
	clock := hw.NewVirtualClock()
	s := hw.NewStepper(clock)
	for _, at := range []time.Duration{5, 9, 9, hw.Never, 7} {
		s.Arm(at)
	}
	if at, ok := clock.Next(); !ok || at != 7 {
		t.Errorf("due at %d, %t", at, ok)
	}
	clock.Advance(6)
	if raised(s) {
		t.Error("woken early")
	}
	clock.Advance(1)
	if !raised(s) {
		t.Error("not woken")
	}
	// The timer is used up: the same moment is armed anew.
	s.Step(clock.Now(), 1, func() bool { return false })
	s.Arm(7)
	if clock.Advance(0); !raised(s) {
		t.Error("what is due already does not wake")
	}
}

func TestStepperOrder(t *testing.T) {
	s := hw.NewStepper(hw.NewVirtualClock())
	var did []string
	do := func(what string) func() { return func() { did = append(did, what) } }
	if s.Pending() || s.Due() != hw.Never || s.Expire(hw.Never-1) {
		t.Error("something is due before anything was arranged")
	}
	s.After(10, 5, do("c"))
	s.Inject(10, 0, do("a"))
	s.After(11, 4, do("d"))
	s.After(10, 1, do("b"))
	s.After(10, hw.Never, do("beyond"))
	if s.Due() != 10 || !s.Pending() {
		t.Errorf("due at %d", s.Due())
	}
	for s.Expire(15) {
	}
	if want := []string{"a", "b", "c", "d"}; !slices.Equal(did, want) || s.Due() != hw.Never {
		t.Errorf("%v, then %d; want %v", did, s.Due(), want)
	}
	did = nil
	s.Inject(20, 1, do("plan"))
	s.After(20, 1, do("own"))
	s.CancelOwn()
	for s.Expire(30) {
	}
	if !slices.Equal(did, []string{"plan"}) || s.Pending() {
		t.Errorf("%v", did)
	}
	s.Inject(20, 1, do("plan"))
	if s.Cancel(); s.Pending() {
		t.Error("not forgotten")
	}
}

// restless is a clock that goes on between two looks, as a real one does.
type restless struct {
	*hw.VirtualClock
	looks time.Duration
}

// Now implements hw.Clock.
func (r *restless) Now() time.Duration {
	r.looks++
	return r.VirtualClock.Now() + r.looks
}

// TestStepperOnARestlessClock: what is due now is done now, however often the clock is looked at.
func TestStepperOnARestlessClock(t *testing.T) {
	clock := &restless{VirtualClock: hw.NewVirtualClock()}
	s := hw.NewStepper(clock)
	for _, arrange := range []func(now, wait time.Duration, do func()){s.After, s.Inject} {
		done := false
		now := clock.Now()
		clock.looks++
		arrange(now, 0, func() { done = true })
		if !s.Expire(now) || !done {
			t.Error("put off")
		}
	}
	if looks := clock.looks; looks != 4 {
		t.Errorf("the stepper looked itself: %d", looks)
	}
}

func TestStepperRunAndDrain(t *testing.T) {
	s := hw.NewStepper(hw.NewRealClock())
	doorbell := hw.NewLine()
	ctx, stop := context.WithCancel(t.Context())
	steps := 0
	s.Run(ctx, doorbell, func() {
		switch steps++; steps {
		case 1:
			doorbell.Raise()
		case 2:
			s.Raise()
		default:
			stop()
		}
	})
	if steps < 3 {
		t.Errorf("%d steps", steps)
	}
	if err := s.Drain(0, func() bool { return false }); !errors.Is(err, hw.ErrRunning) {
		t.Errorf("at once: %v", err)
	}
	if err := s.Drain(time.Microsecond, func() bool { return false }); !errors.Is(err, hw.ErrRunning) {
		t.Errorf("in time: %v", err)
	}
	asked := 0
	s.Raise()
	if err := s.Drain(time.Minute, func() bool { asked++; s.Raise(); return asked == 3 }); err != nil {
		t.Error(err)
	}
}
