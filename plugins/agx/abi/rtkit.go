package abi

import "fmt"

// ManagementType is the type of an RTKit management message, bits 59:52.
type ManagementType uint8

// The types.
const (
	Hello           ManagementType = 1
	HelloAck        ManagementType = 2
	Ping            ManagementType = 3
	Pong            ManagementType = 4
	StartEndpoint   ManagementType = 5
	SetIOPPower     ManagementType = 6
	IOPPowerAck     ManagementType = 7
	EndpointMap     ManagementType = 8
	APPower         ManagementType = 0xB
	managementShift                = 52
)

// String names the type.
func (t ManagementType) String() string {
	switch t {
	case Hello:
		return "HELLO"
	case HelloAck:
		return "HELLO_ACK"
	case Ping:
		return "PING"
	case Pong:
		return "PONG"
	case StartEndpoint:
		return "START_EP"
	case SetIOPPower:
		return "SET_IOP_PWR"
	case IOPPowerAck:
		return "IOP_PWR_ACK"
	case EndpointMap:
		return "EPMAP"
	case APPower:
		return "AP_PWR"
	}
	return fmt.Sprintf("management %#x", uint8(t))
}

// The protocol versions that hosts speak.
const (
	RTKitMin = 11
	RTKitMax = 12
)

// Power is a power state.
type Power uint16

// The power states.
const (
	PowerOff      Power = 0x00
	PowerSleep    Power = 0x01
	PowerQuiesced Power = 0x10
	PowerOn       Power = 0x20
	PowerInit     Power = 0x220
)

// Flags of START_EP.
const (
	EndpointStop  = 1
	EndpointStart = 2
)

// Management is an RTKit management message (m1n1 rtkit.c). Type in 59:52;
// everything that is not listed is 0.
//
//	HELLO, HELLO_ACK          15:0 lowest version, 31:16 highest; the ack has the chosen one twice
//	START_EP                  39:32 endpoint, 1:0 flags
//	SET_IOP_PWR, IOP_PWR_ACK, AP_PWR  15:0 state
//	EPMAP                     31:0 bitmap, 34:32 base (times 32), 51 last
//	EPMAP reply               0 more (unless last), 34:32 base, 51 last
//
// An EPMAP and a reply to it look alike; who sends it makes the difference.
type Management struct {
	Type     ManagementType
	Min, Max uint16
	Endpoint Endpoint
	Flags    uint8
	State    Power
	Bitmap   uint32
	Base     uint8
	Last     bool
}

const (
	baseShift    = 32
	lastShift    = 51
	mapMore      = 1
	endpointMask = 0xFF
)

// Encode returns the payload.
func (m Management) Encode() uint64 {
	v := uint64(m.Type) << managementShift
	switch m.Type {
	case Hello, HelloAck:
		v |= uint64(m.Min) | uint64(m.Max)<<16
	case StartEndpoint:
		v |= uint64(m.Endpoint)<<32 | uint64(m.Flags)
	case SetIOPPower, IOPPowerAck, APPower:
		v |= uint64(m.State)
	case EndpointMap:
		v |= uint64(m.Bitmap) | uint64(m.Base&7)<<baseShift
		if m.Last {
			v |= 1 << lastShift
		}
	}
	return v
}

// MapReply answers an EPMAP.
func MapReply(m Management) Management {
	reply := Management{Type: EndpointMap, Base: m.Base, Last: m.Last}
	if !m.Last {
		reply.Bitmap = mapMore
	}
	return reply
}

// Message wraps a management message.
func (m Management) Message() Message { return Message{EndpointManagement, m.Encode()} }

// DecodeManagement reads a payload. Errors are *WireError.
func DecodeManagement(v uint64) (Management, error) {
	m := Management{Type: ManagementType(v >> managementShift)}
	switch m.Type {
	case Hello, HelloAck:
		m.Min, m.Max = uint16(v), uint16(v>>16)
	case Ping, Pong:
	case StartEndpoint:
		m.Endpoint, m.Flags = Endpoint(v>>32&endpointMask), uint8(v)
	case SetIOPPower, IOPPowerAck, APPower:
		m.State = Power(v)
	case EndpointMap:
		m.Bitmap, m.Base, m.Last = uint32(v), uint8(v>>baseShift&7), v>>lastShift&1 != 0
	default:
		return m, wire("management message", "type %#x", v>>managementShift)
	}
	if m.Encode() != v {
		return m, wire("management message", "%s with %#x", m.Type, v)
	}
	return m, nil
}

// String shows the message on one line.
func (m Management) String() string {
	switch m.Type {
	case Hello, HelloAck:
		return fmt.Sprintf("%s %d..%d", m.Type, m.Min, m.Max)
	case StartEndpoint:
		return fmt.Sprintf("%s %s flags=%d", m.Type, m.Endpoint, m.Flags)
	case SetIOPPower, IOPPowerAck, APPower:
		return fmt.Sprintf("%s %#x", m.Type, uint16(m.State))
	case EndpointMap:
		return fmt.Sprintf("%s base=%d bitmap=%#x last=%t", m.Type, m.Base, m.Bitmap, m.Last)
	}
	return m.Type.String()
}
