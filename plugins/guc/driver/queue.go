package driver

import (
	"fmt"
	"sync"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// queue is the driver's half of one entity. Everything but progress belongs to
// the driver's goroutine.
type queue struct {
	placement
	d        *Driver
	entity   core.EntityID
	report   sdk.Reporter
	id       abi.GUCID
	state    state
	priority core.Priority

	// jobs are in the ring and not finished, in order; the firmware may see the first published ones.
	jobs      []*job
	published int
	slotsFree []uint32
	// last is what an earlier life left, until the ring is laid out.
	last privateState
	// seqno is the last one handed out; tail is where the next program goes, in bytes.
	seqno uint32
	tail  uint32
	// ticks is the context's timestamp when it was last looked at.
	ticks uint64

	// What is wanted; settle works towards it.
	suspend bool
	destroy bool
	// lost says that the work was given up, and reported so unless the end was wanted before.
	lost bool
	// policies says that the firmware is to be told of changed ones.
	policies bool
	// again says that the registration is to be repeated before the next message, as an EVENT.
	again bool
	// leaked says that the deregistration was not answered in time: nobody waits for it any more.
	leaked bool
	// evidence is against the first job: the loss is reported when it is off the engine.
	evidence *evidence

	suspendWaits []func(error)
	destroyWaits []func(error)
	// deadline bounds a pending answer, or waits for the end of the minimum run period.
	deadline hw.Timer
	// asked is when the pending question was sent, enabledAt when the last MODE_DONE(1) came.
	asked, enabledAt time.Duration
	// looked says that the deadline has passed and only a last poll is left.
	looked bool
	watch  watch

	// progress is what Progress reads, from any goroutine.
	progress struct {
		sync.Mutex
		arena   *hw.Arena
		started []jobRef
	}
}

// evidence is why a queue's first job is to blame.
type evidence struct {
	cause  core.Cause
	detail string
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
	if to.leaving() && !q.state.leaving() || to.pending() && !q.state.pending() || to == deregistering {
		q.asked = q.d.config.Clock.Now()
	}
	if to.pending() != q.state.pending() && !q.leaked {
		if to.pending() {
			q.d.awaited++
		} else {
			q.d.awaited--
		}
	}
	q.state = to
	if to.pending() {
		q.arm()
	}
	return true
}

// arm bounds the wait for the answer to what was asked last.
func (q *queue) arm() {
	q.deadline = q.d.loop.After(q.asked+q.d.config.Timeouts.Ack-q.d.config.Clock.Now(), q.expire)
}

func (q *queue) disarm() {
	if q.deadline != nil {
		q.deadline.Stop()
		q.deadline = nil
	}
	q.looked = false
}

// expire: the firmware did not answer. Whoever slept looks before it judges: an
// answer that lies there counts, and one more poll is granted. A deregistration
// is not waited for any longer: id and memory stay taken until the next GT reset, and nobody else notices.
func (q *queue) expire() {
	deadline := q.deadline
	q.d.receive()
	q.d.loop.LookAgain() // What was received asks for a scan.
	if q.d.stopped() || q.deadline != deadline || !q.state.pending() {
		return
	}
	if !q.looked {
		q.looked = true
		q.deadline = q.d.loop.After(q.d.config.Timeouts.Poll, q.expire)
		return
	}
	q.d.scanQueue(q)
	if q.d.stopped() {
		return
	}
	q.deadline = nil
	if q.state == deregistering {
		q.d.awaited--
		q.leaked = true
		q.d.log.Warn("context not deregistered", "entity", q.entity, "slot", q.id)
		host.Answer(&q.destroyWaits, nil)
		return
	}
	if q.state.leaving() && q.published > 0 && q.evidence == nil && q.stayed() {
		q.evidence = &evidence{core.CauseHang, fmt.Sprintf("did not leave the engine in %s", q.d.config.Timeouts.Ack)}
	}
	q.d.reset(fmt.Errorf("guc_id %d: no answer in state %s in %s", q.id, q.state, q.d.config.Timeouts.Ack))
}

// settle sends whatever brings the queue closer to what is wanted, and answers who
// waits for that. While the device sleeps it does what needs no message.
func (q *queue) settle() {
	for !q.d.failed() && q.d.attends() && q.act() {
	}
}

// act does one step of settle and reports whether there may be another one.
func (q *queue) act() bool {
	if q.destroy && !q.state.dying() && q.state != wedged {
		q.drop()
		if !q.state.known() {
			return q.forget()
		}
		return q.advance(kill)
	}
	if q.policies && (!q.state.known() || !q.state.alive()) {
		q.policies = false // They are said with the registration.
	}
	if q.policies && q.d.speaks() && q.advance(sendPolicies) {
		q.sendPolicies()
	}
	switch q.state {
	case unregistered:
		q.takeOut()
		switch {
		case q.held():
			return q.advance(skipSuspend)
		case len(q.jobs) > 0 && q.d.speaks():
			q.enable(sendEnable)
		}
	case parked, idleSuspended:
		q.takeOut()
		q.confirmSuspended()
		return !q.held() && q.advance(skipResume)
	case suspended:
		q.takeOut()
		q.confirmSuspended()
		if !q.held() && q.d.speaks() {
			q.enable(sendResume)
		}
	case disabled:
		q.takeOut()
		switch {
		case q.held():
			return q.advance(skipSuspend)
		case len(q.jobs) > 0 && q.d.speaks():
			q.enable(sendEnable)
		}
	case enabled:
		return q.actEnabled()
	case reset:
		if q.d.speaks() {
			q.disable(sendBan)
		}
	case killed:
		if q.d.speaks() {
			q.disable(sendDestroy)
		}
	}
	return false
}

// actEnabled is act for a context that the firmware may execute.
func (q *queue) actEnabled() bool {
	if q.published == 0 {
		// The firmware has nothing to execute, and will get nothing while suspended.
		q.takeOut()
		if q.held() {
			return q.advance(skipSuspend)
		}
	}
	switch {
	case q.published > 0 && q.cancelling():
		q.disable(sendDisable)
	case q.held():
		rest := q.enabledAt + q.d.config.MinRun - q.d.config.Clock.Now()
		if rest <= 0 || q.d.pausing {
			q.disable(sendSuspend)
		} else if q.deadline == nil {
			q.deadline = q.d.loop.After(rest, func() {
				q.deadline = nil
				q.settle()
			})
		}
	case len(q.jobs) > q.published && q.d.speaks():
		q.publish()
		if q.advance(sendKick) {
			q.d.send(abi.SchedContext{ID: q.id}, creditNone, 0)
		}
	}
	return false
}

// held reports whether the queue is to stay off the engines: for its entity, or
// because the whole device goes to sleep.
func (q *queue) held() bool { return q.suspend || q.d.pausing }

// forget frees a context that the firmware does not know.
func (q *queue) forget() bool {
	if q.advance(release) {
		q.free()
	}
	return false
}

// enable registers the context if the firmware does not know it, and lets it execute.
func (q *queue) enable(e event) {
	known := q.state.known()
	if !q.advance(e) {
		return
	}
	q.publish()
	if !known || q.again {
		q.introduce()
	}
	q.d.send(abi.SchedContextModeSet{ID: q.id, Enable: true}, creditModeSet, 1)
}

// introduce makes the context known. After a move nobody knows whether it is
// known already; an EVENT makes a duplicate harmless.
func (q *queue) introduce() {
	m := abi.RegisterContext{
		Flags: abi.ContextFlagKMD, ID: q.id, Class: abi.ClassCompute, SubmitMask: 1<<q.d.config.Instances - 1,
		LRCDescriptor: abi.LRCDescriptor{LRC: q.lrc, PrivateSpace: true}.Encode(),
	}
	if q.again {
		q.again = false
		q.d.sendEvent(m)
	} else {
		q.d.send(m, creditNone, 0)
	}
	q.sendPolicies()
}

// disable takes the context off the hardware; for good or on the way to its end
// fast, and then with the credit for the deregistration.
func (q *queue) disable(e event) {
	if !q.advance(e) {
		return
	}
	if q.again {
		q.introduce()
	}
	credit, replies := uint32(creditModeSet), uint32(1)
	if e == sendBan || e == sendDestroy {
		q.d.send(abi.UpdateContextPolicies{ID: q.id, Policies: []abi.KLV{abi.Word(abi.KLVPreemptionTimeout, 1)}}, creditNone, 0)
	}
	if e == sendDestroy {
		credit, replies = creditDestroy, 2
	}
	q.d.send(abi.SchedContextModeSet{ID: q.id}, credit, replies)
}

// Priorities as the firmware takes them: 0 is strongest and the kernel's own.
var firmwarePriority = map[core.Priority]uint32{core.PriorityLow: 3, core.PriorityNormal: 2, core.PriorityHigh: 1}

func (q *queue) sendPolicies() {
	q.policies = false
	q.d.send(abi.Policies(q.id, firmwarePriority[q.priority], uint32(q.d.config.Quantum.Microseconds()),
		uint32(q.d.config.Preemption.Microseconds()), frequencyCompute), creditNone, 0)
}

// frequencyCompute is the frequency hint of compute work.
const frequencyCompute = 1 << 28

// confirmSuspended answers those who wait for the suspend; the context executes nothing now.
func (q *queue) confirmSuspended() {
	if q.suspend && q.state.held() {
		host.Answer(&q.suspendWaits, nil)
	}
}

// lose gives the queue's work up and reports it. Its first job is to blame, unless the
// cause is the device: then it is a victim.
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
	if !q.destroy {
		q.report.Lost(guilty, id, usage, cause, detail)
	}
	host.Answer(&q.suspendWaits, fmt.Errorf("%s: %w", detail, core.ErrClosed))
}

// drop forgets all jobs.
func (q *queue) drop() {
	q.jobs, q.published, q.evidence = nil, 0, nil
	delete(q.d.active, q)
	q.noteStarted()
}

// free gives id and memory back; the firmware does not know the context any more.
func (q *queue) free() {
	q.disarm()
	q.drop()
	delete(q.d.queues, q.id)
	q.d.ids.give(q.id)
	if err := q.d.unplace(q.placement); err != nil {
		q.d.log.Error("device memory leaked", "entity", q.entity, "error", err)
	}
	host.Answer(&q.destroyWaits, nil)
}
