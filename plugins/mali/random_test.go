package mali

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// seedsDefault is how many random runs an ordinary test does; GPUWM_SEEDS says how many, GPUWM_SEED which one.
const seedsDefault = 40

// TestRandomRuns runs driver and firmware with random work and random faults, all on
// one goroutine in virtual time, each seed twice with the same trace. Once the plan is
// over, with restarts of the instance if the device was given up, every job ends, outputs are
// right, and the next job of a fresh entity completes.
func TestRandomRuns(t *testing.T) { rig.Seeds(t, "mali", seedsDefault, runSeed) }

// tally is what the runs met.
type tally struct{ Jobs, Faults, Resets, Restarts, Guilty, Victims, Sleeps, Images int }

// run is one random run: what a daemon would keep, and the world that may be replaced.
type run struct {
	t      fatal
	random *rand.Rand
	setup  setup
	w      *world
	sum    *tally
	hash   hash.Hash
	kept   []*keptEntity
	next   core.JobID
	epoch  core.Epoch
	// suspects are the jobs of this instance that a fault makes look guilty.
	suspects map[rig.Suspect]bool
}

// keptEntity is an entity with its last image and the jobs it was given.
type keptEntity struct {
	name  string
	life  *life
	image core.ImageSource
	// done is how far each job is in the image.
	done      map[core.JobID]uint64
	jobs      []*keptJob
	suspended bool
	// blamed is the life whose loss was looked at.
	blamed *life
}

// keptJob is a job; outcome is final.
type keptJob struct {
	id      core.JobID
	count   uint32
	script  string
	outcome string
	usage   uint64
}

func runSeed(t rig.Seeded, sum *tally) [32]byte {
	t.Helper()
	r := &run{t: t, random: rand.New(rand.NewPCG(t.Seed, 7)), sum: sum, hash: sha256.New()}
	faults, err := fw.NewFaults(hw.RandomPlan(t.Seed, 1+r.random.IntN(6), fw.Vocabulary()))
	if err != nil {
		t.Fatal(err)
	}
	flip := func() bool { return r.random.IntN(2) == 0 }
	groups, spaces, executions, chaos := 3+r.random.IntN(6), []uint32{0b11, 0b111, 0xFF}[r.random.IntN(3)], 1+r.random.IntN(2), r.random.Uint64N(3)
	dirty, fetch, zero, early := flip(), flip(), flip(), flip()
	var mixed *order // Half of the runs have the firmware step in the middle of what the driver does.
	if flip() {
		mixed = &order{random: rand.New(rand.NewPCG(t.Seed, 11))}
	}
	r.setup = setup{arena: 64 << 20, faults: faults, clock: hw.NewVirtualClock(), order: mixed,
		firmware: func(c *fw.Config) {
			c.Groups, c.AddressSpaces, c.Executions, c.Seed = groups, spaces, executions, chaos
			c.DirtyL2, c.ExtractAtFetch, c.BootAcksZero, c.FatalFirst = dirty, fetch, zero, early
		},
		driver: func(c *driver.Config) { c.Credits = 8 }}
	faults.Watch(r.suspect)
	r.start()
	for i := range 5 {
		e := &keptEntity{name: string(rune('a' + i)), done: map[core.JobID]uint64{}}
		r.kept = append(r.kept, e)
		r.revive(e)
	}
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
		r.suspects = map[rig.Suspect]bool{}
		w, err := r.setup.make(r.t)
		w.law.hash = r.hash
		r.w = w
		if err == nil && len(w.failed) == 0 {
			return
		}
		r.leave()
	}
	r.t.Fatal("the device did not come up")
}

// leave ends the instance.
func (r *run) leave() {
	off, _, _ := r.w.driver.Power()
	r.sum.Resets += r.w.driver.Resets()
	r.sum.Sleeps += off
	fmt.Fprintf(r.hash, "%q", r.w.log)
	r.w.end()
}

// revive brings an entity onto the device from its last image: what had not
// ended in it runs again from there, jobs that completed since without being reported again.
func (r *run) revive(e *keptEntity) {
	r.epoch++
	l, err := r.w.tryCreate(e.name, e.image)
	if err != nil {
		if len(r.w.failed) == 0 {
			r.t.Fatal(err)
		}
		return
	}
	e.life = l
	for _, j := range e.jobs {
		switch {
		case j.outcome == "" || j.outcome == "completed" && e.done[j.id] < uint64(j.count):
			r.submit(e, j)
		case j.outcome == "cancelled":
			j.usage = e.done[j.id] // What no image holds of it is gone.
		}
	}
	if e.suspended {
		_ = l.Suspend(background)
	}
}

// submit hands a job over, from where it was in the image.
func (r *run) submit(e *keptEntity, j *keptJob) {
	job := r.w.job(j.id, j.count, j.script)
	job.First, job.Epoch = e.done[j.id], r.epoch
	if err := e.life.Run(background, job); err != nil && len(r.w.failed) == 0 && len(e.life.lost) == 0 && !e.life.dying() {
		r.t.Fatalf("%s: job %d: %v", e.name, j.id, err)
	}
}

// dying reports whether the entity's group is condemned already.
func (l *life) dying() bool {
	l.w.run(time.Second)
	return len(l.lost) > 0 || len(l.w.failed) > 0
}

// collect takes the outcomes of an entity's jobs; a replayed one is not reported twice.
func (r *run) collect(e *keptEntity) {
	if e.life == nil {
		return
	}
	for _, j := range e.jobs {
		if how := e.life.ended[j.id]; how != "" && j.outcome == "" {
			j.outcome, j.usage = how, e.life.usage[j.id].Done
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
		if len(r.w.failed) > 0 {
			r.blame()
			r.sum.Restarts++
			r.leave()
			r.start()
			for _, e := range r.kept {
				r.revive(e)
			}
			continue
		}
		at := slices.IndexFunc(r.kept, func(e *keptEntity) bool { return len(e.life.lost) > 0 })
		if at < 0 {
			return
		}
		e := r.kept[at]
		r.blame()
		if err := e.life.Destroy(background); err == nil {
			r.revive(e)
		} else if len(r.w.failed) == 0 {
			r.w.law.broken("destroy %s: %v", e.name, err)
		}
	}
	r.w.law.broken("losses without end; plan %v", r.setup.faults.Counts())
}

// blame notes what the guilty jobs came to, once.
func (r *run) blame() {
	for _, e := range r.kept {
		if e.life == nil || e.life == e.blamed {
			continue
		}
		if len(e.life.lost) > 0 {
			e.blamed = e.life
		}
		for _, lost := range e.life.lost {
			if !lost.guilty {
				r.sum.Victims++
				continue
			}
			r.sum.Guilty++
			bad := slices.ContainsFunc(e.jobs, func(j *keptJob) bool { return j.id == lost.job && strings.Contains(j.script, " at ") })
			id := e.life.spec.ID
			if !bad && !r.suspects[rig.Suspect{Entity: id, Job: lost.job}] && !r.suspects[rig.Suspect{Entity: id}] {
				r.w.law.broken("%s is guilty (%+v), and nothing was injected that could make it so: suspects %v, plan %v", e.name, lost, r.suspects, r.setup.faults.Counts())
			}
			for _, j := range e.jobs {
				if j.id == lost.job && j.outcome == "" {
					j.outcome = "failed"
				}
			}
		}
	}
}

// suspect notes whose work a fault is about to spoil: the first job of who is on the slot.
func (r *run) suspect(h hw.Hit) {
	if h.Rule.Point != fw.PointRun && h.Rule.Point != fw.PointInstruction && h.Rule.Action != fw.FaultThen {
		return
	}
	for _, g := range r.w.driver.Groups() {
		for m, q := range g.Queues {
			if g.Slot >= 0 && uint64(g.Slot)*abi.StreamsMax+uint64(m) == h.ID {
				// They differ behind the count of a job: a fault there is still the job's.
				r.suspects[rig.Suspect{Entity: g.Entity, Job: q.First}] = true
				r.suspects[rig.Suspect{Entity: g.Entity, Job: q.At}] = true
				if h.Rule.Action == fw.FaultLate { // Told with whatever comes next in the stream.
					r.suspects[rig.Suspect{Entity: g.Entity}] = true
				}
			}
		}
	}
}

// step does one random thing.
func (r *run) step() {
	e := r.kept[r.random.IntN(len(r.kept))]
	ring := len(slices.DeleteFunc(slices.Clone(e.jobs), func(j *keptJob) bool { return j.outcome != "" }))
	switch r.random.IntN(16) {
	case 0, 1, 2, 3, 4, 5:
		if ring < 4 && len(e.jobs) < 24 {
			r.next++
			j := &keptJob{id: r.next, count: uint32(1 + r.random.IntN(40)), script: "workgroup=1ms"}
			if r.random.IntN(12) == 0 {
				j.script += []string{" trap at 2", " hang at 1"}[r.random.IntN(2)]
			}
			e.jobs = append(e.jobs, j)
			r.sum.Jobs++
			r.submit(e, j)
		}
	case 6:
		if len(e.jobs) > 0 {
			if j := e.jobs[r.random.IntN(len(e.jobs))]; j.outcome == "" { // What has an outcome is replayed at most.
				_ = e.life.Cancel(background, j.id)
			}
		}
	case 7, 8, 9:
		e.suspended = true
		if e.life.Suspend(background) == nil {
			r.save(e)
		}
	case 10, 11:
		e.suspended = false
		_ = e.life.Resume(background)
	case 12:
		p := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
		_ = e.life.SetProperties(background, core.Properties{Priority: p[r.random.IntN(3)]})
	case 13:
		if r.random.IntN(3) == 0 && r.w.driver.Sleep(background) == nil {
			r.w.run(time.Duration(r.random.IntN(100)) * time.Millisecond)
			_ = r.w.driver.Wake(background)
		}
	default:
		r.w.run(time.Duration(r.random.IntN(60)) * time.Millisecond)
	}
}

// save takes an image and what it holds.
func (r *run) save(e *keptEntity) {
	image, err := e.life.Save(background)
	if err != nil {
		return
	}
	r.sum.Images++
	r.collect(e)
	e.image = r.w.copied(image)
	for _, j := range e.jobs {
		if j.outcome == "completed" || j.outcome == "cancelled" && e.done[j.id] < j.usage {
			e.done[j.id] = j.usage
		}
	}
	for _, j := range image.Header().Jobs {
		e.done[j.Job] = j.Cursor
	}
}

// finish lets everything come to its end.
func (r *run) finish() {
	for _, e := range r.kept {
		e.suspended = false
		_ = e.life.Resume(background)
	}
	left := func() (jobs []string) {
		for _, e := range r.kept {
			for _, j := range e.jobs {
				if j.outcome == "" || slices.Contains(e.life.given, j.id) && e.life.ended[j.id] == "" {
					jobs = append(jobs, fmt.Sprintf("%s job %d (%q)", e.name, j.id, j.outcome))
				}
			}
		}
		return jobs
	}
	for range 30_000 {
		r.mend()
		if len(left()) == 0 {
			r.check()
			return
		}
		if !r.w.pump() {
			break
		}
	}
	r.w.law.broken("jobs without an end: %v", left())
}

// check compares every output, and runs one more job on a fresh entity.
func (r *run) check() {
	for _, e := range r.kept {
		var all []uint64
		for _, j := range e.jobs {
			done := e.done[j.id]
			if e.life.ended[j.id] != "" {
				done = e.life.usage[j.id].Done
			}
			if j.outcome == "completed" && done != uint64(j.count) {
				r.w.law.broken("%s: job %d completed after %d of %d", e.name, j.id, done, j.count)
			}
			all = append(all, done)
		}
		r.w.check(e.life, all...)
	}
	fresh := r.w.create("fresh", nil)
	r.epoch++
	job := r.w.job(r.next+1, 20, "workgroup=1ms")
	job.Epoch = r.epoch
	r.w.ok(fresh.Run(background, job))
	r.w.until("the fresh job", func() bool { return fresh.ended[r.next+1] != "" })
	for _, e := range r.kept {
		r.w.ok(e.life.Destroy(background))
	}
	r.w.ok(fresh.Destroy(background))
	r.w.run(time.Second)
	if len(r.w.driver.Groups()) > 0 {
		r.w.law.broken("groups are left")
	}
}
