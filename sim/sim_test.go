package sim

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// seedsDefault is how many seeds a plain test runs.
const seedsDefault = 1000

// TestSimulation runs seeds 0 to GPUWM_SEEDS, or the one seed GPUWM_SEED, each
// twice: nothing may break, and both traces must be the same.
func TestSimulation(t *testing.T) {
	if s := os.Getenv("GPUWM_SEED"); s != "" {
		runSeed(t, number(t, s))
		return
	}
	seeds := uint64(seedsDefault)
	if s := os.Getenv("GPUWM_SEEDS"); s != "" {
		seeds = number(t, s)
	}
	var mu sync.Mutex
	var wait sync.WaitGroup
	counts := make(map[string]int)
	next, failed := uint64(0), 0
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				done := seed >= seeds || failed >= 5
				mu.Unlock()
				if done {
					return
				}
				one := runSeed(t, seed)
				mu.Lock()
				for k, n := range one {
					counts[k] += n
				}
				if one == nil {
					failed++
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if failed == 0 && seeds >= seedsDefault {
		checkReached(t, counts)
	}
}

func number(t *testing.T, s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// runSeed runs a seed twice and returns what it reached, nil when it failed.
func runSeed(t *testing.T, seed uint64) map[string]int {
	replay := "replay: GPUWM_SEED=" + strconv.FormatUint(seed, 10) + " go test -run TestSimulation ./sim"
	first := Run(seed, false)
	if first.Problem != "" {
		trace := Run(seed, true).Trace
		t.Errorf("seed %d: %s\nlast steps:\n%s\n%s", seed, first.Problem,
			strings.Join(trace[max(0, len(trace)-traceShown):], "\n"), replay)
		return nil
	}
	if second := Run(seed, true); second.Hash != first.Hash {
		t.Errorf("seed %d: two runs differ, %x and %x\n%s", seed, first.Hash, second.Hash, replay)
		return nil
	}
	return first.Counts
}

// traceShown is how many steps before a failure are printed.
const traceShown = 120

// checkReached fails when a kind of fault or of outcome was never seen: then
// the simulation proves less than it says.
func checkReached(t *testing.T, counts map[string]int) {
	for _, what := range []string{
		"completed ", "failed trap", "failed hang", "failed kernel", "timed-out timeout", "timed-out queue-timeout",
		"cancelled user", "cancelled earlier-job", "killed user", "dependency-failed dependency",
		"failed sync", "stale session", "repeated command", "refused", "late suspend", "late preemption", "hang", "silent",
		"victim", "guilty", "device failed", "old report", "report doubled", "command doubled", "command overtakes", "event missing", "broken link", "instance ended", "daemon crashed",
		"restart", "save failed", "file not written", "wave", "wave gave up", "stopped", "submit refused", "forgotten",
	} {
		if counts[what] == 0 {
			t.Errorf("no seed reached: %s", what)
		}
	}
	if testing.Verbose() {
		t.Log(counts)
	}
}
