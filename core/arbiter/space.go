package arbiter

import "github.com/gpuwm/gpuwm/core"

// Share puts an entity into an address space of several: all of one space need one of Config.Spaces between
// them. 0 is a space of its own, as after Join. Unknown is core.ErrNotFound.
func (a *Arbiter) Share(id core.EntityID, space uint64) error {
	e, err := a.find("share space of", id)
	if err != nil {
		return err
	}
	a.count(e, -1)
	e.space = space
	a.count(e, 1)
	return nil
}

// count keeps the number of entities that share.
func (a *Arbiter) count(e *entity, n int) {
	if e.space != 0 {
		a.sharing += n
	}
}

// mates reports whether two entities need one address space between them.
func mates(e, h *entity) bool { return e == h || e.space != 0 && e.space == h.space }

// spare reports whether an address space is left.
func (a *Arbiter) spare() bool {
	if a.config.Spaces == 0 {
		return true
	}
	taken := 0
	for s, h := range a.seats {
		if h == nil {
			continue
		}
		first := true
		for _, o := range a.seats[:s] {
			first = first && (o == nil || a.sharing == 0 || !mates(h, o))
		}
		if first {
			taken++
		}
	}
	return taken < a.config.Spaces
}

// roomFor reports whether e needs no address space that a holder would have to give back.
func (a *Arbiter) roomFor(e *entity) bool {
	if a.spare() {
		return true
	}
	for _, h := range a.seats {
		if h != nil && mates(e, h) {
			return true
		}
	}
	return false
}

// barred reports whether e waits for an address space whose holders do not all give way yet. Nobody behind it
// gets a slot meanwhile: one of them after the other could keep the space for ever.
func (a *Arbiter) barred(e *entity) bool { return a.sharing > 0 && !a.roomFor(e) && a.fitsAny(e) }

// allMates reports whether ok holds for every holder in the address space of h.
func (a *Arbiter) allMates(h *entity, ok func(*entity) bool) bool {
	for _, o := range a.seats {
		if o != nil && mates(h, o) && !ok(o) {
			return false
		}
	}
	return true
}
