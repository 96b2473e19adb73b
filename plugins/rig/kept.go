package rig

import (
	"slices"
	"strings"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
)

// Done is how many workgroups of a job ran.
type Done struct {
	Job   core.JobID
	Count uint64
}

// Tally is what a run met.
type Tally struct{ Jobs, Faults, Restarts, Guilty, Victims, Suspends int }

// Add counts another run in.
func (t *Tally) Add(o Tally) {
	t.Jobs, t.Faults, t.Restarts = t.Jobs+o.Jobs, t.Faults+o.Faults, t.Restarts+o.Restarts
	t.Guilty, t.Victims, t.Suspends = t.Guilty+o.Guilty, t.Victims+o.Victims, t.Suspends+o.Suspends
}

// kept is an entity with its last image and the jobs it was given.
type kept struct {
	name  string
	life  *Life
	image core.ImageSource
	// done is how far each job is in the image.
	done      map[core.JobID]uint64
	jobs      []*keptJob
	suspended bool
	// blamed is the life whose loss was looked at.
	blamed *Life
}

// keptJob is a job; outcome is final.
type keptJob struct {
	id      core.JobID
	count   uint32
	script  string
	outcome string
	usage   uint64
}

// bad reports whether the job is to blame by its own script.
func (j *keptJob) bad() bool {
	return strings.Contains(j.script, "hang") || strings.Contains(j.script, "trap")
}

// collect takes the outcomes of an entity's jobs; a replayed one is not reported twice.
func (d *Daemon) collect(e *kept) {
	if e.life == nil {
		return
	}
	for _, j := range e.jobs {
		if how := e.life.Ended[j.id]; how != "" && j.outcome == "" {
			j.outcome, j.usage = how, e.life.Usage[j.id].Done
		}
	}
}

// save takes an image and what it holds.
func (d *Daemon) save(e *kept) {
	image, err := e.life.Save(background)
	if err != nil {
		return
	}
	header, contents, err := Copy(image)
	if err != nil {
		return
	}
	d.collect(e)
	e.image = sdk.BufferImage(header, contents)
	for _, j := range e.jobs {
		// What a cancelled job wrote is there if it was cancelled in this life; it does not run again in another.
		if j.outcome == "completed" || e.life.Ended[j.id] == "cancelled" {
			e.done[j.id] = j.usage
		}
	}
	for _, j := range header.Jobs {
		e.done[j.Job] = j.Cursor
	}
}

// open reports whether a job has no outcome, or is being replayed.
func (e *kept) open(j *keptJob) bool {
	return j.outcome == "" || slices.Contains(e.life.given, j.id) && e.life.Ended[j.id] == ""
}
