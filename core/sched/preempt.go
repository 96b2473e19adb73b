package sched

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// wave is somebody who waits for entities to leave the hardware: memory, another
// entity, a shutdown. All are asked at once, and told of together; from then on
// until the release none of them executes, and none can fail to come back.
type wave struct {
	waiter   uint64
	entities map[*entity]struct{}
	// away: they are to leave the instance too, their images saved.
	away bool
	// all: entities that are added meanwhile join it.
	all, told bool
	// gaveUp: it was told that an entity stays.
	gaveUp bool
}

func (c *Core) preempt(ev *Event) error {
	if c.waves[ev.Waiter] != nil {
		return fmt.Errorf("waiter %d: %w", ev.Waiter, core.ErrExists)
	}
	w := &wave{waiter: ev.Waiter, entities: make(map[*entity]struct{}), all: len(ev.Entities) == 0, away: ev.Away}
	wanted := c.order
	if !w.all {
		wanted = nil
		for _, id := range ev.Entities {
			e := c.entities[id]
			if e == nil {
				return fmt.Errorf("entity %d: %w", id, core.ErrNotFound)
			}
			wanted = append(wanted, e)
		}
	}
	c.waves[ev.Waiter] = w
	for _, e := range wanted {
		c.join(w, e)
	}
	return nil
}

func (c *Core) join(w *wave, e *entity) {
	if e.waves == nil {
		e.waves = make(map[uint64]*wave)
	}
	e.waves[w.waiter] = w
	w.entities[e] = struct{}{}
	c.touch(e)
}

// tellWaves notices the waves whose last entity has left the hardware.
func (c *Core) tellWaves() {
	if len(c.waves) == 0 {
		return
	}
	for _, waiter := range slices.Sorted(maps.Keys(c.waves)) { // always in the same order
		if w := c.waves[waiter]; len(w.entities) == 0 || slices.ContainsFunc(c.touched, w.has) {
			c.tell(w)
		}
	}
}

func (w *wave) state() string {
	if w.told {
		return waveTold
	}
	return waveAsked
}

func (w *wave) has(e *entity) bool { _, in := w.entities[e]; return in }

func (c *Core) tell(w *wave) {
	if w.told {
		return
	}
	for e := range w.entities {
		if w.lacks(e) {
			return
		}
	}
	c.ready(w, "")
}

// lacks reports whether the entity still is where the wave does not want it.
func (w *wave) lacks(e *entity) bool {
	return !e.off() || w.away && e.state.Residency != core.Away
}

// ready answers who waits, once.
func (c *Core) ready(w *wave, why string) {
	controlled("wave", WaveTransitions, w.state(), waveTold)
	w.told, w.gaveUp = true, why != ""
	c.out.Notices = append(c.out.Notices, Notice{Kind: PreemptReady, Waiter: w.waiter, Error: why})
}

// boundWaves bounds how long others wait for an entity that is stopped: no command
// may ask it off the hardware.
func (c *Core) boundWaves(e *entity) {
	awaited := false
	for _, w := range e.waves {
		awaited = awaited || !w.told && w.lacks(e)
	}
	switch {
	case !awaited || e.halt == haltNone:
		e.waveBy = 0
	case e.waveBy == 0:
		e.waveBy = c.now.Add(c.config.Answer)
	}
}

// waveOverdue tells those who wait for a stopped entity that it stays.
func (c *Core) waveOverdue(e *entity) {
	if e.waveBy == 0 || e.waveBy > c.now {
		return
	}
	e.waveBy = 0
	for _, waiter := range slices.Sorted(maps.Keys(e.waves)) {
		w := e.waves[waiter]
		if w.told || !w.lacks(e) {
			continue
		}
		c.ready(w, "entity "+e.spec.Name+" is stopped")
		for _, o := range c.order {
			if w.has(o) {
				c.touch(o) // nobody waits for it any more
			}
		}
	}
}

// evacuates reports whether somebody wants the entity off the instance.
func (e *entity) evacuates() bool {
	for _, w := range e.waves {
		if w.away {
			return true
		}
	}
	return false
}

// off reports whether the entity is confirmed off the hardware.
func (e *entity) off() bool {
	switch e.state.Residency {
	case core.Away, core.Suspended, core.Saving:
		return true
	case core.Suspending:
		return mutated("tell-before-off")
	}
	return false
}

func (c *Core) releaseWave(waiter uint64) {
	w := c.waves[waiter]
	if w == nil {
		return
	}
	controlled("wave", WaveTransitions, w.state(), waveReleased)
	delete(c.waves, waiter)
	for _, e := range c.order { // in order, so that the same events give the same batch
		if _, in := w.entities[e]; in {
			delete(e.waves, waiter)
			c.touch(e)
		}
	}
}

// joinAll has a new entity join the waves that everybody is in.
func (c *Core) joinAll(e *entity) {
	for _, w := range c.waves {
		if w.all {
			c.join(w, e)
		}
	}
}

// halt is how far an EventStop has come.
type halt uint8

const (
	haltNone halt = iota
	// haltAsked: nothing follows; the barrier is to be sent, or under way.
	haltAsked
	// haltDone: the last command was carried out.
	haltDone
)

func (h halt) String() string { return [...]string{"running", "stopping", "stopped"}[h] }

// setHalt changes the stop barrier along the table.
func (e *entity) setHalt(to halt) {
	controlled("stop", StopTransitions, e.halt.String(), to.String())
	e.halt = to
}

// stopEntity begins the stop barrier. Reports are still taken, and what they
// decide waits for EventStart.
func (c *Core) stopEntity(e *entity) {
	if e.halt != haltNone {
		return
	}
	e.setHalt(haltAsked)
	e.haltSeq = 0
	c.gotReply(e)
}

// startEntity ends the stop. The answer to its barrier may still come.
func (c *Core) startEntity(e *entity) {
	if e.halt != haltNone {
		e.setHalt(haltNone)
		c.touch(e)
	}
}

// halted reports whether the entity is stopped, and sends the barrier when it
// can be sent. An entity that is on no instance has nothing under way.
func (c *Core) halted(e *entity) bool {
	if e.halt == haltAsked && e.haltSeq == 0 {
		switch {
		case e.state.Residency == core.Away:
			c.haltReached(e)
		case e.state.Residency != core.Leaving && c.up && !c.restarting:
			e.haltSeq = c.command(e, core.Command{Kind: core.CommandMessage, Message: core.MessageBarrier})
			c.expectReply(e)
			c.record(e)
		}
	}
	return e.halt != haltNone && !mutated("leak-through-stop")
}

// haltLost: the instance has lost the entity and answers nothing more about it. No
// command is under way any more, which is what the barrier asks.
func (c *Core) haltLost(e *entity) {
	if e.haltSeq != 0 || e.halt == haltAsked {
		c.haltReached(e)
	}
}

func (c *Core) haltReached(e *entity) {
	e.haltSeq = 0
	c.gotReply(e)
	if e.halt == haltAsked {
		e.setHalt(haltDone)
		c.out.Notices = append(c.out.Notices, Notice{Kind: Stopped, Entity: e.spec.ID, State: e.state.Residency})
	}
}
