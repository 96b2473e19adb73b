package guc

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/driver"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
	"golang.org/x/sys/unix"
)

// idleMax is what an entity without jobs may take on the heap, in bytes.
const idleMax = 1024

// TestAllEntities takes every guc_id there is: idle entities are small, and past the last one there is a
// clear answer.
func TestAllEntities(t *testing.T) {
	w, err := setup{driver: func(c *driver.Config) { c.EntitiesMax = abi.GUCIDMax }}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	w.Light, w.Still = true, true
	spec := &core.EntitySpec{ID: 1, Name: "idle", Mode: core.ModeCompute, Properties: core.Properties{Priority: core.PriorityNormal}}
	create := func() (sdk.Entity, error) {
		return w.driver.Create(background, spec, sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion}, nil), nobody{})
	}
	stored := func() int64 {
		var st unix.Stat_t
		w.OK(unix.Fstat(w.Arena.Fd(), &st))
		return st.Blocks * 512
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	storedBefore := stored()
	entities := make([]sdk.Entity, abi.GUCIDMax)
	for i := range entities {
		if entities[i], err = create(); err != nil {
			t.Fatalf("entity %d: %v", i, err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / abi.GUCIDMax
	t.Logf("%d idle entities, %d bytes of heap and %d bytes of device memory each", len(entities), each, (stored()-storedBefore)/abi.GUCIDMax)
	if each > idleMax || stored() != storedBefore {
		t.Errorf("an idle entity takes %d bytes of heap, all together %d bytes of device memory", each, stored()-storedBefore)
	}
	if _, err := create(); !errors.Is(err, core.ErrFull) || !strings.Contains(err.Error(), "all 65535 guc_ids are taken") {
		t.Errorf("one entity too many: %v", err)
	}
	w.OK(entities[40_000].Destroy(background))
	if entities[40_000], err = create(); err != nil {
		t.Errorf("an id that came back: %v", err)
	}
	if contexts := w.driver.Contexts(); len(contexts) != abi.GUCIDMax || contexts[0].Registered {
		t.Errorf("%d contexts", len(contexts))
	}
	if w.firmware.Counters().H2G > 3 {
		t.Errorf("the firmware was told of idle entities: %+v", w.firmware.Counters())
	}
	runtime.KeepAlive(entities)
}

// nobody takes reports and does nothing.
type nobody struct{}

func (nobody) Started(core.JobID)                                   {}
func (nobody) Completed(core.JobID, sdk.Usage)                      {}
func (nobody) Cancelled(core.JobID, sdk.Usage)                      {}
func (nobody) Lost(bool, core.JobID, sdk.Usage, core.Cause, string) {}

// TestSettingsRanges: what is out of range is refused with a sentence that says what the range is.
func TestSettingsRanges(t *testing.T) {
	for name, c := range map[string]struct{ value, says string }{
		"quantum":            {"9ms", "want 10ms to 1m40s"},
		"hang-deadline":      {"101s", "want 10ms to 1m40s"},
		"cores":              {"-1", "invalid syntax"},
		"instances":          {"10", "want 1 to 9"},
		"runtime-idle":       {"0s", "want 10ms to 24h0m0s"},
		"min-run":            {"11s", "want 0s to 10s"},
		"preemption-timeout": {"1s", "unknown; there are"},
		"faults":             {"g2h/NOTHING drop", "nothing called"},
	} {
		_, err := parseSettings(core.DeviceSpec{Options: map[string]string{name: c.value}})
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s=%s: %v", name, c.value, err)
		}
	}
	if err := CheckOptions(map[string]string{"hang-deadline": "98s", "min-run": "1s"}); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "want at most 1m37s with") {
		t.Errorf("a suspend that the SDK does not wait for: %v", err)
	}
	if s, err := parseSettings(core.DeviceSpec{Options: map[string]string{"hang-deadline": "98s"}}); err != nil || s.leaveBound() != sdk.LeaveBoundMax {
		t.Errorf("%s, %v", s.leaveBound(), err)
	}
	s, err := parseSettings(core.DeviceSpec{Options: map[string]string{"runtime-idle": "2s", "min-run": "0s", "quantum": "100s"}})
	if err != nil || s.idle != 2*time.Second || s.minRun >= 0 || s.quantum != settingMax {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestPriorities: there are three, and no other one.
func TestPriorities(t *testing.T) {
	w := testWorld(t, nil)
	for _, p := range []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh} {
		w.Priority = p
		w.Create(string(p), nil)
	}
	for _, p := range []core.Priority{"kernel", "3", "HIGH"} {
		w.Priority = p
		if _, err := w.TryCreate("refused", nil); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("priority %q: %v", p, err)
		}
	}
	// The strongest comes first, whoever was there before.
	for i, l := range w.Lives {
		w.OK(l.Run(background, w.Job(core.JobID(i+1), 50, "workgroup=1ms")))
	}
	w.Until("all", func() bool { return w.Lives[0].Ended[1] != "" })
	if w.Lives[1].Ended[2] == "" || w.Lives[2].Ended[3] == "" {
		t.Errorf("reports %q", w.Log)
	}
}

// TestMinimumRun: a suspend leaves a context that was just enabled alone for its minimum run period.
func TestMinimumRun(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.Until("the start", func() bool { return a.Started[1] })
	w.Still = true
	_ = a.Entity.Suspend(later())
	w.Run(3 * time.Millisecond)
	if w.Engine.Running[1] == 0 {
		t.Errorf("off after %d workgroups", w.scripted.executed[1])
	}
	w.Still = false
	w.OK(a.Suspend(background))
	if n := w.scripted.executed[1]; n < 4 || n > 7 {
		t.Errorf("off after %d workgroups", n)
	}
}

// TestRuntimeSuspend: after a second without anything to do the device goes to D3hot
// and keeps its contexts; the next message wakes it.
func TestRuntimeSuspend(t *testing.T) {
	w := testWorld(t, nil)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 20, "workgroup=1ms")))
	w.Run(100 * time.Millisecond)
	hot, _ := w.driver.Sleeps()
	w.Run(900 * time.Millisecond)
	if a.Ended[1] == "" {
		t.Fatal("the job did not end")
	}
	if now, _ := w.driver.Sleeps(); now != hot || !w.driver.Idle() {
		t.Error("asleep too early, or credit is missing")
	}
	w.Run(100 * time.Millisecond)
	if now, _ := w.driver.Sleeps(); now != hot+1 {
		t.Error("not asleep after a second")
	}
	counters := w.firmware.Counters()
	w.OK(a.Run(background, w.Job(2, 20, "workgroup=1ms")))
	w.Until("the second job", func() bool { return a.Ended[2] != "" })
	after := w.firmware.Counters()
	if after.ModeSets != counters.ModeSets || w.registrations() != 1 || w.driver.Resets() != 0 {
		t.Errorf("the context did not stay: %+v then %+v, registered %d times", counters, after, w.registrations())
	}
	w.check(a, rig.Done{Job: 1, Count: 20}, rig.Done{Job: 2, Count: 20})
	w.Run(10 * time.Second)
	w.OK(a.Destroy(background))
	w.idle()
}

// registrations counts REGISTER_CONTEXT in the trace.
func (w *world) registrations() int {
	n := 0
	for _, line := range w.Trace.Last(1 << 14) {
		if line.Kind == "H2G" && strings.Contains(line.Text, " REGISTER_CONTEXT ") {
			n++
		}
	}
	return n
}

// TestSystemSleep: everything leaves the engines, the firmware forgets, jobs go on where they were.
func TestSystemSleep(t *testing.T) {
	w := testWorld(t, nil)
	a, b, c := w.Create("a", nil), w.Create("b", nil), w.Create("c", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.OK(a.Run(background, w.Job(2, 10, "workgroup=1ms")))
	w.OK(b.Run(background, w.Job(3, 100, "workgroup=1ms")))
	w.Run(30 * time.Millisecond)
	w.OK(b.Suspend(background))
	w.OK(w.driver.Sleep(background))
	w.OK(w.driver.Sleep(background))
	before := w.scripted.executed[1]
	w.OK(c.Run(background, w.Job(4, 10, "workgroup=1ms"))) // Waits.
	w.OK(c.Suspend(background))
	w.OK(c.Resume(background))
	w.OK(a.Cancel(background, 2))
	w.Run(time.Minute)
	if w.scripted.executed[1] != before || before == 0 || w.scripted.executed[3] == 0 || c.Started[4] || a.Ended[2] != "cancelled" {
		t.Errorf("executed %v, reports %q", w.scripted.executed, w.Log)
	}
	w.OK(w.driver.Wake(background))
	w.OK(b.Resume(background))
	w.Until("all", func() bool { return a.Ended[1] != "" && b.Ended[3] != "" && c.Ended[4] != "" })
	w.check(a, rig.Done{Job: 1, Count: 100})
	w.check(b, rig.Done{Job: 3, Count: 100})
	w.check(c, rig.Done{Job: 4, Count: 10})
	if n := w.registrations(); n != 5 || w.driver.Resets() != 0 {
		t.Errorf("registered %d times: a and b twice, c once", n)
	}
	for _, l := range w.Lives {
		w.OK(l.Destroy(background))
	}
	w.Run(time.Second)
	w.law.quiet()
}

// TestSleepDuringAReset: the sleep waits for the reset.
func TestSleepDuringAReset(t *testing.T) {
	w, err := setup{plan: "h2g/SCHED_CONTEXT_MODE_SET nth=2 crash"}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	a := w.Create("a", nil)
	w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
	w.Run(10 * time.Millisecond)
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	w.OK(w.driver.Sleep(ctx)) // Its disable makes the firmware crash.
	if len(a.Lost) != 1 || a.Lost[0].Guilty || w.driver.Resets() != 1 {
		t.Errorf("lost %+v, %d resets", a.Lost, w.driver.Resets())
	}
	w.OK(w.driver.Wake(ctx))
	w.OK(a.Destroy(background))
	w.idle()
}

// TestSleepThatNobodyWaitsFor: whoever gives a sleep up gets an error, and a device that goes on.
func TestSleepThatNobodyWaitsFor(t *testing.T) {
	for _, c := range []struct {
		name, plan string
		after      time.Duration
		cold       int
	}{
		{name: "at once"},
		{name: "while the queues leave", plan: "g2h/SCHED_CONTEXT_MODE_DONE nth=2 delay=1s", after: 500 * time.Millisecond},
		{name: "while the firmware forgets", plan: "mmio/CLIENT_SOFT_RESET busy=1s", after: 500 * time.Millisecond, cold: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := setup{plan: c.plan}.make(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.End)
			a := w.Create("a", nil)
			w.OK(a.Run(background, w.Job(1, 100, "workgroup=1ms")))
			w.Run(20 * time.Millisecond)
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			if c.after > 0 {
				w.Clock.AfterFunc(c.after, cancel)
			} else {
				cancel()
			}
			if err := w.driver.Sleep(ctx); !errors.Is(err, core.ErrDeadline) {
				t.Errorf("sleep: %v", err)
			}
			w.Run(time.Minute)
			if _, cold := w.driver.Sleeps(); cold != c.cold || a.Ended[1] != "completed" || w.driver.Resets() != 0 {
				t.Errorf("%d times in D3cold, %d resets, reports %q", cold, w.driver.Resets(), w.Log)
			}
			w.check(a, rig.Done{Job: 1, Count: 100})
			w.OK(a.Destroy(background))
			w.idle()
		})
	}
}
