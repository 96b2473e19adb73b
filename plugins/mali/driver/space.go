package driver

import (
	"fmt"
	"math/bits"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// space is one GPU address space (a VM). It needs one of the few address space
// slots (AS) of the MMU while a group of it is resident, and keeps it until another needs it.
type space struct {
	table uint64
	// key is how the arbiter knows one that groups share; 0 when it is that of one entity.
	key uint64
	// as is its slot, 0 for none: 0 is the MCU's.
	as uint32
	// window holds the rings of the groups of a VM, used counts its bytes.
	window, used uint64
	// residents counts its groups on CSG slots, groups those that exist.
	residents, groups int
	// idle numbers the order in which spaces lost their last resident.
	idle uint64
	// faulted says that the MMU reported a fault that no group was blamed for yet.
	faulted bool
	detail  string
}

// spaces are the address space slots.
type spaces struct {
	present uint32
	owners  [abi.ASMax]*space
	count   uint64
	// shared counts those that groups share.
	shared uint64
}

// activate gives the space an AS for one more resident; enable says that the
// table must be told to the MMU. Errors mean that there is none.
func (a *spaces) activate(s *space) (enable bool, err error) {
	if s.as == 0 || a.owners[s.as] != s {
		as := a.choose()
		if as == 0 {
			return false, fmt.Errorf("all address spaces are in use")
		}
		if old := a.owners[as]; old != nil {
			old.as = 0
		}
		a.owners[as], s.as, s.faulted = s, as, false
		enable = true
	}
	if s.faulted {
		s.faulted, enable = false, true
	}
	s.residents++
	return enable, nil
}

// choose returns a free AS, else the one whose space has been idle longest; 0 for none.
func (a *spaces) choose() uint32 {
	var oldest uint32
	for rest := a.present; rest != 0; rest &= rest - 1 {
		as := uint32(bits.TrailingZeros32(rest))
		o := a.owners[as]
		if o == nil {
			return as
		}
		if o.residents == 0 && (oldest == 0 || o.idle < a.owners[oldest].idle) {
			oldest = as
		}
	}
	return oldest
}

// deactivate takes one resident off.
func (a *spaces) deactivate(s *space) {
	s.residents--
	a.count++
	s.idle = a.count
}

// forget frees every AS, after a reset.
func (a *spaces) forget() {
	for as, s := range a.owners {
		if s != nil {
			s.as, s.residents = 0, 0
		}
		a.owners[as] = nil
	}
}

// enableSpace tells the MMU a table and goes on when it has taken it. An AS that
// stays busy is answered with a reset.
func (d *Driver) enableSpace(as uint32, table uint64, done func()) {
	base, bound := abi.ASBase(as), d.config.Timeouts.Space
	free := func() bool { return d.read(base+abi.RegASStatus)&abi.ASStatusBusy == 0 }
	stuck := func() { d.broken(fmt.Errorf("address space %d: busy for %s", as, bound)) }
	d.expect(bound, registerPoll, free, func() {
		d.write64(base+abi.RegASTransTab, table)
		d.write(base+abi.RegASCommand, abi.ASCommandUpdate)
		d.expect(bound, registerPoll, free, done, stuck)
	}, stuck)
}

// disableSpace takes a table from the MMU without waiting; who uses the AS next waits.
func (d *Driver) disableSpace(as uint32) {
	d.write64(abi.ASBase(as)+abi.RegASTransTab, 0)
	d.write(abi.ASBase(as)+abi.RegASCommand, abi.ASCommandUpdate)
}

// dropSpace forgets a space without groups.
func (d *Driver) dropSpace(s *space) {
	if s.as != 0 && d.spaces.owners[s.as] == s {
		d.spaces.owners[s.as] = nil
		if d.phase != phaseOff && d.loop.Failure() == nil {
			d.disableSpace(s.as)
		}
		s.as = 0
	}
}

// resolve is where an address of the space lies in device memory.
func (d *Driver) resolve(s *space, address, size uint64) (uint64, error) {
	table, err := hw.ReadSpace(d.config.Arena, s.table)
	if err != nil {
		return 0, err
	}
	return table.Resolve(address, size)
}

// serveMMU takes faults of address spaces: the AS is disabled, and the tick deals with its groups.
func (d *Driver) serveMMU() {
	raw := d.read(abi.RegMMUIntRaw)
	if raw == 0 {
		return
	}
	d.write(abi.RegMMUIntClear, raw)
	for rest := raw & (1<<abi.ASMax - 1); rest != 0; rest &= rest - 1 {
		as := uint32(bits.TrailingZeros32(rest))
		base := abi.ASBase(as)
		fault, address := abi.DecodeASFault(d.read(base+abi.RegASFaultStatus)), d.read64(base+abi.RegASFaultAddress)
		d.log.Warn("memory fault", "slot", as, "address", fmt.Sprintf("%#x", address), "error", fault.Exception)
		if as == 0 {
			d.broken(fmt.Errorf("memory fault of the MCU at %#x: %s", address, fault.Exception))
			return
		}
		s := d.spaces.owners[as]
		if s == nil {
			continue
		}
		d.disableSpace(as)
		s.faulted, s.detail = true, fmt.Sprintf("%s at %#x", fault.Exception, address)
		d.tickNow()
	}
}

// blameFault puts a fault of its address space on a group that has a slot, unless its stream has said more.
func (g *group) blameFault() {
	if g.space.faulted && g.alive() {
		g.fatal = 1<<len(g.queues) - 1
		g.condemn(g.accuse(core.CauseMemory, g.space.detail))
	}
}
