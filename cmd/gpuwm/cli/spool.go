package cli

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	// spoolMax bounds the bytes that wait for a reader.
	spoolMax = 1 << 20
	// spoolFlush bounds how long the end of a run waits for the reader.
	spoolFlush = 2 * time.Second
)

// spool writes beside what it is given, so that a reader who does not read, as a
// pager does, holds up neither a device loop nor the signals. What finds no room
// is dropped, and a line in its place says how much.
type spool struct {
	w io.Writer
	// wake holds a token while there is something to do, ended is closed when
	// everything is written after close.
	wake, ended chan struct{}
	mu          struct {
		sync.Mutex
		text    []byte
		dropped int
		closing bool
	}
}

func newSpool(w io.Writer) *spool {
	s := &spool{w: w, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go s.run()
	return s
}

// Write implements io.Writer. It never blocks and never fails.
func (s *spool) Write(text []byte) (int, error) {
	s.mu.Lock()
	if s.mu.dropped > 0 || len(s.mu.text)+len(text) > spoolMax {
		s.mu.dropped += max(1, bytes.Count(text, []byte{'\n'}))
	} else {
		s.mu.text = append(s.mu.text, text...)
	}
	s.mu.Unlock()
	s.poke()
	return len(text), nil
}

func (s *spool) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes until close.
func (s *spool) run() {
	defer close(s.ended)
	for range s.wake {
		s.mu.Lock()
		text, dropped, closing := s.mu.text, s.mu.dropped, s.mu.closing
		s.mu.text, s.mu.dropped = nil, 0
		s.mu.Unlock()
		if dropped > 0 {
			text = fmt.Appendf(text, "%d lines were dropped: nobody was reading\n", dropped)
		}
		if len(text) > 0 {
			_, _ = s.w.Write(text) // there is nowhere to report it
		}
		if closing {
			return
		}
	}
}

// close waits until everything is written, but not for longer than limit. Nothing
// is written afterwards.
func (s *spool) close(limit time.Duration) {
	s.mu.Lock()
	s.mu.closing = true
	s.mu.Unlock()
	s.poke()
	bound := time.NewTimer(limit)
	defer bound.Stop()
	select {
	case <-s.ended:
	case <-bound.C:
	}
}
