package sim

import (
	"maps"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// packet is one command on its way.
type packet struct {
	session core.Session
	command core.Command
}

// link is the stream of one session.
type link struct {
	session core.Session
	down    []packet
	acks    []core.EventSeq
	// upTo is the last numbered event that arrived.
	upTo core.EventSeq
}

// carryCommand has the next command arrive: the oldest, or that of another
// entity before its turn. It may arrive again later.
func (w *world) carryCommand() {
	l := w.link
	if l == nil || len(l.down) == 0 {
		return
	}
	i := 0
	if !w.healing && w.chance(6) {
		entity := l.down[w.rand.IntN(len(l.down))].command.Entity
		i = slices.IndexFunc(l.down, func(p packet) bool { return p.command.Entity == entity })
		if i > 0 {
			w.counts["command overtakes"]++
		}
	}
	p := l.down[i]
	l.down = slices.Delete(l.down, i, i+1)
	if !w.healing && w.chance(20) {
		w.counts["command doubled"]++
		l.down = slices.Insert(l.down, w.rand.IntN(len(l.down)+1), p)
	}
	w.receive(p)
}

// carryAck has the next acknowledgement arrive.
func (w *world) carryAck() {
	l := w.link
	if l == nil || len(l.acks) == 0 {
		return
	}
	seq := l.acks[0]
	l.acks = l.acks[1:]
	in := w.plant
	for len(in.events) > 0 && in.events[0].Seq <= seq {
		if in.events[0].Kind == core.EventDeviceHealth {
			w.problem("a failure of the device is acknowledged to the instance that is to end for it")
		}
		in.events = in.events[1:]
	}
}

// carryEvent has the next numbered event arrive. One that is missing, or comes
// before its turn, shows by its number: then the session ends, as the host ends
// it, and all that was not acknowledged comes again.
func (w *world) carryEvent() {
	l := w.link
	if l == nil || w.daemon == nil {
		return
	}
	if n := len(w.plant.events); n > 0 && w.plant.events[n-1].Seq > l.upTo && !w.healing && w.chance(200) {
		w.counts["event missing"]++
		w.breakLink()
		return
	}
	for i := range w.plant.events {
		if ev := w.plant.events[i]; ev.Seq > l.upTo {
			l.upTo = ev.Seq
			w.note("event %d", ev.Seq)
			_ = w.daemon.step(sched.Event{Kind: sched.EventBackend, Backend: &ev})
			return
		}
	}
}

// carryProgress has a sample arrive, or be lost, or stay to come again.
func (w *world) carryProgress() {
	if w.link == nil || w.daemon == nil || len(w.plant.samples) == 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(w.plant.samples))
	id := ids[w.rand.IntN(len(ids))]
	ev := w.plant.samples[id]
	if w.healing || !w.chance(3) {
		delete(w.plant.samples, id)
	}
	if w.healing || !w.chance(5) {
		w.note("progress e=%d j=%d %d", id, ev.Job, ev.Executed)
		_ = w.daemon.step(sched.Event{Kind: sched.EventBackend, Backend: &ev})
	}
}

// oldReport repeats a report of an epoch that is over, or one of the present
// epoch that was taken.
func (w *world) oldReport() {
	if w.daemon == nil || w.link == nil || len(w.old) == 0 {
		return
	}
	ev := w.old[w.rand.IntN(len(w.old))]
	s, known := w.daemon.states[ev.Entity]
	switch {
	case known && ev.Epoch < s.Epoch:
		w.counts["old report"]++
	case known && ev.Epoch == s.Epoch && ev.Seq <= w.link.upTo:
		w.counts["report doubled"]++
	default:
		return
	}
	ev.Seq = 0
	_ = w.daemon.step(sched.Event{Kind: sched.EventBackend, Backend: &ev})
}

// breakLink ends the session. What was on its way down is lost, or arrives late.
func (w *world) breakLink() {
	if w.link == nil {
		return
	}
	w.counts["broken link"]++
	if w.chance(2) {
		w.stray = w.link.down
	}
	w.link = nil
}

// carryStray has a command of a broken session arrive.
func (w *world) carryStray() {
	if len(w.stray) > 0 {
		p := w.stray[0]
		w.stray = w.stray[1:]
		w.receive(p)
	}
}

// startInstance starts a plugin, once the end of the one before is on record.
func (w *world) startInstance() {
	if w.plant != nil || w.ended || w.daemon == nil {
		return
	}
	w.note("instance")
	w.plant = &instance{lanes: make(map[core.EntityID]*lane), samples: make(map[core.EntityID]core.BackendEvent)}
	w.connect()
}

// connect opens a session: its number is on record first.
func (w *world) connect() {
	d := w.daemon
	if d == nil || d.rebuilding || w.plant == nil || w.link != nil || d.connecting {
		return
	}
	d.connecting = true
	d.session++
	session := d.session
	w.medium.add(w, &core.Write{Session: session}, func(err error) {
		d.connecting = false
		if err != nil {
			d.commitFailed()
			return
		}
		if w.plant == nil || w.daemon != d || w.plant.session >= session {
			return
		}
		w.attach(session)
	})
}

func (w *world) attach(session core.Session) {
	w.note("session %d", session)
	w.plant.session = session
	w.link = &link{session: session}
	w.daemon.ring = w.ring
	ev := sched.Event{Kind: sched.EventUp, Credits: w.ring}
	for _, id := range w.plant.held() {
		l := w.plant.lanes[id]
		ev.Held = append(ev.Held, sched.Held{Entity: id, Epoch: l.epoch, Applied: l.applied})
	}
	_ = w.daemon.step(ev)
}

// killInstance ends the instance. That it has ended is found out for sure.
func (w *world) killInstance() {
	if w.plant == nil {
		return
	}
	w.counts["instance ended"]++
	w.note("instance ended")
	w.plant, w.link, w.stray, w.ended = nil, nil, nil, true
	if w.daemon != nil {
		w.daemon.tellGone()
	}
}
