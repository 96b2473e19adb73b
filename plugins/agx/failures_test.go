package agx

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/fw"
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
	// wide makes two commands run at once, so that a halt has victims.
	wide bool
	// run is what happens; without it the scene's jobs run to their end.
	run func(s *scene)
	// halts counts the recoveries; failed is in the reason for which the device is given up,
	// empty for one that works on; down says that it does not even come up.
	halts  int
	failed string
	down   bool
	// guilty and victims name the entities that are lost.
	guilty, victims []string
	// cause is that of the first loss.
	cause core.Cause
	// warned is said in the log.
	warned string
	// outputs are not compared: the fault makes them wrong on purpose.
	wrong bool
}

// scene is the world of a row: a and b run jobs at the same priority, and c below
// them, whose jobs are not begun while theirs run.
type scene struct {
	*world
	t       *testing.T
	a, b, c *rig.Life
	log     *warnings
}

// workgroups of the jobs, each 1 ms.
const workgroups = 300

// start makes the scene's entities and jobs.
func (s *scene) start() {
	s.a, s.b = s.Create("a", nil), s.Create("b", nil)
	s.Priority = core.PriorityLow
	s.c = s.Create("c", nil)
	s.Priority = ""
	s.OK(s.a.Run(background, s.Job(1, workgroups, "workgroup=1ms")))
	s.OK(s.b.Run(background, s.Job(2, 60, "workgroup=7ms"))) // It ends at other moments.
	s.OK(s.c.Run(background, s.Job(3, 20, "workgroup=1ms")))
	s.OK(s.c.Run(background, s.Job(4, 20, "workgroup=1ms")))
}

// settled waits for the end of everything, or of the device.
func (s *scene) settled() {
	s.t.Helper()
	s.Until("the end of all jobs", func() bool { return len(s.Failed) > 0 || s.a.Over() && s.b.Over() && s.c.Over() })
}

// TestFailures runs every row, and then what must hold after any of them.
func TestFailures(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, r.test)
	}
}

func (r row) test(t *testing.T) {
	log := &warnings{}
	s := setup{plan: r.plan, log: log}
	if r.wide {
		s.firmware = func(c *fw.Config) { c.Width = 2 }
	}
	if r.config != nil {
		r.config(&s)
	}
	w, err := s.make(t)
	t.Cleanup(w.End)
	if (err != nil) != r.down {
		w.Broken("start: %v", err)
	}
	scene := &scene{world: w, t: t, log: log}
	switch {
	case r.down:
	case r.run != nil:
		r.run(scene)
	default:
		scene.start()
		scene.settled()
	}
	var guilty, victims []string
	for _, l := range w.Lives {
		for _, lost := range l.Lost {
			if r.cause != "" && lost.Guilty && lost.Cause != r.cause {
				t.Errorf("%s lost by %s, want %s", l.Name, lost.Cause, r.cause)
			}
			if lost.Guilty {
				guilty = append(guilty, l.Name)
			} else {
				victims = append(victims, l.Name)
			}
		}
	}
	if !slices.Equal(guilty, r.guilty) || !slices.Equal(victims, r.victims) {
		w.Broken("guilty %v and victims %v, want %v and %v", guilty, victims, r.guilty, r.victims)
	}
	if (len(w.Failed) > 0) != (r.failed != "") || r.failed != "" && !strings.Contains(w.Failed[0].Error(), r.failed) {
		w.Broken("failed %v, want %q", w.Failed, r.failed)
	}
	if r.warned != "" && !slices.Contains(log.lines, r.warned) {
		t.Errorf("%q is not in the log: %q", r.warned, log.lines)
	}
	if w.faults != nil && w.faults.Fired() == 0 {
		t.Errorf("the plan %q hit nothing", r.plan)
	}
	if r.failed == "" {
		if got := w.driver.State().Recoveries; got != r.halts {
			t.Errorf("%d halts, want %d", got, r.halts)
		}
		scene.after(r.wrong)
	}
}

// after is what must hold when the fault is over: the outputs are right, the next
// job of a fresh entity completes, and everything comes back.
func (s *scene) after(wrong bool) {
	s.t.Helper()
	s.faults.Disarm()
	fresh := s.Create("fresh", nil)
	s.OK(fresh.Run(background, s.Job(900, 50, "workgroup=1ms")))
	s.Until("the fresh job", fresh.Over)
	for _, l := range s.Lives {
		if len(l.Lost) > 0 || l.Destroyed || wrong {
			continue
		}
		var done []uint64
		for _, id := range l.Given() {
			done = append(done, l.Usage[id].Done)
		}
		s.Check(l, done...)
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

// scripts are those of the command line's tests, which run the executables.
const scripts = "../../cmd/gpuwm/testdata/script/"

// docPage holds the tables that these tests keep.
const docPage = "../../docs/backends/agx.md"

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
	for _, r := range elsewhere {
		existsTest(t, r.test)
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", r.failure, r.reaction, r.test)
	}
	embed(t, "failures", b.String())
}

// existsTest checks that a test that the page names is there, and the row of one that is in the table.
func existsTest(t *testing.T, name string) {
	t.Helper()
	if strings.HasSuffix(name, ".txtar") {
		if _, err := os.Stat(scripts + name); err != nil {
			t.Errorf("there is no script %s", name)
		}
		return
	}
	name, sub, isRow := strings.Cut(name, "/")
	if isRow && !slices.ContainsFunc(rows, func(r row) bool { return r.name == sub }) {
		t.Errorf("there is no row %s of %s", sub, name)
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if text, err := os.ReadFile(f.Name()); err == nil && strings.HasSuffix(f.Name(), "_test.go") && strings.Contains(string(text), "\nfunc "+name+"(") {
			return
		}
	}
	t.Errorf("there is no test %s", name)
}

// embed keeps what stands between two marks of the page equal to text.
func embed(t *testing.T, name, text string) {
	t.Helper()
	begin, end := "<!-- "+name+": generated by "+t.Name()+" -rewrite -->\n", "<!-- end of "+name+" -->\n"
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
		t.Fatalf("%s is old: go test ./plugins/agx -run '^%s$' -rewrite", docPage, t.Name())
	default:
		if err := os.WriteFile(docPage, []byte(before+begin+text+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
