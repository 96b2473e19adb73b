package hw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// ArenaSizeDefault is the size of a device's memory unless configured. It
	// is address space, not memory: only pages that were written take room.
	ArenaSizeDefault uint64 = 64 << 30
	// ArenaSizeMin is the smallest arena: the registers' granule and one more.
	ArenaSizeMin = 2 * Granule
	// ArenaSizeMax keeps every address far from the sign bit.
	ArenaSizeMax uint64 = 1 << 44
	// PageSize is the smallest piece of memory that can be given back.
	PageSize uint64 = 4 << 10
	// Granule is the alignment of buffers and of address space table entries.
	Granule uint64 = 64 << 10
	// RegisterPage is the device address of the register file: a page for each of its windows, which end before MemoryBase.
	RegisterPage uint64 = 0
	// MemoryBase is the first device address that is memory; below lie the registers.
	MemoryBase = Granule
)

var (
	// ErrBounds is returned when an address range does not lie in the arena, or
	// an access is not aligned to its size.
	ErrBounds = errors.New("address out of bounds")
	// ErrInvalid is returned when an argument breaks a documented limit.
	ErrInvalid = errors.New("invalid argument")
	// ErrFull is returned when no free range is large enough.
	ErrFull = errors.New("device memory full")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("arena closed")
)

// Arena is device memory: one sparse memory file, mapped once, shared with
// whoever else maps the file. Addresses are offsets in it. Its methods may be
// called from any goroutine; Close only when no slice of it is used any more.
type Arena struct {
	mem    []byte
	fd     int
	closed atomic.Bool
}

// NewArena creates a memory file of size bytes (0 means ArenaSizeDefault; a
// multiple of Granule, ArenaSizeMin to ArenaSizeMax) that reads as zero. The
// file can be neither shrunk nor grown afterwards. Errors wrap ErrInvalid or
// are the system's.
func NewArena(size uint64) (*Arena, error) {
	if size == 0 {
		size = ArenaSizeDefault
	}
	if size < ArenaSizeMin || size > ArenaSizeMax || size%Granule != 0 {
		return nil, fmt.Errorf("create arena of %d bytes: %w", size, ErrInvalid)
	}
	fd, err := unix.MemfdCreate("gpuwm-arena", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create arena: memfd: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("create arena of %d bytes: %w", size, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, arenaSeals); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("seal arena: %w", err)
	}
	return mapArena(fd, size)
}

// arenaSeals keep the other side from changing the size, which would turn our
// accesses into bus errors.
const arenaSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// OpenArena maps the memory file that another process made with NewArena. It
// owns fd from then on, also when it fails. Errors wrap ErrInvalid when the
// file is none of ours.
func OpenArena(fd int) (*Arena, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&arenaSeals != arenaSeals {
		unix.Close(fd)
		return nil, fmt.Errorf("open arena: file is not a sealed memory file: %w", ErrInvalid)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open arena: %w", err)
	}
	size := uint64(st.Size)
	if size < ArenaSizeMin || size > ArenaSizeMax || size%Granule != 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("open arena of %d bytes: %w", size, ErrInvalid)
	}
	return mapArena(fd, size)
}

// mapArena maps the whole file without reserving memory for it.
func mapArena(fd int, size uint64) (*Arena, error) {
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("map arena of %d bytes: %w", size, err)
	}
	return &Arena{mem: mem, fd: fd}, nil
}

// Fd returns the memory file, for engines that map pieces of it and for a
// second process. It stays owned by the arena.
func (a *Arena) Fd() int { return a.fd }

// Size returns the number of bytes.
func (a *Arena) Size() uint64 { return uint64(len(a.mem)) }

// Bytes returns the memory [addr, addr+size) itself, not a copy. The slice
// cannot be extended. Errors wrap ErrBounds.
func (a *Arena) Bytes(addr, size uint64) ([]byte, error) {
	if end := addr + size; end < addr || end > uint64(len(a.mem)) {
		return nil, fmt.Errorf("memory %#x+%#x: %w", addr, size, ErrBounds)
	}
	return a.mem[addr : addr+size : addr+size], nil
}

// Load32 reads an aligned word atomically; what the writer stored before it is
// seen afterwards. Errors wrap ErrBounds.
func (a *Arena) Load32(addr uint64) (uint32, error) {
	p, err := a.word(addr, 4)
	if err != nil {
		return 0, err
	}
	return fromLittle32(atomic.LoadUint32((*uint32)(p))), nil
}

// Store32 writes an aligned word atomically, after everything stored before it.
// Errors wrap ErrBounds.
func (a *Arena) Store32(addr uint64, v uint32) error {
	p, err := a.word(addr, 4)
	if err != nil {
		return err
	}
	atomic.StoreUint32((*uint32)(p), fromLittle32(v))
	return nil
}

// Load64 is Load32 for 8 bytes.
func (a *Arena) Load64(addr uint64) (uint64, error) {
	p, err := a.word(addr, 8)
	if err != nil {
		return 0, err
	}
	return fromLittle64(atomic.LoadUint64((*uint64)(p))), nil
}

// Store64 is Store32 for 8 bytes.
func (a *Arena) Store64(addr uint64, v uint64) error {
	p, err := a.word(addr, 8)
	if err != nil {
		return err
	}
	atomic.StoreUint64((*uint64)(p), fromLittle64(v))
	return nil
}

// word checks bounds and alignment of one access.
func (a *Arena) word(addr, size uint64) (unsafe.Pointer, error) {
	if addr%size != 0 || addr > uint64(len(a.mem))-size {
		return nil, fmt.Errorf("word %#x of %d bytes: %w", addr, size, ErrBounds)
	}
	return unsafe.Pointer(&a.mem[addr]), nil
}

// Punch gives the pages of [addr, addr+size) back to the system; they read as
// zero. Both must be multiples of PageSize. Errors wrap ErrBounds, ErrInvalid
// or are the system's.
func (a *Arena) Punch(addr, size uint64) error {
	if addr%PageSize != 0 || size%PageSize != 0 {
		return fmt.Errorf("punch %#x+%#x: %w", addr, size, ErrInvalid)
	}
	if _, err := a.Bytes(addr, size); err != nil {
		return fmt.Errorf("punch: %w", err)
	}
	if size == 0 {
		return nil
	}
	mode := uint32(unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE)
	for {
		err := unix.Fallocate(a.fd, mode, int64(addr), int64(size))
		if err != unix.EINTR {
			if err != nil {
				return fmt.Errorf("punch %#x+%#x: %w", addr, size, err)
			}
			return nil
		}
	}
}

// Close unmaps the memory and closes the file. A second call returns ErrClosed.
func (a *Arena) Close() error {
	if !a.closed.CompareAndSwap(false, true) {
		return ErrClosed
	}
	return errors.Join(unix.Munmap(a.mem), unix.Close(a.fd))
}

// Words is a view of consecutive 32-bit words of the arena, each of which is
// read and written atomically.
type Words struct{ mem []byte }

// Words returns a view of count words at addr, which must be a multiple of 4.
// Errors wrap ErrBounds.
func (a *Arena) Words(addr uint64, count uint32) (Words, error) {
	if addr%4 != 0 {
		return Words{}, fmt.Errorf("words at %#x: %w", addr, ErrBounds)
	}
	mem, err := a.Bytes(addr, uint64(count)*4)
	if err != nil {
		return Words{}, err
	}
	return Words{mem}, nil
}

// Len returns the number of words.
func (w Words) Len() uint32 { return uint32(len(w.mem) / 4) }

// Load reads word i, which must be below Len.
func (w Words) Load(i uint32) uint32 {
	return fromLittle32(atomic.LoadUint32((*uint32)(unsafe.Pointer(&w.mem[uint64(i)*4]))))
}

// Store writes word i, which must be below Len.
func (w Words) Store(i uint32, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&w.mem[uint64(i)*4])), fromLittle32(v))
}

// fromLittle32 converts between the machine's order and little endian.
func fromLittle32(v uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return binary.LittleEndian.Uint32(b[:])
}

// fromLittle64 converts between the machine's order and little endian.
func fromLittle64(v uint64) uint64 {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	return binary.LittleEndian.Uint64(b[:])
}
