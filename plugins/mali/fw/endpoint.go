package fw

import (
	"fmt"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// run is one execution on the engine.
type run struct {
	exec  engine.Execution
	ended atomic.Bool
	// d is nil when nobody waits for it any more; at and base are for its report.
	d       *dispatch
	at      uint64
	count   uint64
	base    hw.Report
	as      uint32
	space   uint64
	forget  bool // The engine is to forget the space when it has ended.
	stopped bool
	since   time.Duration
	// sampleAt is when the report is brought up to date, rotateAt when equals may
	// take its endpoints (never: nobody waits).
	sampleAt, rotateAt time.Duration
}

// stop asks an execution to end at the next workgroup.
func (r *run) stop() {
	if !r.stopped {
		r.stopped = true
		r.exec.Stop()
	}
}

// abort ends an execution at once if the engine can, at the next workgroup otherwise.
func (r *run) abort() {
	r.stop()
	if a, ok := r.exec.(engine.Aborter); ok {
		a.Abort()
	}
}

// orphan ends an execution that nobody waits for any more.
func (f *Firmware) orphan(r *run) {
	if r.d != nil {
		r.d.run = nil
		r.d = nil
	}
	r.abort()
}

// runsOf counts the executions of a group.
func (f *Firmware) runsOf(g *group) int {
	n := 0
	for _, r := range f.runs {
		if r.d != nil && r.d.s != nil && r.d.s.g == g {
			n++
		}
	}
	return n
}

// coresInUse is how many endpoints a group has.
func (g *group) coresInUse() uint8 {
	var cores uint64
	for _, s := range g.streams {
		for _, d := range s.dispatches {
			cores |= d.cores
		}
	}
	return uint8(bits.OnesCount64(cores))
}

// place gives endpoints to dispatches: by priority of the group, then of the
// stream, then in turn. Who has lost them leaves the engine at the next workgroup. It reports
// whether anything happened.
func (f *Firmware) place() bool {
	if f.mcu.halting {
		return false
	}
	worked := f.rotate()
	winners := f.grant()
	for _, r := range f.runs {
		if r.d != nil && !slices.Contains(winners, r.d) && !r.stopped && !f.staying(r.d) {
			f.counters.Preemptions++
			f.note("RUN", func(w []uint32) string { return fmt.Sprintf("csg=%d cs=%d preempted", w[0], w[1]) }, r.d.s.g.slot, r.d.s.index)
			r.stop()
			worked = true
		}
	}
	for _, d := range winners {
		if d.run == nil && len(f.runs) < f.cfg.Executions {
			worked = f.begin(d) || worked
		}
	}
	return worked
}

// staying reports whether a dispatch runs to its end because its group leaves, and
// this device suspends between dispatches only.
func (f *Firmware) staying(d *dispatch) bool { return d.s.g.leaving != nil && f.cfg.WholeDispatches }

// waiting are the dispatches that want endpoints, the strongest first.
func (f *Firmware) waiting() []*dispatch {
	var all []*dispatch
	for _, g := range f.groups {
		if !g.active() || g.leaving != nil {
			continue
		}
		for _, s := range g.streams {
			if s.started && !s.halted {
				all = append(all, s.dispatches...)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *dispatch) int {
		if d := int(b.s.g.endpoints.Priority) - int(a.s.g.endpoints.Priority); d != 0 {
			return d
		}
		if d := int(b.s.priority) - int(a.s.priority); d != 0 && a.s.g == b.s.g {
			return d
		}
		return int(a.order) - int(b.order)
	})
	return all
}

// grant chooses who has endpoints now, and writes down which.
func (f *Firmware) grant() []*dispatch {
	var winners []*dispatch
	used := map[*group]int{}
	seen := map[*stream]bool{}
	for _, g := range f.groups {
		for _, s := range g.streams {
			for _, d := range s.dispatches {
				d.cores = 0
			}
		}
	}
	free := f.glb.cores
	for _, d := range f.waiting() {
		g := d.s.g
		// Dispatches of one stream run one after the other.
		if len(winners) == f.cfg.Executions || seen[d.s] {
			continue
		}
		mine := free & g.allow &^ f.exclusive(g)
		n := min(int(g.endpoints.Compute)-used[g], bits.OnesCount64(mine), int(min(d.tasks(), 64)))
		if n <= 0 {
			continue
		}
		d.cores = lowest(mine, n)
		free &^= d.cores
		used[g] += n
		seen[d.s] = true
		winners = append(winners, d)
	}
	return winners
}

// exclusive are the endpoints that stronger groups keep for themselves
// although they do not use them.
func (f *Firmware) exclusive(g *group) uint64 {
	var kept uint64
	for _, o := range f.groups {
		if o == g || !o.active() || o.leaving != nil || !o.endpoints.ExclusiveCompute || o.endpoints.Priority <= g.endpoints.Priority {
			continue
		}
		if slices.ContainsFunc(o.streams, func(s *stream) bool {
			return s.resources&abi.ResourceCompute != 0 && s.wait.reason != abi.BlockedResource
		}) {
			cores := o.allow & f.glb.cores &^ kept
			kept |= lowest(cores, min(int(o.endpoints.Compute), bits.OnesCount64(cores)))
		}
	}
	return kept
}

// lowest are the n lowest bits of a mask that has as many.
func lowest(mask uint64, n int) uint64 {
	var out uint64
	for ; n > 0; n-- {
		bit := mask & -mask
		out |= bit
		mask &^= bit
	}
	return out
}

// rotate puts a dispatch behind its equals when it has had its time and one of
// them waits.
func (f *Firmware) rotate() bool {
	worked, now := false, f.now()
	for _, r := range f.runs {
		r.rotateAt = never
		if r.d == nil || r.stopped {
			continue
		}
		equal := func(d *dispatch) bool {
			return d.run == nil && d.s != r.d.s && d.s.g.endpoints.Priority == r.d.s.g.endpoints.Priority &&
				(d.s.g != r.d.s.g || d.s.priority == r.d.s.priority)
		}
		if !slices.ContainsFunc(f.waiting(), equal) {
			continue
		}
		if r.rotateAt = r.since + f.cfg.Rotation; now >= r.rotateAt {
			f.orders++
			r.d.order = f.orders
			r.since, r.rotateAt = now, never
			worked = true
		}
	}
	return worked
}

// requestResources grants what a stream asks for, or waits, or is a fault when that can never be.
func (s *stream) requestResources(want abi.Resources) outcome {
	f, g := s.g.f, s.g
	s.resources = want
	if want&abi.ResourceCompute != 0 {
		possible := g.allow & f.glb.cores
		if possible == 0 || g.endpoints.Compute == 0 {
			s.fatal(abi.ExceptionEndpoint, uint64(want))
			return outcomeStay
		}
		if possible&^f.exclusive(g) == 0 {
			s.block(abi.BlockedResource, abi.WaitStatus{}, 0, 0)
			return outcomeStay
		}
	}
	if want&^abi.ResourceCompute != 0 && !g.allowOther {
		s.fatal(abi.ExceptionEndpoint, uint64(want))
		return outcomeStay
	}
	return outcomeNext
}
