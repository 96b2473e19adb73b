package test

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// coresMax bounds `cores=`.
const coresMax = 1024

// script is a parsed kernel.
type script struct {
	workgroup    time.Duration
	cores        uint64
	hangs, traps map[uint64]bool
}

// parse reads a kernel; errors wrap core.ErrInvalid.
func parse(text string) (script, error) {
	s := script{workgroup: time.Millisecond, cores: 1, hangs: make(map[uint64]bool), traps: make(map[uint64]bool)}
	words := strings.Fields(text)
	for i := 0; i < len(words); i++ {
		key, value, _ := strings.Cut(words[i], "=")
		var err error
		switch key {
		case "workgroup":
			if s.workgroup, err = time.ParseDuration(value); err == nil && s.workgroup <= 0 {
				err = fmt.Errorf("a workgroup takes some time")
			}
		case "cores":
			if s.cores, err = strconv.ParseUint(value, 10, 32); err == nil && (s.cores == 0 || s.cores > coresMax) {
				err = fmt.Errorf("cores are 1 to %d", coresMax)
			}
		case "hang", "trap":
			var n uint64
			if i+2 >= len(words) || words[i+1] != "at" {
				err = fmt.Errorf("want `%s at N`", key)
			} else if n, err = strconv.ParseUint(words[i+2], 10, 64); err == nil {
				map[string]map[uint64]bool{"hang": s.hangs, "trap": s.traps}[key][n] = true
				i += 2
			}
		default:
			err = fmt.Errorf("unknown word")
		}
		if err != nil {
			return script{}, fmt.Errorf("%w: test kernel: %q: %w", core.ErrInvalid, words[i], err)
		}
	}
	return s, nil
}

// Apply does to b, the first buffer argument, what the workgroups from first on
// do, count of them: workgroup i adds hash(i) to word i mod len(b)/8. Tests use
// it to know the right output.
func Apply(b []byte, first, count uint64) {
	for i := first; i < first+count; i++ {
		write(b, i)
	}
}

func write(b []byte, i uint64) {
	words := uint64(len(b) / 8)
	if words == 0 {
		return
	}
	word := b[i%words*8:]
	binary.LittleEndian.PutUint64(word, binary.LittleEndian.Uint64(word)+hash(i))
}

// hash is the finaliser of SplitMix64, never 0 for the numbers of a grid.
func hash(i uint64) uint64 {
	i += 0x9e3779b97f4a7c15
	i = (i ^ i>>30) * 0xbf58476d1ce4e5b9
	i = (i ^ i>>27) * 0x94d049bb133111eb
	return i ^ i>>31
}
