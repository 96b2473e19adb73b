package fw_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// validate is what a host checks after a boot; "" when all is well.
func (h *host) validate() string {
	inside := func(va uint32) bool {
		end := uint64(0)
		for _, s := range h.image {
			if s.Flags&abi.SectionShared != 0 {
				end = s.End
			}
		}
		return uint64(va) >= abi.SharedBase && uint64(va)+4096 <= end
	}
	if h.get(h.shared+abi.GlobalVersion) == 0 {
		return "version"
	}
	groups := h.get(h.shared + abi.GlobalGroupCount)
	if groups < abi.GroupsMin || groups > abi.GroupsMax {
		return "groups"
	}
	if !inside(h.get(h.shared+abi.GlobalInputAddress)) || !inside(h.get(h.shared+abi.GlobalOutputAddress)) {
		return "address"
	}
	first := h.shared + abi.GroupControlOffset
	for n := range groups {
		at := first + uint64(n)*uint64(h.get(h.shared+abi.GlobalGroupStride))
		streams := h.get(at + abi.GroupStreamCount)
		if streams < abi.StreamsMin || streams > abi.StreamsMax {
			return "streams"
		}
		for _, field := range []uint64{abi.GroupFeatures, abi.GroupSuspendSize, abi.GroupProtectedSize, abi.GroupStreamCount, abi.GroupStreamStride} {
			if h.get(at+field) != h.get(first+field) {
				return "unequal"
			}
		}
		for m := range streams {
			s := at + abi.StreamControlOffset + uint64(m)*uint64(h.get(at+abi.GroupStreamStride))
			if !inside(h.get(s+abi.StreamInputAddress)) || !inside(h.get(s+abi.StreamOutputAddress)) {
				return "address"
			}
			if h.get(s+abi.StreamFeatures) != 0x7085F {
				return "features"
			}
		}
	}
	return ""
}

func TestBoot(t *testing.T) {
	for _, size := range [][2]int{{0, 0}, {3, 8}, {31, 32}, {8, 8}} {
		h := newReady(t, "", func(c *fw.Config) { c.Groups, c.Streams = size[0], size[1] })
		if bad := h.validate(); bad != "" {
			t.Errorf("%v: %s", size, bad)
		}
		in, out := h.glb(abi.GlobalInputAddress), h.glb(abi.GlobalOutputAddress)
		if diff := abi.Pending(h.get(in+abi.GlobalReq), h.get(out+abi.GlobalAck)); diff != 0 {
			t.Errorf("%v: %s not acknowledged", size, abi.DescribeGlobal(diff))
		}
		if abi.DecodeVersion(h.get(h.shared)) != (abi.Version{Major: 1, Minor: 1}) || h.reg(abi.RegASPresent) != 0xFF || h.reg(abi.RegShaderReady) != 0x50005 {
			t.Error("identity")
		}
		g := h.group(h.vm(1), uint32(max(size[0], 3)-1), max(size[1], 8))
		g.start()
		last := g.queues[len(g.queues)-1]
		last.job(abi.Instruction{Op: abi.OpMove32, Dest: 1, Imm: 1})
		h.run(100 * us)
		if last.seqno() != 1 {
			t.Errorf("%v: the last stream of the last group does not run", size)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	h := newHost(t, "", nil)
	for _, change := range []func(*fw.Config){
		func(c *fw.Config) { c.Groups = 2 }, func(c *fw.Config) { c.Groups = 32 }, func(c *fw.Config) { c.Streams = 7 },
		func(c *fw.Config) { c.AddressSpaces = 2 }, func(c *fw.Config) { c.Deferrals = 17 }, func(c *fw.Config) { c.Stall = -1 },
		func(c *fw.Config) { c.Engine = nil }, func(c *fw.Config) { c.Executions = -1 },
	} {
		cfg := h.cfg
		change(&cfg)
		if _, err := fw.New(cfg); !errors.Is(err, fw.ErrInvalid) {
			t.Errorf("%v", err)
		}
	}
	if _, err := fw.Image(fw.Identity{Groups: 2}); !errors.Is(err, fw.ErrInvalid) {
		t.Error("an image of two groups")
	}
}

func TestBootFailures(t *testing.T) {
	for name, break_ := range map[string]func(*host){
		"no power":         func(h *host) { h.mapMCU() },
		"no address space": func(h *host) { h.set(abi.RegL2PowerOn, 1) },
		"other build":      func(h *host) { h.put(h.places[0]+8, 7); h.powerUp() },
		"no code":          func(h *host) { h.put(h.places[0], 7); h.powerUp() },
		"left running":     func(h *host) { h.put(h.places[1], 1); h.powerUp() },
	} {
		h := newHost(t, "", nil)
		break_(h)
		h.start()
		if h.reg(abi.RegMCUStatus) != abi.MCUFatal || h.reg(abi.RegJobIntRaw) != 0 || h.fw.Counters().BootsFailed != 1 {
			t.Errorf("%s: status %d", name, h.reg(abi.RegMCUStatus))
		}
	}
}

func TestInjectedBootFailures(t *testing.T) {
	for plan, want := range map[string]string{
		"boot version=0": "version", "boot groups=2": "groups", "boot groups=32": "groups", "boot/cold streams=7": "streams",
		"boot address": "address", "boot unequal": "unequal", "boot/warm version=0": "",
	} {
		h := newHost(t, plan, nil)
		h.powerUp()
		h.start()
		if got := h.validate(); got != want || h.reg(abi.RegJobIntRaw) != abi.JobIntGlobal {
			t.Errorf("%s: found %q", plan, got)
		}
	}
	h := newHost(t, "boot no-irq; boot nth=2 fatal", nil)
	h.powerUp()
	h.start()
	if h.reg(abi.RegMCUStatus) != abi.MCUEnabled || h.reg(abi.RegJobIntRaw) != 0 {
		t.Error("told of the boot")
	}
	h.reset()
	h.start()
	if h.reg(abi.RegMCUStatus) != abi.MCUFatal {
		t.Error("the second boot is not fatal")
	}
	h.reset()
	h.start()
	if h.reg(abi.RegMCUStatus) != abi.MCUEnabled {
		t.Error("the fault came again")
	}
}

// reset is a soft reset with everything that follows for a slow restart.
func (h *host) reset() {
	h.Helper()
	h.set(abi.RegGPUIntClear, ^uint32(0))
	h.set(abi.RegGPUCommand, abi.CommandSoftReset)
	h.run(10 * us)
	if h.reg(abi.RegGPUIntRaw)&abi.GPUIntResetDone == 0 {
		h.Fatal("the reset does not end")
	}
	h.load()
	h.powerUp()
}

// halt asks the MCU to halt.
func (h *host) halt() {
	in := h.glb(abi.GlobalInputAddress)
	h.put(in+abi.GlobalReq, h.get(in+abi.GlobalReq)|abi.GlobalHalt)
	h.ring(0)
	h.run(10 * us)
}

func TestFastAndSlowRestart(t *testing.T) {
	for plan, works := range map[string]bool{"": true, "boot/warm fatal": false, "halt status=0x4e": true} {
		h := newReady(t, plan, nil)
		h.halt()
		out := h.glb(abi.GlobalOutputAddress)
		if h.reg(abi.RegMCUStatus) != abi.MCUHalted || !h.fw.Halted() || (h.get(out+abi.GlobalHaltStatus) != 0) != (plan == "halt status=0x4e") {
			t.Errorf("%q: status %d, halt status %#x", plan, h.reg(abi.RegMCUStatus), h.get(out+abi.GlobalHaltStatus))
		}
		if err := h.fw.PowerOff(); err != nil {
			t.Fatal(err)
		}
		h.put(h.glb(abi.GlobalInputAddress)+abi.GlobalReq, 0)
		h.powerUp()
		h.start()
		if got := h.reg(abi.RegMCUStatus) == abi.MCUEnabled; got != works || h.fw.Counters().FastBoots != uint64(min(1, h.fw.Counters().Boots-1)) {
			t.Errorf("%q: fast restart worked: %t", plan, got)
		}
		h.reset()
		h.start()
		if !h.fw.Enabled() {
			t.Errorf("%q: slow restart did not work", plan)
		}
	}
}

func TestHaltIsNotReached(t *testing.T) {
	h := newReady(t, "halt drop", nil)
	h.halt()
	h.run(time.Second)
	if h.reg(abi.RegMCUStatus) != abi.MCUEnabled {
		t.Error("halted")
	}
	if err := h.fw.PowerOff(); err != nil {
		t.Fatal(err)
	}
	h.powerUp()
	h.start()
	if h.reg(abi.RegMCUStatus) != abi.MCUFatal {
		t.Error("a fast restart works although nothing was halted")
	}
	// HALT still stands in GLB_REQ: only its edge counts.
	h2 := newReady(t, "", nil)
	h2.halt()
	_ = h2.fw.PowerOff()
	h2.powerUp()
	h2.start()
	h2.ring(0)
	h2.run(ms)
	if !h2.fw.Enabled() {
		t.Error("halted again by the old request")
	}
}

func TestHaltDrains(t *testing.T) {
	h := newReady(t, "", nil)
	g := h.group(h.vm(1), 0, 1)
	g.start()
	g.queues[0].job(g.kernel("workgroup=1ms", 10).instructions()...)
	h.run(ms / 2)
	h.halt()
	if h.fw.Halted() {
		t.Error("halted in the middle of a workgroup")
	}
	h.run(ms)
	if !h.fw.Halted() {
		t.Error("not halted after it")
	}
}
