package abi

import (
	"slices"
	"testing"
)

// golden holds the vectors of the reference, CTB header included where there is one.
var golden = []struct {
	name   string
	fence  Fence
	packet Packet
	want   []uint32
}{
	{"enable", 0x8001, FastRequest(SchedContextModeSet{ID: 7, Enable: true}), []uint32{0x80010003, 0x20001001, 7, 1}},
	{"mode done", 0, GUCEvent(SchedContextModeDone{ID: 7, Enabled: true}), []uint32{0x00000003, 0x90001002, 7, 1}},
	{"submit", 0x8002, FastRequest(SchedContext{ID: 7}), []uint32{0x80020002, 0x20001000, 7}},
	{"policies", 0x8003, FastRequest(Policies(7, 2, 1000, 640000, 0)), []uint32{0x8003000A, 0x2000100B, 7,
		0x20030001, 2, 0x20010001, 0x3E8, 0x20020001, 0x9C400, 0x20050001, 0}},
	{"evict", 0x8004, FastRequest(UpdateContextPolicies{ID: 7, Policies: []KLV{Word(KLVPreemptionTimeout, 1)}}),
		[]uint32{0x80040004, 0x2000100B, 7, 0x20020001, 1}},
	{"deregister", 0x8005, FastRequest(DeregisterContext{ID: 7}), []uint32{0x80050002, 0x20004503, 7}},
	{"deregister done", 0, GUCEvent(DeregisterContextDone{ID: 7}), []uint32{0x00000002, 0x90004600, 7}},
	{"register", 0x8006, FastRequest(RegisterContext{Flags: ContextFlagKMD, ID: 7, Class: ClassCompute, SubmitMask: 1, LRCDescriptor: 0x00123019}),
		[]uint32{0x8006000C, 0x20004502, 1, 7, 4, 1, 0, 0, 0, 0, 0, 0x00123019, 0}},
	{"capture", 0, GUCEvent(StateCapture{}), []uint32{0x00000002, 0x90008002, 0}},
	{"reset", 0, GUCEvent(ContextReset{ID: 7}), []uint32{0x00000002, 0x90001008, 7}},
	{"engine failure", 0, GUCEvent(EngineFailure{Class: ClassCompute, Reason: 0xAB}), []uint32{0x00000004, 0x90001009, 4, 0, 0xAB}},
	{"failure", 0x8001, FailureReply(ErrorContextNotRegistered, 0), []uint32{0x80010001, 0xE0000100}},
	{"size query", 0x0012, Request(SaveRestoreVF{Function: 3}), []uint32{0x00120005, 0x0000550B, 3, 0, 0, 0}},
	{"size reply", 0x0012, SuccessReply(96), []uint32{0x00120001, 0xF0000060}},
	{"retry", 0x0012, RetryReply(0), []uint32{0x00120001, 0xD0000000}},
	{"bad state", 0x0012, FailureReply(ErrorInvalidState, 0), []uint32{0x00120001, 0xE000000A}},
	{"restore", 0x0013, Request(SaveRestoreVF{Restore: true, Function: 3, Address: 0x1_0000_1000, Dwords: 96}),
		[]uint32{0x00130005, 0x0001550B, 3, 0x1000, 1, 96}},
	{"pause", 0x0014, Request(VFControl{Function: 3, Command: VFPause}), []uint32{0x00140003, 0x00005506, 3, 1}},
	{"pause done", 0, GUCEvent(VFStateNotify{Function: 3, State: VFStatePauseDone}), []uint32{0x00000003, 0x90005106, 3, 3}},
	{"fast failure", 0x8001, FailureReply(ErrorInvalidVFID, 0), []uint32{0x80010001, 0xE000000C}},
}

func TestGolden(t *testing.T) {
	for _, g := range golden {
		hxg := g.packet.Dwords()
		header := CTBHeader{Fence: g.fence, Dwords: uint8(len(hxg))}
		if got := append([]uint32{header.Encode()}, hxg...); !slices.Equal(got, g.want) {
			t.Errorf("%s: %08x, want %08x", g.name, got, g.want)
		}
		back, err := Parse(g.want[1:])
		if err != nil || !slices.Equal(back.Dwords(), hxg) {
			t.Errorf("%s: parsed back as %+v, %v", g.name, back, err)
		}
		if h, err := DecodeCTBHeader(g.want[0]); err != nil || h != header {
			t.Errorf("%s: header %+v, %v", g.name, h, err)
		}
	}
}

func TestGoldenMMIO(t *testing.T) {
	cases := []struct {
		packet Packet
		want   [4]uint32
	}{
		{Request(SelfCfg{Key: KLVH2GSize, Length: 1, Value: 4096}), [4]uint32{0x00000508, 0x09040001, 0x1000, 0}},
		{Request(ControlCTB{Enable: true}), [4]uint32{0x00004509, 1}},
		{SuccessReply(1), [4]uint32{0xF0000001}},
		{Request(ResfixStart{Marker: 0xABC}), [4]uint32{0x0ABC550F}},
		{Request(ResfixDone{Marker: 0xABC}), [4]uint32{0x0ABC5508}},
		{FailureReply(ErrorVFMigrated, 0), [4]uint32{0xE0000107}},
		{SuccessReply(0), [4]uint32{0xF0000000}},
	}
	for _, c := range cases {
		got, err := AppendMMIO(c.packet)
		if err != nil || got != c.want {
			t.Errorf("%08x, %v, want %08x", got, err, c.want)
		}
		back, err := ParseMMIO(got)
		if again, err2 := AppendMMIO(back); err != nil || err2 != nil || again != c.want {
			t.Errorf("%08x parsed back as %+v, %v", got, back, err)
		}
	}
	if _, err := AppendMMIO(Request(RegisterContext{})); err == nil {
		t.Error("a message of 12 dwords fitted into the mailbox")
	}
}

func TestLRCDescriptor(t *testing.T) {
	d := LRCDescriptor{LRC: 0x00123000 - PPHWSPOffset}
	if d.Encode() != 0x00123019 {
		t.Errorf("descriptor %#x, want 0x123019", d.Encode())
	}
	d.PrivateSpace = true
	if d.Encode() != 0x00123119 {
		t.Errorf("descriptor %#x, want 0x123119", d.Encode())
	}
	for _, bad := range []uint64{0, 0x00123018, 0x00123011, 0x00003019, 1<<40 | 0x00123019} {
		if got, err := DecodeLRCDescriptor(bad); err == nil {
			t.Errorf("%#x decoded as %+v", bad, got)
		}
	}
	if back, err := DecodeLRCDescriptor(d.Encode()); err != nil || back != d {
		t.Errorf("decoded as %+v, %v", back, err)
	}
}

func TestParseRefuses(t *testing.T) {
	cases := []struct {
		dw   []uint32
		code ErrorCode
	}{
		{nil, ErrorProtocol},
		{[]uint32{0x40001000, 7}, ErrorProtocol},         // Unused type.
		{[]uint32{0x20001000}, ErrorInvalidParams},       // Too short.
		{[]uint32{0x20001000, 7, 7}, ErrorInvalidParams}, // Too long.
		{[]uint32{0x20011000, 7}, ErrorInvalidParams},    // Reserved DATA0.
		{[]uint32{0x20001001, 7, 2}, ErrorInvalidParams}, // Neither enable nor disable.
		{[]uint32{0x90001002, 7, 2}, ErrorInvalidParams}, // Likewise.
		{[]uint32{0x2000100B, 7, 0x20010002, 1}, ErrorMalformedKLV},
		{[]uint32{0xE0000100, 0}, ErrorProtocol}, // Failures have one dword.
		{[]uint32{0x20007000, 1, 1}, ErrorInvalidParams},
		{[]uint32{0x00005506, 3, 6}, ErrorInvalidParams}, // No such command.
		{[]uint32{0x00015506, 3, 1}, ErrorInvalidParams}, // DATA0.
		{[]uint32{0x90005106, 3, 0}, ErrorInvalidParams}, // No such state.
		{[]uint32{0x0002550B, 3, 0, 0, 0}, ErrorInvalidParams},
		{[]uint32{0x0001550B, 3, 0, 0, 1 << 28}, ErrorInvalidParams},
		{[]uint32{0x0000550B, 3, 0, 0}, ErrorInvalidParams},
		{[]uint32{0x0000550F}, ErrorInvalidParams}, // No marker.
		{[]uint32{0x00005508}, ErrorInvalidParams},
		{make([]uint32, 256), ErrorProtocol},
	}
	for _, c := range cases {
		_, err := Parse(c.dw)
		wire, typed := err.(*WireError)
		if !typed || wire.Code != c.code {
			t.Errorf("%08x: %v, want code %s", c.dw, err, c.code)
		}
	}
}

func TestDescribe(t *testing.T) {
	cases := map[string][]uint32{
		"FAST_REQUEST SCHED_CONTEXT_MODE_SET guc_id=7 enable=true":                        {0x20001001, 7, 1},
		"EVENT ENGINE_FAILURE_NOTIFICATION class=4 instance=0 reason=0xab":                {0x90001009, 4, 0, 0xAB},
		"FAILURE context not registered (0x100) hint=0x0":                                 {0xE0000100},
		"REQUEST SAVE_RESTORE_VF vfid=3 restore=true address=0x1000 dwords=96":            {0x0001550B, 3, 0x1000, 0, 96},
		"EVENT VF_STATE_NOTIFY vfid=1 state=pause-done":                                   {0x90005106, 1, 3},
		"REQUEST VF_CONTROL vfid=1 command=resume":                                        {0x00005506, 1, 2},
		"REQUEST RESFIX_START marker=0x1":                                                 {0x0001550F},
		"REQUEST UPDATE_SCHEDULING_POLICIES_KLV render-compute-yield=[80 20]":             {0x00000509, 0x10010002, 80, 20},
		"FAST_REQUEST UPDATE_CONTEXT_POLICIES guc_id=7 priority=2 0x2006 quantum-us=1000": {0x2000100B, 7, 0x20030001, 2, 0x20060000, 0x20010001, 1000},
		"REQUEST SELF_CFG key=h2g-size value=0x1000":                                      {0x00000508, 0x09040001, 0x1000, 0},
		"REQUEST MATCH_VERSION version=0.1.27":                                            {0x00005500, 0x00011B00},
		"EVENT STATE_CAPTURE_NOTIFICATION status=1":                                       {0x90008002, 1},
		"EVENT TLB_INVALIDATION_DONE seqno=9":                                             {0x90007001, 9},
		"EVENT NOTIFY_EXCEPTION":                                                          {0x90008005},
	}
	for want, dw := range cases {
		if got := Describe(dw); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestDescribeCTB(t *testing.T) {
	for want, words := range map[string][]uint32{
		"EVENT SCHED_CONTEXT_MODE_DONE guc_id=7 enabled=true":                  {0x00000003, 0x90001002, 7, 1},
		"fence=0x8002 FAST_REQUEST SCHED_CONTEXT guc_id=7":                     {0x80020002, 0x20001000, 7},
		"fence=0x0012 SUCCESS 0x60":                                            {0x00120001, 0xF0000060},
		"malformed header 00000004: EVENT CONTEXT_RESET_NOTIFICATION guc_id=7": {0x00000004, 0x90001008, 7},
		"malformed header 0000ff02: EVENT CONTEXT_RESET_NOTIFICATION guc_id=7": {0x0000FF02, 0x90001008, 7},
		"malformed: no header":                                                 nil,
	} {
		if got := DescribeCTB(words); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, g := range golden {
		f.Add(pack(g.want[1:]))
	}
	f.Add(pack(JobProgram{LRC: 0x40000, Seqno: 7, Batch: 0x7E0000000000}.Append(nil)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dw := unpack(raw)
		Describe(dw)
		DescribeCTB(dw)
		p, err := Parse(dw)
		if err != nil {
			if _, typed := err.(*WireError); !typed {
				t.Fatalf("%08x: error %T", dw, err)
			}
		} else if again := p.Dwords(); !slices.Equal(again, dw) {
			t.Fatalf("%08x encodes again as %08x", dw, again)
		}
		if len(dw) > 1 {
			if d, err := DecodeLRCDescriptor(wide(dw)); err == nil && d.Encode() != wide(dw) {
				t.Fatalf("LRC descriptor %#x encodes again as %#x", wide(dw), d.Encode())
			}
			if s, ok := DecodePower(dw[0]); ok != (uint32(s) == dw[0] && (s == PowerD0 || s == PowerD3Hot || s == PowerD3Cold)) {
				t.Fatalf("power %#x is %s, %t", dw[0], s, ok)
			}
		}
		if list, err := ParseKLVs(dw); err == nil && !slices.Equal(AppendKLVs(nil, list), dw) {
			t.Fatalf("KLVs %08x encode again as %08x", dw, AppendKLVs(nil, list))
		}
		if j, err := DecodeJobProgram(dw); err == nil && !slices.Equal(j.Append(nil), dw) {
			t.Fatalf("job %08x encodes again as %08x", dw, j.Append(nil))
		}
		if c, n, err := DecodeCommand(dw); err == nil && !slices.Equal(c.Append(nil), dw[:n]) {
			t.Fatalf("command %08x encodes again as %08x", dw[:n], c.Append(nil))
		}
		if len(dw) >= MMIODwords {
			box := [MMIODwords]uint32(dw)
			DescribeMMIO(box)
			if _, err := ParseMMIO(box); err != nil {
				if _, typed := err.(*WireError); !typed {
					t.Fatalf("%08x: error %T", box, err)
				}
			}
		}
	})
}

func pack(dw []uint32) (raw []byte) {
	for _, v := range dw {
		raw = append(raw, byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
	}
	return raw
}

func unpack(raw []byte) (dw []uint32) {
	for ; len(raw) >= 4; raw = raw[4:] {
		dw = append(dw, uint32(raw[0])|uint32(raw[1])<<8|uint32(raw[2])<<16|uint32(raw[3])<<24)
	}
	return dw
}
