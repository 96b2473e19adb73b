package fw_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
)

func TestCodesOfMisuses(t *testing.T) {
	good := abi.LRCDescriptor{LRC: 0x300000}.Encode()
	register := func(id abi.GUCID, class abi.EngineClass, mask uint32, flags uint32, lrc uint64) abi.Body {
		return abi.RegisterContext{Flags: flags, ID: id, Class: class, SubmitMask: mask, LRCDescriptor: lrc}
	}
	policy := func(k abi.KLV) abi.Body { return abi.UpdateContextPolicies{ID: 1, Policies: []abi.KLV{k}} }
	for misuse, c := range map[fw.Misuse]struct {
		code abi.ErrorCode
		body abi.Body
	}{
		fw.MisuseContextIndex:  {0x61, register(65535, 4, 1, 1, good)},
		fw.MisuseEngine:        {0x64, register(3, 4, 2, 1, good)},
		fw.MisuseRegistered:    {0x101, register(1, 4, 1, 1, good)},
		fw.MisuseDeregistering: {0x90, register(2, 4, 1, 1, good)},
		fw.MisuseRegistration:  {0x62, register(3, 4, 1, 2, good)},
		fw.MisuseAddress:       {0x80, register(3, 4, 1, 1, 0)},
		fw.MisuseNotRegistered: {0x100, abi.SchedContext{ID: 3}},
		fw.MisuseStillEnabled:  {0x0A, abi.DeregisterContext{ID: 1}},
		fw.MisuseOpposite:      {0x90, abi.SchedContextModeSet{ID: 4, Enable: true}},
		fw.MisusePolicyKey:     {0x105, policy(abi.Word(0x2006, 1))},
		fw.MisusePolicyLength:  {0x103, policy(abi.KLV{Key: abi.KLVPriority})},
		fw.MisusePolicyValue:   {0x50, policy(abi.Word(abi.KLVPriority, 4))},
		fw.MisusePolicyBlock:   {0x60, abi.GlobalSchedPolicyChange{Block: 0x50000}},
		fw.MisuseListSize:      {0x102, abi.OptInFeature{Address: 0x50000, Dwords: 256}},
		fw.MisuseSeqno:         {0x60, abi.TLBInvalidationAll{Seqno: 0}},
		fw.MisuseFunction:      {0x0C, abi.VFControl{Function: 9, Command: abi.VFPause}},
		fw.MisuseFunctionState: {0x0A, abi.VFControl{Function: 1, Command: abi.VFResume}},
		fw.MisuseNotPaused:     {0x0A, abi.SaveRestoreVF{Function: 1}},
		fw.MisuseNotSupported:  {0x20, abi.Opaque{Opcode: abi.ActionRegisterMultiQueue}},
		fw.MisuseUnknownAction: {0x30, abi.Opaque{Opcode: 0x7777}},
	} {
		for _, code := range []abi.ErrorCode{c.code, 0xF000} {
			h := newReady(t, func(c *fw.Config) {
				c.DoneDelay = time.Hour
				if code == 0xF000 {
					c.Codes = map[fw.Misuse]abi.ErrorCode{misuse: code}
				}
			})
			h.context(1, 4, 1).enable()
			h.context(2, 4, 1)
			h.fast(abi.DeregisterContext{ID: 2})
			g := h.context(4, 4, 1)
			g.policies(2, 0, 0)
			g.job("hang", 1, ms)
			g.enable()
			g.disable()
			h.received()
			h.fast(c.body)
			if got := h.received(); !slices.EqualFunc(got, [][]uint32{failed(uint32(code))}, slices.Equal) {
				t.Errorf("%s: %08x, want %#x", misuse, got, uint16(code))
			}
		}
	}
	for _, bad := range []fw.OpenPoints{
		{Codes: map[fw.Misuse]abi.ErrorCode{"nonsense": 1}}, {Codes: map[fw.Misuse]abi.ErrorCode{fw.MisuseEngine: 0}}, {Promote: -1},
		{ResetOrder: []abi.Action{abi.ActionContextReset}},
		{ResetOrder: []abi.Action{abi.ActionContextReset, abi.ActionContextReset, abi.ActionStateCapture}},
	} {
		h := newHost(t, nil)
		cfg := fw.Config{Arena: h.arena, Ports: h.ports, Engine: h.eng, Clock: h.clock, OpenPoints: bad}
		if _, err := fw.New(cfg); !errors.Is(err, fw.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestOrderOfAForcedDisable(t *testing.T) {
	messages := map[abi.Action][]uint32{
		abi.ActionStateCapture: captured(), abi.ActionContextReset: wasReset(1), abi.ActionSchedContextModeDone: modeDone(1, 0)}
	for _, order := range [][]abi.Action{
		nil,
		{abi.ActionStateCapture, abi.ActionSchedContextModeDone, abi.ActionContextReset},
		{abi.ActionSchedContextModeDone, abi.ActionContextReset, abi.ActionStateCapture},
		{abi.ActionContextReset, abi.ActionStateCapture, abi.ActionSchedContextModeDone},
	} {
		h := newReady(t, func(c *fw.Config) { c.ResetOrder = order })
		g := h.context(1, 4, 1)
		g.policies(2, 0, 10*ms)
		g.job("hang", 5, ms)
		g.enable()
		g.disable()
		h.received()
		h.run(10 * ms)
		if order == nil {
			order = []abi.Action{abi.ActionStateCapture, abi.ActionContextReset, abi.ActionSchedContextModeDone}
		}
		h.want(messages[order[0]], messages[order[1]], messages[order[2]])
		h.fast(abi.DeregisterContext{ID: 1})
		h.want(deregistered(1))
	}
}

func TestNewTimeoutOnARunningPreemption(t *testing.T) {
	for _, keep := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.KeepPreemption = keep })
		g := h.context(1, 4, 1)
		g.policies(2, 0, 100*ms)
		g.job("hang", 5, ms)
		g.enable()
		g.disable()
		h.run(ms)
		h.received()
		g.policies(2, 0, time.Microsecond) // Evict.
		h.run(98 * ms)
		if got := len(h.received()); (got == 0) != keep {
			t.Errorf("keep %t: %d messages after the eviction", keep, got)
		}
		h.run(2 * ms)
		if got := len(h.received()); (got == 0) == keep {
			t.Errorf("keep %t: %d messages after the old timeout", keep, got)
		}
	}
}

func TestQuantumAcrossPreemptions(t *testing.T) {
	for _, carry := range []bool{false, true} {
		h := newReady(t, func(c *fw.Config) { c.CarryQuantum = carry })
		g, equal, strong := h.context(1, 4, 1), h.context(2, 4, 1), h.context(3, 4, 1)
		for _, c := range []*gpuContext{g, equal} {
			c.policies(3, 10*ms, 640*ms)
			c.job("run", 100, ms)
		}
		strong.policies(1, 10*ms, 640*ms)
		g.enable()
		equal.enable()
		h.run(8 * ms) // 2 ms of g's quantum are left.
		strong.job("run", 5, ms)
		strong.enable()
		h.run(8 * ms)
		if id, _ := h.fw.Running(4, 0); (id == 2) != carry {
			t.Errorf("carry %t: context %d runs", carry, id)
		}
		h.run(7 * ms)
		if id, _ := h.fw.Running(4, 0); id != 2 {
			t.Errorf("carry %t: context %d runs", carry, id)
		}
	}
}

func TestPoliciesHoldFromTheNextSwitchIn(t *testing.T) {
	h := newReady(t, nil)
	g, other := h.context(1, 4, 1), h.context(2, 4, 1)
	want := func(want ...uint32) {
		t.Helper()
		for i, k := range h.fw.Policies(1) {
			if k.Value[0] != want[i] {
				t.Errorf("%v, want %d", k, want[i])
			}
		}
	}
	want(1000, 640_000, 3, 0, 0)
	all := []abi.KLV{abi.Word(abi.KLVExecutionQuantum, 5000), abi.Word(abi.KLVPreemptionTimeout, 0xFFFFFFFF), abi.Word(abi.KLVPriority, 2),
		abi.Word(abi.KLVPreemptToIdle, 1), abi.Word(abi.KLVFrequency, 1<<28)}
	h.fast(abi.UpdateContextPolicies{ID: 1, Policies: all})
	want(5000, abi.PolicyMaxUS, 2, 1, 1<<28) // Clamped to 100 s.
	h.fast(abi.UpdateContextPolicies{ID: 1, Policies: append(all[:2:2], abi.Word(abi.KLVPriority, 9))})
	h.want(failed(0x50)) // All or none.
	want(5000, abi.PolicyMaxUS, 2, 1, 1<<28)
	if h.fw.Policies(9) != nil {
		t.Error("a context that is not there has policies")
	}
	// A running context keeps level and quantum until it leaves the engine.
	g.policies(2, 50*ms, 0)
	other.policies(2, 50*ms, 0)
	g.job("run", 100, ms)
	other.job("run", 100, ms)
	g.enable()
	h.fast(abi.UpdateContextPolicies{ID: 1, Policies: []abi.KLV{abi.Word(abi.KLVPreemptToIdle, 0)}})
	g.policies(3, ms, 0)
	other.enable()
	h.run(49 * ms)
	if id, _ := h.fw.Running(4, 0); id != 1 {
		t.Errorf("context %d runs", id)
	}
	h.run(2 * ms)
	if id, _ := h.fw.Running(4, 0); id != 2 {
		t.Errorf("context %d runs", id)
	}
}

func TestPromotionOfTheWeak(t *testing.T) {
	for _, promote := range []time.Duration{0, 20 * ms} {
		h := newReady(t, func(c *fw.Config) { c.Promote = promote })
		var jobs []*gpuJob
		for id := range uint32(3) {
			g := h.context(id, 4, 1)
			g.policies(min(id, 1)*2+1, 5*ms, 640*ms) // One strong, two weak.
			jobs = append(jobs, g.job("run", 500*(1-min(id, 1))+5, ms))
			g.enable()
		}
		h.run(100 * ms)
		if jobs[1].done() != (promote > 0) || jobs[2].done() != (promote > 0) || jobs[0].done() {
			t.Errorf("promotion after %s: weak ones done %t %t", promote, jobs[1].done(), jobs[2].done())
		}
		h.run(time.Second)
		for _, j := range jobs {
			h.eng.exactlyOnce(t, core.JobID(j.id), j.count)
		}
	}
}

// TestFullTable registers every context there can be, runs some, and takes them
// all away again.
func TestFullTable(t *testing.T) {
	h := newReady(t, nil)
	g := h.context(0, 4, 1)
	say := func(b abi.Body) {
		if err := h.h2g.Send(0x8001, abi.FastRequest(b).Dwords()); err != nil {
			h.fw.Step()
			if err := h.h2g.Send(0x8001, abi.FastRequest(b).Dwords()); err != nil {
				t.Fatal(err)
			}
		}
	}
	// They share one ring, which has nothing in it but for the first and the last.
	lrc := abi.LRCDescriptor{LRC: h.image(1).lrc, PrivateSpace: true}.Encode()
	for id := abi.GUCID(1); id < abi.GUCIDMax-1; id++ {
		say(abi.RegisterContext{Flags: 1, ID: id, Class: 4, SubmitMask: 1, LRCDescriptor: lrc})
	}
	last := h.context(abi.GUCIDMax-1, 4, 1)
	h.fast(abi.RegisterContext{Flags: 1, ID: abi.GUCIDMax, Class: 4, SubmitMask: 1, LRCDescriptor: lrc})
	h.want(failed(0x61))
	for _, c := range []*gpuContext{g, last} {
		j := c.job("run", 5, ms)
		c.enable()
		h.run(5 * ms)
		h.want(modeDone(c.id, 1))
		if !j.done() {
			t.Errorf("context %d: %+v", c.id, j.report())
		}
		c.disable()
		h.want(modeDone(c.id, 0))
	}
	size := uint32(21 + 11*abi.GUCIDMax)
	h.ask(abi.VFControl{Function: 1, Command: abi.VFPause})
	h.ask(abi.SaveRestoreVF{Function: 1})
	h.want(answer(0xF0000000), notified(3), answer(0xF0000000|size))
	h.control(abi.VFResume)
	h.want(answer(0xF0000000))
	gone := 0
	for id := abi.GUCID(0); id < abi.GUCIDMax; id++ {
		say(abi.DeregisterContext{ID: id})
		if id%256 == 255 || id == abi.GUCIDMax-1 {
			h.fw.Step()
			gone += len(h.received())
			h.fw.Step()
			gone += len(h.received())
		}
	}
	for range 10 {
		h.fw.Step()
		gone += len(h.received())
	}
	if gone != abi.GUCIDMax {
		t.Errorf("%d contexts forgotten", gone)
	}
	h.fast(abi.SchedContext{ID: 5})
	h.want(failed(0x100))
}

// TestManyWaiting queues many contexts and changes their places.
func TestManyWaiting(t *testing.T) {
	const count = 200
	h := newReady(t, nil)
	var jobs []*gpuJob
	blocker := h.context(0, 4, 1)
	blocker.policies(0, 0, 0)
	blocker.job("run", 100, ms)
	blocker.enable()
	for id := uint32(1); id < count; id++ {
		g := h.context(id, 4, 1)
		g.policies(3, 0, 0)
		jobs = append(jobs, g.job("run", 1, ms))
		g.enable()
	}
	h.received()
	for id := uint32(1); id < count; id += 2 { // Every other one leaves the queue, by its middle.
		jobs[id-1].g.disable()
		jobs[id-1].g.enable()
	}
	h.run(time.Second)
	for i, j := range jobs {
		if !j.done() {
			t.Fatalf("job %d: %+v", i, j.report())
		}
	}
	var order []string
	for _, d := range h.eng.starts()[1:6] {
		order = append(order, string(rune('0'+uint64(d.Job)%10)))
	}
	if got := strings.Join(order, ""); got != "35791" {
		t.Errorf("order %s", got)
	}
}
