package house

import (
	"bytes"
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// linesMax is where a file is a mistake.
const linesMax = 800

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// TestFilesAreShort looks at everything that a person reads and writes.
func TestFilesAreShort(t *testing.T) {
	eachFile(t, func(path string, content []byte) {
		if path == "go.sum" || strings.Contains(path, "testdata/") || bytes.IndexByte(content, 0) >= 0 {
			return
		}
		lines := bytes.Count(content, []byte("\n"))
		if lines > linesMax && !generated.Match(content) {
			t.Errorf("%s has %d lines, at most %d: it holds more than one idea", path, lines, linesMax)
		}
	})
}

// TestPackageComments wants every package to say what it is.
func TestPackageComments(t *testing.T) {
	for _, p := range list(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.ImportPath) + " "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: the package comment begins %q, want %q", p.path(), p.Doc[:min(len(p.Doc), 30)], want)
		}
	}
}

// pointName is `<package>.<what>.<before|after|mid>`.
var pointName = regexp.MustCompile(`^([a-z]+)(\.[a-z]+)+\.(before|after|mid)$`)

// pointsMin is how many crash points the whole has at least.
const pointsMin = 20

// TestCrashPoints wants names of crash points to be constant, unique, and to
// begin with their package.
func TestCrashPoints(t *testing.T) {
	seen := make(map[string]token.Position)
	for _, p := range list(t) {
		if p.path() == "core/crash" {
			continue
		}
		for _, name := range p.GoFiles {
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, call := range pointsOf(file) {
				at := files.Position(call.Pos())
				lit, ok := call.Args[0].(*ast.BasicLit)
				if !ok {
					t.Errorf("%s: the name of a crash point is a constant in place", at)
					continue
				}
				point, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				if m := pointName.FindStringSubmatch(point); m == nil || m[1] != p.Name {
					t.Errorf("%s: crash point %q, want %s.<what>.<before|after|mid>", at, point, p.Name)
				}
				if first, double := seen[point]; double {
					t.Errorf("%s: crash point %q stands at %s too", at, point, first)
				}
				seen[point] = at
			}
		}
	}
	if len(seen) < pointsMin {
		t.Errorf("%d crash points, want %d or more", len(seen), pointsMin)
	}
}

// pointsOf returns the calls of crash.Point in a file.
func pointsOf(file *ast.File) []*ast.CallExpr {
	var calls []*ast.CallExpr
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 1 {
			return true
		}
		if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Point" {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "crash" {
				calls = append(calls, call)
			}
		}
		return true
	})
	return calls
}

// public reports whether a host is one of Go's own services, which anybody may name.
func public(host string) bool { return strings.HasSuffix(host, ".golang.org") }

// places returns what names this machine and its surroundings: directories, and
// hosts of registries and proxies. GPUWM_HOUSE_FORBIDDEN adds others, with commas between them.
func places(t *testing.T) []string {
	t.Helper()
	var found []string
	directory := func(path string) {
		// A short one, such as / or a single folder of the system, is no secret.
		if filepath.IsAbs(path) && strings.Count(filepath.Clean(path), "/") > 1 {
			found = append(found, filepath.Clean(path))
		}
	}
	host := func(text string) {
		if u, err := url.Parse(text); err == nil && strings.Contains(u.Hostname(), ".") && !public(u.Hostname()) {
			found = append(found, u.Hostname())
		}
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	directory(top)
	directory(os.Getenv("HOME"))
	out, err := exec.Command("go", "env", "GOPROXY", "GOSUMDB", "GOMODCACHE", "GOCACHE", "GOPATH").Output()
	if err != nil {
		t.Fatal("go env:", err)
	}
	for _, field := range strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" ,|\n", r) }) {
		directory(field)
		host(field)
	}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		name = strings.ToUpper(name)
		if strings.HasSuffix(name, "PROXY") || strings.Contains(name, "REGISTRY") || strings.Contains(name, "INDEX_URL") {
			host(value)
		}
	}
	for forbidden := range strings.SplitSeq(os.Getenv("GPUWM_HOUSE_FORBIDDEN"), ",") {
		if forbidden = strings.TrimSpace(forbidden); forbidden != "" {
			found = append(found, forbidden)
		}
	}
	return found
}

// TestNamesNoMachine looks for the names of this machine's places in the repository.
func TestNamesNoMachine(t *testing.T) {
	named := make([]string, 0, 16)
	for _, p := range places(t) {
		named = append(named, regexp.QuoteMeta(p))
	}
	pattern := regexp.MustCompile(`(^|[^A-Za-z0-9_.-])(` + strings.Join(named, "|") + `)($|[^A-Za-z0-9_-])`)
	if probe := "see " + places(t)[0] + "/x"; !pattern.MatchString(probe) {
		t.Fatalf("%q is not found in %q", pattern, probe)
	}
	eachFile(t, func(path string, content []byte) {
		if bytes.IndexByte(content, 0) >= 0 {
			return
		}
		for number, line := range bytes.Split(content, []byte("\n")) {
			if m := pattern.FindSubmatch(line); m != nil {
				t.Errorf("%s:%d names a place of this machine: %s", path, number+1, cmp.Or(string(m[2]), "?"))
			}
		}
	})
}
