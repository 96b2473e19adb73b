//go:build mutations

package sim

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/gpuwm/gpuwm/core/sched"
)

// mutants are the planted mistakes, by what they break.
var mutants = map[string][]string{
	"dependencies": {"forget-waiter", "run-after-failed-dependency"},
	"credits":      {"skip-release", "overfill-ring", "overtake-big-job"},
	"messages":     {"job-overtakes-message", "message-overtakes-job", "lose-message"},
	"timeouts":     {"deaf", "charge-lost-work", "timeout-early", "queue-timeout-early"},
	"error path":   {"blame-victim", "blame-late-wave", "signal-before-off", "leak-through-stop"},
	"preemption":   {"resume-in-wave", "tell-before-off"},
	"recovery":     {"skip-replay", "replay-from-start", "forget-resend", "reuse-number", "act-before-commit", "acknowledge-failure", "believe-old-epoch"},
	"outcomes":     {"double-completion", "complete-before-file", "forget-usage"},
}

// mutantSeeds bounds the seeds in which a mistake must be found.
const mutantSeeds = 2000

// TestMutants switches every planted mistake on: the simulation must find each.
func TestMutants(t *testing.T) {
	defer sched.SetMutant("")
	for group, names := range mutants {
		for _, name := range names {
			t.Run(group+"/"+name, func(t *testing.T) {
				sched.SetMutant(name)
				for seed := range uint64(mutantSeeds) {
					if r := Run(seed, false); r.Problem != "" {
						t.Logf("seed %d: %s", seed, r.Problem)
						return
					}
				}
				t.Errorf("not found in %d seeds", mutantSeeds)
			})
		}
	}
}

// mutantsMin is how many mistakes are planted in each group at least.
const mutantsMin = 2

// TestMutantsAreListed: every mistake planted in the schedulers is in a group
// above once, none is listed that is not planted, and no group is thin.
func TestMutantsAreListed(t *testing.T) {
	planted := make(map[string]bool)
	files, err := filepath.Glob("../core/sched/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`mutated\("([a-z-]+)"\)`).FindAllSubmatch(content, -1) {
			planted[string(m[1])] = true
		}
	}
	var listed []string
	for group, names := range mutants {
		if len(names) < mutantsMin {
			t.Errorf("%s: %d mistakes, at least %d", group, len(names), mutantsMin)
		}
		listed = append(listed, names...)
	}
	slices.Sort(listed)
	if want := slices.Sorted(maps.Keys(planted)); !slices.Equal(listed, want) {
		t.Errorf("listed %q, planted %q", listed, want)
	}
}
