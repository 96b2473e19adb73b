package manager

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/core/sched"
)

// commitRetryMin and commitRetryMax bound the pause after a failed commit.
const (
	commitRetryMin = time.Second
	commitRetryMax = 30 * time.Second
)

// commit hands the merged write to the store unless one is under way.
func (d *device) commit() {
	if d.writing || d.next == nil || d.rebuilding {
		return
	}
	w, seq := d.next, d.nextSeq
	d.next, d.writing = nil, true
	crash.Point("manager.commit.before")
	// Whoever starts after the stop must find on record what was under way.
	d.manager.busy.Add(1)
	d.manager.config.Store.Commit(w, func(err error) {
		defer d.manager.busy.Done()
		d.post(func() { d.committed(w, seq, err) })
	})
}

func (d *device) committed(w *core.Write, seq uint64, err error) {
	d.writing = false
	if err != nil {
		d.commitFailed(err)
		return
	}
	crash.Point("manager.commit.after")
	d.commitRetry, d.committedSeq = 0, seq
	for i := range w.EntityStates {
		if r := d.records[w.EntityStates[i].ID]; r != nil {
			r.state = w.EntityStates[i]
		}
	}
	for i := range w.JobStates {
		s := &w.JobStates[i]
		if r := d.records[s.Entity]; r != nil {
			if j := r.byID[s.ID]; j != nil {
				j.state = *s
			}
		}
	}
	d.outbox.Committed(seq)
	d.release()
	d.commit()
	d.answerCommitted(seq)
}

// commitWaiter is called when batch seq is committed, or with the error of the
// commit that failed.
type commitWaiter struct {
	seq  uint64
	call func(error)
}

// whenCommitted calls f as soon as everything decided so far is committed, or has
// failed to be. What is decided later it does not wait for.
func (d *device) whenCommitted(f func(error)) {
	if !d.writing && d.next == nil {
		f(nil)
		return
	}
	d.afterCommit = append(d.afterCommit, commitWaiter{d.nextSeq, f})
}

// answerCommitted answers who waits for batches up to seq.
func (d *device) answerCommitted(seq uint64) {
	n := 0
	for n < len(d.afterCommit) && d.afterCommit[n].seq <= seq {
		n++
	}
	d.answer(n, nil)
}

// answer gives the first n that wait their answer.
func (d *device) answer(n int, err error) {
	waiting := d.afterCommit[:n:n]
	d.afterCommit = d.afterCommit[n:]
	for _, w := range waiting {
		w.call(err)
	}
}

// commitFailed throws the schedulers away, as a crash would, and rebuilds them
// from the records. Then the session is opened anew, which settles what was under
// way; until then its events are dropped, and come again because nobody
// acknowledged them.
func (d *device) commitFailed(err error) {
	d.commitRetry = min(max(2*d.commitRetry, commitRetryMin), commitRetryMax)
	d.log.Error("commit failed", "error", err)
	d.next, d.rebuilding, d.link, d.hungry = nil, true, nil, nil
	d.answer(len(d.afterCommit), fmt.Errorf("commit: %w", err))
	d.manager.busy.Add(1)
	go d.reload(d.commitRetry)
}

// reload makes the store take writes again, then has the schedulers rebuilt.
func (d *device) reload(wait time.Duration) {
	defer d.manager.busy.Done()
	for {
		pause := time.NewTimer(wait)
		select {
		case <-pause.C:
		case <-d.stop:
			pause.Stop()
			return
		}
		snap, err := d.manager.config.Store.Load()
		if err == nil {
			d.post(func() { d.rebuild(snap) })
			return
		}
		d.log.Error("records not loaded", "error", err)
		wait = min(2*wait, commitRetryMax)
	}
}

// rebuild begins again from what is on disk, which may be more than was
// acknowledged: a commit that failed late can have left its states there.
func (d *device) rebuild(snap *core.Snapshot) {
	d.rebuilding = false
	for i := range snap.Entities {
		rec := &snap.Entities[i]
		r := d.records[rec.Spec.ID]
		if r == nil {
			continue
		}
		r.state = rec.State
		for _, j := range rec.Jobs {
			if own := r.byID[j.Spec.ID]; own != nil {
				own.state = j.State
			}
		}
	}
	d.core, d.outbox, d.committedSeq = sched.New(d.manager.config.Sched), sched.Outbox{}, 0
	if d.evacuating {
		d.evacuate()
	}
	for _, r := range d.records {
		d.restore(r)
	}
	deferred := d.deferred
	d.deferred = nil
	for i, f := range deferred {
		if d.rebuilding {
			d.deferred = append(d.deferred, deferred[i:]...)
			return
		}
		f()
	}
	if d.link == nil && d.instance != nil {
		d.supervisor.reopen()
	}
}

// restore gives the schedulers an entity from its committed records.
func (d *device) restore(r *entityRecord) {
	r.decided = 0 // the schedulers may count their batches anew
	rec := core.EntityRecord{Spec: r.spec, State: r.state}
	r.fed = 0
	for _, j := range r.jobs {
		rec.Jobs = append(rec.Jobs, core.JobRecord{Spec: j.spec, State: j.state})
		if j.state.Phase != core.JobHeld && r.fed == len(rec.Jobs)-1 {
			r.fed++
		}
	}
	if err := d.step(&sched.Event{Kind: sched.EventRestore, Record: &rec}); err != nil {
		d.log.Error("entity not restored", "entity", r.spec.Name, "error", err)
		return
	}
	for _, j := range r.jobs[:r.fed] {
		if !j.state.Phase.Final() {
			d.signalForeign(j.spec)
		}
	}
	d.feed(r)
	d.flush(r)
}

// tell has f carried out, again after a failed commit, until what it decides is
// on record. It returns without that when the loop has ended.
func (d *device) tell(f func()) {
	for {
		told := make(chan error, 1)
		if !d.do(func() {
			f()
			d.whenCommitted(func(err error) { told <- err })
		}) {
			return
		}
		select {
		case err := <-told:
			if err == nil {
				return
			}
		case <-d.stopped:
			return
		}
	}
}
