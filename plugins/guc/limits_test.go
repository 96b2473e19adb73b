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
	t.Cleanup(w.end)
	w.light, w.still = true, true
	spec := &core.EntitySpec{ID: 1, Name: "idle", Mode: core.ModeCompute, Properties: core.Properties{Priority: core.PriorityNormal}}
	create := func() (sdk.Entity, error) {
		return w.driver.Create(background, spec, sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion}, nil), nobody{})
	}
	stored := func() int64 {
		var st unix.Stat_t
		w.ok(unix.Fstat(w.arena.Fd(), &st))
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
	w.ok(entities[40_000].Destroy(background))
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
	s, err := parseSettings(core.DeviceSpec{Options: map[string]string{"runtime-idle": "2s", "min-run": "0s", "quantum": "100s"}})
	if err != nil || s.idle != 2*time.Second || s.minRun >= 0 || s.quantum != settingMax {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestPriorities: there are three, and no other one.
func TestPriorities(t *testing.T) {
	w := testWorld(t, nil)
	for _, p := range []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh} {
		w.priority = p
		w.create(string(p), nil)
	}
	for _, p := range []core.Priority{"kernel", "3", "HIGH"} {
		w.priority = p
		if _, err := w.tryCreate("refused", nil); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("priority %q: %v", p, err)
		}
	}
	// The strongest comes first, whoever was there before.
	for i, l := range w.lives {
		w.ok(l.Run(background, w.job(core.JobID(i+1), 50, "workgroup=1ms")))
	}
	w.until("all", func() bool { return w.lives[0].ended[1] != "" })
	if w.lives[1].ended[2] == "" || w.lives[2].ended[3] == "" {
		t.Errorf("reports %q", w.log)
	}
}

// TestMinimumRun: a suspend leaves a context that was just enabled alone for its minimum run period.
func TestMinimumRun(t *testing.T) {
	w := testWorld(t, nil)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.until("the start", func() bool { return a.started[1] })
	w.still = true
	_ = a.entity.Suspend(later())
	w.run(3 * time.Millisecond)
	if w.engine.running[1] == 0 {
		t.Errorf("off after %d workgroups", w.engine.executed[1])
	}
	w.still = false
	w.ok(a.Suspend(background))
	if n := w.engine.executed[1]; n < 4 || n > 7 {
		t.Errorf("off after %d workgroups", n)
	}
}

// TestRuntimeSuspend: after a second without anything to do the device goes to D3hot
// and keeps its contexts; the next message wakes it.
func TestRuntimeSuspend(t *testing.T) {
	w := testWorld(t, nil)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 20, "workgroup=1ms")))
	w.run(100 * time.Millisecond)
	hot, _ := w.driver.Sleeps()
	w.run(900 * time.Millisecond)
	if a.ended[1] == "" {
		t.Fatal("the job did not end")
	}
	if now, _ := w.driver.Sleeps(); now != hot || !w.driver.Idle() {
		t.Error("asleep too early, or credit is missing")
	}
	w.run(100 * time.Millisecond)
	if now, _ := w.driver.Sleeps(); now != hot+1 {
		t.Error("not asleep after a second")
	}
	counters := w.firmware.Counters()
	w.ok(a.Run(background, w.job(2, 20, "workgroup=1ms")))
	w.until("the second job", func() bool { return a.ended[2] != "" })
	after := w.firmware.Counters()
	if after.ModeSets != counters.ModeSets || w.registrations() != 1 || w.driver.Resets() != 0 {
		t.Errorf("the context did not stay: %+v then %+v, registered %d times", counters, after, w.registrations())
	}
	w.check(a, [2]uint64{1, 20}, [2]uint64{2, 20})
	w.run(10 * time.Second)
	w.ok(a.Destroy(background))
	w.idle()
}

// registrations counts REGISTER_CONTEXT in the trace.
func (w *world) registrations() int {
	n := 0
	for _, line := range w.trace.Last(1 << 14) {
		if line.Kind == "H2G" && strings.Contains(line.Text, " REGISTER_CONTEXT ") {
			n++
		}
	}
	return n
}

// TestSystemSleep: everything leaves the engines, the firmware forgets, jobs go on where they were.
func TestSystemSleep(t *testing.T) {
	w := testWorld(t, nil)
	a, b, c := w.create("a", nil), w.create("b", nil), w.create("c", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.ok(a.Run(background, w.job(2, 10, "workgroup=1ms")))
	w.ok(b.Run(background, w.job(3, 100, "workgroup=1ms")))
	w.run(30 * time.Millisecond)
	w.ok(b.Suspend(background))
	w.ok(w.driver.Sleep(background))
	w.ok(w.driver.Sleep(background))
	before := w.engine.executed[1]
	w.ok(c.Run(background, w.job(4, 10, "workgroup=1ms"))) // Waits.
	w.ok(c.Suspend(background))
	w.ok(c.Resume(background))
	w.ok(a.Cancel(background, 2))
	w.run(time.Minute)
	if w.engine.executed[1] != before || before == 0 || w.engine.executed[3] == 0 || c.started[4] || a.ended[2] != "cancelled" {
		t.Errorf("executed %v, reports %q", w.engine.executed, w.log)
	}
	w.ok(w.driver.Wake(background))
	w.ok(b.Resume(background))
	w.until("all", func() bool { return a.ended[1] != "" && b.ended[3] != "" && c.ended[4] != "" })
	w.check(a, [2]uint64{1, 100})
	w.check(b, [2]uint64{3, 100})
	w.check(c, [2]uint64{4, 10})
	if n := w.registrations(); n != 5 || w.driver.Resets() != 0 {
		t.Errorf("registered %d times: a and b twice, c once", n)
	}
	for _, l := range w.lives {
		w.ok(l.Destroy(background))
	}
	w.run(time.Second)
	w.law.quiet()
}

// TestSleepDuringAReset: the sleep waits for the reset.
func TestSleepDuringAReset(t *testing.T) {
	w, err := setup{plan: "h2g/SCHED_CONTEXT_MODE_SET nth=2 crash"}.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.end)
	a := w.create("a", nil)
	w.ok(a.Run(background, w.job(1, 100, "workgroup=1ms")))
	w.run(10 * time.Millisecond)
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	w.ok(w.driver.Sleep(ctx)) // Its disable makes the firmware crash.
	if len(a.lost) != 1 || a.lost[0].guilty || w.driver.Resets() != 1 {
		t.Errorf("lost %+v, %d resets", a.lost, w.driver.Resets())
	}
	w.ok(w.driver.Wake(ctx))
	w.ok(a.Destroy(background))
	w.idle()
}
