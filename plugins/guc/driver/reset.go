package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
)

// phase is what the driver as a whole does.
type phase uint8

// The phases and what may follow.
const (
	// phaseDown was never up; then loading.
	phaseDown phase = iota
	// phaseLoading waits for the hardware and registers the CTBs; then up, or the device is given up.
	phaseLoading
	// phaseUp takes work; then loading (a GT reset), hot, sleeping or moving.
	phaseUp
	// phaseHot is D3hot: the firmware keeps its contexts and nothing is said; then waking.
	phaseHot
	// phaseWaking waits for D0; then up.
	phaseWaking
	// phaseSleeping tells the firmware to forget everything; then cold.
	phaseSleeping
	// phaseCold is D3cold or system sleep: the firmware is gone; then loading.
	phaseCold
	// phaseMoving fixes what a move to other hardware left; then up.
	phaseMoving
)

const (
	// resetWindow is how long resets count as one row when no job ends between them.
	resetWindow = time.Minute
)

// resets counts GT resets.
type resets struct {
	total, row int
	last       time.Duration
	reason     error
}

// stopped reports whether no queue may send anything now.
func (d *Driver) stopped() bool { return d.failed() || d.phase != phaseUp }

// Resets returns how many GT resets there were. For tests, on the goroutine that calls Step.
func (d *Driver) Resets() int { return d.resets.total }

// LastReset returns what the last GT reset was for; nil when there was none. For
// tests, on the goroutine that calls Step.
func (d *Driver) LastReset() error { return d.resets.reason }

// reset is the answer to everything that a new firmware helps against: the transport is
// stopped, the hardware reset and the firmware loaded, and what was not begun goes
// on. Who had begun and not ended is a victim, unless there is evidence against
// it. A request during a reset is dropped; too many in a row, or one that fails, and the device is given up.
func (d *Driver) reset(reason error) {
	if d.failed() || d.ct == nil || !d.ct.open {
		return
	}
	now := d.config.Clock.Now()
	if now-d.resets.last > resetWindow {
		d.resets.row = 0
	}
	d.resets.total++
	d.resets.row++
	d.resets.last, d.resets.reason = now, reason
	if d.resets.row > d.config.ResetsMax {
		d.fail(fmt.Errorf("%d GT resets in a row: %w", d.resets.row-1, reason))
		return
	}
	d.log.Warn("gt reset", "attempt", d.resets.row, "error", reason)
	d.phase = phaseLoading
	d.moving = nil
	d.ct.halt()
	d.dropMail()
	for _, q := range d.queues {
		q.disarm()
	}
	d.restart(func() {
		for _, q := range d.ordered() {
			d.judge(q)
			if d.failed() {
				return
			}
		}
		d.bringUp()
	})
}

// judge decides what becomes of a queue in a GT reset: nothing is on any engine
// now, and the firmware knows nothing.
func (d *Driver) judge(q *queue) {
	d.scanQueue(q)
	switch e := q.evidence; {
	case e != nil:
		q.lose(e.cause, e.detail)
	case len(q.jobs) > 0 && q.begun(q.jobs[0]):
		q.lose(core.CauseDevice, fmt.Sprintf("victim of a GT reset: %s", d.resets.reason))
	}
	if q.lost && q.state.alive() {
		q.advance(ban)
	}
	if !q.advance(gtReset) {
		return
	}
	if q.state == gone {
		q.free()
		return
	}
	q.rewind()
}

// begun reports whether a job was begun and is not finished. One that came to its end
// without saying so is reported here: its seqno is all that is missing.
func (q *queue) begun(j *job) bool {
	usage, finished := q.usage(j)
	if !j.started && !abi.Passed(q.load(q.status(abi.PPHWSPStartSeqno)), j.seqno) {
		return false
	}
	if !finished {
		return true
	}
	q.complete(j, usage)
	return false
}

// rewind writes the ring anew from the first job on, none of which was begun.
func (q *queue) rewind() {
	delete(q.d.active, q)
	q.published, q.again = 0, false
	q.watch = watch{}
	if !q.laid() {
		return
	}
	if len(q.jobs) > 0 {
		q.tail = q.jobs[0].start
	}
	q.store(q.register(abi.RegRingHead), q.tail)
	q.store(q.register(abi.RegRingTail), q.tail)
	for _, j := range q.jobs {
		q.emit(j)
	}
}

// up: the device takes work (again).
func (d *Driver) up() {
	first := d.ready
	d.phase, d.ready = phaseUp, true
	d.life = vitals{sign: d.config.Clock.Now()}
	host.Answer(&d.upWaits, nil)
	if first {
		for _, q := range d.ordered() {
			q.settle()
		}
	}
}

// ordered returns the queues in the order of their ids, so that runs are repeatable.
func (d *Driver) ordered() []*queue {
	queues := make([]*queue, 0, len(d.queues))
	for _, q := range d.queues {
		queues = append(queues, q)
	}
	slices.SortFunc(queues, func(a, b *queue) int { return int(a.id) - int(b.id) })
	return queues
}
