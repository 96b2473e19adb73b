package arbiter

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// FuzzCalls makes arbitrary calls with arbitrary arguments, as a driver in disorder
// would: never a panic, and each Pick keeps its word.
func FuzzCalls(f *testing.F) {
	f.Add([]byte{3, 0, 0, 0, 1, 1, 2, 1, 5, 1, 4, 5, 1, 3, 2, 6, 1, 9, 7, 2, 8, 1, 0, 9, 4, 1, 2})
	f.Add([]byte("\x00\x01\x02\x030000000000000000\x05\x05\x05\x05\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		next := func() byte {
			if len(in) == 0 {
				return 0
			}
			b := in[0]
			in = in[1:]
			return b
		}
		wide := func() int64 {
			var b [8]byte
			n := int(next()) % 9
			for i := range n {
				b[i] = next()
			}
			return int64(binary.LittleEndian.Uint64(b[:]))
		}
		config := Config{Quantum: time.Duration(1 + int(next())), MovesMax: int(next() % 4), Spaces: int(next() % 8)}
		config.MinRun = time.Duration(next()) % (config.Quantum + 1)
		mask := next()
		if mask&1 != 0 {
			config.Fits = func(slot int, id core.EntityID) bool { return mask>>((slot+int(id))%8)&1 == 0 }
		}
		a := mustNew(t, config)
		a.floor = vtime(wide())
		var held []core.EntityID
		for len(in) > 0 {
			op, id := next(), core.EntityID(next()%100)
			var err error
			switch op % 11 {
			case 0:
				err = a.Join(id, core.Priority([]string{"low", "normal", "high", "", "x"}[next()%5]))
			case 1:
				err = a.Leave(id)
			case 2, 3:
				err = a.Wake(id)
			case 4:
				err = a.Idle(id)
			case 5:
				err = a.Charge(id, time.Duration(wide()))
			case 6:
				err = a.Moved(id, time.Duration(wide()))
			case 7:
				err = a.SetPriority(id, priorities[next()%3])
			case 8:
				held = held[:0]
				for range next() % 70 {
					held = append(held, core.EntityID(next()))
				}
			case 9:
				err = a.Share(id, uint64(next()%3))
			default:
				before := append(held[:0:0], held...)
				held = a.Pick(core.Instant(wide()), held, held)
				checkPick(t, a, before, held)
			}
			if err != nil && !errors.Is(err, core.ErrNotFound) && !errors.Is(err, core.ErrExists) && !errors.Is(err, core.ErrInvalid) {
				t.Fatal(err)
			}
			checkBounds(t, a)
		}
	})
}

// checkPick asserts what Pick promises about its answer.
func checkPick(t *testing.T, a *Arbiter, held, want []core.EntityID) {
	t.Helper()
	if len(want) != len(held) {
		t.Fatalf("%d slots, %d answers", len(held), len(want))
	}
	first := map[core.EntityID]int{}
	for s, id := range held {
		e := a.entities[id]
		if _, twice := first[id]; !twice && e != nil && a.fits(s, e) {
			first[id] = s
		}
	}
	seen, grown, preempted := map[core.EntityID]bool{}, false, 0
	free := 0
	for s, id := range want {
		e := a.entities[id]
		if h := a.entities[held[s]]; h != nil && h.id != id && h.runnable && first[h.id] == s && a.fits(s, h) {
			preempted++
		}
		if id == 0 {
			free++
			continue
		}
		if e == nil || seen[id] || e.slot != s || !a.fits(s, e) {
			t.Fatalf("slot %d to entity %d: held %v, want %v", s, id, held, want)
		}
		seen[id] = true
		at, was := first[id]
		grown = grown || !was
		if was && at != s || !was && !e.runnable {
			t.Fatalf("slot %d to entity %d (runnable: %v): held %v, want %v", s, id, e.runnable, held, want)
		}
		if !e.runnable {
			free++
		}
	}
	if most := a.config.MovesMax; most > 0 && preempted > most && a.sharing == 0 {
		t.Fatalf("%d preempted, at most %d: held %v, want %v", preempted, most, held, want)
	}
	if spaces, taken := a.config.Spaces, spacesOf(a, seen); grown && spaces > 0 && taken > spaces && taken > spacesOf(a, first) {
		t.Fatalf("holders of %d address spaces, there are %d", taken, spaces)
	}
	if a.config.Fits == nil && a.config.Spaces == 0 && free > 0 && a.Waiting() > 0 {
		t.Fatalf("%d slots free while %d wait", free, a.Waiting())
	}
}

// spacesOf counts the address spaces of entities.
func spacesOf[T any](a *Arbiter, ids map[core.EntityID]T) int {
	own, shared := 0, map[uint64]bool{}
	for id := range ids {
		if space := a.entities[id].space; space != 0 {
			shared[space] = true
		} else {
			own++
		}
	}
	return own + len(shared)
}

// checkBounds asserts the bounds on virtual time and that the lines are in order.
func checkBounds(t *testing.T, a *Arbiter) {
	t.Helper()
	for id, e := range a.entities {
		if lead := e.v.over(a.floor); e.runnable && (lead < 0 || uint64(lead) > a.debt) {
			t.Fatalf("entity %d leads by %d, at most %d", id, lead, a.debt)
		}
		if waits := e.runnable && e.slot == nowhere; waits != (e.place != nowhere) {
			t.Fatalf("entity %d: runnable %v, slot %d, place %d", id, e.runnable, e.slot, e.place)
		}
	}
	for l := range a.waiting {
		for i, e := range a.waiting[l] {
			if e.place != i || int(e.level) != l || i > 0 && e.before(a.waiting[l][(i-1)/2]) {
				t.Fatalf("line %d is out of order at %d", l, i)
			}
		}
	}
}
