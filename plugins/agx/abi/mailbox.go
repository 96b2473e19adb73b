package abi

import "fmt"

// Registers. The ASC block starts at 0, the GPU's own at RegGPU (ours). Offsets
// of the ASC are from the Asahi documentation (hw/soc/asc.md), that of the fault
// register from the driver's regs.rs. The mailbox registers stand before FIFOs:
// an emulator sees no store, so that both sides use the FIFO itself, which
// lies behind them (ours), and MailboxControl shows what the control register would.
const (
	RegCPUControl = 0x0044 // bit 4: RUN
	RegCPUStatus  = 0x0048 // bit 1: stopped, bit 5: idle
	RegInboxFIFO  = 0x8900
	RegOutboxFIFO = 0x8C00
	RegGPU        = 0x100000
	RegFaultInfo  = RegGPU + 0x17030 // and the upper half at +4

	CPURun     = 1 << 4
	CPUStopped = 1 << 1
	CPUIdle    = 1 << 5

	controlFull  = 1 << 16
	controlEmpty = 1 << 17

	// MailboxSlots is how many messages wait each way (the count has 4 bits).
	MailboxSlots = 15
)

// RegWindows are the register windows of a device, in the order both sides name them.
var RegWindows = [...]uint32{0x0000, 0x8000, RegGPU + 0x17000}

// MailboxControl is what INBOX_CTRL or OUTBOX_CTRL reads with count messages waiting:
// FULL in bit 16, EMPTY in bit 17, the count in 23:20.
func MailboxControl(count uint32) uint32 {
	v := min(count, MailboxSlots) << 20
	if count == 0 {
		v |= controlEmpty
	}
	if count >= MailboxSlots {
		v |= controlFull
	}
	return v
}

// Endpoint is the low byte of a message's second word.
type Endpoint uint8

// The endpoints.
const (
	EndpointManagement Endpoint = 0x00
	EndpointCrashLog   Endpoint = 0x01
	EndpointSysLog     Endpoint = 0x02
	EndpointDebug      Endpoint = 0x03
	EndpointIOReport   Endpoint = 0x04
	EndpointOSLog      Endpoint = 0x08
	EndpointTraceKit   Endpoint = 0x0A
	EndpointFirmware   Endpoint = 0x20
	EndpointDoorbell   Endpoint = 0x21
)

// System reports whether the endpoint is one of RTKit's own, beside management.
func (e Endpoint) System() bool { return e > 0 && e < EndpointFirmware }

// String names the endpoint.
func (e Endpoint) String() string {
	switch e {
	case EndpointManagement:
		return "management"
	case EndpointCrashLog:
		return "crashlog"
	case EndpointSysLog:
		return "syslog"
	case EndpointDebug:
		return "debug"
	case EndpointIOReport:
		return "ioreport"
	case EndpointOSLog:
		return "oslog"
	case EndpointTraceKit:
		return "tracekit"
	case EndpointFirmware:
		return "firmware"
	case EndpointDoorbell:
		return "doorbell"
	}
	return fmt.Sprintf("endpoint %#02x", uint8(e))
}

// Message is one mailbox message.
type Message struct {
	Endpoint Endpoint
	Payload  uint64
}

// Encode returns the two words; the second one's upper bits, counters of the
// FIFO, are 0.
func (m Message) Encode() (msg0, msg1 uint64) { return m.Payload, uint64(m.Endpoint) }

// DecodeMessage reads the two words.
func DecodeMessage(msg0, msg1 uint64) Message {
	return Message{Endpoint: Endpoint(msg1), Payload: msg0}
}

// GPU messages have their type in bits 63:48 of the payload.
//
//	EP    direction  63:48  rest
//	0x20  to fw      0x81   43:0 address of the initdata
//	0x20  to host    0x42   0: look at all rings
//	0x21  to fw      0x83   15:0 number of the doorbell
//	0x21  to fw      0x84   0: FwCtl ring
//	0x21  to fw      0x85   0: believed to be "halt"; not modelled
const (
	gpuShift      = 48
	gpuInit       = 0x81
	gpuRX         = 0x42
	gpuTX         = 0x83
	GPUFwCtl      = 0x84
	GPUHalt       = 0x85
	doorbellsMask = 0xFFFF
)

// Numbers of doorbells beside those of pipes.
const (
	DoorbellKick          = 0x10
	DoorbellDeviceControl = 0x11
)

// PipeDoorbell is the number of a pipe's doorbell.
func PipeDoorbell(p PipeType, level uint32) uint16 { return uint16(uint32(p) | level<<2) }

// InitMessage names the initdata.
func InitMessage(initdata VA) Message {
	return Message{EndpointFirmware, gpuInit<<gpuShift | initdata.short()}
}

// Init returns the address that an Init message carries; false when it is none.
func (m Message) Init() (VA, bool) {
	ok := m.Endpoint == EndpointFirmware && m.Payload>>vaBits == gpuInit<<(gpuShift-vaBits)
	return longVA(m.Payload), ok
}

// RXMessage tells the host to look at all rings.
func RXMessage() Message { return Message{EndpointFirmware, gpuRX << gpuShift} }

// RX reports whether the message is an RX doorbell.
func (m Message) RX() bool { return m == RXMessage() }

// DoorbellMessage rings a doorbell.
func DoorbellMessage(n uint16) Message {
	return Message{EndpointDoorbell, gpuTX<<gpuShift | uint64(n)}
}

// Doorbell returns the number of a doorbell; false when the message is none.
func (m Message) Doorbell() (uint16, bool) {
	return uint16(m.Payload), m.Endpoint == EndpointDoorbell && m.Payload&^doorbellsMask == gpuTX<<gpuShift
}

// String shows a message on one line; what can't be decoded is shown as a number.
func (m Message) String() string {
	switch m.Endpoint {
	case EndpointManagement:
		if g, err := DecodeManagement(m.Payload); err == nil {
			return g.String()
		}
	case EndpointCrashLog, EndpointSysLog, EndpointIOReport:
		if b, ok := m.Buffer(); ok {
			return fmt.Sprintf("%s buffer %d pages at %#x", m.Endpoint, b.Pages, uint64(b.Address))
		}
		if l, err := DecodeSysLog(m.Payload); err == nil && m.Endpoint == EndpointSysLog {
			return l.String()
		}
	case EndpointFirmware:
		if va, ok := m.Init(); ok {
			return fmt.Sprintf("Init initdata=%#x", uint64(va))
		}
		if m.RX() {
			return "RXDoorbell"
		}
	case EndpointDoorbell:
		if n, ok := m.Doorbell(); ok {
			return "Doorbell " + doorbellName(n)
		}
	}
	return fmt.Sprintf("%s %#016x", m.Endpoint, m.Payload)
}

func doorbellName(n uint16) string {
	switch {
	case n == DoorbellKick:
		return "kick"
	case n == DoorbellDeviceControl:
		return "device-control"
	case n < 1<<4 && n&3 != 3:
		return fmt.Sprintf("%s.%d", PipeType(n&3), n>>2)
	}
	return fmt.Sprintf("%#x", n)
}
