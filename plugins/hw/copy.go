package hw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// CopyMemory makes to's memory a copy of from's, the registers excepted, as a
// move of a device does. Only what was written takes time and room. Nobody may
// use either meanwhile. Errors wrap ErrInvalid when the sizes differ, or are the system's.
func CopyMemory(to, from *Arena) error {
	if to.Size() != from.Size() {
		return fmt.Errorf("copy %d bytes of device memory to %d: %w", from.Size(), to.Size(), ErrInvalid)
	}
	if err := to.Punch(MemoryBase, to.Size()-MemoryBase); err != nil {
		return err
	}
	for at := int64(MemoryBase); ; {
		start, err := unix.Seek(from.fd, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // Nothing but holes follows.
		}
		if err != nil {
			return fmt.Errorf("copy device memory: %w", err)
		}
		end, err := unix.Seek(from.fd, start, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("copy device memory: %w", err)
		}
		copy(to.mem[start:end], from.mem[start:end])
		at = end
	}
}
