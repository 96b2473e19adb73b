package fw

import (
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// surroundings are what the initdata name.
type surroundings struct {
	control  *abi.Receiver
	pipes    [abi.Levels]*abi.Receiver
	eventOut *abi.Sender
	statOut  *abi.Sender
	logs     [abi.LogLevels]*abi.Sender
	// logSeq counts the lines of the log, logLines those of each level.
	logSeq   uint32
	logLines [abi.LogLevels]uint32
	payloads []byte
	status   hw.Words // FwStatus
	globals  hw.Words
	faults   hw.Words // fault info block
	// contexts is the device address of the context table.
	contexts uint64
}

// initialize takes the initdata. What is wrong with them ends the firmware.
func (f *Firmware) initialize(va abi.VA) {
	if err := f.readInitData(va); err != nil {
		f.crash("agx_background: " + err.Error())
		return
	}
	f.boot.init = true
	f.enter(phaseReady)
	f.power.since = f.cfg.Clock.Now()
	f.log(abi.LogInfo, "initdata taken")
	if control := f.global(abi.GlobalFaultControl); control != 0 {
		f.log(abi.LogWarn, fmt.Sprintf("fault_control %#x: soft faults are not modelled", control))
	}
}

func (f *Firmware) readInitData(va abi.VA) error {
	if device, ok := va.Device(); !ok || device == 0 {
		return fmt.Errorf("no initdata from the host")
	}
	var d abi.InitData
	if err := f.decode(va, &d, "initdata"); err != nil {
		return err
	}
	if _, _, has := f.abi.Offset(&d, "ver_info"); has && d.Version != abi.InitVersion {
		return fmt.Errorf("initdata version %#x", d.Version)
	}
	if d.HostMapped != 1 {
		return fmt.Errorf("host-mapped fw allocations are %d", d.HostMapped)
	}
	if d.PageSize != abi.UATPageSize || d.PageBits != abi.UATPageBits || d.PageLevels != abi.UATLevels {
		return fmt.Errorf("page tables of %d levels of %d bytes", d.PageLevels, d.PageSize)
	}
	if _, err := f.bytes(d.UnkBuf, abi.InitUnkSize); err != nil {
		return err
	}
	var p abi.RuntimePointers
	if err := f.decode(d.RuntimePointers, &p, "runtime pointers"); err != nil {
		return err
	}
	h := &f.host
	var err error
	for _, w := range []struct {
		to   *hw.Words
		va   abi.VA
		size uint32
	}{{&h.status, d.FwStatus, abi.FwStatusSize}, {&h.globals, d.Globals, f.abi.GlobalsSize()}, {&h.faults, p.FaultInfo, abi.FaultInfoSize}} {
		if *w.to, err = f.words(w.va, w.size); err != nil {
			return err
		}
	}
	if h.payloads, err = f.bytes(p.FwLogPayloads, uint64(abi.LogBufferSize)); err != nil {
		return err
	}
	if h.contexts, err = f.load64(p.HWDataB); err != nil {
		return err
	}
	if h.contexts%8 != 0 || h.contexts < hw.MemoryBase {
		return fmt.Errorf("context table at %#x", h.contexts)
	}
	if _, err := f.cfg.Arena.Bytes(h.contexts, abi.ContextTableSize); err != nil {
		return err
	}
	return f.openRings(&p)
}

// openRings opens the rings that are modelled.
func (f *Firmware) openRings(p *abi.RuntimePointers) error {
	h := &f.host
	in := func(to **abi.Receiver, c abi.Channel, size uint32) error {
		r, err := f.ring(c, 0, size)
		if err == nil {
			*to, err = abi.NewReceiver(r)
		}
		return err
	}
	out := func(to **abi.Sender, c abi.Channel, index, size uint32) error {
		r, err := f.ring(c, index, size)
		if err == nil {
			*to, err = abi.NewSender(r)
		}
		return err
	}
	if err := in(&h.control, p.DeviceControl, f.abi.DeviceControlEntry); err != nil {
		return fmt.Errorf("device control: %w", err)
	}
	for level := range h.pipes {
		if err := in(&h.pipes[level], p.Pipes[level][abi.PipeCompute], f.abi.PipeEntry); err != nil {
			return fmt.Errorf("pipe %d: %w", level, err)
		}
	}
	if err := out(&h.eventOut, p.Event, 0, f.abi.EventEntry); err != nil {
		return fmt.Errorf("events: %w", err)
	}
	if err := out(&h.statOut, p.Stats, 0, f.abi.StatsEntry); err != nil {
		return fmt.Errorf("statistics: %w", err)
	}
	for level := range h.logs {
		if err := out(&h.logs[level], p.FwLog, uint32(level), abi.LogEntry); err != nil {
			return fmt.Errorf("log: %w", err)
		}
	}
	return nil
}

// ring returns the ring of a channel; index selects a sub-ring.
func (f *Firmware) ring(c abi.Channel, index, entrySize uint32) (abi.Ring, error) {
	state, err := f.words(c.State+abi.VA(index*abi.StateSize), abi.StateSize)
	if err != nil {
		return abi.Ring{}, err
	}
	size := entrySize * abi.RingEntries
	entries, err := f.bytes(c.Ring+abi.VA(index*size), uint64(size))
	if err != nil {
		return abi.Ring{}, err
	}
	return abi.NewRing(state, entries, entrySize, abi.RingEntries)
}

// global reads a field of Globals; 0 when this version does not have it.
func (f *Firmware) global(g abi.Global) uint32 {
	off, ok := f.abi.GlobalOffset(g)
	if !ok {
		return 0
	}
	return f.host.globals.Load(off / 4)
}

// setGlobal writes a field of Globals.
func (f *Firmware) setGlobal(g abi.Global, v uint32) {
	if off, ok := f.abi.GlobalOffset(g); ok {
		f.host.globals.Store(off/4, v)
	}
}
