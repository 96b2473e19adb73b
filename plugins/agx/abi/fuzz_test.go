package abi

import (
	"bytes"
	"testing"
)

// FuzzObjects decodes bytes as every object: what is taken encodes to the same bytes.
func FuzzObjects(f *testing.F) {
	target, _ := For(Target)
	for i, o := range objects() {
		f.Add(uint8(i), target.Bytes(o))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		for _, v := range Versions() {
			a, _ := For(v)
			all := objects()
			o := all[int(which)%len(all)]
			if a.Decode(b, o) == nil && !bytes.Equal(a.Bytes(o), b[:a.Size(o)]) {
				t.Errorf("%T: %x became %x", o, b, a.Bytes(o))
			}
			_ = a.Text(o)
		}
	})
}

// FuzzMessages decodes bytes as everything that is chosen by its first word.
func FuzzMessages(f *testing.F) {
	a, _ := For(Target)
	f.Add(a.EncodeControl(&RecoverChannel{2, 3, 4}))
	f.Add(a.Bytes(&Timeout{Slot: 4}))
	f.Add(a.AppendOp(a.AppendOp(nil, &WaitForIdle{}), &RetireStamp{}))
	log := make([]byte, 200)
	EncodeCrashLog(log, "text", "13.5")
	f.Add(log)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range Versions() {
			a, _ := For(v)
			if m, err := a.DecodeControl(b); err == nil {
				if c, plain := m.(*Control); (!plain || c.Type == ControlInitialize) && !bytes.Equal(a.EncodeControl(m), b[:a.DeviceControlEntry]) {
					t.Errorf("%s from %x", a.ControlText(b), b)
				}
			}
			if m, err := a.DecodeEvent(b); err == nil && !bytes.Equal(a.Bytes(m), b[:a.EventEntry]) {
				t.Errorf("%s from %x", a.EventText(b), b)
			}
			_, _ = a.ControlText(b), a.EventText(b)
			for rest := b; ; {
				o, size, err := a.DecodeOp(rest)
				if err != nil {
					break
				}
				if !bytes.Equal(a.AppendOp(nil, o), rest[:size]) {
					t.Errorf("%s from %x", a.Text(o), rest[:size])
				}
				rest = rest[size:]
			}
		}
		_, _ = DecodeCrashLog(b)
	})
}

// FuzzMailbox decodes two words as a mailbox message.
func FuzzMailbox(f *testing.F) {
	f.Add(Management{Type: EndpointMap, Bitmap: 3, Base: 1, Last: true}.Encode(), uint64(0))
	f.Add(uint64(0x42)<<48, uint64(0x20))
	f.Fuzz(func(t *testing.T, msg0, msg1 uint64) {
		m := DecodeMessage(msg0, msg1)
		if m.String() == "" {
			t.Error("no text")
		}
		if g, err := DecodeManagement(msg0); err == nil && g.Encode() != msg0 {
			t.Errorf("%s from %#x", g, msg0)
		}
		if l, err := DecodeSysLog(msg0); err == nil && l.Encode() != msg0 {
			t.Errorf("%s from %#x", l, msg0)
		}
		if va, ok := m.Init(); ok && InitMessage(va) != m {
			t.Errorf("init %#x from %#x", va, msg0)
		}
		if b, ok := m.Buffer(); ok && BufferMessage(m.Endpoint, b) != m {
			t.Errorf("buffer %v from %#x", b, msg0)
		}
		if n, ok := m.Doorbell(); ok && DoorbellMessage(n) != m {
			t.Errorf("doorbell %d from %#x", n, msg0)
		}
		if f, ok := DecodeMMUFault(msg0); ok && f.Encode() != msg0 {
			t.Errorf("fault %s from %#x", f, msg0)
		}
	})
}
