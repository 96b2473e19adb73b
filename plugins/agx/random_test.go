package agx

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// seedsDefault is how many random runs an ordinary test does; GPUWM_SEEDS says how many, GPUWM_SEED which one.
const seedsDefault = 30

// TestRandomRuns runs driver and firmware with random work and random faults, all on
// one goroutine in virtual time, each seed twice with the same trace. Once the plan is
// over, with restarts of the instance if the device was given up, every job ends, outputs are
// right, and the next job of a fresh entity completes.
func TestRandomRuns(t *testing.T) { rig.Seeds(t, "agx", seedsDefault, runSeed) }

// accusing are the actions of a plan that make a job look guilty.
var accusing = map[string]bool{
	fw.FaultFault: true, fw.FaultUnknown: true, fw.FaultVM: true, fw.FaultHang: true, fw.FaultHangInfo: true,
	fw.FaultNobody: true, fw.FaultStuck: true, fw.FaultChannel: true,
}

// accused says whose command a fault spoils, or whose VM slot is named in its place.
func accused(w *world, h hw.Hit) []rig.Suspect {
	if h.Rule.Point != fw.PointCommand || !accusing[h.Rule.Action] {
		return nil
	}
	var suspects []rig.Suspect
	for _, q := range w.driver.Queues() {
		if uint64(q.ID) == h.ID || h.Rule.Action == fw.FaultVM && uint64(q.VM) == h.Rule.Number() {
			suspects = append(suspects, rig.Suspect{Entity: q.Entity})
		}
	}
	return suspects
}

// innocent are the actions that random runs leave out: a soft fault executes nothing, says that it was
// done, and so makes outputs wrong on purpose; a flush that is consumed and not done lets the firmware
// see what was in its cache, which no host can know.
func innocent(r hw.Rule) bool {
	return r.Action != fw.FaultSoft && (r.Point != fw.PointControl || r.Action != fw.FaultDrop)
}

func runSeed(s rig.Seeded, sum *rig.Tally) [32]byte {
	s.Helper()
	random := rand.New(rand.NewPCG(s.Seed, 7))
	var plan hw.Plan
	for _, r := range fw.RandomPlan(s.Seed, 1+random.IntN(6)) {
		if innocent(r) {
			plan = append(plan, r)
		}
	}
	faults, err := fw.NewFaults(plan)
	if err != nil {
		s.Fatal(err)
	}
	width, drop, progress, preempt := 1+random.IntN(2), random.IntN(2) == 0, random.IntN(2) == 0, random.IntN(2) == 0
	slots, depth := uint32(2+random.IntN(4)), uint32(1+random.IntN(6))
	slice := []time.Duration{10 * time.Millisecond, 50 * time.Millisecond}[random.IntN(2)]
	version := abi.Versions()[random.IntN(2)]
	clock := hw.NewVirtualClock()
	var w *world
	d := rig.Daemon{T: s, Random: random, Faults: faults, Accuses: func(h hw.Hit) []rig.Suspect { return accused(w, h) },
		Make: func() (*rig.World, error) {
			var err error
			w, err = setup{arena: 64 << 20, faults: faults, clock: clock,
				firmware: func(c *fw.Config) {
					c.Version, c.Width, c.EventDrop, c.WatchdogByProgress, c.ComputePreempt = version, width, drop, progress, preempt
				},
				driver: func(c *driver.Config) {
					c.Credits, c.EventSlots, c.VMSlots, c.Depth, c.Slice, c.GarbageObjects = 8, slots, slots-1, depth, slice, 40
				}}.make(s)
			return w.World, err
		},
		Quiet: func() { w.law.quiet() },
	}
	digest := d.Run()
	sum.Add(d.Sum)
	return digest
}
