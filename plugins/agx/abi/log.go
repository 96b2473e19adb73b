package abi

import (
	"bytes"
	"fmt"
)

// LogLevel is a sub-ring of the firmware's log, as the driver names them.
type LogLevel uint32

// The levels. The log has one state block and one ring for each, one after the other.
const (
	LogDebug LogLevel = iota
	LogInfo
	LogNotice
	LogWarn
	LogError
	LogCritical
	LogLevels
)

// String names the level.
func (l LogLevel) String() string {
	if l < LogLevels {
		return [...]string{"debug", "info", "notice", "warn", "err", "crit"}[l]
	}
	return fmt.Sprintf("level %d", uint32(l))
}

// Sizes of the log: index entries in the rings, payloads in the payload buffer
// at (RingEntries × level + index) × LogPayloadSize.
const (
	LogEntry       = 0x38
	LogPayloadSize = 0xd8
	LogTextSize    = 0xc8
	LogBufferSize  = uint32(LogLevels) * RingEntries * LogPayloadSize
)

// LogIndex is an entry of a log ring: it names a payload.
type LogIndex struct{ Index uint64 }

// LogPayload is one line of the log; the text is padded with NUL.
type LogPayload struct {
	Seq       uint32
	Timestamp uint64
	text      [LogTextSize / 8]uint64
}

// SetText sets the text, cut to leave room for a NUL.
func (p *LogPayload) SetText(s string) {
	var b [LogTextSize]byte
	copy(b[:LogTextSize-1], s)
	for i := range p.text {
		p.text[i] = get(b[8*i:], 8)
	}
}

// Text returns the text up to the first NUL; all of it when there is none.
func (p *LogPayload) Text() string {
	var b [LogTextSize]byte
	for i, v := range p.text {
		put(b[8*i:], 8, v)
	}
	text, _, _ := bytes.Cut(b[:], []byte{0})
	return string(bytes.ToValidUTF8(text, []byte("?")))
}

func (m *LogIndex) layout(a *ABI) (*record, []any) { return &a.logIndex, []any{&m.Index} }

func (m *LogPayload) layout(a *ABI) (*record, []any) {
	values := []any{&m.Seq, &m.Timestamp}
	for i := range m.text {
		values = append(values, &m.text[i])
	}
	return &a.logPayload, values
}

// Layouts (m1n1 agx/channels.py).
var (
	logIndex = record{"FwLog", LogEntry, []field{
		{"msg_index", 0x08, 8},
	}, []constant{{0, 4, 2}}}
	logPayload = record{"FwLogPayload", LogPayloadSize, append([]field{
		{"seq", 0x04, 4},
		{"timestamp", 0x08, 8},
	}, textFields(0x10, LogTextSize)...), []constant{{0, 4, 3}}}
)

// textFields are the words of a text.
func textFields(off, size uint32) []field {
	var fields []field
	for i := uint32(0); i < size; i += 8 {
		fields = append(fields, field{fmt.Sprintf("text_%02x", i), off + i, 8})
	}
	return fields
}

// StatType is the kind of a statistics message. Only those about power are
// sent, and of their contents only the ticks are modelled.
type StatType uint32

// The statistics messages.
const (
	StatPower       StatType = 0x0
	StatPowerOn     StatType = 0x2
	StatPowerOff    StatType = 0x3
	StatUtilization StatType = 0x4
	StatAvgPower    StatType = 0x9
	StatTemperature StatType = 0xa
	StatPowerState  StatType = 0xb
	StatFwBusy      StatType = 0xc
	StatPStateRange StatType = 0xd
	StatTempSensor  StatType = 0xe
)

// Stat is a statistics message about power: Ticks is how long the GPU was off
// (PowerOn) or on (PowerOff). Where the ticks stand is ours.
type Stat struct {
	Type  uint32
	Ticks uint64
}

func (m *Stat) layout(a *ABI) (*record, []any) { return &a.stat, []any{&m.Type, &m.Ticks} }

func stat(size uint32) record {
	return record{"Stat", size, []field{
		{"type", 0x00, 4},
		{"ticks", 0x08, 8},
	}, nil}
}
