package plugintest

import (
	"github.com/gpuwm/gpuwm/core"
)

var faultChecks = []check{
	{name: "fault-blames-its-job", level: core.LevelJobs, run: faultBlames,
		doc: "a kernel that faults makes its entity guilty and names its job"},
	{name: "fault-names-its-cause", level: core.LevelJobs, run: faultNames,
		doc: "a kernel that faults is reported with the cause trap and a sentence"},
	{name: "fault-says-how-far-it-came", level: core.LevelJobs, run: faultCame,
		doc: "a fault is reported with a cursor not behind the workgroup that faulted, and the workgroups that ran"},
	{name: "fault-spares-the-innocent", level: core.LevelJobs, run: faultSpares,
		doc: "a fault of one entity makes no other guilty; the others go on, or are lost as victims"},
	{name: "lost-entity-is-silent", level: core.LevelJobs, run: lostSilent,
		doc: "after an entity was lost nothing answers its commands but destroyed"},
	{name: "lost-entity-comes-again", level: core.LevelJobs, run: lostAgain,
		doc: "a lost entity can be destroyed, and created in a later epoch"},
	{name: "unknown-entry-has-the-cause-kernel", level: core.LevelJobs, run: unknownEntry,
		doc: "a job with an entry that its kernel does not have is refused with the cause kernel; the entity goes on"},
	{name: "other-arguments-are-refused", level: core.LevelJobs, run: otherArguments,
		doc: "a job whose arguments are not those of its entry is refused with the cause kernel; the entity goes on"},
	{name: "unknown-buffer-is-refused", level: core.LevelJobs, run: unknownBuffer,
		doc: "a job that names a buffer which the entity does not have is refused; the entity goes on"},
	{name: "commands-need-an-entity", level: core.LevelJobs, run: needEntity,
		doc: "a run or a cancel for an entity that was never created is refused"},
	{name: "refusal-names-its-cause", level: core.LevelJobs, run: refusalCause,
		doc: "a refusal has a cause of the closed set"},
	{name: "refusal-says-why", level: core.LevelJobs, run: refusalSays,
		doc: "a refusal has a sentence that says why"},
	{name: "refusal-blames-nobody", level: core.LevelJobs, run: refusalBlames,
		doc: "a refused command has hung and faulted nothing: the entity is not guilty"},
	{name: "refusal-names-its-command", level: core.LevelJobs, run: refusalCommand,
		doc: "a refusal names its command and, for a run, its job"},
}

const trapAt = 5

// trapped runs a job that faults and returns its end.
func trapped(p *probe, e *life) (core.JobID, core.BackendEvent) {
	if p.kit.kernel.Format == core.FormatOpenCL {
		p.skipf("OpenCL C has no way to fault for sure")
	}
	c := e.job("trap", [3]uint32{16, 1, 1}, buffer(cellsName), u32(1), u32(trapAt))
	e.l.send(c)
	got := e.ended(c.Job)
	if got.Kind != core.EventEntityLost {
		p.failf("a job whose workgroup %d faults ended with %s; its entity must be lost", trapAt, tell(&got))
	}
	return c.Job, got
}

func faultBlames(p *probe) {
	e := p.entity(p.open(deviceName), 16)
	if job, got := trapped(p, e); !got.Guilty || got.Job != job {
		p.failf("the fault of job %d was reported as %s, guilty: %t", job, tell(&got), got.Guilty)
	}
}

func faultNames(p *probe) {
	e := p.entity(p.open(deviceName), 16)
	if _, got := trapped(p, e); got.Cause != core.CauseTrap || got.Error == "" {
		p.failf("the fault was reported as %s; the cause must be %q, and a sentence must say what happened", tell(&got), core.CauseTrap)
	}
}

func faultCame(p *probe) {
	e := p.entity(p.open(deviceName), 16)
	if _, got := trapped(p, e); got.Done > trapAt || got.Executed < got.Done || got.Executed > 16 {
		p.failf("workgroup %d of 16 faulted, and the report has %d done and %d executed", trapAt, got.Done, got.Executed)
	}
}

func faultSpares(p *probe) {
	l := p.open(deviceName)
	innocent, guilty := p.entity(l, foreverGroups), p.entity(l, 16)
	job := innocent.forever(1)
	trapped(p, guilty)
	innocent.cancel(job)
	switch got := innocent.ended(job); {
	case got.Kind == core.EventEntityLost && got.Guilty, got.Kind == core.EventRefused:
		p.failf("another entity faulted, and this one ended with %s, guilty: %t", tell(&got), got.Guilty)
	case got.Kind == core.EventEntityLost:
		innocent.destroy()
	default:
		innocent.completed(innocent.run(8, 2))
	}
}

func lostSilent(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 16)
	trapped(p, e)
	e.run(16, 2)
	l.send(e.message(core.MessageBarrier))
	e.destroy()
	own := e.own()
	if before := own[len(own)-2]; before.Kind != core.EventEntityLost {
		p.failf("between entity-lost and destroyed came %s", tell(&before))
	}
}

func lostAgain(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 16)
	trapped(p, e)
	e.destroy()
	next := e.again(l)
	next.create(next.fresh([][]byte{make([]byte, 64)}))
	next.completed(next.run(16, 2))
}

func unknownEntry(p *probe) {
	e := p.entity(p.open(deviceName), 16)
	c := e.job("no_such_entry", [3]uint32{16, 1, 1}, buffer(cellsName), u32(1))
	e.l.send(c)
	if got := e.ended(c.Job); got.Kind != core.EventRefused || got.Cause != core.CauseKernel {
		p.failf("the job ended with %s; it must be refused with the cause %q", tell(&got), core.CauseKernel)
	}
	e.completed(e.run(16, 1))
}

func otherArguments(p *probe) {
	if p.kit.kernel.Format == core.FormatOpenCL {
		p.skipf("OpenCL C does not say what an argument is")
	}
	e := p.entity(p.open(deviceName), 8)
	for what, args := range map[string][]core.Arg{
		"one argument too few":  {buffer(cellsName)},
		"one argument too many": {buffer(cellsName), u32(1), u32(1)},
		"a number for a buffer": {u32(1), u32(1)},
	} {
		c := e.job("mix", [3]uint32{8, 1, 1}, args...)
		e.l.send(c)
		if got := e.ended(c.Job); got.Kind != core.EventRefused || got.Cause != core.CauseKernel {
			p.failf("a job with %s ended with %s; it must be refused with the cause %q", what, tell(&got), core.CauseKernel)
		}
	}
	e.completed(e.run(8, 1))
}

// wrongBuffer is a run that is refused.
func (e *life) wrongBuffer() core.Command {
	return e.job("mix", [3]uint32{8, 1, 1}, buffer("no-such-buffer"), u32(1))
}

func unknownBuffer(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	c := e.wrongBuffer()
	e.l.send(c)
	e.refused("a job with an unknown buffer", c.Seq)
	e.completed(e.run(8, 1))
}

func needEntity(p *probe) {
	l := p.open(deviceName)
	for _, kind := range []core.CommandKind{core.CommandRun, core.CommandCancel} {
		e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 32}), 1, 0)
		c := e.mix(8, 1)
		if kind == core.CommandCancel {
			c.Kind, c.JobSpec = kind, nil
		}
		l.send(c)
		e.refused("a command for an entity that is not there", c.Seq)
	}
}

// refusal makes one of a run.
func refusal(p *probe) (core.Command, core.BackendEvent) {
	e := p.entity(p.open(deviceName), 8)
	c := e.wrongBuffer()
	e.l.send(c)
	return c, e.l.await("the refusal of a job with an unknown buffer", func(b *core.BackendEvent) bool {
		return b.Entity == e.id && b.Kind == core.EventRefused
	})
}

func refusalCause(p *probe) {
	if _, got := refusal(p); got.Cause == core.CauseNone {
		p.failf("%s has no cause", tell(&got))
	}
}

func refusalSays(p *probe) {
	if _, got := refusal(p); got.Error == "" {
		p.failf("%s has no sentence", tell(&got))
	}
}

func refusalBlames(p *probe) {
	if _, got := refusal(p); got.Guilty {
		p.failf("%s says that the entity is guilty", tell(&got))
	}
}

func refusalCommand(p *probe) {
	if c, got := refusal(p); got.Command != c.Seq || got.Job != c.Job {
		p.failf("the refusal of command %d, job %d, is %s", c.Seq, c.Job, tell(&got))
	}
}
