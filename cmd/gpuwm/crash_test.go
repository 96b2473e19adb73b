package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
)

// pointsMin is how many crash points there must be at least.
const pointsMin = 20

// later names points that are passed many times, and at which pass to crash
// besides the first.
var later = []string{
	"store.commit.before:9", "store.commit.after:14", "store.image.commit.after:3",
	"manager.commit.after:10", "manager.command.after:3", "manager.event.before:5", "manager.event.after:7",
	"manager.save.mid:2", "manager.output.after:2", "output.rename.before:2",
	"sdk.command.before:3", "sdk.command.after:5", "sdk.event.before:4", "sdk.event.after:6", "sdk.image.get.mid:3",
}

// TestCrashPoints kills gpuwm, or its plugin, once at each place in the code
// that carries a crash.Point, and then runs the same command until it ends.
// Output and counters must be as trial.finish says.
func TestCrashPoints(t *testing.T) {
	if testing.Short() {
		t.Skip("many runs")
	}
	points := crashPoints(t)
	if len(points) < pointsMin {
		t.Fatalf("%d crash points, want at least %d: %v", len(points), pointsMin, points)
	}
	path := binary(t, crashBinary)
	for _, point := range append(points, later...) {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			tried := []circumstance{{}, {interrupted: true}, {bulky: true}}
			if strings.HasPrefix(point, "manager.upgrade.") || strings.HasPrefix(point, "manager.evacuate.") {
				tried = []circumstance{{interrupted: true, upgraded: true}}
			}
			for _, circumstance := range tried {
				if crashAt(t, path, point, circumstance) {
					return
				}
			}
			t.Errorf("point %s was never passed", point)
		})
	}
}

// crashPoints finds the names of all points in the source of the project.
func crashPoints(t *testing.T) []string {
	t.Helper()
	call := regexp.MustCompile(`\bcrash\.Point\("([^"]+)"\)`)
	var points []string
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != ".." {
			return fs.SkipDir
		}
		if filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range call.FindAllSubmatch(source, -1) {
			points = append(points, string(m[1]))
		}
		if bytes.Count(source, []byte("crash.Point(")) != len(call.FindAll(source, -1)) {
			t.Errorf("%s: a crash point whose name is no literal", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range points {
		if seen[p] {
			t.Errorf("crash point %s exists twice", p)
		}
		seen[p] = true
	}
	return points
}

// circumstance is in what run the crash is tried. Points that an ordinary run
// does not pass are passed in another one.
type circumstance struct {
	// interrupted: it goes on after a SIGKILL of another at its second checkpoint,
	// and so adopts the plugin.
	interrupted bool
	// upgraded: the executable has changed by then, and the plugin is replaced.
	upgraded bool
	// bulky: with an image that takes several transactions.
	bulky bool
}

// changed is a copy of an executable that does the same and has another digest.
func changed(t *testing.T, path string) string {
	t.Helper()
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(other, append(program, 0), 0o700); err != nil {
		t.Fatal(err)
	}
	return other
}

// crashAt makes one trial with a crash at point, and reports whether the point
// was passed; then everything was checked.
func crashAt(t *testing.T, path, point string, c circumstance) bool {
	t.Helper()
	size := seedSize
	if c.bulky {
		size = bulk
	}
	want := calm(t, size)
	once := filepath.Join(t.TempDir(), "once")
	tr := newTrial(t, path, size, "GPUWM_CRASH_ONCE="+once)
	if c.interrupted {
		stop := "GPUWM_STOP=manager.save.before:2"
		if c.upgraded {
			stop = "GPUWM_STOP=manager.save.before" // with work left for after the upgrade
		}
		first := tr.start(stop)
		if err := first.held(); err != nil {
			t.Fatal(err)
		}
		first.kill()
		tr.wait(first)
	}
	if c.upgraded {
		tr.path = changed(t, path)
	}
	last := tr.start("GPUWM_CRASH=" + point)
	code := tr.wait(last)
	crashed, err := os.ReadFile(once)
	if err != nil {
		return false
	}
	if name, _, _ := strings.Cut(point, ":"); strings.TrimSpace(string(crashed)) != name {
		t.Fatalf("crashed at %q, want %s", crashed, name)
	}
	killed := code < 0
	if killed {
		last = tr.start()
		code = tr.wait(last)
	}
	if code != cli.ExitDone {
		t.Fatalf("exit code %d after the crash\n%s", code, last.stderr())
	}
	t.Logf("crash of gpuwm itself: %v, circumstance %+v", killed, c)
	tr.finish(last, want)
	return true
}
