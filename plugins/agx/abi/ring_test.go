package abi

import (
	"bytes"
	"errors"
	"testing"
)

type words []uint32

func (w words) Load(i uint32) uint32     { return w[i] }
func (w words) Store(i uint32, v uint32) { w[i] = v }

func ring(t *testing.T) (Ring, words) {
	t.Helper()
	state := make(words, StateSize/4)
	r, err := NewRing(state, make([]byte, 4*0x10), 0x10, 4)
	if err != nil {
		t.Fatal(err)
	}
	return r, state
}

func TestRing(t *testing.T) {
	r, state := ring(t)
	s, err := NewSender(r)
	if err != nil {
		t.Fatal(err)
	}
	rx, err := NewReceiver(r)
	if err != nil {
		t.Fatal(err)
	}
	for round := range byte(10) {
		var token uint32
		for i := range byte(3) {
			if token, err = s.Send([]byte{round, i}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Send([]byte{1}); !errors.Is(err, ErrNoRoom) {
			t.Fatalf("a full ring: %v", err)
		}
		if s.Consumed(token) {
			t.Fatal("consumed before it was read")
		}
		for i := range byte(3) {
			if e, err := rx.Receive(); err != nil || !bytes.Equal(e, append([]byte{round, i}, make([]byte, 14)...)) {
				t.Fatalf("entry %x, %v", e, err)
			}
		}
		if e, err := rx.Receive(); e != nil || err != nil || !s.Consumed(token) {
			t.Fatalf("an empty ring: %x, %v", e, err)
		}
	}
	if state[0] != state[8] || state[0] != 30%4 {
		t.Errorf("indices %d %d", state[0], state[8])
	}
}

func TestRingRefusals(t *testing.T) {
	r, state := ring(t)
	s, _ := NewSender(r)
	rx, _ := NewReceiver(r)
	if _, err := s.Send(make([]byte, 0x11)); err == nil {
		t.Error("a long entry was taken")
	}
	state[0], state[8] = 4, 9
	var w *WireError
	if _, err := s.Send(nil); !errors.As(err, &w) {
		t.Errorf("read index out of range: %v", err)
	}
	if _, err := rx.Peek(); !errors.As(err, &w) {
		t.Errorf("write index out of range: %v", err)
	}
	if _, err := NewSender(r); err == nil {
		t.Error("sender on a broken ring")
	}
	if _, err := NewReceiver(r); err == nil {
		t.Error("receiver on a broken ring")
	}
	if _, err := NewRing(state, make([]byte, 10), 0x10, 4); err == nil {
		t.Error("a short ring")
	}
}
