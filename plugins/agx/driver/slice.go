package driver

import (
	"fmt"
	"math"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// The rule by which a job is cut into commands:
//
//   - A command is to take half of the slice target, so that two of them fit into it and the GPU has
//     the next one when one ends.
//   - How many workgroups that is follows from the time that one workgroup took in the last command with the
//     same kernel, entry point and arguments in the entity.
//   - As long as nothing was measured, a command has one workgroup, and none follows it until it
//     has ended.
//   - A command has at most growthMax times as many workgroups as the one that was measured before, because few
//     workgroups on many cores say little about many; and as long as they grow so, each has ended before the next one.
//   - A command has at least one workgroup, whatever that takes, and at most what is left of the job.
//   - A command that is much shorter than the one before because the job ends says nothing new, unless it
//     took longer than a command may.
//   - Workgroups that took no measurable time count as timeLeast each.
const (
	growthMax = 8
	timeLeast = time.Nanosecond
	// ratesMax bounds what an entity remembers; beyond it everything is measured anew.
	ratesMax = 64
)

// rateKey is what times are remembered by: a digest of kernel, entry point and arguments.
type rateKey core.Digest

func rateOf(job *core.JobSpec, kernel core.Digest) rateKey {
	text := fmt.Sprintf("%s %s %v %v", kernel, job.Entry, job.Group, job.Args)
	return rateKey(core.DigestOf([]byte(text)))
}

// rate is what was measured.
type rate struct {
	// each is the time of one workgroup, count how many the measured command had.
	each  float64
	count uint64
}

// rates are the measured times of one entity.
type rates map[rateKey]rate

// measure notes what a command of count workgroups took in execution; tail says
// that it was cut short by the end of its job.
func (r rates) measure(key rateKey, count uint64, took time.Duration, tail bool, slice time.Duration) {
	known, have := r[key]
	if count == 0 || tail && have && count < known.count/2 && took <= slice/2 {
		return
	}
	if !have && len(r) >= ratesMax {
		clear(r)
	}
	r[key] = rate{each: max(float64(took)/float64(count), float64(timeLeast)), count: count}
}

// plan says how many of left workgroups the next command gets, and how long it
// will take. probe says that this is to be measured before another command
// follows.
func (r rates) plan(key rateKey, left uint64, slice time.Duration) (count uint64, cost time.Duration, probe bool) {
	known, ok := r[key]
	if !ok {
		return min(left, 1), slice / 2, true
	}
	fits := max(min(float64(slice/2)/known.each, math.MaxInt64/4), 1)
	grown := float64(known.count) * growthMax
	count = min(uint64(min(fits, grown)), left)
	cost = time.Duration(min(float64(count)*known.each, float64(math.MaxInt64/4)))
	return count, cost, grown < fits && float64(count) >= grown
}
