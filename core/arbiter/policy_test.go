package arbiter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestChurn lets entities come, go, sleep and change their priority at random:
// no slot is free while somebody waits, and nobody waits beyond the bound.
func TestChurn(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			config := Config{Quantum: 2 * ms, MinRun: ms / 2, MovesMax: r.IntN(3)}
			d := newDevice(t, config, 1+r.IntN(8))
			d.step, d.tick, d.bounded, d.crowd = 250*us, 500*us, true, 60
			if seed%2 == 1 {
				d.cost = 250 * us
			}
			for len(d.clients) < d.crowd {
				c := &client{priority: priorities[r.IntN(3)], work: time.Duration(1+r.IntN(20)) * ms, sync: true}
				c.wait = time.Duration(r.IntN(3)*r.IntN(10)) * ms
				d.add(c)
				d.run(time.Duration(r.IntN(30)) * ms)
				switch c := d.clients[r.IntN(len(d.clients))]; {
				case c.gone:
				case r.IntN(3) == 0:
					d.leave(c)
				default:
					c.priority = priorities[r.IntN(3)]
					// A lower priority makes its lead longer: the wait begins anew.
					c.waitingSince = 0
					d.must(d.a.SetPriority(c.id, c.priority))
				}
				d.pick()
			}
			d.run(time.Second)
		})
	}
}

// TestStorm: a stream of entities that run once and leave does not starve who
// has the greatest lead.
func TestStorm(t *testing.T) {
	d := newDevice(t, usual, 1, hog(low))
	d.run(10 * ms)
	for range 1000 {
		d.add(&client{priority: high, work: 2 * ms, wait: time.Hour, sync: true})
		d.run(ms * 19 / 10)
		for _, c := range d.clients[1:] {
			if !c.gone && c.left == 0 {
				d.leave(c)
			}
		}
	}
	// The stream offers 105 per cent and every newcomer is high. If newcomers
	// came in at the floor, the low one would have executed in its first 11 ms only.
	if got := d.clients[0].executed; got < 18*ms {
		t.Errorf("the low entity executed %v of %v beside a stream of newcomers", got, time.Duration(d.now))
	}
}

// TestNoCredit: who slept for ten seconds gets half of the device beside its equal, not more.
func TestNoCredit(t *testing.T) {
	sleeper := &client{priority: normal, work: time.Second, wait: 10 * time.Second, sync: true}
	d := newDevice(t, usual, 1, hog(normal), sleeper)
	d.run(12 * time.Second)
	hogBefore, sleeperBefore := d.clients[0].executed, sleeper.executed
	d.run(500 * ms)
	h, s := d.clients[0].executed-hogBefore, sleeper.executed-sleeperBefore
	if s == 0 || (h-s).Abs() > 2*usual.Quantum {
		t.Errorf("after sleeping: sleeper %v, hog %v of 500ms", s, h)
	}
}

// TestLeadStays: idling for a moment does not shed the lead over who kept waiting.
func TestLeadStays(t *testing.T) {
	nap := &client{priority: low, work: ms, wait: 50 * us, sync: true}
	d := newDevice(t, usual, 1, nap, hog(normal))
	d.run(5 * time.Second)
	if got := nap.executed.Seconds() / 5; got < .95/9 || got > 1.05/9 {
		t.Errorf("a low entity that naps got %.4f of the device, want a ninth", got)
	}
}

// TestInfeasible: a high entity that cannot use more than its slot hoards no
// credit while it holds it.
func TestInfeasible(t *testing.T) {
	d := newDevice(t, usual, 2, hog(high), hog(low), hog(low), hog(low))
	d.run(10 * time.Second)
	if got := d.clients[0].executed; got < 9900*ms {
		t.Errorf("the high entity got %v of its slot in 10 s", got)
	}
	if a, b := d.clients[1].executed, d.clients[2].executed; (a - b).Abs() > 3*usual.Quantum {
		t.Errorf("equal low entities got %v and %v", a, b)
	}
	for range 3 {
		d.add(hog(high))
	}
	before := d.clients[0].executed
	d.run(5 * time.Second)
	old, fresh := d.clients[0].executed-before, d.clients[4].executed
	// The credit is the window: 8 quanta of a low entity.
	if credit := 8 * 32 * usual.Quantum; old-fresh > credit {
		t.Errorf("the old high entity got %v, a new one %v: more than the window %v apart", old, fresh, credit)
	}
	before, freshBefore := d.clients[0].executed, d.clients[4].executed
	d.run(5 * time.Second)
	if old, fresh = d.clients[0].executed-before, d.clients[4].executed-freshBefore; (old - fresh).Abs() > 3*usual.Quantum {
		t.Errorf("then the old high entity got %v, a new one %v", old, fresh)
	}
}

// TestQuiet: use that harmed nobody is not held against who used, when others come.
func TestQuiet(t *testing.T) {
	d := newDevice(t, usual, 2, hog(high), hog(low))
	d.run(20 * time.Second)
	if e, f := d.a.entities[1], d.a.entities[2]; f.v.over(e.v) > int64(strideLow*d.tick) {
		t.Fatalf("after 20 s with a slot each the low entity leads by %v", time.Duration(f.v.over(e.v)))
	}
	d.add(hog(low))
	d.add(hog(low))
	d.run(time.Second)
	// One slot for three low entities.
	if got := d.clients[1].executed - 20*time.Second; got < 280*ms || got > 390*ms {
		t.Errorf("the low entity got %v of the contended second, want about a third", got)
	}
}

// TestFlicker: short pauses of one entity do not make the others' leads go away.
func TestFlicker(t *testing.T) {
	burst := func(p core.Priority) *client { return &client{priority: p, work: 4 * ms, wait: 50 * us, sync: true} }
	d := newDevice(t, Config{Quantum: 5 * ms}, 2, burst(normal), burst(normal), burst(low))
	d.tick = 100 * us
	d.run(5 * time.Second)
	// Two normal and one low share two slots: the low one's weight gives it 2/17
	// slots; and what the pauses leave is for the taking: 1 in 81 twice.
	share := d.clients[2].executed.Seconds() / 5
	t.Logf("low got %.4f of a slot", share)
	if share < 2./17*.9 || share > (2./17+2./81)*1.1 {
		t.Errorf("low got %.4f of a slot, want 2/17", share)
	}
}

// TestNoThrash: equals that wake and sleep all the time are not moved more often than
// their turns and sleeps ask for; expensive moves make turns longer.
func TestNoThrash(t *testing.T) {
	moves := func(cost time.Duration) (int, time.Duration) {
		d := newDevice(t, usual, 2, hog(normal), hog(normal), hog(normal), hog(normal))
		d.cost, d.bounded = cost, true
		d.run(time.Second)
		return d.moves, d.lost
	}
	cheap, _ := moves(0)
	if most := 2 * int(time.Second/usual.Quantum); cheap > most+2 {
		t.Errorf("%d moves in a second, want one a quantum and slot: %d", cheap, most)
	}
	dear, lost := moves(ms)
	if dear > cheap/3+10 || lost > 2*time.Second/14 {
		t.Errorf("moves of 1ms: %d moves (%d when they cost nothing) took %v of 2s", dear, cheap, lost)
	}
}

func mustNew(t testing.TB, c Config) *Arbiter {
	t.Helper()
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// awake returns an Arbiter with runnable normal entities 1 to n.
func awake(t testing.TB, c Config, n int) *Arbiter {
	t.Helper()
	a := mustNew(t, c)
	for id := core.EntityID(1); id <= core.EntityID(n); id++ {
		if err := errors.Join(a.Join(id, normal), a.Wake(id)); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func ids(all ...core.EntityID) []core.EntityID { return all }

func wantPick(t *testing.T, a *Arbiter, now core.Instant, held, want []core.EntityID) {
	t.Helper()
	if got := a.Pick(now, held, nil); !slices.Equal(got, want) {
		t.Fatalf("pick at %d with %v held: got %v, want %v", now, held, got, want)
	}
}

// TestSticky goes through one holder's life, step by step.
func TestSticky(t *testing.T) {
	a := awake(t, Config{Quantum: 100, MinRun: 30}, 3)
	wantPick(t, a, 1, ids(0, 0), ids(1, 2)) // ties: who has waited longer
	wantPick(t, a, 2, ids(1, 2), ids(1, 2)) // nothing happened
	for _, id := range ids(1, 2) {
		if err := a.Charge(id, 99); err != nil {
			t.Fatal(err)
		}
	}
	wantPick(t, a, 100, ids(1, 2), ids(1, 2)) // less than a turn
	if err := errors.Join(a.Charge(1, 1), a.Charge(2, 2)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 102, ids(1, 2), ids(1, 3)) // the one with most goes
	if err := errors.Join(a.SetPriority(2, high), a.Charge(1, 100)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 103, ids(1, 3), ids(2, 3)) // 2 has less now; 3 is in its minimum run period
	if err := errors.Join(a.Idle(2), a.Idle(1)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 104, ids(2, 3), ids(2, 3)) // idle, and nobody wants the slot
	if err := a.Wake(1); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 105, ids(2, 3), ids(1, 3)) // somebody does
	if err := a.Leave(3); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 106, ids(1, 3), ids(1, 0))
	if a.Waiting() != 0 || a.Len() != 2 {
		t.Fatalf("waiting %d, len %d", a.Waiting(), a.Len())
	}
}

// TestMinRun: within its minimum run period a holder stays, whoever comes.
func TestMinRun(t *testing.T) {
	a := mustNew(t, Config{Quantum: 100, MinRun: 50})
	if err := errors.Join(a.Join(1, low), a.Wake(1), a.Join(2, high)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 1, ids(0), ids(1))
	if err := errors.Join(a.Wake(2), a.Charge(1, 49)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 50, ids(1), ids(1))
	wantPick(t, a, 51, ids(1), ids(2))
}

// TestMovesMax: one Pick preempts so many and no more; free slots are filled besides.
func TestMovesMax(t *testing.T) {
	a := awake(t, Config{Quantum: 100, MovesMax: 1}, 6)
	wantPick(t, a, 1, ids(0, 0, 0), ids(1, 2, 3))
	for _, id := range ids(1, 2, 3) {
		if err := a.Charge(id, 100); err != nil {
			t.Fatal(err)
		}
	}
	// 2 came after 1 and so began later.
	wantPick(t, a, 2, ids(1, 2, 0), ids(1, 5, 4))
}

// TestSpaces: not more entities on slots than address spaces, idle ones included;
// the longest idle gives way.
func TestSpaces(t *testing.T) {
	a := awake(t, Config{Quantum: 100, Spaces: 2}, 4)
	wantPick(t, a, 1, ids(0, 0, 0), ids(1, 2, 0))
	if err := errors.Join(a.Idle(2), a.Idle(1)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 2, ids(1, 2, 0), ids(4, 3, 0))

	// Only slot 2 fits entity 3: an idle one goes for its address space alone.
	a = awake(t, Config{Quantum: 100, Spaces: 2, Fits: func(slot int, id core.EntityID) bool { return id != 3 || slot == 2 }}, 2)
	wantPick(t, a, 1, ids(0, 0, 0), ids(1, 2, 0))
	if err := errors.Join(a.Idle(2), a.Join(3, low), a.Wake(3)); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 2, ids(1, 2, 0), ids(1, 0, 3))
}

// TestShare: entities of one address space need one between them, and give it up together.
func TestShare(t *testing.T) {
	shared := func(spaces, n, count int) *Arbiter {
		a := awake(t, Config{Quantum: 100, Spaces: spaces}, n)
		for id := range count {
			if err := a.Share(core.EntityID(1+id), 7); err != nil {
				t.Fatal(err)
			}
		}
		return a
	}
	charge := func(a *Arbiter, list ...core.EntityID) {
		for _, id := range list {
			if err := a.Charge(id, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantPick(t, shared(1, 3, 3), 1, ids(0, 0, 0, 0), ids(1, 2, 3, 0))
	wantPick(t, shared(2, 4, 2), 1, ids(0, 0, 0, 0), ids(1, 2, 3, 0))

	// Entity 3 needs the one space: it waits for both turns, and nobody gets in before it.
	a := shared(1, 4, 2)
	if err := a.Share(4, 7); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 1, ids(0, 0), ids(1, 2))
	charge(a, 1)
	wantPick(t, a, 2, ids(1, 2), ids(1, 2))
	charge(a, 2)
	wantPick(t, a, 3, ids(1, 2), ids(0, 3))
	charge(a, 3)
	wantPick(t, a, 4, ids(0, 3), ids(1, 4))

	// Idle ones of a space go together.
	a = shared(1, 3, 2)
	wantPick(t, a, 1, ids(0, 0), ids(1, 2))
	if err := a.Idle(1); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 2, ids(1, 2), ids(1, 2))
	if err := a.Idle(2); err != nil {
		t.Fatal(err)
	}
	wantPick(t, a, 3, ids(1, 2), ids(3, 0))
}

// TestShareIsFair: whoever is alone in an address space comes on beside many that share one.
func TestShareIsFair(t *testing.T) {
	const many = 20
	a := awake(t, Config{Quantum: 100, Spaces: 1}, many+1)
	for id := range core.EntityID(many) {
		if err := a.Share(1+id, 7); err != nil {
			t.Fatal(err)
		}
	}
	held, turns := make([]core.EntityID, 8), map[core.EntityID]int{}
	for tick := range 2000 {
		held = a.Pick(core.Instant(1+tick), held, nil)
		for _, id := range held {
			if id != 0 {
				turns[id]++
				if err := a.Charge(id, 100); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for id := range core.EntityID(many + 1) {
		if n := turns[1+id]; n < 100 {
			t.Errorf("entity %d had %d turns: %v", 1+id, n, turns)
		}
	}
}

// TestAsideMax: hundreds of entities that fit nothing do not keep the ones behind
// them away for ever, and those that fit another slot keep their place.
func TestAsideMax(t *testing.T) {
	const misfits = 500
	a := awake(t, Config{Quantum: 100, Fits: func(_ int, id core.EntityID) bool { return id > misfits }}, misfits+1)
	held := ids(0)
	for pick := range misfits/AsideMax + 2 {
		held = a.Pick(core.Instant(pick+1), held, nil)
	}
	if held[0] != misfits+1 {
		t.Fatalf("slot is held by %d, want %d", held[0], misfits+1)
	}
	// A slot that nobody fits disturbs the order at the other one not at all.
	a = awake(t, Config{Quantum: 100, Fits: func(slot int, _ core.EntityID) bool { return slot == 1 }}, 300)
	held = ids(0, 0)
	for turn := range core.EntityID(900) {
		held = a.Pick(core.Instant(turn+1), held, nil)
		if want := turn%300 + 1; held[0] != 0 || held[1] != want {
			t.Fatalf("turn %d: got %v, want [0 %d]", turn, held, want)
		}
		if err := a.Charge(held[1], 100); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLostSlot: a holder that does not fit its slot any more goes to another.
func TestLostSlot(t *testing.T) {
	broken := -1
	a := awake(t, Config{Quantum: 100, Fits: func(slot int, _ core.EntityID) bool { return slot != broken }}, 2)
	wantPick(t, a, 1, ids(0, 0, 0), ids(1, 2, 0))
	broken = 0
	wantPick(t, a, 2, ids(1, 2, 0), ids(0, 2, 1))
}

func TestErrors(t *testing.T) {
	for _, c := range []Config{{}, {Quantum: -1}, {Quantum: QuantumMax + 1}, {Quantum: 1, MinRun: 2},
		{Quantum: 1, MinRun: -1}, {Quantum: 1, MovesMax: -1}, {Quantum: 1, Spaces: -1}} {
		if _, err := New(c); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("New(%+v): %v", c, err)
		}
	}
	a := awake(t, Config{Quantum: 1}, 1)
	for _, x := range []struct {
		name      string
		got, want error
	}{
		{"join 0", a.Join(0, low), core.ErrInvalid},
		{"join without priority", a.Join(2, ""), core.ErrInvalid},
		{"join twice", a.Join(1, low), core.ErrExists},
		{"leave", a.Leave(2), core.ErrNotFound},
		{"wake", a.Wake(2), core.ErrNotFound},
		{"idle", a.Idle(2), core.ErrNotFound},
		{"charge", a.Charge(2, 1), core.ErrNotFound},
		{"charge less than nothing", a.Charge(1, -1), core.ErrInvalid},
		{"move", a.Moved(2, 1), core.ErrNotFound},
		{"move in less than nothing", a.Moved(1, -1), core.ErrInvalid},
		{"set priority", a.SetPriority(2, low), core.ErrNotFound},
		{"set priority to nothing", a.SetPriority(1, "urgent"), core.ErrInvalid},
	} {
		if !errors.Is(x.got, x.want) {
			t.Errorf("%s: got %v, want %v", x.name, x.got, x.want)
		}
	}
}
