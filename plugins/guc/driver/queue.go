package driver

import (
	"fmt"
	"sync"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// queue is the driver's half of one entity. Everything but progress belongs to
// the driver's goroutine.
type queue struct {
	placement
	d      *Driver
	entity core.EntityID
	report sdk.Reporter
	id     abi.GUCID
	state  state

	// known says that the firmware has the context's registration.
	known    bool
	priority core.Priority
	// jobs are in the ring and not finished, in order; the firmware may see the first published ones.
	jobs      []*job
	published int
	slotsFree []uint32
	// seqno is the last one handed out; tail is where the next program goes, in bytes.
	seqno uint32
	tail  uint32

	// What is wanted; settle works towards it.
	suspended  bool
	destroying bool
	// lost says that the work is gone: reset by the firmware, only teardown is left.
	lost bool
	// deregisterPaid says that the disable under way reserved the credit of the deregistration too.
	deregisterPaid bool

	suspendWaits []func(error)
	destroyWaits []func(error)
	deadline     hw.Timer
	// looked says that the deadline has passed and only a last poll is left.
	looked bool

	// progress is what Progress reads, from any goroutine.
	progress struct {
		sync.Mutex
		started []jobRef
	}
}

// advance moves the queue's state; an illegal event is logged and reports false.
func (q *queue) advance(e event) bool {
	to, err := q.state.next(e)
	if err != nil {
		q.d.log.Warn("illegal context event", "entity", q.entity, "slot", q.id, "error", err)
		return false
	}
	if to == q.state {
		return true
	}
	q.disarm()
	q.state = to
	if to.pending() {
		q.deadline = q.d.after(q.d.config.Timeouts.Ack, q.expire)
	}
	return true
}

func (q *queue) disarm() {
	if q.deadline != nil {
		q.deadline.Stop()
		q.deadline = nil
	}
	q.looked = false
}

// expire: the firmware did not answer. Whoever slept looks before it judges: an
// answer that lies there counts, and one more poll is granted. If the question
// was a disable, the job that did not leave is to blame; the device is lost either way.
func (q *queue) expire() {
	deadline := q.deadline
	q.d.receive()
	q.d.interrupted = true // What was received asks for a scan.
	if q.d.failure != nil || q.deadline != deadline || !q.state.pending() {
		return
	}
	if !q.looked {
		q.looked = true
		q.deadline = q.d.after(q.d.config.Timeouts.Poll, q.expire)
		return
	}
	q.d.scanQueue(q)
	if q.state == disabling && q.published > 0 && !q.lost {
		q.lose(core.CauseHang, fmt.Sprintf("did not leave the engine in %s", q.d.config.Timeouts.Ack))
	}
	q.d.fail(fmt.Errorf("guc_id %d: no answer in state %s in %s", q.id, q.state, q.d.config.Timeouts.Ack))
}

// settle sends whatever brings the queue closer to what is wanted, and answers who waits for that.
func (q *queue) settle() {
	switch q.state {
	case unregistered:
		q.takeOut()
		q.confirmSuspended()
		switch {
		case q.destroying || q.lost:
			if q.advance(release) {
				q.free()
			}
		case !q.suspended && len(q.jobs) > 0:
			q.enable()
		}
	case disabled:
		q.takeOut()
		q.confirmSuspended()
		switch {
		case q.destroying || q.lost:
			q.deregister()
		case !q.suspended && len(q.jobs) > 0:
			q.enable()
		}
	case enabled:
		if q.published == 0 {
			// The firmware has nothing to execute, and will get nothing while suspended.
			q.takeOut()
			q.confirmSuspended()
		}
		switch {
		case q.destroying || q.lost || q.published > 0 && (q.suspended || q.cancelling()):
			q.disable()
		case !q.suspended && len(q.jobs) > q.published:
			q.publish()
			if q.advance(sendKick) {
				q.d.send(abi.SchedContext{ID: q.id}, creditNone, 0)
			}
		}
	}
}

// enable registers the context with its first job, and lets it execute.
func (q *queue) enable() {
	if !q.advance(sendEnable) {
		return
	}
	q.publish()
	if !q.known {
		q.known = true
		q.d.send(abi.RegisterContext{
			Flags: abi.ContextFlagKMD, ID: q.id, Class: abi.ClassCompute, SubmitMask: 1<<q.d.config.Instances - 1,
			LRCDescriptor: abi.LRCDescriptor{LRC: q.lrc, PrivateSpace: true}.Encode(),
		}, creditNone, 0)
		q.sendPolicies()
	}
	q.d.send(abi.SchedContextModeSet{ID: q.id, Enable: true}, creditModeSet, 1)
}

// disable takes the context off the hardware; on the way to its end, fast and
// with the credit for the deregistration.
func (q *queue) disable() {
	if !q.advance(sendDisable) {
		return
	}
	credit, replies := uint32(creditModeSet), uint32(1)
	if q.destroying || q.lost {
		q.d.send(abi.UpdateContextPolicies{ID: q.id, Policies: []abi.KLV{abi.Word(abi.KLVPreemptionTimeout, 1)}}, creditNone, 0)
		credit, replies, q.deregisterPaid = creditDestroy, 2, true
	}
	q.d.send(abi.SchedContextModeSet{ID: q.id}, credit, replies)
}

func (q *queue) deregister() {
	if !q.advance(sendDeregister) {
		return
	}
	credit, replies := uint32(creditDeregister), uint32(1)
	if q.deregisterPaid {
		credit, replies, q.deregisterPaid = creditNone, 0, false
	}
	q.d.send(abi.DeregisterContext{ID: q.id}, credit, replies)
}

// Priorities as the firmware takes them: 0 is strongest and the kernel's own.
var firmwarePriority = map[core.Priority]uint32{core.PriorityLow: 3, core.PriorityNormal: 2, core.PriorityHigh: 1}

func (q *queue) sendPolicies() {
	q.d.send(abi.Policies(q.id, firmwarePriority[q.priority], uint32(q.d.config.Quantum.Microseconds()),
		uint32(q.d.config.Preemption.Microseconds()), frequencyCompute), creditNone, 0)
}

// frequencyCompute is the frequency hint of compute work.
const frequencyCompute = 1 << 28

// confirmSuspended answers those who wait for the suspend; the context executes nothing now.
func (q *queue) confirmSuspended() {
	if !q.suspended || q.lost {
		return
	}
	answer(&q.suspendWaits, nil)
}

func answer(waits *[]func(error), err error) {
	for _, done := range *waits {
		done(err)
	}
	*waits = nil
}

// lose gives the queue's work up; the context is torn down in the background.
// Its first job is to blame, unless the cause is the device: then it is a victim.
func (q *queue) lose(cause core.Cause, detail string) {
	if q.lost {
		return
	}
	q.lost = true
	guilty := q.published > 0 && cause != core.CauseDevice
	id, usage := core.JobID(0), sdk.Usage{}
	if guilty {
		j := q.jobs[0]
		id = j.id
		usage, _ = q.usage(j)
	}
	q.d.log.Warn("context lost", "entity", q.entity, "job", id, "slot", q.id, "cause", cause, "detail", detail)
	q.drop()
	if !q.destroying {
		q.report.Lost(guilty, id, usage, cause, detail)
	}
	answer(&q.suspendWaits, fmt.Errorf("%s: %w", detail, core.ErrClosed))
}

// drop forgets all jobs.
func (q *queue) drop() {
	q.jobs, q.published = nil, 0
	delete(q.d.active, q)
	q.noteStarted()
}

// free gives id and memory back; the firmware does not know the context any more.
func (q *queue) free() {
	q.drop()
	delete(q.d.queues, q.id)
	q.d.ids.give(q.id)
	if err := q.d.memory.unplace(q.placement); err != nil {
		q.d.log.Error("device memory leaked", "entity", q.entity, "error", err)
	}
	answer(&q.destroyWaits, nil)
}
