package sched

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// step takes one event, and reports whether it is accepted.
func (m *model) step(ev *Event) bool {
	m.now, m.restarts, m.ready = ev.Now, 0, nil
	for _, e := range m.entities {
		e.told, e.states, e.sent, e.reply = nil, nil, nil, nil
	}
	ok := m.take(ev)
	m.unmet()
	for again := true; again; {
		again = false
		for _, e := range m.entities {
			again = m.rules(e) || again
		}
	}
	for _, w := range m.waves {
		off := true
		for _, e := range w.members {
			off = off && !w.lacks(e)
		}
		if off && !w.told {
			w.told = true
			m.ready = append(m.ready, fmt.Sprint(w.waiter, true))
		}
	}
	for _, e := range m.entities {
		switch waited := len(m.lackedBy(e)) > 0 && e.stopped; {
		case !waited:
			e.waveBy = 0
		case e.waveBy == 0:
			e.waveBy = m.now.Add(m.config.Answer)
		}
	}
	return ok
}

func (m *model) restart() {
	if m.up && !m.restarting {
		m.restarting = true
		m.restarts++
	}
}

func (m *model) take(ev *Event) bool {
	e := m.entity(ev.Entity)
	switch ev.Kind {
	case EventRestore:
		s := ev.Record.State
		m.entities = append(m.entities, &modelEntity{spec: ev.Record.Spec, goal: s.Goal, residency: s.Residency, generation: s.Generation})
	case EventSubmit:
		return m.submit(ev)
	case EventCancel:
		j := e.job(ev.Job)
		if j == nil {
			return false
		}
		e.stop(j, core.CauseUser)
	case EventGoal:
		return m.goal(e, ev.Goal)
	case EventExtend:
		j := e.job(ev.Job)
		if j == nil || j.phase.Final() || j.stopping != "" || ev.By <= 0 || j.extensions >= m.config.ExtensionsMax {
			return false
		}
		j.extensions++
		j.extended += ev.By
	case EventMessage:
		if e.closed || e.leaves() || len(e.messages) >= m.config.MessagesMax {
			return false
		}
		e.messages = append(e.messages, &modelMessage{id: ev.MessageID, barrier: ev.Barrier, after: e.last()})
	case EventPreempt:
		return m.preempt(ev)
	case EventRelease:
		for i, w := range m.waves {
			if w.waiter == ev.Waiter {
				m.waves = append(m.waves[:i:i], m.waves[i+1:]...)
				break
			}
		}
	case EventStop:
		if !e.stopped {
			e.stopped, e.stopTold, e.barrier = true, false, 0
			m.awaitReply(e, true)
		}
	case EventStart:
		e.stopped = false
	case EventLimits:
		m.config.Credits = ev.Credits
	case EventSignal:
		if _, again := m.foreign[ev.Fence]; !again {
			m.foreign[ev.Fence] = ev.Error == ""
		}
	case EventUp:
		m.sessionUp(ev)
	case EventGone:
		m.up, m.restarting = false, false
		for _, e := range m.entities {
			if e.residency != core.Away {
				victim := e.residency != core.Leaving
				m.away(e)
				if victim {
					e.retryAt = 0
					m.setback(e)
				}
			}
		}
	case EventBackend:
		m.backend(ev.Backend)
	case EventSaved, EventSaveFailed:
		if e.residency == core.Saving && e.saving == ev.Generation && e.epoch == ev.Epoch {
			m.saveAnswered(e, ev)
		}
	case EventTick:
		if late := m.lateAlone(); late != nil {
			for _, j := range late.open() {
				if j.executes && j.run != 0 {
					j.stopping = core.CauseHang
					break
				}
			}
		}
		for _, e := range m.entities {
			m.tick(e)
		}
	}
	return true
}

func (m *model) submit(ev *Event) bool {
	s := ev.Spec
	e := m.entity(s.Entity)
	hopeless := false // it waits for what never comes, or may not be waited for
	for _, d := range s.Depends {
		other := m.entity(d.Fence.Timeline)
		switch {
		case other == nil:
		case other == e:
			hopeless = hopeless || d.Fence.Seq >= s.Seq
		default:
			hopeless = hopeless || d.Fence.Seq > other.last() ||
				e.spec.Mode == core.ModeCompute && other.spec.Mode == core.ModeLongRunning
		}
	}
	if s.Seq <= e.last() || len(e.open()) >= m.config.QueueMax {
		return false
	}
	if !ev.OnRecord && (e.halted || e.goal == core.GoalClose || s.Credits > m.config.Credits || hopeless) {
		return false
	}
	j := &modelJob{spec: s, submitted: m.now}
	e.jobs = append(e.jobs, j)
	e.say(j, core.JobQueued)
	switch {
	case e.closed:
		m.finish(e, j, core.JobKilled, core.CauseUser)
	case e.halted:
		e.stop(j, core.CauseEarlier)
	case ev.Unmet != "":
		e.stop(j, core.CauseDependency)
	case hopeless:
		e.stop(j, core.CauseDependency)
	}
	return true
}

func (m *model) goal(e *modelEntity, goal core.Goal) bool {
	switch {
	case e.goal == goal:
		return true
	case e.goal == core.GoalClose:
		return false
	}
	e.goal = goal
	if goal == core.GoalRun {
		e.tries, e.losses, e.retryAt = 0, 0, 0
	}
	e.state()
	return true
}

func (m *model) park(e *modelEntity) {
	if e.goal == core.GoalRun {
		e.goal = core.GoalSuspend
		e.state()
	}
}

func (m *model) preempt(ev *Event) bool {
	for _, w := range m.waves {
		if w.waiter == ev.Waiter {
			return false
		}
	}
	w := &modelWave{waiter: ev.Waiter, away: ev.Away}
	for _, e := range m.entities {
		in := len(ev.Entities) == 0
		for _, id := range ev.Entities {
			in = in || id == e.spec.ID
		}
		if in {
			w.members = append(w.members, e)
		}
	}
	m.waves = append(m.waves, w)
	return true
}

func (m *model) setback(e *modelEntity) {
	e.losses++
	switch {
	case e.losses >= m.config.LossesMax:
		m.park(e)
	case e.losses > 1:
		e.retryAt = m.now.Add(m.config.Retry << min(e.losses-2, 6))
	}
}

// away: nothing of the entity is on an instance any more.
func (m *model) away(e *modelEntity) {
	for _, j := range e.live() {
		j.time = j.imageTime // what came after the image is to be done again
		j.inEpoch, j.run, j.cancel, j.passed, j.executes = 0, 0, 0, false, false
		if j.phase == core.JobDispatched && j.stopping == "" || j.phase == core.JobFlushing {
			e.say(j, core.JobQueued)
		}
	}
	e.pending, e.answerBy, e.saving, e.barrier, e.work, e.imaged = 0, 0, 0, 0, 0, false
	if len(e.messages) > 0 && e.messages[0].seq != 0 {
		m.answer(e, false)
	}
	e.replyBy = 0
	e.move(core.Away)
}

func (m *model) sessionUp(ev *Event) {
	m.up, m.restarting = true, false
	for _, e := range m.entities {
		held := false
		for _, h := range ev.Held {
			held = held || h.Entity == e.spec.ID && h.Epoch == e.epoch
		}
		switch {
		case e.residency == core.Away:
		case held, e.residency == core.Creating, e.residency == core.Leaving && e.pending != 0:
			cancels := false
			for _, j := range e.live() {
				cancels = cancels || j.cancel != 0
			}
			switch {
			case e.residency == core.Suspending:
				e.answerBy = m.now.Add(m.config.Preempt)
			case e.pending != 0 || cancels:
				e.answerBy = m.now.Add(m.config.Answer)
			}
			e.since, e.heard = m.now, m.now
			m.awaitReply(e, true)
		default:
			e.retryAt = 0
			m.away(e)
		}
	}
}

func (m *model) resident(e *modelEntity) {
	e.pending, e.answerBy, e.since, e.heard, e.imaged = 0, 0, m.now, m.now, false
	e.move(core.Resident)
}

func (m *model) backend(ev *core.BackendEvent) {
	if ev.Kind == core.EventDeviceHealth {
		m.restart()
		return
	}
	e := m.entity(ev.Entity)
	if e == nil || ev.Epoch != e.epoch || e.residency == core.Away {
		return
	}
	switch ev.Kind {
	case core.EventApplied:
		if e.residency == core.Creating && ev.Command == e.pending {
			m.resident(e)
		}
	case core.EventDestroyed:
		if e.residency == core.Leaving {
			m.away(e)
		}
	case core.EventMessageDone, core.EventRefused:
		m.commandAnswered(e, ev)
	case core.EventEntityLost:
		m.lost(e, ev)
	default:
		m.jobReport(e, ev)
	}
}

func (m *model) commandAnswered(e *modelEntity, ev *core.BackendEvent) {
	refused := ev.Kind == core.EventRefused
	if j := e.job(ev.Job); refused && j != nil && j.run == ev.Command {
		if j.phase.Final() {
			e.reply = append(e.reply, "violated")
			if e.residency != core.Leaving {
				e.retryAt, e.saving = 0, 0
				m.setback(e)
				m.destroy(e)
			}
			return
		}
		e.heard = m.now
		j.time += j.inEpoch
		j.run, j.cancel, j.inEpoch, j.executes = 0, 0, 0, false
		e.say(j, core.JobQueued)
		e.stop(j, core.CauseRefused)
		return
	}
	switch {
	case ev.Command == e.barrier:
		e.heard = m.now
		e.barrier = 0
		m.awaitReply(e, true)
		if e.stopped && !e.stopTold {
			e.stopTold = true
			e.reply = append(e.reply, "stopped")
		}
	case len(e.messages) > 0 && e.messages[0].seq == ev.Command:
		e.heard = m.now
		m.answer(e, !refused)
	case ev.Command != e.pending:
	case refused && e.residency == core.Creating:
		e.pending, e.answerBy = 0, 0
		m.setback(e)
		m.lostHalt(e)
		m.destroy(e)
	case refused:
		m.restart()
	case e.residency == core.Suspending:
		e.pending, e.answerBy = 0, 0
		e.move(core.Suspended)
	case e.residency == core.Resuming:
		m.resident(e)
	}
}

func (m *model) jobReport(e *modelEntity, ev *core.BackendEvent) {
	j := e.job(ev.Job)
	if j == nil || j.run == 0 {
		return
	}
	e.usage(j, ev)
	if e.residency == core.Leaving {
		return
	}
	e.heard = m.now
	switch ev.Kind {
	case core.EventStarted:
		j.executes = true
	case core.EventProgress:
		j.executes = true
		limit := j.spec.Timeout
		if e.spec.Mode == core.ModeCompute && limit > 0 && j.time+j.inEpoch > limit+j.extended {
			e.stop(j, core.CauseTimeout)
		}
	case core.EventCompleted, core.EventCancelled:
		j.time += j.inEpoch
		j.run, j.cancel, j.inEpoch, j.executes = 0, 0, 0, false
		e.losses = 0
		e.imaged = e.imaged && ev.Kind != core.EventCancelled
		if ev.Kind == core.EventCompleted && !j.phase.Final() {
			m.ranToEnd(e, j)
		}
	}
}

func (e *modelEntity) usage(j *modelJob, ev *core.BackendEvent) {
	if ev.ExecutedTime > j.inEpoch {
		e.work += ev.ExecutedTime - j.inEpoch
		j.inEpoch = ev.ExecutedTime
	}
}

func (m *model) lost(e *modelEntity, ev *core.BackendEvent) {
	j := e.job(ev.Job)
	if j != nil && j.run != 0 {
		e.usage(j, ev)
	}
	if e.residency == core.Leaving {
		return
	}
	e.retryAt, e.saving = 0, 0
	switch {
	case !ev.Guilty:
		m.setback(e)
	case j == nil || j.phase.Final():
		e.faults++
		if e.spec.OnFailure == core.OnFailureContinue && e.faults < m.config.FaultsMax {
			m.setback(e)
		} else {
			e.banned, e.halted = true, true
		}
	default:
		j.stopping = ev.Cause
	}
	m.lostHalt(e)
	m.destroy(e)
}

func (m *model) saveAnswered(e *modelEntity, ev *Event) {
	e.saving = 0
	if ev.Kind == EventSaveFailed {
		e.tries++
		e.move(core.Suspended)
		if e.tries < m.config.SaveTries {
			e.retryAt = m.now.Add(m.config.Retry << (e.tries - 1))
			return
		}
		e.tries, e.imaged = 0, true
		m.park(e)
		return
	}
	e.generation, e.lastImage, e.tries, e.losses, e.work = ev.Generation, m.now, 0, 0, 0
	for _, p := range ev.ImageJobs {
		if j := e.job(p.Job); j != nil && j.run != 0 {
			j.cursor = p.Cursor
			j.inEpoch = max(j.inEpoch, p.ExecutedTime)
			j.imageTime = j.time + j.inEpoch
		}
	}
	for _, j := range e.live() {
		switch {
		case j.phase == core.JobFlushing:
			j.cursor = j.spec.Workgroups()
			if ev.OutputError == "" {
				m.finish(e, j, core.JobCompleted, core.CauseNone)
			}
		case j.phase == core.JobCompleted && j.run == 0 && j.epoch == e.epoch:
			j.cursor = j.spec.Workgroups()
		}
	}
	for m.settleFront(e, true) {
	}
	for _, j := range e.open() {
		if j.phase == core.JobDispatched && j.stopping != "" && j.run == 0 {
			e.say(j, core.JobQueued)
		}
	}
	for _, j := range e.live() {
		if !j.phase.Final() || j.phase == core.JobCompleted && j.cursor < j.spec.Workgroups() {
			break
		}
		e.cut = j.spec.Seq
	}
	if ev.OutputError != "" {
		m.park(e)
	}
	e.imaged = true
	e.move(core.Suspended)
}

// lateAlone: an entity that is to leave the hardware, did not in time, and is the
// only one of the device that waits for an answer in vain.
func (m *model) lateAlone() *modelEntity {
	var late []*modelEntity
	for _, e := range m.entities {
		if e.answerBy != 0 && e.answerBy <= m.now || e.replyBy != 0 && e.replyBy <= m.now {
			late = append(late, e)
		}
	}
	if m.restarting || len(late) != 1 || late[0].residency != core.Suspending || late[0].answerBy == 0 || late[0].answerBy > m.now {
		return nil
	}
	return late[0]
}

// tick does what is due by time.
func (m *model) tick(e *modelEntity) {
	if e.answerBy != 0 && e.answerBy <= m.now {
		e.answerBy = 0
		m.restart()
	}
	if e.replyBy != 0 && e.replyBy <= m.now {
		e.replyBy = 0
		m.restart()
	}
	if e.waveBy != 0 && e.waveBy <= m.now {
		e.waveBy = 0
		for _, w := range m.lackedBy(e) {
			w.told = true
			m.ready = append(m.ready, fmt.Sprint(w.waiter, false))
		}
	}
	if e.retryAt <= m.now {
		e.retryAt = 0
	}
	executes := false
	for _, j := range e.live() {
		executes = executes || j.executes
		if q := j.spec.QueueTimeout; q > 0 && j.phase == core.JobQueued && j.epoch == 0 && j.submitted.Add(q) <= m.now {
			e.stop(j, core.CauseQueueTimeout)
		}
	}
	if e.residency == core.Resident && executes && e.heard.Add(m.config.Silence) <= m.now {
		m.restart()
	}
}

// suspendedRule goes on with an entity that is off the hardware.
func (m *model) suspendedRule(e *modelEntity) bool {
	if e.leaves() {
		m.destroy(e)
		return true
	}
	did, left := false, true
	for _, j := range e.open() {
		if j.stopping != "" && j.run != 0 {
			left = false
			if j.cancel == 0 {
				j.cancel = e.send("cancel %d", j.spec.ID)
				e.answerBy = m.now.Add(m.config.Answer)
				did = true
			}
		}
	}
	if left {
		e.answerBy = 0
	}
	suspends := e.goal == core.GoalSuspend || m.evacuated(e)
	switch {
	case !left || e.retryAt != 0:
		return did
	case !e.imaged && (m.imageNow(e) || suspends && e.changed()):
		e.saving = e.generation + 1
		e.move(core.Saving)
	case suspends:
		m.destroy(e)
	case m.waved(e):
		return did
	default:
		m.ask(e, core.Resuming, m.config.Answer, fmt.Sprintf("message %d", core.MessageResume))
	}
	return true
}
