package guc

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/guc/fw"
	"github.com/gpuwm/gpuwm/plugins/rig"
)

var rewrite = flag.Bool("rewrite", false, "write the tables and goldens of the documents anew")

// row is one row of the table of failures: what goes wrong, and what the host
// does. The page's table is made of it.
type row struct {
	// name is that of the test, failure and reaction are what the page says.
	name, failure, reaction string
	// plan is the fault, in the words of package fw.
	plan   string
	config func(*setup)
	// run is what happens; without it the scene's jobs run to their end.
	run func(s *scene)
	// resets counts the GT resets, failed says that the device is given up, because what for.
	resets  int
	failed  bool
	because string
	// reason is part of what the last GT reset was for.
	reason string
	// guilty and victims name the entities that are lost, cause is what the guilty are guilty of.
	guilty, victims []string
	cause           core.Cause
	// warned is said in the log.
	warned string
	// large rows are run under the plain settings only.
	large bool
}

// scene is the world of a row: a runs a job, b waits behind it at the same
// priority, and c below them, whose jobs are not begun while a's run.
type scene struct {
	*world
	t       *testing.T
	a, b, c *rig.Life
	log     *warnings
}

// Workgroups of the jobs, each 1 ms. long outlasts every deadline of the driver.
const (
	short = 300
	long  = 40_000
)

// start makes the scene's entities and jobs.
func (s *scene) start(workgroups uint32) {
	s.a, s.b = s.Create("a", nil), s.Create("b", nil)
	s.Priority = core.PriorityLow
	s.c = s.Create("c", nil)
	s.Priority = ""
	s.OK(s.a.Run(background, s.Job(1, workgroups, "workgroup=1ms")))
	s.Run(20 * time.Millisecond)
	s.OK(s.c.Run(background, s.Job(3, 20, "workgroup=1ms")))
	s.OK(s.c.Run(background, s.Job(4, 20, "workgroup=1ms")))
}

// over reports whether all jobs have ended, or were lost with their entity.
func (s *scene) over(lives ...*rig.Life) bool {
	for _, l := range lives {
		if l != nil && !l.Over() {
			return false
		}
	}
	return true
}

// settled waits for the end of everything.
func (s *scene) settled() {
	s.t.Helper()
	s.Until("the end of all jobs", func() bool { return s.over(s.a, s.b, s.c) })
}

// variants are the settings of the firmware that the rows are run under: the
// interface does not say which of them silicon has.
var variants = []struct {
	name string
	set  func(*fw.Config)
}{
	{"plain", func(*fw.Config) {}},
	{"slow", func(c *fw.Config) {
		c.MessageDelay, c.DoneDelay, c.LoadDelay = 100*time.Microsecond, time.Millisecond, 50*time.Millisecond
	}},
	{"free", func(c *fw.Config) { c.NoHeadOfLineBlocking = true }},
	{"other", func(c *fw.Config) {
		c.OpenPoints = fw.OpenPoints{
			ResetOrder:     []abi.Action{abi.ActionSchedContextModeDone, abi.ActionContextReset, abi.ActionStateCapture},
			KeepPreemption: true, CarryQuantum: true, NotifyFirst: true, // Promote makes other victims; the random runs have it.
		}
	}},
	{"early", func(c *fw.Config) {
		c.ResetOrder = []abi.Action{abi.ActionContextReset, abi.ActionSchedContextModeDone, abi.ActionStateCapture}
	}},
}

// TestFailures runs every row under every setting, and then what must hold after any of them.
func TestFailures(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for i, v := range variants {
				if i > 0 && r.large {
					break
				}
				t.Run(v.name, func(t *testing.T) { r.test(t, v.set) })
			}
		})
	}
}

func (r row) test(t *testing.T, set func(*fw.Config)) {
	log := &warnings{}
	s := setup{plan: r.plan, log: log}
	s.firmware = set
	if r.config != nil {
		r.config(&s)
	}
	w, err := s.make(t)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.End)
	scene := &scene{world: w, t: t, log: log}
	if r.run != nil {
		r.run(scene)
	} else {
		scene.start(short)
		scene.settled()
	}
	var guilty, victims []string
	for _, l := range w.Lives {
		for _, lost := range l.Lost {
			if lost.Guilty {
				guilty = append(guilty, l.Name)
				if lost.Cause != r.cause {
					t.Errorf("%s is guilty of %q, want %q: %s", l.Name, lost.Cause, r.cause, lost.Detail)
				}
			} else {
				victims = append(victims, l.Name)
			}
		}
	}
	if !slices.Equal(guilty, r.guilty) || !slices.Equal(victims, r.victims) {
		w.Broken("guilty %v and victims %v, want %v and %v", guilty, victims, r.guilty, r.victims)
	}
	if w.driver.Resets() != r.resets || (len(w.Failed) > 0) != r.failed {
		w.Broken("%d GT resets, want %d; failed %v", w.driver.Resets(), r.resets, w.Failed)
	}
	if r.failed && !strings.Contains(errors.Join(w.Failed...).Error(), r.because) {
		t.Errorf("given up for %v, want %q", w.Failed, r.because)
	}
	if last := w.driver.LastReset(); r.reason != "" && (last == nil || !strings.Contains(last.Error(), r.reason)) {
		t.Errorf("reset for %v, want %q", last, r.reason)
	}
	if r.warned != "" && !slices.Contains(log.lines, r.warned) {
		t.Errorf("%q is not in the log: %q", r.warned, log.lines)
	}
	if w.faults != nil && w.faults.Fired() == 0 {
		t.Errorf("the plan %q hit nothing", r.plan)
	}
	if !r.failed {
		scene.after()
	}
}

// after is what must hold when the fault is over: the outputs are right, the next
// job of a fresh entity completes, and everything comes back.
func (s *scene) after() {
	s.t.Helper()
	s.faults.Disarm()
	fresh := s.Create("fresh", nil)
	s.OK(fresh.Run(background, s.Job(900, 50, "workgroup=1ms")))
	s.Until("the fresh job", func() bool { return fresh.Ended[900] != "" })
	for _, l := range s.Lives {
		if len(l.Lost) > 0 || l.Destroyed || s.Light {
			continue
		}
		var all []rig.Done
		for _, id := range l.Given() {
			all = append(all, rig.Done{Job: id, Count: l.Usage[id].Done})
			if l.Ended[id] == "completed" && l.Usage[id].Done != s.Sizes[id] {
				s.Broken("job %d completed after %+v", id, l.Usage[id])
			}
		}
		s.check(l, all...)
	}
	for _, l := range s.Lives {
		s.OK(l.Destroy(background))
	}
	s.Run(2 * time.Second)
	s.law.quiet()
}

// warnings keeps what the driver logs.
type warnings struct{ lines []string }

// Write implements io.Writer for hclog's JSON lines: only the message counts.
func (w *warnings) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if _, after, ok := strings.Cut(line, `"@message":"`); ok {
			message, _, _ := strings.Cut(after, `"`)
			w.lines = append(w.lines, message)
		}
	}
	return len(p), nil
}

const failuresBegin, failuresEnd = "<!-- failures: generated by TestFailuresInDocs -rewrite -->\n", "<!-- end of failures -->\n"

// docPage holds the table of failures.
const docPage = "../../docs/backends/guc.md"

// TestFailuresInDocs keeps the page's table equal to the rows that are tested.
func TestFailuresInDocs(t *testing.T) {
	var b strings.Builder
	b.WriteString("| failure | what the host does | test |\n|---|---|---|\n")
	names := map[string]bool{}
	for _, r := range rows {
		if names[r.name] || r.failure == "" || r.reaction == "" {
			t.Errorf("row %q is there twice or not described", r.name)
		}
		names[r.name] = true
		fmt.Fprintf(&b, "| %s | %s | `TestFailures/%s` |\n", r.failure, r.reaction, r.name)
	}
	embed(t, failuresBegin, failuresEnd, b.String())
}

// embed keeps what stands between two marks of the page equal to text.
func embed(t *testing.T, begin, end, text string) {
	t.Helper()
	page, err := os.ReadFile(docPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(page), begin)
	have, after, ok2 := strings.Cut(rest, end)
	switch {
	case !ok1 || !ok2:
		t.Fatalf("%s has no %q", docPage, begin)
	case have == text:
	case !*rewrite:
		t.Fatalf("%s is old: go test ./plugins/guc -run '^%s$' -rewrite", docPage, t.Name())
	default:
		if err := os.WriteFile(docPage, []byte(before+begin+text+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
