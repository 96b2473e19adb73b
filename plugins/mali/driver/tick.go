package driver

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// tick is when slots change hands.
type tick struct {
	// wanted asks for one now, timer for one in a while.
	wanted bool
	timer  hw.Timer
	// running says that one is under way. A reset ends it, even in the middle of one of its parts,
	// when what is found in a slot asks for a reset: each part asks ticking after it has looked.
	running bool
	// count counts them, moves who came in the present one; flush asks for a cache flush in it.
	count, moves int
	flush        bool
	// ranks are the CSG priorities of who is to be resident; low says that they are from the lower half.
	ranks map[core.EntityID]uint8
	low   bool
}

// tickNow asks for a tick as soon as nothing else is under way.
func (d *Driver) tickNow() { d.tick.wanted = true }

// tickLater asks for one within a period.
func (d *Driver) tickLater() {
	if d.tick.timer != nil {
		return
	}
	d.tick.timer = d.loop.After(d.config.Tick, func() {
		d.tick.timer = nil
		d.tickNow()
	})
}

// roomy reports whether g, or with nil somebody, could have a slot without taking it, or an address space, from who uses it.
func (d *Driver) roomy(g *group) bool {
	holders, used := 0, map[*space]bool{}
	for _, s := range d.slots {
		if s.group == nil {
			continue
		}
		if !s.group.runnable() {
			return true
		}
		holders++
		used[s.group.space] = true
	}
	return holders < len(d.slots) && (len(used) < max(d.spaceBudget(), 1) || g != nil && used[g.space])
}

// runTick begins a tick if one is wanted and can be; it also wakes the device for it.
func (d *Driver) runTick() bool {
	if !d.tick.wanted || d.tick.running || d.power.held {
		return false
	}
	if d.phase == phaseOff {
		if d.wanting == 0 {
			d.tick.wanted = false
			return false
		}
		d.resume()
		return true
	}
	if d.down() {
		return false
	}
	d.tick.wanted, d.tick.running = false, true
	d.tick.count++
	if d.tick.timer != nil {
		d.tick.timer.Stop()
		d.tick.timer = nil
	}
	d.survey()
	return true
}

// ticking reports whether the present tick goes on.
func (d *Driver) ticking() bool { return d.tick.running && d.loop.Failure() == nil }

// survey is the first part: memory faults are put on groups, and the firmware is
// asked how its residents are.
func (d *Driver) survey() {
	for _, s := range d.slots {
		g := s.group
		if g == nil {
			continue
		}
		if g.space.faulted {
			d.serveSlot(s)
			if !d.ticking() {
				return
			}
			g.blameFault()
		}
		if g.state == active {
			d.ask(s, abi.GroupStatusUpdate)
		}
	}
	d.submit(d.config.Timeouts.Ack, func(late []*slot) {
		if len(late) > 0 {
			d.reset(slotError(late[0], "no STATUS_UPDATE in %s", d.config.Timeouts.Ack))
			return
		}
		d.choose()
	})
}

// choose is the second part: who is to hold the slots. Who leaves is suspended, who is dead
// terminated, and who stays gets its new priority.
func (d *Driver) choose() {
	d.held = d.held[:0]
	for _, s := range d.slots {
		key := core.EntityID(0)
		if s.group != nil {
			s.group.charge()
			key = s.group.key
		}
		d.held = append(d.held, key)
	}
	d.want = d.arbiter.Pick(core.Instant(d.now()), d.held, d.want)
	for i, s := range d.slots {
		if g := s.group; g != nil && g.state == active && d.want[i] != g.key && g.hold && g.alive() && d.tooYoung(g) {
			d.want[i] = g.key // It stays for now, and needs a rank among the others.
		}
	}
	priorities := d.rank()
	d.tick.flush, d.tick.moves, d.tick.ranks = false, 0, priorities
	for i, s := range d.slots {
		g := s.group
		switch {
		case g == nil || g.state != active:
		case d.want[i] != g.key && g.alive():
			d.tick.flush = d.tick.flush || g.hold
			d.askState(s, abi.GroupSuspend, sendSuspend)
		case d.want[i] != g.key:
			d.askState(s, abi.GroupTerminate, sendTerminate)
		case priorities[g.key] != s.priority:
			d.setPriority(s, priorities[g.key])
		}
	}
	d.submitLeave(func(late []*slot) {
		if err := d.judgeSlots(late); err != nil {
			d.reset(err)
			return
		}
		d.evict()
	})
}

// submitLeave is submit for those who leave. Who hung has had its time: when it does not let go, a
// reset is due and need not wait for the others, who are asked once more there.
func (d *Driver) submitLeave(done func(late []*slot)) {
	hung := func(s *slot) bool { return s.asked != 0 && s.group.timedout && s.group.state == terminating }
	bound := d.config.Timeouts
	if bound.Kill >= bound.Ack || !slices.ContainsFunc(d.slots, hung) {
		d.submit(bound.Ack, done)
		return
	}
	d.submit(bound.Kill, func(late []*slot) {
		if len(late) == 0 || slices.ContainsFunc(late, hung) {
			done(late)
			return
		}
		d.submit(bound.Ack-bound.Kill, done)
	})
}

// tooYoung reports whether a group that is to be suspended has only just begun: it stays
// for its minimum run period, so that suspends in a row do not keep it from coming on.
func (d *Driver) tooYoung(g *group) bool {
	rest := g.since + min(d.config.MinRun, suspendMinRun) - d.now()
	if rest <= 0 || !g.busy() || d.power.held {
		return false
	}
	d.loop.After(rest, d.tickNow)
	return true
}

// halfRanks is how many groups fit into half of the priorities.
const halfRanks = slotsMax / 2

// rank gives every group that is to be resident a CSG priority of its own: who had least GPU
// time, valued with its weight, comes first. Priorities change one after the other; so
// that no two groups have the same one meanwhile, a new order takes the half that is not in
// use. More residents than fit a half have the whole range, and two may be alike for a moment.
func (d *Driver) rank() map[core.EntityID]uint8 {
	var list []*group
	for _, key := range d.want {
		if g := d.groups[key]; g != nil {
			list = append(list, g)
		}
	}
	if len(list) == 0 {
		return nil
	}
	least := slices.MinFunc(list, func(a, b *group) int { return cmp.Compare(a.vtime, b.vtime) }).vtime
	for _, g := range list {
		// Having been away earns nothing beyond a tick.
		if g.slot == nil {
			g.vtime = max(g.vtime, least-d.config.Tick)
		}
	}
	slices.SortFunc(list, func(a, b *group) int {
		return cmp.Or(cmp.Compare(boolRank(!a.runnable()), boolRank(!b.runnable())), cmp.Compare(a.vtime, b.vtime), cmp.Compare(a.key, b.key))
	})
	ranks, same, last := map[core.EntityID]uint8{}, true, slotsMax
	for _, g := range list {
		same = same && g.slot != nil && int(g.slot.priority) < last
		if same {
			last = int(g.slot.priority)
			ranks[g.key] = g.slot.priority
		}
	}
	if same {
		return ranks
	}
	top := abi.PriorityMax
	if d.tick.low = !d.tick.low; d.tick.low && len(list) <= halfRanks {
		top -= halfRanks
	}
	for i, g := range list {
		ranks[g.key] = uint8(top - i)
	}
	return ranks
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// judgeSlots returns why a reset is due: somebody did not answer, or contradicted itself.
func (d *Driver) judgeSlots(late []*slot) error {
	if len(late) > 0 {
		return slotError(late[0], "%s not acknowledged in time", late[0].group.state)
	}
	for _, s := range d.slots {
		if s.failed {
			return slotError(s, "state of group contradicts what was requested")
		}
	}
	return nil
}

// evict is the third part: the slots of who left are emptied.
func (d *Driver) evict() {
	var left []*group
	for _, s := range d.slots {
		if g := s.group; g != nil && g.state.off() {
			d.unbind(s)
			if !d.ticking() {
				return
			}
			left = append(left, g)
		}
	}
	left = append(left, d.stale...)
	settle := func() {
		for _, g := range left {
			g.afterSlot()
		}
		d.admit()
	}
	if !d.tick.flush && len(d.stale) == 0 {
		settle()
		return
	}
	// Somebody may look at the memory of who is held, or use that of who is gone.
	d.flushCaches(settle, func() { d.reset(fmt.Errorf("cache flush: not done in %s", d.config.Timeouts.Flush)) })
}

// admit is the fourth part: newcomers get address spaces, slots and priorities.
func (d *Driver) admit() {
	if !d.ticking() {
		return
	}
	type seat struct {
		s *slot
		g *group
	}
	var seats []seat
	var enable []*space
	for i, s := range d.slots {
		g := d.groups[d.want[i]]
		if s.group != nil || g == nil || !g.runnable() || g.slot != nil || !g.state.off() {
			continue
		}
		again, err := d.spaces.activate(g.space)
		if err != nil {
			d.tickLater() // Somebody who keeps its space is about to leave.
			continue
		}
		if again {
			enable = append(enable, g.space)
		}
		s.group, g.slot = g, s
		seats = append(seats, seat{s, g})
	}
	left := len(enable)
	d.tick.moves = len(seats)
	program := func() {
		for _, x := range seats {
			d.bind(x.s, x.g, d.tick.ranks[x.g.key])
		}
		d.submit(d.config.Timeouts.Ack, func(late []*slot) {
			if err := d.judgeSlots(late); err != nil {
				d.reset(err)
				return
			}
			d.endTick()
		})
	}
	if left == 0 {
		program()
		return
	}
	for _, sp := range enable {
		d.enableSpace(sp.as, sp.table, func() {
			if left--; left == 0 {
				program()
			}
		})
	}
}

// endTick arranges the next one: only while somebody waits, or residents compete.
func (d *Driver) endTick() {
	d.tick.running = false
	competing := 0
	for _, s := range d.slots {
		if s.group != nil && s.group.runnable() {
			competing++
		}
	}
	switch {
	case d.wanting > competing && d.tick.moves > 0 && d.roomy(nil):
		d.tickNow() // Somebody woke up meanwhile.
	case d.wanting > competing || competing > 1:
		d.tickLater()
	}
}
