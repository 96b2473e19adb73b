package hw

import "fmt"

// FIFO is a bounded queue of messages of two 64-bit words, what stands behind a
// mailbox. It lies in a register window, so that the sides may be two processes:
//
//	offset size  field
//	0x00   4     messages taken, by the receiver
//	0x20   4     messages put, by the sender
//	0x40   16×n  messages
//
// Both counters run modulo twice the slots. Each side is one goroutine. A line of the Ports tells
// the other side that there is something.
type FIFO struct {
	counters Words
	messages Words
	slots    uint32
}

const (
	fifoTaken    = 0
	fifoPut      = 0x20 / 4
	fifoMessages = 0x40
	fifoMessage  = 16
)

// NewFIFO places a queue of slots messages at the vendor's register offset; it
// must fit into the window. Errors wrap ErrInvalid.
func NewFIFO(r *Registers, offset, slots uint32) (*FIFO, error) {
	size := uint64(fifoMessages) + uint64(slots)*fifoMessage
	first, ok := r.address(offset)
	if last, fits := r.address(uint32(uint64(offset) + size - 4)); slots == 0 || offset%8 != 0 || !ok || !fits || last-first != size-4 {
		return nil, fmt.Errorf("fifo of %d messages at register %#x: %w", slots, offset, ErrInvalid)
	}
	counters, err := r.arena.Words(first, fifoMessages/4)
	if err != nil {
		return nil, err
	}
	messages, err := r.arena.Words(first+fifoMessages, slots*fifoMessage/4)
	if err != nil {
		return nil, err
	}
	return &FIFO{counters: counters, messages: messages, slots: slots}, nil
}

// counter reads a counter, in range whatever the memory says.
func (f *FIFO) counter(word uint32) uint32 { return f.counters.Load(word) % (2 * f.slots) }

// Len returns how many messages wait; at most the slots, whatever the memory says.
func (f *FIFO) Len() uint32 {
	return min((f.counter(fifoPut)+2*f.slots-f.counter(fifoTaken))%(2*f.slots), f.slots)
}

// Put adds a message; false means that the queue is full and nothing happened.
func (f *FIFO) Put(msg0, msg1 uint64) bool {
	if f.Len() == f.slots {
		return false
	}
	put := f.counter(fifoPut)
	at := put % f.slots * (fifoMessage / 4)
	for i, v := range [...]uint32{uint32(msg0), uint32(msg0 >> 32), uint32(msg1), uint32(msg1 >> 32)} {
		f.messages.Store(at+uint32(i), v)
	}
	f.counters.Store(fifoPut, (put+1)%(2*f.slots))
	return true
}

// Take removes the oldest message; false means that there is none.
func (f *FIFO) Take() (msg0, msg1 uint64, ok bool) {
	if f.Len() == 0 {
		return 0, 0, false
	}
	taken := f.counter(fifoTaken)
	at := taken % f.slots * (fifoMessage / 4)
	word := func(i uint32) uint64 { return uint64(f.messages.Load(at + i)) }
	msg0, msg1 = word(0)|word(1)<<32, word(2)|word(3)<<32
	f.counters.Store(fifoTaken, (taken+1)%(2*f.slots))
	return msg0, msg1, true
}

// Clear throws everything away. The receiver calls it.
func (f *FIFO) Clear() { f.counters.Store(fifoTaken, f.counters.Load(fifoPut)) }
