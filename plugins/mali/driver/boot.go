package driver

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/arbiter"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// Where things lie for the MCU: the sections of its image where the image says,
// and the low part of the memory, with ring pages and suspend buffers, from heapBase on.
const (
	heapBase    uint64 = 0x08000000
	lowMax      uint64 = 2 << 30
	lowFraction        = 4
	// suspendMax bounds the size of a suspend buffer that a firmware may ask for.
	suspendMax = 1 << 20
)

// mcu is what the driver knows of the microcontroller.
type mcu struct {
	sections []abi.Section
	// places are the device addresses of the sections, once they have memory.
	places []uint64
	table  uint64
	// shared is where the shared section lies.
	shared, sharedSize uint64
	// fast says that the firmware was halted cleanly and its memory kept.
	fast bool
}

// inside reports whether a block lies in the shared section.
func (m *mcu) inside(device, size uint64) bool {
	return device >= m.shared && device-m.shared < m.sharedSize && size <= m.sharedSize-(device-m.shared)
}

// mcuAddress is where the MCU sees low memory.
func mcuAddress(device uint64) uint64 { return heapBase + device - hw.MemoryBase }

// bringUp boots the firmware for the first time. Whatever fails is the device's end.
func (d *Driver) bringUp() {
	d.phase = phaseLoading
	if err := d.placeFirmware(); err != nil {
		d.fail(err)
		return
	}
	d.boot(true, func(err error) {
		if err != nil {
			d.fail(err)
			return
		}
		d.up()
	})
}

// placeFirmware takes memory for the sections and writes the MCU's address space table.
func (d *Driver) placeFirmware() error {
	low := min(d.config.Arena.Size()/lowFraction, lowMax) &^ (hw.Granule - 1)
	space := hw.Space{{Address: heapBase, Device: hw.MemoryBase, Size: low - hw.MemoryBase}}
	for _, s := range d.mcu.sections {
		size := s.End - s.Start
		place, err := d.memory.High(size, "firmware section "+s.Name)
		if err != nil {
			return err
		}
		d.mcu.places = append(d.mcu.places, place)
		space = append(space, hw.Mapping{Address: s.Start, Device: place, Size: size})
		if s.Flags&abi.SectionShared != 0 {
			d.mcu.shared, d.mcu.sharedSize = place, size
		}
	}
	if d.mcu.sharedSize < abi.GroupControlOffset {
		return fmt.Errorf("firmware image without a shared section: %w", core.ErrInvalid)
	}
	table, err := d.memory.Low(hw.SpaceSize(len(space)), "address space table of the MCU")
	if err != nil {
		return err
	}
	d.mcu.table = table
	if err := hw.WriteSpace(d.config.Arena, table, space); err != nil {
		return fmt.Errorf("firmware image: %w: %w", core.ErrInvalid, err)
	}
	return nil
}

// loadSections fills the firmware's memory anew.
func (d *Driver) loadSections() error {
	for i, s := range d.mcu.sections {
		b, err := d.config.Arena.Bytes(d.mcu.places[i], s.End-s.Start)
		if err != nil {
			return err
		}
		clear(b[copy(b, s.Content):])
	}
	return nil
}

// boot starts the MCU and sets the global interface up; slow loads all sections
// before, fast goes on with the memory as it was.
func (d *Driver) boot(slow bool, done func(error)) {
	if slow {
		if err := d.loadSections(); err != nil {
			done(err)
			return
		}
	} else {
		d.clearRequests()
	}
	for _, r := range [...]uint32{abi.RegGPUIntClear, abi.RegJobIntClear, abi.RegMMUIntClear} {
		d.write(r, ^uint32(0))
	}
	d.write(abi.RegGPUIntMask, abi.GPUIntFault|abi.GPUIntResetDone|abi.GPUIntCleanDone|abi.GPUIntPowerChangedAll)
	d.write(abi.RegJobIntMask, ^uint32(0))
	d.write(abi.RegMMUIntMask, ^uint32(0))
	l2 := d.read64(abi.RegL2Present)
	d.write64(abi.RegL2PowerOn, l2)
	d.config.Ports.Doorbell.Raise()
	d.expect(d.config.Timeouts.Power, registerPoll, func() bool { return d.read64(abi.RegL2Ready)&l2 == l2 }, func() {
		d.enableSpace(0, d.mcu.table, func() { d.startMCU(slow, done) })
	}, func() { done(fmt.Errorf("L2 power: not on in %s", d.config.Timeouts.Power)) })
}

// clearRequests takes back what was asked of the firmware before it was halted: HALT, which it takes as
// an edge, and what would be pending anew if its acknowledgements are 0 after a warm boot.
func (d *Driver) clearRequests() {
	for _, at := range [...]uint64{abi.GlobalReq, abi.GlobalDoorbellReq} {
		d.store(d.iface.input+at, 0)
	}
	for _, g := range d.iface.groups {
		for _, at := range [...]uint64{abi.GroupReq, abi.GroupDoorbellReq, abi.GroupIRQAck} {
			d.store(g.input+at, 0)
		}
		for _, s := range g.streams {
			d.store(s.input+abi.StreamReq, 0)
		}
	}
}

// startMCU waits for the first interrupt of the firmware, or for its crash.
func (d *Driver) startMCU(slow bool, done func(error)) {
	d.write(abi.RegMCUControl, abi.MCUControlAuto)
	d.expect(d.config.Timeouts.Boot, registerPoll, func() bool {
		return d.read(abi.RegJobIntRaw)&abi.JobIntGlobal != 0 || d.read(abi.RegMCUStatus) == abi.MCUFatal
	}, func() {
		if d.read(abi.RegMCUStatus) == abi.MCUFatal {
			done(fmt.Errorf("firmware boot: MCU status is fatal"))
			return
		}
		d.write(abi.RegJobIntClear, abi.JobIntGlobal)
		f, err := d.readInterface()
		if err != nil {
			done(err)
			return
		}
		if !slow && len(f.groups) != len(d.iface.groups) {
			done(fmt.Errorf("firmware boot: %d groups, there were %d", len(f.groups), len(d.iface.groups)))
			return
		}
		d.iface = f
		d.adoptInterface()
		d.programGlobal()
		done(nil)
	}, func() { done(fmt.Errorf("firmware boot: no interrupt in %s", d.config.Timeouts.Boot)) })
}

// adoptInterface makes the slots, and the arbiter with the first boot.
func (d *Driver) adoptInterface() {
	count := min(len(d.iface.groups), slotsMax)
	d.slots = d.slots[:0]
	for n := range count {
		d.slots = append(d.slots, &slot{index: uint32(n), iface: d.iface.groups[n]})
	}
	budget := bits.OnesCount32(d.read(abi.RegASPresent) &^ 1 & (1<<abi.ASMax - 1))
	d.spaces.present = d.read(abi.RegASPresent) &^ 1 & (1<<abi.ASMax - 1)
	if d.arbiter != nil {
		return
	}
	var err error
	if d.arbiter, err = arbiter.New(arbiter.Config{
		Quantum: d.config.Tick, MinRun: d.config.MinRun, Spaces: max(budget, 1),
		Fits: func(_ int, id core.EntityID) bool { return d.groups[id].mayRun() },
	}); err != nil {
		d.fail(err)
	}
}

// The rates that timers are given in: the system timestamp, and the GPU's clock
// as panthor takes it for the progress timer, in units of 1024 cycles.
const (
	timestampRate        = 24_000_000
	progressUnitsPerSec  = 512_000
	powerOffMicroseconds = 10_000
	idleMicroseconds     = 800
)

// programGlobal sets the global interface up, as after every boot.
func (d *Driver) programGlobal() {
	in := d.iface.input
	d.store64Words(in+abi.GlobalAllocEnable, d.read64(abi.RegShaderPresent))
	d.store(in+abi.GlobalPowerOffTimer, abi.Timer{Units: abi.TimerUnits(powerOffMicroseconds, timestampRate)}.Encode())
	d.store(in+abi.GlobalIdleTimer, abi.Timer{Units: abi.TimerUnits(idleMicroseconds, timestampRate)}.Encode())
	units := uint64(d.config.Timeouts.Hang) * progressUnitsPerSec / uint64(time.Second)
	d.store(in+abi.GlobalProgressTimer, uint32(min(units, 1<<32-1)))
	d.store(in+abi.GlobalAckIRQMask, abi.GlobalCfgAllocEnable|abi.GlobalPing|abi.GlobalCfgProgressTimer|abi.GlobalCfgPowerOffTimer|
		abi.GlobalIdleEnable|abi.GlobalIdle)
	d.store(in+abi.GlobalReq, d.load(in+abi.GlobalReq)|abi.GlobalIdleEnable)
	d.toggleGlobal(abi.GlobalCfgAllocEnable | abi.GlobalCfgPowerOffTimer | abi.GlobalCfgProgressTimer)
	d.kick(0)
}

// up: the device takes work.
func (d *Driver) up() {
	d.phase = phaseUp
	d.schedulePing()
	for _, done := range d.upWaits {
		done(nil)
	}
	d.upWaits = nil
	d.tickNow()
}

// schedulePing asks the firmware for a sign of life from time to time.
func (d *Driver) schedulePing() {
	if d.ping != nil {
		d.ping.Stop()
	}
	d.ping = d.loop.After(d.config.Timeouts.Ping, func() {
		if d.down() {
			return
		}
		d.toggleGlobal(abi.GlobalPing)
		d.kick(0)
		d.expect(d.config.Timeouts.Ack, 0, func() bool { return d.globalPending(abi.GlobalPing) == 0 }, d.schedulePing,
			func() { d.reset(fmt.Errorf("ping: no answer in %s", d.config.Timeouts.Ack)) })
	})
}
