package hw

import (
	"errors"
	"testing"
)

func TestFIFO(t *testing.T) {
	a, err := NewArena(ArenaSizeMin)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r, err := NewRegisters(a, 0, 0x8000)
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewFIFO(r, 0x8900, 3)
	if err != nil {
		t.Fatal(err)
	}
	firmware, err := NewFIFO(r, 0x8900, 3)
	if err != nil {
		t.Fatal(err)
	}
	for round := range uint64(5) {
		for i := range uint64(3) {
			if !host.Put(round<<40|i, ^i) {
				t.Fatalf("round %d: no room for message %d", round, i)
			}
		}
		if host.Put(0, 0) || host.Len() != 3 {
			t.Fatalf("round %d: %d messages in 3 slots", round, host.Len())
		}
		for i := range uint64(3) {
			if msg0, msg1, ok := firmware.Take(); !ok || msg0 != round<<40|i || msg1 != ^i {
				t.Fatalf("round %d: message %d is %#x %#x %t", round, i, msg0, msg1, ok)
			}
		}
		if _, _, ok := firmware.Take(); ok {
			t.Fatalf("round %d: something is left", round)
		}
	}
	host.Put(1, 1)
	firmware.Clear()
	if host.Len() != 0 {
		t.Error("something is left after Clear")
	}
	// Counters of the other side are not believed.
	r.Store(0x8920, 0xFFFFFFFF)
	if firmware.Len() > 3 {
		t.Errorf("%d messages", firmware.Len())
	}
}

func TestFIFORefusals(t *testing.T) {
	a, err := NewArena(ArenaSizeMin)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	r, err := NewRegisters(a, 0x8000)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ offset, slots uint32 }{{0x8000, 0}, {0x8004, 1}, {0x8ff0, 1}, {0x8000, 1 << 20}, {0x8000, 1 << 31}, {0x100, 1}} {
		if _, err := NewFIFO(r, c.offset, c.slots); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d slots at %#x: %v", c.slots, c.offset, err)
		}
	}
}
