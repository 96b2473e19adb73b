package wire

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/hashicorp/go-hclog"
)

var rewrite = flag.Bool("rewrite", false, "write the generated part of the page anew")

// backendsPage has the table of the built-in backends between two marks.
const backendsPage = "../../../docs/backends/README.md"

const (
	tableBegin = "<!-- declared by the backends: begin -->\n"
	tableEnd   = "<!-- declared by the backends: end -->\n"
)

// TestBackendsPage compares the table of the backends, side by side, with what
// they and their devices declare; -rewrite writes it anew.
func TestBackendsPage(t *testing.T) {
	page, err := os.ReadFile(backendsPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(page), tableBegin)
	have, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		t.Fatalf("%s has no marks", backendsPage)
	}
	want := backendsTable(t)
	if have == want {
		return
	}
	if *rewrite {
		if err := os.WriteFile(backendsPage, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("%s says\n%s\nthe backends declare\n%s\nwrite it anew: go test ./cmd/gpuwm/wire -run TestBackendsPage -rewrite", backendsPage, have, want)
}

// declared is one backend with a device of its own, as it describes itself.
type declared struct {
	backend core.BackendDescription
	device  core.DeviceDescription
	leave   time.Duration
	traces  bool
}

// row is a line of the table: what is declared, and how it is written.
type row struct {
	title string
	of    func(declared) string
}

var rows = []row{
	{"conformance level", func(d declared) string { return fmt.Sprint(d.backend.Level) }},
	{"engines", func(d declared) string { return strings.Join(d.backend.Engines, ", ") }},
	{"preempted at", func(d declared) string { return string(d.device.Granularity) }},
	{"kernel formats, engine `wasm`", func(d declared) string { return strings.Join(d.device.Formats, ", ") }},
	{"jobs in an entity's ring", func(d declared) string { return fmt.Sprint(d.device.Credits) }},
	{"entities at once", func(d declared) string { return fmt.Sprint(d.device.EntitiesMax) }},
	{"memory of an entity", func(d declared) string { return fmt.Sprintf("%d MiB", d.device.MemoryMax>>20) }},
	{"saves images", func(d declared) string { return yesNo(d.device.SavesImages) }},
	{"a suspend takes at most", func(d declared) string { return d.leave.String() }},
	{"trace of firmware messages", func(d declared) string { return yesNo(d.traces) }},
	{"messages of its own", func(d declared) string { return fmt.Sprint(len(d.backend.Messages)) }},
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func backendsTable(t *testing.T) string {
	t.Helper()
	var names []string
	var all []declared
	for _, b := range builtins {
		names = append(names, "`"+b.name+"`")
		all = append(all, declare(t, b.name, b.make()))
	}
	var out strings.Builder
	fmt.Fprintf(&out, "| declared | %s |\n|---%s|\n", strings.Join(names, " | "), strings.Repeat("|---", len(names)))
	for _, r := range rows {
		cells := []string{r.title}
		for _, d := range all {
			cells = append(cells, r.of(d))
		}
		fmt.Fprintf(&out, "| %s |\n", strings.Join(cells, " | "))
	}
	return out.String()
}

// declare opens a device with the default options and asks.
func declare(t *testing.T, name string, b sdk.Backend) declared {
	t.Helper()
	spec := core.DeviceSpec{Name: name + "0", Backend: name, Engine: wasm.Name}
	dev, err := b.Open(t.Context(), spec, hclog.NewNullLogger(), func(err error) { t.Errorf("device %s failed: %v", spec.Name, err) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := dev.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	d := declared{backend: b.Describe(), device: dev.Describe()}
	if d.backend.Name != name || !slices.Contains(d.backend.Engines, wasm.Name) {
		t.Errorf("%s describes itself as %+v", name, d.backend)
	}
	if l, ok := dev.(sdk.LeaveBounder); ok {
		d.leave = l.LeaveBound()
	}
	_, d.traces = dev.(sdk.Tracer)
	return d
}
