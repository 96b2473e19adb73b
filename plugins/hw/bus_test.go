package hw

import (
	"errors"
	"runtime"
	"sync"
	"testing"
)

func newBus(t *testing.T) *Registers {
	t.Helper()
	a, err := NewArena(ArenaSizeMin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	r, err := NewRegisters(a, 0x1000, 0x80000)
	if err != nil {
		t.Fatal(err)
	}
	r.Interrupts([4]uint32{0x1000, 0x1004, 0x1008, 0x100C}).Commands([3]uint32{0x1018, 0x1028, 1})
	return r
}

func TestInterruptBlock(t *testing.T) {
	r := newBus(t)
	r.Interrupts([4]uint32{0x1000, 0x1004, 0x1008, 0x100C})
	if len(r.bus.interrupts) != 1 {
		t.Error("a rule was added twice")
	}
	r.Store(0x1008, 0b0110)
	r.Set(0x1000, 0b0011)
	r.Set(0x1000, 0b1000)
	if r.Load(0x1000) != 0b1011 || r.Load(0x100C) != 0b0010 {
		t.Errorf("raw %04b, status %04b", r.Load(0x1000), r.Load(0x100C))
	}
	r.Store(0x1004, 0b0010)
	if r.Load(0x1000) != 0b1001 || r.Load(0x1004) != 0 || r.Load(0x100C) != 0 {
		t.Errorf("raw %04b, clear %04b, status %04b", r.Load(0x1000), r.Load(0x1004), r.Load(0x100C))
	}
}

// TestCommandIsBusyUntilItEnds: at no moment is a command known to neither register.
func TestCommandIsBusyUntilItEnds(t *testing.T) {
	const command, status = 0x1018, 0x1028
	r := newBus(t)
	busy := func(when string, want uint32) {
		t.Helper()
		if have := r.Load(status); have != want {
			t.Errorf("%s: status %#x, want %#x", when, have, want)
		}
	}
	r.Store(status, 0xA0)
	if cmd := r.Begin(command); cmd != 0 {
		t.Errorf("command %d from nobody", cmd)
	}
	r.Store(command, 0)
	busy("no command", 0xA0)
	r.Store(command, 5)
	busy("stored", 0xA1)
	if cmd := r.Begin(command); cmd != 5 {
		t.Errorf("command %d, want 5", cmd)
	}
	busy("begun", 0xA1)
	if cmd := r.Begin(command); cmd != 0 {
		t.Errorf("command %d came twice", cmd)
	}
	r.Store(command, 6) // By a host that does not wait.
	r.Clear(status, 1)
	busy("the first ended, the second waits", 0xA1)
	if cmd := r.Begin(command); cmd != 6 {
		t.Errorf("command %d, want 6", cmd)
	}
	r.Clear(status, 1)
	busy("both ended", 0xA0)
	r.Store(status+4, 7)
	if cmd := r.Begin(status + 4); cmd != 0 {
		t.Errorf("command %d from a register that takes none", cmd)
	}
}

// TestNoCommandIsMissed: a host that waits for the end of each command finds it done.
func TestNoCommandIsMissed(t *testing.T) {
	const command, status, done, rounds = 0x1018, 0x1028, 0x1030, 100_000
	r := newBus(t)
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			cmd := r.Begin(command)
			if cmd == 0 {
				runtime.Gosched()
				continue
			}
			r.Store(done, cmd)
			r.Clear(status, 1)
			if cmd == rounds {
				return
			}
		}
	}()
	for n := uint32(1); n <= rounds; n++ {
		r.Store(command, n)
		for r.Load(status) != 0 {
			runtime.Gosched()
		}
		if have := r.Load(done); have != n {
			t.Errorf("command %d has ended, %d was done", n, have)
			r.Store(command, rounds)
			break
		}
	}
	wg.Wait()
}

func TestRow(t *testing.T) {
	r := newBus(t)
	if err := r.Row(0x80000, 0x10000, 32); err != nil {
		t.Fatal(err)
	}
	r.Store(0x80000+3*0x10000, 7)
	if r.Load(0x8000C) != 7 || r.Take(0xB0000) != 7 || r.Load(0xB0000) != 0 {
		t.Error("doorbell 3 is not the fourth word")
	}
	if r.Load(0x80000+32*0x10000) != 0xFFFFFFFF || r.Load(0xB0004) != 0xFFFFFFFF {
		t.Error("a register beyond the row answered")
	}
	for _, bad := range [][3]uint32{{0, 8, 4}, {0, 0x1000, 2000}, {0xFFFFF000, 0x1000, 2}} {
		if err := r.Row(bad[0], bad[1], bad[2]); !errors.Is(err, ErrInvalid) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

// TestNothingIsLostBetweenSetAndTake: one side sets bits, the other clears and takes.
func TestNothingIsLostBetweenSetAndTake(t *testing.T) {
	r := newBus(t)
	const rounds = 20_000
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for range rounds {
			r.Set(0x1000, 1<<31)
			r.Store(0x1010, r.Load(0x1010)+1)
		}
	}()
	for range rounds {
		r.Set(0x1000, 1)
		r.Store(0x1004, 1)
	}
	wg.Wait()
	if r.Load(0x1000) != 1<<31 || r.Load(0x1010) != rounds {
		t.Errorf("raw %#x, count %d", r.Load(0x1000), r.Load(0x1010))
	}
	for _, offset := range []uint32{0x2000, 0x1002} {
		r.Set(offset, 1)
		r.Clear(offset, 1)
		if r.Take(offset) != 0 {
			t.Errorf("something at %#x", offset)
		}
	}
}
