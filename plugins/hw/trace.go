package hw

import "sync"

// TraceLine is one decoded message.
type TraceLine struct {
	// Seq numbers the lines from 1 without gaps; a reader that misses numbers was too slow.
	Seq uint64
	// Kind says which way the message went, in the vendor's words, for instance "H2G".
	Kind string
	Text string
}

// Trace keeps the last messages of a device as the words they were, and decodes
// them for whoever reads. Its methods may be called from any goroutine. A nil
// Trace takes nothing and holds nothing.
type Trace struct {
	mu struct {
		sync.Mutex
		// messages is a ring of fixed length; seq counts what was added.
		messages []traced
		seq      uint64
	}
}

// traced is one message that nobody has read yet.
type traced struct {
	kind   string
	decode func(words []uint32) string
	words  []uint32
}

// NewTrace keeps the last limit messages (at least 1).
func NewTrace(limit int) *Trace {
	t := &Trace{}
	t.mu.messages = make([]traced, max(limit, 1))
	return t
}

// Add takes a copy of a message; the oldest one makes room. decode makes its
// text when somebody reads it.
func (t *Trace) Add(kind string, decode func(words []uint32) string, words ...uint32) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mu.messages[t.mu.seq%uint64(len(t.mu.messages))]
	m.kind, m.decode, m.words = kind, decode, append(m.words[:0], words...)
	t.mu.seq++
}

// Last returns up to n of the newest messages, decoded, oldest first.
func (t *Trace) Last(n int) []TraceLine {
	if t == nil || n <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	size := uint64(len(t.mu.messages))
	held := min(uint64(n), t.mu.seq, size)
	out := make([]TraceLine, 0, held)
	for seq := t.mu.seq - held; seq < t.mu.seq; seq++ {
		m := t.mu.messages[seq%size]
		out = append(out, TraceLine{Seq: seq + 1, Kind: m.kind, Text: m.decode(m.words)})
	}
	return out
}
