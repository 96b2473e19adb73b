package abi

// Words is a piece of memory that the other side reads and writes too. Load
// and Store take the index of a 32-bit word, are atomic, and order the accesses
// around them (acquire and release). The caller guarantees the size.
type Words interface {
	Load(index uint32) uint32
	Store(index, value uint32)
}

// A channel's state block: two indices, each in a cache line of its own.
//
//	0x00  read index, written by the reader
//	0x20  write index, written by the writer
//
// Indices count entries modulo the ring's length. Equal means empty; a full ring
// has one entry free. (FwCtl has 0x10 in place of 0x20; not modelled.)
const (
	StateSize      = 0x30
	stateReadWord  = 0
	stateWriteWord = 0x20 / 4
)

// RingEntries is the length of all rings but KTrace's, which has KTraceEntries.
const (
	RingEntries   = 0x100
	KTraceEntries = 0x200
	KTraceEntry   = 0x38
	FwCtlEntry    = 0x14
)

// Ring is one channel: state block, entries, and their size in bytes.
type Ring struct {
	State Words
	// Entries holds EntrySize × Count bytes.
	Entries          []byte
	EntrySize, Count uint32
}

// NewRing checks the sizes. Errors are *WireError.
func NewRing(state Words, entries []byte, entrySize, count uint32) (Ring, error) {
	if entrySize == 0 || count < 2 || uint64(len(entries)) < uint64(entrySize)*uint64(count) {
		return Ring{}, wire("ring", "%d bytes for %d entries of %d", len(entries), count, entrySize)
	}
	return Ring{State: state, Entries: entries, EntrySize: entrySize, Count: count}, nil
}

// Indices returns the read and the write index as they are now.
func (r Ring) Indices() (read, write uint32) {
	return r.State.Load(stateReadWord), r.State.Load(stateWriteWord)
}

func (r Ring) entry(i uint32) []byte {
	at := uint64(i) * uint64(r.EntrySize)
	return r.Entries[at : at+uint64(r.EntrySize)]
}

// Sender is the writing end of a ring, for one goroutine.
type Sender struct {
	ring  Ring
	write uint32
}

// NewSender starts at the ring's present write index. Errors are *WireError.
func NewSender(r Ring) (*Sender, error) {
	_, write := r.Indices()
	if write >= r.Count {
		return nil, wire("ring", "write index %d of %d", write, r.Count)
	}
	return &Sender{ring: r, write: write}, nil
}

// Full reports whether Send would find no room. An index that is out of range is
// an error (*WireError).
func (s *Sender) Full() (bool, error) {
	read, _ := s.ring.Indices()
	if read >= s.ring.Count {
		return true, wire("ring", "read index %d of %d", read, s.ring.Count)
	}
	return (s.write+1)%s.ring.Count == read, nil
}

// Send writes an entry, padded with zeroes, and publishes it. It returns the
// write index after it, by which Consumed knows it. Errors are ErrNoRoom, or a
// *WireError when the entry is too long or the reader's index out of range.
func (s *Sender) Send(entry []byte) (token uint32, err error) {
	if uint64(len(entry)) > uint64(s.ring.EntrySize) {
		return 0, wire("ring", "entry of %d bytes, at most %d", len(entry), s.ring.EntrySize)
	}
	full, err := s.Full()
	if err != nil {
		return 0, err
	}
	if full {
		return 0, ErrNoRoom
	}
	to := s.ring.entry(s.write)
	clear(to[copy(to, entry):])
	s.write = (s.write + 1) % s.ring.Count
	s.ring.State.Store(stateWriteWord, s.write)
	return s.write, nil
}

// Consumed reports whether the reader has taken exactly everything up to the
// entry that token stands for. It is exact only while nothing was sent after it.
func (s *Sender) Consumed(token uint32) bool {
	read, _ := s.ring.Indices()
	return read == token
}

// Receiver is the reading end of a ring, for one goroutine.
type Receiver struct {
	ring  Ring
	read  uint32
	entry []byte
}

// NewReceiver starts at the ring's present read index. Errors are *WireError.
func NewReceiver(r Ring) (*Receiver, error) {
	read, _ := r.Indices()
	if read >= r.Count {
		return nil, wire("ring", "read index %d of %d", read, r.Count)
	}
	return &Receiver{ring: r, read: read, entry: make([]byte, r.EntrySize)}, nil
}

// Peek returns the next entry and leaves it in the ring; nil when there is none.
// It is valid until the next call. Errors are *WireError when the writer's index
// is out of range.
func (r *Receiver) Peek() ([]byte, error) {
	_, write := r.ring.Indices()
	if write >= r.ring.Count {
		return nil, wire("ring", "write index %d of %d", write, r.ring.Count)
	}
	if write == r.read {
		return nil, nil
	}
	copy(r.entry, r.ring.entry(r.read))
	return r.entry, nil
}

// Consume takes the entry that Peek returned out of the ring.
func (r *Receiver) Consume() {
	r.read = (r.read + 1) % r.ring.Count
	r.ring.State.Store(stateReadWord, r.read)
}

// Receive is Peek and Consume in one.
func (r *Receiver) Receive() ([]byte, error) {
	entry, err := r.Peek()
	if entry != nil {
		r.Consume()
	}
	return entry, err
}
