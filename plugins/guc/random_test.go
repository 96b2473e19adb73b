package guc

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
)

// seedsDefault is how many random runs an ordinary test does; GPUWM_SEEDS says how many, GPUWM_SEED which one.
const seedsDefault = 60

// TestRandomRuns runs driver and firmware with random work and random faults, all on
// one goroutine in virtual time, each seed twice with the same trace. Once the plan is
// over, with restarts of the instance if the device was given up, every job ends, outputs are
// right, and the next job of a fresh entity completes.
func TestRandomRuns(t *testing.T) {
	first, count := uint64(0), uint64(seedsDefault)
	if text := os.Getenv("GPUWM_SEEDS"); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		count = n
	}
	if text := os.Getenv("GPUWM_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, count = n, 1
	}
	sum := tally{}
	for seed := first; seed < first+count; seed++ {
		s := seeded{T: t, seed: seed}
		one, again := runSeed(s, &sum), runSeed(s, &tally{})
		if one != again {
			s.Fatalf("the second run differs: %x and %x", one, again)
		}
	}
	t.Logf("%d seeds: %+v", count, sum)
}

// tally is what the runs met.
type tally struct{ Jobs, Faults, Resets, Restarts, Guilty, Victims, Moves, Sleeps int }

// seeded is a test that says how to repeat a failure.
type seeded struct {
	*testing.T
	seed uint64
}

func (s seeded) replay() string {
	return fmt.Sprintf("\nreplay: GPUWM_SEED=%d go test ./plugins/guc -run '^TestRandomRuns$'", s.seed)
}

// Fatal implements rig.T.
func (s seeded) Fatal(args ...any) {
	s.T.Helper()
	s.T.Fatal(fmt.Sprint(args...) + s.replay())
}

// Fatalf implements rig.T.
func (s seeded) Fatalf(format string, args ...any) {
	s.T.Helper()
	s.T.Fatalf("%s%s", fmt.Sprintf(format, args...), s.replay())
}

// run is one random run: what a daemon would keep, and the world that may be replaced.
type run struct {
	t      rig.T
	random *rand.Rand
	setup  setup
	w      *world
	sum    *tally
	hash   hash.Hash
	kept   []*keptEntity
	next   core.JobID
	epoch  core.Epoch
	// cold says that the device was put to sleep.
	cold bool
}

// keptEntity is an entity with its last image and the jobs it was given.
type keptEntity struct {
	name  string
	life  *rig.Life
	image core.ImageSource
	// done is how far each job is in the image.
	done      map[core.JobID]uint64
	jobs      []*keptJob
	suspended bool
}

// keptJob is a job; outcome is final.
type keptJob struct {
	id      core.JobID
	count   uint32
	script  string
	outcome string
}

// resetMessages are what a forced disable makes the firmware say, in any order.
var resetMessages = []abi.Action{abi.ActionStateCapture, abi.ActionContextReset, abi.ActionSchedContextModeDone}

func runSeed(t rig.T, sum *tally) [32]byte {
	t.Helper()
	seed := t.(seeded).seed
	r := &run{t: t, random: rand.New(rand.NewPCG(seed, 7)), sum: sum, hash: sha256.New()}
	faults, err := fw.NewFaults(fw.RandomPlan(seed, 1+r.random.IntN(6)))
	if err != nil {
		t.Fatal(err)
	}
	delay, done := time.Duration(r.random.IntN(3))*200*time.Microsecond, time.Duration(r.random.IntN(3))*500*time.Microsecond
	free, instances := r.random.IntN(2) == 0, 1+r.random.IntN(2)
	open := fw.OpenPoints{
		KeepPreemption: r.random.IntN(2) == 0, CarryQuantum: r.random.IntN(2) == 0, NotifyFirst: r.random.IntN(2) == 0,
		Promote: time.Duration(r.random.IntN(2)) * 50 * time.Millisecond,
	}
	for _, i := range r.random.Perm(len(resetMessages)) {
		open.ResetOrder = append(open.ResetOrder, resetMessages[i])
	}
	r.setup = setup{arena: 32 << 20, faults: faults, clock: hw.NewVirtualClock(),
		firmware: func(c *fw.Config) {
			c.MessageDelay, c.DoneDelay, c.NoHeadOfLineBlocking, c.OpenPoints = delay, done, free, open
			c.Classes = map[abi.EngineClass]int{abi.ClassCompute: instances}
		},
		driver: func(c *driver.Config) { c.Credits, c.Instances = 32, instances }}
	r.start()
	for i := range 3 {
		e := &keptEntity{name: string(rune('a' + i)), done: map[core.JobID]uint64{}}
		r.kept = append(r.kept, e)
		r.revive(e)
	}
	r.mend()
	for range 40 {
		r.step()
		r.mend()
	}
	faults.Disarm()
	r.finish()
	r.sum.Faults += int(faults.Fired())
	r.leave()
	return [32]byte(r.hash.Sum(nil))
}

// start begins an instance; one that does not come up is ended, as a daemon would.
func (r *run) start() {
	for range 20 {
		w, err := r.setup.make(r.t)
		w.law.hash = r.hash
		r.w = w
		r.cold = false
		if err == nil && len(w.Failed) == 0 {
			return
		}
		r.leave()
	}
	r.t.Fatal("the device did not come up")
}

// leave ends the instance.
func (r *run) leave() {
	r.sum.Resets += r.w.driver.Resets()
	hot, cold := r.w.driver.Sleeps()
	r.sum.Sleeps += hot + cold
	fmt.Fprintf(r.hash, "%q", r.w.Log)
	r.w.End()
}

// revive brings an entity onto the device from its last image: what had not
// ended in it runs again from there, jobs that completed since without being reported again.
func (r *run) revive(e *keptEntity) {
	r.epoch++
	l, err := r.w.TryCreate(e.name, e.image)
	if err != nil {
		if len(r.w.Failed) == 0 {
			r.t.Fatal(err)
		}
		return
	}
	e.life = l
	for _, j := range e.jobs {
		if j.outcome == "" || j.outcome == "completed" && e.done[j.id] < uint64(j.count) {
			r.submit(e, j)
		}
	}
	if e.suspended {
		_ = l.Suspend(background)
	}
}

// submit hands a job over, from where it was in the image.
func (r *run) submit(e *keptEntity, j *keptJob) {
	job := r.w.Job(j.id, j.count, j.script)
	job.First, job.Epoch = e.done[j.id], r.epoch
	if err := e.life.Run(background, job); err != nil && len(r.w.Failed) == 0 && len(e.life.Lost) == 0 {
		r.t.Fatalf("%s: job %d: %v", e.name, j.id, err)
	}
}

// collect takes the outcomes of an entity's jobs; a replayed one is not reported twice.
func (r *run) collect(e *keptEntity) {
	if e.life == nil {
		return
	}
	for _, j := range e.jobs {
		if how := e.life.Ended[j.id]; how != "" && j.outcome == "" {
			j.outcome = how
		}
	}
}

// mend does what a daemon does about losses: a lost entity starts over from its image,
// without the job that is to blame; a device that was given up gets a new instance.
func (r *run) mend() {
	for range 100 {
		for _, e := range r.kept {
			r.collect(e)
		}
		if len(r.w.Failed) > 0 {
			r.blame()
			r.sum.Restarts++
			r.leave()
			r.start()
			for _, e := range r.kept {
				r.revive(e)
			}
			continue
		}
		at := slices.IndexFunc(r.kept, func(e *keptEntity) bool { return len(e.life.Lost) > 0 })
		if at < 0 {
			return
		}
		e := r.kept[at]
		r.blame()
		if r.cold {
			_ = r.w.driver.Wake(background)
			r.cold = false
		}
		if err := e.life.Destroy(background); err == nil {
			r.revive(e)
		} else if len(r.w.Failed) == 0 {
			r.t.Fatalf("destroy %s: %v", e.name, err)
		}
	}
	r.t.Fatal("losses without end")
}

// blame notes what the guilty jobs came to.
func (r *run) blame() {
	for _, e := range r.kept {
		if e.life == nil {
			continue
		}
		for _, lost := range e.life.Lost {
			if !lost.Guilty {
				r.sum.Victims++
				continue
			}
			r.sum.Guilty++
			if !r.suspicious() {
				r.w.Broken("%s is guilty (%+v), and nothing was injected that could make it so", e.name, lost)
			}
			for _, j := range e.jobs {
				if j.id == lost.Job && j.outcome == "" {
					j.outcome = "failed"
				}
			}
		}
		e.life.Lost = slices.Clip(e.life.Lost)
	}
}

// suspicious reports whether a fault was injected that makes a context look guilty.
func (r *run) suspicious() bool {
	for _, c := range r.setup.faults.Counts() {
		if c.Fired > 0 && (c.Point == fw.PointBatch || c.Point == fw.PointEngineReset || c.Action == fw.FaultID || c.Action == fw.FaultAction ||
			c.Action == fw.FaultDuplicate || c.Action == fw.FaultDelay) {
			return true
		}
	}
	return slices.ContainsFunc(r.kept, func(e *keptEntity) bool {
		return slices.ContainsFunc(e.jobs, func(j *keptJob) bool { return strings.Contains(j.script, "hang") || strings.Contains(j.script, "trap") })
	})
}

// step does one random thing.
func (r *run) step() {
	e := r.kept[r.random.IntN(len(r.kept))]
	ring := len(slices.DeleteFunc(slices.Clone(e.jobs), func(j *keptJob) bool { return j.outcome != "" }))
	if r.cold {
		if r.random.IntN(3) == 0 {
			_ = r.w.driver.Wake(background)
			r.cold = false
		}
		r.w.Run(time.Duration(r.random.IntN(100)) * time.Millisecond)
		return
	}
	switch r.random.IntN(16) {
	case 0, 1, 2, 3, 4:
		if ring < 4 && len(e.jobs) < 24 {
			r.next++
			j := &keptJob{id: r.next, count: uint32(1 + r.random.IntN(40)), script: "workgroup=1ms"}
			if r.random.IntN(12) == 0 {
				j.script += []string{" trap=2", " hang=1"}[r.random.IntN(2)]
			}
			e.jobs = append(e.jobs, j)
			r.sum.Jobs++
			r.submit(e, j)
		}
	case 5:
		if len(e.jobs) == 0 {
			break
		}
		// One that has its outcome and only runs again to rebuild the buffers stays.
		if j := e.jobs[r.random.IntN(len(e.jobs))]; j.outcome == "" {
			_ = e.life.Cancel(background, j.id)
		}
	case 6, 7, 8:
		e.suspended = true
		if e.life.Suspend(background) == nil {
			r.save(e)
		}
	case 9, 10:
		e.suspended = false
		_ = e.life.Resume(background)
	case 11:
		p := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
		_ = e.life.SetProperties(background, core.Properties{Priority: p[r.random.IntN(3)]})
	case 12:
		if r.random.IntN(3) == 0 && r.w.driver.Sleep(background) == nil {
			r.cold = true
		}
	case 13:
		if r.random.IntN(2) == 0 {
			r.move()
		}
	default:
		r.w.Run(time.Duration(r.random.IntN(60)) * time.Millisecond)
	}
}

// move moves the device. When that fails on the way, the instance is given up.
func (r *run) move() {
	if err := r.w.move(); err != nil {
		if len(r.w.Failed) == 0 && r.w.driver.Unpause(background) != nil && len(r.w.Failed) == 0 {
			r.w.Run(10 * time.Second) // A reset is under way, or the pause comes late.
			if r.w.driver.Unpause(background) != nil && !r.w.driver.Up() {
				r.w.Failed = append(r.w.Failed, errors.New("neither moved nor resumed"))
			}
		}
		return
	}
	r.sum.Moves++
}

// save takes an image and what it holds.
func (r *run) save(e *keptEntity) {
	image, err := e.life.Save(background)
	if err != nil {
		return
	}
	header := image.Header()
	contents := [][]byte{make([]byte, rig.BufferSize), make([]byte, 100)}
	if image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		copy(contents[ref.Buffer][ref.Index*core.ChunkSize:], chunk)
		return nil
	}) != nil {
		return
	}
	r.collect(e)
	e.image = sdk.BufferImage(header, contents)
	for _, j := range e.jobs {
		if e.life.Ended[j.id] != "" {
			e.done[j.id] = e.life.Usage[j.id].Done
		}
	}
	for _, j := range header.Jobs {
		e.done[j.Job] = j.Cursor
	}
}

// finish lets everything come to its end.
func (r *run) finish() {
	if r.cold {
		_ = r.w.driver.Wake(background)
		r.cold = false
	}
	for _, e := range r.kept {
		e.suspended = false
		_ = e.life.Resume(background)
	}
	for range 10_000 {
		r.mend()
		if !slices.ContainsFunc(r.kept, func(e *keptEntity) bool {
			return slices.ContainsFunc(e.jobs, func(j *keptJob) bool { return j.outcome == "" || e.busy(j.id) })
		}) {
			r.check()
			return
		}
		if !r.w.Pump() {
			break
		}
	}
	var left []string
	for _, e := range r.kept {
		for _, j := range e.jobs {
			if j.outcome == "" || e.busy(j.id) {
				left = append(left, fmt.Sprintf("%s job %d (%q)", e.name, j.id, j.outcome))
			}
		}
	}
	r.w.Broken("jobs without an end: %v, contexts %+v", left, r.w.driver.Contexts())
}

// busy reports whether a job was handed over and has not ended.
func (e *keptEntity) busy(id core.JobID) bool {
	return slices.Contains(e.life.Given(), id) && e.life.Ended[id] == ""
}

// check compares every output, and runs one more job on a fresh entity.
func (r *run) check() {
	for _, e := range r.kept {
		var all [][2]uint64
		for _, j := range e.jobs {
			done := e.done[j.id]
			if e.life.Ended[j.id] != "" {
				done = e.life.Usage[j.id].Done
			}
			if j.outcome == "completed" && done != uint64(j.count) {
				r.w.Broken("%s: job %d completed after %d of %d", e.name, j.id, done, j.count)
			}
			all = append(all, [2]uint64{uint64(j.id), done})
		}
		r.w.check(e.life, all...)
	}
	fresh := r.w.Create("fresh", nil)
	r.epoch++
	job := r.w.Job(r.next+1, 20, "workgroup=1ms")
	job.Epoch = r.epoch
	r.w.OK(fresh.Run(background, job))
	r.w.Until("the fresh job", func() bool { return fresh.Ended[r.next+1] != "" })
	for _, e := range r.kept {
		r.w.OK(e.life.Destroy(background))
	}
	r.w.OK(fresh.Destroy(background))
	r.w.Run(time.Second)
	r.w.law.quiet()
}
