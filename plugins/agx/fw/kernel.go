package fw

import (
	"slices"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// space is an address space as the engine knows it.
type space struct {
	id       uint64
	segments hw.Space
	// users are the executions in it; old says that its slot has another one now.
	users int
	old   bool
}

// spaces numbers the address spaces of the VM slots for the engine, anew when
// the mappings that kernels see have changed. An old one is forgotten when
// nothing runs in it any more.
type spaces struct {
	next   uint64
	bySlot map[uint32]*space
}

// acquire returns the address space of a slot for one execution.
func (s *spaces) acquire(e engine.Engine, slot uint32, visible hw.Space) *space {
	now := s.bySlot[slot]
	if now == nil || !slices.Equal(now.segments, visible) {
		s.retire(e, slot)
		if s.bySlot == nil {
			s.bySlot = map[uint32]*space{}
		}
		s.next++
		now = &space{id: s.next, segments: visible}
		s.bySlot[slot] = now
	}
	now.users++
	return now
}

// release ends the use by one execution.
func (s *spaces) release(e engine.Engine, used *space) {
	if used == nil {
		return
	}
	used.users--
	if used.old && used.users == 0 {
		e.Forget(used.id)
	}
}

// retire makes a slot's address space an old one.
func (s *spaces) retire(e engine.Engine, slot uint32) {
	now := s.bySlot[slot]
	if now == nil {
		return
	}
	delete(s.bySlot, slot)
	if now.old = true; now.users == 0 {
		e.Forget(now.id)
	}
}

// sweep drops the address spaces of slots that are not bound any more.
func (s *spaces) sweep(e engine.Engine, bound func(slot uint32) bool) {
	for slot := range uint32(abi.ContextSlots) {
		if s.bySlot[slot] != nil && !bound(slot) {
			s.retire(e, slot)
		}
	}
}

// forget drops all.
func (s *spaces) forget(e engine.Engine) {
	s.sweep(e, func(uint32) bool { return false })
}
