package agx

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

// stressRounds is how often clients come and go, stressClients how many each time.
const (
	stressRounds  = 2000
	stressClients = 10
)

// TestClientsComeAndGo starts ten clients every 0.1 s and kills them after 50 ms, whatever they do by
// then, thousands of times, while one works on beside them that must not notice.
func TestClientsComeAndGo(t *testing.T) {
	w := testWorld(t, setup{})
	w.Light = true
	random := rand.New(rand.NewPCG(1, 1))
	scripts := []string{"workgroup=1ms", "workgroup=100us cores=4", "workgroup=30ms", "workgroup=1ms trap at 5"}
	w.Priority = core.PriorityHigh
	innocent := w.Create("innocent", nil)
	w.OK(innocent.Run(background, w.Job(1, 1<<24, "workgroup=1ms")))
	w.Priority = ""
	w.Run(time.Second)
	goroutines := runtime.NumGoroutine()
	next := core.JobID(1)
	var idle, after = w.driver.State(), w.driver.State()
	for round := range stressRounds {
		var clients []*rig.Life
		for range stressClients {
			l := w.Create("client", nil)
			clients = append(clients, l)
			for range 1 + random.IntN(3) {
				next++
				w.OK(l.Run(background, w.Job(next, 1+random.Uint32N(200), scripts[random.IntN(len(scripts))])))
			}
		}
		w.Run(50 * time.Millisecond)
		if round%2 == 0 {
			// Room for the clients, whose level is weaker.
			w.OK(innocent.Suspend(background))
			w.Run(20 * time.Millisecond)
			w.OK(innocent.Resume(background))
		}
		for _, l := range clients {
			w.OK(l.Destroy(background))
		}
		w.Lives = w.Lives[:1]
		w.Run(50 * time.Millisecond)
		if round == 5 {
			idle = w.driver.State()
		}
	}
	after = w.driver.State()
	if after.Low+256<<10 < idle.Low || after.High != idle.High || after.EventSlots > 1 || after.VMSlots > 1 || len(w.driver.Queues()) != 1 {
		t.Errorf("something was left behind: %+v, was %+v", after, idle)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines, were %d", n, goroutines)
	}
	if len(innocent.Lost) > 0 || len(w.Failed) > 0 {
		t.Errorf("somebody innocent suffered: %+v, failed %v", innocent.Lost, w.Failed)
	}
	w.OK(innocent.Suspend(background))
	done := innocent.Progress()[0].Done
	w.Check(innocent, done)
	w.OK(innocent.Destroy(background))
	w.law.quiet()
	if c := w.firmware.Counters(); c.Violations > 0 || c.Misuses > 0 || c.Halts == 0 {
		t.Errorf("%+v", c)
	}
}
