package fw

import (
	"encoding/binary"
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// mcu is the microcontroller.
type mcu struct {
	// control is MCU_CONTROL as seen last, status what MCU_STATUS says.
	control, status uint32
	booting         bool
	// frozen: it crashed without a word, or a fault plan silenced it.
	frozen bool
	// halting: on its way to MCUHalted. haltSeen is the HALT bit seen last: its edge counts.
	halting, haltSeen bool
	// shared and data are the device addresses of these sections.
	shared, data uint64
}

// takeMCUControl follows MCU_CONTROL and reports whether it changed.
func (f *Firmware) takeMCUControl() bool {
	control := f.cfg.Ports.Registers.Load(abi.RegMCUControl)
	if control == f.mcu.control || f.gpu.resetting {
		return false
	}
	f.note("MCU", func(w []uint32) string { return fmt.Sprintf("control=%d", w[0]) }, control)
	on := f.mcu.control != abi.MCUControlDisable
	f.mcu.control = control
	switch {
	case control == abi.MCUControlDisable:
		f.drop()
		f.mcu = mcu{}
		f.setMCU(abi.MCUDisabled)
	case !on && !f.mcu.booting:
		f.mcu.booting = true
		f.after(f.cfg.BootDelay, f.boot)
	}
	return true
}

// setMCU publishes the state of the MCU.
func (f *Firmware) setMCU(status uint32) {
	f.mcu.status = status
	f.cfg.Ports.Registers.Store(abi.RegMCUStatus, status)
	f.note("MCU", func(w []uint32) string {
		return "status " + [...]string{"disabled", "enabled", "halted", "fatal"}[w[0]&3]
	}, status)
	f.raise(abi.RegGPUIntRaw, abi.GPUIntMCUStatus)
}

// boot starts the firmware, or ends fatally: without L2 cache, without its
// sections, with another build's code, or in memory that was left running.
func (f *Firmware) boot() {
	f.mcu.booting = false
	state, err := f.loadSections()
	name := bootCold
	if state == memoryHalted {
		name = bootWarm
	}
	rules, lost := f.meet(PointBoot, name, hw.NoID)
	if lost {
		return
	}
	var bad *hw.Rule
	for i, r := range rules {
		switch r.Action {
		case FaultFatal:
			err = fmt.Errorf("injected")
		default:
			bad = &rules[i]
		}
	}
	if err == nil && state == memoryRunning {
		err = fmt.Errorf("memory was not halted")
	}
	if err != nil {
		f.counters.BootsFailed++
		f.say("MCU", "boot failed: "+err.Error())
		f.setMCU(abi.MCUFatal)
		return
	}
	f.counters.Boots++
	if state == memoryHalted {
		f.counters.FastBoots++
	}
	f.store(f.mcu.data, uint32(memoryRunning))
	f.publish(bad)
	r := f.cfg.Ports.Registers
	r.Store(abi.RegShaderReady, uint32(f.cfg.Shaders))
	r.Store(abi.RegShaderReady+4, uint32(f.cfg.Shaders>>32))
	f.setMCU(abi.MCUEnabled)
	if bad == nil || bad.Action != FaultNoIRQ {
		f.interruptGlobal()
	}
}

// loadSections finds the firmware's memory and returns how it was left.
func (f *Firmware) loadSections() (uint64, error) {
	if f.cfg.Ports.Registers.Load(abi.RegL2Ready)&1 == 0 {
		return 0, fmt.Errorf("the L2 cache has no power")
	}
	_, code, err := f.mcuBytes(codeStart, codeSize, abi.AccessExecute)
	if err != nil {
		return 0, fmt.Errorf("code: %w", err)
	}
	if m, build := binary.LittleEndian.Uint64(code), binary.LittleEndian.Uint64(code[8:]); m != codeMagic || build != f.cfg.Build {
		return 0, fmt.Errorf("code is of build %d", build)
	}
	data, word, err := f.mcuBytes(dataStart, 8, abi.AccessWrite)
	if err != nil {
		return 0, fmt.Errorf("data: %w", err)
	}
	shared, _, err := f.mcuBytes(abi.SharedBase, f.layout.size, abi.AccessWrite)
	if err != nil {
		return 0, fmt.Errorf("shared section: %w", err)
	}
	f.mcu.data, f.mcu.shared = data, shared
	return binary.LittleEndian.Uint64(word), nil
}

// publish writes control and output blocks, with what a fault plan makes of them.
func (f *Firmware) publish(bad *hw.Rule) {
	l, base, va := f.layout, f.mcu.shared, uint32(abi.SharedBase)
	features := uint32(abi.FeatureComputeSuspend)
	if f.cfg.WholeDispatches {
		features = 0
	}
	put := func(at uint64, words ...uint32) {
		for i, w := range words {
			f.store(base+at+4*uint64(i), w)
		}
	}
	put(0, f.cfg.Version.Encode(), features, va+uint32(l.globalInput()), va+uint32(l.globalInput()+hw.PageSize),
		uint32(l.groups), uint32(l.groupStride), 0, instrFeatures)
	f.glb = f.newGlobal(base + l.globalInput())
	f.groups = nil
	for slot := range l.groups {
		at := l.groupInput(slot)
		put(l.groupControl(slot), uint32(f.cfg.SuspendType), va+uint32(at), va+uint32(at+hw.PageSize),
			f.suspendSize(), uint32(hw.PageSize), uint32(l.streams), abi.StreamControlSize)
		g := f.newGroup(uint32(slot), base+at)
		for i := range l.streams {
			at := l.streamInput(slot, i)
			put(l.streamControl(slot, i), abi.CSFeatures{Registers: registersMax, Scoreboards: scoreboardsMax,
				Compute: true, Fragment: true, Tiler: true}.Encode(), va+uint32(at), va+uint32(at+hw.PageSize))
			g.streams = append(g.streams, f.newStream(g, uint32(i), base+at))
		}
		f.groups = append(f.groups, g)
	}
	if bad == nil {
		return
	}
	const beyond = 0x0900_0000 // Outside of the shared section.
	switch bad.Action {
	case FaultVersion:
		put(abi.GlobalVersion, uint32(bad.Number()))
	case FaultGroups:
		put(abi.GlobalGroupCount, uint32(bad.Number()))
	case FaultStreams:
		for slot := range l.groups {
			put(l.groupControl(slot)+abi.GroupStreamCount, uint32(bad.Number()))
		}
	case FaultAddress:
		put(l.streamControl(l.groups-1, l.streams-1)+abi.StreamOutputAddress, beyond)
	case FaultUnequal:
		put(l.groupControl(l.groups-1)+abi.GroupSuspendSize, f.suspendSize()+uint32(hw.PageSize))
	}
}

// bootAck is the acknowledgement of a request word at boot.
func (f *Firmware) bootAck(req, levels uint32) uint32 {
	if f.cfg.BootAcksZero {
		return 0
	}
	return req &^ levels
}

// beginHalt stops everything; the MCU is halted when the engine is empty.
func (f *Firmware) beginHalt() {
	rules, lost := f.meet(PointHalt, "", hw.NoID)
	if lost {
		return
	}
	for _, r := range rules {
		switch r.Action {
		case FaultDrop:
			return
		case FaultStatus:
			f.store(f.glb.out+abi.GlobalHaltStatus, uint32(r.Number()))
		}
	}
	f.mcu.halting = true
	for _, r := range f.runs {
		r.stop()
	}
}

// finishHalt halts the MCU once nothing runs.
func (f *Firmware) finishHalt() bool {
	if !f.mcu.halting || len(f.runs) > 0 {
		return false
	}
	f.mcu.halting = false
	f.drop()
	f.store(f.mcu.data, uint32(memoryHalted))
	f.setMCU(abi.MCUHalted)
	return true
}

// crash freezes the interface; told says that MCU_STATUS tells of it. What is on
// endpoints goes on, and nobody takes it in.
func (f *Firmware) crash(told bool) {
	f.mcu.frozen = true
	if told {
		f.setMCU(abi.MCUFatal)
	}
}

// load and store are for the blocks and pages that were found at boot.
func (f *Firmware) load(at uint64) uint32 {
	v, _ := f.cfg.Arena.Load32(at)
	return v
}

func (f *Firmware) store(at uint64, v uint32) { _ = f.cfg.Arena.Store32(at, v) }

func (f *Firmware) load64(at uint64) uint64 {
	v, _ := f.cfg.Arena.Load64(at)
	return v
}

func (f *Firmware) storeLong(at, v uint64) { _ = f.cfg.Arena.Store64(at, v) }
