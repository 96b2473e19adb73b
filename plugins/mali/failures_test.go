package mali

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
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
	// resets counts the GPU resets, failed says that the device is given up, refused that it does not come up.
	resets          int
	failed, refused bool
	// guilty and victims name the entities that are lost.
	guilty, victims []string
	// cause is that of the guilty, if the row is about it.
	cause core.Cause
	// warned is said in the log.
	warned string
}

// scene is the world of a row: a, b and c run a job each, c with the lowest priority and one more that waits.
type scene struct {
	*world
	t       *testing.T
	a, b, c *life
	log     *warnings
}

// start makes the scene's entities and jobs: a's first, on slot 0.
func (s *scene) start() {
	s.a, s.b = s.create("a", nil), s.create("b", nil)
	s.priority = core.PriorityLow
	s.c = s.create("c", nil)
	s.priority = ""
	s.ok(s.a.Run(background, s.job(1, 300, "workgroup=1ms")))
	s.run(15 * time.Millisecond)
	s.ok(s.b.Run(background, s.job(2, 60, "workgroup=1ms")))
	s.ok(s.c.Run(background, s.job(3, 20, "workgroup=1ms")))
	s.ok(s.c.Run(background, s.job(4, 20, "workgroup=1ms")))
}

// settled waits for the end of everything.
func (s *scene) settled() {
	s.t.Helper()
	s.until("the end of all jobs", func() bool { return len(s.failed) > 0 || s.over() })
}

// over reports whether all jobs have ended, or were lost with their entity.
func (w *world) over() bool {
	for _, l := range w.lives {
		if len(l.lost) > 0 || l.destroyed {
			continue
		}
		for _, id := range l.given {
			if l.ended[id] == "" {
				return false
			}
		}
	}
	return true
}

// variants are the settings of the firmware that the rows are run under: the
// interface does not say which of them silicon has.
var variants = []struct {
	name  string
	set   func(*fw.Config)
	order *order
}{
	{"plain", func(*fw.Config) {}, nil},
	{"eager", func(*fw.Config) {}, &order{}},
	{"open", func(c *fw.Config) {
		c.DirtyL2, c.ExtractAtFetch, c.FatalFirst, c.BootAcksZero = true, true, true, true
		c.FlushDelay, c.BootDelay = time.Millisecond, 10*time.Millisecond
	}, nil},
}

// TestFailures runs every row under every setting, and then what must hold after any of them.
func TestFailures(t *testing.T) {
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			for _, v := range variants {
				t.Run(v.name, func(t *testing.T) { r.test(t, v.set, v.order) })
			}
		})
	}
}

func (r row) test(t *testing.T, set func(*fw.Config), mixed *order) {
	log := &warnings{}
	s := setup{plan: r.plan, log: log, firmware: set, order: mixed}
	if r.config != nil {
		r.config(&s)
	}
	w, err := s.make(t)
	t.Cleanup(w.end)
	if r.refused {
		if err == nil || len(w.failed) == 0 {
			t.Errorf("the device came up: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	scene := &scene{world: w, t: t, log: log}
	if r.run != nil {
		r.run(scene)
	} else {
		scene.start()
		scene.settled()
	}
	var guilty, victims []string
	for _, l := range w.lives {
		for _, lost := range l.lost {
			if lost.guilty {
				guilty = append(guilty, l.name)
				if r.cause != "" && lost.cause != r.cause {
					t.Errorf("cause %s, want %s", lost.cause, r.cause)
				}
			} else {
				victims = append(victims, l.name)
			}
		}
	}
	if !slices.Equal(guilty, r.guilty) || !slices.Equal(victims, r.victims) {
		w.law.broken("guilty %v and victims %v, want %v and %v", guilty, victims, r.guilty, r.victims)
	}
	if w.driver.Resets() != r.resets || (len(w.failed) > 0) != r.failed {
		w.law.broken("%d GPU resets, want %d; failed %v", w.driver.Resets(), r.resets, w.failed)
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
	fresh := s.create("fresh", nil)
	s.ok(fresh.Run(background, s.job(900, 50, "workgroup=1ms")))
	s.until("the fresh job", func() bool { return fresh.ended[900] != "" })
	for _, l := range s.lives {
		if len(l.lost) > 0 || l.destroyed {
			continue
		}
		var all []uint64
		for _, id := range l.given {
			all = append(all, l.usage[id].Done)
			if l.ended[id] == "completed" && l.usage[id].Done != l.sizes[id] {
				s.law.broken("job %d completed after %+v", id, l.usage[id])
			}
		}
		s.check(l, all...)
	}
	for _, l := range s.lives {
		s.ok(l.Destroy(background))
	}
	s.world.run(2 * time.Second)
	if groups := s.driver.Groups(); len(groups) != 0 {
		s.law.broken("groups are left")
	}
}

// warnings keeps what the driver logs; heard, if there, is called in the middle of what the driver does.
type warnings struct {
	lines []string
	heard func(message string)
}

// Write implements io.Writer for hclog's JSON lines: only the message counts.
func (w *warnings) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if _, after, ok := strings.Cut(line, `"@message":"`); ok {
			message, _, _ := strings.Cut(after, `"`)
			w.lines = append(w.lines, message)
			if w.heard != nil {
				w.heard(message)
			}
		}
	}
	return len(p), nil
}

const failuresBegin, failuresEnd = "<!-- failures: generated by TestFailuresInDocs -rewrite -->\n", "<!-- end of failures -->\n"

// docPage holds the table of failures.
const docPage = "../../docs/backends/mali.md"

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
	for _, g := range groupRows {
		fmt.Fprintf(&b, "| %s | %s | `%s` |\n", g[0], g[1], g[2])
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
		t.Fatalf("%s is old: go test ./plugins/mali -run '^%s$' -rewrite", docPage, t.Name())
	default:
		if err := os.WriteFile(docPage, []byte(before+begin+text+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
