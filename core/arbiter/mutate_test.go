//go:build mutations

package arbiter

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// mutantEnv names the planted mistake that a run of this program switches on.
const mutantEnv = "GPUWM_ARBITER_MUTANT"

// mutants are the planted mistakes, each with the test that finds it.
var mutants = map[string]string{
	"ignore-weights":     "TestTwoClients",
	"credit-for-sleep":   "TestNoCredit",
	"strict-levels":      "TestThousand",
	"forget-lead":        "TestLeadStays",
	"preempt-in-min-run": "TestMinRun",
	"lose-evicted":       "TestManyClients",
}

func TestMain(m *testing.M) {
	mutant = os.Getenv(mutantEnv)
	os.Exit(m.Run())
}

// TestMutants switches every planted mistake on: its test must fail, and pass
// without it.
func TestMutants(t *testing.T) {
	if mutant != "" {
		t.Skip("one is switched on")
	}
	for name, finder := range mutants {
		t.Run(name, func(t *testing.T) {
			for _, planted := range []string{"", name} {
				cmd := exec.Command(os.Args[0], "-test.run", "^"+finder+"$")
				cmd.Env = append(os.Environ(), mutantEnv+"="+planted)
				out, err := cmd.CombinedOutput()
				if failed := err != nil; failed != (planted != "") {
					t.Errorf("%s with mistake %q: failed %t\n%s", finder, planted, failed, out)
				}
			}
		})
	}
}

// TestMutantsAreListed: what is planted is listed, and the other way around.
func TestMutantsAreListed(t *testing.T) {
	planted := make(map[string]bool)
	files, err := filepath.Glob("*.go")
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
	if listed, want := slices.Sorted(maps.Keys(mutants)), slices.Sorted(maps.Keys(planted)); !slices.Equal(listed, want) {
		t.Errorf("listed %q, planted %q", listed, want)
	}
}
