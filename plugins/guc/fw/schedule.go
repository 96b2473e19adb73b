package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// engineClass is one class of engines with the contexts that wait for it.
type engineClass struct {
	class     abi.EngineClass
	instances []*instance
	// ready holds the waiting contexts of each level, first come first.
	ready [levels]queue
}

// newEngineClass makes a class of count idle instances.
func newEngineClass(class abi.EngineClass, count int) *engineClass {
	c := &engineClass{class: class}
	for i := range count {
		c.instances = append(c.instances, &instance{index: uint32(i)})
	}
	return c
}

// classOf returns the class, nil when this GPU has none of it.
func (f *Firmware) classOf(class abi.EngineClass) *engineClass {
	for _, c := range f.classes {
		if c.class == class {
			return c
		}
	}
	return nil
}

// schedule puts waiting contexts onto free engines, asks running ones to make
// room, and reports whether anything was put on.
func (f *Firmware) schedule() bool {
	worked := false
	f.promote(f.cfg.Clock.Now())
	for _, c := range f.classes {
		for f.phase == phaseReady && f.function.state == functionRunning && f.injected.doom == nil && len(f.ct.queue) < f.cfg.QueueMax && f.place(c) {
			worked = true
		}
	}
	return worked
}

// place puts the first context that can be placed onto an engine. Unless
// configured otherwise only the head of the queue is looked at.
func (f *Firmware) place(c *engineClass) bool {
	for l := range c.ready {
		for g := range c.ready[l].all() {
			for _, in := range c.instances {
				if in.g == nil && in.run == nil && g.mask&(1<<in.index) != 0 {
					c.remove(g)
					f.switchIn(in, g)
					return true
				}
			}
			if in, quantum := f.victim(c, g); in != nil {
				in.rotate = quantum
				if quantum {
					f.counters.QuantumExpiries++
				}
				f.preempt(in)
			}
			if !f.cfg.NoHeadOfLineBlocking {
				return false
			}
		}
	}
	return false
}

// victim chooses which instance has to make room for a waiting context: none
// while one is already leaving, else the one with the weakest context, else one
// of the same level whose quantum has expired; the longest running of equals.
func (f *Firmware) victim(c *engineClass, waiter *guContext) (in *instance, quantum bool) {
	now := f.cfg.Clock.Now()
	var weakest, expired *instance
	for _, in := range c.instances {
		if in.g == nil || waiter.mask&(1<<in.index) == 0 {
			continue
		}
		if in.preempting {
			return nil, false
		}
		if in.level > waiter.queuedAt &&
			(weakest == nil || in.level > weakest.level || in.level == weakest.level && in.since < weakest.since) {
			weakest = in
		}
		if in.level == waiter.queuedAt && now >= in.quantumAt && (expired == nil || in.since < expired.since) {
			expired = in
		}
	}
	if weakest != nil {
		return weakest, false
	}
	return expired, expired != nil
}

// waits reports whether a context of that level or a stronger one could use
// the instance.
func (c *engineClass) waits(in *instance) bool {
	for l := uint32(0); l <= in.level; l++ {
		for g := range c.ready[l].all() {
			if g.mask&(1<<in.index) != 0 {
				return true
			}
		}
	}
	return false
}

// preempt asks the context on an instance to leave it at the next arbitration
// point, and starts its preemption timeout. A repeat changes nothing.
func (f *Firmware) preempt(in *instance) {
	if in.preempting || in.g == nil {
		return
	}
	in.preempting = true
	f.counters.Preemptions++
	f.noteEngine("asked to leave", in)
	f.armPreemption(in)
	if in.run != nil && !in.arbOff {
		in.run.exec.Stop()
	}
}

// armPreemption starts the preemption timeout anew.
func (f *Firmware) armPreemption(in *instance) {
	in.preemptAt = never
	if d := microseconds(in.g.policies.preemptionUS, f.cfg.PreemptionMin); d > 0 {
		in.preemptAt = f.cfg.Clock.Now() + d
	}
}

// instanceDeadline returns when something is due about an instance.
func (f *Firmware) instanceDeadline(c *engineClass, in *instance) time.Duration {
	if in.g == nil || in.run == nil {
		return never
	}
	at := in.sampleAt
	switch {
	case in.aborting:
		at = min(at, in.abortAt)
	case in.preempting:
		at = min(at, in.preemptAt)
	case in.quantumAt > f.cfg.Clock.Now() && (in.toIdle || c.waits(in)):
		at = min(at, in.quantumAt)
	}
	return at
}

// expireInstance does what fell due about an instance.
func (f *Firmware) expireInstance(in *instance, now time.Duration) bool {
	if in.g == nil || in.run == nil {
		return false
	}
	switch {
	case in.aborting && now >= in.abortAt:
		f.engineFailed(in)
		return true
	case in.preempting && !in.aborting && now >= in.preemptAt:
		f.force(in)
		return true
	case in.toIdle && !in.preempting && now >= in.quantumAt:
		in.rotate = true
		f.counters.QuantumExpiries++
		f.preempt(in)
		return true
	}
	if now >= in.sampleAt {
		in.sampleAt = now + f.cfg.SampleInterval
		f.sample(in)
	}
	return false
}

// quiet reports whether no engine executes anything.
func (f *Firmware) quiet() bool {
	for _, c := range f.classes {
		for _, in := range c.instances {
			if in.run != nil {
				return false
			}
		}
	}
	return true
}

// stopAll asks every execution to end and to leave no trace: what it reports is
// dropped. abort ends those at once that can be aborted.
func (f *Firmware) stopAll(abort bool) {
	for _, c := range f.classes {
		for _, in := range c.instances {
			if in.run == nil {
				continue
			}
			in.g = nil
			in.run.exec.Stop()
			if a, ok := in.run.exec.(engine.Aborter); ok && abort {
				a.Abort()
			}
		}
	}
}

// reap frees instances whose context was given up when their execution has ended.
func (f *Firmware) reap() bool {
	worked := false
	for _, c := range f.classes {
		for _, in := range c.instances {
			if in.g == nil && in.run != nil && in.run.ended.Load() {
				*in = instance{index: in.index}
				worked = true
			}
		}
	}
	return worked
}
