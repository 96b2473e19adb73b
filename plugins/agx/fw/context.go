package fw

import (
	"fmt"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// contexts are the GpuContexts that queues named, with the indices that the firmware gave them. What they index
// is not known, only that the host repeats them in DestroyContext: they are numbers of ours.
type contexts struct {
	known map[abi.VA]abi.GpuContext
	count uint32
}

// openContext takes the context of a new queue, and gives it its indices unless another queue has brought it.
func (f *Firmware) openContext(info *abi.QueueInfo) error {
	if _, known := f.contexts.known[info.Context]; known {
		return nil
	}
	var c abi.GpuContext
	b, err := f.bytes(info.Context, uint64(f.abi.Size(&c)))
	if err != nil {
		return fmt.Errorf("gpu context: %w", err)
	}
	if err := f.abi.Decode(b, &c); err != nil {
		return err
	}
	if free := abi.NewGpuContext(); c.Index0 != free.Index0 || c.Index1 != free.Index1 {
		return fmt.Errorf("gpu context %#x has indices %d and %d and is not known", uint64(info.Context), c.Index0, c.Index1)
	}
	if f.contexts.known == nil {
		f.contexts.known = map[abi.VA]abi.GpuContext{}
	}
	c.Index0, c.Index1 = uint8(f.contexts.count%contextIndices), uint8(info.UUID%contextIndices)
	f.contexts.count++
	f.contexts.known[info.Context] = c
	return f.abi.Encode(b, &c)
}

// contextIndices are those that do not say "none".
const contextIndices = 0xFF

// closeContext checks that a DestroyContext repeats what its context says, and reports whether it does.
func (f *Firmware) closeContext(m *abi.DestroyContext) bool {
	c, known := f.contexts.known[m.Context]
	if want := (abi.DestroyContext{Unk23: abi.GpuContextUnk23, Index0: c.Index0, Index1: c.Index1, Unk4: c.Unk4, Context: m.Context}); !known || *m != want {
		f.misuse("DestroyContext %#x: indices %d and %d, want %d and %d, known %t", uint64(m.Context), m.Index0, m.Index1, c.Index0, c.Index1, known)
		return false
	}
	delete(f.contexts.known, m.Context)
	return true
}
