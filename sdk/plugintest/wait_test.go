package plugintest

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// failures runs the checks that need something, on a good backend behind a lie in this
// process, and returns those that failed. None may be skipped.
func failures(t *testing.T, needed need, l lie) []string {
	t.Helper()
	report, err := Run(t.Context(), Config{
		Backend: good, Slow: true,
		wrap: func(s service) service { return newLying(s, l) },
		only: func(c check) bool { return c.need&needed == needed && c.need&aProcess == 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, r := range report.Results {
		switch {
		case r.Skipped && r.Name != "kernels-are-bounded":
			t.Errorf("%s was skipped: %s", r.Name, r.Reason)
		case !r.Skipped && !r.OK:
			failed = append(failed, r.Name)
			t.Logf("%s: %s", r.Name, r.Reason)
		}
	}
	return failed
}

func same(t *testing.T, what string, have, want []string) {
	t.Helper()
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		t.Errorf("%s: %q failed; it must be %q", what, have, want)
	}
}

// TestWaits: the slow checks, in a bubble where a minute takes no time.
func TestWaits(t *testing.T) {
	vain := func(e *core.BackendEvent) bool {
		return e.Kind == core.EventRefused && (e.Cause == core.CauseImage || e.Cause == core.CauseKernel)
	}
	for what, c := range map[string]struct {
		lie  lie
		want []string
	}{
		"truth": {},
		"calls that never end": {
			lie{endless: true}, []string{"image-waits-for-its-create", "upload-does-not-stall", "save-does-not-stall"},
		},
		"calls that end at once": {
			// No entity comes to be, so that the others fail too.
			lie{hasty: true}, []string{"create-waits-for-its-image", "image-waits-for-its-create", "run-waits-for-its-kernel", "upload-does-not-stall", "save-does-not-stall"},
		},
		"commands that are never refused": {
			lie{event: func(_ *state, e core.BackendEvent) []core.BackendEvent {
				if vain(&e) {
					return nil
				}
				return []core.BackendEvent{e}
			}}, []string{"create-waits-for-its-image", "run-waits-for-its-kernel", "upload-does-not-stall"},
		},
		"commands that are refused for another reason": {
			lie{event: changedEvent(vain, func(e *core.BackendEvent) { e.Cause = core.CauseRefused })},
			[]string{"create-waits-for-its-image", "run-waits-for-its-kernel", "upload-does-not-stall"},
		},
	} {
		synctest.Test(t, func(t *testing.T) { same(t, what, failures(t, aMinute, c.lie), c.want) })
	}
}

// TestLimits: the checks that fill everything there is.
func TestLimits(t *testing.T) {
	if raceDetector {
		t.Skip("the good backend is the same as without it, and much data takes long")
	}
	full := func(err error) error {
		if errors.Is(wire.FromStatus(err), core.ErrFull) {
			return wire.ToStatus(core.ErrBusy, 0)
		}
		return err
	}
	for what, c := range map[string]struct {
		lie  lie
		want []string
	}{
		"another reason": {lie{status: full}, []string{"waiting-images-are-bounded", "devices-are-bounded"}},
		"no limit of events": {
			lie{command: func(s *state, c core.Command) []core.Command {
				if c.Kind != core.CommandMessage || c.Message != core.MessageBarrier {
					return []core.Command{c}
				}
				s.r.emit(core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq / seqRoom}, s.r.seen)
				s.r.send()
				return nil
			}}, []string{"events-are-kept-up-to-their-limit"},
		},
	} {
		same(t, what, failures(t, anInstance|muchData, c.lie), c.want)
	}
}

// TestSlowChecksAreAskedFor: without asking they are skipped, and say so.
func TestSlowChecksAreAskedFor(t *testing.T) {
	report, err := Run(t.Context(), Config{Backend: good, only: func(c check) bool { return c.need&aMinute != 0 }})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != len(waitChecks) || report.Failed() != 0 {
		t.Errorf("%+v", report)
	}
	for _, r := range report.Results {
		if !r.Skipped || r.OK || r.Reason == "" {
			t.Errorf("%+v", r)
		}
	}
}
