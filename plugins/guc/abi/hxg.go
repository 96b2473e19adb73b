package abi

import "fmt"

// DwordsMax is the largest HXG part of a CTB message in dwords: its length
// field has 8 bits. With the CTB header a message has at most MessageMax.
const (
	DwordsMax  = 255
	MessageMax = DwordsMax + 1
)

// Fence is the FENCE field of a CTB header, owned by the host. The firmware
// copies it into its reply. Events of the firmware carry 0.
type Fence uint16

// FenceUntracked is the bit that the host sets for fast requests and events,
// whose replies nobody waits for.
const FenceUntracked Fence = 1 << 15

// CTBHeader is the first dword of a message in a CTB.
//
//	31:16  FENCE
//	15:12  FORMAT       0 = HXG
//	11:8   reserved, 0
//	7:0    NUM_DWORDS   length of the HXG part
//
// A header of all zeroes is a NOP of one dword.
type CTBHeader struct {
	Fence  Fence
	Dwords uint8
}

// Encode returns the dword.
func (h CTBHeader) Encode() uint32 { return uint32(h.Fence)<<16 | uint32(h.Dwords) }

// DecodeCTBHeader refuses other formats and reserved bits.
func DecodeCTBHeader(dw uint32) (CTBHeader, error) {
	if dw&0xFF00 != 0 {
		return CTBHeader{}, broken(StatusUnderflow, "ctb header %#08x: format or reserved bits set", dw)
	}
	return CTBHeader{Fence: Fence(dw >> 16), Dwords: uint8(dw)}, nil
}

// Origin says who sent an HXG message.
type Origin uint8

// The origins.
const (
	OriginHost Origin = 0
	OriginGUC  Origin = 1
)

// Type is the TYPE field of an HXG header, 3 bits.
type Type uint8

// The types.
const (
	// TypeRequest needs a definite reply: success, failure or retry.
	TypeRequest Type = 0
	// TypeEvent has no reply at all.
	TypeEvent Type = 1
	// TypeFastRequest is answered only by a failure, if it was not accepted.
	TypeFastRequest Type = 2
	// TypeBusy announces a later reply; used on MMIO only.
	TypeBusy Type = 3
	// TypeRetry says that the request was dropped and may be sent again.
	TypeRetry Type = 5
	// TypeFailure is a definite reply.
	TypeFailure Type = 6
	// TypeSuccess is a definite reply.
	TypeSuccess Type = 7
)

var typeNames = [8]string{"REQUEST", "EVENT", "FAST_REQUEST", "BUSY", "type 4", "RETRY", "FAILURE", "SUCCESS"}

// String names the type as the headers do.
func (t Type) String() string { return typeNames[t&7] }

// Header is dword 0 of an HXG message.
//
//	31     ORIGIN  0 host, 1 GuC
//	30:28  TYPE
//	27:0   AUX     request, event: 27:16 DATA0, 15:0 ACTION
//	               busy: COUNTER; retry: REASON
//	               failure: 27:16 HINT, 15:0 ERROR
//	               success: DATA0
type Header struct {
	Origin Origin
	Type   Type
	Aux    uint32
}

// Encode returns the dword.
func (h Header) Encode() uint32 {
	return uint32(h.Origin&1)<<31 | uint32(h.Type&7)<<28 | h.Aux&0x0FFFFFFF
}

// DecodeHeader splits dword 0; type 4 is not used and refused.
func DecodeHeader(dw uint32) (Header, error) {
	h := Header{Origin: Origin(dw >> 31), Type: Type(dw >> 28 & 7), Aux: dw & 0x0FFFFFFF}
	if h.Type == 4 {
		return h, wire(ErrorProtocol, "hxg header %#08x: unused type 4", dw)
	}
	return h, nil
}

// Action returns the opcode of a request or event.
func (h Header) Action() Action { return Action(h.Aux) }

// Packet is one HXG message: who says what how.
type Packet struct {
	Origin Origin
	Type   Type
	Body   Body
}

// Body is the content of a packet: an action with its parameters, or a reply.
type Body interface {
	// Action is the opcode; 0 for replies.
	Action() Action
	// aux is the AUX field of dword 0.
	aux() uint32
	// payload appends the dwords after dword 0.
	payload(dst []uint32) []uint32
}

// Request, FastRequest and Event are packets of the host; GUCEvent is one of the firmware.
func Request(b Body) Packet     { return Packet{OriginHost, TypeRequest, b} }
func FastRequest(b Body) Packet { return Packet{OriginHost, TypeFastRequest, b} }
func Event(b Body) Packet       { return Packet{OriginHost, TypeEvent, b} }
func GUCEvent(b Body) Packet    { return Packet{OriginGUC, TypeEvent, b} }

// SuccessReply, FailureReply, RetryReply and BusyReply are the firmware's replies.
func SuccessReply(data0 uint32, more ...uint32) Packet {
	return Packet{OriginGUC, TypeSuccess, Success{Data0: data0, More: more}}
}
func FailureReply(code ErrorCode, hint uint16) Packet {
	return Packet{OriginGUC, TypeFailure, Failure{Code: code, Hint: hint}}
}
func RetryReply(reason uint32) Packet { return Packet{OriginGUC, TypeRetry, Retry{Reason: reason}} }
func BusyReply(counter uint32) Packet { return Packet{OriginGUC, TypeBusy, Busy{Counter: counter}} }

// Append appends the packet's dwords, dword 0 first.
func (p Packet) Append(dst []uint32) []uint32 {
	dst = append(dst, Header{Origin: p.Origin, Type: p.Type, Aux: p.Body.aux()}.Encode())
	return p.Body.payload(dst)
}

// Dwords returns the encoded packet.
func (p Packet) Dwords() []uint32 { return p.Append(nil) }

// Parse decodes one HXG message of exactly len(dw) dwords. The errors are
// *WireError, whose Code is what a firmware answers. The header of a packet
// whose payload is refused is still returned in Origin and Type.
func Parse(dw []uint32) (Packet, error) {
	if len(dw) == 0 || len(dw) > DwordsMax {
		return Packet{}, wire(ErrorProtocol, "hxg message of %d dwords", len(dw))
	}
	h, err := DecodeHeader(dw[0])
	p := Packet{Origin: h.Origin, Type: h.Type}
	if err != nil {
		return p, err
	}
	rest := dw[1:]
	switch h.Type {
	case TypeSuccess:
		p.Body = Success{Data0: h.Aux, More: clone(rest)}
	case TypeFailure, TypeRetry, TypeBusy:
		if len(rest) != 0 {
			return p, wire(ErrorProtocol, "%s reply of %d dwords, want 1", h.Type, len(dw))
		}
		switch h.Type {
		case TypeFailure:
			p.Body = Failure{Code: ErrorCode(h.Aux), Hint: uint16(h.Aux >> 16)}
		case TypeRetry:
			p.Body = Retry{Reason: h.Aux}
		default:
			p.Body = Busy{Counter: h.Aux}
		}
	default:
		p.Body, err = parseBody(h, rest)
	}
	return p, err
}

// Success is the content of a RESPONSE_SUCCESS: 28 bits, then any dwords.
type Success struct {
	Data0 uint32
	More  []uint32
}

// Failure is the content of a RESPONSE_FAILURE; Hint has 12 bits.
type Failure struct {
	Code ErrorCode
	Hint uint16
}

// Retry is the content of a NO_RESPONSE_RETRY; Reason 0 says nothing.
type Retry struct{ Reason uint32 }

// Busy is the content of a NO_RESPONSE_BUSY.
type Busy struct{ Counter uint32 }

// Action implements Body; replies have none.
func (Success) Action() Action { return 0 }

// Action implements Body.
func (Failure) Action() Action { return 0 }

// Action implements Body.
func (Retry) Action() Action { return 0 }

// Action implements Body.
func (Busy) Action() Action { return 0 }

func (s Success) aux() uint32                   { return s.Data0 }
func (f Failure) aux() uint32                   { return uint32(f.Hint&0xFFF)<<16 | uint32(f.Code) }
func (r Retry) aux() uint32                     { return r.Reason }
func (b Busy) aux() uint32                      { return b.Counter }
func (s Success) payload(dst []uint32) []uint32 { return append(dst, s.More...) }
func (Failure) payload(dst []uint32) []uint32   { return dst }
func (Retry) payload(dst []uint32) []uint32     { return dst }
func (Busy) payload(dst []uint32) []uint32      { return dst }

// Error makes a failure reply an error of the request it answers.
func (f Failure) Error() string {
	return fmt.Sprintf("firmware answered: %s, hint %#x", f.Code, f.Hint)
}

func clone(dw []uint32) []uint32 {
	if len(dw) == 0 {
		return nil
	}
	return append([]uint32(nil), dw...)
}
