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

// Trace keeps the last decoded messages of a device. Its methods may be called
// from any goroutine. A nil Trace takes nothing and holds nothing.
type Trace struct {
	mu struct {
		sync.Mutex
		lines []TraceLine
		seq   uint64
	}
}

// NewTrace keeps the last limit lines (at least 1).
func NewTrace(limit int) *Trace {
	t := &Trace{}
	t.mu.lines = make([]TraceLine, 0, max(limit, 1))
	return t
}

// Add appends a line; the oldest one makes room.
func (t *Trace) Add(kind, text string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.seq++
	line := TraceLine{Seq: t.mu.seq, Kind: kind, Text: text}
	if len(t.mu.lines) < cap(t.mu.lines) {
		t.mu.lines = append(t.mu.lines, line)
		return
	}
	t.mu.lines[(t.mu.seq-1)%uint64(cap(t.mu.lines))] = line
}

// Last returns up to n of the newest lines, oldest first.
func (t *Trace) Last(n int) []TraceLine {
	if t == nil || n <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	held := len(t.mu.lines)
	n = min(n, held)
	out := make([]TraceLine, 0, n)
	for i := uint64(n); i > 0; i-- {
		out = append(out, t.mu.lines[(t.mu.seq-i)%uint64(cap(t.mu.lines))])
	}
	return out
}
