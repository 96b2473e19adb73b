package sched

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// model is the schedulers once more, written to be obviously right and not to be
// fast: it forgets nothing, counts nothing, and finds out everything it wants to
// know by looking at all it has. Rules are tried again from the first after each
// that applied.
type model struct {
	config         Config
	now            core.Instant
	up, restarting bool
	entities       []*modelEntity
	foreign        map[core.Fence]bool // jobs of other devices: did it complete
	waves          []*modelWave
	// What was said since the last event.
	restarts int
	ready    []string
}

type modelEntity struct {
	spec                      core.EntitySpec
	goal                      core.Goal
	residency                 core.Residency
	epoch                     core.Epoch
	commands, pending         core.CommandSeq
	jobs                      []*modelJob
	cut                       core.JobSeq
	generation, saving        core.Generation
	halted, banned, closed    bool
	faults                    uint32
	losses, tries             int
	since, lastImage          core.Instant
	answerBy, replyBy, waveBy core.Instant
	retryAt, heard            core.Instant
	work                      time.Duration
	imaged                    bool
	messages                  []*modelMessage
	stopped, stopTold         bool
	barrier                   core.CommandSeq
	told, states, sent, reply []string // since the last event
}

type modelJob struct {
	spec       *core.JobSpec
	phase      core.JobPhase
	cause      core.Cause
	stopping   core.Cause
	run        core.CommandSeq // not 0: it is in the ring
	cancel     core.CommandSeq
	passed     bool // dispatch has dealt with it in this epoch
	executes   bool
	epoch      core.Epoch
	cursor     uint64
	time       time.Duration // executed for the image that this epoch began with
	inEpoch    time.Duration
	imageTime  time.Duration // executed for the recorded image
	extended   time.Duration
	extensions uint32
	submitted  core.Instant
}

type modelMessage struct {
	id      core.MessageID
	barrier Barrier
	after   core.JobSeq
	seq     core.CommandSeq
}

type modelWave struct {
	waiter  uint64
	members []*modelEntity
	away    bool
	told    bool
}

// lacks: the entity is not yet where the wave wants it.
func (w *modelWave) lacks(e *modelEntity) bool {
	off := e.residency == core.Away || !w.away && (e.residency == core.Suspended || e.residency == core.Saving)
	return !off
}

// lackedBy lists the waves that still wait for the entity.
func (m *model) lackedBy(e *modelEntity) (waves []*modelWave) {
	for _, w := range m.waves {
		for _, member := range w.members {
			if member == e && !w.told && w.lacks(e) {
				waves = append(waves, w)
			}
		}
	}
	return waves
}

func (m *model) entity(id core.EntityID) *modelEntity {
	for _, e := range m.entities {
		if e.spec.ID == id {
			return e
		}
	}
	return nil
}

// live are the jobs that the recorded image does not settle.
func (e *modelEntity) live() (jobs []*modelJob) {
	for _, j := range e.jobs {
		if j.spec.Seq > e.cut {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

// open are the jobs without an outcome.
func (e *modelEntity) open() (jobs []*modelJob) {
	for _, j := range e.jobs {
		if !j.phase.Final() {
			jobs = append(jobs, j)
		}
	}
	return jobs
}

func (e *modelEntity) job(id core.JobID) *modelJob {
	for _, j := range e.live() {
		if j.spec.ID == id {
			return j
		}
	}
	return nil
}

func (e *modelEntity) last() core.JobSeq {
	if len(e.jobs) == 0 {
		return 0
	}
	return e.jobs[len(e.jobs)-1].spec.Seq
}

func (m *model) waved(e *modelEntity) bool {
	for _, w := range m.waves {
		for _, member := range w.members {
			if member == e {
				return true
			}
		}
	}
	return false
}

// evacuated: somebody wants the entity off the instance.
func (m *model) evacuated(e *modelEntity) bool {
	for _, w := range m.waves {
		for _, member := range w.members {
			if w.away && member == e {
				return true
			}
		}
	}
	return false
}

func (e *modelEntity) leaves() bool { return e.goal == core.GoalClose || e.banned }

func (e *modelEntity) changed() bool {
	for _, j := range e.live() {
		if j.passed {
			return true
		}
	}
	return false
}

// fence says whether the fence is signalled, and whether its job completed.
func (m *model) fence(f core.Fence) (signalled, completed bool) {
	e := m.entity(f.Timeline)
	if e == nil {
		completed, signalled = m.foreign[f]
		return signalled, completed
	}
	for _, j := range e.jobs {
		if j.spec.Seq == f.Seq {
			return j.phase.Final(), j.phase == core.JobCompleted
		}
	}
	return false, false
}

func (m *model) waits(j *modelJob) bool {
	for _, d := range j.spec.Depends {
		if signalled, _ := m.fence(d.Fence); !signalled {
			return true
		}
	}
	return false
}

// say, send and state note what can be observed.
func (e *modelEntity) say(j *modelJob, to core.JobPhase) {
	j.phase = to
	e.told = append(e.told, fmt.Sprintf("job %d %s %s", j.spec.ID, to, j.cause))
}

func (e *modelEntity) send(format string, args ...any) core.CommandSeq {
	e.commands++
	e.sent = append(e.sent, fmt.Sprintf("%d/%d ", e.epoch, e.commands)+fmt.Sprintf(format, args...))
	return e.commands
}

func (e *modelEntity) state() {
	e.states = append(e.states, fmt.Sprintf("%s %s %d", e.residency, e.goal, e.generation))
}

func (e *modelEntity) move(to core.Residency) { e.residency = to; e.state() }

func (m *model) answer(e *modelEntity, ok bool) {
	e.reply = append(e.reply, fmt.Sprintf("%d %v", e.messages[0].id, ok))
	e.messages = e.messages[1:]
	m.awaitReply(e, true)
}

// awaitReply bounds the wait for the answer to a message or a barrier: anew after
// each answer.
func (m *model) awaitReply(e *modelEntity, anew bool) {
	underWay := e.barrier != 0 || e.residency != core.Leaving && len(e.messages) > 0 && e.messages[0].seq != 0
	if anew || !underWay {
		e.replyBy = 0
	}
	if underWay && e.replyBy == 0 {
		e.replyBy = m.now.Add(m.config.Answer)
	}
}

func (m *model) ask(e *modelEntity, to core.Residency, bound time.Duration, what string) {
	e.pending = e.send("%s", what)
	e.answerBy = m.now.Add(bound)
	e.move(to)
}

func (m *model) destroy(e *modelEntity) {
	if e.barrier == 0 {
		e.replyBy = 0
	}
	if e.stopped {
		e.pending, e.answerBy = 0, 0
		e.move(core.Leaving)
		return
	}
	m.ask(e, core.Leaving, m.config.Answer, "destroy")
}

// lostHalt: of an entity that is lost nothing is under way any more.
func (m *model) lostHalt(e *modelEntity) {
	if e.barrier != 0 {
		e.barrier = 0
		m.awaitReply(e, true)
	}
	if e.stopped && !e.stopTold {
		e.stopTold = true
		e.reply = append(e.reply, "stopped")
	}
}

// stop has a job end before its end.
func (e *modelEntity) stop(j *modelJob, cause core.Cause) {
	if j.stopping == "" && (j.phase == core.JobQueued || j.phase == core.JobDispatched) {
		j.stopping = cause
	}
}

// finish gives a job its outcome, and tells those who wait for it.
func (m *model) finish(e *modelEntity, j *modelJob, outcome core.JobPhase, cause core.Cause) {
	j.cause, j.stopping = cause, ""
	e.say(j, outcome)
	m.unmet()
}

// unmet stops the jobs that a failed dependency stops.
func (m *model) unmet() {
	for _, e := range m.entities {
		for _, j := range e.jobs {
			for _, d := range j.spec.Depends {
				signalled, completed := m.fence(d.Fence)
				if !signalled || completed || j.phase != core.JobQueued || j.epoch != 0 {
					continue
				}
				switch d.OnFailure {
				case core.DependencyIgnore:
				case core.DependencyCancel:
					e.stop(j, core.CauseUser)
				default:
					e.stop(j, core.CauseDependency)
				}
			}
		}
	}
}

// failed applies the entity's policy.
func (m *model) failed(e *modelEntity, j *modelJob, guilty bool) {
	if guilty {
		e.faults++
	}
	if e.spec.OnFailure == core.OnFailureContinue && e.faults < m.config.FaultsMax {
		return
	}
	e.banned, e.halted = e.banned || guilty, true
	for _, later := range e.jobs {
		if later.spec.Seq > j.spec.Seq {
			e.stop(later, core.CauseEarlier)
		}
	}
}

// settleFront gives the first job without an outcome the one that it is to have.
func (m *model) settleFront(e *modelEntity, off bool) bool {
	open := e.open()
	if len(open) == 0 {
		return false
	}
	j := open[0]
	switch {
	case j.stopping != "" && j.run == 0 && (j.phase == core.JobQueued || off):
		switch cause := j.stopping; cause {
		case core.CauseUser, core.CauseEarlier:
			m.finish(e, j, core.JobCancelled, cause)
		case core.CauseTimeout, core.CauseQueueTimeout:
			m.finish(e, j, core.JobTimedOut, cause)
			m.failed(e, j, cause == core.CauseTimeout)
		case core.CauseDependency:
			m.finish(e, j, core.JobDependencyFailed, cause)
			m.failed(e, j, false)
		default:
			m.finish(e, j, core.JobFailed, cause)
			m.failed(e, j, true)
		}
	case e.banned && e.residency == core.Away:
		m.finish(e, j, core.JobCancelled, core.CauseEarlier)
	default:
		return false
	}
	return true
}

// rules has the first rule that applies to the entity do its part.
func (m *model) rules(e *modelEntity) bool {
	if m.settleFront(e, e.residency == core.Away) {
		// One entity after the other: when jobs of two end at the same instant, it
		// decides which of two causes comes first.
		for m.settleFront(e, e.residency == core.Away) {
		}
		return true
	}
	if e.residency == core.Away {
		return m.awayRules(e)
	}
	switch {
	case !m.up || m.restarting:
		return false
	case e.stopped:
		if !e.stopTold && e.barrier == 0 && e.residency != core.Leaving {
			e.barrier = e.send("message %d", core.MessageBarrier)
			m.awaitReply(e, false)
			return true
		}
		return false
	}
	if len(e.messages) > 0 && e.messages[0].seq == 0 && e.residency == core.Resident && !e.heldBack(e.messages[0]) {
		e.messages[0].seq = e.send("message %d", core.MessageBackend)
		m.awaitReply(e, false)
		return true
	}
	switch e.residency {
	case core.Creating:
		if e.goal != core.GoalRun || m.evacuated(e) {
			m.destroy(e)
			return true
		}
	case core.Leaving:
		if e.pending == 0 {
			e.pending, e.answerBy = e.send("destroy"), m.now.Add(m.config.Answer)
			return true
		}
	case core.Resident:
		return m.residentRule(e)
	case core.Suspended:
		return m.suspendedRule(e)
	}
	return false
}

// heldBack: the message waits for the outcomes of earlier jobs.
func (e *modelEntity) heldBack(msg *modelMessage) bool {
	open := e.open()
	return msg.barrier == BarrierAfter && len(open) > 0 && open[0].spec.Seq <= msg.after
}

func (m *model) awayRules(e *modelEntity) bool {
	open := e.open()
	switch {
	case e.goal == core.GoalClose && !e.closed:
		for _, j := range open {
			m.finish(e, j, core.JobKilled, core.CauseUser)
		}
		e.closed = true
		e.state()
	case (e.closed || e.banned) && len(e.messages) > 0:
		m.answer(e, false)
	case e.stopped && !e.stopTold:
		e.stopTold = true
		e.reply = append(e.reply, "stopped")
	case e.stopped || !m.up || m.restarting || e.goal != core.GoalRun || e.banned || e.retryAt != 0 || m.waved(e):
		return false
	case len(e.messages) > 0 || len(open) > 0 && !m.waits(open[0]):
		e.epoch++
		m.ask(e, core.Creating, m.config.Answer, fmt.Sprintf("create %d", e.generation))
	default:
		return false
	}
	return true
}

// dispatch sends what can be sent, in submission order.
func (m *model) dispatch(e *modelEntity) bool {
	did := false
	for _, j := range e.live() {
		final := j.phase.Final()
		replays := j.phase == core.JobCompleted && j.epoch != e.epoch && j.cursor < j.spec.Workgroups()
		if j.passed {
			continue
		}
		if final && !replays {
			j.passed = true
			continue
		}
		if !final && (m.waits(j) || j.stopping != "" || e.flushing() || e.messageBefore(j)) {
			break
		}
		if used := e.used(); used > 0 && used+j.spec.Credits > m.config.Credits {
			break
		}
		j.passed, did = true, true
		if j.cursor >= j.spec.Workgroups() {
			m.ranToEnd(e, j)
			continue
		}
		j.epoch = e.epoch
		if !final {
			e.say(j, core.JobDispatched)
		}
		j.run = e.send("run %d from %d", j.spec.ID, j.cursor)
	}
	return did
}

// used is the room in the ring that its jobs take.
func (e *modelEntity) used() (credits uint32) {
	for _, j := range e.live() {
		if j.run != 0 {
			credits += j.spec.Credits
		}
	}
	return credits
}

// flushing: a job whose files later jobs must not change is under way.
func (e *modelEntity) flushing() bool {
	for _, j := range e.open() {
		if j.passed && j.spec.Flush {
			return true
		}
	}
	return false
}

func (e *modelEntity) messageBefore(j *modelJob) bool {
	for _, msg := range e.messages {
		if msg.barrier == BarrierBefore && j.spec.Seq > msg.after {
			return true
		}
	}
	return false
}

func (m *model) ranToEnd(e *modelEntity, j *modelJob) {
	j.stopping = ""
	if j.spec.Flush {
		e.say(j, core.JobFlushing)
		return
	}
	m.finish(e, j, core.JobCompleted, core.CauseNone)
}

func (m *model) residentRule(e *modelEntity) bool {
	suspends := e.goal == core.GoalSuspend || m.evacuated(e)
	did := !e.leaves() && !suspends && m.dispatch(e)
	switch {
	case e.leaves(), suspends && !e.changed():
		m.destroy(e)
		return true
	case (suspends || m.waved(e) || m.imageNow(e)) && m.now >= e.since.Add(m.config.MinRun):
		m.ask(e, core.Suspending, m.config.Preempt, fmt.Sprintf("message %d", core.MessageSuspend))
		return true
	}
	return did
}

// imageNow: a checkpoint is due, by time, by work or by jobs; a file is due; or a
// job is to be taken out.
func (m *model) imageNow(e *modelEntity) bool {
	done := 0
	for _, j := range e.live() {
		if !j.phase.Final() {
			break
		}
		done++
	}
	for _, j := range e.open() {
		if j.phase == core.JobFlushing || j.phase == core.JobDispatched && j.stopping != "" {
			return true
		}
	}
	checkpoint := e.spec.Properties.Checkpoint
	return done >= m.config.ReplayJobsMax ||
		e.spec.Mode == core.ModeCompute && e.work >= m.config.ReplayMax ||
		e.spec.Mode == core.ModeLongRunning && checkpoint > 0 && e.changed() && m.now >= max(e.since, e.lastImage).Add(checkpoint)
}
