package hw

import (
	"bytes"
	"errors"
	"testing"
)

func TestCopyMemory(t *testing.T) {
	make2 := func(size uint64) *Arena {
		a, err := NewArena(size)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close() })
		return a
	}
	from, to := make2(16<<20), make2(16<<20)
	for _, at := range []uint64{MemoryBase, 5 << 20, 5<<20 + 3*PageSize, 16<<20 - 4} {
		if err := from.Store32(at, uint32(at)+1); err != nil {
			t.Fatal(err)
		}
	}
	_ = to.Store32(7<<20, 99) // Was something else.
	_ = to.Store32(RegisterPage, 7)
	_ = from.Store32(RegisterPage, 8)
	if err := CopyMemory(to, from); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(to.mem[MemoryBase:], from.mem[MemoryBase:]) {
		t.Error("the copy differs")
	}
	if v, _ := to.Load32(RegisterPage); v != 7 {
		t.Error("the registers were copied")
	}
	if err := CopyMemory(make2(8<<20), from); !errors.Is(err, ErrInvalid) {
		t.Errorf("another size: %v", err)
	}
}
