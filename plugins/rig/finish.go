package rig

import (
	"fmt"
	"slices"
	"time"
)

// finish lets everything come to its end.
func (d *Daemon) finish() {
	d.rouse()
	for _, e := range d.kept {
		e.suspended = false
		_ = e.life.Resume(background)
	}
	for range pumpsMax {
		d.mend()
		if !slices.ContainsFunc(d.kept, func(e *kept) bool { return slices.ContainsFunc(e.jobs, e.open) }) {
			d.check()
			return
		}
		if !d.World.Pump() && len(d.World.Failed) == 0 {
			break
		}
	}
	var left []string
	for _, e := range d.kept {
		for _, j := range e.jobs {
			if e.open(j) {
				left = append(left, fmt.Sprintf("%s job %d (%q)", e.name, j.id, j.outcome))
			}
		}
	}
	d.World.Broken("jobs without an end: %v", left)
}

// check compares every output, and runs one more job on a fresh entity.
func (d *Daemon) check() {
	for _, e := range d.kept {
		var all []Done
		for _, j := range e.jobs {
			done := e.done[j.id]
			if e.life.Ended[j.id] != "" {
				done = e.life.Usage[j.id].Done
			}
			if j.outcome == "completed" && done != uint64(j.count) {
				d.World.Broken("%s: job %d completed after %d of %d", e.name, j.id, done, j.count)
			}
			all = append(all, Done{j.id, done})
		}
		d.compare(e.life, all)
	}
	fresh := d.World.Create("fresh", nil)
	d.epoch++
	job := d.World.Job(d.next+1, 20, "workgroup=1ms")
	job.Epoch = d.epoch
	d.World.OK(fresh.Run(background, job))
	d.World.Until("the fresh job", fresh.Over)
	if how := fresh.Ended[job.Spec.ID]; how != "completed" {
		d.World.Broken("the fresh job: %q", how)
	}
	for _, e := range d.kept {
		d.World.OK(e.life.Destroy(background))
	}
	d.World.OK(fresh.Destroy(background))
	d.World.Run(time.Second)
	d.Quiet()
}

// compare looks at an entity's output.
func (d *Daemon) compare(l *Life, done []Done) {
	if d.Check != nil {
		d.Check(l, done)
		return
	}
	var counts []uint64
	for _, j := range done {
		counts = append(counts, j.Count)
	}
	d.World.Check(l, counts...)
}
