package wasm

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/tetratelabs/wazero/experimental"
)

// pageSize is the page of WebAssembly, and the alignment of everything here.
const pageSize = 64 << 10

// memoryLimit is what 32-bit addresses reach.
const memoryLimit = 4 << 30

// reservation is the address range of one linear memory. Bytes up to its size
// are readable and writable; the rest is reserved only. It never moves.
type reservation struct {
	bytes []byte
	mu    struct {
		sync.Mutex
		size, step uint64
		refused    bool
		failed     error // of the system, when it gave no memory
		freed      bool
	}
}

// reserve takes length bytes of address space, a multiple of 64 KiB, and no memory.
func reserve(length uint64) (*reservation, error) {
	b, err := syscall.Mmap(-1, 0, int(length), syscall.PROT_NONE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", length, err)
	}
	return &reservation{bytes: b}, nil
}

var (
	_ experimental.MemoryAllocator = (*reservation)(nil)
	_ experimental.LinearMemory    = (*reservation)(nil)
)

// Allocate implements experimental.MemoryAllocator.
func (r *reservation) Allocate(_, _ uint64) experimental.LinearMemory { return r }

// Reallocate implements experimental.LinearMemory: it makes the first size
// bytes usable, or returns nil when that is beyond the reservation.
func (r *reservation) Reallocate(size uint64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if size > uint64(len(r.bytes)) || r.mu.freed {
		r.mu.refused = true
		return nil
	}
	if size > r.mu.size {
		if err := syscall.Mprotect(r.bytes[r.mu.size:size], syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
			r.mu.failed = fmt.Errorf("make %d bytes of address space usable: %w", size, err)
			return nil
		}
		r.mu.step = max(r.mu.step, size-r.mu.size)
		r.mu.size = size
	}
	return r.bytes[:r.mu.size]
}

// Free implements experimental.LinearMemory; a second call does nothing.
func (r *reservation) Free() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.freed {
		return
	}
	r.mu.freed = true
	_ = syscall.Munmap(r.bytes)
}

// mark forgets the growth until now, so that grown tells what the kernel did itself.
func (r *reservation) mark() {
	r.mu.Lock()
	r.mu.step, r.mu.refused = 0, false
	r.mu.Unlock()
}

// failure returns why the system could not give memory that is within the
// limit: no fault of the kernel's.
func (r *reservation) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.failed
}

// grown reports whether the memory grew since mark, and whether it grew until
// it hit its limit: growing was refused, or what is left is less than its
// largest step. wazero refuses by the module's own maximum without asking, so
// that this is the nearest one can get.
func (r *reservation) grown() (grew, exhausted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := uint64(len(r.bytes)) - r.mu.size
	grew = r.mu.step > 0
	return grew, r.mu.refused || grew && left < r.mu.step
}

// mapFile puts the segment's file over the reservation at off. False means
// that the system cannot, and the segment has to be copied.
func (r *reservation) mapFile(off uint64, s engine.Segment) bool {
	const osPage = 4096
	if s.File < 0 || s.Offset < 0 || s.Offset%osPage != 0 {
		return false
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(s.File, &st); err != nil || st.Size < s.Offset+int64(s.Size) {
		return false // touching pages beyond the file's end would end the process
	}
	at := uintptr(unsafe.Pointer(&r.bytes[off]))
	got, _, errno := syscall.Syscall6(syscall.SYS_MMAP, at, uintptr(s.Size),
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_FIXED, uintptr(s.File), uintptr(s.Offset))
	return errno == 0 && got == at
}
