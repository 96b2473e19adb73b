package abi

import "fmt"

// Messages of the crashlog, syslog and ioreport endpoints have their type in 59:52.
//
//	1  buffer request and its answer: 51:44 size in pages of 4 KiB, 43:0 address
//	   (a request with address 0 asks the host to allocate). On the crashlog
//	   endpoint every later one means "I crashed".
//	5  syslog: log, 7:0 index; the host echoes it
//	8  syslog: init, 39:24 entry size, 15:0 entries
const (
	systemBuffer    = 1
	sysLogLog       = 5
	sysLogInit      = 8
	pagesShift      = 44
	BufferPageBytes = 4096
)

// Buffer is a buffer request or its answer.
type Buffer struct {
	Pages   uint8
	Address VA
}

// BufferMessage asks for a buffer or hands it over.
func BufferMessage(e Endpoint, b Buffer) Message {
	return Message{e, systemBuffer<<managementShift | uint64(b.Pages)<<pagesShift | b.Address.short()}
}

// Buffer returns what a buffer message says; false when the message is none.
func (m Message) Buffer() (Buffer, bool) {
	b := Buffer{Pages: uint8(m.Payload >> pagesShift), Address: longVA(m.Payload)}
	return b, m.Endpoint.System() && m.Payload>>managementShift == systemBuffer
}

// SysLog is a message of the syslog endpoint: an init, or the index of a line.
type SysLog struct {
	Init               bool
	EntrySize, Entries uint16
	Index              uint8
}

// Encode returns the payload.
func (s SysLog) Encode() uint64 {
	if s.Init {
		return sysLogInit<<managementShift | uint64(s.EntrySize)<<24 | uint64(s.Entries)
	}
	return sysLogLog<<managementShift | uint64(s.Index)
}

// DecodeSysLog reads a payload. Errors are *WireError.
func DecodeSysLog(v uint64) (SysLog, error) {
	var s SysLog
	switch v >> managementShift {
	case sysLogInit:
		s = SysLog{Init: true, EntrySize: uint16(v >> 24), Entries: uint16(v)}
	case sysLogLog:
		s = SysLog{Index: uint8(v)}
	}
	if s.Encode() != v {
		return s, wire("syslog message", "%#x", v)
	}
	return s, nil
}

// String shows the message on one line.
func (s SysLog) String() string {
	if s.Init {
		return fmt.Sprintf("syslog init %d entries of %d", s.Entries, s.EntrySize)
	}
	return fmt.Sprintf("syslog log %d", s.Index)
}
