package plugintest

import (
	"github.com/gpuwm/gpuwm/core"
)

var suspendChecks = []check{
	{name: "suspend-is-answered", level: core.LevelImages, run: suspendAnswered,
		doc: "an idle entity is suspended and resumed, and goes on"},
	{name: "suspend-repeats", level: core.LevelImages, run: suspendRepeats,
		doc: "a repeated suspend or resume changes nothing and is answered"},
	{name: "suspend-interrupts-a-job", level: core.LevelImages, run: suspendInterrupts,
		doc: "a suspend does not wait for the end of the executing job"},
	{name: "suspend-stops-work", level: core.LevelImages, run: suspendStops,
		doc: "once a suspend is done nothing of the entity executes, each time again"},
	{name: "suspend-keeps-the-ring", level: core.LevelImages, run: suspendKeeps,
		doc: "jobs stay in the ring over suspend and resume; all complete, in order"},
	{name: "suspend-executes-nothing-twice", level: core.LevelImages, run: suspendTwice,
		doc: "a job that was suspended and resumed executes each workgroup once"},
	{name: "suspend-reports-its-cost", level: core.LevelImages, run: suspendCost,
		doc: "message-done of a suspend says what it took from the command on"},
	{name: "suspended-runs-nothing", level: core.LevelImages, run: suspendedRuns,
		doc: "a job that is sent to a suspended entity waits until it is resumed"},
	{name: "suspended-cancels", level: core.LevelImages, run: suspendedCancels,
		doc: "a cancel of a suspended job ends it; the later ones run after resume"},
	{name: "suspended-is-destroyed", level: core.LevelImages, run: suspendedDestroyed,
		doc: "a suspended entity can be destroyed, in the middle of a job"},
	{name: "suspend-keeps-its-place", level: core.LevelImages, run: suspendPlace,
		doc: "suspend and resume that are sent together are carried out in order"},
	{name: "suspended-sets-properties", level: core.LevelImages, run: suspendedProperties,
		doc: "properties of a suspended entity can be set"},
	{name: "suspend-of-one-spares-others", level: core.LevelImages, run: suspendSpares,
		doc: "while one entity is suspended others execute"},
}

func suspendAnswered(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	e.suspend()
	e.resume()
	e.completed(e.run(8, 1))
	e.suspend()
	e.resume()
	e.completed(e.run(8, 2))
}

func suspendRepeats(p *probe) {
	c := p.catch(p.open(deviceName))
	c.suspend()
	p.same("after a second suspend", c.cells(), toCells(c.image.buffers[0]))
	c.resume()
	c.resume()
	c.completed(c.run.Job)
}

func suspendInterrupts(p *probe) {
	if p.kit.device.Granularity == core.GranularityCommand {
		p.skipf("the device is preempted between commands only")
	}
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	e.suspend()
	e.none("the job was too long for its end", func(b *core.BackendEvent) bool { return b.Job == job && b.Kind == core.EventCompleted })
	e.cancel(job)
	e.resume()
	e.ended(job)
}

// suspendStops compares two images of a suspended entity between which others worked.
func suspendStops(p *probe) {
	const rounds = 3
	l := p.open(deviceName)
	before := make([]uint32, foreverGroups)
	e := p.filled(l, before)
	other := p.entity(l, 8)
	job := e.forever(5)
	for round := range rounds {
		e.suspend()
		first := e.image()
		c := other.slow(8, 1)
		l.send(c)
		other.completed(c.Job)
		second := e.image()
		if len(first.header.Jobs) != 1 || len(second.header.Jobs) != 1 {
			p.failf("suspension %d: the images have %d and %d unfinished jobs; it is one", round+1, len(first.header.Jobs), len(second.header.Jobs))
		}
		if a, b := first.header.Jobs[0], second.header.Jobs[0]; a != b {
			p.failf("suspension %d: the job went on from workgroup %d to %d after message-done", round+1, a.Cursor, b.Cursor)
		}
		p.same("after message-done of a suspend the job went on:", toCells(second.buffers[0]), toCells(first.buffers[0]))
		e.resume()
	}
	e.cancel(job)
	e.ended(job)
}

func suspendKeeps(p *probe) {
	c := p.catch(p.open(deviceName))
	c.resume()
	var jobs []core.JobID
	for n := range uint32(3) {
		jobs = append(jobs, c.life.run(8, n))
	}
	c.suspend()
	c.resume()
	c.completed(c.run.Job)
	for _, job := range jobs {
		c.completed(job)
	}
	var last core.JobID
	for _, b := range c.own() {
		if b.Kind == core.EventCompleted {
			if b.Job < last {
				p.failf("job %d completed after job %d, which was sent later", b.Job, last)
			}
			last = b.Job
		}
	}
}

func suspendTwice(p *probe) {
	c := p.catch(p.open(deviceName))
	c.resume()
	groups := uint64(len(c.before))
	if got := c.completed(c.run.Job); got.Executed != groups || got.Done != groups {
		p.failf("a job of %d workgroups, suspended at %d, completed with %d executed and %d done", groups, c.cursor, got.Executed, got.Done)
	}
	c.suspend()
	p.same("after a job that was suspended and resumed", c.cells(), c.after())
	c.resume()
}

func suspendCost(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	if got := e.suspend(); got.Cost <= 0 {
		p.failf("the suspend of an executing entity was answered with a cost of %v", got.Cost)
	}
	e.resume()
	e.cancel(job)
	e.ended(job)
}

func suspendedRuns(p *probe) {
	l := p.open(deviceName)
	before := counted(8)
	e, other := p.filled(l, before), p.entity(l, 8)
	e.suspend()
	job := e.run(8, 1)
	e.barrier()
	other.completed(other.run(8, 1))
	p.same("a job was sent to a suspended entity and executed:", e.cells(), before)
	e.none("the entity is suspended", func(b *core.BackendEvent) bool { return b.Job == job })
	e.resume()
	e.completed(job)
	e.suspend()
	p.same("after the resume", e.cells(), mixed(before, 1, 0, 8))
	e.resume()
}

func suspendedCancels(p *probe) {
	c := p.catch(p.open(deviceName))
	later := c.life.run(8, 9)
	c.cancel(c.run.Job)
	c.barrier()
	c.resume()
	got := c.ended(c.run.Job)
	if got.Kind != core.EventCancelled {
		p.failf("a job that was cancelled while suspended ended with %s", tell(&got))
	}
	c.completed(later)
	c.suspend()
	want := mixed(mixed(c.before, c.seed, 0, got.Done), 9, 0, 8)
	p.same("after a job that was cancelled at workgroup "+itoa(got.Done), c.cells(), want)
	c.resume()
}

func suspendedDestroyed(p *probe) {
	c := p.catch(p.open(deviceName))
	c.destroy()
	c.none("a destroyed job", func(b *core.BackendEvent) bool { return b.Kind == core.EventCompleted })
}

func suspendPlace(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	run, off, on, more := e.mix(8, 1), e.message(core.MessageSuspend), e.message(core.MessageResume), e.mix(8, 2)
	e.l.send(run, off, on, more)
	e.done(off.Seq)
	e.done(on.Seq)
	e.completed(run.Job)
	e.completed(more.Job)
}

func suspendedProperties(p *probe) {
	c := p.catch(p.open(deviceName))
	c.setProperties(core.Properties{Priority: core.PriorityHigh})
	p.same("after set-properties of a suspended entity", c.cells(), toCells(c.image.buffers[0]))
	c.resume()
	c.completed(c.run.Job)
}

func suspendSpares(p *probe) {
	l := p.open(deviceName)
	c := p.catch(l)
	other := p.entity(l, 8)
	for n := range uint32(4) {
		other.completed(other.run(8, n))
	}
	c.resume()
	c.completed(c.run.Job)
}
