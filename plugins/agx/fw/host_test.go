package fw_test

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// Where the host of the tests puts things, as device addresses.
const (
	spacesAt  = 0x10000 // Address space tables of the VMs, a page each.
	tableAt   = 0x60000 // The context table.
	kernelsAt = 0x100000
	buffersAt = 0x200000 // A granule for each VM.
	objectsAt = 0x800000 // Everything else, from here on.
	// Virtual addresses of every VM.
	bufferVA = 0x10_0000_0000
	kernelVA = 0x20_0000_0000
	workVA   = 0x30_0000_0000
)

type clock struct{ *hw.VirtualClock }

func (c clock) AfterFunc(d time.Duration, f func()) testengine.Timer {
	return c.VirtualClock.AfterFunc(d, f)
}

// host plays the driver by hand, with nothing but the ABI.
type host struct {
	testing.TB
	abi           *abi.ABI
	arena         *hw.Arena
	clock         *hw.VirtualClock
	ports         hw.Ports
	in, out       *hw.FIFO // in: to the firmware
	trace         *hw.Trace
	fw            *fw.Firmware
	next          uint64
	init          abi.InitData
	pointers      abi.RuntimePointers
	control       *abi.Sender
	pipes         [abi.Levels]*abi.Sender
	events        *abi.Receiver
	stats         *abi.Receiver
	status        hw.Words
	globals       hw.Words
	stamps        abi.VA
	fwStamps      abi.VA
	crashLog      abi.VA
	seen          []abi.Event
	unknown       int
	crashed       bool
	paused        bool // The host does not read the event ring.
	resumes       bool // It answers halts.
	halts         []abi.PendingStamp
	faultRegister uint64
	uuid          uint32
	kernels       map[string]uint64
}

// newHost makes a coprocessor that is off, with initdata in memory.
func newHost(t testing.TB, change func(*fw.Config)) *host {
	t.Helper()
	arena, err := hw.NewArena(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Close() })
	regs, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{TB: t, arena: arena, clock: hw.NewVirtualClock(), trace: hw.NewTrace(400), next: objectsAt, uuid: 2, resumes: true, kernels: map[string]uint64{},
		ports: hw.Ports{Registers: regs, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}}
	cfg := fw.Config{Arena: arena, Ports: h.ports, Clock: h.clock, Trace: h.trace,
		Engine: testengine.New(testengine.Config{Clock: clock{h.clock}})}
	if change != nil {
		change(&cfg)
	}
	if cfg.Version == (abi.Version{}) {
		cfg.Version = abi.Target
	}
	if h.abi, err = abi.For(cfg.Version); err != nil {
		t.Fatal(err)
	}
	if h.fw, err = fw.New(cfg); err != nil {
		t.Fatal(err)
	}
	h.in, _ = hw.NewFIFO(regs, abi.RegInboxFIFO, abi.MailboxSlots)
	h.out, _ = hw.NewFIFO(regs, abi.RegOutboxFIFO, abi.MailboxSlots)
	h.prepare()
	t.Cleanup(func() {
		if t.Failed() {
			for _, l := range h.trace.Last(60) {
				t.Log(l)
			}
		}
	})
	return h
}

// alloc returns fresh zeroed memory in a class.
func (h *host) alloc(c abi.Class, size uint32) abi.VA {
	h.next = (h.next + 127) &^ 127
	va := abi.Address(c, h.next)
	h.next += uint64(size)
	return va
}

func (h *host) bytes(va abi.VA, size uint32) []byte {
	h.Helper()
	device, _ := va.Device()
	b, err := h.arena.Bytes(device, uint64(size))
	if err != nil {
		h.Fatal(err)
	}
	return b
}

func (h *host) words(va abi.VA, size uint32) hw.Words {
	h.Helper()
	device, _ := va.Device()
	w, err := h.arena.Words(device, size/4)
	if err != nil {
		h.Fatal(err)
	}
	return w
}

// place writes an object into fresh memory.
func (h *host) place(c abi.Class, o abi.Object) abi.VA {
	h.Helper()
	va := h.alloc(c, h.abi.Size(o))
	h.write(va, o)
	return va
}

func (h *host) write(va abi.VA, o abi.Object) {
	h.Helper()
	if err := h.abi.Encode(h.bytes(va, h.abi.Size(o)), o); err != nil {
		h.Fatal(err)
	}
}

// prepare writes initdata and rings.
func (h *host) prepare() {
	ring := func(class abi.Class, entry, count uint32) abi.Channel {
		return abi.Channel{State: h.alloc(abi.ClassShared, abi.StateSize*count), Ring: h.alloc(class, entry*abi.RingEntries*count)}
	}
	open := func(c abi.Channel, entry uint32) abi.Ring {
		r, err := abi.NewRing(h.words(c.State, abi.StateSize), h.bytes(c.Ring, entry*abi.RingEntries), entry, abi.RingEntries)
		if err != nil {
			h.Fatal(err)
		}
		return r
	}
	p := &h.pointers
	for level := range p.Pipes {
		for pipe := range p.Pipes[level] {
			p.Pipes[level][pipe] = ring(abi.ClassPrivate, h.abi.PipeEntry, 1)
		}
		h.pipes[level], _ = abi.NewSender(open(p.Pipes[level][abi.PipeCompute], h.abi.PipeEntry))
	}
	p.DeviceControl = ring(abi.ClassPrivate, h.abi.DeviceControlEntry, 1)
	h.control, _ = abi.NewSender(open(p.DeviceControl, h.abi.DeviceControlEntry))
	p.Event = ring(abi.ClassShared, h.abi.EventEntry, 1)
	h.events, _ = abi.NewReceiver(open(p.Event, h.abi.EventEntry))
	p.FwLog = ring(abi.ClassShared, abi.LogEntry, uint32(abi.LogLevels))
	p.Stats = ring(abi.ClassShared, h.abi.StatsEntry, 1)
	h.stats, _ = abi.NewReceiver(open(p.Stats, h.abi.StatsEntry))
	p.FaultInfo = h.alloc(abi.ClassShared, abi.FaultInfoSize)
	p.HWDataB = h.alloc(abi.ClassShared, 64)
	binary.LittleEndian.PutUint64(h.bytes(p.HWDataB, 8), tableAt)
	p.FwLogPayloads = h.alloc(abi.ClassShared, abi.LogBufferSize)
	h.init = abi.InitData{Version: abi.InitVersion, UnkBuf: h.alloc(abi.ClassShared, abi.InitUnkSize), RuntimePointers: h.place(abi.ClassShared, p),
		Globals: h.alloc(abi.ClassShared, h.abi.GlobalsSize()), FwStatus: h.alloc(abi.ClassShared, abi.FwStatusSize),
		PageSize: abi.UATPageSize, PageBits: abi.UATPageBits, PageLevels: abi.UATLevels, HostMapped: 1}
	h.status, h.globals = h.words(h.init.FwStatus, abi.FwStatusSize), h.words(h.init.Globals, h.abi.GlobalsSize())
	for g := range abi.GlobalCount {
		h.setGlobal(g, g.Default())
	}
	h.stamps, h.fwStamps = h.alloc(abi.ClassShared, abi.Slots*abi.StampSize), h.alloc(abi.ClassPrivate, abi.Slots*abi.StampSize)
}

func (h *host) setGlobal(g abi.Global, v uint32) {
	if off, ok := h.abi.GlobalOffset(g); ok {
		h.globals.Store(off/4, v)
	}
}

// send puts messages into the mailbox.
func (h *host) send(messages ...abi.Message) {
	h.Helper()
	for _, m := range messages {
		if !h.in.Put(m.Encode()) {
			h.Fatal("mailbox is full")
		}
	}
}

// take returns the messages of the firmware.
func (h *host) take() []abi.Message {
	var out []abi.Message
	for {
		msg0, msg1, ok := h.out.Take()
		if !ok {
			return out
		}
		out = append(out, abi.DecodeMessage(msg0, msg1))
	}
}

// step lets the firmware work and the host answer, until neither does, and
// checks the firmware's invariants.
func (h *host) step() {
	h.Helper()
	for {
		h.fw.Step()
		if err := h.fw.Check(); err != nil {
			h.Fatal(err)
		}
		if !h.answer() {
			return
		}
	}
}

// answer does what the host has to at once, and reports whether it sent anything.
func (h *host) answer() bool {
	h.Helper()
	sent := false
	for _, m := range h.take() {
		if b, ok := m.Buffer(); ok && m.Endpoint == abi.EndpointCrashLog && h.crashLog != 0 {
			h.crashed = true
		} else if ok && b.Address == 0 {
			b.Address = h.alloc(abi.ClassRTKit, uint32(b.Pages)*abi.BufferPageBytes)
			if m.Endpoint == abi.EndpointCrashLog {
				h.crashLog = b.Address
			}
			h.send(abi.BufferMessage(m.Endpoint, b))
			sent = true
		}
		sent = h.handshake(m) || sent
	}
	if h.status.Load(abi.FwStatusHalted) == 1 && h.resumes && !h.fw.Dead() {
		h.recover()
		return true
	}
	if !h.paused {
		h.readEvents()
	}
	return sent
}

// handshake answers management messages.
func (h *host) handshake(m abi.Message) bool {
	if m.Endpoint != abi.EndpointManagement {
		return false
	}
	g, err := abi.DecodeManagement(m.Payload)
	if err != nil {
		h.Fatal(err)
	}
	switch g.Type {
	case abi.Hello:
		v := min(g.Max, abi.RTKitMax)
		h.send(abi.Management{Type: abi.HelloAck, Min: v, Max: v}.Message())
	case abi.EndpointMap:
		h.send(abi.MapReply(g).Message())
		if g.Last {
			for _, e := range []abi.Endpoint{1, 2, 3, 4, 8, 0xa} {
				h.start(e)
			}
		}
	case abi.IOPPowerAck:
		if g.State == abi.PowerOn {
			h.send(abi.Management{Type: abi.APPower, State: abi.PowerOn}.Message())
		}
	default:
		return false
	}
	return true
}

func (h *host) start(e abi.Endpoint) {
	h.send(abi.Management{Type: abi.StartEndpoint, Endpoint: e, Flags: abi.EndpointStart}.Message())
}

// run sets RUN and does the handshake up to where the GPU's endpoints can be started.
func (h *host) run() {
	h.ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
	h.step()
}

// bringUp boots and initializes.
func (h *host) bringUp() {
	h.Helper()
	if _, err := h.control.Send(h.abi.EncodeControl(&abi.Control{Type: abi.ControlInitialize})); err != nil {
		h.Fatal(err)
	}
	h.run()
	h.start(abi.EndpointFirmware)
	h.start(abi.EndpointDoorbell)
	h.send(abi.InitMessage(h.place(abi.ClassShared, &h.init)))
	h.step()
	h.send(abi.DoorbellMessage(abi.DoorbellDeviceControl), abi.DoorbellMessage(abi.DoorbellKick))
	h.step()
}

// newReady makes a device that is up.
func newReady(t testing.TB, change func(*fw.Config)) *host {
	t.Helper()
	h := newHost(t, change)
	h.bringUp()
	if h.fw.Phase() != "ready" {
		t.Fatalf("phase %s: %s", h.fw.Phase(), h.fw.CrashText())
	}
	return h
}

// newPlanned is newReady with a fault plan.
func newPlanned(t testing.TB, plan string, change func(*fw.Config)) *host {
	t.Helper()
	h := newHost(t, withPlan(t, plan, change))
	h.bringUp()
	return h
}

func withPlan(t testing.TB, plan string, change func(*fw.Config)) func(*fw.Config) {
	t.Helper()
	p, err := hw.ParsePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	faults, err := fw.NewFaults(p)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *fw.Config) {
		c.Faults = faults
		if change != nil {
			change(c)
		}
	}
}

// advance lets time pass, stepping at every moment something falls due.
func (h *host) advance(d time.Duration) {
	h.Helper()
	end := h.clock.Now() + d
	for {
		h.step()
		at, ok := h.clock.Next()
		if !ok || at > end {
			break
		}
		h.clock.Advance(at - h.clock.Now())
	}
	h.clock.Advance(end - h.clock.Now())
	h.step()
}

// readEvents takes what is in the event ring.
func (h *host) readEvents() {
	h.Helper()
	for {
		entry, err := h.events.Receive()
		if err != nil {
			h.Fatal(err)
		}
		if entry == nil {
			return
		}
		if e, err := h.abi.DecodeEvent(entry); err == nil {
			h.seen = append(h.seen, e)
		} else {
			h.unknown++
		}
	}
}

// flags returns the slots of the Flags since the last call.
func (h *host) flags() []uint32 {
	var slots []uint32
	for _, e := range h.seen {
		if f, ok := e.(*abi.Flag); ok {
			slots = append(slots, f.Slots()...)
		}
	}
	h.seen = nil
	return slots
}

// recover answers a halt: it reads what was in progress and resumes.
func (h *host) recover() {
	h.readEvents()
	regs := h.ports.Registers
	h.faultRegister = uint64(regs.Load(abi.RegFaultInfo)) | uint64(regs.Load(abi.RegFaultInfo+4))<<32
	base := h.abi.PendingStampsOffset() / 4
	for i := range uint32(abi.PendingStamps) {
		if p, ok := h.abi.DecodePendingStamp(h.globals.Load(base+2*i), h.globals.Load(base+2*i+1)); ok {
			h.halts = append(h.halts, p)
			h.globals.Store(base+2*i, 0)
		}
	}
	h.status.Store(abi.FwStatusHalted, 0)
	h.status.Store(abi.FwStatusResume, 1)
}

// do sends a device-control message and reports whether it was consumed.
func (h *host) do(m abi.ControlMessage) bool {
	h.Helper()
	token, err := h.control.Send(h.abi.EncodeControl(m))
	if err != nil {
		h.Fatal(err)
	}
	h.send(abi.DoorbellMessage(abi.DoorbellDeviceControl))
	h.step()
	return h.control.Consumed(token)
}

// digest is SHA-256.
func digest(b []byte) [32]byte { return sha256.Sum256(b) }
