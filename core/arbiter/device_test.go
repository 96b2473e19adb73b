package arbiter

import (
	"slices"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// client is one of the load generators of the Linux scheduler's tests: it submits
// jobs that take work together, waits for the last if sync, and then waits.
type client struct {
	priority   core.Priority
	work, wait time.Duration
	sync       bool

	id        core.EntityID
	e         *entity
	left      time.Duration
	submitted core.Instant
	next      core.Instant
	executed  time.Duration
	latencies []time.Duration
	// gone says that it has left.
	gone bool
	// waitingSince is when it last began to wait for a slot, 0 if it does not;
	// bound is the latest time at which it must have one.
	waitingSince, bound core.Instant
}

// device is slots in virtual time whose driver calls an Arbiter: at each tick, and
// when somebody wakes or idles.
type device struct {
	t       *testing.T
	a       *Arbiter
	config  Config
	step    time.Duration
	tick    time.Duration
	cost    time.Duration // of a move, in which the slot does nothing
	now     core.Instant
	picked  core.Instant
	clients []*client
	levels  [levels]int // how many clients have each priority at their start
	held    []core.EntityID
	busy    []core.Instant // until when each slot is being switched
	lost    time.Duration  // slot time spent moving
	empty   time.Duration  // slot time nobody used
	moves   int
	// bounded asserts the starvation bound for each wait.
	bounded bool
	// crowd, when set, is how many entities count in the bound, each as a high one:
	// for runs in which entities come and priorities change.
	crowd int
}

func newDevice(t *testing.T, c Config, slots int, clients ...*client) *device {
	t.Helper()
	a, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{t: t, a: a, config: c, step: 50 * time.Microsecond, tick: time.Millisecond, now: 1}
	d.held, d.busy = make([]core.EntityID, slots), make([]core.Instant, slots)
	for _, c := range clients {
		d.add(c)
	}
	return d
}

func (d *device) add(c *client) {
	c.id, c.next = core.EntityID(len(d.clients)+1), d.now
	d.clients = append(d.clients, c)
	d.must(d.a.Join(c.id, c.priority))
	c.e = d.a.entities[c.id]
	d.levels[c.e.level]++
}

// leave takes c off the device for good.
func (d *device) leave(c *client) {
	c.gone, c.left = true, 0
	d.must(d.a.Leave(c.id))
	if s := slices.Index(d.held, c.id); s >= 0 {
		d.held[s] = 0
	}
}

func (d *device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) run(took time.Duration) {
	d.t.Helper()
	for end := d.now.Add(took); d.now < end; {
		event := d.execute()
		d.now = d.now.Add(d.step)
		for _, c := range d.clients {
			event = d.submit(c) || event
		}
		if event || d.now.Sub(d.picked) >= d.tick {
			d.pick()
		}
	}
}

// execute lets one step pass on every slot.
func (d *device) execute() (event bool) {
	for s, id := range d.held {
		switch {
		case d.busy[s] > d.now:
			d.lost += d.step
			continue
		case id == 0 || d.clients[id-1].left == 0:
			d.empty += d.step
			continue
		}
		c := d.clients[id-1]
		took := min(d.step, c.left)
		c.left -= took
		c.executed += took
		d.must(d.a.Charge(id, took))
		if c.left == 0 && c.sync {
			end := d.now.Add(took)
			c.latencies = append(c.latencies, end.Sub(c.submitted)-c.work)
			c.next = end.Add(c.wait)
			d.must(d.a.Idle(id))
			event = true
		}
	}
	return event
}

// submit gives c its next jobs if it is time.
func (d *device) submit(c *client) bool {
	if c.gone || d.now < c.next || c.sync && c.left > 0 {
		return false
	}
	wake := c.left == 0
	c.submitted = d.now
	if c.left += c.work; !c.sync {
		c.next = d.now.Add(c.wait)
		c.left = min(c.left, 100*c.work)
	}
	if wake {
		d.must(d.a.Wake(c.id))
	}
	return wake
}

func (d *device) pick() {
	want := d.a.Pick(d.now, d.held, nil)
	d.picked = d.now
	for s, id := range want {
		if id == d.held[s] {
			continue
		}
		d.moves++
		if slices.Contains(d.held, id) && id != 0 {
			d.t.Fatalf("entity %d was moved between slots: %v to %v", id, d.held, want)
		}
		d.busy[s] = d.now.Add(d.cost)
		if id != 0 && d.cost > 0 {
			d.must(d.a.Moved(id, d.cost))
		}
	}
	d.held = want
	d.conserve()
	if d.bounded {
		d.bound()
	}
}

// conserve asserts that no slot is empty or idle while somebody waits.
func (d *device) conserve() {
	d.t.Helper()
	if d.a.Waiting() == 0 {
		return
	}
	for s, id := range d.held {
		if id == 0 || d.clients[id-1].left == 0 {
			d.t.Fatalf("at %d slot %d is free (%v) while %d wait", d.now, s, d.held, d.a.Waiting())
		}
	}
}

// bound asserts the starvation bound of the package comment for all who wait.
// Everybody who ever joined counts in its sum.
func (d *device) bound() {
	d.t.Helper()
	for _, c := range d.clients {
		if c.e.place == nowhere {
			c.waitingSince = 0
			continue
		}
		if c.waitingSince == 0 {
			c.waitingSince = d.now
			c.bound = d.now.Add(d.waitMax(c))
		}
		if d.now > c.bound {
			d.t.Fatalf("entity %d of %d (%s) has waited %v, bound %v", c.id, len(d.clients), c.priority,
				d.now.Sub(c.waitingSince), c.bound.Sub(c.waitingSince))
		}
	}
}

// waitMax is the bound of the package comment.
func (d *device) waitMax(c *client) time.Duration {
	lead := c.e.v.over(d.a.floor)
	slots, moves := len(d.held), d.config.MovesMax
	if moves == 0 {
		moves = slots
	}
	turn := d.config.Quantum
	if d.cost > 0 {
		turn *= TurnMax
	}
	stay := turn + d.tick*time.Duration(1+(slots+moves-1)/moves)
	sum := time.Duration(d.crowd) * (time.Duration(lead) + stay)
	if d.crowd == 0 {
		for l, n := range d.levels {
			if l == int(c.e.level) {
				n--
			}
			sum += time.Duration(n) * (time.Duration(lead/int64(strides[l])) + stay)
		}
	}
	return sum/time.Duration(slots) + stay
}

func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}
