package plugintest

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// brokenMin is how many broken backends there are at least.
const brokenMin = 12

// brokenAtOnce is how many are tested side by side: some wait for what is never said.
const brokenAtOnce = 4

// TestBrokenBackends: each is caught by the check that is meant for it, and by no
// other of its group but those that are named as well.
func TestBrokenBackends(t *testing.T) {
	if raceDetector {
		t.Skip("the kit is the same on a good backend, and the liars are programs of the test's own")
	}
	if len(lies) <= brokenMin {
		t.Errorf("%d broken backends, want %d", len(lies), brokenMin)
	}
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(lies)), func(name string) bool { return name == "truth" })
	type found struct {
		report Report
		err    error
	}
	results := make([]chan found, len(names))
	slots := make(chan struct{}, brokenAtOnce)
	for i, name := range names {
		results[i] = make(chan found, 1)
		group := groupOf(t, lies[name].caught)
		config := Config{
			Command: self(t, "proxy", name), Level: group[0].level,
			only: func(c check) bool {
				return c.need&(anInstance|muchData) == 0 && slices.ContainsFunc(group, func(g check) bool { return g.name == c.name })
			},
		}
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			report, err := Run(t.Context(), config)
			results[i] <- found{report, err}
		}()
	}
	for i, name := range names {
		got := <-results[i]
		t.Run(name, func(t *testing.T) {
			if got.err != nil {
				t.Fatal(got.err)
			}
			judge(t, lies[name], got.report)
		})
	}
}

// groupOf returns the checks that a check stands among.
func groupOf(t *testing.T, name string) []check {
	t.Helper()
	for _, group := range groups() {
		if slices.ContainsFunc(group, func(c check) bool { return c.name == name }) {
			return group
		}
	}
	t.Fatalf("there is no check %s", name)
	return nil
}

func judge(t *testing.T, l lie, report Report) {
	t.Helper()
	caught := false
	for _, r := range report.Results {
		switch failed := !r.OK && !r.Skipped; {
		case r.Name == l.caught:
			caught = failed
			t.Logf("%s: %s", r.Name, r.Reason)
		case failed && !slices.Contains(l.also, r.Name):
			t.Errorf("%s failed too: %s", r.Name, r.Reason)
		}
	}
	if !caught {
		t.Errorf("%s did not catch it", l.caught)
	}
}

// mortals are plugins that are wrong about their own end or that of others.
var mortals = map[string]lie{
	"immortal":  {caught: "lease-ends-the-process", also: []string{"sigterm-ends-the-process", "shutdown-ends-the-process", "shutdown-while-busy"}, immortal: true},
	"frail":     {caught: "host-dies-while-a-job-executes", also: []string{"process-outlives-its-host", "host-dies-before-suspend-is-done"}, frail: true},
	"touchy":    {caught: "other-signals-are-ignored", touchy: true},
	"impatient": {caught: "lease-holds-while-connected", impatient: true},
	"forgetful": {caught: "host-dies-before-an-acknowledgement", reconnect: func(r *relay) { r.kept = nil }},
	"amnesic": {caught: "host-dies-before-destroyed", reconnect: func(r *relay) { r.kept = nil }, event: func(s *state, e core.BackendEvent) []core.BackendEvent {
		if e.Kind == core.EventDestroyed {
			return nil
		}
		return []core.BackendEvent{e}
	}},
}

// TestBrokenProcesses: each is caught by all the checks that are named.
func TestBrokenProcesses(t *testing.T) {
	if raceDetector {
		t.Skip("the kit is the same on a good backend, and the liars are programs of the test's own")
	}
	for name, l := range mortals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			named := append([]string{l.caught}, l.also...)
			report, err := Run(t.Context(), Config{
				Command: self(t, "proxy", name), Patience: 2 * time.Second, only: func(c check) bool { return slices.Contains(named, c.name) },
			})
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, r := range report.Results {
				if !r.OK && !r.Skipped {
					failed = append(failed, r.Name)
					t.Logf("%s: %s", r.Name, r.Reason)
				}
			}
			same(t, name, failed, named)
		})
	}
}

// TestTruthfulProxy: without a lie the proxy passes, also where instances die.
func TestTruthfulProxy(t *testing.T) {
	t.Parallel()
	TestConfig(t, Config{Command: self(t, "proxy", "truth")})
}
