package driver

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// strikesMax is how often the doorbell of a job that does not begin is rung again; the next time the GPU is reset.
const strikesMax = 3

// watch is the timer of a queue. It counts only while the queue could come on: while
// its group is resident, or waits for a sync object with nothing else to do. What it
// watches is the end of workgroups, or of jobs where nobody counts those. Execution
// and the wait for an endpoint are timed apart: who waits for others is not to blame for it.
type watch struct {
	at time.Duration
	// mark changes with every progress.
	mark uint64
	// executing is what was seen last; stuck is the time on an endpoint without
	// progress, waited that off it, each since executing changed.
	executing     bool
	stuck, waited time.Duration
	strikes       int
}

// observe looks at the queues of everybody who could come on.
func (d *Driver) observe() {
	for _, g := range d.ordered() {
		if d.down() {
			return
		}
		counts := g.slot != nil && g.state == active || g.blocked != 0 && !g.runnable()
		for _, q := range g.queues {
			q.watchProgress(counts)
		}
	}
}

// watchProgress advances one timer.
func (q *queue) watchProgress(counts bool) {
	g, w, now := q.g, &q.watch, q.g.d.now()
	since := now - w.at
	w.at = now
	if len(q.jobs) == 0 || g.buried || !g.alive() {
		*w = watch{at: now}
		return
	}
	j := q.jobs[0]
	mark, executing := j.seqno<<32, true
	if j.work != nil {
		var done uint64
		done, executing = j.work.progress()
		mark += done + 1
	}
	if mark != w.mark {
		*w = watch{at: now, mark: mark, executing: executing}
		return
	}
	if executing != w.executing { // Nobody saw when: both begin now.
		w.executing, w.stuck, w.waited = executing, 0, 0
		return
	}
	if !counts {
		return
	}
	if executing {
		w.stuck += since
	} else {
		w.waited += since
	}
	limits := g.d.config.Timeouts
	switch {
	case w.stuck >= limits.Hang:
		g.scan() // Somebody may have come on this very moment.
		if len(q.jobs) == 0 || q.jobs[0] != j || g.buried {
			return
		}
		g.timedout = true
		g.condemn(&evidence{job: j, queue: q, cause: core.CauseHang, detail: fmt.Sprintf("no progress in %s of execution", limits.Hang)})
	case w.waited >= limits.Start:
		q.remind()
	}
}

// remind rings the doorbell of a resident queue whose job does not begin: a ring may
// have been lost, and a repeat is harmless. While others execute, the job merely waits.
func (q *queue) remind() {
	d, w := q.g.d, &q.watch
	w.waited = 0
	if q.g.slot == nil {
		return
	}
	if j := q.jobs[0]; j.work != nil && j.work.faulted() {
		q.g.condemn(q.g.accuse(j.work.blame()))
		return
	}
	if !d.othersExecute(q.g) {
		w.strikes++
	}
	if w.strikes > strikesMax {
		d.reset(slotError(q.g.slot, "job %d does not execute, rung %d times", q.jobs[0].id, strikesMax))
		return
	}
	q.ringDoorbell()
}

// othersExecute reports whether another resident is on an endpoint.
func (d *Driver) othersExecute(but *group) bool {
	for _, s := range d.slots {
		if s.group == nil || s.group == but {
			continue
		}
		for _, q := range s.group.queues {
			if len(q.jobs) > 0 && q.jobs[0].work != nil {
				if _, executing := q.jobs[0].work.progress(); executing {
					return true
				}
			}
		}
	}
	return false
}

// noteAsked remembers how far the first job was when the group was asked to leave.
func (g *group) noteAsked() {
	if j := g.first(); j != nil {
		g.executed, _ = j.work.progress()
	}
}

// first is the first job of an entity's group, nil if it has none.
func (g *group) first() *job {
	if len(g.queues) == 1 && len(g.queues[0].jobs) > 0 && g.queues[0].jobs[0].work != nil {
		return g.queues[0].jobs[0]
	}
	return nil
}

// executing reports whether the group's job is on an endpoint.
func (g *group) executing() bool {
	j := g.first()
	if j == nil || g.state != suspending {
		return false
	}
	_, executing := j.work.progress()
	return executing
}

// cameOn reports whether the group's job has come on since the group was asked to leave.
func (g *group) cameOn() bool {
	done, _ := g.first().work.progress()
	return done != g.executed
}
