package plugintest

import (
	"maps"
	"slices"
	"testing"
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

// TestTruthfulProxy: without a lie the proxy passes, also where instances die.
func TestTruthfulProxy(t *testing.T) {
	t.Parallel()
	TestConfig(t, Config{Command: self(t, "proxy", "truth")})
}
