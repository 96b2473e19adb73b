package arbiter

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gpuwm/gpuwm/core"
)

// model is the slow, obvious Arbiter: one slice, sorted whenever an order is
// needed, and virtual time that starts at 0 and does not wrap. It knows nothing
// of AsideMax, which TestAsideMax covers.
type model struct {
	config Config
	all    []*modelEntity
	slots  int
	floor  int64
	quiet  bool
	seq    int
	round  int
	now    core.Instant
}

type modelEntity struct {
	id              core.EntityID
	weight          int64 // 32, 8 or 1
	fresh, runnable bool
	aside, evicted  bool
	v               int64
	slot            int // -1: none
	seq, granted    int
	since           core.Instant
	used, cost      time.Duration
}

func weightOf(p core.Priority) int64 {
	return map[core.Priority]int64{core.PriorityHigh: 32, core.PriorityNormal: 8, core.PriorityLow: 1}[p]
}

func (e *modelEntity) stride() int64 { return 32 / e.weight }

func (m *model) debt() int64   { return 16 * 32 * int64(m.config.Quantum) }
func (m *model) window() int64 { return 8 * 32 * int64(m.config.Quantum) }

func (m *model) find(id core.EntityID) *modelEntity {
	for _, e := range m.all {
		if e.id == id {
			return e
		}
	}
	return nil
}

func (m *model) at(slot int) *modelEntity {
	for _, e := range m.all {
		if e.slot == slot {
			return e
		}
	}
	return nil
}

func (m *model) where(keep func(e *modelEntity) bool) []*modelEntity {
	var out []*modelEntity
	for _, e := range m.all {
		if keep(e) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b *modelEntity) int {
		return cmp.Or(cmp.Compare(a.v, b.v), cmp.Compare(b.weight, a.weight), a.seq-b.seq)
	})
	return out
}

func (m *model) waiting() []*modelEntity {
	return m.where(func(e *modelEntity) bool { return e.runnable && e.slot < 0 && !e.aside && !e.evicted })
}

func (m *model) holders() []*modelEntity {
	return m.where(func(e *modelEntity) bool { return e.runnable && e.slot >= 0 })
}

func (m *model) number() int { m.seq++; return m.seq }

func (m *model) advance() {
	if r := m.where(func(e *modelEntity) bool { return e.runnable }); len(r) > 0 {
		m.floor = max(m.floor, r[0].v)
	}
}

func (m *model) fits(slot int, e *modelEntity) bool {
	return m.config.Fits == nil || m.config.Fits(slot, e.id)
}

func (m *model) join(id core.EntityID, p core.Priority) {
	m.all = append(m.all, &modelEntity{id: id, weight: weightOf(p), fresh: true, slot: -1})
}

func (m *model) leave(e *modelEntity) {
	m.all = slices.DeleteFunc(m.all, func(x *modelEntity) bool { return x == e })
}

func (m *model) wake(e *modelEntity) {
	if e.runnable {
		return
	}
	m.advance()
	e.v = max(e.v, m.floor)
	if e.fresh {
		e.v = m.floor + int64(m.config.Quantum)
	}
	e.fresh, e.runnable = false, true
	if e.slot < 0 {
		e.seq = m.number()
		m.quiet = false
	}
}

func (m *model) idle(e *modelEntity) {
	if e.runnable {
		m.advance()
		e.runnable = false
		e.seq = m.number()
	}
}

func (m *model) charge(e *modelEntity, used time.Duration) {
	used = min(used, 24*time.Hour)
	e.used = min(e.used+used, 24*time.Hour)
	e.v += e.stride() * int64(used)
	if h := m.holders(); m.quiet && e.runnable && len(h) > 0 {
		m.floor = max(m.floor, min(h[len(h)-1].v, m.floor+64*int64(used)/int64(len(h))))
		for _, x := range h {
			x.v = max(x.v, m.floor)
		}
	}
	e.v = min(e.v, m.floor+m.debt())
}

func (m *model) setPriority(e *modelEntity, p core.Priority) {
	if weightOf(p) == e.weight {
		return
	}
	m.advance()
	old := e.stride()
	e.weight = weightOf(p)
	if lead := e.v - m.floor; lead > 0 {
		e.v = m.floor + min(lead*e.stride()/old, m.debt())
	}
}

func (m *model) pick(now core.Instant, held []core.EntityID) []core.EntityID {
	m.now, m.slots = max(m.now, now), len(held)
	m.round++
	var seated []*modelEntity
	for s := range 64 {
		if e := m.at(s); e != nil {
			seated = append(seated, e)
		}
	}
	for _, e := range seated {
		e.slot = -1
	}
	for s, id := range held {
		if e := m.find(id); e != nil && e.slot < 0 && m.fits(s, e) {
			e.slot = s
		}
	}
	for _, e := range seated {
		if e.slot < 0 && e.runnable {
			e.seq = m.number()
		}
	}
	m.fill()
	for _, e := range m.all {
		e.aside = false
	}
	for _, e := range m.preempt() {
		e.evicted = false
		e.seq = m.number()
	}
	for _, e := range m.all {
		e.aside = false
	}
	w := m.waiting()
	m.quiet = len(w) == 0
	if len(w) > 0 {
		for _, h := range m.holders() {
			h.v = max(h.v, w[0].v-m.window())
		}
	}
	m.advance()
	want := make([]core.EntityID, len(held))
	for s := range want {
		if e := m.at(s); e != nil {
			want[s] = e.id
		}
	}
	return want
}

// fill walks the waiting in order; each takes the best free slot it fits.
func (m *model) fill() {
	for {
		w := m.waiting()
		resident := m.where(func(e *modelEntity) bool { return e.slot >= 0 })
		idle := slices.DeleteFunc(slices.Clone(resident), func(e *modelEntity) bool { return e.runnable })
		slices.SortFunc(idle, func(a, b *modelEntity) int { return cmp.Or(a.seq-b.seq, a.slot-b.slot) })
		spare := m.config.Spaces == 0 || len(resident) < m.config.Spaces
		var empty []int
		for s := range m.slots {
			if m.at(s) == nil {
				empty = append(empty, s)
			}
		}
		if len(w) == 0 || len(idle) == 0 && (len(empty) == 0 || !spare) {
			return
		}
		e := w[0]
		slot := -1
		fit := slices.IndexFunc(empty, func(s int) bool { return m.fits(s, e) })
		swap := slices.IndexFunc(idle, func(h *modelEntity) bool { return m.fits(h.slot, e) })
		switch {
		case fit >= 0 && spare:
			slot = empty[fit]
		case swap >= 0:
			slot = idle[swap].slot
			idle[swap].slot = -1
		case fit >= 0 && len(idle) > 0:
			slot = empty[fit]
			idle[0].slot = -1
		default:
			e.aside = true
			continue
		}
		m.seat(e, slot)
	}
}

func (m *model) preempt() (evicted []*modelEntity) {
	moves := m.config.MovesMax
	if moves == 0 {
		moves = m.slots
	}
	given := map[int64]bool{} // weights whose first gets nothing
	for len(evicted) < moves {
		w := slices.DeleteFunc(m.waiting(), func(e *modelEntity) bool { return given[e.weight] })
		if len(w) == 0 {
			return evicted
		}
		e := w[0]
		var yielding []*modelEntity
		for _, h := range m.holders() {
			q := m.config.Quantum
			turn := min(max(q, 16*min(h.cost, q)), 4*q)
			spent := h.used >= turn && h.v > e.v
			clearly := h.v-e.v >= e.stride()*int64(turn)
			if h.granted != m.round && m.now.Sub(h.since) >= m.config.MinRun && (spent || clearly) {
				yielding = append(yielding, h)
			}
		}
		slices.SortFunc(yielding, func(a, b *modelEntity) int {
			return cmp.Or(cmp.Compare(b.v, a.v), a.slot-b.slot)
		})
		i := slices.IndexFunc(yielding, func(h *modelEntity) bool { return m.fits(h.slot, e) })
		switch {
		case i >= 0:
			h := yielding[i]
			slot := h.slot
			h.slot, h.evicted = -1, true
			evicted = append(evicted, h)
			m.seat(e, slot)
		case len(yielding) == 0:
			given[e.weight] = true
		default:
			e.aside = true
		}
	}
	return evicted
}

func (m *model) seat(e *modelEntity, slot int) {
	e.slot, e.since, e.used, e.granted = slot, m.now, 0, m.round
	for _, x := range m.all {
		if x.aside && x.v < e.v && !m.fits(slot, x) {
			x.v = e.v
		}
	}
}

// TestModel drives Arbiter and model with the same random calls: same picks,
// same leads, wherever in its range the virtual time is.
func TestModel(t *testing.T) { rapid.Check(t, checkModel) }

func FuzzModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkModel)) }

var priorities = []core.Priority{core.PriorityHigh, core.PriorityNormal, core.PriorityLow}

func checkModel(t *rapid.T) {
	config := Config{Quantum: 1000, MinRun: time.Duration(rapid.SampledFrom([]int{0, 300, 1000}).Draw(t, "min run"))}
	config.MovesMax = rapid.IntRange(0, 3).Draw(t, "moves")
	config.Spaces = rapid.IntRange(0, 4).Draw(t, "spaces")
	mask := rapid.Uint64().Draw(t, "fits")
	if rapid.Bool().Draw(t, "constrained") {
		config.Fits = func(slot int, id core.EntityID) bool { return mask>>((uint64(slot)*7+uint64(id))%64)&1 == 1 }
	}
	a, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	a.floor = vtime(rapid.SampledFrom([]uint64{0, 1<<63 - 40_000, 1<<64 - 40_000}).Draw(t, "floor"))
	m, base := &model{config: config}, a.floor
	now := core.Instant(1)
	var held []core.EntityID
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	draw := func(what string, least, most int) int { return rapid.IntRange(least, most).Draw(t, what) }
	for range draw("steps", 1, 150) {
		id := core.EntityID(draw("id", 1, 12))
		e := m.find(id)
		op := draw("op", 0, 12)
		if e == nil {
			p := rapid.SampledFrom(priorities).Draw(t, "priority")
			check(a.Join(id, p))
			m.join(id, p)
			continue
		}
		switch op {
		case 0:
			check(a.Leave(id))
			m.leave(e)
		case 1:
			check(a.Idle(id))
			m.idle(e)
		case 2:
			p := rapid.SampledFrom(priorities).Draw(t, "priority")
			check(a.SetPriority(id, p))
			m.setPriority(e, p)
		case 3:
			cost := time.Duration(draw("cost", 0, 1000))
			check(a.Moved(id, cost))
			e.cost += (cost - e.cost) / 4
		case 4, 5:
			used := time.Duration(rapid.SampledFrom([]int{1, 100, 1000, 20_000, 1 << 62}).Draw(t, "used"))
			check(a.Charge(id, used))
			m.charge(e, used)
		case 6, 7, 8:
			check(a.Wake(id))
			m.wake(e)
		default:
			took := time.Duration(draw("took", 0, 1500))
			now = now.Add(took)
			for _, id := range held {
				if e := m.find(id); e != nil && e.runnable {
					check(a.Charge(id, took))
					m.charge(e, took)
				}
			}
			for draw("disobey", 0, 9) == 0 {
				held = append(held, core.EntityID(draw("squatter", 0, 14)))
			}
			held = slices.Clone(held[max(0, len(held)-5):])
			if len(held) == 0 {
				held = make([]core.EntityID, 2)
			}
			got, want := a.Pick(now, held, nil), m.pick(now, held)
			if !slices.Equal(got, want) {
				t.Fatalf("pick at %d with %v held: got %v, want %v", now, held, got, want)
			}
			held = got
		}
		for _, e := range m.all {
			if v := int64(a.entities[e.id].v - base); !e.fresh && v != e.v {
				t.Fatalf("virtual time of entity %d: got %d, want %d", e.id, v, e.v)
			}
		}
		if got := int64(a.floor - base); got != m.floor {
			t.Fatalf("floor: got %d, want %d", got, m.floor)
		}
		if got, want := a.Waiting(), len(m.waiting()); got != want {
			t.Fatalf("waiting: got %d, want %d", got, want)
		}
	}
}
