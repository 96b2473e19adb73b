package driver

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// layout is where the objects of the device lie that every firmware has once:
// initdata and what it names, the channels, the stamps, the context table.
type layout struct {
	initData, fwStatus, globals, contexts uint64
	stamps, fwStamps                      uint64
	logPayloads                           uint64
	pipes                                 [abi.Levels]abi.Ring
	control, event, ktrace, stats         abi.Ring
	logs                                  [abi.LogLevels]abi.Ring
}

// vendor sizes of what stays opaque.
const (
	hwDataASize = 0x4000
	hwDataBSize = 0x1000
	scratchSize = 0x7000
	statsSize   = 0x1000
)

// place allocates one object and returns its device address.
func (d *Driver) place(size uint32, what string) (uint64, error) {
	return d.memory.Low(uint64(size), what)
}

// placeRing allocates state blocks and entries of a channel; count rings lie one after the other.
func (d *Driver) placeRing(entries abi.Class, entrySize, length, count uint32, what string) (abi.Channel, []abi.Ring, error) {
	state, err := d.place(abi.StateSize*count, what+" state")
	if err != nil {
		return abi.Channel{}, nil, err
	}
	memory, err := d.place(entrySize*length*count, what+" ring")
	if err != nil {
		return abi.Channel{}, nil, err
	}
	rings := make([]abi.Ring, count)
	for i := range rings {
		words, err := d.config.Arena.Words(state+uint64(i)*abi.StateSize, abi.StateSize/4)
		if err != nil {
			return abi.Channel{}, nil, err
		}
		size := uint64(entrySize) * uint64(length)
		bytes, err := d.config.Arena.Bytes(memory+uint64(i)*size, size)
		if err != nil {
			return abi.Channel{}, nil, err
		}
		if rings[i], err = abi.NewRing(words, bytes, entrySize, length); err != nil {
			return abi.Channel{}, nil, err
		}
	}
	return abi.Channel{State: abi.Address(abi.ClassShared, state), Ring: abi.Address(entries, memory)}, rings, nil
}

// layOut allocates and fills everything that the Init message names.
func (d *Driver) layOut() error {
	l, a := &d.lay, d.abi
	var pointers abi.RuntimePointers
	var unk uint64
	shared := func(device uint64) abi.VA { return abi.Address(abi.ClassShared, device) }
	for _, o := range []struct {
		to   *uint64
		va   *abi.VA
		size uint32
		what string
	}{
		{&l.initData, nil, a.Size(&abi.InitData{}), "initdata"},
		{&unk, nil, abi.InitUnkSize, "initdata buffer"},
		{&l.fwStatus, nil, abi.FwStatusSize, "fw status"},
		{&l.globals, nil, a.GlobalsSize(), "globals"},
		{&l.contexts, nil, abi.ContextTableSize, "context table"},
		{&l.stamps, nil, abi.Slots * abi.StampSize, "stamps"},
		{&l.fwStamps, nil, abi.Slots * abi.StampSize, "firmware stamps"},
		{&l.logPayloads, &pointers.FwLogPayloads, abi.LogBufferSize, "log payloads"},
		{nil, &pointers.HWDataA, hwDataASize, "hwdata a"},
		{nil, &pointers.FaultInfo, abi.FaultInfoSize, "fault info"},
		{nil, &pointers.Timestamps, statsSize, "timestamps"},
		{nil, &pointers.HWDataB, hwDataBSize, "hwdata b"},
		{nil, &pointers.StatsVertex, statsSize, "vertex statistics"},
		{nil, &pointers.StatsFragment, statsSize, "fragment statistics"},
		{nil, &pointers.StatsCompute, statsSize, "compute statistics"},
	} {
		device, err := d.place(o.size, o.what)
		if err != nil {
			return err
		}
		if o.to != nil {
			*o.to = device
		}
		if o.va != nil {
			*o.va = shared(device)
		}
	}
	if err := d.layChannels(&pointers); err != nil {
		return err
	}
	runtime, err := d.place(a.Size(&pointers), "runtime pointers")
	if err != nil {
		return err
	}
	hwDataB, _ := pointers.HWDataB.Device()
	d.store64(hwDataB, l.contexts)
	d.encode(runtime, &pointers)
	d.encode(l.initData, &abi.InitData{
		Version: abi.InitVersion, UnkBuf: shared(unk), RuntimePointers: shared(runtime), Globals: shared(l.globals), FwStatus: shared(l.fwStatus),
		PageSize: abi.UATPageSize, PageBits: abi.UATPageBits, PageLevels: abi.UATLevels, HostMapped: 1,
	})
	for g := range abi.GlobalCount {
		if off, has := a.GlobalOffset(g); has {
			d.store32(l.globals+uint64(off), g.Default())
		}
	}
	for slot := range uint64(abi.Slots) {
		d.store32(l.stamps+slot*abi.StampSize, d.config.FirstStamp)
		d.store32(l.fwStamps+slot*abi.StampSize, d.config.FirstStamp)
	}
	return nil
}

// layChannels makes all rings. Only the compute pipes and device control are sent to.
func (d *Driver) layChannels(pointers *abi.RuntimePointers) (err error) {
	l, a := &d.lay, d.abi
	one := func(to *abi.Channel, ring *abi.Ring, class abi.Class, entrySize, length uint32, what string) {
		if err != nil {
			return
		}
		var rings []abi.Ring
		if *to, rings, err = d.placeRing(class, entrySize, length, 1, what); err == nil && ring != nil {
			*ring = rings[0]
		}
	}
	for level := range pointers.Pipes {
		for pipe := range pointers.Pipes[level] {
			ring := &l.pipes[level]
			if abi.PipeType(pipe) != abi.PipeCompute {
				ring = nil
			}
			one(&pointers.Pipes[level][pipe], ring, abi.ClassPrivate, a.PipeEntry, abi.RingEntries, fmt.Sprintf("pipe %d.%d", pipe, level))
		}
	}
	one(&pointers.DeviceControl, &l.control, abi.ClassPrivate, a.DeviceControlEntry, abi.RingEntries, "device control")
	one(&pointers.Event, &l.event, abi.ClassShared, a.EventEntry, abi.RingEntries, "event")
	one(&pointers.KTrace, &l.ktrace, abi.ClassShared, abi.KTraceEntry, abi.KTraceEntries, "ktrace")
	one(&pointers.Stats, &l.stats, abi.ClassShared, a.StatsEntry, abi.RingEntries, "statistics")
	if err != nil {
		return err
	}
	var rings []abi.Ring
	pointers.FwLog, rings, err = d.placeRing(abi.ClassShared, abi.LogEntry, abi.RingEntries, uint32(abi.LogLevels), "log")
	copy(l.logs[:], rings)
	return err
}

// encode writes an object into memory that was placed for it.
func (d *Driver) encode(device uint64, o abi.Object) {
	bytes, err := d.config.Arena.Bytes(device, uint64(d.abi.Size(o)))
	if err == nil {
		err = d.abi.Encode(bytes, o)
	}
	d.must(err)
}

// load32 and the others access what lies in the arena by construction.
func (d *Driver) load32(device uint64) uint32 {
	v, err := d.config.Arena.Load32(device)
	d.must(err)
	return v
}

func (d *Driver) store32(device uint64, v uint32) { d.must(d.config.Arena.Store32(device, v)) }

func (d *Driver) store64(device uint64, v uint64) { d.must(d.config.Arena.Store64(device, v)) }

// must gives the device up for an access that cannot fail.
func (d *Driver) must(err error) {
	if err != nil {
		d.fail(fmt.Errorf("device memory: %w: %w", core.ErrInvalid, err))
	}
}

// global is the device address of a field of Globals that every version has.
func (d *Driver) global(g abi.Global) uint64 {
	off, _ := d.abi.GlobalOffset(g)
	return d.lay.globals + uint64(off)
}

// status is the device address of a word of FwStatus.
func (d *Driver) status(word uint32) uint64 { return d.lay.fwStatus + 4*uint64(word) }
