package fw

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/order"
)

// finishEnded takes in the executions that have ended, and shows how far the
// others are. It reports whether anything happened. An MCU that stands still does neither.
func (f *Firmware) finishEnded() bool {
	worked, now := false, f.now()
	for _, r := range slices.Clone(f.runs) {
		if f.mcu.frozen && r.d != nil {
			continue
		}
		if r.ended.Load() {
			f.runs = slices.DeleteFunc(f.runs, func(x *run) bool { return x == r })
			f.finish(r)
			worked = true
		} else if now >= r.sampleAt {
			r.sampleAt = now + f.cfg.SampleInterval
			p := order.Progress(r.base, r.count, r.exec)
			_ = hw.WriteProgress(f.cfg.Arena, r.at, p.Done, p.Executed, p.ExecutedTime)
		}
	}
	return worked
}

// finish takes in the result of an execution: the dispatch is done, goes on
// later, or is at fault.
func (f *Firmware) finish(r *run) {
	p, err := order.Settle(r.base, r.count, r.exec)
	if r.forget {
		f.cfg.Engine.Forget(r.space)
	}
	d := r.d
	if d == nil || d.s == nil {
		// Nobody waits: its group was terminated, or the device reset.
		p.Status = hw.StatusPreempted
		if p.Done == r.count {
			p.Status = hw.StatusDone
		}
		_ = hw.WriteReport(f.cfg.Arena, r.at, p)
		return
	}
	d.run, d.base, d.next = nil, p, p.Done
	s := d.s
	s.g.progressed(f.now())
	switch {
	case err != nil:
		fe := order.FaultOf(err)
		f.finishFault(d, order.CauseOf(fe.Cause), fe.Detail)
		s.engineFault(fe)
	case p.Done == r.count:
		d.base.Status = hw.StatusDone
		_ = hw.WriteReport(f.cfg.Arena, r.at, d.base)
		f.note("RUN", func(w []uint32) string { return fmt.Sprintf("csg=%d cs=%d done", w[0], w[1]) }, s.g.slot, s.index)
		f.remove(d)
	case r.stopped:
		d.base.Status = hw.StatusPreempted
		_ = hw.WriteReport(f.cfg.Arena, r.at, d.base)
	default:
		f.finishFault(d, hw.CauseEngine, fmt.Sprintf("ended after %d of %d workgroups", p.Done, r.count))
		s.fatal(abi.ExceptionEndpoint, 0)
	}
}

// progressed begins the progress timer anew, or ends it when nothing is on the engine.
func (g *group) progressed(now time.Duration) {
	g.progressMark = 0
	g.progressAt = now
	if g.f.runsOf(g) == 0 {
		g.progressAt = never
	}
}

// progressParts is how finely progress is watched in a period of the timer.
const progressParts = 16

// progressLook is when progress is looked at next: it is sampled, not reported
// by the engine.
func (g *group) progressLook() time.Duration {
	timeout := g.f.glb.progress
	if timeout == 0 || g.progressAt == never {
		return never
	}
	part := max(timeout/progressParts, 1)
	since := g.f.now() - g.progressAt
	return g.progressAt + (since/part+1)*part
}

// watchProgress raises the progress timer's event when endpoint work of the
// group completed nothing for too long; once until it is started again.
func (g *group) watchProgress() bool {
	f := g.f
	if f.glb.progress == 0 || g.progressAt == never || g.progressTold {
		return false
	}
	var done uint64
	for _, r := range f.runs {
		if r.d != nil && r.d.s.g == g {
			n, _ := r.exec.Progress()
			done += n
		}
	}
	now := f.now()
	if done != g.progressMark {
		g.progressMark, g.progressAt = done, now
		return false
	}
	if now-g.progressAt < f.glb.progress {
		return false
	}
	g.progressTold = true
	f.counters.ProgressEvents++
	g.event(abi.GroupProgressEvent)
	return true
}
