package driver

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// iface is where the interface blocks lie, as device addresses, and what the
// firmware said of itself.
type iface struct {
	version       abi.Version
	input, output uint64
	groups        []groupIface
	suspendSize   uint64
	features      abi.CSFeatures
}

// groupIface and streamIface are the blocks of a CSG slot and of its streams.
type groupIface struct {
	input, output uint64
	streams       []streamIface
}

type streamIface struct{ input, output uint64 }

// groupSame is what the control blocks of all groups must agree in.
type groupSame struct{ features, suspend, protected, streams uint32 }

// readInterface validates what a booted firmware put into the shared section:
// everything in it, all groups alike, all streams alike. Errors wrap core.ErrInvalid.
func (d *Driver) readInterface() (*iface, error) {
	control := d.mcu.shared
	f := &iface{version: abi.DecodeVersion(d.load(control + abi.GlobalVersion))}
	if f.version == (abi.Version{}) {
		return nil, fmt.Errorf("firmware interface: version 0: %w", core.ErrInvalid)
	}
	var err error
	if f.input, f.output, err = d.blocks("global", control+abi.GlobalInputAddress, abi.GlobalInputSize, abi.GlobalOutputSize); err != nil {
		return nil, err
	}
	count, stride := d.load(control+abi.GlobalGroupCount)&31, uint64(d.load(control+abi.GlobalGroupStride))
	if count < abi.GroupsMin || count > abi.GroupsMax {
		return nil, fmt.Errorf("firmware interface: %d groups, want %d to %d: %w", count, abi.GroupsMin, abi.GroupsMax, core.ErrInvalid)
	}
	var first groupSame
	var features uint32
	for n := range count {
		at := control + abi.GroupControlOffset + uint64(n)*stride
		if !d.mcu.inside(at, abi.GroupControlSize) {
			return nil, fmt.Errorf("firmware interface: group %d lies outside of the shared section: %w", n, core.ErrInvalid)
		}
		same := groupSame{d.load(at + abi.GroupFeatures), d.load(at + abi.GroupSuspendSize), d.load(at + abi.GroupProtectedSize), d.load(at+abi.GroupStreamCount) & 63}
		if n == 0 {
			first = same
		}
		if same != first {
			return nil, fmt.Errorf("firmware interface: group %d differs from group 0: %w", n, core.ErrInvalid)
		}
		g, seen, err := d.readGroup(n, at, same.streams)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			features = seen
		}
		if seen != features {
			return nil, fmt.Errorf("firmware interface: streams of group %d differ from those of group 0: %w", n, core.ErrInvalid)
		}
		f.groups = append(f.groups, g)
	}
	f.suspendSize, f.features = uint64(first.suspend), abi.DecodeCSFeatures(features)
	if f.suspendSize == 0 || f.suspendSize > suspendMax || f.features.Registers < abi.ComputeRegisters+abi.UnpreservedRegisters || f.features.Scoreboards == 0 {
		return nil, fmt.Errorf("firmware interface: suspend size %d, %d registers, %d scoreboards: %w",
			f.suspendSize, f.features.Registers, f.features.Scoreboards, core.ErrInvalid)
	}
	return f, nil
}

// readGroup validates the blocks of one group and returns the features of its streams.
func (d *Driver) readGroup(n uint32, control uint64, streams uint32) (groupIface, uint32, error) {
	var g groupIface
	var err error
	if streams < abi.StreamsMin || streams > abi.StreamsMax {
		return g, 0, fmt.Errorf("firmware interface: %d streams, want %d to %d: %w", streams, abi.StreamsMin, abi.StreamsMax, core.ErrInvalid)
	}
	if g.input, g.output, err = d.blocks(fmt.Sprintf("group %d", n), control+abi.GroupInputAddress, abi.GroupInputSize, abi.GroupOutputSize); err != nil {
		return g, 0, err
	}
	stride := uint64(d.load(control + abi.GroupStreamStride))
	var features uint32
	for m := range streams {
		at := control + abi.StreamControlOffset + uint64(m)*stride
		if !d.mcu.inside(at, abi.StreamControlSize) {
			return g, 0, fmt.Errorf("firmware interface: stream %d of group %d lies outside of the shared section: %w", m, n, core.ErrInvalid)
		}
		seen := d.load(at + abi.StreamFeatures)
		if m > 0 && seen != features {
			return g, 0, fmt.Errorf("firmware interface: stream %d of group %d differs from stream 0: %w", m, n, core.ErrInvalid)
		}
		features = seen
		var s streamIface
		if s.input, s.output, err = d.blocks(fmt.Sprintf("stream %d of group %d", m, n), at+abi.StreamInputAddress, abi.StreamInputSize, abi.StreamOutputSize); err != nil {
			return g, 0, err
		}
		g.streams = append(g.streams, s)
	}
	return g, features, nil
}

// blocks reads the addresses of an input and an output block, which stand one
// after the other, and translates them.
func (d *Driver) blocks(whose string, at, inputSize, outputSize uint64) (input, output uint64, err error) {
	for i, b := range []struct {
		to   *uint64
		size uint64
	}{{&input, inputSize}, {&output, outputSize}} {
		va := uint64(d.load(at + 4*uint64(i)))
		*b.to = d.mcu.shared + va - abi.SharedBase
		if va < abi.SharedBase || va%8 != 0 || !d.mcu.inside(*b.to, b.size) {
			return 0, 0, fmt.Errorf("firmware interface: block of %s at %#x: %w", whose, va, core.ErrInvalid)
		}
	}
	return input, output, nil
}

// toggleGlobal requests bits of the global interface; kick tells.
func (d *Driver) toggleGlobal(bits uint32) {
	req, ack := d.load(d.iface.input+abi.GlobalReq), d.load(d.iface.output+abi.GlobalAck)
	d.store(d.iface.input+abi.GlobalReq, abi.Toggle(req, ack, bits))
}

// globalPending are the bits that are requested and not acknowledged.
func (d *Driver) globalPending(bits uint32) uint32 {
	return abi.Pending(d.load(d.iface.input+abi.GlobalReq), d.load(d.iface.output+abi.GlobalAck)) & bits
}

// kick rings the kernel's doorbell, for the groups of a mask and the global requests.
func (d *Driver) kick(groups uint32) {
	if groups != 0 {
		req, ack := d.load(d.iface.input+abi.GlobalDoorbellReq), d.load(d.iface.output+abi.GlobalDoorbellAck)
		d.store(d.iface.input+abi.GlobalDoorbellReq, abi.Toggle(req, ack, groups))
	}
	d.write(abi.RegDoorbell(0), 1)
}

// kickStreams toggles the doorbells of streams of a slot; kick tells the rest.
func (d *Driver) kickStreams(s *slot, streams uint32) {
	req, ack := d.load(s.iface.input+abi.GroupDoorbellReq), d.load(s.iface.output+abi.GroupDoorbellAck)
	d.store(s.iface.input+abi.GroupDoorbellReq, abi.Toggle(req, ack, streams))
}
