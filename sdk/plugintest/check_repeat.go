package plugintest

import (
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

var repeatChecks = []check{
	{name: "repeated-run-acts-once", level: core.LevelRecovery, run: repeatedRun,
		doc: "a run that comes again under its entity, epoch and sequence is carried out once"},
	{name: "repeated-create-acts-once", level: core.LevelRecovery, run: repeatedCreate,
		doc: "a create that comes again is carried out and answered once; its image may come again too"},
	{name: "repeated-message-acts-once", level: core.LevelRecovery, run: repeatedMessage,
		doc: "a message that comes again is answered once"},
	{name: "repeated-cancel-acts-once", level: core.LevelRecovery, run: repeatedCancel,
		doc: "a cancel that comes again changes nothing"},
	{name: "repeated-destroy-acts-once", level: core.LevelRecovery, run: repeatedDestroy,
		doc: "a destroy that comes again is answered once"},
	{name: "repeated-after-reconnect-acts-once", level: core.LevelRecovery, run: repeatedReconnect,
		doc: "commands that a new session repeats are carried out once"},
	{name: "destroyed-stays-gone", level: core.LevelRecovery, run: destroyedStays,
		doc: "commands of an entity that come again after its end do not bring it back"},
	{name: "lower-sequence-is-dropped", level: core.LevelRecovery, run: lowerSequence,
		doc: "a command with a lower sequence number than one that was taken is dropped in silence"},
}

// acted returns how many events of an entity are of a job and kind.
func (e *life) acted(kind core.BackendEventKind, job core.JobID) int {
	n := 0
	for _, b := range e.own() {
		if b.Kind == kind && b.Job == job {
			n++
		}
	}
	return n
}

func repeatedRun(p *probe) {
	e := p.filled(p.open(deviceName), counted(64))
	c := e.mix(64, 9)
	e.l.send(c, c)
	e.completed(c.Job)
	e.l.send(c)
	e.barrier()
	e.completed(e.run(64, 10))
	if n := e.acted(core.EventCompleted, c.Job); n != 1 {
		p.failf("a run that was sent three times completed %d times", n)
	}
	e.suspend()
	p.same("after a run that was sent three times", e.cells(), mixed(mixed(counted(64), 9, 0, 64), 10, 0, 64))
}

func repeatedCreate(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 64)
	c := e.createCommand()
	l.send(c)
	if err := e.upload(from); err != nil {
		p.failf("PutImage: %v", err)
	}
	e.applied(c.Seq)
	e.completed(e.run(64, 1))
	l.send(c)
	if err := e.upload(from); err != nil {
		p.failf("the image of a living entity, sent again, was refused: %v", err)
	}
	e.barrier()
	if n := e.acted(core.EventApplied, 0); n != 1 {
		p.failf("a create that was sent twice was answered %d times", n)
	}
	e.suspend()
	p.same("after a create that was sent again", e.cells(), mixed(counted(64), 1, 0, 64))
}

func repeatedMessage(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	off, on := e.message(core.MessageSuspend), e.message(core.MessageResume)
	e.l.send(off, off, on, on, off)
	e.done(off.Seq)
	e.done(on.Seq)
	e.barrier()
	if n := e.acted(core.EventMessageDone, 0); n != 3 {
		p.failf("three messages, of which two were repeated, were answered %d times", n)
	}
	e.completed(e.run(8, 1))
}

func repeatedCancel(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	first := e.forever(1)
	c := e.command(core.CommandCancel)
	c.Job = first
	e.l.send(c, c)
	e.ended(first)
	e.l.send(c)
	e.completed(e.run(8, 1))
	if n := e.acted(core.EventCancelled, first) + e.acted(core.EventCompleted, first); n != 1 {
		p.failf("a job whose cancel was sent three times was reported as ended %d times", n)
	}
}

func repeatedDestroy(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.destroy()
	c := core.Command{Kind: core.CommandDestroy, Entity: e.id, Epoch: e.epoch, Seq: e.seq}
	l.send(c, c)
	e.destroy()
	if n := e.acted(core.EventDestroyed, 0); n != 2 {
		p.failf("two destroys, of which one was repeated twice, were answered %d times", n)
	}
}

func repeatedReconnect(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 64)
	create := e.createCommand()
	l.send(create)
	if err := e.upload(from); err != nil {
		p.failf("PutImage: %v", err)
	}
	e.applied(create.Seq)
	run := e.mix(64, 1)
	l.send(run)
	e.completed(run.Job)
	l.drop()
	l = p.open(deviceName)
	e.on(l)
	l.send(create, run)
	job := e.run(64, 2)
	e.completed(job)
	e.suspend()
	p.same("after a new session repeated create and run", e.cells(), mixed(mixed(counted(64), 1, 0, 64), 2, 0, 64))
}

func destroyedStays(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	create := e.createCommand()
	l.send(create)
	if err := e.upload(from); err != nil {
		p.failf("PutImage: %v", err)
	}
	e.applied(create.Seq)
	run := e.mix(8, 1)
	l.send(run)
	e.completed(run.Job)
	e.destroy()
	before := len(e.own())
	l.send(create, run)
	p.refusedWith("the image of an epoch that has ended", e.upload(from), core.ErrStale)
	other := p.entity(l, 8)
	other.completed(other.run(8, 1))
	if own := e.own(); len(own) != before {
		p.failf("after the end of its entity a repeated command was answered with %s", tell(&own[len(own)-1]))
	}
	l.close()
	if held(p.open(deviceName), e) != nil {
		p.failf("an entity that was destroyed is held again after its commands were repeated")
	}
}

// held returns what a session's opening says of an entity.
func held(l *line, e *life) *heldEntity {
	i := slices.IndexFunc(l.opened.GetHeld(), func(h *heldEntity) bool { return h.GetEntity() == uint64(e.id) })
	if i < 0 {
		return nil
	}
	return l.opened.GetHeld()[i]
}

func lowerSequence(p *probe) {
	e := p.filled(p.open(deviceName), counted(8))
	early, late := e.mix(8, 1), e.mix(8, 2)
	e.l.send(late, early)
	e.completed(late.Job)
	e.completed(e.run(8, 3))
	e.none("a command that came after a later one was carried out", func(b *core.BackendEvent) bool { return b.Job == early.Job })
	e.suspend()
	p.same("after a command that came too late", e.cells(), mixed(mixed(counted(8), 2, 0, 8), 3, 0, 8))
}
