package plugintest

import (
	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

type heldEntity = apiv1.HeldEntity

var staleChecks = []check{
	{name: "stale-epoch-is-dropped", level: core.LevelRecovery, run: staleEpoch,
		doc: "a command of an epoch before the entity's present one has no effect and no answer"},
	{name: "newer-epoch-replaces", level: core.LevelRecovery, run: newerEpoch,
		doc: "a create in a later epoch replaces the entity, whatever it is doing, without an event for the earlier one"},
	{name: "destroy-of-an-older-epoch", level: core.LevelRecovery, run: olderDestroy,
		doc: "a destroy of an epoch below the present one has no effect and no answer"},
	{name: "command-of-a-future-epoch", level: core.LevelRecovery, run: futureEpoch,
		doc: "a command of an epoch that was not created is refused"},
	{name: "image-of-a-stale-epoch", level: core.LevelRecovery, run: staleImage,
		doc: "an image for an epoch before the present one is refused as stale"},
	{name: "lower-session-is-refused", level: core.LevelRecovery, run: lowerSession,
		doc: "a session with a lower number than one that was seen is refused as stale"},
	{name: "higher-session-ends-the-lower", level: core.LevelRecovery, run: higherSession,
		doc: "a session with a higher number ends the older one, with the error stale"},
	{name: "stale-session-cannot-act", level: core.LevelRecovery, run: staleSession,
		doc: "commands of a session that was replaced are not carried out"},
	{name: "stale-session-cannot-acknowledge", level: core.LevelRecovery, run: staleAck,
		doc: "acknowledgements of a session that was replaced do not drop events"},
	{name: "stale-session-moves-no-data", level: core.LevelRecovery, run: staleBulk,
		doc: "kernels and images of a lower session than one that was seen are refused as stale"},
}

func staleEpoch(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	e.destroy()
	next := e.again(l)
	next.create(next.fresh([][]byte{toBytes(counted(8))}))
	stale := next.mix(8, 5)
	stale.Epoch = e.epoch
	l.send(stale)
	suspend := next.message(core.MessageSuspend)
	suspend.Epoch = e.epoch
	l.send(suspend)
	next.completed(next.run(8, 6))
	for _, b := range l.history() {
		if b.Job == stale.Job || b.Entity == e.id && b.Command == suspend.Seq {
			p.failf("a command of epoch %d, the present is %d, was answered with %s", e.epoch, next.epoch, tell(&b))
		}
	}
	next.suspend()
	p.same("after a job of a stale epoch", next.cells(), mixed(counted(8), 6, 0, 8))
}

func newerEpoch(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, foreverGroups)
	e.forever(1)
	next := e.again(l)
	before := make([]uint32, foreverGroups)
	next.create(next.fresh([][]byte{toBytes(before)}))
	next.completed(next.run(8, 2))
	next.suspend()
	p.same("after a create in a later epoch", next.cells(), mixed(before, 2, 0, 8))
	e.none("a later epoch replaced this one", func(b *core.BackendEvent) bool {
		return b.Kind == core.EventDestroyed || b.Kind == core.EventEntityLost
	})
}

func olderDestroy(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	next := e.again(l)
	next.create(next.fresh([][]byte{toBytes(counted(8))}))
	c := next.command(core.CommandDestroy)
	c.Epoch = e.epoch
	l.send(c)
	next.completed(next.run(8, 3))
	e.none("a later epoch is there", func(b *core.BackendEvent) bool { return b.Command == c.Seq })
}

func futureEpoch(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	next := p.life(l, e.spec, e.epoch+1, e.seq)
	c := next.message(core.MessageBarrier)
	l.send(c)
	next.refused("a message of an epoch that was not created", c.Seq)
	next.destroy() // of an epoch that came later it ends the present one too
	e.over = true
}

func staleImage(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	next := e.again(l)
	next.create(next.fresh([][]byte{make([]byte, 32)}))
	p.refusedWith("an image of the epoch before", e.upload(e.fresh([][]byte{make([]byte, 32)})), core.ErrStale)
	next.completed(next.run(8, 1))
}

// lower opens sessions 2 higher than the last, so that there is a lower one.
func (p *probe) lower() (*line, core.Session) {
	p.in.sessions[deviceName] += 2
	l := p.open(deviceName)
	return l, l.number - 1
}

func lowerSession(p *probe) {
	l, lower := p.lower()
	_, err := p.tryOpen(deviceName, lower, 0, nil)
	p.refusedWith("session "+itoa(uint64(lower))+" after "+itoa(uint64(l.number)), err, core.ErrStale)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
}

func higherSession(p *probe) {
	old := p.open(deviceName)
	e := p.entity(old, 8)
	fresh := p.open(deviceName)
	e.on(fresh)
	p.refusedWith("a session that was replaced", old.broken("a session with a higher number"), core.ErrStale)
	e.completed(e.run(8, 1))
}

func staleSession(p *probe) {
	old := p.open(deviceName)
	e := p.filled(old, counted(8))
	p.load(old)
	fresh := p.open(deviceName)
	stale := e.mix(8, 1)
	old.send(stale)
	e.seq-- // the stale command was never taken
	e.on(fresh)
	e.completed(e.run(8, 2))
	e.none("a replaced session acted", func(b *core.BackendEvent) bool { return b.Job == stale.Job })
	e.suspend()
	p.same("after a job of a replaced session", e.cells(), mixed(counted(8), 2, 0, 8))
}

func staleAck(p *probe) {
	old := p.open(deviceName)
	e := p.entity(old, 8)
	e.completed(e.run(8, 1))
	first := old.history()
	fresh := p.open(deviceName)
	_ = old.stream.Send(&apiv1.SessionRequest{Ack: uint64(first[len(first)-1].Seq)})
	old.broken("a session with a higher number")
	fresh.drop()
	e.on(p.open(deviceName))
	e.barrier()
	if b := e.l.history()[0]; b.Seq != first[0].Seq {
		p.failf("only a replaced session has acknowledged %s, and the next one begins with %s", tell(&first[0]), tell(&b))
	}
}

func staleBulk(p *probe) {
	l, lower := p.lower()
	old := &line{p: p, in: l.in, device: l.device, number: lower}
	e, from := empty(p, l, 8)
	p.refusedWith("PutKernel of a lower session", p.putKernel(old, p.kernelHeader(old, p.kit.kernel), p.kit.kernel.Code), core.ErrStale)
	p.refusedWith("PutImage of a lower session", p.putImage(old, e.id, e.epoch, from, nil), core.ErrStale)
	e.create(from)
	e.suspend()
	_, err := p.getImage(old, uint64(lower), e.id, e.epoch, nil)
	p.refusedWith("GetImage of a lower session", err, core.ErrStale)
}
