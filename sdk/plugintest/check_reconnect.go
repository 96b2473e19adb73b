package plugintest

import (
	"slices"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var reconnectChecks = []check{
	{name: "holds-entities", level: core.LevelRecovery, run: holdsEntities,
		doc: "the opening of a session lists each entity that is held, with its epoch and the last command taken"},
	{name: "forgets-destroyed-entities", level: core.LevelRecovery, run: forgetsDestroyed,
		doc: "a destroyed entity is not held"},
	{name: "holds-lost-entities", level: core.LevelRecovery, run: holdsLost,
		doc: "an entity that was lost is held until it is destroyed"},
	{name: "holds-what-waits", level: core.LevelRecovery, run: holdsWaiting,
		doc: "a command that was taken and not carried out counts as taken; it is carried out once"},
	{name: "acknowledgement-does-not-fall-back", level: core.LevelRecovery, run: ackStays,
		doc: "an acknowledgement below the present one changes nothing"},
	{name: "events-come-again", level: core.LevelRecovery, run: eventsAgain,
		doc: "events that were not acknowledged come again in the next session, the same, with the same numbers"},
	{name: "acknowledged-events-do-not-come-again", level: core.LevelRecovery, run: eventsAcked,
		doc: "events that were acknowledged do not come again"},
	{name: "acknowledged-in-the-opening", level: core.LevelRecovery, run: ackedInOpen,
		doc: "the opening of a session acknowledges events too, and its answer says after which number events begin"},
	{name: "opening-without-a-number", level: core.LevelRecovery, run: openWithoutAck,
		doc: "a host that does not know what is durable is told after which number events begin"},
	{name: "acknowledgement-beyond-the-last", level: core.LevelRecovery, run: ackBeyond,
		doc: "the acknowledgement of an event that was never sent ends the session with an error"},
	{name: "works-while-nobody-is-connected", level: core.LevelRecovery, run: worksAlone,
		doc: "jobs go on without a session, and their events are kept for the next"},
	{name: "ended-session-frees-nothing", level: core.LevelRecovery, run: endedSession,
		doc: "an entity is where it was when its session has ended and another begins"},
	{name: "upload-survives-a-new-session", level: core.LevelRecovery, run: uploadNewSession,
		doc: "a create whose session has ended is carried out when its image comes with the next"},
}

func holdsEntities(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	e.suspend()
	l.close()
	fresh := p.open(deviceName)
	e.on(fresh)
	h := held(fresh, e)
	switch {
	case h == nil:
		p.failf("entity %d is not listed; %d others are", e.id, len(fresh.opened.GetHeld()))
	case h.GetEpoch() != uint64(e.epoch) || h.GetApplied() != uint64(e.seq):
		p.failf("entity %d is listed with epoch %d, command %d; it must be %d, %d", e.id, h.GetEpoch(), h.GetApplied(), e.epoch, e.seq)
	}
	e.resume()
}

func forgetsDestroyed(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.destroy()
	l.close()
	// The plugin may still be burying it when it answers.
	p.poll("a destroyed entity is not held", func() bool {
		fresh := p.open(deviceName)
		defer fresh.close()
		return held(fresh, e) == nil
	})
}

func holdsLost(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 16)
	trapped(p, e)
	l.close()
	fresh := p.open(deviceName)
	e.on(fresh)
	if held(fresh, e) == nil {
		p.failf("entity %d was lost, and is not listed", e.id)
	}
}

func holdsWaiting(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	p.poll("a create that waits for its image is pending", func() bool { return p.pending() > 0 })
	l.close()
	fresh := p.open(deviceName)
	e.on(fresh)
	if h := held(fresh, e); h == nil || h.GetApplied() != uint64(c.Seq) {
		p.failf("command %d of entity %d was taken, and the entity is listed as %v", c.Seq, e.id, h)
	}
	fresh.send(c) // It was taken: it must not be carried out again.
	if err := e.upload(from); err != nil {
		p.failf("PutImage: %v", err)
	}
	e.applied(c.Seq)
	e.completed(e.run(8, 1))
	e.none("the create came twice and must act once", func(b *core.BackendEvent) bool { return b.Kind == core.EventRefused })
}

func ackStays(p *probe) {
	l, _, all := worked(p)
	last := all[len(all)-1].Seq
	l.ack(last)
	_ = l.stream.Send(&apiv1.SessionRequest{Ack: uint64(all[0].Seq)})
	_ = l.stream.CloseSend()
	if err := l.broken("the host closed its half"); err != nil {
		p.failf("a lower acknowledgement ended the session with: %v", wire.FromStatus(err))
	}
	p.in.sessions[deviceName]++
	fresh, err := p.tryOpen(deviceName, p.in.sessions[deviceName], all[0].Seq, nil)
	if err != nil {
		p.failf("a session that acknowledges less was refused: %v", wire.FromStatus(err))
	}
	if got := core.EventSeq(fresh.opened.GetAcked()); got != last {
		p.failf("events up to %d were acknowledged, then less, and the next session says %d", last, got)
	}
}

// same compares events as a host sees them.
func sameEvent(a, b *core.BackendEvent) bool {
	return a.Kind == b.Kind && a.Seq == b.Seq && a.Entity == b.Entity && a.Epoch == b.Epoch && a.Command == b.Command &&
		a.Job == b.Job && a.Done == b.Done && a.Executed == b.Executed && a.Cause == b.Cause && a.Error == b.Error && slices.Equal(a.Reply, b.Reply)
}

// worked makes a few events, none of which is acknowledged.
func worked(p *probe) (*line, *life, []core.BackendEvent) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	for n := range uint32(3) {
		e.completed(e.run(8, n))
	}
	return l, e, l.history()
}

func eventsAgain(p *probe) {
	l, e, first := worked(p)
	l.drop()
	l = p.open(deviceName)
	e.on(l)
	e.barrier() // its answer comes after them
	again := l.history()
	for i := range first {
		if i >= len(again) || !sameEvent(&first[i], &again[i]) {
			got := "nothing"
			if i < len(again) {
				got = tell(&again[i])
			}
			p.failf("%s was not acknowledged, and in the next session came %s in its place", tell(&first[i]), got)
		}
	}
}

func eventsAcked(p *probe) {
	l, e, first := worked(p)
	half := first[len(first)/2].Seq
	l.ack(half)
	// A barrier behind the acknowledgement shows that it arrived.
	e.barrier()
	l.drop()
	// The opening says nothing, so that only the acknowledgement counts.
	p.in.sessions[deviceName]++
	l, err := p.tryOpen(deviceName, p.in.sessions[deviceName], 0, nil)
	if err != nil {
		p.failf("the session does not open again: %v", err)
	}
	e.on(l)
	e.barrier()
	for _, b := range l.history() {
		if b.Seq <= half {
			p.failf("%s came again; events up to %d were acknowledged", tell(&b), half)
		}
	}
}

func ackedInOpen(p *probe) {
	l, e, first := worked(p)
	half := first[len(first)/2].Seq
	l.drop()
	p.in.acked[deviceName] = half
	l = p.open(deviceName)
	e.on(l)
	if got := core.EventSeq(l.opened.GetAcked()); got != half {
		p.failf("the opening acknowledged events up to %d, and is answered with %d", half, got)
	}
	e.barrier()
	if b := l.history()[0]; b.Seq != half+1 {
		p.failf("the first event is %s; it must have number %d", tell(&b), half+1)
	}
}

func openWithoutAck(p *probe) {
	l, e, first := worked(p)
	last := first[len(first)-1].Seq
	l.ack(last)
	e.barrier()
	l.drop()
	p.in.sessions[deviceName]++
	l, err := p.tryOpen(deviceName, p.in.sessions[deviceName], 0, nil)
	if err != nil {
		p.failf("the session does not open: %v", err)
	}
	e.on(l)
	told := core.EventSeq(l.opened.GetAcked())
	e.barrier()
	if b := l.history()[0]; told < last || b.Seq != told+1 {
		p.failf("events up to %d are durable, the answer says that they begin after %d, and the first is %s", last, told, tell(&b))
	}
}

func ackBeyond(p *probe) {
	l := p.open(deviceName)
	const beyond = 1 << 40
	_ = l.stream.Send(&apiv1.SessionRequest{Ack: beyond})
	if err := l.broken("an acknowledgement of an event that was never sent"); err == nil {
		p.failf("it ended the session without an error")
	} else {
		p.refusedWith("an acknowledgement of an event that was never sent", err, core.ErrInvalid, core.ErrCorrupt)
	}
	e := p.entity(p.open(deviceName), 8)
	e.completed(e.run(8, 1))
}

func worksAlone(p *probe) {
	l := p.open(deviceName)
	e := p.filled(l, counted(middleGroups))
	c := e.slow(middleGroups, 4)
	l.send(c, e.message(core.MessageBarrier))
	e.done(e.seq) // so that it was taken
	l.drop()
	l = p.open(deviceName)
	e.on(l)
	if got := e.completed(c.Job); got.Executed != middleGroups {
		p.failf("a job of %d workgroups that went on without a session completed with %d executed", middleGroups, got.Executed)
	}
	e.suspend()
	p.same("after a job that went on without a session", e.cells(), mixed(counted(middleGroups), 4, 0, middleGroups))
}

func endedSession(p *probe) {
	l := p.open(deviceName)
	c := p.catch(l)
	l.close()
	l = p.open(deviceName)
	c.on(l)
	p.same("after a new session", c.cells(), toCells(c.image.buffers[0]))
	c.resume()
	c.completed(c.run.Job)
	c.suspend()
	p.same("after the job went on in a new session", c.cells(), c.after())
}

func uploadNewSession(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	p.poll("the create was taken", func() bool { return p.pending() > 0 })
	l.drop()
	e.on(p.open(deviceName))
	if err := e.upload(from); err != nil {
		p.failf("the image that came with the next session was refused: %v", err)
	}
	e.applied(c.Seq)
	e.completed(e.run(8, 1))
}
