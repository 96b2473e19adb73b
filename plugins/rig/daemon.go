package rig

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Daemon gives a device random work and mends what is lost, as a daemon would: a
// lost entity starts over from its image without the job that is to blame, and a device that was
// given up is replaced. Everything is drawn from one seed.
type Daemon struct {
	T      T
	Random *rand.Rand
	Faults *hw.Faults
	// Make makes an instance of the device; an error says that it did not come up.
	Make func() (*World, error)
	// Accuses says whom a fault makes look guilty that is about to be carried out; nobody else may be
	// blamed for a job that is not bad itself. It is called in the middle of the firmware's work.
	Accuses func(hw.Hit) []Suspect
	// Quiet checks what must hold when nothing is under way.
	Quiet func()
	// Step, unless nil, may do something of the vendor's own in place of an ordinary step; false says that it did not.
	Step func() bool
	// Rouse, unless nil, makes a device that was put to sleep take requests.
	Rouse func()
	// Check, unless nil, is called in place of World.Check.
	Check func(l *Life, done []Done)

	World *World
	Sum   Tally
	hash  hash.Hash
	seen  uint64
	kept  []*kept
	next  core.JobID
	epoch core.Epoch
	// suspects are those of this instance.
	suspects map[Suspect]bool
}

// Suspect is a job of an entity, on this instance of the device. Job 0 is whichever comes first when word of it arrives.
type Suspect struct {
	Entity core.EntityID
	Job    core.JobID
}

var background = context.Background()

// steps of a run, entities in it, and what bounds the waiting for its end.
const (
	runSteps    = 40
	runEntities = 3
	ringJobs    = 4
	jobsMax     = 24
	rescuesMax  = 100
	startsMax   = 20
	pumpsMax    = 200_000
	// settleTime is longer than any injected freeze and the bound that notices it.
	settleTime = 10 * time.Second
)

// Run does all of it and returns a digest of everything that happened.
func (d *Daemon) Run() [32]byte {
	d.T.Helper()
	d.hash = sha256.New()
	d.Faults.Watch(func(h hw.Hit) {
		for _, s := range d.Accuses(h) {
			d.suspects[s] = true
		}
	})
	d.start()
	for i := range runEntities {
		e := &kept{name: string(rune('a' + i)), done: map[core.JobID]uint64{}}
		d.kept = append(d.kept, e)
		d.revive(e)
	}
	d.mend()
	for range runSteps {
		d.step()
		d.mend()
	}
	d.Faults.Disarm()
	// What was injected last shows before everything has to go well.
	d.World.Run(settleTime)
	d.mend()
	d.finish()
	d.Sum.Faults += int(d.Faults.Fired())
	d.leave()
	return [32]byte(d.hash.Sum(nil))
}

// start begins an instance; one that does not come up is ended.
func (d *Daemon) start() {
	for range startsMax {
		d.suspects = map[Suspect]bool{}
		w, err := d.Make()
		d.World, d.seen = w, 0
		if err == nil && len(w.Failed) == 0 {
			return
		}
		d.leave()
	}
	d.T.Fatal("the device did not come up")
}

// leave ends the instance.
func (d *Daemon) leave() {
	d.trace()
	fmt.Fprintf(d.hash, "%q", d.World.Log)
	d.World.End()
}

// trace takes the firmware's trace into the digest.
func (d *Daemon) trace() {
	for _, line := range d.World.Trace.Since(d.seen, traceLines) {
		d.seen = line.Seq
		fmt.Fprintln(d.hash, line)
	}
}

// revive brings an entity onto the device from its last image: what had not
// ended in it runs again from there, jobs that completed since without being reported again.
func (d *Daemon) revive(e *kept) {
	d.epoch++
	l, err := d.World.TryCreate(e.name, e.image)
	if err != nil {
		if len(d.World.Failed) == 0 {
			d.World.Broken("revive %s: %v", e.name, err)
		}
		return
	}
	e.life = l
	for _, j := range e.jobs {
		if j.outcome == "" || j.outcome == "completed" && e.done[j.id] < uint64(j.count) {
			d.submit(e, j)
		}
	}
	if e.suspended {
		_ = l.Suspend(background)
	}
}

// submit hands a job over, from where it was in the image.
func (d *Daemon) submit(e *kept, j *keptJob) {
	job := d.World.Job(j.id, j.count, j.script)
	job.First, job.Epoch = e.done[j.id], d.epoch
	if err := e.life.Run(background, job); err != nil && len(d.World.Failed) == 0 && len(e.life.Lost) == 0 {
		d.World.Broken("%s: job %d: %v", e.name, j.id, err)
	}
}

// mend does what a daemon does about losses.
func (d *Daemon) mend() {
	for range rescuesMax {
		d.trace()
		for _, e := range d.kept {
			d.collect(e)
		}
		if len(d.World.Failed) > 0 {
			d.blame()
			d.Sum.Restarts++
			d.leave()
			d.start()
			for _, e := range d.kept {
				d.revive(e)
			}
			continue
		}
		at := slices.IndexFunc(d.kept, func(e *kept) bool { return len(e.life.Lost) > 0 })
		if at < 0 {
			return
		}
		e := d.kept[at]
		d.blame()
		d.rouse()
		if err := e.life.Destroy(background); err == nil {
			d.revive(e)
		} else if len(d.World.Failed) == 0 {
			d.World.Broken("destroy %s: %v", e.name, err)
		}
	}
	d.World.Broken("losses without end")
}

// blame notes what the guilty jobs came to, once.
func (d *Daemon) blame() {
	for _, e := range d.kept {
		if e.life == nil || e.life == e.blamed {
			continue
		}
		if len(e.life.Lost) > 0 {
			e.blamed = e.life
		}
		for _, lost := range e.life.Lost {
			if !lost.Guilty {
				d.Sum.Victims++
				continue
			}
			d.Sum.Guilty++
			at := slices.IndexFunc(e.jobs, func(j *keptJob) bool { return j.id == lost.Job })
			if at < 0 || !e.jobs[at].bad() && !d.suspected(e.life.Spec.ID, lost.Job) {
				d.World.Broken("%s is guilty (%+v), and nothing was injected that could make it so: suspects %v, plan %v", e.name, lost, d.suspects, d.Faults.Counts())
			}
			if j := e.jobs[at]; j.outcome == "" {
				j.outcome = "failed"
			}
		}
	}
}

// suspected reports whether a fault was injected that makes just this job look guilty, in this life.
func (d *Daemon) suspected(e core.EntityID, j core.JobID) bool {
	return d.suspects[Suspect{e, j}] || d.suspects[Suspect{Entity: e}]
}

func (d *Daemon) rouse() {
	if d.Rouse != nil {
		d.Rouse()
	}
}

// step does one random thing.
func (d *Daemon) step() {
	if d.Step != nil && d.Step() {
		return
	}
	e := d.kept[d.Random.IntN(len(d.kept))]
	ring := len(slices.DeleteFunc(slices.Clone(e.jobs), func(j *keptJob) bool { return j.outcome != "" }))
	switch d.Random.IntN(15) {
	case 0, 1, 2, 3, 4:
		if ring < ringJobs && len(e.jobs) < jobsMax {
			d.next++
			j := &keptJob{id: d.next, count: uint32(1 + d.Random.IntN(120)), script: "workgroup=1ms"}
			if d.Random.IntN(12) == 0 {
				j.script += []string{" trap at 2", " hang at 1"}[d.Random.IntN(2)]
			}
			e.jobs = append(e.jobs, j)
			d.Sum.Jobs++
			d.submit(e, j)
		}
	case 5:
		if len(e.jobs) == 0 {
			return
		}
		// One that has its outcome and only runs again to rebuild the buffers stays.
		if j := e.jobs[d.Random.IntN(len(e.jobs))]; j.outcome == "" {
			_ = e.life.Cancel(background, j.id)
		}
	case 6, 7, 8:
		e.suspended = true
		if e.life.Suspend(background) == nil {
			d.Sum.Suspends++
			d.save(e)
		}
	case 9, 10:
		e.suspended = false
		_ = e.life.Resume(background)
	case 11:
		p := []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
		_ = e.life.SetProperties(background, core.Properties{Priority: p[d.Random.IntN(3)]})
	default:
		d.World.Run(time.Duration(1+d.Random.IntN(60)) * time.Millisecond)
	}
}
