package abi

import (
	"encoding/hex"
	"strings"
	"testing"
)

// TestGoldenBytes holds whole messages against bytes that were written down by
// hand from the sources; the zeroes at the end are left out.
func TestGoldenBytes(t *testing.T) {
	queue := Address(ClassPrivate, 0x12345678)
	object := func(o Object) func(a *ABI) []byte { return func(a *ABI) []byte { return a.Bytes(o) } }
	control := func(m ControlMessage) func(a *ABI) []byte {
		return func(a *ABI) []byte { return a.EncodeControl(m) }
	}
	flag := &Flag{}
	flag.Set(0)
	flag.Set(33)
	context := &DestroyContext{Unk23: 2, Index0: 0x11, Index1: 0x22, Unk4: 0x33, Context: queue}
	for name, c := range map[string]struct {
		encode       func(a *ABI) []byte
		in123, in135 string
	}{
		"RunWorkQueue": {object(&RunWorkQueue{Pipe: 2, Queue: queue, Write: 5, Slot: 7, New: true}),
			"02000000 78563412a0ffffff 05000000 07000000 01", "02000000 78563412a0ffffff 05000000 07000000 01"},
		"Initialize":     {control(&Control{ControlInitialize}), "19", "1a"},
		"RecoverChannel": {control(&RecoverChannel{2, queue, 0x300}), "0e000000 02000000 78563412a0ffffff 0003", "0f000000 02000000 78563412a0ffffff 0003"},
		"DestroyContext": {control(context),
			"17000000 00000000 02000000 00000000 00000000 11223300 00000000 78563412a0ffffff",
			"18000000 00000000 02 00000000 00000000 112233 78563412a0ffffff"},
		"Flag":         {object(flag), "01000000 01000000 02", "01000000 01000000 02"},
		"Timeout":      {object(&Timeout{Counter: 168, Slot: -1}), "04000000 a8000000 00000000 ffffffff", "04000000 a8000000 00000000 ffffffff"},
		"ChannelError": {object(&ChannelError{1, 2, 9, 0x500}), "08000000 01000000 02000000 09000000 0005", "08000000 01000000 02000000 09000000 0005"},
		"Barrier": {object(&Barrier{WaitStamp: queue, WaitValue: 0x100, WaitSlot: 4, StampSelf: 0x200, UUID: BarrierUUID}),
			"04000000 78563412a0ffffff 00010000 04000000 00020000 bbbbffff", "04000000 78563412a0ffffff 00010000 04000000 00020000 bbbbffff"},
		"GpuContext": {object(NewGpuContext()), "ffff000000 01" + strings.Repeat("00", 24) + "ff 00000000 02", "ffff000000 01" + strings.Repeat("00", 24) + "ff 00000000 02"},
		"short ops":  {func(a *ABI) []byte { return a.AppendOp(a.AppendOp(nil, &WaitForIdle{}), &RetireStamp{}) }, "01008000 18000040", "01008000 18000040"},
	} {
		for firmware, want := range map[Firmware]string{V12_3: c.in123, V13_5: c.in135} {
			a, _ := For(Version{Generation: G13, Firmware: firmware})
			b := c.encode(a)
			for len(b) > 0 && b[len(b)-1] == 0 {
				b = b[:len(b)-1]
			}
			if got, want := hex.EncodeToString(b), strings.ReplaceAll(want, " ", ""); got != want {
				t.Errorf("%s %s:\n%s\n%s", firmware, name, got, want)
			}
		}
	}
}
