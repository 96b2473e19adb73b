package rig

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// broken is a test that ends by a panic, so that another one sees it.
type broken struct{ *testing.T }

// Fatalf implements T.
func (b broken) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// TestWhoMayBeGuilty: a fault that was injected elsewhere excuses nobody who blames the innocent.
func TestWhoMayBeGuilty(t *testing.T) {
	const entity, job = 3, 7
	for _, c := range []struct {
		name     string
		script   string
		suspects []Suspect
		want     string
	}{
		{name: "nothing was injected", want: "is guilty"},
		{name: "the job is bad", script: " trap at 2"},
		{name: "its own work was spoiled", suspects: []Suspect{{entity, job}}},
		{name: "the firmware named it", suspects: []Suspect{{Entity: entity}}},
		{name: "another job's was spoiled", suspects: []Suspect{{entity, job + 1}}, want: "is guilty"},
		{name: "another entity's was spoiled", suspects: []Suspect{{entity + 1, job}, {Entity: entity + 1}}, want: "is guilty"},
	} {
		w := New(broken{t}, hw.NewVirtualClock(), hw.ArenaSizeMin)
		t.Cleanup(func() { w.Arena.Close() })
		j := &keptJob{id: job, script: "workgroup=1ms" + c.script}
		life := &Life{Reports: &Reports{World: w, Lost: []LostReport{{Guilty: true, Job: job, Cause: core.CauseHang}}}, Spec: &core.EntitySpec{ID: entity}}
		d := Daemon{T: w.T, World: w, kept: []*kept{{name: "a", life: life, jobs: []*keptJob{j}}}, suspects: map[Suspect]bool{}}
		for _, s := range c.suspects {
			d.suspects[s] = true
		}
		said := func() (said string) {
			defer func() { said, _ = recover().(string) }()
			d.blame()
			return ""
		}()
		if (said != "") != (c.want != "") || !strings.Contains(said, c.want) {
			t.Errorf("%s: %q", c.name, said)
		}
		if c.want == "" && (j.outcome != "failed" || d.Sum.Guilty != 1) {
			t.Errorf("%s: outcome %q", c.name, j.outcome)
		}
		if d.blame(); d.Sum.Guilty != 1 {
			t.Errorf("%s: counted %d times", c.name, d.Sum.Guilty)
		}
	}
}
