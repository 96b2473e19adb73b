package fw

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// bytes returns the memory behind a firmware address. Errors wrap hw.ErrBounds.
func (f *Firmware) bytes(va abi.VA, size uint64) ([]byte, error) {
	device, ok := va.Device()
	if !ok || device < hw.MemoryBase {
		return nil, fmt.Errorf("firmware address %#x+%#x: %w", uint64(va), size, hw.ErrBounds)
	}
	return f.cfg.Arena.Bytes(device, size)
}

// words returns words behind a firmware address. Errors wrap hw.ErrBounds.
func (f *Firmware) words(va abi.VA, size uint32) (hw.Words, error) {
	device, ok := va.Device()
	if !ok || device < hw.MemoryBase {
		return hw.Words{}, fmt.Errorf("firmware address %#x+%#x: %w", uint64(va), size, hw.ErrBounds)
	}
	return f.cfg.Arena.Words(device, size/4)
}

// load32 reads one word.
func (f *Firmware) load32(va abi.VA) (uint32, error) {
	w, err := f.words(va, 4)
	if err != nil {
		return 0, err
	}
	return w.Load(0), nil
}

// store32 writes one word.
func (f *Firmware) store32(va abi.VA, v uint32) error {
	w, err := f.words(va, 4)
	if err != nil {
		return err
	}
	w.Store(0, v)
	return nil
}

// load64 reads 8 bytes, low word first.
func (f *Firmware) load64(va abi.VA) (uint64, error) {
	w, err := f.words(va, 8)
	if err != nil {
		return 0, err
	}
	return uint64(w.Load(0)) | uint64(w.Load(1))<<32, nil
}

// store64 writes 8 bytes, low word first.
func (f *Firmware) store64(va abi.VA, v uint64) error {
	w, err := f.words(va, 8)
	if err != nil {
		return err
	}
	w.Store(0, uint32(v))
	w.Store(1, uint32(v>>32))
	return nil
}

// The cache holds what the firmware has read of private memory, by lines. It is
// coherent with nothing: until a flush, what was read is what is read again.
// A line that memory no longer agrees with shows that the host changed an
// object which was the firmware's, or used its memory again without a flush.
type cache struct {
	lines map[abi.VA]*[lineSize]byte
}

const (
	lineSize = 64
	// linesMax bounds the cache: beyond it everything is evicted, as a real one does.
	linesMax = 1 << 16
)

// object reads size bytes as the firmware sees them. Errors wrap hw.ErrBounds.
func (f *Firmware) object(va abi.VA, size uint32, what string) ([]byte, error) {
	memory, err := f.bytes(va, uint64(size))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if !va.Class().Cached() {
		return bytes.Clone(memory), nil
	}
	first := va &^ (lineSize - 1)
	last := (va + abi.VA(size) - 1) &^ (lineSize - 1)
	whole, err := f.bytes(first, uint64(last-first)+lineSize)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(f.cache.lines) > linesMax {
		f.cache = cache{}
	}
	if f.cache.lines == nil {
		f.cache.lines = map[abi.VA]*[lineSize]byte{}
	}
	out := make([]byte, 0, len(whole))
	stale := false
	for at := first; at <= last; at += lineSize {
		now := whole[at-first : at-first+lineSize]
		line, held := f.cache.lines[at]
		if !held {
			line = new([lineSize]byte)
			copy(line[:], now)
			f.cache.lines[at] = line
		} else if lo, hi := max(at, va)-at, min(at+lineSize, va+abi.VA(size))-at; !bytes.Equal(line[lo:hi], now[lo:hi]) {
			stale = true
		}
		out = append(out, line[:]...)
	}
	if stale {
		f.violation("%s at %#x: changed, or its memory used again, without a flush", what, uint64(va))
	}
	return out[va-first : uint64(va-first)+uint64(size)], nil
}

// decode reads an object through the cache. Errors wrap hw.ErrBounds or are *abi.WireError.
func (f *Firmware) decode(va abi.VA, o abi.Object, what string) error {
	b, err := f.object(va, f.abi.Size(o), what)
	if err != nil {
		return err
	}
	return f.abi.Decode(b, o)
}

// touch compares memory with what was read from it: the firmware looks once
// more at its last command after it has told of its completion.
func (f *Firmware) touch(va abi.VA, was []byte, what string) {
	now, err := f.bytes(va, uint64(len(was)))
	if err != nil || !bytes.Equal(now, was) {
		f.violation("%s at %#x: changed or freed before the next command of its queue was retired", what, uint64(va))
	}
}

// flush empties the cache.
func (f *Firmware) flush() {
	f.counters.Flushes++
	f.cache = cache{}
}

// violation records what the checker found.
func (f *Firmware) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	f.counters.Violations++
	f.say("CHECK", "%s", text)
	f.log(abi.LogError, text)
	if f.cfg.CheckerCrash {
		f.doomed(func() { f.crash("cache: " + text) })
	}
}

// space returns the address space of a VM slot as the context table has it now.
func (f *Firmware) space(slot uint32) (hw.Space, error) {
	if slot == 0 || slot >= abi.ContextSlots {
		return nil, fmt.Errorf("vm slot %d: %w", slot, hw.ErrBounds)
	}
	entry, err := f.cfg.Arena.Bytes(f.host.contexts+abi.ContextEntry(slot), 8)
	if err != nil {
		return nil, err
	}
	table, ok := abi.DecodeTTBR(slot, binary.LittleEndian.Uint64(entry))
	if !ok {
		return nil, fmt.Errorf("vm slot %d is not bound: %w", slot, hw.ErrBounds)
	}
	return hw.ReadSpace(f.cfg.Arena, table)
}
