package abi

import (
	"encoding/binary"
	"fmt"
)

// EventType is the kind of an event message, its first word.
type EventType uint32

// The events. GrowTVB is reserved for the tiler heap and not modelled; 2, 3, 5
// and 6 are unknown.
const (
	EventFault        EventType = 0
	EventFlag         EventType = 1
	EventTimeout      EventType = 4
	EventGrowTVB      EventType = 7
	EventChannelError EventType = 8
)

// String names the event.
func (t EventType) String() string {
	switch t {
	case EventFault:
		return "Fault"
	case EventFlag:
		return "Flag"
	case EventTimeout:
		return "Timeout"
	case EventGrowTVB:
		return "GrowTVB"
	case EventChannelError:
		return "ChannelError"
	}
	return fmt.Sprintf("event %d", uint32(t))
}

// ChannelErrorType says what stopped a queue.
type ChannelErrorType uint32

// The channel errors.
const (
	ChannelMemoryError ChannelErrorType = 0
	ChannelDMKill      ChannelErrorType = 1
	ChannelAborted     ChannelErrorType = 2
	ChannelUnknown     ChannelErrorType = 3
)

// String names the error.
func (t ChannelErrorType) String() string {
	if t <= ChannelUnknown {
		return [...]string{"memory error", "dm kill", "aborted", "unknown"}[t]
	}
	return fmt.Sprintf("channel error %d", uint32(t))
}

// Fault says that the GPU was halted; the MMU fault register says why.
type Fault struct{}

// Flag says that the stamps of these slots have changed.
type Flag struct {
	Firing [Slots / 32]uint32
	Unk14  uint16
}

// Set adds a slot; one that does not exist is ignored.
func (m *Flag) Set(slot uint32) {
	if slot < Slots {
		m.Firing[slot/32] |= 1 << (slot % 32)
	}
}

// Slots returns the slots in order.
func (m *Flag) Slots() []uint32 {
	var out []uint32
	for slot := range uint32(Slots) {
		if m.Firing[slot/32]&(1<<(slot%32)) != 0 {
			out = append(out, slot)
		}
	}
	return out
}

// Timeout says that the GPU was halted because a command came to no end.
type Timeout struct {
	// Counter is the number of halts before this one.
	Counter uint32
	Unk8    uint32
	// Slot is the event slot, negative for none.
	Slot int32
}

// ChannelError says that a queue was stopped at the command with this value.
type ChannelError struct {
	Error, Pipe, Slot, Value uint32
}

// Event is an Object that comes through the event ring.
type Event interface {
	Object
	// Event names the message.
	Event() EventType
}

// Event implements Event.
func (*Fault) Event() EventType        { return EventFault }
func (*Flag) Event() EventType         { return EventFlag }
func (*Timeout) Event() EventType      { return EventTimeout }
func (*ChannelError) Event() EventType { return EventChannelError }

func (m *Fault) layout(a *ABI) (*record, []any) { return &a.event, nil }
func (m *Flag) layout(a *ABI) (*record, []any) {
	return &a.flag, []any{&m.Firing[0], &m.Firing[1], &m.Firing[2], &m.Firing[3], &m.Unk14}
}
func (m *Timeout) layout(a *ABI) (*record, []any) {
	return &a.timeout, []any{&m.Counter, &m.Unk8, &m.Slot}
}
func (m *ChannelError) layout(a *ABI) (*record, []any) {
	return &a.channelError, []any{&m.Error, &m.Pipe, &m.Slot, &m.Value}
}

// Layouts (driver fw/channels.rs). They are the same in both versions.
var (
	eventFault = record{"Fault", 0x38, nil, []constant{{0, 4, uint64(EventFault)}}}
	eventFlag  = record{"Flag", 0x38, []field{
		{"firing0", 0x04, 4},
		{"firing1", 0x08, 4},
		{"firing2", 0x0c, 4},
		{"firing3", 0x10, 4},
		{"unk_14", 0x14, 2},
	}, []constant{{0, 4, uint64(EventFlag)}}}
	eventTimeout = record{"Timeout", 0x38, []field{
		{"counter", 0x04, 4},
		{"unk_8", 0x08, 4},
		{"event_slot", 0x0c, 4},
	}, []constant{{0, 4, uint64(EventTimeout)}}}
	eventChannelError = record{"ChannelError", 0x38, []field{
		{"error_type", 0x04, 4},
		{"pipe_type", 0x08, 4},
		{"event_slot", 0x0c, 4},
		{"event_value", 0x10, 4},
	}, []constant{{0, 4, uint64(EventChannelError)}}}
)

// DecodeEvent reads an entry of the event ring. Unknown types are errors
// (*WireError), which a host logs and passes over.
func (a *ABI) DecodeEvent(entry []byte) (Event, error) {
	if len(entry) < 4 {
		return nil, wire("event", "%d bytes", len(entry))
	}
	var m Event
	switch t := EventType(binary.LittleEndian.Uint32(entry)); t {
	case EventFault:
		m = &Fault{}
	case EventFlag:
		m = &Flag{}
	case EventTimeout:
		m = &Timeout{}
	case EventChannelError:
		m = &ChannelError{}
	default:
		return nil, wire("event", "%s is not modelled", t)
	}
	return m, a.Decode(entry, m)
}

// EventText shows an event on one line.
func (a *ABI) EventText(entry []byte) string {
	m, err := a.DecodeEvent(entry)
	if err != nil {
		return "malformed " + err.Error()
	}
	if f, ok := m.(*Flag); ok {
		return fmt.Sprintf("Flag slots=%v", f.Slots())
	}
	return a.Text(m)
}
