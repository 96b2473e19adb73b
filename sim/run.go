package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// stepsMax is how many steps with faults a run takes.
const stepsMax = 3000

// Result is what a run found.
type Result struct {
	Seed uint64
	// Problem is the first rule that was broken, empty for none.
	Problem string
	// Hash is of the whole trace.
	Hash uint64
	// Trace are the steps, if they were asked for.
	Trace []string
	// Counts say how often what happened, so that a test can see that every
	// fault and outcome is reached.
	Counts map[string]int
}

// Run runs one seed to its end. trace keeps the steps.
func Run(seed uint64, trace bool) (result Result) {
	w := newWorld(seed)
	w.keep = trace
	defer func() {
		if r := recover(); r != nil {
			w.problem("panic: %v", r)
		}
		result = Result{Seed: seed, Problem: w.broken, Hash: w.hash.Sum64(), Trace: w.trace, Counts: w.counts}
	}()
	w.begin()
	for range stepsMax {
		if w.broken != "" {
			return
		}
		w.now += core.Instant(w.rand.IntN(int(100 * time.Microsecond)))
		w.act()
	}
	w.heal()
	w.checkEnd()
	return
}

// config has small limits, so that a short run meets them all.
var config = sched.Config{
	Credits: ringMax, QueueMax: 5, ReplayMax: 25 * time.Millisecond, ReplayJobsMax: 6,
	Answer: 60 * time.Millisecond, Preempt: 40 * time.Millisecond, MinRun: time.Millisecond,
	Silence: 80 * time.Millisecond, ExtensionsMax: 2, MessagesMax: 3, FaultsMax: 3,
	LossesMax: 6, SaveTries: 2, Retry: 2 * time.Millisecond,
}

// ringMax is the room of a ring, when it is not less.
const ringMax = 6

func newWorld(seed uint64) *world {
	return &world{
		rand: rand.New(rand.NewPCG(seed, 0x67707577)), now: 1, hash: fnv.New64a(),
		medium: newMedium(), images: make(map[core.EntityID]map[core.Generation]*image),
		files: make(map[core.JobID]bool), usage: make(map[core.UsageKey]uint64),
		entities: make(map[core.EntityID]*entity), jobs: make(map[core.JobID]*job),
		foreign: make(map[core.Fence]*string), sent: make(map[commandKey]string),
		counts: make(map[string]int), ring: ringMax, nextEntity: 1, nextJob: 1,
	}
}

// problem notes the first rule that is broken.
func (w *world) problem(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
		w.note("PROBLEM %s", w.broken)
	}
}

// note adds a line to the trace and its hash.
func (w *world) note(format string, args ...any) {
	line := fmt.Sprintf("%d ", w.now) + fmt.Sprintf(format, args...)
	_, _ = w.hash.Write([]byte(line))
	if w.keep {
		w.trace = append(w.trace, line)
	}
}

func (w *world) chance(oneIn int) bool { return oneIn > 0 && w.rand.IntN(oneIn) == 0 }
