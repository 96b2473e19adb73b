package mali

import (
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/mali/driver"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
)

// unaborted is an engine whose workgroups can't be aborted, as on a CPU.
type unaborted struct{ engine.Engine }

func (u unaborted) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	x, err := u.Engine.Start(d, notify)
	return engine.Stuck{Execution: x}, err
}

// TestMemoryInReset: what the firmware may still use is not free before the GPU's reset is
// done, whatever was or was not acknowledged before.
func TestMemoryInReset(t *testing.T) {
	for name, plan := range map[string]string{
		"SUSPEND and TERMINATE late": "glb-ack/PING drop",
		"START unanswered":           "csg-ack/START id=0 drop",
		"RESUME unanswered":          "csg-ack/RESUME id=0 drop",
	} {
		t.Run(name, func(t *testing.T) {
			w := testWorld(t, setup{plan: plan,
				firmware: func(c *fw.Config) { c.Engine, c.ResetGrace = unaborted{c.Engine}, time.Minute },
				driver: func(c *driver.Config) {
					c.Timeouts.Hang, c.Timeouts.Reset, c.Timeouts.Kill = time.Minute, time.Minute, time.Minute
				}})
			a := w.create("a", nil)
			w.ok(a.Run(background, w.job(1, 30, "workgroup=5s")))
			if w.faults.Counts()[0].Rule.Name == "RESUME" {
				w.run(4950 * time.Millisecond) // The workgroup ends in time.
				w.ok(a.Suspend(background))
				w.ok(a.Resume(background))
			}
			w.until("the reset", func() bool { return w.driver.Resets() > 0 })
			w.run(400 * time.Millisecond)
			if done := w.firmware.Counters().Resets; done != 0 || len(w.driver.Groups()) != 1 {
				t.Fatalf("%d resets done, groups %+v", done, w.driver.Groups())
			}
			w.ok(a.Destroy(background))
			if w.firmware.Counters().Resets != 1 {
				t.Error("the memory was free before the reset was done")
			}
		})
	}
}

// TestSilentFirmware: who does not answer a PING either is not waited for once more, so that a suspend is over
// within the bound that the settings have for it.
func TestSilentFirmware(t *testing.T) {
	w := testWorld(t, setup{plan: "csg-ack/STATUS_UPDATE freeze"})
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 300, "workgroup=1ms")))
	w.run(20 * time.Millisecond)
	begun := w.clock.Now()
	_ = a.Suspend(background)
	const most = 350 * time.Millisecond // Three waits of 100 ms: for the tick, for SUSPEND, and for PING.
	if took := w.clock.Now() - begun; len(a.lost) != 1 || a.lost[0].guilty || took > most {
		t.Errorf("lost %+v after %s", a.lost, took)
	}
}
