package rig

import (
	"context"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
)

// Entity is all that an entity of a portable backend can do.
type Entity interface {
	sdk.Entity
	sdk.PropertySetter
	sdk.Suspender
	sdk.Saver
	sdk.Sampler
}

// Reports is what was reported about one entity.
type Reports struct {
	World   *World
	Name    string
	Started map[core.JobID]bool
	// Ended says how each job ended.
	Ended map[core.JobID]string
	Usage map[core.JobID]sdk.Usage
	Lost  []LostReport
	// given are the jobs that were taken, in order.
	given []core.JobID
	// through counts the reports of several jobs at once.
	through int
}

// LostReport is a report of a loss.
type LostReport struct {
	Guilty bool
	Job    core.JobID
	Usage  sdk.Usage
	Cause  core.Cause
	Detail string
}

// Given are the jobs that were taken, in order.
func (r *Reports) Given() []core.JobID { return r.given }

// Give notes a job as taken, where nobody waited for the answer.
func (r *Reports) Give(job core.JobID) { r.given = append(r.given, job) }

// Through counts the reports of several jobs at once.
func (r *Reports) Through() int { return r.through }

// reporter is the sdk.Reporter of Reports, and checks the order of what it hears.
type reporter struct{ *Reports }

var _ sdk.UpToReporter = reporter{}

// Started implements sdk.Reporter.
func (r reporter) Started(job core.JobID) {
	if r.Reports.Started[job] || r.Ended[job] != "" {
		r.World.Broken("%s: job %d started twice or after its end", r.Name, job)
	}
	r.Reports.Started[job] = true
	r.World.Log = append(r.World.Log, fmt.Sprintf("%s started %d", r.Name, job))
}

func (r reporter) end(job core.JobID, how string, u sdk.Usage) {
	if r.Ended[job] != "" || len(r.Reports.Lost) > 0 {
		r.World.Broken("%s: job %d %s after %q, lost %v", r.Name, job, how, r.Ended[job], r.Reports.Lost)
	}
	r.Ended[job], r.Reports.Usage[job] = how, u
	r.World.Log = append(r.World.Log, fmt.Sprintf("%s %s %d", r.Name, how, job))
}

// Completed implements sdk.Reporter.
func (r reporter) Completed(job core.JobID, u sdk.Usage) {
	if !r.Reports.Started[job] {
		r.World.Broken("%s: job %d completed before it started", r.Name, job)
	}
	if total := r.World.Sizes[job]; u.Done != total {
		r.World.Broken("%s: job %d completed after %d of %d workgroups", r.Name, job, u.Done, total)
	}
	r.end(job, "completed", u)
}

// CompletedThrough implements sdk.UpToReporter.
func (r reporter) CompletedThrough(job core.JobID, u sdk.Usage) {
	r.through++
	for _, id := range r.given {
		switch {
		case id == job:
			r.Completed(job, u)
			return
		case r.Ended[id] == "":
			r.Completed(id, sdk.Usage{Done: r.World.Sizes[id], Executed: r.World.Sizes[id]})
		}
	}
	r.World.Broken("%s: everything through job %d, which was not given", r.Name, job)
}

// Cancelled implements sdk.Reporter.
func (r reporter) Cancelled(job core.JobID, u sdk.Usage) { r.end(job, "cancelled", u) }

// Lost implements sdk.Reporter. Nobody loses what was not begun, and who is guilty is so of a job.
func (r reporter) Lost(guilty bool, job core.JobID, u sdk.Usage, cause core.Cause, detail string) {
	begun := false
	for id := range r.Reports.Started {
		begun = begun || r.Ended[id] == ""
	}
	switch {
	case len(r.Reports.Lost) > 0:
		r.World.Broken("%s: lost twice", r.Name)
	case guilty && (job == 0 || r.Ended[job] != ""):
		r.World.Broken("%s: guilty of job %d", r.Name, job)
	case !guilty && !begun:
		r.World.Broken("%s: a victim without a job that was begun", r.Name)
	}
	r.Reports.Lost = append(r.Reports.Lost, LostReport{guilty, job, u, cause, detail})
	r.World.Log = append(r.World.Log, fmt.Sprintf("%s lost %d %s guilty=%t", r.Name, job, cause, guilty))
}

// Life is an entity with its reports.
type Life struct {
	Entity
	*Reports
	Spec      *core.EntitySpec
	Destroyed bool
}

// Run notes what was taken.
func (l *Life) Run(ctx context.Context, j sdk.Job) error {
	l.given = append(l.given, j.Spec.ID)
	err := l.Entity.Run(ctx, j)
	if err != nil {
		l.given = l.given[:len(l.given)-1]
	}
	return err
}

// Suspend checks that nothing of the entity is on the engine when it returns.
func (l *Life) Suspend(ctx context.Context) error {
	err := l.Entity.Suspend(ctx)
	for _, id := range l.given {
		if err == nil && l.World.Engine.Running[id] != 0 {
			l.World.Broken("%s is suspended, and job %d is on the engine", l.Name, id)
		}
	}
	return err
}

// Destroy checks that nothing of the entity is on the engine when it returns.
func (l *Life) Destroy(ctx context.Context) error {
	err := l.Entity.Destroy(ctx)
	l.Destroyed = l.Destroyed || err == nil
	for _, id := range l.given {
		if err == nil && l.World.Engine.Running[id] != 0 {
			l.World.Broken("%s is gone, and job %d is on the engine", l.Name, id)
		}
	}
	return err
}

// Over reports whether all jobs have ended, or the entity was lost or destroyed.
func (l *Life) Over() bool {
	if len(l.Lost) > 0 || l.Destroyed {
		return true
	}
	for _, id := range l.given {
		if l.Ended[id] == "" {
			return false
		}
	}
	return true
}
