package driver

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// TestSliceRule goes through the rule in slice.go.
func TestSliceRule(t *testing.T) {
	const slice = 50 * time.Millisecond
	r, key := rates{}, rateKey{1}
	expect := func(what string, left, count uint64, cost time.Duration, probe bool) {
		t.Helper()
		if c, d, p := r.plan(key, left, slice); c != count || d != cost || p != probe {
			t.Errorf("%s: %d workgroups, %s, probe %t; want %d, %s, %t", what, c, d, p, count, cost, probe)
		}
	}
	measure := func(count uint64, took time.Duration, tail bool) { r.measure(key, count, took, tail, slice) }
	expect("nothing measured", 1000, 1, slice/2, true)
	measure(1, time.Millisecond, false)
	expect("growing", 1000, 8, 8*time.Millisecond, true)
	measure(8, time.Millisecond, false) // Eight at once took as long as one.
	expect("still growing", 1000, 64, 8*time.Millisecond, true)
	measure(64, 8*time.Millisecond, false)
	expect("half of the target", 1000, 200, 25*time.Millisecond, false)
	expect("what is left", 30, 30, 3750*time.Microsecond, false)
	measure(30, 20*time.Millisecond, true) // Far too short to say something.
	expect("a tail says nothing", 1000, 200, 25*time.Millisecond, false)
	measure(30, 100*time.Millisecond, true)
	expect("a tail that took too long", 1000, 7, 7*100*time.Millisecond/30, false)
	measure(200, 2*time.Second, false)
	expect("ten times slower", 1000, 2, 20*time.Millisecond, false)
	measure(2, 200*time.Millisecond, false)
	expect("longer than the target", 1000, 1, 100*time.Millisecond, false)
	measure(1, 0, false)
	if c, d, _ := r.plan(key, 1<<62, slice); c != 8 || d != 8 {
		t.Errorf("no time at all: %d workgroups, %s", c, d)
	}
	measure(0, time.Hour, false)
	for i := range 2 * ratesMax {
		r.measure(rateKey{2, byte(i)}, 1, time.Second, false, slice)
	}
	if len(r) > ratesMax {
		t.Errorf("%d times are remembered", len(r))
	}
	job := core.JobSpec{Entry: "a", Args: []core.Arg{{Kind: core.ArgU32, Bits: 1}}}
	other := job
	other.Args = []core.Arg{{Kind: core.ArgU32, Bits: 2}}
	same := job
	if rateOf(&job, core.Digest{}) == rateOf(&other, core.Digest{}) || rateOf(&job, core.Digest{}) != rateOf(&same, core.Digest{}) {
		t.Error("times are remembered by kernel, entry point and arguments")
	}
}

// TestSlots: sticky, least recently used, all or nothing.
func TestSlots(t *testing.T) {
	s := newSlots(1, 3)
	var q [4]queue
	take := func(i int, previous, want uint32, fresh bool) {
		t.Helper()
		if free := s.free(); !free {
			t.Errorf("no slot for queue %d", i)
		} else if n, f := s.take(&q[i], previous); n != want || f != fresh {
			t.Errorf("queue %d got slot %d, fresh %t; want %d, %t", i, n, f, want, fresh)
		}
	}
	take(0, 0, 1, true)
	take(1, 0, 2, true)
	take(2, 0, 3, true)
	if s.free() || s.held() != 3 {
		t.Error("a fourth slot of three")
	}
	s.give(2)
	s.give(1)
	if s.holder(2) != nil || s.holder(3) != &q[2] || s.holder(0) != nil || s.holder(99) != nil {
		t.Error("holders")
	}
	take(0, 1, 1, false) // Its own, although another is free for longer.
	take(3, 0, 2, true)
	s.give(2)
	take(1, 2, 2, true) // Somebody had it since.
	if n, had := s.forget(&q[1]); !had || n != 2 {
		t.Error("not forgotten")
	}
	if _, had := s.forget(&q[3]); had {
		t.Error("remembered too long")
	}
}

// TestPrivateState accepts exactly what it makes.
func TestPrivateState(t *testing.T) {
	p := privateState{value: 0xfffff100, slot: 7, counter: 9, eventSeq: 1 << 40}
	b := p.encode()
	if got, err := decodePrivate(b); err != nil || got != p {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, b[:len(b)-1], append([]byte{0}, b[1:]...), append(append(append([]byte{}, b[:4]...), 2), b[5:]...)} {
		if _, err := decodePrivate(bad); err == nil {
			t.Errorf("took %x", bad)
		}
	}
}
