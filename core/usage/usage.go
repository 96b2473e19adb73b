// Package usage keeps how many workgroups an engine really ran, by job and
// epoch, in a file that outlives the process: the counters stand in a shared
// mapping, so that a process ended by SIGKILL loses no count. The writer is
// the one plugin instance that owns the file; anybody may read it at any time.
//
// It does not survive a power cut and is not meant to: after one, nothing of
// what ran beyond the last image exists either.
//
// File, little endian, Size bytes:
//
//	offset  bytes  content
//	0       8      magic "gpuwmUSE"
//	8       4      version, 1
//	12      4      bytes of a slot, 24
//	16      8      slots taken since the file was made; the next one taken is this modulo the slots
//	24      40     zero
//	64      24 × n slots: job (8; 0 means free), epoch (8), executed (8)
package usage

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/gpuwm/gpuwm/core"
)

// The layout of the file.
const (
	// Size of the file in bytes.
	Size = 1 << 20
	// Slots is how many counts fit: (1 MiB - 64) / 24 = 43688.
	Slots = (Size - headerSize) / slotSize

	version    = 1
	headerSize = 64
	slotSize   = 24

	offVersion  = 8
	offSlotSize = 12
	offTaken    = 16

	offJob      = 0
	offEpoch    = 8
	offExecuted = 16
)

var magic = [8]byte{'g', 'p', 'u', 'w', 'm', 'U', 'S', 'E'}

// Key names one count.
type Key = core.UsageKey

// File is an open usage file. Its methods may be called from any goroutine.
type File struct {
	bytes []byte
	mu    struct {
		sync.Mutex
		slots map[Key]int
		keys  map[int]Key
	}
}

// Open maps the file at path, and makes it when it is not there. A file that
// is no usage file of this version is core.ErrCorrupt and stays as it is. Two
// processes must not have the same file open for writing.
func Open(path string) (*File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open usage file: %w", err)
	}
	defer f.Close()
	if err := prepare(f); err != nil {
		return nil, fmt.Errorf("open usage file %s: %w", path, err)
	}
	mapped, err := syscall.Mmap(int(f.Fd()), 0, Size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map usage file %s: %w", path, err)
	}
	u := &File{bytes: mapped}
	counts, err := decode(mapped)
	if err != nil {
		_ = syscall.Munmap(mapped)
		return nil, fmt.Errorf("open usage file %s: %w", path, err)
	}
	u.mu.slots, u.mu.keys = make(map[Key]int), make(map[int]Key)
	for _, c := range counts {
		u.mu.slots[c.key], u.mu.keys[c.slot] = c.slot, c.key
	}
	u.stamp()
	return u, nil
}

// prepare gives a new file its size, with blocks behind it, so that a full
// disk is an error here and not a SIGBUS later.
func prepare(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case st.Size() == Size:
		return nil
	case st.Size() != 0:
		return fmt.Errorf("%w: %d bytes, want %d", core.ErrCorrupt, st.Size(), Size)
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, Size)
	if err == syscall.EOPNOTSUPP || err == syscall.ENOSYS {
		err = f.Truncate(Size)
	}
	return err
}

// stamp writes the header, the magic last: until it is there the file counts as empty.
func (u *File) stamp() {
	*(*uint32)(unsafe.Pointer(&u.bytes[offVersion])) = version
	*(*uint32)(unsafe.Pointer(&u.bytes[offSlotSize])) = slotSize
	u.word(0).Store(*(*uint64)(unsafe.Pointer(&magic)))
}

// word returns the 8 bytes at off, which is a multiple of 8.
func (u *File) word(off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&u.bytes[off]))
}

// Slot returns the counter of (job, epoch): the present one, or one freshly
// taken that starts at 0. When all Slots are taken the one taken longest ago
// is reused, and whoever still counts on it counts for the new key. job must
// not be 0. On a nil File the counter is a private one that nobody reads.
func (u *File) Slot(job core.JobID, epoch core.Epoch) *atomic.Uint64 {
	if u == nil || job == 0 {
		return new(atomic.Uint64)
	}
	key := Key{Job: job, Epoch: epoch}
	u.mu.Lock()
	defer u.mu.Unlock()
	slot, found := u.mu.slots[key]
	if !found {
		slot = u.take(key)
	}
	return u.word(offset(slot) + offExecuted)
}

// take binds the next slot to key; the caller holds the lock. The job is
// written last, and cleared first, so that a reader never sees a mixture; the
// slot counts as taken before, so that a death in between wastes it at worst.
func (u *File) take(key Key) int {
	taken := u.word(offTaken)
	slot := int(taken.Load() % Slots)
	if old, used := u.mu.keys[slot]; used {
		delete(u.mu.slots, old)
	}
	taken.Add(1)
	off := offset(slot)
	u.word(off + offJob).Store(0)
	u.word(off + offEpoch).Store(uint64(key.Epoch))
	u.word(off + offExecuted).Store(0)
	u.word(off + offJob).Store(uint64(key.Job))
	u.mu.slots[key], u.mu.keys[slot] = slot, key
	return slot
}

// Close unmaps the file. No counter that Slot returned may be used afterwards;
// an instance whose engine still runs does not call it. Closing twice is no error.
func (u *File) Close() error {
	if u == nil {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bytes == nil {
		return nil
	}
	b := u.bytes
	u.bytes = nil
	return syscall.Munmap(b)
}

func offset(slot int) int { return headerSize + slot*slotSize }
