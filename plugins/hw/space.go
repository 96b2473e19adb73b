package hw

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// An address space table stands for a GPU's page tables: it says which GPU
// virtual addresses name which device memory. It is ours, and simpler than any
// vendor's: one flat sorted list. The host writes it, the firmware reads it
// whole at each dispatch, so that a change takes effect with the next one.
//
//	offset size  field
//	0x00   4     magic, "GWAS"
//	0x04   4     number of entries, 0 to SpaceEntriesMax
//	0x08   8     reserved, 0
//	0x10   32×n  entries, rising by GPU address, not overlapping
//
// An entry: GPU virtual address (8), device address (8), size in bytes (8), all
// multiples of Granule; flags (8), bit 0: private, a kernel does not see it;
// bit 1: the firmware must not write there.
const (
	// SpaceEntriesMax bounds the entries of a table.
	SpaceEntriesMax = 4096
	spaceHeader     = 16
	spaceEntry      = 32
	// SpaceSizeMax is the size of the largest table in bytes.
	SpaceSizeMax = spaceHeader + SpaceEntriesMax*spaceEntry

	spaceMagic        = 'G' | 'W'<<8 | 'A'<<16 | 'S'<<24
	spaceFlagPrivate  = 1
	spaceFlagReadOnly = 2
)

// Mapping is one entry of an address space table.
type Mapping struct {
	// Address is the GPU virtual address, Device the device address; both and
	// Size are multiples of Granule, Size is at least one.
	Address, Device, Size uint64
	// Private memory is for the firmware (descriptors, kernels): it can be
	// named in a ring but no kernel gets to see it.
	Private bool
	// ReadOnly memory is not written on behalf of a ring; kernels are not kept from it.
	ReadOnly bool
}

// Space is a decoded address space table, sorted by address.
type Space []Mapping

// SpaceSize returns the bytes that a table of n entries takes.
func SpaceSize(n int) uint64 { return spaceHeader + uint64(n)*spaceEntry }

// Validate checks granularity, order and overlap. arenaSize bounds the device
// addresses. Errors are *DescriptorError.
func (s Space) Validate(arenaSize uint64) error {
	if len(s) > SpaceEntriesMax {
		return &DescriptorError{"address space table", "count", fmt.Sprint(len(s))}
	}
	var end uint64
	for i, m := range s {
		bad := func(reason string) error {
			return &DescriptorError{"address space table", fmt.Sprintf("entry %d", i), reason}
		}
		switch {
		case m.Size == 0 || (m.Address|m.Device|m.Size)%Granule != 0:
			return bad("not in whole granules")
		case m.Address+m.Size < m.Address:
			return bad("GPU addresses overflow")
		case m.Device < MemoryBase || m.Device+m.Size < m.Device || m.Device+m.Size > arenaSize:
			return bad("outside of device memory")
		case m.Address < end:
			return bad("overlaps or is out of order")
		}
		end = m.Address + m.Size
	}
	return nil
}

// WriteSpace sorts, validates and writes a table at a device address that is a
// multiple of 8. Errors are *DescriptorError or wrap ErrBounds.
func WriteSpace(a *Arena, addr uint64, s Space) error {
	sorted := slices.Clone(s)
	slices.SortFunc(sorted, func(x, y Mapping) int {
		if x.Address < y.Address {
			return -1
		}
		return 1
	})
	if err := sorted.Validate(a.Size()); err != nil {
		return err
	}
	b, err := a.Bytes(addr, SpaceSize(len(sorted)))
	if err != nil {
		return fmt.Errorf("write address space table: %w", err)
	}
	sorted.encode(b)
	return nil
}

// encode writes the table into b, which has its size.
func (s Space) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint32(b, spaceMagic)
	le.PutUint32(b[4:], uint32(len(s)))
	le.PutUint64(b[8:], 0)
	for i, m := range s {
		e := b[spaceHeader+i*spaceEntry:]
		le.PutUint64(e, m.Address)
		le.PutUint64(e[8:], m.Device)
		le.PutUint64(e[16:], m.Size)
		var flags uint64
		if m.Private {
			flags = spaceFlagPrivate
		}
		if m.ReadOnly {
			flags |= spaceFlagReadOnly
		}
		le.PutUint64(e[24:], flags)
	}
}

// ReadSpace reads and validates the table at a device address. Errors are
// *DescriptorError or wrap ErrBounds.
func ReadSpace(a *Arena, addr uint64) (Space, error) {
	head, err := a.Bytes(addr, spaceHeader)
	if err != nil {
		return nil, fmt.Errorf("read address space table: %w", err)
	}
	count, err := spaceCount(head)
	if err != nil {
		return nil, err
	}
	b, err := a.Bytes(addr, SpaceSize(int(count)))
	if err != nil {
		return nil, fmt.Errorf("read address space table: %w", err)
	}
	return decodeSpace(b[spaceHeader:], a.Size())
}

// DecodeSpace reads and validates a table from bytes. Errors are *DescriptorError.
func DecodeSpace(b []byte, arenaSize uint64) (Space, error) {
	count, err := spaceCount(b)
	if err != nil {
		return nil, err
	}
	if uint64(len(b)) < SpaceSize(int(count)) {
		return nil, &DescriptorError{"address space table", "size", fmt.Sprintf("%d bytes for %d entries", len(b), count)}
	}
	return decodeSpace(b[spaceHeader:SpaceSize(int(count))], arenaSize)
}

// spaceCount reads and checks the header.
func spaceCount(b []byte) (uint32, error) {
	bad := func(field string, v any) (uint32, error) {
		return 0, &DescriptorError{"address space table", field, fmt.Sprint(v)}
	}
	if len(b) < spaceHeader {
		return bad("size", len(b))
	}
	le := binary.LittleEndian
	if m := le.Uint32(b); m != spaceMagic {
		return bad("magic", m)
	}
	if r := le.Uint64(b[8:]); r != 0 {
		return bad("reserved", r)
	}
	count := le.Uint32(b[4:])
	if count > SpaceEntriesMax {
		return bad("count", count)
	}
	return count, nil
}

// decodeSpace reads whole entries.
func decodeSpace(b []byte, arenaSize uint64) (Space, error) {
	le := binary.LittleEndian
	s := make(Space, 0, len(b)/spaceEntry)
	for ; len(b) >= spaceEntry; b = b[spaceEntry:] {
		flags := le.Uint64(b[24:])
		if flags&^uint64(spaceFlagPrivate|spaceFlagReadOnly) != 0 {
			return nil, &DescriptorError{"address space table", "flags", fmt.Sprintf("%#x", flags)}
		}
		s = append(s, Mapping{
			Address: le.Uint64(b), Device: le.Uint64(b[8:]), Size: le.Uint64(b[16:]),
			Private: flags&spaceFlagPrivate != 0, ReadOnly: flags&spaceFlagReadOnly != 0,
		})
	}
	if err := s.Validate(arenaSize); err != nil {
		return nil, err
	}
	return s, nil
}

// Resolve returns the device address of [address, address+size), which must lie
// in one entry. Errors wrap ErrBounds.
func (s Space) Resolve(address, size uint64) (uint64, error) {
	m, err := s.Find(address, size)
	if err != nil {
		return 0, err
	}
	return m.Device + address - m.Address, nil
}

// Find returns the entry that [address, address+size) lies in. Errors wrap ErrBounds.
func (s Space) Find(address, size uint64) (Mapping, error) {
	i, found := slices.BinarySearchFunc(s, address, func(m Mapping, a uint64) int {
		switch {
		case m.Address < a:
			return -1
		case m.Address > a:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i >= 0 {
		m := s[i]
		if off := address - m.Address; off < m.Size && size <= m.Size-off {
			return m, nil
		}
	}
	return Mapping{}, fmt.Errorf("GPU address %#x+%#x: %w", address, size, ErrBounds)
}
