package plugintest

import (
	"github.com/gpuwm/gpuwm/core"
)

var cancelChecks = []check{
	{name: "cancels-an-executing-job", level: core.LevelJobs, run: cancelsExecuting,
		doc: "a cancel takes an executing job off at the next preemption point; the report says how far it came"},
	{name: "cancels-a-waiting-job", level: core.LevelJobs, run: cancelsWaiting,
		doc: "a cancel takes a job out of the ring that has not started; those before and after it go on"},
	{name: "later-jobs-run-after-a-cancel", level: core.LevelJobs, run: laterJobsRun,
		doc: "jobs behind a cancelled one run"},
	{name: "cancel-of-nothing-is-silent", level: core.LevelJobs, run: cancelOfNothing,
		doc: "a cancel of a job that has ended, or was never there, reports nothing"},
	{name: "cancel-ends-a-job-once", level: core.LevelJobs, run: cancelOnce,
		doc: "a cancelled job has one end, also when it is cancelled twice"},
	{name: "destroy-is-answered", level: core.LevelJobs, run: destroyAnswered,
		doc: "a destroy is answered with destroyed, and one of an entity that is not there too"},
	{name: "destroys-while-a-job-executes", level: core.LevelJobs, run: destroysExecuting,
		doc: "a destroy ends an executing job and names it, with how far it came"},
	{name: "nothing-after-destroyed", level: core.LevelJobs, run: nothingAfterDestroyed,
		doc: "after destroyed nothing of the entity is reported in this epoch"},
	{name: "entity-comes-again", level: core.LevelJobs, run: entityComesAgain,
		doc: "a destroyed entity can be created in a later epoch"},
}

func cancelsExecuting(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	e.cancel(job)
	got := e.ended(job)
	if got.Kind == core.EventCompleted && p.kit.device.Granularity == core.GranularityCommand {
		return // it was too late
	}
	if got.Kind != core.EventCancelled || got.Done >= foreverGroups {
		p.failf("a job that executes was cancelled and ended with %s, %d of %d workgroups done", tell(&got), got.Done, foreverGroups)
	}
	if got.Executed < got.Done {
		p.failf("%d workgroups are done and %d were executed", got.Done, got.Executed)
	}
}

func cancelsWaiting(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, foreverGroups)
	first := e.forever(1)
	waits, behind := e.run(8, 2), e.run(8, 3)
	e.cancel(waits)
	if got := e.ended(waits); got.Kind != core.EventCancelled || got.Done != 0 || got.Executed != 0 {
		p.failf("a job that waits was cancelled and ended with %s, %d workgroups done", tell(&got), got.Done)
	}
	e.none("the cancelled job was not the one that executes", func(b *core.BackendEvent) bool {
		return b.Job == first && b.Kind != core.EventStarted || b.Job == waits && b.Kind == core.EventStarted
	})
	e.cancel(first)
	e.ended(first)
	e.completed(behind)
}

func laterJobsRun(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	later := e.run(8, 2)
	e.cancel(job)
	e.ended(job)
	e.completed(later)
	e.completed(e.run(8, 3))
}

func cancelOfNothing(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	job := e.run(8, 1)
	e.completed(job)
	e.cancel(job)
	const never = 1 << 50
	e.cancel(never)
	e.completed(e.run(8, 2))
	e.none("a cancel of a job that is not there was answered", func(b *core.BackendEvent) bool {
		return b.Kind == core.EventCancelled || b.Kind == core.EventRefused
	})
}

func cancelOnce(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	e.cancel(job)
	e.cancel(job)
	e.ended(job)
	e.completed(e.run(8, 2))
	e.destroy()
	ends := 0
	for _, b := range e.own() {
		if b.Job == job && (b.Kind == core.EventCancelled || b.Kind == core.EventCompleted) {
			ends++
		}
	}
	if ends != 1 {
		p.failf("a job that was cancelled twice was reported as ended %d times", ends)
	}
}

func destroyAnswered(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	e.completed(e.run(8, 1))
	e.destroy()
	e.destroy()
}

func destroysExecuting(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	if got := e.destroy(); got.Job != job || got.Done >= foreverGroups {
		p.failf("while job %d executed, destroy was answered with %s, %d workgroups done", job, tell(&got), got.Done)
	}
}

func nothingAfterDestroyed(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, foreverGroups)
	e.forever(1)
	e.run(8, 2)
	e.destroy()
	// Another entity's work gives time for what must not come.
	other := p.entity(l, 8)
	for n := range uint32(8) {
		other.completed(other.run(8, n))
	}
	own := e.own()
	if last := own[len(own)-1]; last.Kind != core.EventDestroyed {
		p.failf("after destroyed came %s", tell(&last))
	}
}

func entityComesAgain(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	e.destroy()
	next := e.again(l)
	next.create(next.fresh([][]byte{make([]byte, 32)}))
	next.completed(next.run(8, 2))
}
