package abi

import (
	"errors"
	"fmt"
)

// ErrVersion is returned when there is no table for a generation and firmware.
var ErrVersion = errors.New("no such firmware interface")

// ErrNoRoom is returned when a ring is full; nothing was written.
var ErrNoRoom = errors.New("ring is full")

// WireError says what is wrong with bytes of the other side.
type WireError struct {
	// What is the structure or message, Reason the sentence.
	What, Reason string
}

// Error implements error.
func (e *WireError) Error() string { return e.What + ": " + e.Reason }

func wire(what, format string, args ...any) error {
	return &WireError{What: what, Reason: fmt.Sprintf(format, args...)}
}
