package hw

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"
)

// Allocator hands out ranges of an arena, first fit from the bottom. The host
// side owns it; the firmware never allocates. Its methods may be called from
// any goroutine.
type Allocator struct {
	arena *Arena
	mu    struct {
		sync.Mutex
		// free is sorted by address; neighbours do not touch.
		free []span
		// taken holds the size of each range that was handed out.
		taken map[uint64]uint64
	}
}

// span is a range of device addresses.
type span struct{ addr, size uint64 }

// NewAllocator manages [base, base+size) of the arena. Both must be multiples
// of PageSize and base at least MemoryBase. Errors wrap ErrInvalid or ErrBounds.
func NewAllocator(a *Arena, base, size uint64) (*Allocator, error) {
	if base%PageSize != 0 || size%PageSize != 0 || size == 0 || base < MemoryBase {
		return nil, fmt.Errorf("allocator over %#x+%#x: %w", base, size, ErrInvalid)
	}
	if _, err := a.Bytes(base, size); err != nil {
		return nil, fmt.Errorf("allocator: %w", err)
	}
	al := &Allocator{arena: a}
	al.mu.free = []span{{base, size}}
	al.mu.taken = map[uint64]uint64{}
	return al, nil
}

// Alloc returns the device address of size bytes that read as zero, rounded up
// to whole pages. align is a power of two, at least PageSize (0 means Granule,
// what buffers need). Errors wrap ErrInvalid or ErrFull.
func (al *Allocator) Alloc(size, align uint64) (uint64, error) {
	if align == 0 {
		align = Granule
	}
	if size == 0 || size > al.arena.Size() || align < PageSize || bits.OnesCount64(align) != 1 {
		return 0, fmt.Errorf("allocate %d bytes aligned to %d: %w", size, align, ErrInvalid)
	}
	size = (size + PageSize - 1) &^ (PageSize - 1)
	al.mu.Lock()
	defer al.mu.Unlock()
	for i, s := range al.mu.free {
		addr := (s.addr + align - 1) &^ (align - 1)
		if addr < s.addr || addr-s.addr > s.size || s.size-(addr-s.addr) < size {
			continue
		}
		var rest []span
		if addr > s.addr {
			rest = append(rest, span{s.addr, addr - s.addr})
		}
		if end := s.addr + s.size; addr+size < end {
			rest = append(rest, span{addr + size, end - addr - size})
		}
		al.mu.free = slices.Replace(al.mu.free, i, i+1, rest...)
		al.mu.taken[addr] = size
		return addr, nil
	}
	return 0, fmt.Errorf("allocate %d bytes: %w", size, ErrFull)
}

// Free gives a range back; its memory returns to the system and reads as zero.
// Errors wrap ErrInvalid when addr was not handed out (or already freed); when
// the system refuses to take the memory back, the range stays taken.
func (al *Allocator) Free(addr uint64) error {
	al.mu.Lock()
	size, ok := al.mu.taken[addr]
	delete(al.mu.taken, addr)
	al.mu.Unlock()
	if !ok {
		return fmt.Errorf("free %#x: not allocated: %w", addr, ErrInvalid)
	}
	err := al.arena.Punch(addr, size)
	al.mu.Lock()
	defer al.mu.Unlock()
	if err != nil {
		al.mu.taken[addr] = size
		return fmt.Errorf("free: %w", err)
	}
	al.insert(span{addr, size})
	return nil
}

// insert puts a span into the sorted free list and joins it with its neighbours.
func (al *Allocator) insert(s span) {
	i, _ := slices.BinarySearchFunc(al.mu.free, s, func(a, b span) int {
		if a.addr < b.addr {
			return -1
		}
		return 1
	})
	if i < len(al.mu.free) && s.addr+s.size == al.mu.free[i].addr {
		s.size += al.mu.free[i].size
		al.mu.free = slices.Delete(al.mu.free, i, i+1)
	}
	if i > 0 && al.mu.free[i-1].addr+al.mu.free[i-1].size == s.addr {
		al.mu.free[i-1].size += s.size
		return
	}
	al.mu.free = slices.Insert(al.mu.free, i, s)
}

// Move goes on with another arena of the same size, whose contents are a copy: the same
// ranges are taken. Errors wrap ErrInvalid.
func (al *Allocator) Move(to *Arena) error {
	al.mu.Lock()
	defer al.mu.Unlock()
	if to.Size() != al.arena.Size() {
		return fmt.Errorf("move allocator to %d bytes: %w", to.Size(), ErrInvalid)
	}
	al.arena = to
	return nil
}

// Available returns the free bytes, which need not be in one piece.
func (al *Allocator) Available() uint64 {
	al.mu.Lock()
	defer al.mu.Unlock()
	var sum uint64
	for _, s := range al.mu.free {
		sum += s.size
	}
	return sum
}
