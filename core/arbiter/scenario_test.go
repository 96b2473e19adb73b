package arbiter

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

const (
	us = time.Microsecond
	ms = time.Millisecond

	low, normal, high = core.PriorityLow, core.PriorityNormal, core.PriorityHigh
)

var usual = Config{Quantum: 5 * ms, MinRun: ms}

func hog(p core.Priority) *client { return &client{priority: p, work: 8 * ms} }

func half(p core.Priority, d time.Duration) *client {
	return &client{priority: p, work: d, wait: d, sync: true}
}

// twoClients is the ten parameter sets of the Linux scheduler's tests.
var twoClients = []struct {
	name string
	a, b func() *client
	// shares of the device in per cent, where demand exceeds supply. The weights
	// decide, except that who demands less than its part gets what it demands: its
	// work in each cycle of work, wait and the one tick until the other gives way.
	shares [2]float64
	// interactive says that the second client's latency matters.
	interactive bool
}{
	{"normal and normal", func() *client { return hog(normal) }, func() *client { return hog(normal) }, [2]float64{50, 50}, false},
	{"normal and low", func() *client { return hog(normal) }, func() *client { return hog(low) }, [2]float64{100 * 8. / 9, 100 * 1. / 9}, false},
	{"high and normal", func() *client { return hog(high) }, func() *client { return hog(normal) }, [2]float64{80, 20}, false},
	{"high and low", func() *client { return hog(high) }, func() *client { return hog(low) }, [2]float64{100 * 32. / 33, 100 * 1. / 33}, false},
	{"50 and 50", func() *client { return half(normal, 1500*us) }, func() *client { return half(normal, 2500*us) }, [2]float64{}, false},
	{"50 and 50 low", func() *client { return half(normal, 1500*us) }, func() *client { return half(low, 2500*us) }, [2]float64{}, false},
	{"50 high and 50", func() *client { return half(high, 1500*us) }, func() *client { return half(normal, 2500*us) }, [2]float64{}, false},
	{"low hog and interactive", func() *client { return &client{priority: low, work: 7500 * us, wait: 500 * us} },
		func() *client { return &client{priority: normal, work: 500 * us, wait: 10 * ms, sync: true} },
		[2]float64{100 - 100*.5/11.5, 100 * .5 / 11.5}, true},
	{"heavy and interactive", func() *client { return &client{priority: normal, work: 7500 * us, wait: 2500 * us, sync: true} },
		func() *client { return &client{priority: normal, work: ms, wait: 9 * ms, sync: true} }, [2]float64{}, true},
	{"very heavy and interactive", func() *client { return &client{priority: normal, work: 200 * ms, wait: us, sync: true} },
		func() *client { return &client{priority: normal, work: ms, wait: 9 * ms, sync: true} }, [2]float64{100 - 100*1./11, 100 * 1. / 11}, true},
}

func TestTwoClients(t *testing.T) {
	for i, set := range twoClients {
		t.Run(fmt.Sprintf("%d %s", i+1, set.name), func(t *testing.T) {
			d := newDevice(t, usual, 1, set.a(), set.b())
			d.bounded = true
			d.run(time.Second)
			got := [2]float64{}
			for k, c := range d.clients {
				got[k] = 100 * c.executed.Seconds()
			}
			t.Logf("shares %.2f %.2f, empty %v, moves %d, p95 %v %v", got[0], got[1], d.empty, d.moves,
				percentile(d.clients[0].latencies, 95), percentile(d.clients[1].latencies, 95))
			for k, want := range set.shares {
				if want != 0 && math.Abs(got[k]-want) > .05*want {
					t.Errorf("client %d got %.2f %% of the device, want %.2f", k, got[k], want)
				}
			}
			for k, c := range d.clients {
				if late := percentile(c.latencies, 95); c.work < usual.Quantum && late > 2*usual.Quantum {
					t.Errorf("p95 latency of client %d is %v, more than 2 quanta", k, late)
				}
			}
			if set.interactive && len(d.clients[1].latencies) < 80 {
				t.Errorf("the interactive client had %d cycles, want 80", len(d.clients[1].latencies))
			}
			if lost := time.Second - d.clients[0].executed - d.clients[1].executed - d.empty; lost != 0 {
				t.Errorf("%v of the device are not accounted for", lost)
			}
		})
	}
}

// TestTwoClientsTwoSlots is the same sets with a slot for each: nobody waits, and
// nobody is moved.
func TestTwoClientsTwoSlots(t *testing.T) {
	for _, set := range twoClients {
		d := newDevice(t, usual, 2, set.a(), set.b())
		d.bounded = true
		d.run(time.Second)
		for k, c := range d.clients {
			if late := percentile(c.latencies, 100); late != 0 {
				t.Errorf("%s: client %d waited for %v", set.name, k, late)
			}
			// One that does not wait for its jobs fills its slot if they are enough.
			if !c.sync && c.work >= 8*ms && c.executed < time.Second-d.step {
				t.Errorf("%s: client %d executed %v of a second", set.name, k, c.executed)
			}
		}
		if d.moves != 2 {
			t.Errorf("%s: %d moves, want one for each client", set.name, d.moves)
		}
	}
}

// TestTwoClientsTick is the saturated sets as a driver with a tick of 10 ms and
// moves that cost 200 µs sees them: turns are long and coarse, so the weights
// hold over ten seconds.
func TestTwoClientsTick(t *testing.T) {
	for _, set := range twoClients[:4] {
		d := newDevice(t, Config{Quantum: 10 * ms, MinRun: 5 * ms}, 1, set.a(), set.b())
		d.tick, d.cost, d.bounded = 10*ms, 200*us, true
		d.run(10 * time.Second)
		sum := d.clients[0].executed + d.clients[1].executed
		for k, c := range d.clients {
			if got := 100 * float64(c.executed) / float64(sum); math.Abs(got-set.shares[k]) > .05*set.shares[k] {
				t.Errorf("%s: client %d got %.2f %%, want %.2f", set.name, k, got, set.shares[k])
			}
		}
		if d.lost > 10*time.Second*3/100 {
			t.Errorf("%s: %v of 10s were spent on %d moves", set.name, d.lost, d.moves)
		}
	}
}

// TestManyClients is the fairness spread of the Linux scheduler's many-client
// sets, on one slot and on two: equal clients differ by less than two quanta a second.
func TestManyClients(t *testing.T) {
	for _, clients := range []int{2, 3, 7, 13, 31} {
		for slots := 1; slots <= 2; slots++ {
			d := newDevice(t, usual, slots)
			d.bounded = true
			for range clients {
				c := &client{priority: normal, work: 4 * ms, sync: true}
				if clients == 31 {
					c.work = 2 * ms
				}
				d.add(c)
			}
			d.run(time.Second)
			least, most, sum := time.Hour, time.Duration(0), time.Duration(0)
			for _, c := range d.clients {
				least, most, sum = min(least, c.executed), max(most, c.executed), sum+c.executed
			}
			t.Logf("%d clients on %d slots: %v to %v", clients, slots, least, most)
			if spread := most - least; spread > 2*usual.Quantum {
				t.Errorf("%d clients on %d slots: %v to %v, spread %v", clients, slots, least, most, spread)
			}
			if want := time.Duration(min(slots, clients)) * time.Second * 95 / 100; sum < want {
				t.Errorf("%d clients on %d slots used %v of %d s", clients, slots, sum, slots)
			}
		}
	}
}

// TestThousand is 1,000 entities of all priorities on 8 slots: everybody
// progresses in proportion to its weight, and nobody waits beyond the bound.
func TestThousand(t *testing.T) {
	config := Config{Quantum: ms, MinRun: ms / 4, MovesMax: 4}
	d := newDevice(t, config, 8)
	d.step, d.tick, d.bounded = 500*us, 500*us, true
	weights := 0
	for i := range 1000 {
		p := priorities[i%3]
		weights += int(weightOf(p))
		d.add(&client{priority: p, work: 8 * ms})
	}
	const took = 20 * time.Second
	d.run(took)
	for _, c := range d.clients {
		want := 8 * took * time.Duration(weightOf(c.priority)) / time.Duration(weights)
		// One turn, which is what a tick makes of a quantum, may be under way or just over.
		if off := (c.executed - want).Abs(); off > want/20+2*config.Quantum {
			t.Errorf("%s entity %d executed %v, want %v", c.priority, c.id, c.executed, want)
		}
	}
}
