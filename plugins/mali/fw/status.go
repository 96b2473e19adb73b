package fw

import (
	"time"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// writeStatus refreshes the status registers of the group and its streams.
func (g *group) writeStatus() {
	f := g.f
	e := g.endpoints
	e.Compute = g.coresInUse()
	f.store(g.out+abi.GroupEndpointCurrent, e.Encode())
	f.store(g.out+abi.GroupEndpointStatus, g.endpoints.Encode())
	state := uint32(0)
	if g.isIdle() {
		state = abi.GroupStatusIdle
	}
	f.store(g.out+abi.GroupStatusState, state)
	for _, s := range g.streams {
		s.writeStatus()
	}
}

// isIdle reports whether every started stream satisfies an enabled condition.
func (g *group) isIdle() bool {
	for _, s := range g.streams {
		if s.started && !s.isIdle() {
			return false
		}
	}
	return true
}

// watch reports groups that became idle or do not progress, and the idle device.
func (f *Firmware) watch() bool {
	worked := false
	for _, g := range f.groups {
		if !g.active() || g.leaving != nil {
			continue
		}
		if idle := g.isIdle(); idle != g.idle {
			g.idle = idle
			if idle && g.event(abi.GroupIdle) {
				f.counters.Idles++
			}
			worked = true
		}
		worked = g.watchProgress() || worked
	}
	return f.watchIdle() || worked
}

// deadline is when something of the group falls due.
func (g *group) deadline() time.Duration {
	at := never
	if !g.active() {
		return at // Its streams have no context.
	}
	if g.progressAt != never && !g.progressTold {
		at = g.progressLook()
	}
	for _, s := range g.streams {
		at = g.f.sooner(at, s.deadline())
	}
	return at
}
