//go:build mutations

package sim

import (
	"testing"

	"github.com/gpuwm/gpuwm/core/sched"
)

// mutants are the planted mistakes, by what they break.
var mutants = map[string][]string{
	"dependencies": {"forget-waiter", "run-after-failed-dependency"},
	"credits":      {"skip-release", "overfill-ring", "overtake-big-job"},
	"messages":     {"job-overtakes-message", "message-overtakes-job", "lose-message"},
	"timeouts":     {"timeout-early", "queue-timeout-early"},
	"error path":   {"blame-victim", "signal-before-off", "leak-through-stop"},
	"preemption":   {"resume-in-wave", "tell-before-off"},
	"recovery":     {"skip-replay", "replay-from-start", "forget-resend", "reuse-number", "act-before-commit"},
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
