package sched

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

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
	b.WriteString("```\n")
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
