package sched

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

const statesPage = "../../docs/scheduler-states.md"

// TestStatesPage holds the diagrams against the tables; `go generate
// ./core/sched` writes them.
func TestStatesPage(t *testing.T) {
	page := renderStates()
	if *rewrite {
		if err := os.WriteFile(statesPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(statesPage)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Errorf("docs/scheduler-states.md does not show the tables of core/sched: run `go generate ./core/sched`")
	}
}

// controlMachines are the small state machines with their first and last states.
var controlMachines = []struct {
	title, begin, end string
	table             []ControlTransition
}{
	{"The device", deviceDown, "", DeviceTransitions},
	{"Stop barrier of an entity", haltNone.String(), "", StopTransitions},
	{"A wave: somebody who waits for the hardware", waveAsked, waveReleased, WaveTransitions},
	{"A message of the backend's own kind", messageWaiting, messageAnswered, MessageTransitions},
}

// TestControlTransitions drives every row of the small tables once.
func TestControlTransitions(t *testing.T) {
	r := newBed(bedConfig, core.EntitySpec{ID: 1})
	has := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Fatalf("%s is %s, want %s", what, got, want)
		}
	}
	e := func() *entity { return r.core.entities[1] }
	wave := func() string {
		if w := r.core.waves[7]; w != nil {
			return w.state()
		}
		return waveReleased
	}
	message := func() string {
		if m := e().messages; len(m) > 0 {
			return m[0].state()
		}
		return messageAnswered
	}
	device := func() string {
		switch {
		case r.core.restarting:
			return deviceRestarting
		case r.core.up:
			return deviceUp
		}
		return deviceDown
	}
	send := func(id core.MessageID) {
		r.must(t, Event{Kind: EventMessage, Entity: 1, MessageID: id, Message: core.MessageBackend})
	}

	has("device", device(), deviceDown)
	r.must(t, Event{Kind: EventGone})
	has("device", device(), deviceDown)
	r.start()
	has("device", device(), deviceUp)
	r.must(t, Event{Kind: EventUp})
	has("device", device(), deviceUp)

	send(1)
	has("message", message(), messageWaiting)
	for r.commit() || r.take(false) || r.deliver() {
		if message() == messageSent {
			break
		}
	}
	has("message", message(), messageSent)

	r.must(t, Event{Kind: EventPreempt, Waiter: 7})
	has("wave", wave(), waveAsked)
	r.must(t, Event{Kind: EventRelease, Waiter: 7})
	has("wave", wave(), waveReleased)
	r.must(t, Event{Kind: EventPreempt, Waiter: 7})
	for r.commit() || r.take(false) || r.deliver() {
	}
	has("message", message(), messageAnswered)
	r.tick(bedConfig.MinRun + time.Millisecond)
	for r.commit() || r.take(false) || r.deliver() {
	}
	has("wave", wave(), waveTold)
	r.must(t, Event{Kind: EventRelease, Waiter: 7})
	has("wave", wave(), waveReleased)

	r.must(t, Event{Kind: EventStop, Entity: 1})
	has("stop", e().halt.String(), haltAsked.String())
	r.must(t, Event{Kind: EventStart, Entity: 1})
	has("stop", e().halt.String(), haltNone.String())
	r.must(t, Event{Kind: EventStop, Entity: 1})
	for r.commit() || r.take(false) || r.deliver() {
	}
	has("stop", e().halt.String(), haltDone.String())
	r.must(t, Event{Kind: EventStart, Entity: 1})
	has("stop", e().halt.String(), haltNone.String())

	dead := core.BackendEvent{Kind: core.EventDeviceHealth, Error: "dead"}
	r.must(t, Event{Kind: EventBackend, Backend: &dead})
	has("device", device(), deviceRestarting)
	r.must(t, Event{Kind: EventUp})
	has("device", device(), deviceUp)
	r.must(t, Event{Kind: EventBackend, Backend: &dead})
	r.must(t, Event{Kind: EventGone})
	has("device", device(), deviceDown)
	r.start()
	r.gone()
	has("device", device(), deviceDown)

	send(2)
	has("message", message(), messageWaiting)
	r.must(t, Event{Kind: EventGoal, Entity: 1, Goal: core.GoalClose})
	has("message", message(), messageAnswered)
}

func renderStates() string {
	var b strings.Builder
	b.WriteString("# States of the schedulers\n\n" +
		"Generated from the tables in `core/sched/table.go` by `go generate ./core/sched`. What each state means\n" +
		"stands beside its constant in `core/entity.go` and `core/job.go`. A change that is not drawn here is refused.\n\n" +
		"## Residency of an entity\n\n```mermaid\nstateDiagram-v2\n")
	name := func(s string) string { return strings.ReplaceAll(s, "-", "_") }
	fmt.Fprintf(&b, "    [*] --> %s\n", core.Away)
	for _, row := range Transitions {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", name(string(row.From)), name(string(row.To)), row.On)
	}
	fmt.Fprintf(&b, "    %s --> [*]: forgotten\n```\n\n## Phase of a job\n\n```mermaid\nstateDiagram-v2\n", core.Away)
	fmt.Fprintf(&b, "    [*] --> %s\n", core.JobHeld)
	ends := []core.JobPhase{}
	for _, row := range JobTransitions {
		fmt.Fprintf(&b, "    %s --> %s: %s\n", name(string(row.From)), name(string(row.To)), row.On)
		if row.To.Final() && !contains(ends, row.To) {
			ends = append(ends, row.To)
		}
	}
	for _, p := range ends {
		fmt.Fprintf(&b, "    %s --> [*]\n", name(string(p)))
	}
	b.WriteString("```\n\nThe rest is not recorded: a restart begins it anew.\n")
	for _, m := range controlMachines {
		fmt.Fprintf(&b, "\n## %s\n\n```mermaid\nstateDiagram-v2\n    [*] --> %s\n", m.title, m.begin)
		for _, row := range m.table {
			fmt.Fprintf(&b, "    %s --> %s: %s\n", row.From, row.To, row.On)
		}
		if m.end != "" {
			fmt.Fprintf(&b, "    %s --> [*]\n", m.end)
		}
		b.WriteString("```\n")
	}
	return b.String()
}

func contains(list []core.JobPhase, p core.JobPhase) bool {
	for _, q := range list {
		if q == p {
			return true
		}
	}
	return false
}

// TestMatrices compares the matrices with the tables, over all pairs and a state
// that does not exist.
func TestMatrices(t *testing.T) {
	all := []core.Residency{core.Away, core.Creating, core.Resident, core.Suspending, core.Suspended, core.Saving, core.Resuming, core.Leaving, "nowhere"}
	if len(all) != residencies+1 {
		t.Fatalf("%d residencies, the matrix has %d", len(all)-1, residencies)
	}
	rows := map[[2]core.Residency]bool{}
	for _, row := range Transitions {
		if rows[[2]core.Residency{row.From, row.To}] {
			t.Errorf("%s -> %s stands twice in the table", row.From, row.To)
		}
		rows[[2]core.Residency{row.From, row.To}] = true
	}
	for _, from := range all {
		for _, to := range all {
			if legal[residencyIndex(from)][residencyIndex(to)] != rows[[2]core.Residency{from, to}] {
				t.Errorf("%s -> %s: the matrix contradicts the table", from, to)
			}
		}
	}
	phasesAll := []core.JobPhase{core.JobHeld, core.JobQueued, core.JobDispatched, core.JobFlushing, core.JobCompleted,
		core.JobFailed, core.JobTimedOut, core.JobCancelled, core.JobKilled, core.JobDependencyFailed, "nowhere"}
	if len(phasesAll) != phases+1 {
		t.Fatalf("%d phases, the matrix has %d", len(phasesAll)-1, phases)
	}
	jobRows := map[[2]core.JobPhase]bool{}
	for _, row := range JobTransitions {
		if jobRows[[2]core.JobPhase{row.From, row.To}] {
			t.Errorf("%s -> %s stands twice in the table", row.From, row.To)
		}
		jobRows[[2]core.JobPhase{row.From, row.To}] = true
		if row.From.Final() {
			t.Errorf("%s is an outcome and leads to %s", row.From, row.To)
		}
	}
	for _, from := range phasesAll {
		for _, to := range phasesAll {
			if legalJob[phaseIndex(from)][phaseIndex(to)] != jobRows[[2]core.JobPhase{from, to}] {
				t.Errorf("%s -> %s: the matrix contradicts the table", from, to)
			}
		}
	}
}

// TestIllegalMovePanics: a change outside the tables is a bug of ours and never
// passes silently.
func TestIllegalMovePanics(t *testing.T) {
	c := New(Config{})
	var batch Batch
	c.out = &batch
	e := &entity{spec: &core.EntitySpec{ID: 1, Name: "e"}, state: core.EntityState{ID: 1, Residency: core.Away}}
	j := &job{spec: &core.JobSpec{Name: "j"}, state: core.JobState{Phase: core.JobCompleted}, entity: e}
	for name, f := range map[string]func(){
		"move":  func() { c.move(e, core.Saving) },
		"phase": func() { c.phase(e, j, core.JobQueued) },
		"stop":  func() { e.setHalt(haltDone) },
		"wave":  func() { controlled("wave", WaveTransitions, waveTold, waveAsked) },
	} {
		func() {
			defer func() {
				err, _ := recover().(error)
				var transition *core.TransitionError
				if !errors.As(err, &transition) {
					t.Errorf("%s: recovered %v, want a TransitionError", name, err)
				}
			}()
			f()
		}()
	}
	if len(batch.Notices) != 0 {
		t.Errorf("an illegal change was announced: %v", batch.Notices)
	}
}
