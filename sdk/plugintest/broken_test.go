package plugintest

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// brokenMin is how many broken backends there are at least.
const brokenMin = 12

// brokenPatience is how long a check waits for what a broken backend never says.
const brokenPatience = 3 * time.Second

// brokenAtOnce is how many are tested side by side: they wait more than they work.
const brokenAtOnce = 8

// TestBrokenBackends: each is caught by the check that is meant for it, and by no
// other of its level but those that stand beside it.
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
		level := levelOf(t, lies[name].caught)
		config := Config{
			Command: self(t, "proxy", name), Patience: brokenPatience, Level: level,
			only: func(c check) bool { return c.level == level && c.need&(anInstance|muchData) == 0 },
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

// levelOf returns the level of a check.
func levelOf(t *testing.T, name string) int {
	t.Helper()
	list := all()
	i := slices.IndexFunc(list, func(c check) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("there is no check %s", name)
	}
	return list[i].level
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
