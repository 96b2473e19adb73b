package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// The GPU virtual addresses of every entity. Buffers follow each other from
// bufferBase on, each in whole granules, with one granule between them that is
// mapped to nothing. What only the firmware reads lies far above, private.
const (
	bufferBase uint64 = 0x0000_0001_0000_0000
	// DescriptorBase is where an entity's slots begin: descriptors and their arguments.
	DescriptorBase uint64 = 0x0000_7E00_0000_0000
	kernelBase     uint64 = 0x0000_7F00_0000_0000
	// privateMappings counts the entries of an address space that are not buffers.
	privateMappings = 2
	buffersMax      = hw.SpaceEntriesMax - privateMappings
)

// The device memory: objects that the firmware sees below a limit and at most
// in the first quarter, then a sixteenth for kernels, then buffers and descriptors.
const (
	lowFraction    = 4
	kernelFraction = 16
)

// Memory hands out device memory. Its methods may be called from any goroutine.
type Memory struct {
	arena *hw.Arena
	// low is for what the firmware sees, high for buffers and descriptors.
	low, kernels, high *hw.Allocator
	kernelStart        uint64
	kernelSize         uint64
	highSize           uint64
	closed             error

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

// NewMemory lays out an arena. lowMax is the end of the addresses that the
// firmware's objects may have, closed what accesses after Close get. Errors wrap core.ErrInvalid.
func NewMemory(a *hw.Arena, lowMax uint64, closed error) (*Memory, error) {
	whole := func(v uint64) uint64 { return v &^ (hw.Granule - 1) }
	lowEnd := whole(min(a.Size()/lowFraction, lowMax))
	m := &Memory{arena: a, kernelStart: lowEnd, kernelSize: whole(a.Size() / kernelFraction), closed: closed}
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

// HighSize is what buffers can take in all.
func (m *Memory) HighSize() uint64 { return m.highSize }

// Available returns the free bytes for the firmware's objects and for buffers.
func (m *Memory) Available() (low, high uint64) { return m.low.Available(), m.high.Available() }

// Enter announces an access to the arena from outside of the driver's
// goroutine; Leave ends it. False after Close.
func (m *Memory) Enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return false
	}
	m.users.Add(1)
	return true
}

// Leave ends what Enter began.
func (m *Memory) Leave() { m.users.Done() }

// Close refuses later accesses and waits for the present ones.
func (m *Memory) Close() {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.users.Wait()
}

// Move goes on with a copy of the memory. Nobody may be inside Enter and Leave. Errors are the allocators'.
func (m *Memory) Move(to *hw.Arena) error {
	for _, a := range []*hw.Allocator{m.low, m.kernels, m.high} {
		if err := a.Move(to); err != nil {
			return fmt.Errorf("move device memory: %w", err)
		}
	}
	m.arena = to
	return nil
}

// Low allocates memory that the firmware sees, in whole pages that read as zero.
// Errors wrap core.ErrFull.
func (m *Memory) Low(size uint64, what string) (uint64, error) {
	return allocate(m.low, size, hw.PageSize, what)
}

// High allocates memory for descriptors in whole granules. Errors wrap core.ErrFull.
func (m *Memory) High(size uint64, what string) (uint64, error) {
	return allocate(m.high, granules(size), hw.Granule, what)
}

// FreeLow gives back what Low allocated; 0 is nothing.
func (m *Memory) FreeLow(address uint64) error { return free(m.low, address) }

// FreeHigh gives back what High allocated; 0 is nothing.
func (m *Memory) FreeHigh(address uint64) error { return free(m.high, address) }

// allocate takes memory from one of the regions; a full one becomes core.ErrFull.
func allocate(from *hw.Allocator, size, align uint64, what string) (uint64, error) {
	address, err := from.Alloc(size, align)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", what, core.ErrFull, err)
	}
	return address, nil
}

func free(a *hw.Allocator, address uint64) error {
	if address == 0 {
		return nil
	}
	return a.Free(address)
}

// Load places a kernel, once; loading it again does nothing. Kernels stay
// until the device closes. formats are those of the device. Errors wrap
// core.ErrUnsupported, core.ErrInvalid, core.ErrClosed or core.ErrFull.
func (m *Memory) Load(k core.Kernel, formats []string) error {
	if !slices.Contains(formats, k.Format) {
		return fmt.Errorf("load kernel %s: format %s: %w", k.Digest, k.Format, core.ErrUnsupported)
	}
	if err := m.load(k); err != nil {
		return fmt.Errorf("load kernel %s: %w", k.Digest, err)
	}
	return nil
}

func (m *Memory) load(k core.Kernel) error {
	if len(k.Code) == 0 || len(k.Code) > hw.KernelSizeMax {
		return fmt.Errorf("kernel of %d bytes, want 1 to %d: %w", len(k.Code), hw.KernelSizeMax, core.ErrInvalid)
	}
	if !m.Enter() {
		return m.closed
	}
	defer m.Leave()
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
func (m *Memory) kernel(d core.Digest) (loadedKernel, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, known := m.mu.loaded[d]
	return k, known
}

// Buffer is one buffer of an entity in device memory.
type Buffer struct {
	Spec core.BufferSpec
	// Device and Virtual are its addresses.
	Device, Virtual uint64
}

// Place allocates the buffers of an entity, which read as zero. Errors wrap
// core.ErrFull or core.ErrInvalid; nothing stays allocated then.
func (m *Memory) Place(specs []core.BufferSpec) (buffers []Buffer, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Unplace(buffers))
			buffers = nil
		}
	}()
	if len(specs) > buffersMax {
		return nil, fmt.Errorf("%d buffers, at most %d: %w", len(specs), buffersMax, core.ErrInvalid)
	}
	next := bufferBase
	for _, spec := range specs {
		if spec.Size == 0 || spec.Size > m.highSize {
			return buffers, fmt.Errorf("buffer %s of %d bytes, want 1 to %d: %w", spec.Name, spec.Size, m.highSize, core.ErrInvalid)
		}
		size := granules(spec.Size)
		device, err := allocate(m.high, size, hw.Granule, "buffer "+spec.Name)
		if err != nil {
			return buffers, err
		}
		buffers = append(buffers, Buffer{Spec: spec, Device: device, Virtual: next})
		next += size + hw.Granule
	}
	return buffers, nil
}

// Unplace frees what Place allocated. No work may touch it any more.
func (m *Memory) Unplace(buffers []Buffer) error {
	var all error
	for _, b := range buffers {
		all = errors.Join(all, m.FreeHigh(b.Device))
	}
	return all
}

// Map allocates and writes the address space table of an entity: its buffers,
// its slots at DescriptorBase, the kernels. Errors wrap core.ErrFull.
func (m *Memory) Map(buffers []Buffer, slots, slotsSize uint64) (table uint64, err error) {
	table, err = m.Low(hw.SpaceSize(len(buffers)+privateMappings), "address space table")
	if err != nil {
		return 0, err
	}
	space := hw.Space{
		{Address: DescriptorBase, Device: slots, Size: granules(slotsSize), Private: true},
		{Address: kernelBase, Device: m.kernelStart, Size: m.kernelSize, Private: true},
	}
	for _, b := range buffers {
		space = append(space, hw.Mapping{Address: b.Virtual, Device: b.Device, Size: granules(b.Spec.Size)})
	}
	if err := hw.WriteSpace(m.arena, table, space); err != nil {
		return 0, errors.Join(err, m.FreeLow(table))
	}
	return table, nil
}

// granules rounds up to whole granules.
func granules(size uint64) uint64 { return (size + hw.Granule - 1) &^ (hw.Granule - 1) }

// Fill copies an image's chunks into the buffers. Errors wrap core.ErrDeadline,
// core.ErrCorrupt or are the image's.
func (m *Memory) Fill(ctx context.Context, buffers []Buffer, image core.ImageSource) error {
	return image.Chunks(func(ref core.ChunkRef, chunk []byte) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", core.ErrDeadline, err)
		}
		if ref.Buffer < 0 || ref.Buffer >= len(buffers) || ref.Index >= (1<<63)/core.ChunkSize {
			return fmt.Errorf("image chunk %d of buffer %d: %w", ref.Index, ref.Buffer, core.ErrCorrupt)
		}
		b := buffers[ref.Buffer]
		offset := ref.Index * core.ChunkSize
		if offset > b.Spec.Size || uint64(len(chunk)) > b.Spec.Size-offset {
			return fmt.Errorf("image chunk %d of buffer %s: beyond its end: %w", ref.Index, b.Spec.Name, core.ErrCorrupt)
		}
		to, err := m.arena.Bytes(b.Device+offset, uint64(len(chunk)))
		if err != nil {
			return err
		}
		copy(to, chunk)
		return nil
	})
}
