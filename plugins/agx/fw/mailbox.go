package fw

import (
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// phase is what the coprocessor as a whole does.
type phase uint8

// The phases and what may follow. Any but off may become off (the host clears
// RUN) or crashed.
const (
	// phaseOff does nothing; then hello.
	phaseOff phase = iota
	// phaseHello waits for HELLO_ACK; then mapping.
	phaseHello
	// phaseMapping waits for the answers to EPMAP; then starting.
	phaseMapping
	// phaseStarting waits until the system endpoints are started and have their
	// buffers; then powering.
	phaseStarting
	// phasePowering waits for AP_PWR; then up.
	phasePowering
	// phaseUp waits for the GPU endpoints and Init; then ready.
	phaseUp
	// phaseReady serves the host; then quiescing.
	phaseReady
	// phaseQuiescing was told AP_PWR(quiesced); then quiesced, or ready again.
	phaseQuiescing
	// phaseQuiesced sleeps; then quiescing on the way back to ready.
	phaseQuiesced
	// phaseCrashed is frozen for good.
	phaseCrashed
)

// String names the phase.
func (p phase) String() string {
	return [...]string{"off", "hello", "mapping", "starting", "powering", "up", "ready", "quiescing", "quiesced", "crashed"}[p]
}

// boot is how far the handshake has come.
type boot struct {
	// maps counts the answers to EPMAP.
	maps int
	// started are the endpoints that were started, by number.
	started [64]bool
	// buffers are those that system endpoints got; wanted those that were asked for.
	buffers, wanted [64]bool
	crashLog        abi.Buffer
	// init: the initdata were taken.
	init bool
}

// system are the endpoints of RTKit that must be started before the GPU's; those
// with true ask for a buffer.
var system = map[abi.Endpoint]bool{
	abi.EndpointCrashLog: true, abi.EndpointSysLog: true, abi.EndpointDebug: false,
	abi.EndpointIOReport: true, abi.EndpointOSLog: false, abi.EndpointTraceKit: false,
}

// maps are the two EPMAP messages: system endpoints, then the GPU's.
var maps = func() [2]abi.Management {
	first := abi.Management{Type: abi.EndpointMap, Bitmap: 1}
	for e := range system {
		first.Bitmap |= 1 << e
	}
	return [2]abi.Management{first, {Type: abi.EndpointMap, Bitmap: 1<<(abi.EndpointFirmware-32) | 1<<(abi.EndpointDoorbell-32), Base: 1, Last: true}}
}()

// What the syslog endpoint announces.
const (
	sysLogEntrySize = 0x100
	sysLogEntries   = 8
	bufferPages     = abi.CrashLogPages
)

func (f *Firmware) enter(p phase) {
	if f.phase != p {
		f.say("STATE", "%s -> %s", f.phase, p)
	}
	f.phase = p
}

// takeRun looks at the RUN bit.
func (f *Firmware) takeRun() bool {
	run := f.cfg.Ports.Registers.Load(abi.RegCPUControl)&abi.CPURun != 0
	switch {
	case run && f.phase == phaseOff:
		f.cfg.Ports.Registers.Store(abi.RegCPUStatus, 0)
		f.enter(phaseHello)
		f.manage(abi.Management{Type: abi.Hello, Min: abi.RTKitMin, Max: abi.RTKitMax})
		return true
	case !run && f.phase != phaseOff:
		f.abandon()
		f.inbox.Clear()
		f.enter(phaseOff)
		f.forget()
		f.cfg.Ports.Registers.Store(abi.RegCPUStatus, abi.CPUStopped)
		return true
	}
	return false
}

// post puts a message into the outbox.
func (f *Firmware) post(m abi.Message) { f.out = append(f.out, m) }

// manage posts a management message, or what the plan makes of it.
func (f *Firmware) manage(m abi.Management) {
	f.injectManagement(m, func(m abi.Management) { f.post(m.Message()) })
}

// send moves messages into the outbox as long as it has room.
func (f *Firmware) send() bool {
	worked := false
	for len(f.out) > 0 && f.outbox.Put(f.out[0].Encode()) {
		m := f.out[0]
		f.say("FW->AP", "%s", m)
		f.out = f.out[1:]
		f.counters.Sent++
		worked = true
	}
	if worked {
		f.cfg.Ports.Interrupt.Raise()
	}
	return worked
}

// takeMailbox takes messages until one has to be answered first.
func (f *Firmware) takeMailbox() bool {
	worked := false
	for len(f.out) == 0 && f.phase != phaseCrashed && f.injected.doom == nil {
		msg0, msg1, ok := f.inbox.Take()
		if !ok {
			break
		}
		worked = true
		m := abi.DecodeMessage(msg0, msg1)
		f.counters.Received++
		f.say("AP->FW", "%s", m)
		f.message(m)
	}
	return worked
}

// message handles one mailbox message.
func (f *Firmware) message(m abi.Message) {
	switch {
	case m.Endpoint == abi.EndpointManagement:
		f.management(m)
	case m.Endpoint >= abi.Endpoint(len(f.boot.started)) || !f.boot.started[m.Endpoint]:
		f.crash(fmt.Sprintf("message for %s, which is not started", m.Endpoint))
	case m.Endpoint.System():
		f.systemMessage(m)
	case m.Endpoint == abi.EndpointFirmware:
		va, ok := m.Init()
		switch {
		case !ok:
			f.misuse("message %s", m)
		case f.boot.init:
			f.crash("second Init")
		case f.phase == phaseUp:
			f.injectInit(func() { f.initialize(va) })
		}
	default:
		f.doorbell(m)
	}
}

// doorbell handles a message of the doorbell endpoint. Doorbells are hints:
// after any of them all rings are looked at.
func (f *Firmware) doorbell(m abi.Message) {
	n, ok := m.Doorbell()
	if !ok {
		f.log(abi.LogWarn, fmt.Sprintf("doorbell message %s is not modelled", m))
		return
	}
	f.kicked = true
	if n == abi.DoorbellKick && f.phase == phaseReady {
		f.earlyWake()
	}
}

// management handles RTKit's own messages, in strict order.
func (f *Firmware) management(m abi.Message) {
	g, err := abi.DecodeManagement(m.Payload)
	if err != nil {
		f.crash(err.Error())
		return
	}
	if g.Type == abi.Ping {
		f.manage(abi.Management{Type: abi.Pong})
		return
	}
	switch f.phase {
	case phaseHello:
		switch {
		case g.Type == abi.SetIOPPower && g.State == abi.PowerInit:
			return // The other way to start the CPU.
		case g.Type == abi.HelloAck && g.Min == g.Max && g.Min >= abi.RTKitMin && g.Min <= abi.RTKitMax:
			f.enter(phaseMapping)
			f.manage(maps[0])
			return
		}
	case phaseMapping:
		if g == abi.MapReply(maps[f.boot.maps]) {
			if f.boot.maps++; f.boot.maps < len(maps) {
				f.manage(maps[f.boot.maps])
			} else {
				f.enter(phaseStarting)
			}
			return
		}
	case phaseStarting:
		if g.Type == abi.StartEndpoint && g.Flags == abi.EndpointStart && f.startSystem(g.Endpoint) {
			return
		}
	case phasePowering:
		if g.Type == abi.APPower && g.State == abi.PowerOn {
			f.enter(phaseUp)
			f.manage(g)
			return
		}
	default:
		if f.laterManagement(g) {
			return
		}
	}
	f.crash(fmt.Sprintf("%s while %s", g, f.phase))
}

// laterManagement handles what may come after the handshake and reports whether it did.
func (f *Firmware) laterManagement(g abi.Management) bool {
	gpu := g.Type == abi.StartEndpoint && (g.Endpoint == abi.EndpointFirmware || g.Endpoint == abi.EndpointDoorbell)
	switch {
	case f.phase == phaseUp && gpu && g.Flags == abi.EndpointStart && !f.boot.started[g.Endpoint]:
		f.boot.started[g.Endpoint] = true
	case (f.phase == phaseReady || f.phase == phaseUp) && g.Type == abi.APPower && g.State == abi.PowerQuiesced:
		if len(f.running) > 0 || f.halt.active {
			return false // The host has to drain first.
		}
		f.enter(phaseQuiescing)
		f.manage(g)
	case f.phase == phaseQuiescing && g.Type == abi.SetIOPPower && (g.State == abi.PowerQuiesced || g.State == abi.PowerSleep):
		f.enter(phaseQuiesced)
		f.manage(abi.Management{Type: abi.IOPPowerAck, State: g.State})
	case f.phase == phaseQuiesced && g.Type == abi.SetIOPPower && (g.State == abi.PowerOn || g.State == abi.PowerInit):
		f.enter(phaseQuiescing)
		f.manage(abi.Management{Type: abi.IOPPowerAck, State: abi.PowerOn})
	case f.phase == phaseQuiescing && g.Type == abi.APPower && g.State == abi.PowerOn:
		f.enter(phaseUp)
		if f.boot.init {
			f.enter(phaseReady)
		}
		f.kicked = true
		f.manage(g)
	default:
		return false
	}
	return true
}

// startSystem starts a system endpoint and reports whether that was in order.
func (f *Firmware) startSystem(e abi.Endpoint) bool {
	buffer, known := system[e]
	if !known || f.boot.started[e] {
		return false
	}
	f.boot.started[e] = true
	if e == abi.EndpointSysLog {
		f.post(abi.Message{Endpoint: e, Payload: abi.SysLog{Init: true, EntrySize: sysLogEntrySize, Entries: sysLogEntries}.Encode()})
	}
	if buffer {
		f.boot.wanted[e] = true
		f.post(abi.BufferMessage(e, abi.Buffer{Pages: bufferPages}))
	}
	f.startedAll()
	return true
}

// startedAll goes on when every system endpoint is started and has its buffer.
func (f *Firmware) startedAll() {
	for e, buffer := range system {
		if !f.boot.started[e] || buffer && !f.boot.buffers[e] {
			return
		}
	}
	if f.phase == phaseStarting {
		f.enter(phasePowering)
		f.manage(abi.Management{Type: abi.IOPPowerAck, State: abi.PowerOn})
	}
}

// systemMessage handles messages of the system endpoints: buffers, and what is
// acknowledged and needs nothing.
func (f *Firmware) systemMessage(m abi.Message) {
	b, ok := m.Buffer()
	if !ok || !f.boot.wanted[m.Endpoint] {
		return
	}
	if _, err := f.bytes(b.Address, uint64(b.Pages)*abi.BufferPageBytes); err != nil || b.Pages < bufferPages {
		f.crash(fmt.Sprintf("%s: no buffer of %d pages", m, bufferPages))
		return
	}
	f.boot.wanted[m.Endpoint], f.boot.buffers[m.Endpoint] = false, true
	if m.Endpoint == abi.EndpointCrashLog {
		f.boot.crashLog = b
	}
	f.startedAll()
}
