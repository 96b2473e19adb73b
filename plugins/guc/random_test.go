package guc

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// seedsDefault is how many random runs an ordinary test does; GPUWM_SEEDS says how many, GPUWM_SEED which one.
const seedsDefault = 60

// TestRandomRuns runs driver and firmware with random work and random faults, all on
// one goroutine in virtual time, each seed twice with the same trace. Once the plan is
// over, with restarts of the instance if the device was given up, every job ends, outputs are
// right, and the next job of a fresh entity completes.
func TestRandomRuns(t *testing.T) { rig.Seeds(t, "guc", seedsDefault, runSeed) }

// tally is what the runs met.
type tally struct {
	rig.Tally
	Resets, Moves, Sleeps int
}

// run is one random run: a daemon, and what only this device can do.
type run struct {
	rig.Daemon
	w *world
	// cold says that the device was put to sleep.
	cold  bool
	moves int
}

// resetMessages are what a forced disable makes the firmware say, in any order.
var resetMessages = []abi.Action{abi.ActionStateCapture, abi.ActionContextReset, abi.ActionSchedContextModeDone}

// accuses says whose work a fault spoils, and who is named in its place.
func (r *run) accuses(h hw.Hit) []rig.Suspect {
	id, whole := h.ID, false
	switch h.Rule.Point {
	case fw.PointBatch:
		switch h.Rule.Action {
		case fw.FaultHang, fw.FaultStuck, fw.FaultTrap, fw.FaultCat:
		default:
			return nil
		}
	case fw.PointG2H:
		if h.Rule.Action != fw.FaultID || h.Name != abi.ActionContextReset.String() && h.Name != abi.ActionCatError.String() {
			return nil
		}
		id, whole = h.Rule.Number(), true
	default:
		return nil
	}
	var suspects []rig.Suspect
	for _, c := range r.w.driver.Contexts() {
		switch {
		case uint64(c.ID) != id:
		case whole:
			suspects = append(suspects, rig.Suspect{Entity: c.Entity})
		default:
			suspects = append(suspects, rig.Suspect{Entity: c.Entity, Job: c.First})
		}
	}
	return suspects
}

func runSeed(s rig.Seeded, sum *tally) [32]byte {
	s.Helper()
	random := rand.New(rand.NewPCG(s.Seed, 7))
	faults, err := fw.NewFaults(fw.RandomPlan(s.Seed, 1+random.IntN(6)))
	if err != nil {
		s.Fatal(err)
	}
	delay, done := time.Duration(random.IntN(3))*200*time.Microsecond, time.Duration(random.IntN(3))*500*time.Microsecond
	free, instances := random.IntN(2) == 0, 1+random.IntN(2)
	open := fw.OpenPoints{
		KeepPreemption: random.IntN(2) == 0, CarryQuantum: random.IntN(2) == 0, NotifyFirst: random.IntN(2) == 0,
		Promote: time.Duration(random.IntN(2)) * 50 * time.Millisecond,
	}
	for _, i := range random.Perm(len(resetMessages)) {
		open.ResetOrder = append(open.ResetOrder, resetMessages[i])
	}
	set := setup{arena: 32 << 20, faults: faults, clock: hw.NewVirtualClock(),
		firmware: func(c *fw.Config) {
			c.MessageDelay, c.DoneDelay, c.NoHeadOfLineBlocking, c.OpenPoints = delay, done, free, open
			c.Classes = map[abi.EngineClass]int{abi.ClassCompute: instances}
		},
		driver: func(c *driver.Config) { c.Credits, c.Instances = 32, instances }}
	r := &run{}
	var worlds []*world
	r.Daemon = rig.Daemon{T: s, Random: random, Faults: faults, Accuses: r.accuses, Step: r.step, Rouse: r.rouse,
		Make: func() (*rig.World, error) {
			var err error
			r.w, err = set.make(s)
			r.cold = false
			worlds = append(worlds, r.w)
			return r.w.World, err
		},
		Quiet: func() { r.w.law.quiet() },
		Check: func(l *rig.Life, done []rig.Done) { r.w.check(l, done...) },
	}
	digest := r.Run()
	sum.Tally.Add(r.Sum)
	sum.Moves += r.moves
	for _, w := range worlds {
		hot, cold := w.driver.Sleeps()
		sum.Resets, sum.Sleeps = sum.Resets+w.driver.Resets(), sum.Sleeps+hot+cold
	}
	return digest
}

// step puts the device to sleep or moves it, now and then; while it sleeps time passes.
func (r *run) step() bool {
	if r.cold {
		if r.Random.IntN(3) == 0 {
			r.rouse()
		}
		r.w.Run(time.Duration(r.Random.IntN(100)) * time.Millisecond)
		return true
	}
	switch r.Random.IntN(32) {
	case 0:
		r.move()
	case 1:
		r.cold = r.w.driver.Sleep(background) == nil
	default:
		return false
	}
	return true
}

// rouse wakes the device if it sleeps.
func (r *run) rouse() {
	if r.cold {
		_ = r.w.driver.Wake(background)
		r.cold = false
	}
}

// move moves the device. When that fails on the way, the instance is given up.
func (r *run) move() {
	err := r.w.move()
	switch {
	case err == nil:
		r.moves++
	case len(r.w.Failed) == 0 && r.w.driver.Unpause(background) != nil && len(r.w.Failed) == 0:
		r.w.World.Run(10 * time.Second) // A reset is under way, or the pause comes late.
		if r.w.driver.Unpause(background) != nil && !r.w.driver.Up() {
			r.w.Failed = append(r.w.Failed, errors.New("neither moved nor resumed"))
		}
	}
}
