package abi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

func typeName(o Object) string { return fmt.Sprintf("%T", o) }

func TestMailboxMessages(t *testing.T) {
	va := Address(ClassShared, 0x12340)
	for _, c := range []struct {
		m    Message
		want uint64
		text string
	}{
		{Management{Type: Hello, Min: 11, Max: 12}.Message(), 0x0010_0000_000c_000b, "HELLO 11..12"},
		{Management{Type: HelloAck, Min: 12, Max: 12}.Message(), 0x0020_0000_000c_000c, "HELLO_ACK 12..12"},
		{Management{Type: EndpointMap, Bitmap: 3, Base: 1, Last: true}.Message(), 0x0088_0001_0000_0003, "EPMAP base=1 bitmap=0x3 last=true"},
		{MapReply(Management{Type: EndpointMap, Bitmap: 3, Base: 1, Last: true}).Message(), 0x0088_0001_0000_0000, "EPMAP base=1 bitmap=0x0 last=true"},
		{MapReply(Management{Type: EndpointMap, Bitmap: 6}).Message(), 0x0080_0000_0000_0001, "EPMAP base=0 bitmap=0x1 last=false"},
		{Management{Type: StartEndpoint, Endpoint: EndpointFirmware, Flags: EndpointStart}.Message(), 0x0050_0020_0000_0002, "START_EP firmware flags=2"},
		{Management{Type: SetIOPPower, State: PowerInit}.Message(), 0x0060_0000_0000_0220, "SET_IOP_PWR 0x220"},
		{Management{Type: IOPPowerAck, State: PowerOn}.Message(), 0x0070_0000_0000_0020, "IOP_PWR_ACK 0x20"},
		{Management{Type: APPower, State: PowerQuiesced}.Message(), 0x00b0_0000_0000_0010, "AP_PWR 0x10"},
		{Management{Type: Ping}.Message(), 0x0030_0000_0000_0000, "PING"},
		{BufferMessage(EndpointCrashLog, Buffer{Pages: 4}), 0x0010_4000_0000_0000, "crashlog buffer 4 pages at 0x0"},
		{Message{EndpointSysLog, SysLog{Init: true, EntrySize: 0x100, Entries: 8}.Encode()}, 0x0080_0001_0000_0008, "syslog init 8 entries of 256"},
		{Message{EndpointSysLog, SysLog{Index: 5}.Encode()}, 0x0050_0000_0000_0005, "syslog log 5"},
		{InitMessage(va), 0x0081_0fa8_0001_2340, "Init initdata=0xffffffa800012340"},
		{RXMessage(), 0x0042_0000_0000_0000, "RXDoorbell"},
		{DoorbellMessage(DoorbellKick), 0x0083_0000_0000_0010, "Doorbell kick"},
		{DoorbellMessage(DoorbellDeviceControl), 0x0083_0000_0000_0011, "Doorbell device-control"},
		{DoorbellMessage(PipeDoorbell(PipeCompute, 3)), 0x0083_0000_0000_000e, "Doorbell compute.3"},
		{Message{EndpointDebug, 7}, 7, "debug 0x0000000000000007"},
	} {
		msg0, msg1 := c.m.Encode()
		if msg0 != c.want || msg1 != uint64(c.m.Endpoint) || c.m.String() != c.text {
			t.Errorf("%s: %#016x, want %s: %#016x", c.m, msg0, c.text, c.want)
		}
		if back := DecodeMessage(msg0, msg1|0xABCD00); back != c.m {
			t.Errorf("%s became %s", c.m, back)
		}
	}
	if got, ok := InitMessage(va).Init(); !ok || got != va {
		t.Errorf("init %#x", got)
	}
	if b, ok := BufferMessage(EndpointSysLog, Buffer{2, va}).Buffer(); !ok || b.Address != va || b.Pages != 2 {
		t.Errorf("buffer %v", b)
	}
	for count, want := range map[uint32]uint32{0: 1 << 17, 1: 1 << 20, MailboxSlots: 15<<20 | 1<<16} {
		if got := MailboxControl(count); got != want {
			t.Errorf("%d messages: %#x, want %#x", count, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, c := range []Class{ClassPrivate, ClassGPUReadOnly, ClassShared, ClassSharedReadOnly, ClassGPUShared, ClassRTKit} {
		va := Address(c, 0xFFFF_F000)
		if device, ok := va.Device(); !ok || device != 0xFFFF_F000 || va.Class() != c || longVA(va.short()) != va || c.String() == "" {
			t.Errorf("%s: %#x", c, va)
		}
		if c.Cached() != (c == ClassPrivate || c == ClassGPUReadOnly) {
			t.Errorf("%s cached", c)
		}
	}
	if _, ok := VA(0x1000).Device(); ok {
		t.Error("an address of no class was taken")
	}
	if table, ok := DecodeTTBR(5, EncodeTTBR(5, 0x30000)); !ok || table != 0x30000 {
		t.Errorf("table %#x", table)
	}
	if _, ok := DecodeTTBR(4, EncodeTTBR(5, 0x30000)); ok {
		t.Error("another slot's table was taken")
	}
	if _, ok := DecodeTTBR(5, EncodeTTBR(5, 0)); ok {
		t.Error("an unbound slot was taken")
	}
}

func TestDeviceControl(t *testing.T) {
	numbers := map[ControlType][2]uint32{
		ControlInitialize: {0x19, 0x1a}, ControlDestroyContext: {0x17, 0x18}, ControlRecoverChannel: {0x0e, 0x0f},
		ControlWrite32: {0x18, 0x19}, ControlGrowTVBAck: {0x0d, 0x0e},
	}
	all(t, func(t *testing.T, a *ABI) {
		i := 1
		if a.Version.Firmware == V12_3 {
			i = 0
		}
		for c, n := range numbers {
			if a.ControlNumber(c) != n[i] {
				t.Errorf("%s is %#x, want %#x", c, a.ControlNumber(c), n[i])
			}
		}
		for _, m := range []ControlMessage{&Control{ControlInitialize}, &Control{ControlUpdateIdleTS}, &Control{ControlGrowTVBAck},
			&DestroyContext{Unk23: 2, Index0: 1, Context: 7}, Flush(), &RecoverChannel{2, 0x1234, 0x500}, &Write32{9, 8}} {
			b := a.EncodeControl(m)
			back, err := a.DecodeControl(b)
			if err != nil || back.Control() != m.Control() || !bytes.Equal(a.EncodeControl(back), b) || a.ControlText(b) == "" {
				t.Errorf("%s: %v", a.Text(m), err)
			}
		}
		if !Flush().FlushOnly() || (&DestroyContext{Context: 1}).FlushOnly() {
			t.Error("flush")
		}
		var w *WireError
		if _, err := a.DecodeControl(make([]byte, a.DeviceControlEntry)); !errors.As(err, &w) {
			t.Errorf("message 0: %v", err)
		}
	})
}

func TestEvents(t *testing.T) {
	all(t, func(t *testing.T, a *ABI) {
		flag := &Flag{}
		for _, slot := range []uint32{0, 31, 32, 127, 128, 4000} {
			flag.Set(slot)
		}
		if got := flag.Slots(); !slices.Equal(got, []uint32{0, 31, 32, 127}) {
			t.Errorf("slots %v", got)
		}
		for _, m := range []Event{&Fault{}, flag, &Timeout{Counter: 168, Slot: -1}, &ChannelError{1, 2, 3, 0x400}} {
			b := a.Bytes(m)
			back, err := a.DecodeEvent(b)
			if err != nil || back.Event() != m.Event() || !bytes.Equal(a.Bytes(back), b) {
				t.Errorf("%s: %v", a.EventText(b), err)
			}
		}
		if got, want := a.EventText(a.Bytes(&Timeout{Counter: 1, Slot: -1})), "Timeout counter=1 event_slot=-1"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		for _, n := range []byte{2, 3, 5, 6, 7, 9} {
			b := make([]byte, a.EventEntry)
			b[0] = n
			if _, err := a.DecodeEvent(b); err == nil {
				t.Errorf("event %d was taken", n)
			}
		}
	})
}

func TestLog(t *testing.T) {
	a, _ := For(Target)
	p := &LogPayload{Seq: 3}
	p.SetText("PIO poll timeout")
	back := &LogPayload{}
	if err := a.Decode(a.Bytes(p), back); err != nil || back.Text() != "PIO poll timeout" {
		t.Errorf("%q, %v", back.Text(), err)
	}
	p.SetText(string(bytes.Repeat([]byte("x"), 500)))
	if len(p.Text()) != LogTextSize-1 {
		t.Errorf("%d bytes of text", len(p.Text()))
	}
	b := bytes.Repeat([]byte{'y'}, LogPayloadSize)
	copy(b, a.Bytes(p)[:0x10])
	if err := a.Decode(b, back); err != nil || len(back.Text()) != LogTextSize {
		t.Errorf("without a NUL: %d bytes, %v", len(back.Text()), err)
	}
}

func TestMicrosequence(t *testing.T) {
	all(t, func(t *testing.T, a *ABI) {
		ops := []Operation{
			&StartCompute{Queue: 1, VMSlot: 2}, &Timestamp{Start: true, Update: 5}, &WaitForIdle{}, &Timestamp{Update: 6},
			&Store{Address: 1, Value: 7}, &Store{Wide: true, Address: 1, Value: 1 << 40}, &Read{Address: 4}, &Read{Wide: true, Address: 4},
			&ALU{Kind: ALULsl, Address: 1, Operand: 2}, &ALU{Kind: ALUAdd, Address: 1, Operand: 2},
			&FinalizeCompute{FwStamp: 9, Value: 0x100, Restart: -4}, &EndStamp{FwStamp: 3}, &EndStamp{Abort: true}, &RetireStamp{},
		}
		var sequence []byte
		for _, o := range ops {
			sequence = a.AppendOp(sequence, o)
		}
		rest := sequence
		for _, o := range ops {
			back, size, err := a.DecodeOp(rest)
			if err != nil || a.Text(back) != a.Text(o) || back.word() != o.word() {
				t.Fatalf("%s became %s, %v", a.Text(o), a.Text(back), err)
			}
			rest = rest[size:]
		}
		if len(rest) != 0 {
			t.Errorf("%d bytes left", len(rest))
		}
		for word, o := range map[uint32]Operation{
			0x29: &StartCompute{}, 0x80000019: &Timestamp{Start: true}, 0x00800001: &WaitForIdle{}, 0x19: &Timestamp{}, 0x2a: &FinalizeCompute{}, 0x40000018: &RetireStamp{}} {
			if o.word() != word {
				t.Errorf("%T is %#x, want %#x", o, o.word(), word)
			}
		}
		for _, bad := range [][]byte{nil, {3, 0, 0, 0}, {0x1f, 0, 0, 0}, {0x18, 0, 0, 0}, {0x16, 9, 0, 0}, {0x2a, 0, 0, 0}} {
			if o, _, err := a.DecodeOp(bad); err == nil {
				t.Errorf("%x is %s", bad, a.Text(o))
			}
		}
	})
}

func TestStamps(t *testing.T) {
	for _, c := range []struct {
		now, want uint32
		passed    bool
	}{{0, 0, true}, {0x100, 0x200, false}, {0x200, 0x100, true}, {0, 0xffffff00, true}, {0xffffff00, 0, false}, {0x2ff, 0x200, true}} {
		if Passed(c.now, c.want) != c.passed {
			t.Errorf("%#x has passed %#x: %t", c.now, c.want, !c.passed)
		}
	}
	if n := StampsBetween(0xffffff00, 0x200); n != 3 {
		t.Errorf("%d commands over the wrap", n)
	}
	for firmware, want := range map[Firmware]uint32{V12_3: 1 | 5<<3, V13_5: 1 | 5<<4} {
		a, _ := For(Version{Generation: G13, Firmware: firmware})
		info, value := a.EncodePendingStamp(PendingStamp{Slot: 5, Value: 0x300})
		if p, ok := a.DecodePendingStamp(info, value); info != want || !ok || p.Slot != 5 || p.Value != 0x300 {
			t.Errorf("%s: info %#x, want %#x: %v", firmware, info, want, p)
		}
		if _, ok := a.DecodePendingStamp(0, 1); ok {
			t.Error("an empty entry is valid")
		}
	}
	if Ticks(1_500_000_000) != 36_000_000 {
		t.Errorf("ticks %d", Ticks(1_500_000_000))
	}
}

func TestMMUFault(t *testing.T) {
	f := MMUFault{Reason: FaultReadOnly, Read: true, Level: 2, Unit: 0x13, VMSlot: 63, Sideband: 1, Address: 0x12_3456_7880}
	v := f.Encode()
	if back, ok := DecodeMMUFault(v); !ok || back != f {
		t.Errorf("%+v became %+v", f, back)
	}
	if v&1 != 1 || v>>17&0x3f != 63 || v>>30 != 0x12_3456_7880>>6 {
		t.Errorf("register %#x", v)
	}
	if back, ok := DecodeMMUFault(MMUFault{Address: 0xffffffa0_00000000}.Encode()); !ok || back.Address != 0xffffffa0_00000000 {
		t.Errorf("upper half %#x", back.Address)
	}
	if _, ok := DecodeMMUFault(v &^ 1); ok {
		t.Error("an invalid register is valid")
	}
}

func TestCrashLog(t *testing.T) {
	b := make([]byte, 4096)
	n := EncodeCrashLog(b, "Unable to grab init data", "13.5")
	text, err := DecodeCrashLog(b)
	if err != nil || text != "Unable to grab init data" || n == 0 {
		t.Errorf("%q, %v", text, err)
	}
	if string(b[:4]) != "EHLC" {
		t.Errorf("header %q", b[:4])
	}
	long := string(bytes.Repeat([]byte("z"), 8000))
	if n := EncodeCrashLog(b, long, "13.5"); n == 0 || n > len(b) {
		t.Errorf("%d bytes", n)
	}
	if text, err := DecodeCrashLog(b); err != nil || len(text) < 3900 {
		t.Errorf("%d bytes of text, %v", len(text), err)
	}
	if EncodeCrashLog(b[:50], "x", "y") != 0 {
		t.Error("fits into 50 bytes")
	}
	for _, bad := range [][]byte{nil, make([]byte, 100), b[:200]} {
		if _, err := DecodeCrashLog(bad); err == nil {
			t.Errorf("%d bytes were taken", len(bad))
		}
	}
}

func TestPriorities(t *testing.T) {
	for level := range uint32(Levels) {
		if p := ComputePriority(level); p.A != 0 || p.E != 1 || p.B != level || p.Outranks != ^uint64(0)<<(16*(level+1)) {
			t.Errorf("level %d: %+v", level, p)
		}
	}
}
