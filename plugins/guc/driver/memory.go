package driver

import (
	"fmt"
	"sync"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// The GPU virtual addresses of every entity. Buffers follow each other from
// bufferBase on, each in whole granules, with one granule between them that is
// mapped to nothing. What only the firmware reads lies far above, private.
const (
	bufferBase     uint64 = 0x0000_0001_0000_0000
	descriptorBase uint64 = 0x0000_7E00_0000_0000
	kernelBase     uint64 = 0x0000_7F00_0000_0000
	// privateMappings counts the entries of an address space that are not buffers.
	privateMappings = 2
	buffersMax      = hw.SpaceEntriesMax - privateMappings
)

// The device memory: GGTT objects (transport, LRCs, address space tables) below
// 4 GiB and at most in the first quarter, then a sixteenth for kernels, then
// buffers and descriptors.
const (
	lowFraction    = 4
	kernelFraction = 16
)

// memory hands out device memory. Its methods may be called from any goroutine.
type memory struct {
	arena              *hw.Arena
	low, kernels, high *hw.Allocator
	kernelStart        uint64
	kernelSize         uint64
	highSize           uint64

	mu struct {
		sync.Mutex
		closed bool
		loaded map[core.Digest]loadedKernel
	}
	// users counts who touches the arena outside of the driver's goroutine.
	users sync.WaitGroup
}

// loadedKernel is a kernel in device memory; address is virtual, the same in all entities.
type loadedKernel struct {
	address, size uint64
	format        string
}

func newMemory(a *hw.Arena) (*memory, error) {
	whole := func(v uint64) uint64 { return v &^ (hw.Granule - 1) }
	lowEnd := whole(min(a.Size()/lowFraction, abi.GGTTMax))
	m := &memory{arena: a, kernelStart: lowEnd, kernelSize: whole(a.Size() / kernelFraction)}
	m.mu.loaded = map[core.Digest]loadedKernel{}
	highStart := m.kernelStart + m.kernelSize
	m.highSize = whole(a.Size()) - highStart
	var err error
	for _, part := range []struct {
		to          **hw.Allocator
		start, size uint64
	}{{&m.low, hw.MemoryBase, lowEnd - min(lowEnd, hw.MemoryBase)}, {&m.kernels, m.kernelStart, m.kernelSize}, {&m.high, highStart, m.highSize}} {
		if *part.to, err = hw.NewAllocator(a, part.start, part.size); err != nil {
			return nil, fmt.Errorf("lay out %d bytes of device memory: %w: %w", a.Size(), core.ErrInvalid, err)
		}
	}
	return m, nil
}

// enter announces an access to the arena from outside of the driver's
// goroutine; leave ends it. False after close.
func (m *memory) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return false
	}
	m.users.Add(1)
	return true
}

func (m *memory) leave() { m.users.Done() }

// close refuses later accesses and waits for the present ones.
func (m *memory) close() {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.users.Wait()
}

// move goes on with a copy of the memory. Nobody may be inside enter and leave.
func (m *memory) move(to *hw.Arena) error {
	for _, a := range []*hw.Allocator{m.low, m.kernels, m.high} {
		if err := a.Move(to); err != nil {
			return fmt.Errorf("move device memory: %w", err)
		}
	}
	m.arena = to
	return nil
}

// allocate takes memory from one of the regions; a full one becomes core.ErrFull.
func allocate(from *hw.Allocator, size, align uint64, what string) (uint64, error) {
	address, err := from.Alloc(size, align)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", what, core.ErrFull, err)
	}
	return address, nil
}

// load places a kernel, once; loading it again does nothing. Kernels stay
// until the device closes.
func (m *memory) load(k core.Kernel) error {
	if len(k.Code) == 0 || len(k.Code) > hw.KernelSizeMax {
		return fmt.Errorf("kernel of %d bytes, want 1 to %d: %w", len(k.Code), hw.KernelSizeMax, core.ErrInvalid)
	}
	if !m.enter() {
		return errClosed
	}
	defer m.leave()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.mu.loaded[k.Digest]; known {
		return nil
	}
	size := uint64(len(k.Code))
	device, err := allocate(m.kernels, size, hw.PageSize, "kernel memory")
	if err != nil {
		return err
	}
	bytes, err := m.arena.Bytes(device, size)
	if err != nil {
		return err
	}
	copy(bytes, k.Code)
	m.mu.loaded[k.Digest] = loadedKernel{address: kernelBase + device - m.kernelStart, size: size, format: k.Format}
	return nil
}

// kernel finds a loaded kernel.
func (m *memory) kernel(d core.Digest) (loadedKernel, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, known := m.mu.loaded[d]
	return k, known
}

// buffer is one buffer of an entity in device memory.
type buffer struct {
	spec core.BufferSpec
	// device and virtual are its addresses.
	device, virtual uint64
}

// placement is all the device memory of one entity.
type placement struct {
	buffers []buffer
	// lrc and table lie in the GGTT, slots holds the dispatch descriptors; 0 before the first job.
	lrc, table, slots uint64
}

// place allocates the buffers of an entity, which read as zero. Errors wrap
// core.ErrFull or core.ErrInvalid; nothing stays allocated then.
func (m *memory) place(specs []core.BufferSpec) (p placement, err error) {
	defer func() {
		if err != nil {
			m.unplace(p)
		}
	}()
	if len(specs) > buffersMax {
		return p, fmt.Errorf("%d buffers, at most %d: %w", len(specs), buffersMax, core.ErrInvalid)
	}
	next := bufferBase
	for _, spec := range specs {
		if spec.Size == 0 || spec.Size > m.highSize {
			return p, fmt.Errorf("buffer %s of %d bytes, want 1 to %d: %w", spec.Name, spec.Size, m.highSize, core.ErrInvalid)
		}
		size := granules(spec.Size)
		device, err := allocate(m.high, size, hw.Granule, "buffer "+spec.Name)
		if err != nil {
			return p, err
		}
		p.buffers = append(p.buffers, buffer{spec: spec, device: device, virtual: next})
		next += size + hw.Granule
	}
	return p, nil
}

// lay allocates what an entity's jobs need, and writes its address space table.
// Errors wrap core.ErrFull; nothing of it stays allocated then.
func (m *memory) lay(p *placement, credits uint32) (err error) {
	lrc, table, slots := uint64(0), uint64(0), uint64(0)
	defer func() {
		if err != nil {
			m.unplace(placement{lrc: lrc, table: table, slots: slots})
		}
	}()
	size := granules(uint64(credits) * slotSize)
	if lrc, err = allocate(m.low, abi.LRCSize, hw.PageSize, "LRC"); err != nil {
		return err
	}
	if table, err = allocate(m.low, hw.SpaceSize(len(p.buffers)+privateMappings), hw.PageSize, "address space table"); err != nil {
		return err
	}
	if slots, err = allocate(m.high, size, hw.Granule, "dispatch descriptors"); err != nil {
		return err
	}
	space := hw.Space{
		{Address: descriptorBase, Device: slots, Size: size, Private: true},
		{Address: kernelBase, Device: m.kernelStart, Size: m.kernelSize, Private: true},
	}
	for _, b := range p.buffers {
		space = append(space, hw.Mapping{Address: b.virtual, Device: b.device, Size: granules(b.spec.Size)})
	}
	if err = hw.WriteSpace(m.arena, table, space); err != nil {
		return err
	}
	p.lrc, p.table, p.slots = lrc, table, slots
	return nil
}

// granules rounds up to whole granules.
func granules(size uint64) uint64 { return (size + hw.Granule - 1) &^ (hw.Granule - 1) }

// unplace frees what place allocated. The firmware must not know any of it any more.
func (m *memory) unplace(p placement) error {
	var first error
	free := func(a *hw.Allocator, address uint64) {
		if address == 0 {
			return
		}
		if err := a.Free(address); err != nil && first == nil {
			first = err
		}
	}
	free(m.low, p.lrc)
	free(m.low, p.table)
	free(m.high, p.slots)
	for _, b := range p.buffers {
		free(m.high, b.device)
	}
	return first
}
