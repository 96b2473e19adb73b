package fw_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
)

func TestNewRefusesBadConfigs(t *testing.T) {
	for name, change := range map[string]func(*fw.Config){
		"no arena":           func(c *fw.Config) { c.Arena = nil },
		"no engine":          func(c *fw.Config) { c.Engine = nil },
		"no doorbell":        func(c *fw.Config) { c.Ports.Doorbell = nil },
		"no instances":       func(c *fw.Config) { c.Classes = map[abi.EngineClass]int{4: 0} },
		"too many instances": func(c *fw.Config) { c.Classes = map[abi.EngineClass]int{4: 33} },
		"unknown class":      func(c *fw.Config) { c.Classes = map[abi.EngineClass]int{16: 1} },
		"negative":           func(c *fw.Config) { c.QuantumMin = -1 },
	} {
		h := newHost(t, nil)
		cfg := fw.Config{Arena: h.arena, Ports: h.ports, Engine: h.eng, Clock: h.clock}
		change(&cfg)
		if _, err := fw.New(cfg); !errors.Is(err, fw.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMailbox(t *testing.T) {
	h := newHost(t, nil)
	h.wantMMIO(0xE0000304, 0x4509, 1)                   // Enable before registration.
	h.wantMMIO(0xF0000001, 0x508, 0x09040001, 0x1000)   // Golden: H2G size 4096.
	h.wantMMIO(0xF0000000, 0x508, 0x12340001, 1)        // Golden: unknown key.
	h.wantMMIO(0xE0000102, 0x508, 0x09040001, 0x1800)   // Not a power of two.
	h.wantMMIO(0xE0000102, 0x508, 0x09040001, 0x800)    // Too small.
	h.wantMMIO(0xE0000102, 0x508, 0x09040001, 4<<20)    // Too large.
	h.wantMMIO(0xE0000103, 0x508, 0x09040002, 0x1000)   // Wrong length.
	h.wantMMIO(0xE0000080, 0x508, 0x09020002, 0x11004)  // Not aligned.
	h.wantMMIO(0xE0000080, 0x508, 0x09020002, 0)        // The registers.
	h.wantMMIO(0xE0000080, 0x508, 0x09020002, 0, 1<<16) // Beyond memory.
	h.wantMMIO(0xE0000030, 0x7777)
	h.wantMMIO(0xE0000020, 0x4100)
	h.wantMMIO(0xE0000004, 0x10004509, 1) // An event.
	if got := h.mmio(0x5500, 0); got != [4]uint32{0xF0000000, 0x00011B00} {
		t.Errorf("version %08x", got)
	}
	h.wantMMIO(0xE000000B, 0x5500, 0x00020000)
	if got := h.mmio(0x5509, 0x3000); got[0] != 0xF0000001 || got[1]>>22 != 20 {
		t.Errorf("graphics version %08x", got)
	}
	h.wantMMIO(0xE0000105, 0x5509, 0x3333)
	h.wantMMIO(0xF0000000, 0x5507)
	h.bringUp(4096, 4096)
	h.wantMMIO(0xE0000305, 0x4509, 1)               // Twice.
	h.wantMMIO(0xE0000305, 0x508, 0x09040001, 4096) // While open.
	h.wantMMIO(0xF0000000, 0x4509, 0)
	h.arena.Store32(h2gDesc+8, 1)
	h.wantMMIO(0xE0000306, 0x4509, 1) // STATUS set.
	select {
	case <-h.ports.Interrupt.C():
	default:
		t.Error("the mailbox raised no interrupt")
	}
	box := h.box()
	h.ports.Registers.Store(abi.RegNotify, 0) // A notification for the rings leaves the reply alone.
	h.step()
	if h.box() != box {
		t.Error("a reply was taken for a request")
	}
}

func TestGoldenLifeOfAContext(t *testing.T) {
	h := newReady(t, nil)
	h.send(0x8006000C, 0x20004502, 1, 7, 4, 1, 0, 0, 0, 0, 0, 0x00123019, 0)
	h.send(0x8003000A, 0x2000100B, 7, 0x20030001, 2, 0x20010001, 0x3E8, 0x20020001, 0x9C400, 0x20050001, 0)
	h.send(0x80010003, 0x20001001, 7, 1)
	h.want(modeDone(7, 1))
	h.send(0x80020002, 0x20001000, 7)
	h.send(0x80040004, 0x2000100B, 7, 0x20020001, 1)
	h.send(0x80010003, 0x20001001, 7, 0)
	h.want(modeDone(7, 0))
	h.send(0x80050002, 0x20004503, 7)
	h.want(deregistered(7))
	h.send(0x80010003, 0x20001001, 7, 1)
	h.want([]uint32{0x80010001, 0xE0000100}) // Golden failure.
	if c := h.fw.Counters(); c.H2G != 8 || c.G2H != 4 || c.Refused != 1 || c.ModeSets != 2 || c.ModeDones != 2 {
		t.Errorf("counters %+v", c)
	}
	var got []string
	for _, l := range h.trace.Last(14) {
		got = append(got, l.Kind+" "+l.Text)
	}
	want := strings.Split(`H2G fence=0x8002 FAST_REQUEST SCHED_CONTEXT guc_id=7
H2G fence=0x8004 FAST_REQUEST UPDATE_CONTEXT_POLICIES guc_id=7 preemption-us=1
H2G fence=0x8001 FAST_REQUEST SCHED_CONTEXT_MODE_SET guc_id=7 enable=false
CTX guc_id=7 enabled -> disabled
G2H EVENT SCHED_CONTEXT_MODE_DONE guc_id=7 enabled=false
IRQ message
H2G fence=0x8005 FAST_REQUEST DEREGISTER_CONTEXT guc_id=7
CTX guc_id=7 disabled -> deregistering
CTX guc_id=7 forgotten
G2H EVENT DEREGISTER_CONTEXT_DONE guc_id=7
IRQ message
H2G fence=0x8001 FAST_REQUEST SCHED_CONTEXT_MODE_SET guc_id=7 enable=true
G2H fence=0x8001 FAILURE context not registered (0x100) hint=0x0
IRQ message`, "\n")
	if !slices.Equal(got, want) {
		t.Errorf("trace\n%s", strings.Join(got, "\n"))
	}
}

func TestRefusals(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.DoneDelay = time.Second })
	g := h.context(1, 4, 1)
	desc := uint32(abi.LRCDescriptor{LRC: g.lrc, PrivateSpace: true}.Encode())
	register := func(flags, id, class, mask, wq, lo, hi uint32) []uint32 {
		return []uint32{0x8001000C, 0x20004502, flags, id, class, mask, wq, 0, 0, 0, 0, lo, hi}
	}
	h.context(2, 4, 1)
	h.fast(abi.DeregisterContext{ID: 2}) // Its DONE is a second away.
	h.context(3, 4, 1)
	h.fast(abi.SchedContextModeSet{ID: 3, Enable: true})
	h.want(modeDone(3, 1))
	for _, c := range []struct {
		name string
		code uint32
		dw   []uint32
	}{
		{"id too large", 0x61, register(1, 65535, 4, 1, 0, desc, 0)},
		{"no such class", 0x64, register(1, 9, 0, 1, 0, desc, 0)},
		{"no such instance", 0x64, register(1, 9, 4, 2, 0, desc, 0)},
		{"empty mask", 0x64, register(1, 9, 4, 0, 0, desc, 0)},
		{"registered twice", 0x101, register(1, 1, 4, 1, 0, desc, 0)},
		{"being deregistered", 0x90, register(1, 2, 4, 1, 0, desc, 0)},
		{"work queue", 0x62, register(1, 9, 4, 1, 8, desc, 0)},
		{"compression context", 0x62, register(3, 9, 4, 1, 0, desc, 0)},
		{"invalid descriptor", 0x80, register(1, 9, 4, 1, 0, desc&^1, 0)},
		{"descriptor beyond memory", 0x80, register(1, 9, 4, 1, 0, 0xFFFFF019, 0)},
		{"descriptor in the registers", 0x80, register(1, 9, 4, 1, 0, 0x00004019, 0)},
		{"register cut", 0x60, []uint32{0x80010002, 0x20004502, 1}},
		{"policies of nobody", 0x100, []uint32{0x80010002, 0x2000100B, 9}},
		{"policy key", 0x105, []uint32{0x80010004, 0x2000100B, 1, 0x20060001, 1}},
		{"policy length", 0x103, []uint32{0x80010005, 0x2000100B, 1, 0x20010002, 1, 1}},
		{"policy cut", 0x103, []uint32{0x80010003, 0x2000100B, 1, 0x20010001}},
		{"priority", 0x50, []uint32{0x80010004, 0x2000100B, 1, 0x20030001, 4}},
		{"preempt to idle", 0x50, []uint32{0x80010004, 0x2000100B, 1, 0x20040001, 2}},
		{"enable nobody", 0x100, []uint32{0x80010003, 0x20001001, 9, 1}},
		{"enable beyond ids", 0x61, []uint32{0x80010003, 0x20001001, 65535, 1}},
		{"mode 2", 0x60, []uint32{0x80010003, 0x20001001, 1, 2}},
		{"enable one being deregistered", 0x90, []uint32{0x80010003, 0x20001001, 2, 1}},
		{"submit nobody", 0x100, []uint32{0x80010002, 0x20001000, 9}},
		{"deregister nobody", 0x100, []uint32{0x80010002, 0x20004503, 9}},
		{"deregister an enabled one", 0x0A, []uint32{0x80010002, 0x20004503, 3}},
		{"multi-LRC", 0x20, []uint32{0x80010002, 0x20004601, 1}},
		{"an event of the firmware", 0x20, []uint32{0x80010003, 0x20001002, 1, 1}},
		{"unknown action", 0x30, []uint32{0x80010001, 0x20007777}},
		{"policy block in the registers", 0x80, []uint32{0x80010002, 0x20000506, 0}},
		{"policy block not valid", 0x60, []uint32{0x80010002, 0x20000506, 0x50000}},
		{"tlb seqno 0", 0x60, []uint32{0x80010003, 0x20007002, 0, 0}},
		{"tlb seqno too large", 0x60, []uint32{0x80010003, 0x20007002, 0x100000, 0}},
		{"opt-in beyond memory", 0x80, []uint32{0x80010004, 0x2000550E, 0, 0xFFFF, 1}},
		{"yield ratio", 0x50, []uint32{0x80010004, 0x20000509, 0x10010002, 80, 101}},
		{"global policy", 0x105, []uint32{0x80010003, 0x20000509, 0x10020001, 80}},
	} {
		h.send(c.dw...)
		if got := h.received(); len(got) != 1 || !slices.Equal(got[0], failed(c.code)) {
			t.Errorf("%s: %08x, want %#x", c.name, got, c.code)
		}
		event := slices.Clone(c.dw)
		event[1] = event[1]&^0x70000000 | 0x10000000
		h.send(event...)
		if got := h.received(); len(got) != 0 {
			t.Errorf("%s as event: %08x", c.name, got)
		}
		request := slices.Clone(c.dw)
		request[0], request[1] = request[0]&0xFF|0x00550000, request[1]&^0x70000000
		h.send(request...)
		if got := h.received(); len(got) != 1 || got[0][0] != 0x00550001 || got[0][1] != 0xE0000000|c.code {
			t.Errorf("%s as request: %08x", c.name, got)
		}
	}
	h.run(time.Second)
	h.want(deregistered(2))
}

func TestRequestsAreAnsweredOnce(t *testing.T) {
	h := newReady(t, nil)
	h.send(0x00120004, 0x00000509, 0x10010002, 80, 20)
	h.want([]uint32{0x00120001, 0xF0000001})
	h.arena.Store32(0x50000, 0x40010000)
	h.send(0x00130004, 0x0000550E, 0x50000, 0, 1)
	h.want([]uint32{0x00130001, 0xF0000001})
	h.arena.Store32(0x50000, 0x40030000)
	h.send(0x00130004, 0x0000550E, 0x50000, 0, 1)
	h.want([]uint32{0x00130001, 0xE0000020})
	h.send(0x00140003, 0x00007002, 5, 0)
	h.want([]uint32{2, 0x90007001, 5}, []uint32{0x00140001, 0xF0000000})
	h.arena.Store32(0x50000+4*17, 1)
	h.send(0x00150002, 0x00000506, 0x50000)
	h.want([]uint32{0x00150001, 0xF0000000})
	h.context(1, 4, 1)
	h.send(0x8001000C, 0x10004502, 1, 1, 4, 1, 0, 0, 0, 0, 0, 0x00123019, 0) // A duplicate as event is dropped.
	h.want()
	if c := h.fw.Counters(); c.RefusedEvents != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestRedundantModeSetsAreAnswered(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(4, 4, 1)
	g.disable()
	g.disable()
	h.want(modeDone(4, 0), modeDone(4, 0))
	g.enable()
	g.enable()
	h.want(modeDone(4, 1), modeDone(4, 1))
	g.disable()
	h.want(modeDone(4, 0))
	g.kick() // Dropped, with a counter and no answer.
	h.want()
	if c := h.fw.Counters(); c.Dropped != 1 {
		t.Errorf("counters %+v", c)
	}
}

func TestWrappedAndPaddedMessages(t *testing.T) {
	for _, wrap := range []bool{false, true} {
		h := newReady(t, nil)
		h.h2g.Wrap = wrap
		for i := range 2000 {
			h.send(0x00110002+uint32(i)<<16&0x7FFF0000, 0x00001000, 9)
			want := uint32(0x0011+i)&0x7FFF<<16 | 1
			if got := h.received(); len(got) != 1 || got[0][0] != want || got[0][1] != 0xE0000100 {
				t.Fatalf("wrap %t, message %d: %08x, want fence %#x", wrap, i, got, want)
			}
		}
		if c := h.fw.Counters(); c.H2G != 2000 || c.Broken != 0 {
			t.Errorf("wrap %t: counters %+v", wrap, c)
		}
	}
}

func TestCorruptionSilencesTheChannel(t *testing.T) {
	for name, c := range map[string]struct {
		status uint32
		write  func(*host)
	}{
		"tail out of range": {1, func(h *host) { h.arena.Store32(h2gDesc+4, 1024) }},
		"truncated":         {2, func(h *host) { h.arena.Store32(h2gBuffer, 0x80010009); h.arena.Store32(h2gDesc+4, 2) }},
		"format":            {2, func(h *host) { h.arena.Store32(h2gBuffer, 0x80011001); h.arena.Store32(h2gDesc+4, 2) }},
		"no length":         {2, func(h *host) { h.arena.Store32(h2gBuffer, 0x80010000); h.arena.Store32(h2gDesc+4, 2) }},
		"head moved":        {4, func(h *host) { h.arena.Store32(h2gDesc, 3) }},
		"status set":        {8 + 1, func(h *host) { h.arena.Store32(h2gDesc+8, 9) }},
		"origin": {2, func(h *host) {
			h.arena.Store32(h2gBuffer, 0x80010001)
			h.arena.Store32(h2gBuffer+4, 0xA0001000)
			h.arena.Store32(h2gDesc+4, 2)
		}},
		"a reply": {2, func(h *host) {
			h.arena.Store32(h2gBuffer, 0x80010001)
			h.arena.Store32(h2gBuffer+4, 0x70001000)
			h.arena.Store32(h2gDesc+4, 2)
		}},
	} {
		h := newReady(t, nil)
		c.write(h)
		h.step()
		if got, _ := h.arena.Load32(h2gDesc + 8); got != c.status {
			t.Errorf("%s: status %d, want %d", name, got, c.status)
		}
		h.step()
		if n := h.fw.Counters(); n.Broken != 1 {
			t.Errorf("%s: counters %+v", name, n)
		}
		h.want()
		h.bringUp(4096, 4096) // The mailbox lives: a new registration helps.
		h.context(2, 4, 1).enable()
		h.want(modeDone(2, 1))
	}
}

func TestFullG2HRingLosesNothing(t *testing.T) {
	h := newHost(t, func(c *fw.Config) { c.QueueMax = 100 })
	h.bringUp(4096, 4096)
	sent := uint32(0)
	for h.fw.Counters().G2HQueued < 90 {
		sent++
		h.send(sent<<16|3, 0x00007002, sent, 0)
	}
	// The queue is at its bound soon: the firmware takes no more, the host's ring fills.
	for {
		if ok, err := h.h2g.Room(3); err != nil {
			t.Fatal(err)
		} else if !ok {
			break
		}
		sent++
		h.send(sent<<16|3, 0x00007002, sent, 0)
	}
	if c := h.fw.Counters(); c.H2G >= uint64(sent) {
		t.Errorf("all %d messages taken although their answers have no room", sent)
	}
	next := uint32(1)
	for range 1000 {
		for _, m := range h.received() {
			if m[1] == 0x90007001 {
				if m[2] != next {
					t.Fatalf("acknowledged %d, want %d", m[2], next)
				}
				next++
			}
		}
		h.run(2 * time.Millisecond)
	}
	if next != sent+1 || h.fw.Counters().G2H != 2*uint64(sent) {
		t.Errorf("%d of %d acknowledged, %d messages", next-1, sent, h.fw.Counters().G2H)
	}
	if _, pending := h.clock.Next(); pending {
		t.Error("an idle firmware keeps a timer")
	}
}

func TestMessagesTakeTime(t *testing.T) {
	h := newReady(t, func(c *fw.Config) { c.MessageDelay = time.Millisecond })
	for i := range uint32(3) {
		h.send(i<<16|3, 0x00007002, i+1, 0)
	}
	if got := h.received(); len(got) != 2 {
		t.Fatalf("%08x at once", got)
	}
	h.run(time.Millisecond)
	if got := h.received(); len(got) != 2 {
		t.Fatalf("%08x after one delay", got)
	}
	h.run(time.Millisecond)
	if got := h.received(); len(got) != 2 || got[0][2] != 3 {
		t.Fatalf("%08x after two", got)
	}
}

func FuzzH2G(f *testing.F) {
	f.Add([]byte{3, 0, 1, 0x80, 0x01, 0x10, 0x00, 0x20, 1, 0, 0, 0, 1, 0, 0, 0}, uint32(4))
	f.Add([]byte{2, 0, 2, 0x80, 0x00, 0x10, 0x00, 0x20, 1, 0, 0, 0}, uint32(3))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 0xFF}, uint32(2000))
	f.Fuzz(func(t *testing.T, b []byte, tail uint32) {
		h := newReady(t, nil)
		g := h.context(1, 4, 1)
		g.job("run", 5, time.Millisecond)
		g.enable()
		start, _ := h.arena.Load32(h2gDesc + 4)
		mem, _ := h.arena.Bytes(h2gBuffer, 4096)
		for i, v := range b[:min(len(b), 4096)] {
			mem[(int(start)*4+i)%4096] = v
		}
		h.arena.Store32(h2gDesc+4, start+tail)
		h.run(20 * time.Millisecond)
		if h.fw.Dead() {
			t.Error("bytes in the H2G ring killed the firmware")
		}
		h.wantMMIO(0xF0000000, 0x5500, 0)
	})
}
