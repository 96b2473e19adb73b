package arbiter

import (
	"fmt"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

const benchSlots = 8

var sizes = []int{10, 1_000, 100_000}

// benchmark returns n entities of all priorities, all runnable, on 8 slots.
func benchmark(b *testing.B, n int) (*Arbiter, []core.EntityID) {
	a := awake(b, Config{Quantum: 1000, MinRun: 1000}, n)
	for id := core.EntityID(1); id <= core.EntityID(n); id++ {
		if err := a.SetPriority(id, priorities[id%3]); err != nil {
			b.Fatal(err)
		}
	}
	return a, a.Pick(1, make([]core.EntityID, benchSlots), nil)
}

// BenchmarkPick is a tick in which every turn is over: eight charges, one Pick that
// may exchange all slots.
func BenchmarkPick(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a, held := benchmark(b, n)
			want := make([]core.EntityID, benchSlots)
			now, moves := core.Instant(1), 0
			b.ReportAllocs()
			for b.Loop() {
				now += 1000
				for _, id := range held {
					if err := a.Charge(id, 1000); err != nil {
						b.Fatal(err)
					}
				}
				want = a.Pick(now, held, want)
				for s := range want {
					if want[s] != held[s] {
						moves++
					}
				}
				held, want = want, held
			}
			b.ReportMetric(float64(moves)/float64(b.N), "moves/op")
		})
	}
}

// BenchmarkQuietPick is a tick in which nothing has to change.
func BenchmarkQuietPick(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a, held := benchmark(b, n)
			want := make([]core.EntityID, benchSlots)
			b.ReportAllocs()
			for b.Loop() {
				want = a.Pick(1, held, want)
			}
		})
	}
}

// BenchmarkWake is one entity becoming idle and runnable again, among n that wait.
func BenchmarkWake(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			a, _ := benchmark(b, n)
			b.ReportAllocs()
			id := core.EntityID(0)
			for b.Loop() {
				id = id%core.EntityID(n) + 1
				if err := a.Idle(id); err != nil {
					b.Fatal(err)
				}
				if err := a.Wake(id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
