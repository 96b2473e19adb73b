package abi

import (
	"errors"
	"fmt"
)

// ErrNoRoom is returned when a message does not fit into a CTB now; it may fit
// when the other side has read on.
var ErrNoRoom = errors.New("no room in the CTB")

// WireError is returned when bytes break the format. Code is what a firmware
// answers to it, Status the CTB descriptor bits to set (0: none).
type WireError struct {
	What   string
	Code   ErrorCode
	Status Status
}

// Error implements error.
func (e *WireError) Error() string { return "wire: " + e.What }

func wire(code ErrorCode, format string, args ...any) *WireError {
	return &WireError{What: fmt.Sprintf(format, args...), Code: code}
}

func broken(status Status, format string, args ...any) *WireError {
	return &WireError{What: fmt.Sprintf(format, args...), Code: ErrorProtocol, Status: status}
}

// ErrorCode is the ERROR field of a RESPONSE_FAILURE, 16 bits.
type ErrorCode uint16

// The error codes that both sides know by name.
const (
	ErrorProtocol             ErrorCode = 0x04
	ErrorInvalidState         ErrorCode = 0x0A
	ErrorUnsupportedVersion   ErrorCode = 0x0B
	ErrorInvalidVFID          ErrorCode = 0x0C
	ErrorUnprovisionedVF      ErrorCode = 0x0D
	ErrorNotSupported         ErrorCode = 0x20
	ErrorUnknownAction        ErrorCode = 0x30
	ErrorAborted              ErrorCode = 0x31
	ErrorNoPermission         ErrorCode = 0x40
	ErrorCannotComplete       ErrorCode = 0x41
	ErrorInvalidKLV           ErrorCode = 0x50
	ErrorInvalidParams        ErrorCode = 0x60
	ErrorInvalidContextIndex  ErrorCode = 0x61
	ErrorInvalidRegistration  ErrorCode = 0x62
	ErrorInvalidDoorbell      ErrorCode = 0x63
	ErrorInvalidEngine        ErrorCode = 0x64
	ErrorInvalidBufferRange   ErrorCode = 0x70
	ErrorInvalidBuffer        ErrorCode = 0x71
	ErrorBufferRegistered     ErrorCode = 0x72
	ErrorInvalidGGTT          ErrorCode = 0x80
	ErrorPendingAction        ErrorCode = 0x90
	ErrorContextNotRegistered ErrorCode = 0x100
	ErrorContextRegistered    ErrorCode = 0x101
	ErrorInvalidSize          ErrorCode = 0x102
	ErrorMalformedKLV         ErrorCode = 0x103
	ErrorInvalidContext       ErrorCode = 0x104
	ErrorInvalidKLVKey        ErrorCode = 0x105
	ErrorTooLarge             ErrorCode = 0x106
	ErrorVFMigrated           ErrorCode = 0x107
	ErrorCTBFull              ErrorCode = 0x301
	ErrorCTBInvalid           ErrorCode = 0x303
	ErrorCTBNotRegistered     ErrorCode = 0x304
	ErrorCTBInUse             ErrorCode = 0x305
	ErrorCTBDescriptor        ErrorCode = 0x306
	ErrorGeneric              ErrorCode = 0xF000
)

var errorNames = map[ErrorCode]string{
	ErrorProtocol: "protocol error", ErrorInvalidState: "invalid state", ErrorUnsupportedVersion: "unsupported version",
	ErrorInvalidVFID: "invalid VFID", ErrorUnprovisionedVF: "unprovisioned VF", ErrorNotSupported: "not supported", ErrorUnknownAction: "unknown action", ErrorAborted: "aborted",
	ErrorNoPermission: "no permission", ErrorCannotComplete: "cannot complete", ErrorInvalidKLV: "invalid KLV value",
	ErrorInvalidParams: "invalid parameters", ErrorInvalidContextIndex: "invalid context index",
	ErrorInvalidRegistration: "invalid context registration", ErrorInvalidDoorbell: "invalid doorbell",
	ErrorInvalidEngine: "invalid engine", ErrorInvalidBufferRange: "invalid buffer range", ErrorInvalidBuffer: "invalid buffer",
	ErrorBufferRegistered: "buffer already registered", ErrorInvalidGGTT: "invalid GGTT address", ErrorPendingAction: "action pending",
	ErrorContextNotRegistered: "context not registered", ErrorContextRegistered: "context already registered",
	ErrorInvalidSize: "invalid size", ErrorMalformedKLV: "malformed KLV", ErrorInvalidContext: "invalid context",
	ErrorInvalidKLVKey: "invalid KLV key", ErrorTooLarge: "too large", ErrorVFMigrated: "function migrated",
	ErrorCTBFull: "CTB full", ErrorCTBInvalid: "invalid CTB", ErrorCTBNotRegistered: "CTB not registered",
	ErrorCTBInUse: "CTB in use", ErrorCTBDescriptor: "bad CTB descriptor", ErrorGeneric: "generic failure",
}

// String names the code, with its number.
func (c ErrorCode) String() string {
	if name, known := errorNames[c]; known {
		return fmt.Sprintf("%s (%#x)", name, uint16(c))
	}
	return fmt.Sprintf("error %#x", uint16(c))
}
