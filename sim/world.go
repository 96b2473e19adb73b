package sim

import (
	"hash"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// world is everything there is in one run.
type world struct {
	rand *rand.Rand
	now  core.Instant
	hash hash.Hash64
	// weights say how often what is drawn; healing means that no fault is.
	weights []int
	healing bool

	// What survives a crash of the daemon.
	medium *medium
	images map[core.EntityID]map[core.Generation]*image
	files  map[core.JobID]bool
	plant  *instance
	// ended says that an instance ended and that is not on record yet; usage is
	// what it counted.
	ended bool
	usage map[core.UsageKey]uint64

	daemon *daemon
	link   *link
	// stray are commands of broken sessions that still may arrive.
	stray []packet

	// What is true, whoever knows it.
	entities   map[core.EntityID]*entity
	jobs       map[core.JobID]*job
	foreign    map[core.Fence]*string
	sent       map[commandKey]string
	old        []core.BackendEvent
	ring       uint32
	nextEntity core.EntityID
	nextJob    core.JobID
	nextOther  uint64

	broken string
	keep   bool
	trace  []string
	counts map[string]int
}

// entity is what is true of an entity.
type entity struct {
	spec core.EntitySpec
	// faults counts what its jobs really did wrong.
	faults      int
	closeAsked  bool
	closeAcked  bool
	forgotten   bool
	suspendedAt core.Instant
	// heardAt is when the daemon was last told of a job of it that executes.
	heardAt core.Instant
	// recorded is the highest command number on record.
	recorded core.CommandSeq
	jobs     []*job
}

// job is what is true of a job.
type job struct {
	spec  *core.JobSpec
	trait trait
	at    uint64 // the workgroup where the trait shows
	unmet string
	acked bool
	told  core.JobPhase
	ran   uint64
	// clock is what was executed of the work that its entity holds, on the device or
	// in the image that it was made from; overtime says that it was over the timeout
	// when the daemon said so.
	clock    time.Duration
	overtime bool
	// What was done to it.
	cancelled, refused, guilty bool
	// hopeless: it was on record with a dependency that it may not have.
	hopeless  bool
	submitted core.Instant
}

// trait is how a job behaves.
type trait uint8

const (
	honest trait = iota
	traps
	hangs     // and nobody but the schedulers finds out
	hangsSeen // and the driver reports it
	unloadable
	slow
)

// image is one generation of an entity.
type image struct {
	memory memory
	jobs   []core.ImageJob
	clocks map[core.JobID]time.Duration
}

// commandKey is what a command is idempotent under.
type commandKey struct {
	entity core.EntityID
	epoch  core.Epoch
	seq    core.CommandSeq
}

// ids returns the entities in order.
func (w *world) ids() []core.EntityID { return slices.Sorted(maps.Keys(w.entities)) }

// pick draws an entity, nil when there is none.
func (w *world) pick() *entity {
	ids := w.ids()
	if len(ids) == 0 {
		return nil
	}
	return w.entities[ids[w.rand.IntN(len(ids))]]
}

// begin makes the first entities, and starts daemon and instance.
func (w *world) begin() {
	w.weights = make([]int, len(actions))
	for i, a := range actions {
		w.weights[i] = a.weight
		if a.optional { // some runs are without it, some full of it
			w.weights[i] = a.weight * []int{0, 0, 1, 3}[w.rand.IntN(4)]
		}
	}
	w.startDaemon()
	for range 2 + w.rand.IntN(2) {
		w.addEntity()
	}
	w.settleMedium()
	w.startInstance()
}

// act takes one step.
func (w *world) act() {
	total := 0
	for _, n := range w.weights {
		total += n
	}
	n := w.rand.IntN(total)
	for i, weight := range w.weights {
		if n < weight {
			w.note("act %s", actions[i].name)
			actions[i].do(w)
			return
		}
		n -= weight
	}
}

// action is one kind of step. An optional one is left out of some runs.
type action struct {
	name     string
	weight   int
	optional bool
	do       func(*world)
}

var actions = []action{
	{"sync", 240, false, func(w *world) { w.medium.sync(w, 1+w.rand.IntN(3)) }},
	{"report", 240, false, func(w *world) { w.medium.report() }},
	{"answer", 200, false, (*world).answer},
	{"command", 240, false, (*world).carryCommand},
	{"event", 240, false, (*world).carryEvent},
	{"ack", 60, false, (*world).carryAck},
	{"progress", 160, false, (*world).carryProgress},
	{"lane", 240, false, (*world).laneStep},
	{"execute", 240, false, (*world).execute},
	{"start instance", 60, false, (*world).startInstance},
	{"connect", 60, false, (*world).connect},
	{"start daemon", 60, false, (*world).startDaemon},
	{"tick", 30, false, (*world).tick},
	{"wait", 3, true, (*world).wait},
	{"submit", 24, false, (*world).submit},
	{"feed", 10, false, (*world).feed},

	{"cancel", 3, true, (*world).cancel},
	{"suspend", 4, true, func(w *world) { w.goal(core.GoalSuspend) }},
	{"run", 30, false, func(w *world) { w.goal(core.GoalRun) }},
	{"close", 1, true, func(w *world) { w.goal(core.GoalClose) }},
	{"properties", 3, true, (*world).properties},
	{"extend", 3, true, (*world).extend},
	{"message", 5, true, (*world).message},
	{"preempt", 3, true, (*world).preempt},
	{"release", 24, false, (*world).release},
	{"stop", 3, true, (*world).stop},
	{"start", 16, true, (*world).start},
	{"limits", 2, true, (*world).limits},
	{"signal", 12, false, (*world).signal},
	{"forget", 6, true, (*world).forget},
	{"add entity", 4, false, (*world).addEntity},

	{"crash daemon", 1, true, (*world).crashDaemon},
	{"kill instance", 1, true, (*world).killInstance},
	{"break link", 1, true, (*world).breakLink},
	{"stray command", 4, true, (*world).carryStray},
	{"fail sync", 1, true, func(w *world) { w.medium.fail(w) }},
	{"lose victim", 2, true, func(w *world) { w.lose(false) }},
	{"lose guilty", 1, true, func(w *world) { w.lose(true) }},
	{"fail device", 1, true, (*world).failDevice},
	{"old report", 6, true, (*world).oldReport},
	{"report hang", 4, true, (*world).reportHang},
}

// tick has the timers that are due go off.
func (w *world) tick() {
	if d := w.daemon; d != nil && d.core.Next() != 0 && d.core.Next() <= w.now {
		_ = d.step(sched.Event{Kind: sched.EventTick})
	}
}

// wait lets the time of the next timer come.
func (w *world) wait() {
	if d := w.daemon; d != nil && d.core.Next() != 0 {
		w.now = max(w.now, d.core.Next())
		w.tick()
	}
}
