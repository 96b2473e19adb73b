package usage

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// FuzzDecode reads what a hostile owner wrote: the beginning of a file, with zeroes behind it. What is accepted is
// what stands in the slots, each key once.
func FuzzDecode(f *testing.F) {
	le := binary.LittleEndian
	file := func(slots ...[3]uint64) []byte {
		b := append([]byte{}, magic[:]...)
		b = le.AppendUint32(b, version)
		b = le.AppendUint32(b, slotSize)
		b = append(b, make([]byte, headerSize-len(b))...)
		for _, s := range slots {
			for _, v := range s {
				b = le.AppendUint64(b, v)
			}
		}
		return b
	}
	f.Add(file())
	f.Add(file([3]uint64{1, 2, 3}, [3]uint64{}, [3]uint64{1, 3, ^uint64(0)}))
	f.Add(file([3]uint64{1, 2, 3}, [3]uint64{1, 2, 4}))
	f.Add([]byte("gpuwmUSE"))
	whole := make([]byte, Size)
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), Size)]
		if len(b) < Size {
			if _, err := decode(b); !errors.Is(err, core.ErrCorrupt) {
				t.Errorf("%d bytes: %v", len(b), err)
			}
		}
		copy(whole, b)
		defer clear(whole[:len(b)])
		counts, err := decode(whole)
		if err != nil {
			if !errors.Is(err, core.ErrCorrupt) {
				t.Errorf("error %v", err)
			}
			return
		}
		seen := map[Key]bool{}
		for _, c := range counts {
			s := whole[offset(c.slot):]
			if seen[c.key] || c.key.Job == 0 || le.Uint64(s) != uint64(c.key.Job) || le.Uint64(s[offEpoch:]) != uint64(c.key.Epoch) || le.Uint64(s[offExecuted:]) != c.executed {
				t.Errorf("%+v is not what stands there", c)
			}
			seen[c.key] = true
		}
	})
}
