package driver

import (
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// ContextView is what the driver believes of one context, and what stands in its status page.
type ContextView struct {
	ID     abi.GUCID
	Entity core.EntityID
	State  string
	// Registered and Off say what the driver assumes of the firmware.
	Registered, Off bool
	// Seqno is the last one handed out; Started and Finished are the two in memory.
	Seqno, Started, Finished uint32
	// Jobs counts those in the ring, Published those of them that the firmware may see.
	Jobs, Published int
	// First is the job that an engine has, or is to get next: the first whose seqno is not in memory. 0 is none.
	First core.JobID
}

// Contexts returns all contexts in the order of their ids. For tests and
// simulations, on the goroutine that calls Step.
func (d *Driver) Contexts() []ContextView {
	var list []ContextView
	for _, q := range d.ordered() {
		v := ContextView{ID: q.id, Entity: q.entity, State: q.state.String(), Registered: q.state.known(), Off: q.state.off(),
			Seqno: q.seqno, Started: q.seqno, Finished: q.seqno, Jobs: len(q.jobs), Published: q.published}
		if q.laid() {
			v.Started, v.Finished = q.load(q.status(abi.PPHWSPStartSeqno)), q.load(q.status(abi.PPHWSPSeqno))
		}
		if at := slices.IndexFunc(q.jobs[:q.published], func(j *job) bool { return !abi.Passed(v.Finished, j.seqno) }); at >= 0 {
			v.First = q.jobs[at].id
		}
		list = append(list, v)
	}
	return list
}

// Awaited counts the contexts whose answer is awaited within a bound, Leaked those whose
// deregistration was never answered: their ids and credits come back with the
// next GT reset. For tests and simulations, on the goroutine that calls Step.
func (d *Driver) Awaited() (awaited, leaked int) {
	for _, q := range d.queues {
		if q.leaked {
			leaked++
		}
	}
	return d.awaited, leaked
}

// Up reports whether the device takes work, or will with the next message. For
// tests and simulations, on the goroutine that calls Step.
func (d *Driver) Up() bool {
	return !d.failed() && (d.phase == phaseUp || d.phase == phaseHot || d.phase == phaseWaking || d.phase == phaseLoading)
}
