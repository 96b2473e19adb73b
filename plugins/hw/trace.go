package hw

import (
	"fmt"
	"sync"
	"time"
)

// TraceLine is one decoded message, change of a state, or interrupt.
type TraceLine struct {
	// Seq numbers the lines from 1 without gaps; a reader that misses numbers was too slow.
	Seq uint64
	// At is when it happened on the device's clock.
	At time.Duration
	// Kind says what it is or which way it went, in the vendor's words, for instance "H2G".
	Kind string
	Text string
}

// String is the line as a person reads it: number, time, kind, text.
func (l TraceLine) String() string { return fmt.Sprintf("%d %s %s %s", l.Seq, l.At, l.Kind, l.Text) }

// Trace keeps the last messages of a device as the words they were, and decodes
// them for whoever reads. Its methods may be called from any goroutine. A nil
// Trace takes nothing and holds nothing.
type Trace struct {
	mu struct {
		sync.Mutex
		// messages is a ring of fixed length; seq counts what was added.
		messages []traced
		seq      uint64
		// more is closed with the next line; nil when nobody waits.
		more chan struct{}
	}
}

// traced is one message that nobody has read yet.
type traced struct {
	at     time.Duration
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
// text, one line, when somebody reads it, on the reader's goroutine.
func (t *Trace) Add(at time.Duration, kind string, decode func(words []uint32) string, words ...uint32) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := &t.mu.messages[t.mu.seq%uint64(len(t.mu.messages))]
	m.at, m.kind, m.decode, m.words = at, kind, decode, append(m.words[:0], words...)
	t.mu.seq++
	if t.mu.more != nil {
		close(t.mu.more)
		t.mu.more = nil
	}
}

// Last returns up to n of the newest lines, oldest first.
func (t *Trace) Last(n int) []TraceLine {
	if t == nil || n <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines(t.mu.seq-min(uint64(n), t.mu.seq), uint64(n))
}

// Since returns up to n lines after number seq, oldest first. When the first of
// them is not seq+1, those between were dropped.
func (t *Trace) Since(seq uint64, n int) []TraceLine {
	if t == nil || n <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lines(seq, uint64(n))
}

// lines returns up to n lines after number seq that are still held; the caller holds the lock.
func (t *Trace) lines(seq, n uint64) []TraceLine {
	size := uint64(len(t.mu.messages))
	seq = max(seq, t.mu.seq-min(t.mu.seq, size))
	if seq >= t.mu.seq {
		return nil
	}
	n = min(n, t.mu.seq-seq)
	out := make([]TraceLine, 0, n)
	for ; n > 0; n-- {
		m := t.mu.messages[seq%size]
		seq++
		out = append(out, TraceLine{Seq: seq, At: m.at, Kind: m.kind, Text: m.decode(m.words)})
	}
	return out
}

// closed is what Changed returns when there is something to read.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Changed returns a channel that is closed as soon as there is a line after
// number seq. A follower calls Since, and then Changed with the last number it saw.
func (t *Trace) Changed(seq uint64) <-chan struct{} {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mu.seq > seq {
		return closed
	}
	if t.mu.more == nil {
		t.mu.more = make(chan struct{})
	}
	return t.mu.more
}
