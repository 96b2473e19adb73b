package check

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/plugins/engine"
)

const (
	slots  = 16
	kBlock = 1 << 18
)

type factor struct{ p, q uint64 }

// published is the table of known factors, with k up to kMax; those of 101 apart.
func published(t *testing.T, kMax uint64) []factor {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "data", "factors.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var list []factor
	for line := range strings.Lines(string(text)) {
		var f factor
		if n, _ := fmt.Sscanf(line, "%d,%d", &f.p, &f.q); n == 2 && (f.q-1)/2/f.p <= kMax {
			list = append(list, f)
		}
	}
	return list
}

func exponents(t *testing.T) []uint64 {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "data", "exponents.bin"))
	if err != nil {
		t.Fatal(err)
	}
	seg := segments(t, len(b))
	copy(seg[0].Bytes, b)
	return words(seg[0])[:len(b)/8]
}

// search runs the kernel and returns the rows that are not zero, as a csv writer does.
func search(t *testing.T, cores int, ps []uint64, kStart uint64, blocks uint32) []factor {
	t.Helper()
	seg := segments(t, 8*len(ps), 16*slots*len(ps))
	copy(words(seg[0]), ps)
	run(t, cores, engine.Dispatch{Kernel: kernel(t, "mersenne"), Entry: "factor", Grid: [3]uint32{blocks, uint32(len(ps)), 1}, Group: [3]uint32{1, 1, 1},
		Args:     []engine.Arg{buffer(seg[0]), buffer(seg[1]), scalar(0), scalar(slots), scalar(kStart), scalar(kBlock)},
		Segments: seg, Space: 1})
	var found []factor
	w := words(seg[1])[:2*slots*len(ps)]
	for i := 0; i < len(w); i += 2 {
		if w[i] != 0 || w[i+1] != 0 {
			found = append(found, factor{w[i], w[i+1]})
		}
	}
	return found
}

func TestMersenneFindsThePublishedFactors(t *testing.T) {
	ps := exponents(t)
	const blocks = 8
	kMax := uint64(blocks * kBlock)
	want := published(t, kMax)
	if len(want) < 40 || !slices.Contains(want, factor{67, 193707721}) {
		t.Fatalf("the table has %d factors for k up to %d", len(want), kMax)
	}
	for _, cores := range []int{1, 0} {
		if got := search(t, cores, ps, 1, blocks); !slices.Equal(got, want) {
			t.Errorf("%d cores: found %v, published %v", cores, got, want)
		}
	}
}

func TestMersenneStartsAnywhere(t *testing.T) {
	const k = 36793758459
	want := []factor{{101, 7432339208719}}
	if got := search(t, 0, []uint64{101}, k-1000, 1); !slices.Equal(got, want) {
		t.Errorf("found %v", got)
	}
	if got := search(t, 0, []uint64{101}, k+1, 1); len(got) != 0 {
		t.Errorf("beyond: found %v", got)
	}
}

// TestMersenneMissesNothing compares with plain division for small k.
func TestMersenneMissesNothing(t *testing.T) {
	var ps []uint64
	for p := uint64(11); p < 4000; p += 2 {
		if !composite(p) {
			ps = append(ps, p)
		}
	}
	got := search(t, 0, ps, 1, 1)
	const kMax = 2000
	got = slices.DeleteFunc(got, func(f factor) bool { return (f.q-1)/2/f.p > kMax })
	var want []factor
	for _, p := range ps {
		for k := uint64(1); k <= kMax; k++ {
			if q := 2*k*p + 1; power(p, q) == 1 && !composite(q) {
				want = append(want, factor{p, q})
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("kernel found %d, division %d", len(got), len(want))
	}
}

// TestMersenneEndsBelowTheLimit: near the limit only true factors are found,
// and none of 2^63 and more.
func TestMersenneEndsBelowTheLimit(t *testing.T) {
	const p = 2147483659 // a prime; 2kp + 1 < 2^63 up to k = 2147483637
	got := search(t, 0, []uint64{p}, 2147483000, 4)
	for _, f := range got {
		if f.q >= 1<<63 || power(p, f.q) != 1 {
			t.Errorf("found %v", f)
		}
	}
}

// power returns 2^p mod q.
func power(p, q uint64) uint64 {
	x, base := uint64(1), 2%q
	for ; p > 0; p >>= 1 {
		if p&1 == 1 {
			x = times(x, base, q)
		}
		base = times(base, base, q)
	}
	return x
}

func times(a, b, q uint64) uint64 {
	high, low := bits.Mul64(a, b)
	_, rest := bits.Div64(high%q, low, q)
	return rest
}

func composite(n uint64) bool {
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return true
		}
	}
	return false
}
