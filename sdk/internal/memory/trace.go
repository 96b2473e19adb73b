package memory

import (
	"sync"

	"github.com/gpuwm/gpuwm/core"
)

// trace keeps the last lines of what the entities of a device were asked to run.
type trace struct {
	keep int
	mu   struct {
		sync.Mutex
		lines []core.TraceLine
		last  uint64
		more  chan struct{}
	}
}

func newTrace(keep int) *trace {
	t := &trace{keep: keep}
	t.mu.more = make(chan struct{})
	return t
}

// add keeps a line; nil keeps nothing.
func (t *trace) add(kind, text string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.last++
	t.mu.lines = append(t.mu.lines, core.TraceLine{Number: t.mu.last, Kind: kind, Text: text})
	if over := len(t.mu.lines) - t.keep; over > 0 {
		t.mu.lines = t.mu.lines[over:]
	}
	close(t.mu.more)
	t.mu.more = make(chan struct{})
}

// traced is a device that is an sdk.Tracer.
type traced struct{ *device }

// Trace implements sdk.Tracer.
func (d traced) Trace(after uint64) ([]core.TraceLine, <-chan struct{}) {
	t := d.trace
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []core.TraceLine
	for _, line := range t.mu.lines {
		if line.Number > after {
			lines = append(lines, line)
		}
	}
	return lines, t.mu.more
}
