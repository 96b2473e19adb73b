package usage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/gpuwm/gpuwm/core"
)

// Read returns all counts of the file at path. It may be called while the
// owner runs (each count is then one that was true during the call) and after
// its end. A missing file, or one whose owner died while making it, has no
// counts; anything else that is no usage file is core.ErrCorrupt. The owner may
// be hostile: Read neither waits for a fifo nor follows a link out of its directory.
func Read(path string) (map[Key]uint64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return map[Key]uint64{}, nil
	}
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENXIO) {
		// A link, or a socket.
		return nil, fmt.Errorf("read usage file: %w: %w", core.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read usage file: %w", err)
	}
	defer f.Close()
	counts, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("read usage file %s: %w", path, err)
	}
	m := make(map[Key]uint64, len(counts))
	for _, c := range counts {
		m[c.key] = c.executed
	}
	return m, nil
}

// read returns the slots in use of an open file, which may be anything.
func read(f *os.File) ([]count, error) {
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%w: %s is no regular file", core.ErrCorrupt, st.Mode())
	case st.Size() == 0:
		return nil, nil
	case st.Size() != Size:
		return nil, fmt.Errorf("%w: %d bytes, want %d", core.ErrCorrupt, st.Size(), Size)
	}
	b := make([]byte, Size)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return decode(b[:n])
}

type count struct {
	slot     int
	key      Key
	executed uint64
}

// decode checks the whole file and returns the slots in use. A key that stands
// in two slots is damage: the owner never does that.
func decode(b []byte) ([]count, error) {
	if len(b) != Size {
		return nil, fmt.Errorf("%w: %d bytes, want %d", core.ErrCorrupt, len(b), Size)
	}
	le := binary.LittleEndian
	if [8]byte(b[:8]) != magic {
		if le.Uint64(b) == 0 {
			return nil, nil
		}
		return nil, fmt.Errorf("%w: no usage file", core.ErrCorrupt)
	}
	if v := le.Uint32(b[offVersion:]); v != version {
		return nil, fmt.Errorf("%w: usage file of version %d, want %d", core.ErrCorrupt, v, version)
	}
	if n := le.Uint32(b[offSlotSize:]); n != slotSize {
		return nil, fmt.Errorf("%w: usage slots of %d bytes, want %d", core.ErrCorrupt, n, slotSize)
	}
	var counts []count
	seen := make(map[Key]bool)
	for slot := range Slots {
		s := b[offset(slot):]
		key := Key{Job: core.JobID(le.Uint64(s[offJob:])), Epoch: core.Epoch(le.Uint64(s[offEpoch:]))}
		if key.Job == 0 {
			continue
		}
		if seen[key] {
			return nil, fmt.Errorf("%w: job %d epoch %d stands twice in the usage file", core.ErrCorrupt, key.Job, key.Epoch)
		}
		seen[key] = true
		counts = append(counts, count{slot: slot, key: key, executed: le.Uint64(s[offExecuted:])})
	}
	return counts, nil
}
