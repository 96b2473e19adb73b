package sim

import (
	"reflect"
	"slices"
	"strings"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// checkBatch looks at what one step decided, before anything is on record.
func (w *world) checkBatch(d *daemon, ev *sched.Event) {
	w.hear(d, ev.Backend)
	for i := range d.batch.Jobs {
		s := &d.batch.Jobs[i]
		j := w.jobs[s.ID]
		if j == nil {
			w.problem("job %d is decided on and nobody knows it", s.ID)
			return
		}
		if old := d.jobs[s.ID]; old.Phase.Final() && (old.Phase != s.Phase || old.Cause != s.Cause) {
			w.problem("job %d: outcome %s became %s", s.ID, old.Phase, s.Phase)
		}
		w.checkBlame(d, j, s)
		d.jobs[s.ID] = *s
	}
	for i := range d.batch.Entities {
		s := &d.batch.Entities[i]
		e := w.entities[s.ID]
		if s.Residency == core.Suspending && d.states[s.ID].Residency != core.Suspending {
			e.suspendedAt = w.now
		}
		if int(s.Faults) > e.faults || s.Banned && e.faults == 0 {
			w.problem("entity %d has %d faults, banned %t: really %d; event %d", s.ID, s.Faults, s.Banned, e.faults, ev.Kind)
		}
		d.states[s.ID] = *s
	}
	for i := range d.batch.Notices {
		n := &d.batch.Notices[i]
		if n.Kind == sched.PreemptReady && n.Error != "" && len(d.stops) == 0 {
			w.problem("waiter %d is told that a stopped entity stays, none is stopped", n.Waiter)
		}
		for _, m := range d.messages[n.Entity] {
			m.answered = m.answered || n.Kind == sched.MessageReplied && m.id == n.Message
		}
	}
	for i := range d.batch.Effects {
		if f := &d.batch.Effects[i]; f.Kind == sched.EffectRestart {
			d.restarting = true
			w.checkSilence(f.Reason)
		}
	}
	w.checkCredits(d)
}

// hear notes a report of a job in the ring of an entity that executes.
func (w *world) hear(d *daemon, ev *core.BackendEvent) {
	if ev == nil || ev.Kind != core.EventProgress && (ev.Kind != core.EventStarted || ev.Seq == 0) {
		return
	}
	s := d.states[ev.Entity]
	if s.Epoch == ev.Epoch && s.Residency == core.Resident && d.jobs[ev.Job].Run != 0 {
		w.entities[ev.Entity].heardAt = w.now
	}
}

// checkSilence looks at whether an instance that is ended for its silence was silent.
func (w *world) checkSilence(reason string) {
	for _, id := range w.ids() {
		e := w.entities[id]
		if !strings.HasPrefix(reason, "no report of entity "+e.spec.Name+" ") {
			continue
		}
		w.counts["silent"]++
		if w.plant != nil && w.plant.lanes[id] != nil && w.plant.lanes[id].live != nil && !w.plant.lanes[id].live.begun {
			w.problem("entity %d has not begun a job: %s", id, reason)
		}
		if w.now < e.heardAt.Add(config.Silence) {
			w.problem("entity %d is not silent: %s", id, reason)
		}
	}
}

// late reports whether the entity was asked off the hardware and did not leave in time.
func (d *daemon) late(e *entity) bool {
	return d.states[e.spec.ID].Residency == core.Suspending && d.w.now >= e.suspendedAt.Add(config.Preempt)
}

// checkBlame looks at why a job is to end.
func (w *world) checkBlame(d *daemon, j *job, s *core.JobState) {
	e := w.entities[s.Entity]
	if s.Stopping == core.CauseTimeout && d.jobs[s.ID].Stopping != core.CauseTimeout {
		j.overtime = j.spec.Timeout > 0 && j.clock > j.spec.Timeout
	}
	if s.Stopping == core.CauseHang && !j.guilty {
		if !d.late(e) {
			w.problem("job %d is blamed for hanging, its suspend is not late", s.ID)
		}
		for _, id := range w.ids() {
			if o := w.entities[id]; o != e && d.late(o) {
				w.problem("job %d is blamed for hanging, entity %d is late too", s.ID, id)
			}
		}
		if d.restarting {
			w.problem("job %d is blamed for hanging while the instance is ended", s.ID)
		}
		w.counts["late preemption"]++
		j.guilty = true
		e.faults++
	}
	if s.Phase == core.JobTimedOut && s.Cause == core.CauseTimeout && w.daemon.jobs[s.ID].Phase != core.JobTimedOut {
		e.faults++
	}
}

// checkCredits adds up what the rings hold where something was put in.
func (w *world) checkCredits(d *daemon) {
	for i := range d.batch.Commands {
		c := &d.batch.Commands[i]
		if c.Kind != core.CommandRun || d.batch.NewSession {
			continue
		}
		sum, n := uint32(0), 0
		for _, j := range w.entities[c.Entity].jobs {
			if d.jobs[j.spec.ID].Run != 0 {
				sum, n = sum+j.spec.Credits, n+1
			}
		}
		if sum > d.ring && n > 1 {
			w.problem("entity %d: %d credits in a ring of %d", c.Entity, sum, d.ring)
		}
	}
}

// checkWrite looks at what goes on record.
func (w *world) checkWrite(plain *core.Write) {
	for i := range plain.JobStates {
		s := &plain.JobStates[i]
		j, e := w.jobs[s.ID], w.entities[s.Entity]
		old := w.medium.jobs[s.ID]
		if old.Phase.Final() && (old.Phase != s.Phase || old.Cause != s.Cause) {
			w.problem("job %d: outcome %s on record became %s", s.ID, old.Phase, s.Phase)
		}
		if s.Phase.Final() && !old.Phase.Final() {
			w.checkReason(e, j, s)
		}
		e.recorded = max(e.recorded, s.Run, s.Cancel)
	}
	for i := range plain.EntityStates {
		s := &plain.EntityStates[i]
		e, old := w.entities[s.ID], w.medium.entities[s.ID]
		if w.images[s.ID][s.Generation] == nil {
			w.problem("entity %d: image %d is on record and does not exist", s.ID, s.Generation)
		}
		if s.Generation < old.Generation || s.Epoch < old.Epoch || s.Commands < old.Commands || s.Cut < old.Cut {
			w.problem("entity %d went back from %+v to %+v", s.ID, old, *s)
		}
		if old.Goal == core.GoalClose && s.Goal != old.Goal || old.Banned && !s.Banned || old.Closed && !s.Closed {
			w.problem("entity %d came back from %+v to %+v", s.ID, old, *s)
		}
		e.recorded = max(e.recorded, s.Commands, s.Pending, s.PropertiesPending)
	}
}

// checkReason looks at whether an outcome has its reason.
func (w *world) checkReason(e *entity, j *job, s *core.JobState) {
	w.counts[string(s.Phase)+" "+string(s.Cause)]++
	ok := false
	switch {
	case s.Phase == core.JobCompleted:
		ok = j.ran >= j.spec.Workgroups() && (!j.spec.Flush || w.files[s.ID]) && j.unmet == "" &&
			!w.unmet(j, core.DependencyFail) && !w.unmet(j, core.DependencyCancel)
	case s.Phase == core.JobFailed:
		ok = j.guilty || j.refused
	case s.Phase == core.JobTimedOut && s.Cause == core.CauseTimeout:
		ok = j.overtime
	case s.Phase == core.JobTimedOut:
		ok = j.spec.QueueTimeout > 0 && w.now >= s.Submitted.Add(j.spec.QueueTimeout)
	case s.Phase == core.JobKilled:
		ok = e.closeAsked
	case s.Phase == core.JobDependencyFailed:
		ok = j.unmet != "" || j.hopeless || w.unmet(j, core.DependencyFail)
	case s.Cause == core.CauseUser:
		ok = j.cancelled || w.unmet(j, core.DependencyCancel)
	case s.Cause == core.CauseEarlier:
		ok = e.faults > 0 || slices.ContainsFunc(e.jobs, func(o *job) bool {
			p := w.daemon.jobs[o.spec.ID].Phase
			return o.spec.Seq < j.spec.Seq && p.Final() && p != core.JobCompleted
		})
	}
	if !ok {
		w.problem("job %d is %s (%s: %s) without a reason", s.ID, s.Phase, s.Cause, s.Error)
	}
}

// outcome looks a fence up: whether it is signalled, and whether by success.
func (w *world) outcome(f core.Fence, phase func(core.JobID) core.JobPhase) (final, completed bool) {
	if f.Timeline >= otherDevice {
		why := w.foreign[f]
		return why != nil, why != nil && *why == ""
	}
	if e := w.entities[f.Timeline]; e != nil {
		for _, o := range e.jobs {
			if o.spec.Seq == f.Seq {
				p := phase(o.spec.ID)
				return p.Final(), p == core.JobCompleted
			}
		}
	}
	return true, true
}

// unmet reports whether a dependency with the policy did not complete.
func (w *world) unmet(j *job, policy core.DependencyPolicy) bool {
	phase := func(id core.JobID) core.JobPhase { return w.daemon.jobs[id].Phase }
	return slices.ContainsFunc(j.spec.Depends, func(d core.Dependency) bool {
		if d.OnFailure != policy && (d.OnFailure != "" || policy != core.DependencyFail) {
			return false
		}
		final, completed := w.outcome(d.Fence, phase)
		return final && !completed
	})
}

// checkCommand looks at a command that leaves.
func (w *world) checkCommand(d *daemon, c *core.Command) {
	s, e := w.medium.entities[c.Entity], w.entities[c.Entity]
	if c.Kind == core.CommandDestroy && (e == nil || s.ID == 0 || c.Epoch != s.Epoch || s.Residency == core.Away) {
		return // of a life that the records know nothing of
	}
	if e == nil || s.ID == 0 || c.Epoch > s.Epoch || c.Seq > e.recorded {
		w.problem("command %d (kind %d, message %d) of entity %d leaves before its record %+v", c.Seq, c.Kind, c.Message, c.Entity, s)
		return
	}
	key := commandKey{c.Entity, c.Epoch, c.Seq}
	print := strings.Join([]string{string(rune('a' + c.Kind)), string(rune('a' + c.Message)), core.Fence{Seq: core.JobSeq(c.Job)}.String()}, " ")
	if before, used := w.sent[key]; used && before != print {
		w.problem("number %d of entity %d, epoch %d, is used twice", c.Seq, c.Entity, c.Epoch)
	}
	w.sent[key] = print
	if d.stops[c.Entity] {
		w.problem("command kind %d of entity %d follows its stop", c.Kind, c.Entity)
	}
	switch {
	case c.Kind == core.CommandRun:
		w.checkRun(d, e, c)
	case c.Kind == core.CommandMessage && c.Message >= core.MessageBackend:
		w.checkMessage(d, e, c)
	}
}

func (w *world) recorded(id core.JobID) core.JobPhase { return w.medium.jobs[id].Phase }

func (w *world) checkRun(d *daemon, e *entity, c *core.Command) {
	if w.recorded(c.Job).Final() {
		return // a replay
	}
	j := w.jobs[c.Job]
	if w.medium.jobs[c.Job].Epoch < c.Epoch {
		w.problem("job %d runs before that is on record", c.Job)
	}
	for _, dep := range j.spec.Depends {
		if final, _ := w.outcome(dep.Fence, w.recorded); !final && dep.Fence.Timeline != c.Entity {
			w.problem("job %d runs before fence %s", c.Job, dep.Fence)
		}
	}
	for _, m := range d.messages[c.Entity] {
		if m.barrier == sched.BarrierBefore && j.spec.Seq > m.after && !m.answered {
			w.problem("job %d overtakes message %d", c.Job, m.id)
		}
	}
}

func (w *world) checkMessage(d *daemon, e *entity, c *core.Command) {
	waiting := d.messages[c.Entity]
	next := slices.IndexFunc(waiting, func(m *message) bool { return !m.answered })
	i := slices.IndexFunc(waiting, func(m *message) bool { return len(c.Payload) == 1 && m.payload == c.Payload[0] })
	if i < 0 || next >= 0 && i > next {
		w.problem("message %v of entity %d is not the next", c.Payload, c.Entity)
		return
	}
	m := waiting[i]
	if m.sent != 0 && m.sent != c.Seq {
		w.problem("message %d is sent as command %d and %d", m.id, m.sent, c.Seq)
	}
	m.sent = c.Seq
	for _, j := range e.jobs {
		if m.barrier == sched.BarrierAfter && j.spec.Seq <= m.after && !w.recorded(j.spec.ID).Final() {
			w.problem("message %d overtakes job %d", m.id, j.spec.ID)
		}
	}
}

// checkNotice looks at what listeners are told.
func (w *world) checkNotice(d *daemon, n *sched.Notice) {
	w.note("notice %d e=%d j=%d %s %s %s w=%d m=%d", n.Kind, n.Entity, n.Job, n.Phase, n.Cause, n.State, n.Waiter, n.Message)
	switch n.Kind {
	case sched.JobChanged:
		w.checkOutcome(d, n)
	case sched.MessageReplied:
		waiting := d.messages[n.Entity]
		if len(waiting) == 0 || waiting[0].id != n.Message {
			w.problem("message %d is answered out of order, or twice", n.Message)
			return
		}
		if n.Error == "" && (len(n.Reply) != 1 || n.Reply[0] != waiting[0].payload) {
			w.problem("message %d has the reply of another: %v", n.Message, n.Reply)
		}
		d.messages[n.Entity] = waiting[1:]
	case sched.PreemptReady:
		wv := d.waves[n.Waiter]
		if wv == nil {
			return // it did not wait any longer
		}
		if wv.told {
			w.problem("waiter %d is told twice", n.Waiter)
		}
		wv.told, wv.gaveUp = true, n.Error != ""
		if wv.gaveUp {
			w.counts["wave gave up"]++
			return
		}
		w.counts["wave"]++
		if wv.away {
			w.checkAway(n.Waiter, wv)
		}
	case sched.Stopped:
		if told, stops := d.stops[n.Entity]; stops {
			if told {
				w.problem("entity %d is told stopped twice", n.Entity)
			}
			d.stops[n.Entity] = true
			w.counts["stopped"]++
		}
	case sched.OrderViolated:
		if !strings.HasPrefix(n.Error, "properties refused") {
			w.problem("order violated: %s", n.Error)
		}
	}
}

// checkAway: who waited for entities to leave the instance finds none on it.
func (w *world) checkAway(waiter uint64, wv *wave) {
	w.counts["evacuated"]++
	for _, e := range w.entities {
		if wv.entities != nil && !slices.Contains(wv.entities, e.spec.ID) {
			continue
		}
		if w.plant == nil {
			return
		}
		if l := w.plant.lanes[e.spec.ID]; l != nil && l.live != nil {
			w.problem("entity %d is on the instance, waiter %d was told that it is not", e.spec.ID, waiter)
		}
	}
}

func (w *world) checkOutcome(d *daemon, n *sched.Notice) {
	if !n.Phase.Final() {
		return
	}
	j := w.jobs[n.Job]
	if old, told := d.told[n.Job]; told {
		w.problem("job %d: outcome told twice: %s, %s", n.Job, old, n.Phase)
	}
	d.told[n.Job] = n.Phase
	if j == nil || j.told != "" && j.told != n.Phase || w.recorded(n.Job) != n.Phase {
		w.problem("job %d: outcome %s, on record is %s", n.Job, n.Phase, w.recorded(n.Job))
		return
	}
	j.told = n.Phase
	for _, o := range w.entities[n.Entity].jobs {
		if o.spec.Seq < j.spec.Seq && !w.recorded(o.spec.ID).Final() {
			w.problem("job %d has its outcome before job %d", n.Job, o.spec.ID)
		}
	}
}

// checkExecute looks at whether a job may execute now.
func (w *world) checkExecute(l *lane, j *job) {
	if d := w.daemon; d != nil {
		for waiter, wv := range d.waves {
			if wv.told && !wv.gaveUp && (wv.entities == nil || slices.Contains(wv.entities, l.id)) {
				w.problem("job %d executes while waiter %d believes it is off", j.spec.ID, waiter)
			}
		}
	}
	if p := w.recorded(j.spec.ID); p.Final() && p != core.JobCompleted {
		w.problem("job %d executes and is %s", j.spec.ID, p)
	}
	for _, o := range w.entities[l.id].jobs {
		p := w.recorded(o.spec.ID)
		if r := w.medium.jobs[o.spec.ID]; r.Stopping != "" && r.Run == 0 {
			continue // taken out of the ring for good; its outcome waits for those before it
		}
		if o.spec.Seq < j.spec.Seq && !o.refused && l.live.memory.of(o.spec.ID) != o.spec.Workgroups() &&
			(!p.Final() || p == core.JobCompleted) {
			w.problem("job %d executes before job %d (%s)", j.spec.ID, o.spec.ID, p)
		}
	}
}

// checkRecovered compares what the records say after a crash with what was
// acknowledged, and forgets what was not.
func (w *world) checkRecovered(snapshot *core.Snapshot) {
	found := make(map[core.EntityID]bool)
	jobs := make(map[core.JobID]bool)
	for i := range snapshot.Entities {
		r := &snapshot.Entities[i]
		e := w.entities[r.Spec.ID]
		found[r.Spec.ID] = true
		e.spec, e.forgotten = r.Spec, false
		if !reflect.DeepEqual(r.State, w.medium.entities[r.Spec.ID]) {
			w.problem("entity %d: %+v was written, %+v read", r.Spec.ID, w.medium.entities[r.Spec.ID], r.State)
		}
		if e.closeAcked && r.State.Goal != core.GoalClose {
			w.problem("entity %d was closed", r.Spec.ID)
		}
		for _, j := range r.Jobs {
			jobs[j.Spec.ID] = true
			if t := w.jobs[j.Spec.ID]; j.State != w.medium.jobs[j.Spec.ID] || t.told != "" && t.told != j.State.Phase {
				w.problem("job %d: told %s, on record %+v", j.Spec.ID, t.told, j.State)
			} else if !reflect.DeepEqual(j.Spec, t.spec) {
				w.problem("job %d: %+v was submitted, %+v read", j.Spec.ID, t.spec, j.Spec)
			} else {
				t.acked = true
			}
		}
	}
	for _, id := range w.ids() {
		e := w.entities[id]
		for _, j := range slices.Clone(e.jobs) {
			if jobs[j.spec.ID] {
				continue
			}
			if j.acked && !e.forgotten {
				w.problem("job %d was acknowledged and is not on record", j.spec.ID)
			}
			w.drop(j)
		}
		if !found[id] {
			delete(w.entities, id)
			delete(w.images, id)
		}
	}
}
