package arbiter

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// Limits that callers may need to know.
const (
	// QuantumMax is the longest quantum that New takes.
	QuantumMax = time.Hour
	// TurnMax is how many quanta a turn can be stretched to when moves are expensive.
	TurnMax = 4
	// AsideMax is how many waiting entities one Pick sets aside because Fits
	// refuses them, before it leaves a slot as it is until the next Pick.
	AsideMax = 64
)

const (
	// windowQuanta bounds, in quanta of a low entity, how far a holder can be
	// behind the first of the waiting: twice the longest turn.
	windowQuanta = 2 * TurnMax
	// debtQuanta bounds, in the same unit, the lead over the floor: the window and a turn, rounded up.
	debtQuanta = 2 * windowQuanta
	// turnPerCost makes a turn so long that moving costs a sixteenth of it at most.
	turnPerCost = 16
	// chargeMax bounds one charge, so that products fit 64 bits; debt cuts it anyway.
	chargeMax = 24 * time.Hour
)

// nowhere is the slot of who holds none and the place of who is in no line.
const nowhere = -1

// Config is what an Arbiter keeps to.
type Config struct {
	// Quantum is the GPU time of one turn; after it a holder gives way to
	// whoever waits with less virtual time. More than 0, at most QuantumMax.
	Quantum time.Duration
	// MinRun is how long after its grant a holder cannot be preempted. At most Quantum.
	MinRun time.Duration
	// MovesMax bounds the preemptions of one Pick; 0 means all slots. Filling a
	// free or idle slot is no preemption. Holders of a shared address space go together, also beyond it.
	MovesMax int
	// Spaces is how many address spaces the device has for slots: so many
	// entities at once hold a slot, idle holders included, and those that share one (Share)
	// count as one. 0 means as many as slots.
	Spaces int
	// Fits says whether an entity may hold a slot; nil means any may hold any.
	// It is asked during Pick only, must be pure for its duration, and must not
	// call the Arbiter. A holder that does not fit its slot any more loses it.
	Fits func(slot int, id core.EntityID) bool
}

// Arbiter shares slots among entities. One goroutine uses it.
type Arbiter struct {
	config   Config
	window   uint64
	debt     uint64
	entities map[core.EntityID]*entity
	waiting  lines
	// seats is who holds each slot, as of the last Pick.
	seats []*entity
	// floor is the least virtual time of the runnable, as of the last call that needed it.
	floor vtime
	// sharing counts the entities that share an address space.
	sharing int
	// quiet says that nobody has waited since the last Pick.
	quiet bool
	// seq numbers entries into lines and into idleness.
	seq uint64
	// now is the latest time seen.
	now core.Instant

	// Used within one Pick, kept for their memory.
	previous, evicted, aside []*entity
}

// entity is what the Arbiter knows of one.
type entity struct {
	id    core.EntityID
	level level
	// fresh says that it has never been runnable.
	fresh    bool
	runnable bool
	v        vtime
	// place is its index in the line of its priority; nowhere unless it waits.
	place int
	// slot is what it holds, or nowhere.
	slot int
	// seq is when it joined the line or became idle.
	seq uint64
	// since and used are when its turn began and the GPU time used in it.
	since core.Instant
	used  time.Duration
	// cost is what moving it costs, smoothed.
	cost time.Duration
	// space is the address space that it shares, 0 for its own.
	space uint64
}

// New returns an Arbiter without entities.
func New(c Config) (*Arbiter, error) {
	if c.Quantum <= 0 || c.Quantum > QuantumMax {
		return nil, fmt.Errorf("quantum %v: %w: more than 0, at most %v", c.Quantum, core.ErrInvalid, QuantumMax)
	}
	if c.MinRun < 0 || c.MinRun > c.Quantum {
		return nil, fmt.Errorf("minimum run period %v: %w: at most the quantum, %v", c.MinRun, core.ErrInvalid, c.Quantum)
	}
	if c.MovesMax < 0 || c.Spaces < 0 {
		return nil, fmt.Errorf("moves %d, address spaces %d: %w: not negative", c.MovesMax, c.Spaces, core.ErrInvalid)
	}
	lowQuantum := strideLow * uint64(c.Quantum)
	return &Arbiter{
		config:   c,
		window:   windowQuanta * lowQuantum,
		debt:     debtQuanta * lowQuantum,
		entities: make(map[core.EntityID]*entity),
	}, nil
}

// Join adds an idle entity. A second Join is core.ErrExists and changes nothing.
func (a *Arbiter) Join(id core.EntityID, p core.Priority) error {
	l, err := levelOf(p)
	if err != nil {
		return fmt.Errorf("join entity %d: %w", id, err)
	}
	if id == 0 {
		return fmt.Errorf("join entity 0: %w", core.ErrInvalid)
	}
	if a.entities[id] != nil {
		return fmt.Errorf("join entity %d: %w", id, core.ErrExists)
	}
	a.entities[id] = &entity{id: id, level: l, fresh: true, place: nowhere, slot: nowhere}
	return nil
}

// Leave forgets an entity, in whatever state. Its slot is free for the next
// Pick, so the caller must take it off the hardware. Unknown is core.ErrNotFound.
func (a *Arbiter) Leave(id core.EntityID) error {
	e, err := a.find("leave", id)
	if err != nil {
		return err
	}
	a.unline(e)
	if e.slot != nowhere {
		a.seats[e.slot] = nil
	}
	a.count(e, -1)
	delete(a.entities, id)
	return nil
}

// Wake makes an entity runnable; a repeat changes nothing. Unknown is core.ErrNotFound.
func (a *Arbiter) Wake(id core.EntityID) error {
	e, err := a.find("wake", id)
	if err != nil || e.runnable {
		return err
	}
	a.advance()
	// A lead out of range is that of who slept until the virtual time had wrapped around.
	if lead := e.v.over(a.floor); (lead < 0 || uint64(lead) > a.debt) && !mutated("credit-for-sleep") || mutated("forget-lead") {
		e.v = a.floor
	}
	if e.fresh {
		e.fresh = false
		e.v = a.floor + vtime(a.config.Quantum)
	}
	e.runnable = true
	if e.slot == nowhere {
		a.enqueue(e)
		a.quiet = false
	}
	return nil
}

// Idle says that an entity has nothing to execute or cannot; a repeat changes
// nothing. A holder keeps its slot until somebody wants it. Unknown is core.ErrNotFound.
func (a *Arbiter) Idle(id core.EntityID) error {
	e, err := a.find("idle", id)
	if err != nil || !e.runnable {
		return err
	}
	a.advance()
	a.unline(e)
	e.runnable = false
	a.seq++
	e.seq = a.seq
	return nil
}

// Charge adds GPU time that an entity used since the last Charge; it may come
// late, when the entity holds no slot any more. Unknown is core.ErrNotFound,
// a negative time core.ErrInvalid.
func (a *Arbiter) Charge(id core.EntityID, used time.Duration) error {
	e, err := a.find("charge", id)
	if err != nil {
		return err
	}
	if used < 0 {
		return fmt.Errorf("charge entity %d %v: %w", id, used, core.ErrInvalid)
	}
	used = min(used, chargeMax)
	e.used = min(e.used+used, chargeMax)
	if mutated("ignore-weights") {
		e.v += vtime(strideNormal * uint64(used))
	} else {
		e.v += vtime(strides[e.level] * uint64(used))
	}
	if a.quiet && e.runnable {
		a.fade(used)
	}
	// The cap is not a fall: the lead was within it before.
	if lead := e.v.over(a.floor); lead > 0 && uint64(lead) > a.debt {
		e.v = a.floor + vtime(a.debt)
	}
	if e.place != nowhere {
		a.waiting.fix(e)
	}
	return nil
}

// Moved reports what it cost to take an entity off its slot or to put it on
// (time in which the slot did nothing). Turns get longer with it, up to
// TurnMax quanta. Unknown is core.ErrNotFound, a negative cost core.ErrInvalid.
func (a *Arbiter) Moved(id core.EntityID, cost time.Duration) error {
	e, err := a.find("move", id)
	if err != nil {
		return err
	}
	if cost < 0 {
		return fmt.Errorf("move entity %d in %v: %w", id, cost, core.ErrInvalid)
	}
	e.cost += (min(cost, chargeMax) - e.cost) / 4
	return nil
}

// SetPriority changes the weight of an entity at once. Its lead over the floor
// is the same GPU time as before, valued with the new weight. Unknown is
// core.ErrNotFound.
func (a *Arbiter) SetPriority(id core.EntityID, p core.Priority) error {
	e, err := a.find("set priority of", id)
	if err != nil {
		return err
	}
	l, err := levelOf(p)
	if err != nil {
		return fmt.Errorf("set priority of entity %d: %w", id, err)
	}
	if l == e.level {
		return nil
	}
	a.advance()
	queued := e.place != nowhere
	a.unline(e)
	if lead := e.v.over(a.floor); lead > 0 && uint64(lead) <= a.debt {
		e.v = a.floor + vtime(min(uint64(lead)*strides[l]/strides[e.level], a.debt))
	}
	e.level = l
	if queued {
		a.waiting.push(e)
	}
	return nil
}

// Waiting returns how many runnable entities hold no slot. While it is 0 no tick is needed.
func (a *Arbiter) Waiting() int { return a.waiting.len() }

// Len returns how many entities have joined and not left.
func (a *Arbiter) Len() int { return len(a.entities) }

func (a *Arbiter) find(verb string, id core.EntityID) (*entity, error) {
	if e := a.entities[id]; e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("%s entity %d: %w", verb, id, core.ErrNotFound)
}

// enqueue puts e at its place in line, behind its equals.
func (a *Arbiter) enqueue(e *entity) {
	a.seq++
	e.seq = a.seq
	a.waiting.push(e)
}

func (a *Arbiter) unline(e *entity) {
	if e.place != nowhere {
		a.waiting.remove(e)
	}
}

// turn returns the GPU time after which e gives way.
func (a *Arbiter) turn(e *entity) time.Duration {
	return min(max(a.config.Quantum, turnPerCost*min(e.cost, a.config.Quantum)), TurnMax*a.config.Quantum)
}

// advance moves the floor up to the least virtual time of the runnable.
func (a *Arbiter) advance() {
	least, found := vtime(0), false
	if e := a.waiting.first([levels]bool{}); e != nil {
		least, found = e.v, true
	}
	for _, e := range a.seats {
		if e != nil && e.runnable && (!found || e.v.over(least) < 0) {
			least, found = e.v, true
		}
	}
	if found {
		a.floor = later(a.floor, least)
	}
}

// fade lets the floor rise by what was used while nobody waits, averaged over
// the holders, as if twice a low entity had used it; it stops at the highest virtual time.
func (a *Arbiter) fade(used time.Duration) {
	top, holders := a.floor, uint64(0)
	for _, e := range a.seats {
		if e != nil && e.runnable {
			top = later(top, e.v)
			holders++
		}
	}
	if holders == 0 {
		return
	}
	rise := min(2*strideLow*uint64(used)/holders, uint64(top.over(a.floor)))
	a.floor += vtime(rise)
	a.lift(a.floor)
}

// lift brings every runnable holder up to v.
func (a *Arbiter) lift(v vtime) {
	for _, e := range a.seats {
		if e != nil && e.runnable {
			e.v = later(e.v, v)
		}
	}
}
