package abi

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// memory is private memory that behaves as shared memory does.
type memory []uint32

func (m memory) Load(i uint32) uint32 { return m[i] }
func (m memory) Store(i, v uint32)    { m[i] = v }

func newTestRing(t interface{ Fatal(...any) }) Ring {
	r, err := NewRing(make(memory, DescriptorDwords), make(memory, 1024), 4096)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ends(t interface{ Fatal(...any) }, r Ring) (*Sender, *Receiver) {
	s, err := NewSender(r)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewReceiver(r)
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

// TestRingKeepsMessages compares the ring with a queue, padded and wrapped.
func TestRingKeepsMessages(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ring := newTestRing(t)
		sender, receiver := ends(t, ring)
		sender.Wrap = rapid.Bool().Draw(t, "wrap")
		var queue [][]uint32
		next := uint32(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") < 2 {
				message := make([]uint32, rapid.IntRange(1, DwordsMax).Draw(t, "dwords"))
				for i := range message {
					message[i] = next // Zeroes inside messages are no NOPs.
					next++
				}
				room, err := sender.Room(len(message))
				if err != nil {
					t.Fatal(err)
				}
				err = sender.Send(Fence(len(message)), message)
				if room != (err == nil) || err != nil && !errors.Is(err, ErrNoRoom) {
					t.Fatalf("room %t, send: %v", room, err)
				}
				if err == nil {
					queue = append(queue, message)
				}
				continue
			}
			fence, got, ok, err := receiver.Receive()
			if err != nil || ok != (len(queue) > 0) {
				t.Fatalf("received %t, %v, with %d in the queue", ok, err, len(queue))
			}
			if ok {
				if !slices.Equal(got, queue[0]) || int(fence) != len(queue[0]) {
					t.Fatalf("received %d: %x, want %x", fence, got, queue[0])
				}
				queue = queue[1:]
			}
		}
		for range queue {
			if _, _, ok, err := receiver.Receive(); !ok || err != nil {
				t.Fatalf("a message is missing: %v", err)
			}
		}
		if _, _, ok, _ := receiver.Receive(); ok || !sender.Idle() {
			t.Fatal("the drained ring is not idle")
		}
	})
}

func TestRingBreaks(t *testing.T) {
	cases := []struct {
		name   string
		damage func(Ring)
		status Status
	}{
		{"tail out of range", func(r Ring) { r.Desc.Store(DescTail, 1024) }, StatusOverflow},
		{"head altered", func(r Ring) { r.Desc.Store(DescHead, 5) }, StatusMismatch},
		{"cut message", func(r Ring) { r.Buffer.Store(0, 9); r.Desc.Store(DescTail, 3) }, StatusUnderflow},
		{"empty message", func(r Ring) { r.Buffer.Store(0, 0x80010000); r.Desc.Store(DescTail, 3) }, StatusUnderflow},
		{"other format", func(r Ring) { r.Buffer.Store(0, 0x1001); r.Desc.Store(DescTail, 3) }, StatusUnderflow},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ring := newTestRing(t)
			_, receiver := ends(t, ring)
			c.damage(ring)
			_, _, ok, err := receiver.Receive()
			if _, typed := err.(*WireError); ok || !typed || ring.Status() != c.status {
				t.Fatalf("received %t, %v, status %#x, want %#x", ok, err, ring.Status(), c.status)
			}
			if _, _, ok, err := receiver.Receive(); ok || err == nil {
				t.Fatal("a broken ring was read on")
			}
		})
	}
	t.Run("sender", func(t *testing.T) {
		ring := newTestRing(t)
		sender, _ := ends(t, ring)
		ring.Desc.Store(DescTail, 8)
		if err := sender.Send(1, []uint32{1}); err == nil || ring.Status() != StatusMismatch {
			t.Fatalf("%v, status %#x", err, ring.Status())
		}
	})
	t.Run("disabled is tolerated by a reader", func(t *testing.T) {
		ring := newTestRing(t)
		sender, receiver := ends(t, ring)
		if err := sender.Send(1, []uint32{1}); err != nil {
			t.Fatal(err)
		}
		ring.Mark(StatusDisabled)
		if _, _, ok, err := receiver.Receive(); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := sender.Send(1, []uint32{1}); err == nil {
			t.Fatal("sent into a disabled ring")
		}
	})
	for _, size := range []uint32{0, 1024, 4095, 12288} {
		if _, err := NewRing(nil, nil, size); err == nil {
			t.Errorf("a ring of %d bytes was accepted", size)
		}
	}
}

func TestSpace(t *testing.T) {
	if got := Space(0, 0, 1024); got != 1023 {
		t.Errorf("empty ring has room for %d, want 1023", got)
	}
	if got := Space(9, 10, 1024); got != 0 {
		t.Errorf("full ring has room for %d", got)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(pack([]uint32{0x80010003, 0x20001001, 7, 1}), uint32(0), uint32(4))
	f.Fuzz(func(t *testing.T, raw []byte, head, tail uint32) {
		ring := newTestRing(t)
		for i, dw := range unpack(raw) {
			ring.Buffer.Store(uint32(i)%1024, dw)
		}
		ring.Desc.Store(DescHead, head)
		ring.Desc.Store(DescTail, tail)
		receiver, err := NewReceiver(ring)
		for range 2000 {
			if err != nil {
				return
			}
			var ok bool
			if _, _, ok, err = receiver.Receive(); !ok && err == nil {
				return
			}
		}
		t.Fatal("a ring of 1024 dwords holds no 2000 messages")
	})
}

func TestJobProgram(t *testing.T) {
	for _, job := range []JobProgram{{LRC: 0x10000, Seqno: FirstSeqno, Batch: 0x1_0000_0100}, {LRC: 0xFF000000, Seqno: 5, Skip: true}} {
		dw := job.Append(nil)
		if len(dw) != JobDwords || len(dw)*4%RingTailAlign != 0 {
			t.Fatalf("program of %d dwords", len(dw))
		}
		if back, err := DecodeJobProgram(dw); err != nil || back != job {
			t.Errorf("%+v came back as %+v, %v", job, back, err)
		}
		var ops []Opcode
		for rest := dw; len(rest) > 0; {
			c, n, err := DecodeCommand(rest)
			if err != nil {
				t.Fatal(err)
			}
			ops, rest = append(ops, c.Op), rest[n:]
		}
		batch := []Opcode{OpBatchStart}
		if job.Skip {
			batch = []Opcode{OpNoop, OpNoop, OpNoop}
		}
		want := slices.Concat([]Opcode{OpStoreRegister, OpStoreDataImm}, batch,
			[]Opcode{OpArbOnOff, OpFlush, OpUserInterrupt, OpArbOnOff, OpArbCheck, OpNoop})
		if !slices.Equal(ops, want) {
			t.Errorf("commands %v, want %v", ops, want)
		}
		for i := range dw {
			damaged := slices.Clone(dw)
			damaged[i] ^= 0x8000_0002
			if got, err := DecodeJobProgram(damaged); err == nil && got == job {
				t.Errorf("damage in dword %d is not seen", i)
			}
		}
	}
	if Passed(FirstSeqno, 1) || !Passed(1, FirstSeqno) || !Passed(3, 3) {
		t.Error("seqnos do not wrap")
	}
}
