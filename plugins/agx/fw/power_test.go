package fw_test

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
)

// stat is one statistics message.
func (h *host) powers() []abi.StatType {
	var out []abi.StatType
	for {
		entry, err := h.stats.Receive()
		if err != nil {
			h.Fatal(err)
		}
		if entry == nil {
			return out
		}
		var m abi.Stat
		if err := h.abi.Decode(entry, &m); err != nil {
			h.Fatal(err)
		}
		out = append(out, abi.StatType(m.Type))
	}
}

// TestIdleOff: the GPU goes off by itself and comes on again.
func TestIdleOff(t *testing.T) {
	h := newReady(t, nil)
	if !h.fw.Powered() {
		t.Fatal("off after Initialize and a kick")
	}
	if h.advance(4900 * time.Microsecond); !h.fw.Powered() {
		t.Error("a bare kick keeps it awake for 5 ms")
	}
	if h.advance(200 * time.Microsecond); h.fw.Powered() {
		t.Error("on with nothing to do")
	}
	h.setGlobal(abi.GlobalPendingSubmissions, 1)
	q := h.queue(2, 1, 1)
	q.submit("workgroup=1ms", 1)
	if h.advance(time.Second); !h.fw.Powered() || h.stamp(1) != q.value {
		t.Error("off with a submission pending")
	}
	h.setGlobal(abi.GlobalPendingSubmissions, 0)
	if h.advance(10 * time.Millisecond); h.fw.Powered() {
		t.Error("on with nothing pending")
	}
	got := h.powers()
	want := []abi.StatType{abi.StatPowerOn, abi.StatPowerOff, abi.StatPowerOn, abi.StatPowerOff}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("statistics %v", got)
	}
	if c := h.fw.Counters(); c.PowerOns != 2 || c.PowerOffs != 2 {
		t.Errorf("%+v", c)
	}
}

// TestPowerRace is row 28: a kick exactly while the GPU goes off is late, not lost.
func TestPowerRace(t *testing.T) {
	for _, delay := range []time.Duration{0, 2 * time.Millisecond} {
		h := newPlanned(t, "power-off race=3ms", func(c *fw.Config) { c.PowerOnDelay = delay })
		h.advance(5*time.Millisecond + delay)
		if h.advance(2 * time.Millisecond); h.fw.Powered() {
			t.Fatal("on")
		}
		off := h.clock.Now()
		q := h.queue(2, 1, 1)
		q.submit("workgroup=1ms", 1)
		for h.stamp(1) != q.value && h.clock.Now() < off+time.Second {
			h.advance(100 * time.Microsecond)
		}
		if late := h.clock.Now() - off; h.stamp(1) != q.value || late < time.Millisecond+delay || late > 6*time.Millisecond {
			t.Errorf("delay %s: done after %s", delay, late)
		}
		if h.fw.Counters().PowerOns < 2 {
			t.Errorf("%+v", h.fw.Counters())
		}
	}
}

// TestIdleDelay: the host can keep the GPU on for longer, or for no time.
func TestIdleDelay(t *testing.T) {
	for ms, want := range map[uint32]bool{0: false, 5000: true} {
		h := newHost(t, nil)
		h.setGlobal(abi.GlobalIdleOffDelayMS, ms)
		h.bringUp()
		h.queue(2, 1, 1).submit("workgroup=1ms", 1)
		if h.advance(100 * time.Millisecond); h.fw.Powered() != want {
			t.Errorf("%d ms: powered %t", ms, h.fw.Powered())
		}
	}
}
