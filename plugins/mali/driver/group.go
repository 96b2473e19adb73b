package driver

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/arbiter"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// group is what takes a CSG slot: queues with one address space, one priority
// and one suspend buffer. All of it belongs to the driver's goroutine.
type group struct {
	d     *Driver
	key   core.EntityID
	state state
	// slot is where it is resident, nil when it is not.
	slot     *slot
	space    *space
	queues   []*queue
	priority core.Priority
	// suspend is the device address of its suspend buffer, 0 before the first job.
	suspend uint64
	// owner hears of what becomes of the group's jobs.
	owner owner

	// blocked and fatal are masks of queues: those that wait for a sync object
	// with nothing else to do, and those that died.
	blocked, fatal uint32
	waits          [abi.StreamsMax]syncWait
	// timedout: no progress in time. innocent: it did nothing wrong, its slot failed.
	timedout, innocent bool
	evidence           *evidence
	// hold keeps it off its slot: its entity is suspended, a job is taken out, or its end is wanted.
	hold    bool
	taking  bool
	destroy bool
	buried  bool
	// wants is what refresh saw last: whether a slot would be of use.
	wants bool
	// executed is what the first job had executed when SUSPEND was requested.
	executed uint64
	// resumed says that nothing was seen of the group since its last RESUME.
	resumed bool
	// dirty says that what was saved of it may still be in the cache (see Driver.dirty).
	dirty bool
	// vtime orders residents by the GPU time that they had, valued with their weight.
	vtime time.Duration
	// since is when it began on its slot.
	since   time.Duration
	charged time.Duration
	seen    time.Duration
}

// owner is who made the group: an entity, or a Group.
type owner interface {
	// completed: the job's seqno was reached; fault is against it, nil for none.
	completed(j *job, fault *evidence)
	// died: the group is off its slot for good; its jobs are still in its queues.
	died(blame *evidence)
	// vacated: the group is off its slot and may be changed.
	vacated()
	// measured is the time its jobs executed so far; false when nobody knows.
	measured() (time.Duration, bool)
}

// evidence is why a group's job is to blame.
type evidence struct {
	job    *job
	queue  *queue
	cause  core.Cause
	detail string
}

// syncWait is what a blocked queue waits for: memory greater than a value, or not.
type syncWait struct {
	address, value uint64
	wide, greater  bool
}

// newGroup makes a group without memory and admits it. Errors wrap core.ErrFull or core.ErrInvalid.
func (d *Driver) newGroup(o owner, p core.Priority, queues int) (*group, error) {
	if d.arbiter == nil {
		return nil, fmt.Errorf("device is not up: %w", core.ErrInvalid)
	}
	if uint32(len(d.groups)) >= d.config.EntitiesMax {
		return nil, fmt.Errorf("all %d groups are taken: %w", d.config.EntitiesMax, core.ErrFull)
	}
	d.keys++
	g := &group{d: d, key: d.keys, owner: o, priority: p}
	for m := range queues {
		g.queues = append(g.queues, &queue{g: g, index: uint8(m)})
	}
	if err := d.arbiter.Join(g.key, p); err != nil {
		return nil, err
	}
	d.groups[g.key] = g
	return g, nil
}

// ordered are all groups in the order in which they were made.
func (d *Driver) ordered() []*group {
	return slices.SortedFunc(maps.Values(d.groups), func(a, b *group) int { return cmp.Compare(a.key, b.key) })
}

// advance moves the group's state; an illegal event is logged and reports false.
func (g *group) advance(e event) bool {
	to, err := g.state.next(e)
	if err != nil {
		g.d.log.Warn("illegal group event", "entity", g.key, "error", err)
		return false
	}
	g.state = to
	return true
}

// alive reports whether the group's work can go on.
func (g *group) alive() bool {
	return !g.state.over() && !g.buried && !g.destroy && g.fatal == 0 && !g.timedout && g.evidence == nil
}

// mayRun reports whether the group may hold a slot. It is asked by the arbiter.
func (g *group) mayRun() bool { return g != nil && g.alive() && !g.hold && !g.taking }

// busy reports whether jobs are left.
func (g *group) busy() bool {
	return slices.ContainsFunc(g.queues, func(q *queue) bool { return len(q.jobs) > 0 })
}

// runnable reports whether a slot would be of use: a queue with jobs that is not blocked.
func (g *group) runnable() bool {
	return g.mayRun() && slices.ContainsFunc(g.queues, func(q *queue) bool { return len(q.jobs) > 0 && g.blocked&(1<<q.index) == 0 })
}

// refresh tells the arbiter whether the group wants a slot, and ticks if it could have one now.
func (g *group) refresh() {
	d := g.d
	if d.groups[g.key] != g {
		return
	}
	wants := g.runnable()
	if wants != g.wants {
		if g.wants = wants; wants {
			d.wanting++
		} else {
			d.wanting--
		}
	}
	if !wants {
		d.check(d.arbiter.Idle(g.key))
		return
	}
	d.check(d.arbiter.Wake(g.key))
	switch {
	case g.slot != nil:
		d.tickLater()
	case !d.tick.running && d.roomy(g):
		d.tickNow()
	default:
		d.tickLater()
	}
}

// check takes an error of the arbiter, which would be our own mistake.
func (d *Driver) check(err error) {
	if err != nil {
		d.log.Error("arbiter refused", "error", err)
	}
}

// setBlocked changes the mask of blocked queues.
func (g *group) setBlocked(mask uint32) {
	if (mask != 0) != (g.blocked != 0) {
		if mask != 0 {
			g.d.blockedGroups++
		} else {
			g.d.blockedGroups--
		}
	}
	g.blocked = mask
}

// condemn gives the group up for what one of its jobs did; the loss is told when it is off its slot.
func (g *group) condemn(e *evidence) {
	if g.evidence != nil || g.buried {
		return
	}
	job := core.JobID(0)
	if e.job != nil {
		job = e.job.id
	}
	g.d.log.Warn("group condemned", "entity", g.key, "job", job, "cause", e.cause, "detail", e.detail)
	g.evidence = e
	g.leave()
}

// leave takes a group that can't or must not run off its slot; one that is off is dealt with at once.
func (g *group) leave() {
	g.refresh()
	if g.slot == nil {
		g.afterSlot()
	}
	g.d.tickNow()
}

// afterSlot deals with a group that is on no slot: it dies, ends, or is changed.
func (g *group) afterSlot() {
	if g.state == unknown || !g.state.off() {
		return
	}
	if !g.alive() {
		if g.state != terminated {
			g.advance(drop)
		}
		g.bury()
		if g.destroy && !g.settle() {
			g.free()
		}
		return
	}
	g.owner.vacated()
	g.refresh()
}

// settle reports whether the suspend buffer can't be used anew yet: an image that is still in the
// cache would be written over what comes. The next tick flushes, or a reset drops it.
func (g *group) settle() bool {
	if g.dirty {
		g.d.stale = append(g.d.stale, g)
		g.d.tickNow()
	}
	return g.dirty
}

// bury tells the owner, once, that the group is dead.
func (g *group) bury() {
	if g.buried {
		return
	}
	g.buried = true
	g.setBlocked(0)
	g.owner.died(g.evidence)
	g.evidence = nil
	g.refresh()
}

// free gives the group's memory back; nobody knows it any more.
func (g *group) free() {
	d := g.d
	if g.state == gone || !g.advance(release) {
		return
	}
	g.setBlocked(0)
	if g.wants {
		d.wanting--
	}
	d.check(d.arbiter.Leave(g.key))
	delete(d.groups, g.key)
	var all error
	for _, q := range g.queues {
		all = errors.Join(all, d.memory.FreeLow(q.pages))
		q.jobs = nil
	}
	all = errors.Join(all, d.memory.FreeLow(g.suspend))
	if g.space != nil {
		g.space.groups--
	}
	if f, ok := g.owner.(interface{ freed() error }); ok {
		all = errors.Join(all, f.freed())
	}
	if all != nil {
		d.log.Error("device memory leaked", "entity", g.key, "error", all)
	}
}

// strides value GPU time by priority, as the arbiter does.
var strides = map[core.Priority]time.Duration{core.PriorityHigh: 1, core.PriorityNormal: arbiter.HighToNormal,
	core.PriorityLow: arbiter.HighToNormal * arbiter.NormalToLow}

// charge takes what the group executed since the last time.
func (g *group) charge() {
	now := g.d.now()
	since := now - g.seen
	g.seen = now
	used := since
	if total, known := g.owner.measured(); known {
		used = total - g.charged
	} else if !g.busy() {
		used = 0
	}
	used = max(used, 0)
	g.charged += used
	g.vtime += used * strides[g.priority]
	g.d.check(g.d.arbiter.Charge(g.key, used))
}
