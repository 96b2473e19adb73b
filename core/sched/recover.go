package sched

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// restore adds an entity from its records.
func (c *Core) restore(r *core.EntityRecord) error {
	if r == nil {
		return fmt.Errorf("restore without a record: %w", core.ErrInvalid)
	}
	if c.entities[r.Spec.ID] != nil {
		return fmt.Errorf("entity %s: %w", r.Spec.Name, core.ErrExists)
	}
	spec := r.Spec
	e := &entity{spec: &spec, state: r.State}
	// A clock that ran ahead must not put the next image off.
	e.state.LastImage = min(e.state.LastImage, c.now)
	for _, rec := range r.Jobs {
		if rec.State.Phase == core.JobHeld {
			break // not submitted yet, nor is anything after it
		}
		e.last = rec.Spec.Seq
		if rec.Spec.Seq <= e.state.Cut {
			if rec.State.Phase != core.JobCompleted {
				e.failed = append(e.failed, rec.Spec.Seq)
			}
			continue
		}
		c.restoreJob(e, rec)
	}
	c.entities[spec.ID] = e
	c.order = append(c.order, e)
	for _, j := range e.jobs {
		if j.state.Phase == core.JobQueued && j.state.Epoch == 0 { // once sent, it has had its fences
			c.await(e, j)
		}
	}
	for _, rec := range r.Jobs {
		if rec.State.Phase.Final() {
			failure := ""
			if rec.State.Phase != core.JobCompleted {
				failure = fmt.Sprintf("job %s is %s", rec.Spec.Name, rec.State.Phase)
			}
			c.signal(core.Fence{Timeline: spec.ID, Seq: rec.Spec.Seq}, failure)
		}
	}
	c.joinAll(e)
	c.touch(e)
	return nil
}

func (c *Core) restoreJob(e *entity, rec core.JobRecord) {
	j := &job{spec: rec.Spec, state: rec.State, entity: e, done: rec.State.Cursor}
	e.jobs = append(e.jobs, j)
	if !j.final() {
		e.unfinished++
	}
	e.mark(j)
	if e.first == len(e.jobs)-1 && j.final() {
		e.first++
	}
	if j.state.Phase == core.JobQueued && j.spec.QueueTimeout > 0 && j.state.Epoch == 0 {
		c.queueDeadline(e, j)
	}
	// Commands for jobs are on record with their jobs only.
	e.state.Commands = max(e.state.Commands, j.state.Run, j.state.Cancel)
	if e.state.Residency == core.Away {
		return
	}
	if j.state.Run != 0 {
		e.credits += j.spec.Credits
		// Its start is not reported again; without this a hang would never be found.
		// A record of an earlier version does not say in which epoch it began.
		j.executes = j.state.StartedEpoch == e.state.Epoch || j.state.StartedEpoch == 0 && j.state.Started != 0
	}
	if j.state.Epoch == e.state.Epoch {
		e.next = len(e.jobs)
		if j.spec.Flush && !j.final() {
			j.barrier = true
			e.barrier++
		}
	}
}

// sessionUp reconciles the records with what the instance holds. Commands that
// were recorded but not taken are sent again under their old numbers; an entity
// that the instance does not hold any more is a victim; what it holds beyond
// the records is destroyed.
func (c *Core) sessionUp(ev *Event) {
	c.device(deviceUp)
	c.out.NewSession = true
	if ev.Credits != 0 {
		c.config.Credits = ev.Credits
	}
	held := make(map[core.EntityID]Held, len(ev.Held))
	for _, h := range ev.Held {
		held[h.Entity] = h
	}
	for _, e := range c.order {
		h, ok := held[e.spec.ID]
		delete(held, e.spec.ID)
		c.touch(e)
		switch {
		case e.state.Residency == core.Away:
			if ok {
				c.destroyOrphan(h)
			}
		case ok && h.Epoch == e.state.Epoch:
			c.resend(e, h.Applied)
		case e.state.Residency == core.Creating:
			c.resend(e, 0)
		case e.state.Residency == core.Leaving && e.state.Pending != 0 && !ok:
			// The report of its end may be on its way, and before it what was executed.
			c.resend(e, e.state.Pending-1)
		default:
			if ok {
				c.destroyOrphan(h)
			}
			e.retryAt = 0
			c.away(e, nil)
		}
	}
	for _, h := range ev.Held {
		if _, left := held[h.Entity]; left {
			c.destroyOrphan(h)
		}
	}
}

func (c *Core) destroyOrphan(h Held) {
	c.out.Commands = append(c.out.Commands, core.Command{
		Kind: core.CommandDestroy, Entity: h.Entity, Epoch: h.Epoch, Seq: h.Applied + 1,
	})
}

// resend repeats the commands after applied, in their order.
func (c *Core) resend(e *entity, held core.CommandSeq) {
	applied := held
	var cmds []core.Command
	add := func(seq core.CommandSeq, cmd core.Command) {
		e.state.Commands = max(e.state.Commands, seq)
		if seq > applied && !mutated("forget-resend") {
			cmd.Entity, cmd.Epoch, cmd.Seq = e.spec.ID, e.state.Epoch, seq
			cmds = append(cmds, cmd)
		}
	}
	if e.state.Pending != 0 {
		if e.state.Residency == core.Creating {
			applied = min(applied, e.state.Pending-1) // its image may not have arrived
		}
		add(e.state.Pending, c.pendingCommand(e))
		e.answerBy = c.answerFrom(e.state.Residency)
	}
	if e.state.PropertiesPending != 0 {
		add(e.state.PropertiesPending, core.Command{
			Kind: core.CommandMessage, Message: core.MessageSetProperties, Properties: e.spec.Properties,
		})
	}
	if len(e.messages) > 0 && e.messages[0].seq != 0 {
		m := e.messages[0]
		add(m.seq, core.Command{Kind: core.CommandMessage, Message: m.kind, Payload: m.payload})
	}
	if e.haltSeq != 0 {
		add(e.haltSeq, core.Command{Kind: core.CommandMessage, Message: core.MessageBarrier})
	}
	for _, j := range e.jobs {
		if j.state.Run != 0 {
			add(j.state.Run, j.runCommand())
		}
		if j.state.Cancel != 0 {
			add(j.state.Cancel, core.Command{Kind: core.CommandCancel, Job: j.spec.ID})
			e.answerBy = c.now.Add(c.config.Answer)
		}
	}
	e.state.Commands = max(e.state.Commands, held)
	e.since = c.now
	c.hear(e)
	c.gotReply(e) // if one is under way, its time begins anew
	slices.SortFunc(cmds, func(a, b core.Command) int { return cmp.Compare(a.Seq, b.Seq) })
	c.out.Commands = append(c.out.Commands, cmds...)
	if e.state.Saving != 0 && !e.asked {
		c.save(e) // otherwise the answer is still to come: the instance is the same
	}
}

// pendingCommand rebuilds the residency command that awaits its answer.
func (c *Core) pendingCommand(e *entity) core.Command {
	switch e.state.Residency {
	case core.Creating:
		return c.createCommand(e)
	case core.Suspending:
		return core.Command{Kind: core.CommandMessage, Message: core.MessageSuspend}
	case core.Resuming:
		return core.Command{Kind: core.CommandMessage, Message: core.MessageResume}
	default:
		return core.Command{Kind: core.CommandDestroy}
	}
}

// instanceGone: everything on the instance is lost; nobody is to blame for that.
func (c *Core) instanceGone(usage map[core.UsageKey]uint64) {
	c.device(deviceDown)
	for _, e := range c.order {
		if e.state.Residency == core.Away {
			continue
		}
		leaving := e.state.Residency == core.Leaving
		c.away(e, usage)
		if !leaving {
			e.retryAt = 0
			c.setback(e, core.CauseDevice, "the plugin instance ended")
		}
	}
}
