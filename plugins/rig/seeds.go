package rig

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// The variables that say how many random runs there are, and which one alone.
const (
	envSeeds = "GPUWM_SEEDS"
	envSeed  = "GPUWM_SEED"
)

// Seeds calls run for every seed, count of them unless the environment says otherwise, each
// twice: both must return the same digest of everything that happened. run adds what
// it met to a sum, which is logged. backend is the directory under plugins; it is for the replay line.
func Seeds[Sum any](t *testing.T, backend string, count uint64, run func(s Seeded, sum *Sum) [32]byte) {
	t.Helper()
	first, count := uint64(0), number(t, envSeeds, count)
	if os.Getenv(envSeed) != "" {
		first, count = number(t, envSeed, 0), 1
	}
	var sum, dropped Sum
	for seed := first; seed < first+count; seed++ {
		s := Seeded{T: t, Seed: seed, backend: backend}
		if one, again := run(s, &sum), run(s, &dropped); one != again {
			s.Fatalf("the second run differs: %x and %x", one, again)
		}
	}
	t.Logf("%d seeds: %+v", count, sum)
}

// number reads a variable of the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// Seeded is a test that says how to repeat a failure.
type Seeded struct {
	*testing.T
	Seed    uint64
	backend string
}

var _ T = Seeded{}

// Fatal implements T.
func (s Seeded) Fatal(args ...any) {
	s.T.Helper()
	s.Fatalf("%s", fmt.Sprint(args...))
}

// Fatalf implements T.
func (s Seeded) Fatalf(format string, args ...any) {
	s.T.Helper()
	s.T.Fatalf("%s\nreplay: %s=%d go test ./plugins/%s -run '^%s$'", fmt.Sprintf(format, args...), envSeed, s.Seed, s.backend, s.Name())
}
