package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/sched"
)

// healMax bounds the rounds in which everything must come to its end.
const healMax = 4000

// heal stops the faults and lets everything finish, then has every entity save
// its memory once more.
func (w *world) heal() {
	w.healing = true
	if w.broken == "" {
		w.finish("the jobs")
	}
	if w.broken != "" {
		return
	}
	d := w.daemon
	for _, id := range w.ids() {
		e := w.entities[id]
		if s := d.states[id]; s.Closed || s.Halted || s.Goal == core.GoalClose {
			continue
		}
		j := &job{submitted: w.now, spec: &core.JobSpec{
			ID: w.nextJob, Entity: id, Seq: d.last[id] + 1, Name: "last", Credits: 1,
			Grid: [3]uint32{1, 1, 1}, Flush: true,
		}}
		w.nextJob++
		w.accept(d, e, j)
		d.last[id]++
		if err := d.step(sched.Event{Kind: sched.EventSubmit, Spec: j.spec}); err != nil {
			w.problem("submit the last job: %v", err)
			return
		}
	}
	w.finish("the last jobs")
}

// finish runs without faults until nothing is left to do.
func (w *world) finish(what string) {
	for range healMax {
		before := w.hash.Sum64()
		w.round()
		if w.broken != "" || w.quiet() {
			return
		}
		w.now += core.Instant(100 * time.Microsecond)
		if w.hash.Sum64() == before {
			if w.daemon.core.Next() == 0 {
				break
			}
			w.wait()
		}
	}
	w.problem("%s did not come to their end: %s", what, w.stuck())
}

// round does once everything that can be done.
func (w *world) round() {
	w.startDaemon()
	w.settleMedium()
	w.startInstance()
	w.connect()
	w.settleMedium()
	d := w.daemon
	if d == nil {
		return
	}
	if w.ring != ringMax {
		w.ring, d.ring = ringMax, ringMax
		_ = d.step(sched.Event{Kind: sched.EventLimits, Credits: w.ring})
	}
	w.stray = nil
	w.tick()
	w.wishes()
	for range len(d.answers) {
		w.answer()
	}
	for w.link != nil && len(w.link.down) > 0 {
		w.carryCommand()
	}
	for range 3 * len(w.entities) {
		w.laneStep()
		w.execute()
	}
	w.carryProgress()
	for range 8 {
		w.carryEvent()
		w.settleMedium()
		w.carryAck()
	}
}

// wishes has everybody want the jobs to run, once they were answered.
func (w *world) wishes() {
	d := w.daemon
	w.signal()
	for _, id := range w.ids() {
		e := w.entities[id]
		w.feedEntity(d, e)
		if s, known := d.states[id]; known && s.Goal == core.GoalSuspend {
			_ = d.step(sched.Event{Kind: sched.EventGoal, Entity: id, Goal: core.GoalRun})
		}
		if d.stops[id] {
			delete(d.stops, id)
			_ = d.step(sched.Event{Kind: sched.EventStart, Entity: id})
		}
	}
	for _, waiter := range slices.Sorted(maps.Keys(d.waves)) {
		if d.waves[waiter].told {
			delete(d.waves, waiter)
			_ = d.step(sched.Event{Kind: sched.EventRelease, Waiter: waiter})
		}
	}
}

// settleMedium puts everything on record and tells.
func (w *world) settleMedium() {
	for len(w.medium.queue)+len(w.medium.synced) > 0 {
		w.medium.sync(w, len(w.medium.queue))
		for len(w.medium.synced) > 0 {
			w.medium.report()
		}
	}
}

// quiet reports whether everything has its end.
func (w *world) quiet() bool { return w.stuck() == "" }

// stuck says what has no end yet.
func (w *world) stuck() string {
	d := w.daemon
	switch {
	case d == nil || d.rebuilding:
		return "no daemon"
	case len(d.answers) > 0 || d.next != nil || d.writing:
		return "operations under way"
	case len(d.waves) > 0:
		return "somebody waits for the hardware"
	case len(d.stops) > 0:
		return "somebody waits for a stop"
	}
	for _, id := range w.ids() {
		e := w.entities[id]
		for _, j := range e.jobs {
			if !w.recorded(j.spec.ID).Final() {
				return "job " + j.spec.Name + " is " + string(w.recorded(j.spec.ID)) + " on " + string(d.states[id].Residency)
			}
		}
		if len(d.messages[id]) > 0 {
			return "a message of " + e.spec.Name + " waits on " + string(d.states[id].Residency)
		}
		if r := d.states[id].Residency; d.states[id].Goal == core.GoalClose && !d.states[id].Closed {
			return e.spec.Name + " is not closed but " + string(r)
		}
	}
	return ""
}

// checkEnd looks at what is left: the counts, and the memory of every entity.
func (w *world) checkEnd() {
	if w.broken != "" {
		return
	}
	for _, id := range w.ids() {
		e, s := w.entities[id], w.medium.entities[id]
		img := w.images[id][s.Generation]
		saved := len(e.jobs) > 0 && e.jobs[len(e.jobs)-1].spec.Name == "last"
		for _, j := range e.jobs {
			r := w.medium.jobs[j.spec.ID]
			if r.Run == 0 && r.Executed+r.InEpoch != j.ran {
				w.problem("job %d: %d workgroups executed on record, really %d", r.ID, r.Executed+r.InEpoch, j.ran)
			}
			done := img.memory.of(j.spec.ID)
			switch {
			case r.Phase != core.JobCompleted:
			case saved && done != j.spec.Workgroups():
				w.problem("job %d completed, the last image of its entity holds %d of %d", r.ID, done, j.spec.Workgroups())
			case done != r.Cursor && j.spec.Seq > s.Cut, j.spec.Seq <= s.Cut && done != j.spec.Workgroups():
				w.problem("job %d: cursor %d, cut %d, the image holds %d", r.ID, r.Cursor, s.Cut, done)
			}
		}
	}
}
