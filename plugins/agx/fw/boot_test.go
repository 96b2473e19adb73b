package fw_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
)

// TestBoot follows the handshake message by message.
func TestBoot(t *testing.T) {
	h := newReady(t, nil)
	var got []string
	for _, l := range h.trace.Last(400) {
		if l.Kind == "FW->AP" || l.Kind == "AP->FW" {
			text, _, _ := strings.Cut(l.Text, " at 0xffff")
			got = append(got, text)
		}
	}
	want := []string{
		"HELLO 11..12", "HELLO_ACK 12..12", "EPMAP base=0 bitmap=0x51f last=false", "EPMAP base=0 bitmap=0x1 last=false",
		"EPMAP base=1 bitmap=0x3 last=true", "EPMAP base=1 bitmap=0x0 last=true",
		"START_EP crashlog flags=2", "crashlog buffer 4 pages at 0x0", "START_EP syslog flags=2", "syslog init 8 entries of 256", "syslog buffer 4 pages at 0x0",
		"START_EP debug flags=2", "START_EP ioreport flags=2", "ioreport buffer 4 pages at 0x0", "START_EP oslog flags=2", "START_EP tracekit flags=2",
		"crashlog buffer 4 pages", "syslog buffer 4 pages", "ioreport buffer 4 pages", "IOP_PWR_ACK 0x20", "AP_PWR 0x20", "AP_PWR 0x20",
		"START_EP firmware flags=2", "START_EP doorbell flags=2",
	}
	if len(got) < len(want) || strings.Join(got[:len(want)], "\n") != strings.Join(want, "\n") {
		t.Errorf("handshake:\n%s", strings.Join(got, "\n"))
	}
}

// TestHandshakeOrder breaks the order at each step: the firmware says so and stops.
func TestHandshakeOrder(t *testing.T) {
	ack := abi.Management{Type: abi.HelloAck, Min: 12, Max: 12}.Message()
	for name, messages := range map[string][]abi.Message{
		"version":         {abi.Management{Type: abi.HelloAck, Min: 10, Max: 10}.Message()},
		"two versions":    {abi.Management{Type: abi.HelloAck, Min: 11, Max: 12}.Message()},
		"no ack":          {abi.Management{Type: abi.EndpointMap}.Message()},
		"ack twice":       {ack, ack},
		"wrong map reply": {ack, abi.Management{Type: abi.EndpointMap, Base: 1, Last: true}.Message()},
		"not started":     {ack, abi.DoorbellMessage(0)},
		"malformed":       {{Endpoint: abi.EndpointManagement, Payload: ^uint64(0)}},
	} {
		h := newHost(t, nil)
		h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
		h.fw.Step()
		h.send(messages...)
		h.fw.Step()
		h.take()
		h.fw.Step()
		if !h.fw.Dead() || h.fw.CrashText() == "" {
			t.Errorf("%s: %s", name, h.fw.Phase())
		}
	}
}

// TestLateHandshake: what must not come once the handshake is over.
func TestLateHandshake(t *testing.T) {
	for name, m := range map[string]abi.Message{
		"endpoint twice":   abi.Management{Type: abi.StartEndpoint, Endpoint: abi.EndpointFirmware, Flags: abi.EndpointStart}.Message(),
		"unknown endpoint": abi.Management{Type: abi.StartEndpoint, Endpoint: 0x30, Flags: abi.EndpointStart}.Message(),
		"second init":      abi.InitMessage(abi.Address(abi.ClassShared, objectsAt)),
		"hello":            abi.Management{Type: abi.HelloAck, Min: 12, Max: 12}.Message(),
		"not started":      {Endpoint: 0x30},
	} {
		h := newReady(t, nil)
		h.send(m)
		if h.step(); !h.crashed {
			t.Errorf("%s: %s", name, h.fw.Phase())
		}
		if text, err := abi.DecodeCrashLog(h.bytes(h.crashLog, 4*abi.BufferPageBytes)); err != nil || text != h.fw.CrashText() {
			t.Errorf("%s: crash log %q, %v", name, text, err)
		}
	}
	h := newReady(t, nil)
	h.send(abi.Management{Type: abi.Ping}.Message(), abi.DoorbellMessage(0x7f), abi.Message{Endpoint: abi.EndpointSysLog, Payload: abi.SysLog{Index: 1}.Encode()})
	if h.step(); h.fw.Phase() != "ready" {
		t.Errorf("ping, odd doorbell or syslog ack: %s", h.fw.CrashText())
	}
}

// TestBadInitData is row 11.
func TestBadInitData(t *testing.T) {
	for name, spoil := range map[string]func(h *host){
		"host mapped": func(h *host) { h.init.HostMapped = 0 },
		"version":     func(h *host) { h.init.Version = 7 },
		"globals":     func(h *host) { h.init.Globals = 0 },
		"pointers":    func(h *host) { h.init.RuntimePointers = abi.Address(abi.ClassShared, 1<<31) },
		"page size":   func(h *host) { h.init.PageSize = 4096 },
		"ring": func(h *host) {
			h.pointers.Event.Ring = 12
			h.write(h.init.RuntimePointers, &h.pointers)
		},
		"index":         func(h *host) { h.words(h.pointers.Stats.State, abi.StateSize).Store(8, 0x100) },
		"context table": func(h *host) { h.words(h.pointers.HWDataB, 8).Store(0, 3) },
	} {
		h := newHost(t, nil)
		spoil(h)
		h.bringUp()
		if !h.crashed || !strings.HasPrefix(h.fw.CrashText(), "agx_background: ") {
			t.Errorf("%s: %s %q", name, h.fw.Phase(), h.fw.CrashText())
		}
	}
	h := newHost(t, nil)
	h.run()
	h.start(abi.EndpointFirmware)
	h.send(abi.InitMessage(0))
	if h.step(); !strings.Contains(h.fw.CrashText(), "no initdata") {
		t.Errorf("null: %q", h.fw.CrashText())
	}
}

// TestHandshakeFaults is row 12.
func TestHandshakeFaults(t *testing.T) {
	for plan, phase := range map[string]string{
		"management/HELLO drop":            "hello",
		"management/HELLO mute":            "crashed",
		"management/EPMAP nth=2 drop":      "mapping",
		"management/IOP_PWR_ACK drop":      "powering",
		"management/IOP_PWR_ACK crash":     "crashed",
		"management/AP_PWR drop":           "ready",
		"init drop":                        "up",
		"init crash":                       "crashed",
		"device-control/Initialize freeze": "ready",
		"device-control/Initialize crash":  "crashed",
	} {
		h := newHost(t, withPlan(t, plan, nil))
		if _, err := h.control.Send(h.abi.EncodeControl(&abi.Control{Type: abi.ControlInitialize})); err != nil {
			t.Fatal(err)
		}
		h.run()
		if h.fw.Phase() == "up" {
			h.start(abi.EndpointFirmware)
			h.start(abi.EndpointDoorbell)
			h.send(abi.InitMessage(h.place(abi.ClassShared, &h.init)))
			h.step()
			if h.fw.Phase() == "ready" {
				h.send(abi.DoorbellMessage(abi.DoorbellDeviceControl))
			}
		}
		h.advance(time.Second)
		if h.fw.Phase() != phase {
			t.Errorf("%s: %s, want %s", plan, h.fw.Phase(), phase)
		}
		if phase == "crashed" && strings.HasSuffix(plan, "crash") && !h.crashed {
			t.Errorf("%s: nothing was said", plan)
		}
	}
	h := newHost(t, withPlan(t, "management/HELLO version=13", nil))
	h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
	h.fw.Step()
	if m := h.take(); len(m) != 1 || m[0].String() != "HELLO 13..13" {
		t.Errorf("messages %v", m)
	}
	h = newHost(t, withPlan(t, "management/EPMAP times=2 no-gpu", nil))
	h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
	h.fw.Step()
	h.take()
	h.send(abi.Management{Type: abi.HelloAck, Min: 12, Max: 12}.Message())
	h.fw.Step()
	h.take()
	h.send(abi.MapReply(abi.Management{Type: abi.EndpointMap}).Message())
	h.fw.Step()
	if m := h.take(); len(m) != 1 || m[0].String() != "EPMAP base=1 bitmap=0x0 last=true" {
		t.Errorf("messages %v", m)
	}
}

// TestMailboxFull: a full outbox blocks the firmware until the host has taken something.
func TestMailboxFull(t *testing.T) {
	h := newReady(t, nil)
	for range 2 * abi.MailboxSlots {
		h.in.Put(abi.Management{Type: abi.Ping}.Message().Encode())
		h.fw.Step()
	}
	if h.out.Len() != abi.MailboxSlots || h.in.Len() == 0 || abi.MailboxControl(h.out.Len())>>16&1 != 1 {
		t.Fatalf("%d out, %d in", h.out.Len(), h.in.Len())
	}
	h.advance(10 * time.Millisecond)
	if h.out.Len() != 0 || h.in.Len() != 0 || h.fw.Phase() != "ready" {
		t.Errorf("%d out, %d in", h.out.Len(), h.in.Len())
	}
}

// TestQuiesce stops and starts the coprocessor, asleep and off.
func TestQuiesce(t *testing.T) {
	h := newReady(t, nil)
	q := h.queue(2, 1, 1)
	q.submit("workgroup=1ms", 1)
	h.advance(5 * time.Millisecond)
	quiesce := func() {
		h.send(abi.Management{Type: abi.APPower, State: abi.PowerQuiesced}.Message())
		h.step()
		h.send(abi.Management{Type: abi.SetIOPPower, State: abi.PowerSleep}.Message())
		h.step()
	}
	if quiesce(); h.fw.Phase() != "quiesced" {
		t.Fatalf("phase %s", h.fw.Phase())
	}
	h.send(abi.Management{Type: abi.SetIOPPower, State: abi.PowerOn}.Message())
	if h.step(); h.fw.Phase() != "ready" {
		t.Fatalf("phase %s %s", h.fw.Phase(), h.fw.CrashText())
	}
	q.submit("workgroup=1ms", 1)
	if h.advance(5 * time.Millisecond); h.stamp(1) != 2*abi.StampStep {
		t.Fatalf("stamp %#x", h.stamp(1))
	}
	quiesce()
	h.ports.Registers.Store(abi.RegCPUControl, 0)
	if h.step(); h.fw.Phase() != "off" || h.ports.Registers.Load(abi.RegCPUStatus) != abi.CPUStopped {
		t.Fatalf("phase %s", h.fw.Phase())
	}
	h.crashLog = 0
	if h.bringUp(); h.fw.Phase() != "ready" || len(h.fw.Queues()) != 0 {
		t.Errorf("phase %s with %d queues", h.fw.Phase(), len(h.fw.Queues()))
	}
	// With work on the pipe it must not be asked.
	h = newReady(t, nil)
	h.queue(2, 1, 1).submit("workgroup=1ms", 9)
	if quiesce(); !h.crashed {
		t.Errorf("phase %s", h.fw.Phase())
	}
}

func TestConfig(t *testing.T) {
	if _, err := fw.New(fw.Config{}); !errors.Is(err, fw.ErrInvalid) {
		t.Error(err)
	}
	for _, change := range []func(*fw.Config){
		func(c *fw.Config) { c.Width = 65 }, func(c *fw.Config) { c.Watchdog = -1 }, func(c *fw.Config) { c.Version.Firmware = "9" }} {
		h := newHost(t, func(c *fw.Config) {
			bad := *c
			change(&bad)
			if _, err := fw.New(bad); !errors.Is(err, fw.ErrInvalid) && !errors.Is(err, abi.ErrVersion) {
				t.Error(err)
			}
		})
		_ = h
	}
}
