package sdk

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// page is the wire contract as authors of plugins in other languages read it.
func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/plugin-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tuning are constants that no peer can notice.
var tuning = []string{
	"sdk.blocksBytes", "sdk.blockSpace", "sdk.blocksSpare", "sdk.ballastBytes", "sdk.itemsSpare", "sdk.queuesSpare", "sdk.ringSpare",
}

// TestPageLimits compares the table of limits with the code. All of the seam's own
// limits stand in it, and of those of others what a plugin can notice.
func TestPageLimits(t *testing.T) {
	code := constants(t, map[string]string{
		"limits.go": "sdk.", "internal/wire/doc.go": "wire.", "../core/image.go": "core.",
		"host/child.go": "host.", "host/link.go": "host.", "host/launcher.go": "host.Bounds.", "../core/sched/core.go": "sched.",
	})
	_, table, _ := strings.Cut(page(t), "\n## Limits\n")
	rows := regexp.MustCompile("(?m)^\\| [^|]+ \\| ([^|]+) \\| `([^`]+)` \\|$").FindAllStringSubmatch(table, -1)
	for _, row := range rows {
		want, known := code[row[2]]
		if got := quantity(t, row[1]); !known || got != want {
			t.Errorf("the page says %s is %s, the code %d (declared: %v)", row[2], row[1], want, known)
		}
		delete(code, row[2])
	}
	for _, name := range slices.Sorted(maps.Keys(code)) {
		if !strings.HasPrefix(name, "sdk.") && !strings.HasPrefix(name, "wire.") || slices.Contains(tuning, name) {
			continue
		}
		t.Errorf("%s = %d is not in the table of limits", name, code[name])
	}
}

var units = map[string]int64{
	"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "TiB": 1 << 40,
	"ms": int64(time.Millisecond), "s": int64(time.Second), "min": int64(time.Minute),
}

// quantity reads a number with its unit; durations are nanoseconds.
func quantity(t *testing.T, text string) int64 {
	t.Helper()
	number, unit, _ := strings.Cut(text, " ")
	n, err := strconv.ParseInt(number, 10, 64)
	factor, known := units[unit]
	if err != nil || !known {
		t.Errorf("%q is no quantity", text)
	}
	return n * factor
}

// constants evaluates the integer constants of files; the prefix of a file goes
// before their names. For the host's bounds the defaults that filled sets count.
func constants(t *testing.T, files map[string]string) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for file, prefix := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GenDecl:
				if n.Tok == token.CONST && prefix != "host.Bounds." {
					for _, s := range n.Specs {
						add(all, prefix, s.(*ast.ValueSpec))
					}
				}
				return false
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "set" && len(n.Args) == 2 && prefix == "host.Bounds." {
					field := n.Args[0].(*ast.UnaryExpr).X.(*ast.SelectorExpr).Sel.Name
					all[prefix+field], _ = evaluate(n.Args[1])
				}
			}
			return true
		})
	}
	return all
}

func add(all map[string]int64, prefix string, s *ast.ValueSpec) {
	for i, name := range s.Names {
		if i < len(s.Values) {
			if v, ok := evaluate(s.Values[i]); ok {
				all[prefix+name.Name] = v
			}
		}
	}
}

// evaluate computes what limits are written with: literals, time's units, * and <<.
func evaluate(e ast.Expr) (int64, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		v, err := strconv.ParseInt(e.Value, 0, 64)
		return v, err == nil
	case *ast.SelectorExpr:
		v, ok := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute}[e.Sel.Name]
		return int64(v), ok
	case *ast.BinaryExpr:
		x, okX := evaluate(e.X)
		y, okY := evaluate(e.Y)
		switch e.Op {
		case token.MUL:
			return x * y, okX && okY
		case token.SHL:
			return x << y, okX && okY
		}
	}
	return 0, false
}

// TestPageBytes packs what the examples of the page say and compares.
func TestPageBytes(t *testing.T) {
	want := map[string][]byte{
		"commands": packCommands(t, pageRuns()...), "entity": packCommands(t, pageEntity()...),
		"events": packEvents(
			core.BackendEvent{Kind: core.EventStarted, Seq: 9, Entity: 300, Epoch: 2, Job: 7},
			core.BackendEvent{Kind: core.EventCompleted, Seq: 10, Entity: 300, Epoch: 2, Job: 7, Done: 128, Executed: 28},
			core.BackendEvent{Kind: core.EventStarted, Seq: 11, Entity: 300, Epoch: 2, Job: 8},
			core.BackendEvent{Kind: core.EventStarted, Seq: 12, Entity: 1, Epoch: 1, Job: 3}),
		"answers": packEvents(
			core.BackendEvent{Kind: core.EventApplied, Seq: 1, Entity: 5, Epoch: 2, Command: 1},
			core.BackendEvent{Kind: core.EventRefused, Seq: 2, Entity: 5, Epoch: 2, Command: 2, Job: 11, Cause: core.CauseKernel, Error: "no"},
			core.BackendEvent{Kind: core.EventMessageDone, Seq: 3, Entity: 5, Epoch: 2, Command: 3, Cost: 10, Reply: []byte{9}},
			core.BackendEvent{Kind: core.EventEntityLost, Seq: 4, Entity: 5, Epoch: 2, Job: 12, Guilty: true, Cause: core.CauseTrap, Error: "no"},
			core.BackendEvent{Kind: core.EventDeviceHealth, Seq: 5, Cause: core.CauseDevice, Error: "x"}),
		"progress": packEvents(core.BackendEvent{
			Kind: core.EventProgress, Entity: 5, Epoch: 2, Job: 11, Done: 8, Executed: 6, ExecutedTime: 1000}),
	}
	want["names"], want["trailer"] = pageImage(t)
	st, _ := status.FromError(wire.ToStatus(pageError{}, 7))
	var err error
	if want["status"], err = (proto.MarshalOptions{Deterministic: true}).Marshal(st.Proto()); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```hex (\\w+)\n(.*?)^```$").FindAllStringSubmatch(page(t), -1) {
		text := regexp.MustCompile(`#.*`).ReplaceAllString(m[2], "")
		got, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil || !bytes.Equal(got, want[m[1]]) {
			t.Errorf("example %s: %v, page has\n% x, the code packs\n% x", m[1], err, got, want[m[1]])
		}
		delete(want, m[1])
	}
	for name := range want {
		t.Errorf("the page has no example %q", name)
	}
}

// pageError is what the status of the page says.
type pageError struct{}

// Error implements error.
func (pageError) Error() string { return "no device x" }

// Unwrap returns the member of the closed set.
func (pageError) Unwrap() error { return core.ErrNotFound }

func pageRuns() []core.Command {
	spec := func(seq core.JobSeq, name string) *core.JobSpec {
		return &core.JobSpec{
			Seq: seq, Name: name, Entry: "e", Grid: [3]uint32{2, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
			Args: []core.Arg{{Kind: core.ArgU32, Bits: 9}},
		}
	}
	return []core.Command{
		{Kind: core.CommandCancel, Entity: 300, Epoch: 2, Seq: 5, Job: 7},
		{Kind: core.CommandRun, Entity: 300, Epoch: 2, Seq: 6, Job: 8, JobSpec: spec(3, "a")},
		{Kind: core.CommandRun, Entity: 300, Epoch: 2, Seq: 7, Job: 9, First: 1, JobSpec: spec(4, "b")},
	}
}

func pageEntity() []core.Command {
	return []core.Command{
		{Kind: core.CommandCreate, Entity: 5, Epoch: 2, Seq: 1, Generation: 4, EntitySpec: &core.EntitySpec{
			ID: 5, Name: "e", Device: "d", Mode: core.ModeCompute, Properties: core.Properties{Priority: core.PriorityNormal},
			Buffers: []core.BufferSpec{{Name: "c", Size: core.ChunkSize}},
		}},
		{Kind: core.CommandMessage, Entity: 5, Epoch: 2, Seq: 2, Message: core.MessageBackend, Payload: []byte("hi")},
		{Kind: core.CommandDestroy, Entity: 5, Epoch: 2, Seq: 3},
	}
}

// pageImage returns names and trailer of an image of two buffers: "abc" and a zero.
func pageImage(t *testing.T) (names, trailer []byte) {
	t.Helper()
	order := wire.NewSequence([]core.BufferSpec{{Name: "a", Size: 3}, {Name: "b", Size: 1}})
	for _, n := range []wire.Name{
		{ChunkRef: core.ChunkRef{Size: 3, Digest: core.DigestOf([]byte("abc"))}},
		{ChunkRef: core.ChunkRef{Buffer: 1, Size: 1, Digest: wire.ZeroDigest(1)}, Zero: true},
	} {
		if err := order.Next(n); err != nil {
			t.Fatal(err)
		}
		names = wire.AppendName(names, n)
	}
	sum, err := order.Trailer()
	if err != nil {
		t.Fatal(err)
	}
	if trailer, err = (proto.MarshalOptions{Deterministic: true}).Marshal(sum); err != nil {
		t.Fatal(err)
	}
	return wire.PutCount(names, 2), trailer
}

func packCommands(t *testing.T, commands ...core.Command) []byte {
	t.Helper()
	var b wire.CommandBatch
	for i := range commands {
		if err := b.Append(&commands[i]); err != nil {
			t.Fatal(err)
		}
	}
	return b.Body()
}

func packEvents(events ...core.BackendEvent) []byte {
	var b wire.EventBatch
	for i := range events {
		b.Append(&events[i])
	}
	return b.Body()
}

// TestPageCauses compares the codes of causes and the reasons of errors.
func TestPageCauses(t *testing.T) {
	text := page(t)
	_, causes, _ := strings.Cut(text, "\n### Causes\n")
	for _, m := range regexp.MustCompile("(\\d+) `([a-z-]+)`").FindAllStringSubmatch(causes, 14) {
		code, _ := strconv.Atoi(m[1])
		body := packEvents(core.BackendEvent{Kind: core.EventRefused, Seq: 1, Entity: 1, Epoch: 1, Command: 1, Cause: core.Cause(m[2])})
		if got := body[len(body)-1]; int(got) != code {
			t.Errorf("the page gives cause %s the code %d, the seam %d", m[2], code, got)
		}
	}
	for _, err := range []error{
		core.ErrClosed, core.ErrFull, core.ErrOversize, core.ErrNotFound, core.ErrExists, core.ErrInvalid, core.ErrLongRunningFence,
		core.ErrCycle, core.ErrUnsupported, core.ErrStale, core.ErrCorrupt, core.ErrGone, core.ErrDeadline, core.ErrBusy,
	} {
		st, _ := status.FromError(wire.ToStatus(err, 0))
		detail := st.Details()[0].(interface {
			GetReason() string
			GetRetryable() bool
		})
		again := "no"
		if detail.GetRetryable() {
			again = "yes"
		}
		row := fmt.Sprintf("| `%s` | %d `", detail.GetReason(), st.Code())
		if _, rest, found := strings.Cut(text, row); !found || !strings.Contains(strings.SplitN(rest, "\n", 2)[0], "` | "+again+" |") {
			t.Errorf("the page has no row %s…` | %s |", row, again)
		}
	}
}
