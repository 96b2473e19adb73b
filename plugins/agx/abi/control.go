package abi

import (
	"encoding/binary"
	"fmt"
)

// ControlType is a device-control message. Its number on the wire differs
// between versions (see controlNumbers).
type ControlType uint8

// The messages. Those from ControlGrowTVBAck on are known and not modelled.
const (
	ControlInitialize ControlType = iota
	ControlDestroyContext
	ControlRecoverChannel
	ControlUpdateIdleTS
	ControlWrite32
	ControlGrowTVBAck
	ControlIdlePowerOff
	ControlConfigurePerf
	ControlDisablePerf
	controlTypes
)

// String names the message.
func (t ControlType) String() string {
	if t < controlTypes {
		return [...]string{"Initialize", "DestroyContext", "RecoverChannel", "UpdateIdleTS", "Write32",
			"GrowTVBAck", "IdlePowerOff", "ConfigurePerf", "DisablePerf"}[t]
	}
	return fmt.Sprintf("control %d", uint8(t))
}

// Control is a device-control message with nothing but its number.
type Control struct {
	Type ControlType
}

// DestroyContext ends a context and flushes what the firmware caches. Flush
// makes one that only flushes.
type DestroyContext struct {
	// The bytes of the GpuContext at 0x23, 0, 1 and 4.
	Unk23, Index0, Index1, Unk4 uint8
	Context                     VA
}

// flushIndex stands in both indices of a DestroyContext that destroys nothing.
const flushIndex = 0xFF

// Flush is a DestroyContext that only flushes.
func Flush() *DestroyContext { return &DestroyContext{Index0: flushIndex, Index1: flushIndex} }

// FlushOnly reports whether nothing is to be destroyed.
func (m *DestroyContext) FlushOnly() bool {
	return m.Context == 0 && m.Index0 == flushIndex && m.Index1 == flushIndex
}

// RecoverChannel lets a queue go on after a ChannelError, behind the command
// with this event value.
type RecoverChannel struct {
	Pipe  uint32
	Queue VA
	Value uint32
}

// Write32 makes the firmware write a word. What it is for is not known.
type Write32 struct {
	Address VA
	Value   uint32
}

// ControlMessage is an Object that goes through the device-control ring.
type ControlMessage interface {
	Object
	// Control names the message.
	Control() ControlType
}

// Control implements ControlMessage.
func (m *Control) Control() ControlType      { return m.Type }
func (*DestroyContext) Control() ControlType { return ControlDestroyContext }
func (*RecoverChannel) Control() ControlType { return ControlRecoverChannel }
func (*Write32) Control() ControlType        { return ControlWrite32 }

func (m *Control) layout(a *ABI) (*record, []any) { return &a.control, nil }

func (m *DestroyContext) layout(a *ABI) (*record, []any) {
	return &a.destroyContext, []any{&m.Unk23, &m.Index0, &m.Index1, &m.Unk4, &m.Context}
}

func (m *RecoverChannel) layout(a *ABI) (*record, []any) {
	return &a.recoverChannel, []any{&m.Pipe, &m.Queue, &m.Value}
}

func (m *Write32) layout(a *ABI) (*record, []any) {
	return &a.write32, []any{&m.Address, &m.Value}
}

// Layouts behind the number at 0 (driver fw/channels.rs; Write32 from m1n1).
var (
	controlPlain = record{"Control", 0x30, nil, nil}

	recoverChannel = record{"RecoverChannel", 0x30, []field{
		{"pipe_type", 0x04, 4},
		{"work_queue", 0x08, 8},
		{"event_value", 0x10, 4},
	}, nil}

	write32 = record{"Write32", 0x30, []field{
		{"addr", 0x04, 8},
		{"data", 0x0c, 4},
	}, nil}

	// 12.3: padded.
	destroyContext123 = record{"DestroyContext", 0x30, []field{
		{"ctx_23", 0x08, 1},
		{"ctx_0", 0x14, 1},
		{"ctx_1", 0x15, 1},
		{"ctx_4", 0x16, 1},
		{"gpu_context", 0x1c, 8},
	}, nil}
	// 13.3 and later: packed.
	destroyContext135 = record{"DestroyContext", 0x30, []field{
		{"ctx_23", 0x08, 1},
		{"ctx_0", 0x11, 1},
		{"ctx_1", 0x12, 1},
		{"ctx_4", 0x13, 1},
		{"gpu_context", 0x14, 8},
	}, nil}
)

// The numbers (driver fw/channels.rs and m1n1 agx/channels.py). From 0x0d on
// 13.3 added one; that of UpdateIdleTS in 13.5 is inferred from this.
var (
	controlNumbers123 = map[ControlType]uint32{
		ControlConfigurePerf: 0x0b, ControlDisablePerf: 0x0c, ControlGrowTVBAck: 0x0d, ControlRecoverChannel: 0x0e,
		ControlIdlePowerOff: 0x0f, ControlDestroyContext: 0x17, ControlWrite32: 0x18, ControlInitialize: 0x19, ControlUpdateIdleTS: 0x23,
	}
	controlNumbers135 = map[ControlType]uint32{
		ControlConfigurePerf: 0x0b, ControlDisablePerf: 0x0c, ControlGrowTVBAck: 0x0e, ControlRecoverChannel: 0x0f,
		ControlIdlePowerOff: 0x10, ControlDestroyContext: 0x18, ControlWrite32: 0x19, ControlInitialize: 0x1a, ControlUpdateIdleTS: 0x24,
	}
)

// ControlNumber is the number of a message on the wire.
func (a *ABI) ControlNumber(t ControlType) uint32 { return a.controlNumbers[t] }

// EncodeControl makes a ring entry.
func (a *ABI) EncodeControl(m ControlMessage) []byte {
	b := a.Bytes(m)
	binary.LittleEndian.PutUint32(b, a.controlNumbers[m.Control()])
	return b
}

// DecodeControl reads a ring entry. A message that is known and not modelled is
// a *Control whatever its payload. Errors are *WireError.
func (a *ABI) DecodeControl(entry []byte) (ControlMessage, error) {
	if len(entry) < int(a.DeviceControlEntry) {
		return nil, wire("device control", "%d bytes", len(entry))
	}
	number := binary.LittleEndian.Uint32(entry)
	for t, n := range a.controlNumbers {
		if n != number {
			continue
		}
		var m ControlMessage
		switch t {
		case ControlInitialize, ControlUpdateIdleTS:
			m = &Control{Type: t}
		case ControlDestroyContext:
			m = &DestroyContext{}
		case ControlRecoverChannel:
			m = &RecoverChannel{}
		case ControlWrite32:
			m = &Write32{}
		default:
			return &Control{Type: t}, nil
		}
		body := make([]byte, len(entry))
		copy(body[4:], entry[4:])
		return m, a.Decode(body, m)
	}
	return nil, wire("device control", "type %#x", number)
}

// ControlText shows a device-control message on one line.
func (a *ABI) ControlText(entry []byte) string {
	m, err := a.DecodeControl(entry)
	if err != nil {
		return "malformed " + err.Error()
	}
	if c, ok := m.(*Control); ok {
		return c.Type.String()
	}
	return a.Text(m)
}
