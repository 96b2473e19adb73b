package wire

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gpuwm/gpuwm/core"
)

// declared lists the identifiers of a file of package core that begin with
// prefix, with the literal each is set to, if any.
func declared(t *testing.T, file, prefix string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../../../core/"+file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range s.Names {
			if strings.HasPrefix(name.Name, prefix) && i < len(s.Values) {
				text := ""
				if lit, ok := s.Values[i].(*ast.BasicLit); ok {
					text, _ = strconv.Unquote(lit.Value)
				}
				found[name.Name] = text
			}
		}
		return true
	})
	return found
}

func TestEverySentinelSurvivesTheSeam(t *testing.T) {
	if want, got := len(declared(t, "errors.go", "Err")), len(reasons); want != got {
		t.Errorf("core declares %d errors, the seam knows %d", want, got)
	}
	for _, r := range reasons {
		remote := FromStatus(ToStatus(fmt.Errorf("suspend entity 7: %w", r.err), 9))
		for _, other := range reasons {
			if errors.Is(remote, other.err) != (other.err == r.err) {
				t.Errorf("%s: errors.Is(%s) is wrong", r.name, other.name)
			}
		}
		var detail *RemoteError
		if !errors.As(remote, &detail) || detail.Epoch != 9 || detail.Retryable != r.retryable || detail.Guilty {
			t.Errorf("%s: details are %+v", r.name, detail)
		}
		if !strings.Contains(remote.Error(), "suspend entity 7") {
			t.Errorf("%s: sentence is %q", r.name, remote)
		}
	}
}

func TestFaultSurvivesTheSeam(t *testing.T) {
	want := &core.FaultError{Cause: core.CauseHang, Entity: 3, Job: 4, Detail: "workgroup 12"}
	var got *core.FaultError
	err := FromStatus(ToStatus(fmt.Errorf("run: %w", want), 1))
	if !errors.As(err, &got) || *got != *want {
		t.Fatalf("got %v", err)
	}
	var remote *RemoteError
	if !errors.As(err, &remote) || !remote.Guilty {
		t.Error("a fault is not guilty")
	}
	if FromStatus(nil) != nil || ToStatus(nil, 0) != nil {
		t.Error("no error became one")
	}
}

func TestEveryCauseHasACode(t *testing.T) {
	want := declared(t, "cause.go", "Cause")
	if len(want) != len(causes) {
		t.Errorf("core declares %d causes, the seam knows %d", len(want), len(causes))
	}
	for _, c := range causes {
		e := core.BackendEvent{Kind: core.EventRefused, Seq: 1, Entity: 1, Epoch: 1, Command: 1, Cause: c}
		got, err := DecodeEvents(pack(e), false, nil)
		if err != nil || got[0].Cause != c {
			t.Errorf("cause %q came back as %v, %v", c, got, err)
		}
	}
}

func sampleJob() *core.JobSpec {
	return &core.JobSpec{
		ID: 11, Entity: 5, Seq: 3, Name: "frame", Entry: "render",
		Kernels: map[string]core.Digest{core.FormatWasm: core.DigestOf([]byte("w")), core.FormatOpenCL: core.DigestOf([]byte("o"))},
		Grid:    [3]uint32{128, 64, 1}, Group: [3]uint32{8, 8, 1},
		Args: []core.Arg{
			{Kind: core.ArgBuffer, Buffer: "image"}, {Kind: core.ArgU32, Bits: 7}, {Kind: core.ArgI32, Bits: 1 << 31},
			{Kind: core.ArgF32, Bits: 0x3f000000}, {Kind: core.ArgU64, Bits: 1 << 63}, {Kind: core.ArgI64}, {Kind: core.ArgF64, Bits: 5},
		},
		After: []core.JobID{1, 2}, Timeout: time.Minute, Credits: 2, Flush: true,
	}
}

func sampleCommands() []core.Command {
	return []core.Command{
		{Kind: core.CommandCreate, Entity: 5, Epoch: 2, Seq: 1, Generation: 4, EntitySpec: &core.EntitySpec{
			ID: 5, Name: "render", Device: "guc0", Mode: core.ModeLongRunning, OnFailure: core.OnFailureStop,
			Properties: core.Properties{Priority: core.PriorityHigh, Checkpoint: 30 * time.Second},
			Buffers:    []core.BufferSpec{{Name: "image", Size: 1 << 20}}, Identity: core.DigestOf(nil),
		}},
		{Kind: core.CommandRun, Entity: 5, Epoch: 2, Seq: 2, Job: 11, First: 100, ExecutedTime: time.Second, JobSpec: sampleJob()},
		{Kind: core.CommandRun, Entity: 5, Epoch: 2, Seq: 3, Job: 11, JobSpec: sampleJob()},
		{Kind: core.CommandCancel, Entity: 5, Epoch: 2, Seq: 4, Job: 11},
		{Kind: core.CommandMessage, Entity: 5, Epoch: 2, Seq: 5, Message: core.MessageSetProperties,
			Properties: core.Properties{Priority: core.PriorityLow, Checkpoint: time.Second}, Payload: []byte{1, 2}},
		{Kind: core.CommandDestroy, Entity: 5, Epoch: 2, Seq: 6},
	}
}

func encode(t testing.TB, commands []core.Command) []byte {
	t.Helper()
	var b CommandBatch
	for i := range commands {
		if err := b.Append(&commands[i]); err != nil {
			t.Fatal(err)
		}
	}
	return bytes.Clone(b.Body())
}

func pack(events ...core.BackendEvent) []byte {
	var b EventBatch
	for i := range events {
		b.Append(&events[i])
	}
	return b.Body()
}

func TestCommandsRoundTrip(t *testing.T) {
	want := sampleCommands()
	var d CommandDecoder
	got, err := d.Decode(encode(t, want), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("commands differ (-sent +received):\n%s", diff)
	}
}

func TestResultFilesStayAtTheHost(t *testing.T) {
	c := sampleCommands()[0]
	c.EntitySpec.Saves = []core.SaveSpec{{Buffer: "image", Path: "secret-path"}}
	if bytes.Contains(encode(t, []core.Command{c}), []byte("secret")) {
		t.Error("a path of the host crosses the seam")
	}
}

func TestCommandGoldenBytes(t *testing.T) {
	c := core.Command{Kind: core.CommandCancel, Entity: 300, Epoch: 2, Seq: 5, Job: 7}
	want := []byte{1, 3, 0xac, 0x02, 2, 5, 7}
	if got := encode(t, []core.Command{c}); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
	e := core.BackendEvent{Kind: core.EventCompleted, Seq: 9, Entity: 300, Epoch: 2, Job: 7, Done: 128, Executed: 28}
	want = []byte{1, 4, 0x0e, 9, 0xac, 0x02, 2, 7, 0x80, 0x01, 28}
	if got := pack(e); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestBadCommandsAreRefused(t *testing.T) {
	change := func(kind int, f func(*core.Command)) []byte {
		c := sampleCommands()[kind]
		f(&c)
		return encode(t, []core.Command{c})
	}
	for name, b := range map[string][]byte{
		"empty":              {},
		"count beyond bytes": {200, 1, 5},
		"kind":               {1, 9, 1, 1, 1},
		"rest":               append(encode(t, sampleCommands()[3:4]), 0),
		"cut":                encode(t, sampleCommands())[:40],
		"entity zero":        change(3, func(c *core.Command) { c.Entity = 0 }),
		"epoch zero":         change(3, func(c *core.Command) { c.Epoch = 0 }),
		"sequence zero":      change(3, func(c *core.Command) { c.Seq = 0 }),
		"job zero":           change(1, func(c *core.Command) { c.Job = 0 }),
		"first beyond end":   change(1, func(c *core.Command) { c.First = 128*64 + 1 }),
		"grid zero":          change(1, func(c *core.Command) { c.JobSpec.Grid[1] = 0 }),
		"grid overflow":      change(1, func(c *core.Command) { c.JobSpec.Grid = [3]uint32{1 << 31, 1 << 31, 1 << 31} }),
		"credits zero":       change(1, func(c *core.Command) { c.JobSpec.Credits = 0 }),
		"negative timeout":   change(1, func(c *core.Command) { c.JobSpec.Timeout = -1 }),
		"name":               change(1, func(c *core.Command) { c.JobSpec.Name = strings.Repeat("n", NameMax+1) }),
		"name not UTF-8":     change(1, func(c *core.Command) { c.JobSpec.Name = "\xff" }),
		"message zero":       change(4, func(c *core.Command) { c.Message = 0 }),
		"mode":               change(0, func(c *core.Command) { c.EntitySpec.Mode = "fast" }),
		"buffer twice": change(0, func(c *core.Command) {
			c.EntitySpec.Buffers = []core.BufferSpec{{Name: "a", Size: 1}, {Name: "a", Size: 1}}
		}),
	} {
		var d CommandDecoder
		if got, err := d.Decode(b, nil); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestEventsRoundTrip(t *testing.T) {
	want := []core.BackendEvent{
		{Kind: core.EventApplied, Seq: 1, Entity: 5, Epoch: 2, Command: 1},
		{Kind: core.EventRefused, Seq: 2, Entity: 5, Epoch: 2, Command: 2, Job: 11, Cause: core.CauseKernel, Error: "no entry"},
		{Kind: core.EventCompleted, Seq: 3, Entity: 5, Epoch: 2, Job: 11, Done: 8, Executed: 8, ExecutedTime: time.Second},
		{Kind: core.EventMessageDone, Seq: 4, Entity: 5, Epoch: 2, Command: 3, Cost: time.Millisecond, Reply: []byte{9}},
		{Kind: core.EventEntityLost, Seq: 5, Entity: 5, Epoch: 2, Job: 11, Guilty: true, Cause: core.CauseHang, Error: "x"},
		{Kind: core.EventDeviceHealth, Seq: 6, Error: "dead"},
	}
	got, err := DecodeEvents(pack(want...), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events differ (-sent +received):\n%s", diff)
	}
}

func TestBadEventsAreRefused(t *testing.T) {
	one := func(e core.BackendEvent) []byte { return pack(e) }
	for name, b := range map[string][]byte{
		"kind":                one(core.BackendEvent{Kind: 11, Seq: 1, Entity: 1, Epoch: 1, Job: 1}),
		"no number":           one(core.BackendEvent{Kind: core.EventStarted, Entity: 1, Epoch: 1, Job: 1}),
		"no job":              one(core.BackendEvent{Kind: core.EventStarted, Seq: 1, Entity: 1, Epoch: 1}),
		"no command":          one(core.BackendEvent{Kind: core.EventApplied, Seq: 1, Entity: 1, Epoch: 1}),
		"progress among them": one(core.BackendEvent{Kind: core.EventProgress, Entity: 1, Epoch: 1, Job: 1}),
		"mask":                {1, 3, 0xff, 0x7f, 1, 1, 1},
		"cause":               {1, 2, 0x81, 0x01, 1, 1, 1, 1, 200},
	} {
		if got, err := DecodeEvents(b, false, nil); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSlipsOfABackendDoNotBreakTheStream(t *testing.T) {
	e := core.BackendEvent{
		Kind: core.EventRefused, Seq: 1, Entity: 1, Epoch: 1, Command: 1, Cause: "own-cause",
		Error: strings.Repeat("é", ErrorMax) + "\xff", Reply: make([]byte, PayloadMax+1),
	}
	got, err := DecodeEvents(pack(e), false, nil)
	if err != nil || got[0].Cause != core.CauseRefused || len(got[0].Error) > ErrorMax || len(got[0].Reply) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if Cut("a\xffb") != "ab" {
		t.Errorf("%q", Cut("a\xffb"))
	}
}

func TestSequenceOfChunks(t *testing.T) {
	buffers := []core.BufferSpec{{Name: "none"}, {Name: "a", Size: core.ChunkSize + 5}, {Name: "b", Size: 3}}
	name := func(buffer int, index uint64, size int) Name {
		return Name{ChunkRef: core.ChunkRef{Buffer: buffer, Index: index, Size: size}}
	}
	good := []Name{name(1, 0, core.ChunkSize), name(1, 1, 5), name(2, 0, 3)}
	s := NewSequence(buffers)
	for _, n := range good {
		if err := s.Next(n); err != nil {
			t.Fatal(err)
		}
	}
	trailer, err := s.Trailer()
	if err != nil || trailer.Chunks != 3 {
		t.Fatal(trailer, err)
	}
	for what, bad := range map[string][]Name{
		"missing":  good[:2],
		"swapped":  {good[1], good[0], good[2]},
		"twice":    {good[0], good[0]},
		"size":     {name(1, 0, 7)},
		"too many": append(good[:3:3], name(2, 1, 1)),
		"not zero": {{ChunkRef: good[0].ChunkRef, Zero: true}},
	} {
		s := NewSequence(buffers)
		var err error
		for _, n := range bad {
			if err == nil {
				err = s.Next(n)
			}
		}
		if err == nil {
			err = s.Check(trailer)
		}
		if !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(encode(f, sampleCommands()))
	for _, c := range sampleCommands() {
		f.Add(encode(f, []core.Command{c}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d CommandDecoder
		got, err := d.Decode(b, nil)
		if err != nil {
			return
		}
		// What is accepted can be sent on, and says the same.
		var again CommandDecoder
		same, err := again.Decode(encode(t, got), nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, same); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzEvent(f *testing.F) {
	e := core.BackendEvent{Kind: core.EventRefused, Seq: 1, Entity: 1, Epoch: 1, Command: 1, Cause: core.CauseHang, Error: "x"}
	f.Add(pack(e), false)
	p := core.BackendEvent{Kind: core.EventProgress, Entity: 1, Epoch: 1, Job: 1, Done: 5}
	f.Add(pack(p), true)
	f.Fuzz(func(t *testing.T, b []byte, progress bool) {
		got, err := DecodeEvents(b, progress, nil)
		if err != nil {
			return
		}
		same, err := DecodeEvents(pack(got...), progress, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if len(got[i].Reply) == 0 {
				got[i].Reply = nil
			}
		}
		if diff := cmp.Diff(got, same); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzNames(f *testing.F) {
	f.Add(PutCount(AppendName(nil, Name{ChunkRef: core.ChunkRef{Size: 3}}), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, err := DecodeNames(b, WindowChunks)
		if err != nil {
			return
		}
		var refs []byte
		for _, n := range names {
			refs = AppendName(refs, n)
		}
		same, err := DecodeNames(PutCount(refs, len(names)), WindowChunks)
		if err != nil || cmp.Diff(names, same) != "" {
			t.Fatalf("%v became %v, %v", names, same, err)
		}
	})
}
