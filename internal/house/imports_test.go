package house

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// rule says what a package may import. The first rule that matches a package
// holds for it, and every package needs one.
//
// Patterns are paths inside the module, or of other modules when their first
// part has a dot. `*` stands for one part; `/...` at the end for the path
// itself and all below it; `own` at the start for the first two parts of the
// package (plugins/guc).
type rule struct {
	pattern string
	// may lists what is imported directly, besides the standard library.
	may []string
	// never lists what must not be reached, not even through others. Names
	// of the standard library count when they are imported directly.
	never  []string
	reason string
}

const (
	grpc   = "google.golang.org/grpc/..."
	bbolt  = "go.etcd.io/bbolt/..."
	hclog  = "github.com/hashicorp/go-hclog"
	plugin = "github.com/hashicorp/go-plugin/..."
	unix   = "golang.org/x/sys/unix"
)

// impureImports are what a package that decides has no use for.
var impureImports = []string{"context", "sync", "sync/atomic", "os", "net", "math/rand", "math/rand/v2", "log", "log/slog", "io", hclog, grpc, bbolt}

var rules = []rule{
	{"core", nil, []string{"core/..."}, "the nouns depend on nothing"},
	{"core/crash", nil, nil, "crash points stand everywhere, so they may need nothing"},
	{"core/usage", []string{"core"}, nil, "engines write it and the host reads it: nouns only"},
	{"core/output", []string{"core", "core/crash"}, nil, "writes bytes of an image to a file, and knows nothing else"},
	{"core/sched", []string{"core"}, impureImports, "what decides is pure: no goroutine, clock, input, output, chance or log"},
	{"core/arbiter", []string{"core"}, impureImports, "what decides is pure: it chooses who gets a scarce slot, its caller acts"},
	{"core/manager", []string{"core", "core/crash", "core/sched", hclog}, []string{"store", "sdk/...", "plugins/...", "configs", grpc, bbolt},
		"it declares the small interfaces it needs; the wiring fills them"},

	{"configs", []string{"core", "go.yaml.in/yaml/v3", "github.com/spf13/viper", "github.com/spf13/pflag"}, []string{"core/manager", "store", "sdk/..."},
		"it decodes files and starts nothing"},
	{"configs/data", nil, nil, "a small program that makes an input file"},
	{"configs/kernels/check", nil, nil, "tests only"},

	{"store", []string{"core", "core/crash", bbolt}, []string{"core/manager", "core/sched", "sdk/...", grpc}, "it keeps, and decides nothing"},

	{"api/v1", []string{"google.golang.org/protobuf/...", grpc, "connectrpc.com/connect/..."}, []string{"core/...", "sdk/..."}, "the wire form is generated and knows nobody"},

	{"sdk", []string{"core", "core/crash", "core/usage", "api/v1", "sdk/internal/wire", plugin, grpc, hclog}, []string{"core/sched", "core/manager", "store", "sdk/host", bbolt},
		"what a plugin's author imports must not bring the daemon along"},
	{"sdk/internal/wire", []string{"core", "api/v1", grpc, "google.golang.org/protobuf/..."}, []string{"core/sched", "core/manager", "store"}, "both sides of the seam use it"},
	{"sdk/internal/memory", []string{"core", "sdk", hclog}, []string{"core/sched", "core/manager", "store", "sdk/host"}, "a backend for tests stands where a plugin stands"},
	{"sdk/host", []string{"sdk", "sdk/internal/wire", "core", "core/crash", "core/usage", "api/v1", plugin, grpc, hclog, unix},
		[]string{"core/manager", "core/sched", "store", bbolt, "plugins/..."}, "it speaks with plugins and keeps nothing"},

	{"sdk/scaffold", []string{"core"}, []string{"sdk", "sdk/host", "plugins/..."}, "it writes files, and runs nothing of what is in them"},
	{"sdk/plugintest", []string{"sdk", "sdk/host", "sdk/internal/wire", "core", "api/v1", "google.golang.org/protobuf/proto", grpc, hclog},
		[]string{"core/manager", "core/sched", "store", bbolt, "plugins/..."}, "it proves any plugin, and must not know how one of ours or the daemon thinks"},

	{"examples/python-plugin", nil, nil, "tests only"},

	{"plugins/engine/...", []string{"core", "core/usage", "plugins/engine/...", "github.com/tetratelabs/wazero/...", "github.com/ebitengine/purego/..."},
		[]string{"sdk/...", "plugins/hw", "plugins/guc/...", "plugins/agx/...", "plugins/mali/...", "store", "core/manager", "core/sched"},
		"an engine executes kernels and knows no vendor"},
	{"plugins/hw", []string{unix}, []string{"core/...", "sdk/...", "plugins/engine/..."}, "no pointer and no type of ours crosses to the hardware"},
	{"plugins/order", []string{"core", "plugins/hw", "plugins/engine"}, []string{"sdk/...", "store", "core/sched", "core/manager"},
		"a descriptor becomes an engine's order here: hw knows no engine, an engine knows no descriptor, and neither knows a vendor"},
	{"plugins/host", []string{"core", "plugins/hw", "sdk"}, []string{"plugins/engine/...", "store", "core/sched", "core/manager", "sdk/host"},
		"what drivers share knows no firmware and no engine"},
	{"plugins/board", []string{"core", "core/usage", "plugins/hw", "plugins/engine/...", "sdk"}, []string{"store", "core/sched", "core/manager", "sdk/host"},
		"what joins driver, firmware and engine knows no vendor"},
	{"plugins/rig", []string{"core", "plugins/hw", "plugins/engine/...", "sdk"}, []string{"store", "core/sched", "core/manager", "sdk/host"},
		"the bench that backends are tested on knows no vendor"},
	{"plugins/*/abi", nil, []string{"core/...", "sdk/...", "plugins/hw", "plugins/engine/..."}, "bytes only: both sides use it and may not share a mistake"},
	{"plugins/*/fw", []string{"core", "own/abi", "plugins/hw", "plugins/engine", "plugins/order"}, []string{"own/driver", "sdk/...", "store", "core/sched", "core/manager"},
		"the firmware must not know how the driver thinks"},
	{"plugins/*/driver", []string{"core", "core/arbiter", "own/abi", "plugins/host", "plugins/hw", "sdk", hclog},
		[]string{"own/fw", "plugins/engine/...", "store", "core/sched", "core/manager", "sdk/host"}, "the driver must not look inside the firmware"},
	{"plugins/*", []string{"core", "core/usage", "own/abi", "own/fw", "own/driver", "plugins/board", "plugins/hw", "plugins/engine/...", "sdk", hclog}, []string{"core/manager", "core/sched", "store", "sdk/host"},
		"it joins the three parts of a backend"},
	{"plugins/*/cmd/*", []string{"own", "sdk"}, []string{"core/manager", "core/sched", "store", "sdk/host"}, "an executable around the backend"},

	{"cmd/gpuwm", []string{"cmd/gpuwm/cli", "cmd/gpuwm/wire"}, nil, "main is one call"},
	{"cmd/gpuwm/cli", []string{"core", "configs", "api/v1", "github.com/spf13/cobra", "github.com/spf13/pflag", "golang.org/x/term"},
		[]string{"core/manager", "core/sched", "store", "sdk/...", "plugins/..."}, "verbs see nouns, files and the API only"},
	{"cmd/gpuwm/wire", []string{"cmd/gpuwm/cli", "configs", "core/...", "plugins/...", "sdk", "sdk/host", "sdk/plugintest", "sdk/scaffold", "store", hclog}, nil, "the one place that sees them all"},

	{"sim", []string{"core", "core/sched", "store"}, []string{"cmd/..."}, "it drives the real deciders and the real records, and starts no process"},

	{"internal/house", nil, nil, "tests only"},
}

// expand writes a pattern of a rule as import path, for the package at p.
func expand(pattern, p string) string {
	if rest, ok := strings.CutPrefix(pattern, "own"); ok && (rest == "" || rest[0] == '/') {
		parts := strings.Split(p, "/")
		return module + path.Join(parts[0], parts[1]) + rest
	}
	first, _, _ := strings.Cut(pattern, "/")
	if strings.Contains(first, ".") {
		return pattern
	}
	return module + pattern
}

// matches reports whether an import path fits an expanded pattern.
func matches(pattern, importPath string) bool {
	if above, ok := strings.CutSuffix(pattern, "/..."); ok {
		return importPath == above || strings.HasPrefix(importPath, above+"/")
	}
	ok, _ := path.Match(pattern, importPath)
	return ok
}

func standard(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// violations returns what the package does against the rule.
func (r *rule) violations(p *listed) []string {
	var found []string
	for _, imported := range p.Imports {
		if standard(imported) {
			if slices.Contains(r.never, imported) {
				found = append(found, fmt.Sprintf("%s imports %s: %s", p.path(), imported, r.reason))
			}
			continue
		}
		if !slices.ContainsFunc(r.may, func(m string) bool { return matches(expand(m, p.path()), imported) }) {
			found = append(found, fmt.Sprintf("%s imports %s, which is not in its row: %s", p.path(), strings.TrimPrefix(imported, module), r.reason))
		}
	}
	for _, reached := range p.Deps {
		if standard(reached) {
			continue
		}
		if slices.ContainsFunc(r.never, func(n string) bool { return matches(expand(n, p.path()), reached) }) {
			found = append(found, fmt.Sprintf("%s reaches %s: %s", p.path(), strings.TrimPrefix(reached, module), r.reason))
		}
	}
	return found
}

func ruleOf(p *listed) *rule {
	i := slices.IndexFunc(rules, func(r rule) bool { return matches(module+r.pattern, p.ImportPath) })
	if i < 0 {
		return nil
	}
	return &rules[i]
}

// TestImports holds every package against the table.
func TestImports(t *testing.T) {
	used := make(map[string]bool)
	all := list(t)
	for i := range all {
		p := &all[i]
		r := ruleOf(p)
		if r == nil {
			t.Errorf("%s has no row in the import table: say what it may import, and why", p.path())
			continue
		}
		used[r.pattern] = true
		for _, v := range r.violations(p) {
			t.Error(v)
		}
	}
	for _, r := range rules {
		if !used[r.pattern] {
			t.Errorf("the import table lists %s, and there is no such package any more", r.pattern)
		}
	}
}

// TestImportRulesCanFail shows that each kind of violation is found.
func TestImportRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		path          string
		imports, deps []string
		want          int
	}{
		{"core/sched", []string{"fmt", module + "core"}, []string{module + "core"}, 0},
		{"core/sched", []string{"sync"}, nil, 1},
		{"core/sched", []string{module + "core/manager"}, nil, 1},
		{"core/manager", []string{module + "core"}, []string{module + "store"}, 1},
		{"core/manager", nil, []string{"go.etcd.io/bbolt/errors"}, 1},
		{"plugins/guc/driver", []string{module + "plugins/guc/abi"}, nil, 0},
		{"plugins/guc/driver", []string{module + "plugins/agx/abi"}, nil, 1},
		{"plugins/guc/driver", nil, []string{module + "plugins/guc/fw"}, 1},
		{"plugins/guc/fw", []string{"github.com/hashicorp/go-hclog"}, nil, 1},
		{"plugins/guc", []string{module + "plugins/guc/fw"}, []string{module + "plugins/guc/driver"}, 0},
	} {
		p := &listed{ImportPath: module + c.path, Imports: c.imports, Deps: c.deps}
		r := ruleOf(p)
		if r == nil {
			t.Fatalf("%s has no rule", c.path)
		}
		if got := r.violations(p); len(got) != c.want {
			t.Errorf("%s importing %v, reaching %v: %d violations, want %d: %q", c.path, c.imports, c.deps, len(got), c.want, got)
		}
	}
}

// impure are the functions of package time that ask the clock or wait.
var impure = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// TestSchedulersAskNoClock looks for the clock in the packages that decide.
func TestSchedulersAskNoClock(t *testing.T) {
	for _, p := range list(t) {
		if p.path() != "core/sched" && p.path() != "core/arbiter" {
			continue
		}
		for _, name := range p.GoFiles {
			files := token.NewFileSet()
			file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.GoStmt:
					t.Errorf("%s: starts a goroutine", files.Position(n.Pos()))
				case *ast.SelectorExpr:
					if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(impure, n.Sel.Name) {
						t.Errorf("%s: calls time.%s", files.Position(n.Pos()), n.Sel.Name)
					}
				}
				return true
			})
		}
	}
}
