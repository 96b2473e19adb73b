package sched

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// cutScript is a deterministic run; it says nothing of crashes and must come to
// the same end wherever one strikes.
type cutScript struct {
	name  string
	specs []core.EntitySpec
	// run acts until it only remains to finish; acts that were taken before a
	// crash are not taken again: what the user asked for is on record.
	run func(*cutRun)
}

// cutRun is one run of a script, disturbed or not.
type cutRun struct {
	*bed
	// commitAt and commandAt say after which commit the daemon crashes, and
	// after which command the instance is killed; 0 is never.
	commitAt, commandAt int
	crashNow, killNow   bool
	// faults are the jobs that trap, at which workgroup.
	faults map[core.JobID]uint64
}

var cutScripts = []cutScript{
	{"dependencies over entities", []core.EntitySpec{{ID: 1}, {ID: 2, Mode: core.ModeLongRunning}}, func(r *cutRun) {
		r.submits(
			bedJobSpec(1, 1, 5), bedJobSpec(1, 2, 3),
			bedJobSpec(2, 1, 4, func(s *core.JobSpec) {
				s.Depends = []core.Dependency{{Fence: core.Fence{Timeline: 1, Seq: 2}}}
			}),
			bedJobSpec(2, 2, 2))
	}},
	{"flush in the middle and at the end", []core.EntitySpec{{ID: 1}}, func(r *cutRun) {
		flush := func(s *core.JobSpec) { s.Flush = true }
		r.submits(bedJobSpec(1, 1, 4), bedJobSpec(1, 2, 4, flush), bedJobSpec(1, 3, 4), bedJobSpec(1, 4, 2, flush))
	}},
	{"checkpoints", []core.EntitySpec{{ID: 1, Mode: core.ModeLongRunning, Properties: core.Properties{Checkpoint: 6 * time.Millisecond}}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 25), bedJobSpec(1, 2, 10))
	}},
	{"cancel a running job, later ones run", []core.EntitySpec{{ID: 1, OnFailure: core.OnFailureContinue}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 3), bedJobSpec(1, 2, 50), bedJobSpec(1, 3, 4))
		r.until(func() bool { return r.jobs[101].Phase.Final() })
		r.ask(102, Event{Kind: EventCancel, Entity: 1, Job: 102})
	}},
	{"cancel a queued job", []core.EntitySpec{{ID: 1}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 6), bedJobSpec(1, 2, 5, func(s *core.JobSpec) { s.Credits = 4 }), bedJobSpec(1, 3, 4))
		r.ask(102, Event{Kind: EventCancel, Entity: 1, Job: 102})
	}},
	{"timeout", []core.EntitySpec{{ID: 1, OnFailure: core.OnFailureContinue}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 4), bedJobSpec(1, 2, 400, func(s *core.JobSpec) { s.Timeout = 9 * time.Millisecond }), bedJobSpec(1, 3, 3))
	}},
	{"guilty, and the entity goes on", []core.EntitySpec{{ID: 1, OnFailure: core.OnFailureContinue}, {ID: 2}}, func(r *cutRun) {
		r.faults[102] = 2
		r.submits(bedJobSpec(1, 1, 5), bedJobSpec(1, 2, 8), bedJobSpec(1, 3, 4), bedJobSpec(2, 1, 9))
	}},
	{"guilty, and the entity is banned", []core.EntitySpec{{ID: 1}, {ID: 2, OnFailure: core.OnFailureContinue}}, func(r *cutRun) {
		r.faults[102] = 3
		r.submits(bedJobSpec(1, 1, 5), bedJobSpec(1, 2, 8), bedJobSpec(1, 3, 4),
			bedJobSpec(2, 1, 5, func(s *core.JobSpec) {
				s.Depends = []core.Dependency{{Fence: core.Fence{Timeline: 1, Seq: 2}}}
			}), bedJobSpec(2, 2, 2))
	}},
	{"suspend and resume", []core.EntitySpec{{ID: 1}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 4), bedJobSpec(1, 2, 20), bedJobSpec(1, 3, 4))
		r.until(func() bool { return r.jobs[101].Phase.Final() })
		r.want(1, core.GoalSuspend)
		r.until(func() bool { return r.entities[1].Residency == core.Away })
		r.want(1, core.GoalRun)
	}},
	{"messages between jobs", []core.EntitySpec{{ID: 1}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 4))
		_ = r.step(Event{Kind: EventMessage, Entity: 1, MessageID: 1, Message: core.MessageBackend, Barrier: BarrierBefore})
		r.submits(bedJobSpec(1, 2, 4))
		_ = r.step(Event{Kind: EventMessage, Entity: 1, MessageID: 2, Message: core.MessageBackend, Barrier: BarrierAfter})
		r.submits(bedJobSpec(1, 3, 4, func(s *core.JobSpec) { s.Flush = true }))
	}},
	{"victims of a neighbour", []core.EntitySpec{{ID: 1}, {ID: 2, Mode: core.ModeLongRunning, Properties: core.Properties{Checkpoint: 8 * time.Millisecond}}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 8), bedJobSpec(1, 2, 6), bedJobSpec(2, 1, 30))
		r.until(func() bool { return r.ran(1) >= 10 })
		if r.device != nil {
			r.lose(1, false)
			r.lose(2, false)
		}
	}},
	{"close in the middle", []core.EntitySpec{{ID: 1}, {ID: 2, OnFailure: core.OnFailureContinue}}, func(r *cutRun) {
		r.submits(bedJobSpec(1, 1, 3), bedJobSpec(1, 2, 500), bedJobSpec(1, 3, 4),
			bedJobSpec(2, 1, 3, func(s *core.JobSpec) {
				s.Depends = []core.Dependency{{Fence: core.Fence{Timeline: 1, Seq: 3}, OnFailure: core.DependencyCancel}}
			}), bedJobSpec(2, 2, 3))
		r.until(func() bool { return r.jobs[101].Phase.Final() })
		r.want(1, core.GoalClose)
	}},
}

// TestEveryCut runs each script undisturbed, and then with the daemon crashed
// after every commit, with the instance killed after every command, with both,
// and with the instance killed while the daemon is down. However it is
// disturbed, the outcomes and their order are those of the undisturbed run, and
// so is what is in memory; every workgroup that ran is counted.
func TestEveryCut(t *testing.T) {
	for _, s := range cutScripts {
		t.Run(s.name, func(t *testing.T) {
			plain := s.play(t, 0, 0)
			if t.Failed() {
				return
			}
			commits, commands := plain.committed, plain.carried
			for k := 1; k <= commits; k++ {
				s.compare(t, plain, k, 0)
			}
			for k := 1; k <= commands; k++ {
				s.compare(t, plain, 0, k)
			}
			for k := 1; k <= max(commits, commands); k++ {
				s.compare(t, plain, min(k, commits), min(k, commands))
			}
			t.Logf("%d cuts", commits+commands+max(commits, commands))
		})
	}
}

func (s cutScript) play(t *testing.T, commitAt, commandAt int) *cutRun {
	t.Helper()
	config := bedConfig
	config.LossesMax, config.FaultsMax, config.ReplayMax, config.ReplayJobsMax = 1<<30, 3, 15*time.Millisecond, 3
	r := &cutRun{bed: newBed(config, s.specs...), commitAt: commitAt, commandAt: commandAt, faults: map[core.JobID]uint64{}}
	r.onCommit = func() { r.crashNow = r.crashNow || r.committed == r.commitAt }
	r.onCommand = func() { r.killNow = r.killNow || r.carried == r.commandAt }
	r.start()
	s.run(r)
	r.until(func() bool {
		for _, j := range r.jobSpecs {
			if !r.jobs[j.ID].Phase.Final() {
				return false
			}
		}
		return true
	})
	r.commitAt, r.commandAt = 0, 0
	for range 20 {
		r.act()
	}
	for _, p := range r.problems {
		t.Errorf("daemon crashed after commit %d, instance killed after command %d: %s", commitAt, commandAt, p)
	}
	r.account(t)
	return r
}

// compare plays the script disturbed.
func (s cutScript) compare(t *testing.T, plain *cutRun, commitAt, commandAt int) {
	t.Helper()
	r := s.play(t, commitAt, commandAt)
	where := fmt.Sprintf("daemon crashed after commit %d, instance killed after command %d", commitAt, commandAt)
	for _, j := range r.jobSpecs {
		got, want := r.jobs[j.ID], plain.jobs[j.ID]
		if got.Phase != want.Phase || got.Cause != want.Cause {
			t.Errorf("%s: job %d is %s (%s: %s), undisturbed %s (%s)", where, j.ID, got.Phase, got.Cause, got.Error, want.Phase, want.Cause)
		}
	}
	if commandAt == 0 && len(r.faults) == 0 && s.name != "victims of a neighbour" {
		for _, j := range r.jobSpecs { // a crash of the daemon alone repeats nothing
			if got, want := r.jobs[j.ID], plain.jobs[j.ID]; got.Phase == core.JobCompleted && got.Executed != want.Executed {
				t.Errorf("%s: job %d executed %d workgroups, undisturbed %d", where, j.ID, got.Executed, want.Executed)
			}
		}
	}
	for _, id := range r.order {
		if got, want := fmt.Sprint(r.outcomes[id]), fmt.Sprint(plain.outcomes[id]); got != want {
			t.Errorf("%s: outcomes of entity %d came in the order %s, undisturbed %s", where, id, got, want)
		}
		if got, want := r.completedMemory(id), plain.completedMemory(id); !maps.Equal(got, want) {
			t.Errorf("%s: memory of entity %d is %v, undisturbed %v", where, id, got, want)
		}
	}
}

// act takes one step of the world, or the disaster that is due.
func (r *cutRun) act() {
	switch {
	case r.killNow && r.crashNow:
		r.killNow, r.crashNow = false, false
		r.device = nil
		r.crash()
	case r.crashNow:
		r.crashNow = false
		r.crash()
	case r.killNow:
		r.killNow = false
		r.gone()
		r.start()
	case r.commit(), r.take(false), r.deliver(), r.save(nil, nil):
	case r.restarts > 0:
		r.gone()
		r.start()
	default:
		for _, id := range r.order {
			if _, j := r.front(id); j != nil && r.faults[j.spec.ID] != 0 && r.device.entities[id].memory[j.spec.ID] >= r.faults[j.spec.ID] {
				r.lose(id, true)
				continue
			}
			r.execute(id, 1)
			r.progress(id)
		}
		r.tick(time.Millisecond)
	}
}

// until acts until cond holds.
func (r *cutRun) until(cond func() bool) {
	for range 20_000 {
		if cond() {
			return
		}
		r.act()
	}
	r.problems = append(r.problems, "does not come to its end")
}

// submits submits jobs, each durable before the next, as the manager does it.
func (r *cutRun) submits(specs ...*core.JobSpec) {
	for _, s := range specs {
		if err := r.submit(s); err != nil {
			r.problems = append(r.problems, err.Error())
		}
		r.until(func() bool { return r.jobs[s.ID].ID != 0 || r.crashNow })
		if r.jobs[s.ID].ID == 0 {
			r.until(func() bool { return !r.crashNow })
			r.problemIf(r.step(Event{Kind: EventSubmit, Spec: s}))
			r.until(func() bool { return r.jobs[s.ID].ID != 0 })
		}
	}
}

func (r *cutRun) problemIf(err error) {
	if err != nil {
		r.problems = append(r.problems, err.Error())
	}
}

// ask repeats a cancel until it is on record, as a client without an answer does.
func (r *cutRun) ask(job core.JobID, ev Event) {
	for range 100 {
		if s := r.jobs[job]; s.Stopping != "" || s.Phase.Final() {
			return
		}
		r.problemIf(r.step(ev))
		crashed := false
		r.until(func() bool {
			crashed = crashed || r.crashNow
			s := r.jobs[job]
			return crashed && !r.crashNow || s.Stopping != "" || s.Phase.Final()
		})
	}
}

// want repeats a goal until it is on record.
func (r *cutRun) want(id core.EntityID, goal core.Goal) {
	for r.entities[id].Goal != goal {
		r.problemIf(r.step(Event{Kind: EventGoal, Entity: id, Goal: goal}))
		crashed := false
		r.until(func() bool {
			crashed = crashed || r.crashNow
			return crashed && !r.crashNow || r.entities[id].Goal == goal
		})
	}
}

// ran counts the workgroups that were executed for an entity.
func (r *cutRun) ran(id core.EntityID) (n uint64) {
	for _, j := range r.jobSpecs {
		if j.Entity == id {
			n += r.truth(j.ID)
		}
	}
	return n
}

func (r *cutRun) truth(job core.JobID) (n uint64) {
	for key, ran := range r.usage {
		if key.Job == job {
			n += ran
		}
	}
	return n
}

// account: every workgroup that ran is counted, and no other.
func (r *cutRun) account(t *testing.T) {
	t.Helper()
	for _, j := range r.jobSpecs {
		s := r.jobs[j.ID]
		if s.Run == 0 && s.Executed+s.InEpoch != r.truth(j.ID) {
			t.Errorf("daemon crashed after commit %d, instance killed after command %d: job %d: %d executed on record, %d in truth",
				r.commitAt, r.commandAt, j.ID, s.Executed+s.InEpoch, r.truth(j.ID))
		}
		if s.Phase == core.JobCompleted && r.truth(j.ID) < j.Workgroups() {
			t.Errorf("job %d completed with %d of %d executed", j.ID, r.truth(j.ID), j.Workgroups())
		}
	}
}

// completedMemory is what the completed jobs of an entity left in its memory: on
// the device while it holds the entity and has rebuilt it, in the image otherwise.
func (r *cutRun) completedMemory(id core.EntityID) map[core.JobID]uint64 {
	for range 3000 { // an entity whose jobs have all ended is rebuilt when it is needed
		if r.device == nil || r.device.entities[id] == nil || len(r.device.entities[id].ring) == 0 {
			break
		}
		r.act()
	}
	memory := r.images[id][r.entities[id].Generation].memory
	if r.device != nil && r.device.entities[id] != nil && r.entities[id].Residency != core.Away {
		memory = r.device.entities[id].memory
	}
	out := map[core.JobID]uint64{}
	for _, j := range r.jobSpecs {
		s := r.jobs[j.ID]
		if s.Entity != id || s.Phase != core.JobCompleted {
			continue
		}
		out[j.ID] = memory[j.ID]
		if r.entities[id].Residency == core.Away && s.Cursor < j.Workgroups() && j.Seq > r.entities[id].Cut {
			out[j.ID] = j.Workgroups() // its replay is on record: it is run again when something needs it
		}
	}
	return out
}
