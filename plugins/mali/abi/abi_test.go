package abi

import (
	"errors"
	"reflect"
	"testing"
)

// instructionWords are the golden words of the reference, sections 3.5 and 4.
var instructionWords = []struct {
	text string
	word uint64
	want Instruction
}{
	{"MOVE32 dst=r94 imm=0x7", 0x025e000000000007, Instruction{Op: OpMove32, Dest: 94, Imm: 7}},
	{"FLUSH_CACHE2 l2=0x3 lsc=0x3 other=0x2 flush=r94", 0x24005e0000000233,
		Instruction{Op: OpFlushCache2, L2: FlushCleanInvalidate, LSC: FlushCleanInvalidate, OtherCaches: FlushInvalidate, Source: 94}},
	{"MOVE48 dst=d92 imm=0x1000000", 0x015c000001000000, Instruction{Op: OpMove48, Dest: 92, Imm: 0x1000000}},
	{"MOVE32 dst=r94 imm=0x38", 0x025e000000000038, Instruction{Op: OpMove32, Dest: 94, Imm: 0x38}},
	{"WAIT sb=0x1", 0x0300000000010000, Instruction{Op: OpWait, Mask: 1}},
	{"CALL addr=d92 length=r94", 0x20005c5e00000000, Instruction{Op: OpCall, Address: 92, Length: 94}},
	{"MOVE48 dst=d92 imm=0x7fff00010000", 0x015c7fff00010000, Instruction{Op: OpMove48, Dest: 92, Imm: 0x7fff00010000}},
	{"MOVE48 dst=d94 imm=0x1", 0x015e000000000001, Instruction{Op: OpMove48, Dest: 94, Imm: 1}},
	{"WAIT sb=0xff", 0x0300000000ff0000, Instruction{Op: OpWait, Mask: 0xFF}},
	{"SYNC_ADD64 data=d94 addr=d92 propagate=0x1", 0x33005c5e00000001, Instruction{Op: OpSyncAdd64, Source: 94, Address: 92, Propagate: true}},
	{"ERROR_BARRIER", 0x2f00000000000000, Instruction{Op: OpErrorBarrier}},
	{"BRANCH src=r4 cond=eq offset=1", 0x1600040020000001, Instruction{Op: OpBranch, Source: 4, Condition: Equal, Offset: 1}},
	{"BRANCH src=r10 cond=eq offset=-5", 0x16000a002000fffb, Instruction{Op: OpBranch, Source: 10, Condition: Equal, Offset: -5}},
	{"STORE_MULTIPLE base=r70 addr=d68 mask=0x1 offset=0", 0x1546440000010000, Instruction{Op: OpStoreMultiple, Dest: 70, Address: 68, Mask: 1}},
	{"SYNC_WAIT32 data=r2 addr=d0 cond=gt", 0x2700000210000000, Instruction{Op: OpSyncWait32, Source: 2, Condition: Greater}},
	{"SYNC_SET32 data=r2 addr=d0", 0x2600000200000000, Instruction{Op: OpSyncSet32, Source: 2}},
	{"NOP", 0, Instruction{}},
	{"RUN_COMPUTE increment=0x40 axis=0x1 progress=0x1 srt=0x1 spd=0x2 tsd=0x3 fau=0x1", 0x0400_7901_0000_4040,
		Instruction{Op: OpRunCompute, Increment: 0x40, Axis: 1, Progress: true, SRT: 1, SPD: 2, TSD: 3, FAU: 1}},
	{"STORE_STATE state=0x1 addr=d92 offset=8 wait=0xff signal=0x2", 0x28025c0100ff0008,
		Instruction{Op: OpStoreState, State: StateCycles, Address: 92, Offset: 8, WaitMask: 0xFF, Signal: 2}},
	{"ADD_IMM32 dst=r4 src=r4 imm=-1", 0x10040400ffffffff, Instruction{Op: OpAddImm32, Dest: 4, Source: 4, Imm: ^uint64(0)}},
	{"SET_SB_ENTRY endpoint=0x2 other=0x3", 0x1700000000000032, Instruction{Op: OpSetSBEntry, Endpoint: 2, Other: 3}},
	{"REQ_RESOURCE resources=0x1", 0x2200000000000001, Instruction{Op: OpReqResource, Resources: ResourceCompute}},
	{"JUMP addr=d2 length=r4", 0x2100020400000000, Instruction{Op: OpJump, Address: 2, Length: 4}},
	{"LOAD_MULTIPLE base=r37 addr=d10 mask=0x7 offset=-4", 0x14250a000007fffc, Instruction{Op: OpLoadMultiple, Dest: 37, Address: 10, Mask: 7, Offset: -4}},
	{"PROGRESS_WAIT src=d6 queue=0x3", 0x1800060000000003, Instruction{Op: OpProgressWait, Source: 6, Queue: 3}},
}

func TestGoldenInstructions(t *testing.T) {
	for _, g := range instructionWords {
		if got := g.want.Encode(); got != g.word {
			t.Errorf("%s encodes as %016x, want %016x", g.text, got, g.word)
		}
		back, err := DecodeInstruction(g.word)
		if err != nil || back != g.want {
			t.Errorf("%016x decodes as %+v, %v", g.word, back, err)
		}
		if got := Describe(g.word); got != g.text {
			t.Errorf("%016x is described as %q, want %q", g.word, got, g.text)
		}
	}
	b := make([]byte, 16)
	EncodeStream(b, []Instruction{{Op: OpWait, Mask: 1}, {Op: OpErrorBarrier}})
	if get64(b) != 0x0300000000010000 || get64(b[8:]) != 0x2f00000000000000 {
		t.Errorf("stream %x", b)
	}
}

func TestInstructionRefusals(t *testing.T) {
	for _, word := range []uint64{
		0xFF << 56, 0x0A << 56, // Unknown.
		0x015d000000000000,            // Odd pair.
		0x0280_0001_0000_0000 | 1<<40, // Bits between the fields.
		0x2f00000000000001, 0x0300000001000000,
	} {
		var bad *InstructionError
		if i, err := DecodeInstruction(word); !errors.As(err, &bad) || bad.Word != word {
			t.Errorf("%016x decoded as %+v, %v", word, i, err)
		}
	}
	if OpFlushCache2.String() != "FLUSH_CACHE2" || Opcode(0xFF).String() != "OP_0xff" || Opcode(0xFF).Known() {
		t.Error("names of opcodes")
	}
	if n := len(Opcodes()); n != len(layouts) {
		t.Errorf("%d opcodes", n)
	}
}

func FuzzInstruction(f *testing.F) {
	for _, g := range instructionWords {
		f.Add(g.word)
	}
	for _, o := range Opcodes() {
		f.Add(uint64(o)<<56 | 0x0044660155AA7733)
	}
	f.Fuzz(func(t *testing.T, word uint64) {
		Describe(word)
		i, err := DecodeInstruction(word)
		if err != nil {
			if _, typed := err.(*InstructionError); !typed {
				t.Fatalf("%016x: error %T", word, err)
			}
			return
		}
		if again := i.Encode(); again != word {
			t.Fatalf("%016x encodes again as %016x", word, again)
		}
	})
}

func TestConditions(t *testing.T) {
	for c, want := range map[Condition][3]bool{
		LessOrEqual: {true, true, false}, Greater: {false, false, true}, Equal: {false, true, false}, NotEqual: {true, false, true},
		Less: {true, false, false}, GreaterOrEqual: {false, true, true}, Always: {true, true, true}, 7: {},
	} {
		for n, v := range []int32{-1, 0, 1} {
			if c.Holds(v) != want[n] {
				t.Errorf("%s of %d is %t", c, v, !want[n])
			}
		}
	}
}

func TestRequests(t *testing.T) {
	// Bit 1 is pending already, bit 2 is not: both are pending afterwards, bit 0 is left alone.
	if req := Toggle(0b010, 0b101, 0b110); Pending(req, 0b101)&0b110 != 0b110 || req&1 != 0 {
		t.Errorf("toggled to %03b", req)
	}
	if ack := Acknowledge(0b101, 0b010, 0b110); ack != 0b011 {
		t.Errorf("acknowledged as %03b", ack)
	}
	if v := SetField(0xF7, GroupStateMask, uint32(GroupSuspend)); v != 0xF2 {
		t.Errorf("field set to %#x", v)
	}
}

func TestFields(t *testing.T) {
	for name, got := range map[string][2]uint32{
		"version":   {Version{1, 1, 3}.Encode(), 0x01010003},
		"features":  {CSFeatures{96, 8, true, true, true}.Encode(), 0x7085F},
		"endpoints": {Endpoints{4, 3, 1, true, false, 15}.Encode(), 0xF0110304},
		"config":    {StreamConfigWord(7, 3), 0x307},
		"idle":      {TimerUnits(800, 24_000_000), 19},
		"power off": {TimerUnits(10_000, 24_000_000), 235},
		"progress":  {TimerUnits(1, 24_000_000), 1},
		"timer":     {Timer{19, true}.Encode(), 0x80000013},
		"reset":     {CommandSoftReset, 0x101},
		"flush":     {CommandFlush(FlushCleanInvalidate, FlushClean, FlushInvalidate), 0x21304},
		"wait":      {WaitStatus{Scoreboards: 3, Source: WaitSourceWait, Condition: Greater, Sync: true}.Encode(), 0x81080003},
		"fault":     {Fault{ExceptionInherit, 0x12}.Encode(), 0x124B},
		"mmu fault": {ASFault{ExceptionTranslationPage, AccessWrite, 0x17}.Encode(), 0x001703C3},
		"resource":  {ResourceStatus(ResourceCompute, ResourceCompute), 0x10001},
		"size":      {WorkgroupSize{8, 4, 1, true}.Encode(), 0x80000C07},
		"selected":  {uint32(Selected(RegisterSPD, 3)), 22},
		"doorbell":  {RegDoorbell(2), 0xA0000},
		"as":        {ASBase(1) + RegASCommand, 0x2458},
	} {
		if got[0] != got[1] {
			t.Errorf("%s is %#x, want %#x", name, got[0], got[1])
		}
	}
	if GlobalInputSize != 0x84 || GroupInputSize != 0x58 || StreamInputSize != 0x58 || StreamOutputSize != 0xD8 ||
		GroupControlSize != 0x1C || StreamControlSize != 12 || GlobalToggles != 0xC000035E {
		t.Errorf("sizes; toggles %#x", GlobalToggles)
	}
	if _, _, _, ok := DecodeCommandFlush(CommandSoftReset); ok {
		t.Error("a reset is no flush")
	}
	if l2, lsc, other, ok := DecodeCommandFlush(0x21304); !ok || l2 != 3 || lsc != 1 || other != 2 {
		t.Error("flush decoded wrongly")
	}
}

func FuzzFields(f *testing.F) {
	f.Add(uint32(0x7085F), []byte{0x18, 0, 0, 0x80})
	f.Fuzz(func(t *testing.T, v uint32, b []byte) {
		DescribeGlobal(v)
		DescribeGroup(v, ^v)
		DescribeStream(v, ^v)
		DescribeInterrupt(v)
		DescribeFault(v)
		if DecodeVersion(v).Encode() != v || DecodeFault(v).Encode() != v || DecodeTimer(v).Encode() != v {
			t.Fatalf("%#x changed", v)
		}
		if g, ok := DecodeWorkgroupSize(v); ok && g.Encode() != v {
			t.Fatalf("workgroup size %#x changed", v)
		}
		if e := DecodeEndpoints(v); DecodeEndpoints(e.Encode()) != e {
			t.Fatalf("endpoints %#x changed", v)
		}
		if w := DecodeWaitStatus(v); DecodeWaitStatus(w.Encode()) != w {
			t.Fatalf("wait status %#x changed", v)
		}
		if c := DecodeCSFeatures(v); DecodeCSFeatures(c.Encode()) != c {
			t.Fatalf("features %#x changed", v)
		}
		if s, err := DecodeShaderProgram(b); err == nil {
			again := make([]byte, ShaderProgramSize)
			s.Encode(again)
			if !reflect.DeepEqual(again, b[:ShaderProgramSize]) {
				t.Fatalf("shader program %x became %x", b, again)
			}
		}
		if l, err := DecodeLocalStorage(b); err == nil {
			again := make([]byte, LocalStorageSize)
			l.Encode(again)
			if !reflect.DeepEqual(again, b[:LocalStorageSize]) {
				t.Fatalf("local storage %x became %x", b, again)
			}
		}
		if r, err := DecodeResource(b); err == nil {
			again := make([]byte, ResourceSize)
			r.Encode(again)
			if !reflect.DeepEqual(again, b[:ResourceSize]) {
				t.Fatalf("resource %x became %x", b, again)
			}
		}
	})
}

func TestDescriptions(t *testing.T) {
	for got, want := range map[string]string{
		DescribeGlobal(GlobalPing | GlobalIdleEnable | 1<<11): "PING|IDLE_EN|0x800",
		DescribeGroup(2, GroupStateMask|GroupEndpointCfg):     "SUSPEND|EP_CFG",
		DescribeGroup(5, GroupStateMask):                      "STATE_5",
		DescribeGroup(1, GroupSyncUpdate):                     "SYNC_UPDATE",
		DescribeStream(1, 1|StreamIdleEmpty):                  "START|IDLE_EMPTY",
		DescribeStream(0, StreamFaultEvent):                   "FAULT",
		DescribeInterrupt(JobIntGlobal | JobIntGroup(3)):      "CSG3|GLB",
		DescribeFault(0xC3):                                   "TRANSLATION_FAULT_3",
		DescribeFault(0x10041):                                "CS_UNRECOVERABLE data=0x100",
		Exception(0x99).String():                              "EXCEPTION_0x99",
		ASCommandName(ASCommandFlushMem):                      "FLUSH_MEM",
		BlockedSync.String():                                  "sync",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

var sections = []Section{
	{Name: "code", Start: 0x800000, End: 0x810000, Flags: SectionRead | SectionExecute, Content: []byte("build 1")},
	{Name: "data!", Start: 0x900000, End: 0x920000, Flags: SectionRead | SectionWrite | SectionZeroFill},
	{Name: "shared", Start: SharedBase, End: SharedBase + 0x20000, Flags: SectionRead | SectionWrite | SectionShared | SectionZeroFill},
}

func TestImage(t *testing.T) {
	b, err := EncodeImage(sections)
	if err != nil || get32(b) != 0xC3F13A6E {
		t.Fatal(err)
	}
	back, err := DecodeImage(b)
	if err != nil || len(back) != 3 || string(back[0].Content) != "build 1" || back[1].Name != "data!" || back[2].End != SharedBase+0x20000 {
		t.Errorf("%+v, %v", back, err)
	}
	for _, s := range []Section{
		{Start: 1, End: 0x10000}, {Start: 0x10000, End: 0x10000}, {End: 0x10000, Content: make([]byte, 0x10001)},
		{End: 0x10000, Flags: 1 << 9}, {End: 0x10000, Flags: SectionShared}, {End: 0x10000, Name: "a\x00b"},
	} {
		if _, err := EncodeImage([]Section{s}); err == nil {
			t.Errorf("%+v was encoded", s)
		}
	}
}

func FuzzImage(f *testing.F) {
	b, err := EncodeImage(sections)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeImage(b)
		if err != nil {
			var bad *ImageError
			if !errors.As(err, &bad) {
				t.Fatalf("error %T", err)
			}
			return
		}
		again, err := EncodeImage(s)
		if err != nil {
			t.Skip() // Contents that overlap can be larger than an image.
		}
		back, err := DecodeImage(again)
		if err != nil || len(back) != len(s) {
			t.Fatalf("decoded again: %v", err)
		}
		for i := range s {
			if s[i].Name != back[i].Name || s[i].Start != back[i].Start || s[i].End != back[i].End || string(s[i].Content) != string(back[i].Content) {
				t.Fatalf("section %d changed", i)
			}
		}
	})
}
