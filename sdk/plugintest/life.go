package plugintest

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// life is one entity in one epoch.
type life struct {
	p     *probe
	l     *line
	id    core.EntityID
	epoch core.Epoch
	// seq is that of the last command, jobs how many were sent.
	seq  core.CommandSeq
	jobs core.JobSeq
	spec *core.EntitySpec
	// over says that the entity is destroyed.
	over bool
}

// cellsName is the buffer that the entries work on.
const cellsName = "cells"

// spec describes an entity with these buffers.
func (p *probe) spec(buffers ...core.BufferSpec) *core.EntitySpec {
	id := core.EntityID(p.kit.entities.Add(1))
	return &core.EntitySpec{
		ID: id, Name: fmt.Sprintf("kit-%d", id), Device: deviceName, Mode: core.ModeLongRunning, OnFailure: core.OnFailureStop,
		Properties: core.Properties{Priority: core.PriorityNormal}, Buffers: buffers,
	}
}

// life makes an entity that was not created yet.
func (p *probe) life(l *line, spec *core.EntitySpec, epoch core.Epoch, seq core.CommandSeq) *life {
	return &life{p: p, l: l, id: spec.ID, epoch: epoch, seq: seq, spec: spec}
}

// entity creates an entity with n cells, all zero.
func (p *probe) entity(l *line, n int) *life { return p.filled(l, make([]uint32, n)) }

// filled creates an entity with these cells.
func (p *probe) filled(l *line, cells []uint32) *life {
	e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 4 * uint64(len(cells))}), 1, 0)
	e.create(e.fresh([][]byte{toBytes(cells)}))
	return e
}

// fresh is an image of the entity's buffers, made by nobody.
func (e *life) fresh(content [][]byte) picture {
	return picture{header: core.ImageHeader{Version: core.ImageVersion, Entity: e.id, Buffers: e.spec.Buffers}, buffers: content}
}

// create sends the create command, uploads the image and waits for the answer.
func (e *life) create(from picture) {
	c := e.createCommand()
	e.l.send(c)
	if err := e.upload(from); err != nil {
		e.p.failf("the image of entity %d was refused: %v", e.id, err)
	}
	e.applied(c.Seq)
}

func (e *life) createCommand() core.Command {
	c := e.command(core.CommandCreate)
	c.Generation, c.EntitySpec = 1, e.spec
	return c
}

// applied waits for the answer of a create.
func (e *life) applied(seq core.CommandSeq) core.BackendEvent {
	got := e.answer("the answer to create", seq)
	if got.Kind != core.EventApplied {
		e.p.failf("create was answered with %s", tell(&got))
	}
	if !slices.Contains(e.p.lives, e) {
		e.p.lives = append(e.p.lives, e)
	}
	return got
}

// upload sends an image for the entity.
func (e *life) upload(from picture) error {
	return e.p.putImage(e.l, e.id, e.epoch, from, nil)
}

// command is the next one.
func (e *life) command(kind core.CommandKind) core.Command {
	e.seq++
	return core.Command{Kind: kind, Entity: e.id, Epoch: e.epoch, Seq: e.seq}
}

// job is the next run command.
func (e *life) job(entry string, grid [3]uint32, args ...core.Arg) core.Command {
	e.p.load(e.l)
	e.jobs++
	c := e.command(core.CommandRun)
	c.Job = core.JobID(e.p.kit.jobs.Add(1))
	c.JobSpec = &core.JobSpec{
		ID: c.Job, Entity: e.id, Seq: e.jobs, Name: fmt.Sprintf("job-%d", c.Job), Entry: entry, Grid: grid, Group: [3]uint32{1, 1, 1},
		Args: args, Credits: 1, Kernels: map[string]core.Digest{e.p.kit.kernel.Format: e.p.kit.kernel.Digest},
	}
	return c
}

// mix is a run of the entry mix over n workgroups.
func (e *life) mix(n int, seed uint32) core.Command {
	return e.job("mix", [3]uint32{uint32(n), 1, 1}, buffer(cellsName), u32(seed))
}

// run sends a job of the entry mix.
func (e *life) run(n int, seed uint32) core.JobID {
	c := e.mix(n, seed)
	e.l.send(c)
	return c.Job
}

// message is the next message command.
func (e *life) message(kind core.MessageKind) core.Command {
	c := e.command(core.CommandMessage)
	c.Message = kind
	return c
}

// ask sends a message and waits until it is done.
func (e *life) ask(kind core.MessageKind) core.BackendEvent {
	c := e.message(kind)
	e.l.send(c)
	return e.done(c.Seq)
}

// barrier returns when every command so far was carried out.
func (e *life) barrier() { e.ask(core.MessageBarrier) }

func (e *life) suspend() core.BackendEvent { return e.ask(core.MessageSuspend) }

func (e *life) resume() { e.ask(core.MessageResume) }

// answer waits for the event that answers a command.
func (e *life) answer(what string, seq core.CommandSeq) core.BackendEvent {
	return e.l.await(fmt.Sprintf("%s (entity %d, command %d)", what, e.id, seq), func(b *core.BackendEvent) bool {
		return b.Entity == e.id && b.Epoch == e.epoch && b.Command == seq
	})
}

// done waits until a message took effect.
func (e *life) done(seq core.CommandSeq) core.BackendEvent {
	got := e.answer("message-done", seq)
	if got.Kind != core.EventMessageDone {
		e.p.failf("a message was answered with %s", tell(&got))
	}
	return got
}

// refused waits until a command was refused.
func (e *life) refused(what string, seq core.CommandSeq) core.BackendEvent {
	got := e.answer("the refusal of "+what, seq)
	if got.Kind != core.EventRefused {
		e.p.failf("%s was answered with %s; it must be refused", what, tell(&got))
	}
	return got
}

// ended waits for the end of a job, whichever it is.
func (e *life) ended(job core.JobID) core.BackendEvent {
	return e.l.await(fmt.Sprintf("the end of job %d of entity %d", job, e.id), func(b *core.BackendEvent) bool {
		if b.Entity != e.id || b.Epoch != e.epoch {
			return false
		}
		switch b.Kind {
		case core.EventCompleted, core.EventCancelled, core.EventRefused:
			return b.Job == job
		case core.EventEntityLost:
			return true
		}
		return false
	})
}

// completed waits until a job has completed.
func (e *life) completed(job core.JobID) core.BackendEvent {
	got := e.ended(job)
	if got.Kind != core.EventCompleted {
		e.p.failf("job %d ended with %s; it must complete", job, tell(&got))
	}
	return got
}

// started waits until a job has started.
func (e *life) started(job core.JobID) core.BackendEvent {
	return e.l.await(fmt.Sprintf("started of job %d of entity %d", job, e.id), func(b *core.BackendEvent) bool {
		return b.Entity == e.id && b.Epoch == e.epoch && b.Kind == core.EventStarted && b.Job == job
	})
}

// cancel sends a cancel.
func (e *life) cancel(job core.JobID) {
	c := e.command(core.CommandCancel)
	c.Job = job
	e.l.send(c)
}

// destroy removes the entity and waits for the answer.
func (e *life) destroy() core.BackendEvent {
	c := e.command(core.CommandDestroy)
	e.l.send(c)
	got := e.answer("destroyed", c.Seq)
	if got.Kind != core.EventDestroyed {
		e.p.failf("destroy was answered with %s", tell(&got))
	}
	e.over = true
	return got
}

// own returns the entity's events of the epoch so far.
func (e *life) own() []core.BackendEvent {
	return slices.DeleteFunc(e.l.history(), func(b core.BackendEvent) bool { return b.Entity != e.id || b.Epoch != e.epoch })
}

// none fails when an event matches.
func (e *life) none(what string, match func(*core.BackendEvent) bool) {
	for _, b := range e.own() {
		if match(&b) {
			e.p.failf("%s: %s", what, tell(&b))
		}
	}
}

// again is the entity in its next epoch, on a session.
func (e *life) again(l *line) *life {
	e.over = true
	next := e.p.life(l, e.spec, e.epoch+1, e.seq)
	next.jobs = e.jobs
	return next
}

// on moves the entity to a newer session.
func (e *life) on(l *line) { e.l = l }
