package driver

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
)

// phase is how far the device is.
type phase uint8

// The phases, in order; each is followed by the next one, or the device is given up.
const (
	// phaseDown: nothing was said.
	phaseDown phase = iota
	// phaseHello waits for HELLO.
	phaseHello
	// phaseMap waits for the last EPMAP.
	phaseMap
	// phasePower waits for IOP_PWR_ACK.
	phasePower
	// phaseEcho waits for the echo of AP_PWR.
	phaseEcho
	// phaseInit waits until Initialize is consumed.
	phaseInit
	// phaseUp takes work.
	phaseUp
)

// String names the phase.
func (p phase) String() string {
	return [...]string{"down", "HELLO", "EPMAP", "IOP_PWR_ACK", "AP_PWR echo", "Initialize", "up"}[p]
}

// boot starts the coprocessor. Initialize stands in its ring before that.
func (d *Driver) boot() {
	if d.phase != phaseDown {
		return
	}
	if err := d.layOut(); err != nil {
		d.fail(fmt.Errorf("lay out device: %w", err))
		return
	}
	if err := d.openChannels(); err != nil {
		d.fail(fmt.Errorf("open channels: %w", err))
		return
	}
	d.phase = phaseHello
	d.control(&abi.Control{Type: abi.ControlInitialize}, d.up)
	d.config.Ports.Registers.Store(abi.RegCPUControl, abi.CPURun)
	d.post(abi.Management{Type: abi.SetIOPPower, State: abi.PowerInit}.Message())
	d.config.Ports.Doorbell.Raise()
	d.loop.After(d.config.Timeouts.Boot, func() {
		if d.phase != phaseUp {
			d.fail(fmt.Errorf("boot: no %s in %s", d.phase, d.config.Timeouts.Boot))
		}
	})
}

// mail takes one message that is no RX doorbell.
func (d *Driver) mail(m abi.Message) {
	if buffer, ok := m.Buffer(); ok {
		d.takeBuffer(m.Endpoint, buffer)
		return
	}
	switch m.Endpoint {
	case abi.EndpointManagement:
		g, err := abi.DecodeManagement(m.Payload)
		if err != nil {
			d.log.Warn("mailbox message malformed", "error", err)
			return
		}
		d.manage(g)
	case abi.EndpointSysLog:
		if l, err := abi.DecodeSysLog(m.Payload); err == nil && !l.Init {
			d.post(m) // The echo is the acknowledgement.
		}
	default:
		d.log.Warn("unknown mailbox message", "message", m)
	}
}

// manage takes a management message, in its phase only.
func (d *Driver) manage(m abi.Management) {
	switch {
	case m.Type == abi.Hello && d.phase == phaseHello:
		if m.Min > abi.RTKitMax || m.Max < abi.RTKitMin {
			d.fail(fmt.Errorf("boot: firmware speaks RTKit %d to %d, this driver %d to %d: %w", m.Min, m.Max, abi.RTKitMin, abi.RTKitMax, core.ErrUnsupported))
			return
		}
		version := min(m.Max, abi.RTKitMax)
		d.phase = phaseMap
		d.post(abi.Management{Type: abi.HelloAck, Min: version, Max: version}.Message())
	case m.Type == abi.EndpointMap && d.phase == phaseMap:
		for bit := range 32 {
			if m.Bitmap&(1<<bit) != 0 {
				d.endpoints = append(d.endpoints, abi.Endpoint(int(m.Base)*32+bit))
			}
		}
		d.post(abi.MapReply(m).Message())
		if m.Last {
			d.startSystem()
		}
	case m.Type == abi.IOPPowerAck && d.phase == phasePower && m.State == abi.PowerOn:
		d.phase = phaseEcho
		d.post(abi.Management{Type: abi.APPower, State: abi.PowerOn}.Message())
	case m.Type == abi.APPower && d.phase == phaseEcho && m.State == abi.PowerOn:
		d.startGPU()
	case m.Type == abi.Ping:
		d.post(abi.Management{Type: abi.Pong}.Message())
	default:
		d.log.Warn("unexpected management message", "message", m, "state", d.phase)
	}
}

// startSystem starts the endpoints of RTKit itself; without the GPU's own there is no GPU.
func (d *Driver) startSystem() {
	has := map[abi.Endpoint]bool{}
	for _, e := range d.endpoints {
		has[e] = true
	}
	if !has[abi.EndpointFirmware] || !has[abi.EndpointDoorbell] {
		d.fail(fmt.Errorf("boot: firmware has no GPU endpoints, only %v: %w", d.endpoints, core.ErrUnsupported))
		return
	}
	d.phase = phasePower
	for _, e := range d.endpoints {
		if e.System() {
			d.start(e)
		}
	}
}

func (d *Driver) start(e abi.Endpoint) {
	d.post(abi.Management{Type: abi.StartEndpoint, Endpoint: e, Flags: abi.EndpointStart}.Message())
}

// startGPU starts the GPU's endpoints and names the initdata.
func (d *Driver) startGPU() {
	d.phase = phaseInit
	d.start(abi.EndpointFirmware)
	d.start(abi.EndpointDoorbell)
	d.post(abi.InitMessage(abi.Address(abi.ClassShared, d.lay.initData)))
	d.ring(abi.DoorbellDeviceControl)
	d.ring(abi.DoorbellKick)
	d.watchControl()
}

// up: Initialize was consumed.
func (d *Driver) up() {
	d.phase = phaseUp
	d.life.sign = d.config.Clock.Now()
	host.Answer(&d.upWaits, nil)
}

// takeBuffer answers a buffer request. A second one of the crashlog endpoint says that
// the firmware crashed.
func (d *Driver) takeBuffer(e abi.Endpoint, b abi.Buffer) {
	if e == abi.EndpointCrashLog && d.crashLog.size > 0 {
		d.crashed()
		return
	}
	if b.Address != 0 || b.Pages == 0 {
		d.log.Warn("unexpected buffer message", "endpoint", e, "pages", b.Pages)
		return
	}
	size := uint32(b.Pages) * abi.BufferPageBytes
	device, err := d.place(size, "buffer of endpoint "+e.String())
	if err != nil {
		d.fail(err)
		return
	}
	if e == abi.EndpointCrashLog {
		d.crashLog.at, d.crashLog.size = device, uint64(size)
	}
	d.post(abi.BufferMessage(e, abi.Buffer{Pages: b.Pages, Address: abi.Address(abi.ClassRTKit, device)}))
}

// crashed reads why. Nothing restarts this firmware.
func (d *Driver) crashed() {
	text, err := d.crashText()
	if err != nil {
		text = err.Error()
	}
	d.fail(fmt.Errorf("firmware crashed: %q", text))
}

// checkRunning gives the device up when the coprocessor has stopped: it crashed, and its message may be on its way.
func (d *Driver) checkRunning() {
	if d.loop.Failure() != nil || d.config.Ports.Registers.Load(abi.RegCPUStatus)&abi.CPUStopped == 0 {
		return
	}
	if _, err := d.crashText(); err != nil {
		d.fail(fmt.Errorf("firmware stopped without a word"))
		return
	}
	d.crashed()
}

// crashText reads the crash log. Errors are *abi.WireError, or say that there is none.
func (d *Driver) crashText() (string, error) {
	if d.crashLog.size == 0 {
		return "", fmt.Errorf("no crash log")
	}
	bytes, err := d.config.Arena.Bytes(d.crashLog.at, d.crashLog.size)
	if err != nil {
		return "", err
	}
	return abi.DecodeCrashLog(slices.Clone(bytes))
}
