package hw

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrRunning is returned when an execution is still on an engine: its kernel
// may go on writing to memory, so the arena must not be unmapped.
var ErrRunning = errors.New("an execution did not end")

// Never is later than every moment.
const Never = time.Duration(1<<63 - 1)

// Stepper is the shell of an emulated firmware: it says when there is something
// to do, and repeats what the firmware calls a pass. All methods but Wake and
// Raise belong to the goroutine that steps.
//
// Whoever arranges something says what time it is, and everything is measured
// from there. The stepper does not look again: a real clock has gone on
// meanwhile, and what is due now would be in the past.
type Stepper struct {
	clock   Clock
	wake    Line
	timer   Timer
	timerAt time.Duration
	later   []arranged
}

// arranged is something that happens at a moment.
type arranged struct {
	at       time.Duration
	do       func()
	injected bool
}

// NewStepper returns a stepper of a firmware that has nothing to do yet.
func NewStepper(clock Clock) *Stepper {
	return &Stepper{clock: clock, wake: NewLine(), timerAt: Never}
}

// Wake delivers a value when there is something to do without a doorbell. May be
// read from any goroutine.
func (s *Stepper) Wake() <-chan struct{} { return s.wake.C() }

// Raise makes Wake deliver. May be called from any goroutine.
func (s *Stepper) Raise() { s.wake.Raise() }

// Step repeats pass until it did nothing, at most so many times; what is left
// then is for the next Step, which Wake asks for. Arm follows.
func (s *Stepper) Step(now time.Duration, passesMax int, pass func() bool) {
	if now >= s.timerAt {
		s.timer, s.timerAt = nil, Never
	}
	for range passesMax {
		if !pass() {
			return
		}
	}
	s.wake.Raise()
}

// Arm sets the one timer to when something falls due next; Never sets none.
func (s *Stepper) Arm(at time.Duration) {
	if at == s.timerAt {
		return
	}
	s.disarm()
	s.timerAt = at
	if at != Never {
		s.timer = s.clock.AfterFunc(at-s.clock.Now(), s.wake.Raise)
	}
}

func (s *Stepper) disarm() {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}

// After arranges for do to be called by Expire, wait from now on; what is due at
// the same moment keeps its order. What is beyond a duration never happens.
func (s *Stepper) After(now, wait time.Duration, do func()) { s.arrange(now, wait, arranged{do: do}) }

// Inject is After for what a fault plan arranges: CancelOwn does not forget it.
func (s *Stepper) Inject(now, wait time.Duration, do func()) {
	s.arrange(now, wait, arranged{do: do, injected: true})
}

func (s *Stepper) arrange(now, wait time.Duration, a arranged) {
	if a.at = now + wait; wait > 0 && a.at < now {
		a.at = Never
	}
	i := len(s.later)
	for i > 0 && s.later[i-1].at > a.at {
		i--
	}
	s.later = slices.Insert(s.later, i, a)
}

// Cancel forgets all that was arranged.
func (s *Stepper) Cancel() { s.later = nil }

// CancelOwn forgets what the firmware itself arranged.
func (s *Stepper) CancelOwn() {
	s.later = slices.DeleteFunc(s.later, func(a arranged) bool { return !a.injected })
}

// Pending reports whether something is arranged.
func (s *Stepper) Pending() bool { return len(s.later) > 0 }

// Due returns when the next of what is arranged falls due.
func (s *Stepper) Due() time.Duration {
	if len(s.later) == 0 {
		return Never
	}
	return s.later[0].at
}

// Expire does the first of what is arranged and due, and reports whether
// anything was.
func (s *Stepper) Expire(now time.Duration) bool {
	if len(s.later) == 0 || s.later[0].at > now {
		return false
	}
	do := s.later[0].do
	s.later = s.later[1:]
	do()
	return true
}

// Run calls step in real time, after each doorbell and each Wake, until ctx ends.
func (s *Stepper) Run(ctx context.Context, doorbell Line, step func()) {
	for {
		step()
		select {
		case <-ctx.Done():
			return
		case <-doorbell.C():
		case <-s.wake.C():
		}
	}
}

// Drain waits in real time until over, which is asked after each Wake; nobody
// steps any more. It returns ErrRunning when that takes longer than wait, at once when wait is 0.
func (s *Stepper) Drain(wait time.Duration, over func() bool) error {
	s.disarm()
	late := make(chan struct{})
	bound := s.clock.AfterFunc(wait, func() { close(late) })
	defer bound.Stop()
	for !over() {
		if wait <= 0 {
			return ErrRunning
		}
		select {
		case <-s.wake.C():
		case <-late:
			return ErrRunning
		}
	}
	return nil
}
