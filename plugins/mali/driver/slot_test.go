package driver

import (
	"bytes"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/hashicorp/go-hclog"
)

// bareSlot is a slot with an active group over plain memory: the test is the firmware.
func bareSlot(t *testing.T) (*Driver, *slot) {
	t.Helper()
	arena, err := hw.NewArena(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Close() })
	d := &Driver{config: Config{Arena: arena, Clock: hw.NewVirtualClock()}, log: hclog.NewNullLogger(), groups: map[core.EntityID]*group{}}
	s := &slot{iface: groupIface{input: hw.MemoryBase, output: hw.MemoryBase + hw.PageSize}}
	g := &group{d: d, key: 1, state: active, slot: s, suspend: hw.MemoryBase + 2*hw.PageSize}
	s.group, d.slots = g, []*slot{s}
	d.store(s.iface.input+abi.GroupReq, uint32(abi.GroupStart))
	d.store(s.iface.output+abi.GroupAck, uint32(abi.GroupStart))
	return d, s
}

// TestLateAcknowledgement: whoever escalates to TERMINATE may still see what it gave up waiting for;
// any other state contradicts.
func TestLateAcknowledgement(t *testing.T) {
	for _, c := range []struct {
		name  string
		asked []abi.GroupState
		acks  []abi.GroupState
		want  state
		left  bool
	}{
		{"none", []abi.GroupState{abi.GroupSuspend, abi.GroupTerminate}, []abi.GroupState{abi.GroupStart}, terminating, true},
		{"late suspend", []abi.GroupState{abi.GroupSuspend, abi.GroupTerminate}, []abi.GroupState{abi.GroupSuspend}, terminating, true},
		{"late suspend, then terminate", []abi.GroupState{abi.GroupSuspend, abi.GroupTerminate}, []abi.GroupState{abi.GroupSuspend, abi.GroupTerminate}, terminated, false},
		{"terminate", []abi.GroupState{abi.GroupSuspend, abi.GroupTerminate}, []abi.GroupState{abi.GroupTerminate}, terminated, false},
		{"another", []abi.GroupState{abi.GroupSuspend, abi.GroupTerminate}, []abi.GroupState{abi.GroupResume}, unknown, false},
		{"suspend that nobody asked for", []abi.GroupState{abi.GroupTerminate}, []abi.GroupState{abi.GroupSuspend}, unknown, false},
	} {
		d, s := bareSlot(t)
		for _, to := range c.asked {
			e := sendSuspend
			if to == abi.GroupTerminate {
				e = sendTerminate
			}
			d.askState(s, to, e)
		}
		for _, have := range c.acks {
			d.store(s.iface.output+abi.GroupAck, uint32(have))
			d.acknowledge(s)
		}
		if s.group.state != c.want || s.asked != 0 != c.left {
			t.Errorf("%s: %s, asked %#x", c.name, s.group.state, s.asked)
		}
	}
}

// TestEventsAcknowledgedFirst: when an event is handled its request word is written already: what the
// handling writes there is not undone.
func TestEventsAcknowledgedFirst(t *testing.T) {
	d, s := bareSlot(t)
	q := &queue{g: s.group, pages: hw.MemoryBase + 4*hw.PageSize, sync: hw.MemoryBase + 3*hw.PageSize}
	s.group.queues, s.group.buried, s.group.space = []*queue{q}, true, &space{}
	in, out := uint64(hw.MemoryBase+8*hw.PageSize), uint64(hw.MemoryBase+9*hw.PageSize)
	s.iface.streams = []streamIface{{in, out}}
	d.store(in+abi.StreamReq, abi.StreamStart)
	d.store(out+abi.StreamAck, abi.StreamStart|abi.StreamFatalEvent)
	d.store(out+abi.StreamFatal, abi.Fault{Exception: abi.ExceptionInvalidInstruction}.Encode())
	d.log = hclog.New(&hclog.LoggerOptions{Output: heard(func(line []byte) {
		if bytes.Contains(line, []byte("stream halted")) {
			d.store(in+abi.StreamReq, d.load(in+abi.StreamReq)&^abi.StreamStateMask) // As who takes it out of its slot.
		}
	})})
	d.serveStream(s, 0)
	if req := d.load(in + abi.StreamReq); req != abi.StreamFatalEvent {
		t.Errorf("REQ is %#x", req)
	}
}

// heard is called with each line of a log.
type heard func([]byte)

func (h heard) Write(p []byte) (int, error) {
	h(p)
	return len(p), nil
}
