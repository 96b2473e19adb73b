package fw

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// addressSpace is one address space of the MMU: what its table said when it was read.
type addressSpace struct {
	// table is the device address of the address space table, 0 when disabled.
	table uint64
	space hw.Space
	// visible is what kernels see, number its name at the engine, 0 when there is none yet.
	visible hw.Space
	number  uint64
	// stuck: a fault plan keeps it busy.
	stuck bool
}

// access is an address that cannot be used so.
type access struct {
	exception abi.Exception
	kind      abi.AccessType
	as        uint32
	address   uint64
	// disabled: the address space is off; the access waits, then it is a bus fault.
	disabled bool
}

// Error implements error.
func (a *access) Error() string {
	return fmt.Sprintf("%s at %#x in address space %d", a.exception, a.address, a.as)
}

// takeASCommand does what the host commands an address space, and reports
// whether there was anything.
func (f *Firmware) takeASCommand(as uint32) bool {
	r, base := f.cfg.Ports.Registers, abi.ASBase(as)
	if f.as[as].stuck {
		return false
	}
	cmd := r.Begin(base + abi.RegASCommand)
	if cmd == 0 {
		return false
	}
	f.note("MMU", func(w []uint32) string { return fmt.Sprintf("as=%d %s", w[0], abi.ASCommandName(w[1])) }, as, cmd)
	if rules, lost := f.meet(PointCommand, commandMMU, uint64(as)); lost || stuckRule(rules) {
		f.as[as].stuck = true
		return true
	}
	switch cmd {
	case abi.ASCommandUpdate:
		f.as[as].table = f.load64Register(base + abi.RegASTransTab)
		f.readTable(as)
	case abi.ASCommandUnlock, abi.ASCommandFlushPT, abi.ASCommandFlushMem:
		if f.as[as].table != 0 {
			f.readTable(as)
		}
	}
	r.Clear(base+abi.RegASStatus, abi.ASStatusBusy)
	f.raise(abi.RegMMUIntRaw, abi.MMUIntDone(as))
	return true
}

func (f *Firmware) load64Register(reg uint32) uint64 {
	r := f.cfg.Ports.Registers
	return uint64(r.Load(reg)) | uint64(r.Load(reg+4))<<32
}

// readTable reads an address space's table whole. One that is malformed disables it.
func (f *Firmware) readTable(as uint32) {
	a := &f.as[as]
	var space hw.Space
	var err error
	if f.cfg.AddressSpaces>>as&1 == 0 {
		a.table = 0
	}
	if a.table != 0 {
		if space, err = hw.ReadSpace(f.cfg.Arena, a.table); err != nil {
			f.violation("address space %d: %v", as, err)
			a.table = 0
		}
	}
	var visible hw.Space
	for _, m := range space {
		if !m.Private {
			visible = append(visible, m)
		}
	}
	if !slices.Equal(visible, a.visible) {
		f.forgetSpace(a)
	}
	a.space, a.visible = space, visible
	for _, g := range f.groups {
		for _, s := range g.streams {
			s.look = s.look || g.as == as && s.stallAt != never
		}
	}
	if a.table == 0 {
		f.evictSpace(as)
	}
}

// evictSpace stops the executions that use an address space which is off now:
// they wait, and are lost if it stays so.
func (f *Firmware) evictSpace(as uint32) {
	for _, r := range f.runs {
		if r.d != nil && r.as == as {
			r.stop()
		}
	}
}

// forgetSpace takes an address space's name from the engine.
func (f *Firmware) forgetSpace(a *addressSpace) {
	if a.number == 0 {
		return
	}
	for _, r := range f.runs {
		if r.space == a.number {
			r.forget = true // The engine must not forget what runs.
			a.number = 0
			return
		}
	}
	f.cfg.Engine.Forget(a.number)
	a.number = 0
}

func (f *Firmware) forgetSpaces() {
	for as := range f.as {
		f.forgetSpace(&f.as[as])
	}
}

// translate returns the device address of [address, address+size) in an address
// space. Errors are *access.
func (f *Firmware) translate(as uint32, address, size uint64, kind abi.AccessType) (uint64, error) {
	a := &f.as[as&(abi.ASMax-1)]
	if a.table == 0 {
		return 0, &access{exception: abi.ExceptionBus, kind: kind, as: as, address: address, disabled: true}
	}
	m, err := a.space.Find(address, size)
	if err != nil {
		return 0, &access{exception: abi.ExceptionTranslationPage, kind: kind, as: as, address: address}
	}
	if m.ReadOnly && (kind == abi.AccessWrite || kind == abi.AccessAtomic) {
		return 0, &access{exception: abi.ExceptionPermissionPage, kind: kind, as: as, address: address}
	}
	return m.Device + address - m.Address, nil
}

// mmuFault latches a fault in its address space and tells the host.
func (f *Firmware) mmuFault(a *access) {
	f.counters.MMUFaults++
	r, base := f.cfg.Ports.Registers, abi.ASBase(a.as)
	r.Store(base+abi.RegASFaultStatus, abi.ASFault{Exception: a.exception, Access: a.kind}.Encode())
	f.store64(base+abi.RegASFaultAddress, a.address)
	f.note("MMU", func(w []uint32) string {
		return fmt.Sprintf("as=%d fault %s at %#x", w[0], abi.Exception(w[1]), uint64(w[2])|uint64(w[3])<<32)
	}, a.as, uint32(a.exception), uint32(a.address), uint32(a.address>>32))
	if !f.interruptLost(irqMMU, uint64(a.as)) {
		f.raise(abi.RegMMUIntRaw, abi.MMUIntFault(a.as))
	}
}

// asAccess is err as *access, nil when it is none.
func asAccess(err error) *access {
	var a *access
	if errors.As(err, &a) {
		return a
	}
	return nil
}

// mcuBytes returns memory of the MCU's address space. Errors are *access.
func (f *Firmware) mcuBytes(address, size uint64, kind abi.AccessType) (uint64, []byte, error) {
	at, err := f.translate(0, address, size, kind)
	if err != nil {
		return 0, nil, err
	}
	b, err := f.cfg.Arena.Bytes(at, size)
	if err != nil {
		return 0, nil, &access{exception: abi.ExceptionBus, kind: kind, address: address}
	}
	return at, b, nil
}

// dirty is memory that was written and is still in the L2 cache.
type dirty struct {
	at    uint64
	bytes []byte
}

// writeL2 writes memory, through the cache if that is modelled.
func (f *Firmware) writeL2(at uint64, b []byte) {
	if f.cfg.DirtyL2 {
		f.l2 = append(f.l2, dirty{at, b})
		return
	}
	if to, err := f.cfg.Arena.Bytes(at, uint64(len(b))); err == nil {
		copy(to, b)
	}
}

// cleanL2 makes memory hold what is in the cache.
func (f *Firmware) cleanL2() {
	for _, d := range f.l2 {
		if to, err := f.cfg.Arena.Bytes(d.at, uint64(len(d.bytes))); err == nil {
			copy(to, d.bytes)
		}
	}
	f.l2 = nil
}
