package hw

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// newArena returns a small arena that is closed with the test.
func newArena(t testing.TB, size uint64) *Arena {
	t.Helper()
	a, err := NewArena(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func TestArenaRefusesBadSizes(t *testing.T) {
	for _, size := range []uint64{1, Granule, 2*Granule + 1, 1 << 45, math.MaxUint64} {
		if a, err := NewArena(size); !errors.Is(err, ErrInvalid) {
			t.Errorf("size %#x: arena %v, error %v", size, a, err)
		}
	}
}

func TestArenaBounds(t *testing.T) {
	a := newArena(t, 4*Granule)
	size := a.Size()
	for _, c := range []struct {
		addr, size uint64
		ok         bool
	}{
		{0, size, true}, {size, 0, true}, {size - 1, 1, true}, {size - 1, 2, false}, {size + 1, 0, false},
		{math.MaxUint64, 1, false}, {1, math.MaxUint64, false}, {math.MaxUint64, math.MaxUint64, false},
	} {
		b, err := a.Bytes(c.addr, c.size)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrBounds) {
			t.Errorf("bytes %#x+%#x: %v", c.addr, c.size, err)
		}
		if uint64(len(b)) != uint64(cap(b)) {
			t.Errorf("bytes %#x+%#x: capacity beyond the range", c.addr, c.size)
		}
	}
	for _, addr := range []uint64{1, 2, size - 2, size, math.MaxUint64, math.MaxUint64 - 3} {
		if _, err := a.Load32(addr); !errors.Is(err, ErrBounds) {
			t.Errorf("load32 %#x: %v", addr, err)
		}
		if err := a.Store64(addr, 1); !errors.Is(err, ErrBounds) {
			t.Errorf("store64 %#x: %v", addr, err)
		}
	}
	if _, err := a.Words(size-4, 2); !errors.Is(err, ErrBounds) {
		t.Errorf("words beyond the end: %v", err)
	}
}

func TestArenaWordsAreLittleEndian(t *testing.T) {
	a := newArena(t, 2*Granule)
	if err := errors.Join(a.Store64(64, 0x0807060504030201), a.Store32(72, 0x0c0b0a09)); err != nil {
		t.Fatal(err)
	}
	b, _ := a.Bytes(64, 12)
	if want := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; !bytes.Equal(b, want) {
		t.Errorf("bytes %v, want %v", b, want)
	}
	w, err := a.Words(64, 3)
	if err != nil || w.Len() != 3 || w.Load(2) != 0x0c0b0a09 {
		t.Errorf("words: %v, length %d", err, w.Len())
	}
	w.Store(0, 0xffffffff)
	if v, _ := a.Load64(64); v != 0x08070605ffffffff {
		t.Errorf("after a word store: %#x", v)
	}
}

func TestSecondMappingSeesTheSameMemory(t *testing.T) {
	a := newArena(t, 4*Granule)
	fd, err := unix.Dup(a.Fd())
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenArena(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Size() != a.Size() {
		t.Errorf("size %d, want %d", b.Size(), a.Size())
	}
	if err := a.Store32(Granule, 42); err != nil {
		t.Fatal(err)
	}
	if v, _ := b.Load32(Granule); v != 42 {
		t.Errorf("second mapping reads %d", v)
	}
	if err := unix.Ftruncate(a.Fd(), int64(Granule)); err == nil {
		t.Error("the file can be shrunk under the mapping")
	}
	if err := errors.Join(b.Close(), b.Close()); !errors.Is(err, ErrClosed) {
		t.Errorf("closing twice: %v", err)
	}
}

func TestOpenArenaRefusesOtherFiles(t *testing.T) {
	fd, err := unix.MemfdCreate("other", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenArena(fd); !errors.Is(err, ErrInvalid) {
		t.Errorf("unsealed file: %v", err)
	}
	if _, err := OpenArena(-1); !errors.Is(err, ErrInvalid) {
		t.Errorf("no file: %v", err)
	}
}

// resident returns the bytes of memory that the arena's file takes.
func resident(t *testing.T, a *Arena) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(a.Fd(), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestFreeGivesMemoryBack(t *testing.T) {
	a := newArena(t, 64*Granule)
	al, err := NewAllocator(a, MemoryBase, a.Size()-MemoryBase)
	if err != nil {
		t.Fatal(err)
	}
	before := resident(t, a)
	addr, err := al.Alloc(8*Granule, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := a.Bytes(addr, 8*Granule)
	for i := range b {
		b[i] = 0xAA
	}
	if resident(t, a) <= before {
		t.Error("writing took no memory: the measure is wrong")
	}
	if err := al.Free(addr); err != nil {
		t.Fatal(err)
	}
	if after := resident(t, a); after != before {
		t.Errorf("%d bytes stay after free", after-before)
	}
	if !allZero(b) {
		t.Error("freed memory does not read as zero")
	}
	if err := al.Free(addr); !errors.Is(err, ErrInvalid) {
		t.Errorf("double free: %v", err)
	}
}

func TestAllocatorRefusals(t *testing.T) {
	a := newArena(t, 8*Granule)
	for _, r := range [][2]uint64{{0, Granule}, {Granule + 1, Granule}, {Granule, 0}, {Granule, 9 * Granule}} {
		if _, err := NewAllocator(a, r[0], r[1]); err == nil {
			t.Errorf("allocator over %#x+%#x accepted", r[0], r[1])
		}
	}
	al, err := NewAllocator(a, MemoryBase, 7*Granule)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]uint64{{0, Granule}, {1, 3 * PageSize}, {1, 1}, {math.MaxUint64, Granule}} {
		if _, err := al.Alloc(r[0], r[1]); !errors.Is(err, ErrInvalid) {
			t.Errorf("allocate %d aligned %d: %v", r[0], r[1], err)
		}
	}
	if _, err := al.Alloc(8*Granule, 0); !errors.Is(err, ErrFull) {
		t.Errorf("more than there is: %v", err)
	}
}

func TestAllocatorAgainstModel(t *testing.T) {
	a := newArena(t, 256*Granule)
	rapid.Check(t, func(t *rapid.T) {
		const pages = 64
		al, err := NewAllocator(a, MemoryBase, pages*PageSize)
		if err != nil {
			t.Fatal(err)
		}
		var owner [pages]uint64 // The allocation that holds each page, 0 for none.
		live := []uint64{}
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				size := rapid.Uint64Range(1, 12*PageSize).Draw(t, "size")
				align := PageSize << rapid.IntRange(0, 4).Draw(t, "align")
				addr, err := al.Alloc(size, align)
				want := firstFit(owner[:], (size+PageSize-1)/PageSize, align)
				if want < 0 {
					if !errors.Is(err, ErrFull) {
						t.Fatalf("no room, got %#x, %v", addr, err)
					}
					return
				}
				if err != nil || addr != MemoryBase+uint64(want)*PageSize {
					t.Fatalf("got %#x, %v, want page %d", addr, err, want)
				}
				for i := range (size + PageSize - 1) / PageSize {
					owner[uint64(want)+i] = addr
				}
				live = append(live, addr)
			},
			"free": func(t *rapid.T) {
				if len(live) == 0 {
					t.Skip("nothing is allocated")
				}
				i := rapid.IntRange(0, len(live)-1).Draw(t, "which")
				if err := al.Free(live[i]); err != nil {
					t.Fatal(err)
				}
				for p := range owner {
					if owner[p] == live[i] {
						owner[p] = 0
					}
				}
				live = append(live[:i], live[i+1:]...)
			},
			"": func(t *rapid.T) {
				var free uint64
				for _, o := range owner {
					if o == 0 {
						free += PageSize
					}
				}
				if al.Available() != free {
					t.Fatalf("available %d, want %d", al.Available(), free)
				}
				for i := 1; i < len(al.mu.free); i++ {
					if p := al.mu.free[i-1]; p.addr+p.size >= al.mu.free[i].addr {
						t.Fatalf("free list not joined or sorted: %v", al.mu.free)
					}
				}
			},
		})
	})
}

// firstFit returns the lowest page where count free pages begin, or -1.
func firstFit(owner []uint64, count, align uint64) int {
	for p := range owner {
		if (MemoryBase+uint64(p)*PageSize)%align != 0 || uint64(p)+count > uint64(len(owner)) {
			continue
		}
		fits := true
		for _, o := range owner[p : uint64(p)+count] {
			fits = fits && o == 0
		}
		if fits {
			return p
		}
	}
	return -1
}
