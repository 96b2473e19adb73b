package abi

import (
	"bytes"
	"encoding/binary"
)

// The crash log lies in the buffer of the crashlog endpoint (m1n1 fw/asc/crash.py).
//
//	0x00  "CLHE", as a number with the first letter on top
//	0x04  version
//	0x08  total size in bytes
//	0x0c  flags, and 16 bytes reserved
//	0x20  entries: name (4), reserved (4), flags (4), size with this header (4), payload
//	      and at the end an entry "CLHE"
//
// The payload of "Cstr", the text, is a number and the text with a NUL. Entries
// are padded to 4 bytes.
const (
	crashHeader   = 0x20
	crashEntry    = 0x10
	crashVersion  = 1
	CrashLogPages = 4
)

func fourCC(s string) uint32 { return binary.BigEndian.Uint32([]byte(s)) }

// EncodeCrashLog writes a log with a text and the version of the firmware, cut
// to what b holds. It returns its length; 0 when b is too small.
func EncodeCrashLog(b []byte, text, version string) int {
	const least = crashHeader + 3*crashEntry + 16
	if len(b) < least {
		return 0
	}
	text = text[:min(len(text), len(b)-least-len(version)&^3)]
	le := binary.LittleEndian
	out := make([]byte, crashHeader, len(b))
	entry := func(name string, payload []byte) {
		size := (crashEntry + len(payload) + 3) &^ 3
		at := len(out)
		out = append(out, make([]byte, size)...)
		le.PutUint32(out[at:], fourCC(name))
		le.PutUint32(out[at+0xc:], uint32(size))
		copy(out[at+crashEntry:], payload)
	}
	entry("Cstr", append(append(make([]byte, 4), text...), 0))
	entry("Cver", append([]byte(version), 0))
	entry("CLHE", nil)
	le.PutUint32(out, fourCC("CLHE"))
	le.PutUint32(out[4:], crashVersion)
	le.PutUint32(out[8:], uint32(len(out)))
	return copy(b, out)
}

// DecodeCrashLog returns the text of a log. Errors are *WireError.
func DecodeCrashLog(b []byte) (text string, err error) {
	le := binary.LittleEndian
	if len(b) < crashHeader || le.Uint32(b) != fourCC("CLHE") {
		return "", wire("crash log", "no header")
	}
	for at := crashHeader; ; {
		if len(b)-at < crashEntry {
			return "", wire("crash log", "no end")
		}
		size := le.Uint32(b[at+0xc:])
		if size < crashEntry || uint64(size) > uint64(len(b)-at) {
			return "", wire("crash log", "entry of %d bytes", size)
		}
		switch le.Uint32(b[at:]) {
		case fourCC("CLHE"):
			return text, nil
		case fourCC("Cstr"):
			if payload := b[at+crashEntry : at+int(size)]; len(payload) > 4 {
				t, _, _ := bytes.Cut(payload[4:], []byte{0})
				text = string(bytes.ToValidUTF8(t, []byte("?")))
			}
		}
		at += int(size)
	}
}
