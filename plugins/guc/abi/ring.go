package abi

// Words is a piece of memory that the other side reads and writes too. Load
// and Store take the index of a dword, are atomic, and order the accesses
// around them (acquire and release). The caller guarantees the size.
type Words interface {
	Load(index uint32) uint32
	Store(index, value uint32)
}

// Status holds the STATUS bits of a CTB descriptor. A bit that is set stays set.
type Status uint32

// The status bits.
const (
	// StatusOverflow: HEAD or TAIL is out of range.
	StatusOverflow Status = 1
	// StatusUnderflow: a message is cut short or has a bad header.
	StatusUnderflow Status = 2
	// StatusMismatch: the other side changed a pointer that is not its own.
	StatusMismatch Status = 4
	// StatusDisabled: the firmware has stopped; a reader tolerates it.
	StatusDisabled Status = 8
)

// The CTB descriptor: 16 dw.
//
//	0     HEAD    next dword to read; written by the receiver only
//	1     TAIL    next dword to write; written by the sender only
//	2     STATUS  either side, on error
//	3..15 reserved, 0
const (
	DescriptorDwords = 16
	DescHead         = 0
	DescTail         = 1
	DescStatus       = 2
)

// CTBSizeUnit is what CTB sizes in bytes are multiples of.
const CTBSizeUnit = 4096

// Space returns how many dwords can be written into a ring of size dwords, a
// power of two: never all of them, because equal pointers mean empty.
func Space(tail, head, size uint32) uint32 { return (head - tail - 1) & (size - 1) }

// Ring is one CTB as registered: descriptor, buffer, and its size in dwords,
// which is a power of two.
type Ring struct {
	Desc, Buffer Words
	Dwords       uint32
}

// NewRing checks the size, in bytes: a power of two and a multiple of CTBSizeUnit.
func NewRing(desc, buffer Words, sizeBytes uint32) (Ring, error) {
	if sizeBytes == 0 || sizeBytes%CTBSizeUnit != 0 || sizeBytes&(sizeBytes-1) != 0 {
		return Ring{}, wire(ErrorInvalidSize, "ctb of %d bytes", sizeBytes)
	}
	return Ring{Desc: desc, Buffer: buffer, Dwords: sizeBytes / 4}, nil
}

// Clear zeroes the descriptor, before the ring is registered.
func (r Ring) Clear() {
	for i := range uint32(DescriptorDwords) {
		r.Desc.Store(i, 0)
	}
}

// Status reads the status bits.
func (r Ring) Status() Status { return Status(r.Desc.Load(DescStatus)) }

// Mark sets status bits.
func (r Ring) Mark(s Status) { r.Desc.Store(DescStatus, uint32(r.Status()|s)) }

// Sender is the writing end of a ring, for one goroutine.
type Sender struct {
	ring  Ring
	tail  uint32
	space uint32
	// Wrap lets a message wrap at the end of the ring; otherwise the end is
	// filled with zeroes and the message starts at 0.
	Wrap bool
}

// NewSender starts at the ring's present TAIL, which is range-checked.
func NewSender(r Ring) (*Sender, error) {
	s := &Sender{ring: r, tail: r.Desc.Load(DescTail)}
	if s.tail >= r.Dwords {
		return nil, broken(StatusOverflow, "ctb tail %d of %d", s.tail, r.Dwords)
	}
	return s, s.refresh()
}

// Lose writes another TAIL into the descriptor than the sender's own. It is for
// emulators that inject faults.
func (s *Sender) Lose(tail uint32) { s.ring.Desc.Store(DescTail, tail) }

// Tail is the next dword to write.
func (s *Sender) Tail() uint32 { return s.tail }

// Idle reports whether the other side has read everything.
func (s *Sender) Idle() bool { return s.ring.Desc.Load(DescHead) == s.tail }

// Send writes header and HXG message and publishes them. ErrNoRoom means that
// nothing (or only padding) was written; a *WireError that the ring is broken:
// its Status was set in the descriptor, and every later Send refuses.
func (s *Sender) Send(fence Fence, hxg []uint32) error {
	if len(hxg) == 0 || len(hxg) > DwordsMax {
		return wire(ErrorTooLarge, "ctb message of %d dwords", len(hxg))
	}
	return s.write(CTBHeader{Fence: fence, Dwords: uint8(len(hxg))}.Encode(), hxg)
}

// SendRaw is Send for a message whose header dword is taken as it is, right or
// wrong. It is for emulators that inject faults.
func (s *Sender) SendRaw(header uint32, hxg []uint32) error {
	if len(hxg) > DwordsMax {
		return wire(ErrorTooLarge, "ctb message of %d dwords", len(hxg))
	}
	return s.write(header, hxg)
}

func (s *Sender) write(header uint32, hxg []uint32) error {
	if status := s.ring.Status(); status != 0 {
		return broken(0, "ctb status %#x", status)
	}
	if tail := s.ring.Desc.Load(DescTail); tail != s.tail {
		return s.breaks(broken(StatusMismatch, "ctb tail %d, want %d", tail, s.tail))
	}
	need, left := uint32(len(hxg)+1), s.ring.Dwords-s.tail
	if !s.Wrap && need > left {
		if ok, err := s.reserve(left); !ok {
			return err
		}
		for i := s.tail; i < s.ring.Dwords; i++ {
			s.ring.Buffer.Store(i, 0)
		}
		s.tail, s.space = 0, s.space-left
		s.ring.Desc.Store(DescTail, 0)
	}
	if ok, err := s.reserve(need); !ok {
		return err
	}
	mask := s.ring.Dwords - 1
	s.ring.Buffer.Store(s.tail, header)
	for i, dw := range hxg {
		s.ring.Buffer.Store((s.tail+1+uint32(i))&mask, dw)
	}
	s.tail, s.space = (s.tail+need)&mask, s.space-need
	s.ring.Desc.Store(DescTail, s.tail)
	return nil
}

// Mark sets status bits in the descriptor; every later Send refuses.
func (s *Sender) Mark(status Status) { s.ring.Mark(status) }

// Room reports whether a message of so many HXG dwords would fit now.
func (s *Sender) Room(dwords int) (bool, error) {
	need := uint32(dwords) + 1
	if left := s.ring.Dwords - s.tail; !s.Wrap && need > left {
		need += left
	}
	ok, err := s.reserve(need)
	if err == ErrNoRoom {
		err = nil
	}
	return ok, err
}

// reserve re-reads HEAD only when the cached space is short.
func (s *Sender) reserve(need uint32) (bool, error) {
	if s.space < need {
		if err := s.refresh(); err != nil {
			return false, err
		}
	}
	if s.space < need {
		return false, ErrNoRoom
	}
	return true, nil
}

func (s *Sender) refresh() error {
	head := s.ring.Desc.Load(DescHead)
	if head >= s.ring.Dwords {
		return s.breaks(broken(StatusOverflow, "ctb head %d of %d", head, s.ring.Dwords))
	}
	s.space = Space(s.tail, head, s.ring.Dwords)
	return nil
}

func (s *Sender) breaks(err *WireError) error {
	s.ring.Mark(err.Status)
	return err
}

// Receiver is the reading end of a ring, for one goroutine.
type Receiver struct {
	ring Ring
	head uint32
	hxg  [DwordsMax]uint32
}

// NewReceiver starts at the ring's present HEAD, which is range-checked.
func NewReceiver(r Ring) (*Receiver, error) {
	head := r.Desc.Load(DescHead)
	if head >= r.Dwords {
		return nil, broken(StatusOverflow, "ctb head %d of %d", head, r.Dwords)
	}
	return &Receiver{ring: r, head: head}, nil
}

// Lose writes another HEAD into the descriptor than the receiver's own. It is for
// emulators that inject faults.
func (r *Receiver) Lose(head uint32) { r.ring.Desc.Store(DescHead, head) }

// Head is the next dword to read.
func (r *Receiver) Head() uint32 { return r.head }

// Receive takes the next message; ok is false when there is none. It skips
// NOPs, takes padded and wrapped messages, and moves HEAD. hxg is valid until
// the next call. A *WireError means that the ring is broken: the status is set
// in the descriptor, HEAD stays, and every later Receive refuses.
func (r *Receiver) Receive() (fence Fence, hxg []uint32, ok bool, err error) {
	if status := r.ring.Status() &^ StatusDisabled; status != 0 {
		return 0, nil, false, broken(0, "ctb status %#x", status)
	}
	if head := r.ring.Desc.Load(DescHead); head != r.head {
		return 0, nil, false, r.breaks(broken(StatusMismatch, "ctb head %d, want %d", head, r.head))
	}
	tail, mask := r.ring.Desc.Load(DescTail), r.ring.Dwords-1
	if tail >= r.ring.Dwords {
		return 0, nil, false, r.breaks(broken(StatusOverflow, "ctb tail %d of %d", tail, r.ring.Dwords))
	}
	head := r.head
	for head != tail {
		dw := r.ring.Buffer.Load(head)
		if dw == 0 {
			head = (head + 1) & mask
			continue
		}
		header, err := DecodeCTBHeader(dw)
		available := (tail - head) & mask
		switch {
		case err != nil:
			return 0, nil, false, r.breaks(err.(*WireError))
		case header.Dwords == 0 || uint32(header.Dwords)+1 > available:
			return 0, nil, false, r.breaks(broken(StatusUnderflow, "ctb message of %d dwords, %d available", header.Dwords, available-1))
		}
		for i := range uint32(header.Dwords) {
			r.hxg[i] = r.ring.Buffer.Load((head + 1 + i) & mask)
		}
		r.advance((head + 1 + uint32(header.Dwords)) & mask)
		return header.Fence, r.hxg[:header.Dwords], true, nil
	}
	if head != r.head {
		r.advance(head)
	}
	return 0, nil, false, nil
}

// Mark sets status bits in the descriptor; every later Receive refuses, but for StatusDisabled.
func (r *Receiver) Mark(status Status) { r.ring.Mark(status) }

func (r *Receiver) advance(head uint32) {
	r.head = head
	r.ring.Desc.Store(DescHead, head)
}

func (r *Receiver) breaks(err *WireError) error {
	r.ring.Mark(err.Status)
	return err
}
