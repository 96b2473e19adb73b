package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
)

const (
	// roundsDefault is how many rounds an ordinary test makes; GPUWM_STRESS=N makes N.
	roundsDefault = 6
	// killsMax is how often a round is disturbed.
	killsMax = 3
	// linesMax and delayMax bound when: so many log lines after the last
	// disturbance, and so long after that.
	linesMax = 30
	delayMax = 60 * time.Millisecond
)

// TestRandomKills disturbs runs at random moments: SIGKILL of gpuwm, of the
// plugin, or of both, or a signal to suspend. GPUWM_SEED=N repeats round N only;
// what is drawn is repeated exactly, where the processes are at that moment is not.
func TestRandomKills(t *testing.T) {
	first, rounds := uint64(1), uint64(roundsDefault)
	if testing.Short() {
		rounds = 1
	}
	if n, err := strconv.ParseUint(os.Getenv("GPUWM_STRESS"), 10, 32); err == nil {
		rounds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("GPUWM_SEED"), 10, 64); err == nil {
		first, rounds = n, 1
	}
	path := binary(t, crashBinary)
	want := calm(t, seedSize)
	for seed := first; seed < first+rounds; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("replay: GPUWM_SEED=%d go test ./cmd/gpuwm -run TestRandomKills", seed)
				}
			})
			randomRound(t, path, rand.New(rand.NewPCG(seed, 0)), want)
		})
	}
}

// randomRound is one trial with up to killsMax disturbances.
func randomRound(t *testing.T, path string, random *rand.Rand, want map[string][]byte) {
	tr := newTrial(t, path, seedSize)
	anyLine := regexp.MustCompile("")
	last := tr.start()
	code, ended := 0, false
	for range 1 + random.IntN(killsMax) {
		count, pause := random.IntN(linesMax), time.NewTimer(time.Duration(random.Int64N(int64(delayMax))))
		for range count {
			if last.await(anyLine) != nil {
				break // it ended before
			}
		}
		select {
		case <-pause.C:
		case <-last.done:
		}
		what := []string{"gpuwm", "plugin", "both", "suspend"}[random.IntN(4)]
		tr.log = append(tr.log, fmt.Sprintf("---- %s after %d lines", what, count))
		switch what {
		case "gpuwm", "both":
			_ = last.cmd.Process.Kill()
		case "suspend":
			_ = last.cmd.Process.Signal(syscall.SIGINT)
		}
		if what == "plugin" || what == "both" {
			if _, err := killPlugins(tr.data); err != nil {
				t.Fatal(err)
			}
		}
		if what == "plugin" {
			continue // the same run goes on
		}
		code, ended = tr.wait(last), true
		if code == cli.ExitDone {
			break
		}
		if code != cli.ExitSuspended && code >= 0 {
			t.Fatalf("exit code %d after %s\n%s", code, what, last.stderr())
		}
		if code == cli.ExitSuspended && len(plugins(tr.data)) > 0 {
			t.Fatalf("suspended, but plugins %v live", plugins(tr.data))
		}
		last, ended = tr.start(), false
	}
	if !ended {
		code = tr.wait(last)
	}
	if code != cli.ExitDone {
		t.Fatalf("exit code %d at the end\n%s", code, last.stderr())
	}
	tr.finish(last, want)
}
