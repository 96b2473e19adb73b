package fw

import (
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// Check verifies what must hold between two Steps, for tests and simulations.
// The error names the first thing that does not hold.
func (f *Firmware) Check() error {
	if f.life.power != abi.PowerD0 && !f.quiet() {
		return fmt.Errorf("something runs in %s", f.life.power)
	}
	switch f.phase {
	case phaseDead, phaseDraining:
		return nil
	case phaseUnloaded, phaseOff:
		if len(f.contexts) > 0 || f.ct.open || !f.quiet() {
			return fmt.Errorf("%s with %d contexts", f.phase, len(f.contexts))
		}
	}
	if s := f.function.state; s != functionRunning && s != functionPausing && s != functionStopping && s != functionResetting && !f.quiet() {
		return fmt.Errorf("something runs while the function is %s", s)
	}
	var pending uint64
	for id, g := range f.contexts {
		pending += uint64(g.disables)
		if err := g.check(); err != nil {
			return fmt.Errorf("context %d (%s): %w", id, g.state, err)
		}
	}
	if c := f.counters; c.ModeSets != c.ModeDones+c.ModesForgotten+pending {
		return fmt.Errorf("%d mode sets, %d answered, %d forgotten, %d pending", c.ModeSets, c.ModeDones, c.ModesForgotten, pending)
	}
	for _, c := range f.classes {
		for l := range c.ready {
			seen := map[*guContext]bool{}
			for g := range c.ready[l].all() {
				if !g.queued || g.queuedAt != uint32(l) || seen[g] || f.contexts[g.id] != g {
					return fmt.Errorf("context %d stands wrongly in queue %d", g.id, l)
				}
				seen[g] = true
			}
		}
		for _, in := range c.instances {
			if in.g != nil && (in.g.on != in || in.run == nil || in.g.mask&(1<<in.index) == 0) {
				return fmt.Errorf("engine %d.%d: context %d is not properly on it", c.class, in.index, in.g.id)
			}
		}
	}
	return nil
}

// check verifies one context by itself.
func (g *guContext) check() error {
	switch {
	case g.on != nil && g.on.g != g:
		return fmt.Errorf("is on an engine that does not have it")
	case g.on != nil && g.queued:
		return fmt.Errorf("is on an engine and queued")
	case g.on != nil && g.state != contextEnabled && g.state != contextDisabling:
		return fmt.Errorf("is on an engine")
	case g.queued && g.state != contextEnabled:
		return fmt.Errorf("is queued")
	case (g.disables > 0) != (g.state == contextDisabling):
		return fmt.Errorf("has %d disables to answer", g.disables)
	case g.state == contextDisabling && (g.on == nil || !g.on.preempting):
		return fmt.Errorf("is not leaving")
	}
	return nil
}

// RunTime returns how long a context has been on engines in all, switch-ins
// that have not ended excluded; false when the id is not registered.
func (f *Firmware) RunTime(id abi.GUCID) (time.Duration, bool) {
	g := f.contexts[id]
	if g == nil {
		return 0, false
	}
	return g.ran, true
}

// Policies returns how a context is scheduled from its next switch-in on, as
// the KLVs of UPDATE_CONTEXT_POLICIES; nil when the id is not registered.
func (f *Firmware) Policies(id abi.GUCID) []abi.KLV {
	g := f.contexts[id]
	if g == nil {
		return nil
	}
	return []abi.KLV{
		abi.Word(abi.KLVExecutionQuantum, g.policies.quantumUS), abi.Word(abi.KLVPreemptionTimeout, g.policies.preemptionUS),
		abi.Word(abi.KLVPriority, g.policies.level), abi.Word(abi.KLVPreemptToIdle, flag(g.policies.toIdle, 1)),
		abi.Word(abi.KLVFrequency, g.policies.frequency),
	}
}

// Running returns which context is on an instance; false when none is.
func (f *Firmware) Running(class abi.EngineClass, index uint32) (abi.GUCID, bool) {
	c := f.classOf(class)
	if c == nil || uint64(index) >= uint64(len(c.instances)) || c.instances[index].g == nil {
		return 0, false
	}
	return c.instances[index].g.id, true
}

// Idle reports whether nothing runs, waits or is to be sent.
func (f *Firmware) Idle() bool {
	if !f.quiet() || len(f.ct.queue) > 0 || f.steps.Pending() {
		return false
	}
	for _, c := range f.classes {
		for l := range c.ready {
			if c.ready[l].first != nil {
				return false
			}
		}
	}
	return true
}
