package sched

import (
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// mock is the device of a scene. Its flags stay until a test changes them, since
// what they govern may happen several times while virtual time runs.
type mock struct {
	rings map[core.EntityID]*mockRing
	seq   core.EventSeq
	flags mockFlags
	// unanswered are the commands that a flag left without an answer.
	unanswered []core.Command
	// sampled is when progress was last reported, every the present time between
	// two reports: longer when long times pass at once.
	sampled core.Instant
	every   time.Duration
}

type mockFlags struct {
	// These leave commands of a kind carried out late, by answer.
	holdCreate, holdSuspend, holdResume, holdCancel, holdDestroy, holdMessage, holdBarrier bool
	// These leave effects without an answer.
	holdSave, holdRestart bool
	// silent: no progress is reported. refuse: runs are refused, with the cause
	// by job. inside: the job has ended before run returns.
	silent bool
	refuse map[core.JobID]core.Cause
	inside map[core.JobID]bool
	// sample is the time between two reports of progress.
	sample time.Duration
}

type mockRing struct {
	epoch     core.Epoch
	applied   core.CommandSeq
	last      core.JobSeq
	suspended bool
	jobs      []*mockJob
}

type mockJob struct {
	spec *core.JobSpec
	// lasts is the whole duration, done and first the executed parts of it: in
	// all, and before this epoch.
	lasts, done, first time.Duration
	started            bool
}

func (j *mockJob) inEpoch() time.Duration { return j.done - j.first }

func (j *mockJob) cursor() uint64 {
	if j.lasts == 0 {
		return 0
	}
	return uint64(j.done) * j.spec.Workgroups() / uint64(j.lasts)
}

func (m *mock) reset() {
	m.rings, m.unanswered = map[core.EntityID]*mockRing{}, nil
	if m.flags.sample == 0 {
		m.flags.sample = 10 * time.Millisecond
	}
	m.every = m.flags.sample
}

// holds reports whether a job is in a ring that executes.
func (m *mock) holds(e core.EntityID, id core.JobID) bool {
	ring := m.rings[e]
	if ring == nil || ring.suspended {
		return false
	}
	for _, j := range ring.jobs {
		if j.spec.ID == id {
			return true
		}
	}
	return false
}

// report gives the core an event of the device.
func (r *scene) report(ev core.BackendEvent) {
	if ev.Kind != core.EventProgress {
		r.dev.seq++
		ev.Seq = r.dev.seq
	}
	_ = r.step(Event{Kind: EventBackend, Backend: &ev})
}

// later reports after what is under way.
func (r *scene) later(ev core.BackendEvent) { r.todo = append(r.todo, func() { r.report(ev) }) }

// take has the device look at a command, and check what the core must keep to.
func (r *scene) take(c core.Command) {
	f, m := &r.dev.flags, c.Message
	message := c.Kind == core.CommandMessage
	behind := slices.ContainsFunc(r.dev.unanswered, func(u core.Command) bool { return u.Entity == c.Entity })
	switch { // a device carries out the commands of an entity in their order
	case behind, c.Kind == core.CommandCreate && f.holdCreate, c.Kind == core.CommandDestroy && f.holdDestroy,
		c.Kind == core.CommandCancel && f.holdCancel, message && m == core.MessageSuspend && f.holdSuspend,
		message && m == core.MessageResume && f.holdResume, message && m == core.MessageBarrier && f.holdBarrier,
		message && (m == core.MessageSetProperties || m >= core.MessageBackend) && f.holdMessage:
		r.dev.unanswered = append(r.dev.unanswered, c)
		return
	}
	r.carryOut(c)
}

// answer carries out what the flags left, oldest first.
func (r *scene) answer() {
	r.t.Helper()
	left := r.dev.unanswered
	r.dev.unanswered = nil
	for _, c := range left {
		r.todo = append(r.todo, func() { r.carryOut(c) })
	}
	r.pump()
}

func (r *scene) carryOut(c core.Command) {
	done := core.BackendEvent{Kind: core.EventMessageDone, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job}
	ring := r.dev.rings[c.Entity]
	if c.Kind == core.CommandCreate {
		if ring != nil {
			r.t.Errorf("entity %d is created on top of its epoch %d", c.Entity, ring.epoch)
		}
		r.dev.rings[c.Entity] = &mockRing{epoch: c.Epoch, applied: c.Seq}
		done.Kind = core.EventApplied
		r.report(done)
		return
	}
	if ring == nil || ring.epoch != c.Epoch {
		return
	}
	if c.Seq <= ring.applied {
		r.t.Errorf("entity %d gets command %d after %d", c.Entity, c.Seq, ring.applied)
	}
	ring.applied = c.Seq
	switch c.Kind {
	case core.CommandRun:
		r.append(ring, c)
	case core.CommandCancel:
		r.takenOut(ring, c)
	case core.CommandDestroy:
		delete(r.dev.rings, c.Entity)
		done.Kind = core.EventDestroyed
		r.report(done)
	case core.CommandMessage:
		ring.suspended = c.Message == core.MessageSuspend || ring.suspended && c.Message != core.MessageResume
		done.Reply = c.Payload
		r.report(done)
		r.begin(c.Entity)
	}
}

func (r *scene) append(ring *mockRing, c core.Command) {
	id := c.Job
	if cause, no := r.dev.flags.refuse[id]; no {
		r.report(core.BackendEvent{Kind: core.EventRefused, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: id, Cause: cause, Error: "refused by the mock"})
		return
	}
	if c.JobSpec.Seq <= ring.last {
		r.t.Errorf("job %d runs after job with sequence %d", id, ring.last)
	}
	ring.last = c.JobSpec.Seq
	j := &mockJob{spec: c.JobSpec, lasts: r.lasts[id]}
	j.first = j.lasts * time.Duration(c.First) / time.Duration(c.JobSpec.Workgroups())
	j.done = j.first
	ring.jobs = append(ring.jobs, j)
	if r.dev.flags.inside[id] {
		r.advance(c.Entity, 1)
		return
	}
	sum := uint32(0)
	for _, k := range ring.jobs {
		sum += k.spec.Credits
	}
	if limit := r.core.config.Credits; sum > limit && len(ring.jobs) > 1 {
		r.t.Errorf("entity %d has %d credits in a ring of %d", c.Entity, sum, limit)
	}
	r.begin(c.Entity)
}

func (r *scene) takenOut(ring *mockRing, c core.Command) {
	if !ring.suspended {
		r.t.Errorf("job %d is taken out while on the hardware", c.Job)
	}
	for i, j := range ring.jobs {
		if j.spec.ID == c.Job {
			ring.jobs = append(ring.jobs[:i:i], ring.jobs[i+1:]...)
			r.report(core.BackendEvent{Kind: core.EventCancelled, Entity: c.Entity, Epoch: c.Epoch, Job: c.Job, Done: j.cursor(), ExecutedTime: j.inEpoch()})
			return
		}
	}
}

// head returns the job of the ring that executes, nil when none does.
func (r *scene) head(e core.EntityID) (*mockRing, *mockJob) {
	ring := r.dev.rings[e]
	if ring == nil || ring.suspended || len(ring.jobs) == 0 {
		return ring, nil
	}
	return ring, ring.jobs[0]
}

// begin reports the start of the job at the head.
func (r *scene) begin(e core.EntityID) {
	if ring, j := r.head(e); j != nil && !j.started {
		j.started = true
		r.later(core.BackendEvent{Kind: core.EventStarted, Entity: e, Epoch: ring.epoch, Job: j.spec.ID})
	}
}

// advance ends up to n jobs of an entity now, and returns how many.
func (r *scene) advance(e core.EntityID, n int) int {
	done := 0
	for ; done < n; done++ {
		ring, j := r.head(e)
		if j == nil {
			break
		}
		ring.jobs = ring.jobs[1:]
		r.later(core.BackendEvent{
			Kind: core.EventCompleted, Entity: e, Epoch: ring.epoch, Job: j.spec.ID,
			Done: j.spec.Workgroups(), Executed: j.spec.Workgroups(), ExecutedTime: j.inEpoch(),
		})
		r.begin(e)
	}
	r.pump()
	return done
}

// fault loses an entity on the device; guilty says whether its head is to blame.
func (r *scene) fault(e core.EntityID, guilty bool, cause core.Cause) {
	ring, j := r.head(e)
	ev := core.BackendEvent{Kind: core.EventEntityLost, Entity: e, Epoch: ring.epoch, Guilty: guilty, Cause: cause, Error: "fault of the mock"}
	if j != nil {
		ev.Job = j.spec.ID
	}
	ring.jobs = nil
	r.report(ev)
}

// run lets virtual time pass: jobs execute and end, progress is sampled, timers
// of the core fire.
func (r *scene) run(d time.Duration) {
	r.t.Helper()
	r.dev.every = max(r.dev.flags.sample, min(d/1000, 10*time.Second))
	for until := r.now.Add(d); r.now < until; {
		next := until
		sooner := func(at core.Instant) {
			if at != 0 && at < next {
				next = max(at, r.now)
			}
		}
		sooner(r.core.Next())
		sooner(max(r.dev.sampled.Add(r.dev.every), r.now+1))
		for _, e := range r.core.order {
			if _, j := r.head(e.spec.ID); j != nil && j.lasts > 0 {
				sooner(r.now.Add(j.lasts - j.done))
			}
		}
		spent := next.Sub(r.now)
		r.now = next
		r.pass(spent)
		if at := r.core.Next(); at != 0 && at <= r.now {
			r.must(Event{Kind: EventTick})
			if at := r.core.Next(); at != 0 && at <= r.now {
				r.t.Fatalf("a timer is due at %d again after the tick of %d", at, r.now)
			}
		}
	}
}

// pass has the heads of all rings execute.
func (r *scene) pass(spent time.Duration) {
	sample := r.now >= r.dev.sampled.Add(r.dev.every)
	if sample {
		r.dev.sampled = r.now
	}
	type executing struct {
		entity core.EntityID
		job    *mockJob
	}
	var heads []executing // those that executed for all of the time that passed
	for _, e := range r.core.order {
		if _, j := r.head(e.spec.ID); j != nil {
			heads = append(heads, executing{e.spec.ID, j})
		}
	}
	for _, h := range heads {
		h.job.done += spent
	}
	for _, h := range heads {
		ring, j := r.head(h.entity)
		switch {
		case j != h.job:
		case j.lasts > 0 && j.done >= j.lasts:
			r.advance(h.entity, 1)
		case sample && !r.dev.flags.silent:
			r.report(core.BackendEvent{Kind: core.EventProgress, Entity: h.entity, Epoch: ring.epoch, Job: j.spec.ID, Done: j.cursor(), ExecutedTime: j.inEpoch()})
		}
	}
}
