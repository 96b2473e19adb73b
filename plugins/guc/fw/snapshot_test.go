package fw

import (
	"errors"
	"slices"
	"testing"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// sampleSnapshot has everything in it.
func sampleSnapshot() *snapshot {
	return &snapshot{
		extendedCat: true, open: true, registered: [6]uint64{0x20000, 0x10000, 4096, 0x30000, 0x10800, 8192}, h2gHead: 7, g2hTail: 1000,
		contexts: []savedContext{
			{id: 0, state: savedReset, class: 4, mask: 1, lrc: abi.LRCDescriptor{LRC: 0x40000}},
			{id: abi.GUCIDMax - 1, state: savedEnabled, class: 4, mask: 3, lrc: abi.LRCDescriptor{LRC: 0xFFFF0000, PrivateSpace: true},
				policies: policies{level: 3, quantumUS: 1000, preemptionUS: 640_000, toIdle: true, frequency: 9}, usedUS: 12, order: 1},
		},
		messages: [][]uint32{{3, 0x90001002, 7, 1}, {1, 0x90008004}},
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	for _, s := range []*snapshot{{}, sampleSnapshot()} {
		dw := s.encode()
		back, err := decodeSnapshot(append(slices.Clone(dw), 0, 0)) // A larger buffer.
		if err != nil || !slices.Equal(back.encode(), dw) || len(dw) != s.dwords() {
			t.Errorf("%+v, %v", back, err)
		}
	}
}

// resign repairs length and checksum, so that what is behind them is reached.
func resign(dw []uint32) []uint32 {
	if len(dw) >= snapshotHeader {
		dw[0], dw[1], dw[2] = snapshotMagic, snapshotVersion, uint32(len(dw))
		dw[3] = checksum(dw[snapshotCRC:])
	}
	return dw
}

func TestSnapshotRefusals(t *testing.T) {
	first := snapshotHeader
	for name, change := range map[string]func(dw []uint32) []uint32{
		"flags":          func(dw []uint32) []uint32 { dw[4] |= 8; return dw },
		"more contexts":  func(dw []uint32) []uint32 { dw[5] = 0xFFFFFFFF; return dw },
		"more messages":  func(dw []uint32) []uint32 { dw[6]++; return dw },
		"fewer messages": func(dw []uint32) []uint32 { dw[6]--; return dw },
		"head":           func(dw []uint32) []uint32 { dw[19] = 1024; return dw },
		"id":             func(dw []uint32) []uint32 { dw[first+snapshotContext] = abi.GUCIDMax; return dw },
		"order of ids":   func(dw []uint32) []uint32 { dw[first+snapshotContext] = 0; return dw },
		"state":          func(dw []uint32) []uint32 { dw[first+1] = 3; return dw },
		"state bits":     func(dw []uint32) []uint32 { dw[first+1] |= 16; return dw },
		"class":          func(dw []uint32) []uint32 { dw[first+2] = 16; return dw },
		"mask":           func(dw []uint32) []uint32 { dw[first+3] = 0; return dw },
		"lrc":            func(dw []uint32) []uint32 { dw[first+4]++; return dw },
		"priority":       func(dw []uint32) []uint32 { dw[first+5] = 4; return dw },
		"quantum":        func(dw []uint32) []uint32 { dw[first+6] = abi.PolicyMaxUS + 1; return dw },
		"order":          func(dw []uint32) []uint32 { dw[first+10] = 1; return dw },
		"message header": func(dw []uint32) []uint32 { dw[first+2*snapshotContext] = 0xFF00; return dw },
		"message length": func(dw []uint32) []uint32 { dw[first+2*snapshotContext] = 9; return dw },
		"empty message":  func(dw []uint32) []uint32 { dw[first+2*snapshotContext] = 0x80010000; return dw },
		"cut":            func(dw []uint32) []uint32 { return dw[:len(dw)-1] },
		"too long":       func(dw []uint32) []uint32 { return append(dw, 1) },
	} {
		_, err := decodeSnapshot(resign(change(sampleSnapshot().encode())))
		var w *abi.WireError
		if !errors.As(err, &w) || w.Code == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeSnapshot(f *testing.F) {
	raw := func(dw []uint32) (b []byte) {
		for _, v := range dw {
			b = append(b, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
		}
		return b
	}
	f.Add(raw(sampleSnapshot().encode()), true)
	f.Add(raw((&snapshot{}).encode()), false)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		var dw []uint32
		for ; len(b) >= 4; b = b[4:] {
			dw = append(dw, uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24)
		}
		if sign {
			dw = resign(dw)
		}
		s, err := decodeSnapshot(dw)
		if err != nil {
			var w *abi.WireError
			if !errors.As(err, &w) {
				t.Errorf("error %T", err)
			}
			return
		}
		if again := s.encode(); !slices.Equal(again, dw[:len(again)]) {
			t.Errorf("%08x encodes again as %08x", dw, again)
		}
	})
}
