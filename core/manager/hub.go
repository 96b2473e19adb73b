package manager

import (
	"sync"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// subscriptionSize is how many events a reader may be behind before it gets a gap.
const subscriptionSize = 256

// Event is one durable change, for listeners.
type Event struct {
	Device string
	// Gap says that events were lost because the reader was slow; it is to look
	// at the present state.
	Gap bool
	sched.Notice
}

// hub fans events out. A slow reader never delays anybody.
type hub struct {
	mu struct {
		sync.Mutex
		readers map[*Subscription]struct{}
	}
}

// Subscription is one reader of events.
type Subscription struct {
	// C delivers events until Close.
	C   chan Event
	hub *hub
	// gap: the last in C is a gap. Guarded by hub.mu.
	gap bool
}

func newHub() *hub {
	h := &hub{}
	h.mu.readers = make(map[*Subscription]struct{})
	return h
}

func (h *hub) subscribe() *Subscription {
	s := &Subscription{C: make(chan Event, subscriptionSize), hub: h}
	h.mu.Lock()
	h.mu.readers[s] = struct{}{}
	h.mu.Unlock()
	return s
}

// Close ends the subscription; C is not closed.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	delete(s.hub.mu.readers, s)
	s.hub.mu.Unlock()
}

func (h *hub) publish(ev Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.mu.readers {
		// Only this sends, so that there is room for what len says. The last place
		// is kept for the gap: whoever reads it has read everything before, and
		// looks at a state that is later than all that was lost.
		switch room := cap(s.C) - len(s.C); {
		case room > 1:
			s.C <- ev
			s.gap = false
		case !s.gap:
			s.C <- Event{Gap: true}
			s.gap = true
		}
	}
}

// JobView is a job as users see it.
type JobView struct {
	Spec   *core.JobSpec
	State  core.JobState
	Entity string
	Device string
	// Backend drives the device.
	Backend string
	Visible string
	// Done and Executed are live.
	Done, Executed uint64
}

// EntityView is an entity as users see it, with its jobs in order.
type EntityView struct {
	Spec  core.EntitySpec
	State core.EntityState
	Jobs  []JobView
}

// Settled reports that nothing of the entity will happen by itself: every job
// has its outcome, or the entity is suspended and off the device.
func (v *EntityView) Settled() bool {
	if v.State.Residency == core.Away && v.State.Goal == core.GoalSuspend {
		return true
	}
	return v.Finished()
}

// Finished reports that every job has its outcome, and that the result files are
// written or cannot be.
func (v *EntityView) Finished() bool {
	if !v.JobsDone() {
		return false
	}
	states := make([]*core.JobState, len(v.Jobs))
	for i := range v.Jobs {
		states[i] = &v.Jobs[i].State
	}
	var last core.JobSeq
	if n := len(v.Jobs); n > 0 {
		last = v.Jobs[n-1].Spec.Seq
	}
	return !filesDue(&v.Spec, &v.State, states, last)
}

// JobsDone reports that every job has its outcome.
func (v *EntityView) JobsDone() bool {
	for i := range v.Jobs {
		if !v.Jobs[i].State.Phase.Final() {
			return false
		}
	}
	return true
}

// filesDue reports whether the jobs of an entity, up to last, are done and there
// are results whose files are not settled. Where no job completed there are none:
// files of an earlier run stay as they are.
func filesDue(spec *core.EntitySpec, state *core.EntityState, jobs []*core.JobState, last core.JobSeq) bool {
	if len(spec.Saves) == 0 || state.Filed >= last || state.Closed {
		return false
	}
	completed := false
	for _, j := range jobs {
		if !j.Phase.Final() {
			return false
		}
		completed = completed || j.Phase == core.JobCompleted
	}
	return completed
}
