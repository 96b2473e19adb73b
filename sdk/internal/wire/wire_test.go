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
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
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
	cancel := core.Command{Kind: core.CommandCancel, Entity: 300, Epoch: 2, Seq: 5, Job: 7}
	run := core.Command{Kind: core.CommandRun, Entity: 300, Epoch: 2, Seq: 6, Job: 8, JobSpec: &core.JobSpec{
		Seq: 3, Name: "a", Entry: "e", Grid: [3]uint32{2, 1, 1}, Group: [3]uint32{1, 1, 1}, Credits: 1,
		Args: []core.Arg{{Kind: core.ArgU32, Bits: 9}},
	}}
	next, spec := run, *run.JobSpec
	spec.Seq, spec.Name = 4, "b"
	next.Seq, next.Job, next.First, next.JobSpec = 7, 9, 1, &spec
	want := []byte{0x83, 0,
		0x03, 0xac, 0x02, 2, 5, 7,
		0x92, 8, 3, 1, 'a', 1, 0, 1, 'e', 2, 1, 1, 1, 1, 1, 3, 1, 2, 9, 0, 0, 1, 0,
		0x72, 1, 0, 1, 'b',
	}
	if got := encode(t, []core.Command{cancel, run, next}); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

func TestEventGoldenBytes(t *testing.T) {
	started := core.BackendEvent{Kind: core.EventStarted, Seq: 9, Entity: 300, Epoch: 2, Job: 7}
	done := core.BackendEvent{Kind: core.EventCompleted, Seq: 10, Entity: 300, Epoch: 2, Job: 7, Done: 128, Executed: 28}
	next := core.BackendEvent{Kind: core.EventStarted, Seq: 11, Entity: 300, Epoch: 2, Job: 8}
	other := core.BackendEvent{Kind: core.EventStarted, Seq: 12, Entity: 1, Epoch: 1, Job: 3}
	want := []byte{0x84, 0, 9,
		0x03, 0x02, 0xac, 0x02, 2, 7,
		0x34, 0x0e, 0x80, 0x01, 28,
		0x53, 0x02,
		0x03, 0x02, 1, 1, 3,
	}
	if got := pack(started, done, next, other); !bytes.Equal(got, want) {
		t.Errorf("% x, want % x", got, want)
	}
}

// TestReferencesNeedWhatTheyReferTo: flags that point at an item which is not
// there, or that the kind does not have, are refused.
func TestReferencesNeedWhatTheyReferTo(t *testing.T) {
	for name, b := range map[string][]byte{
		"next of nothing":      {1, 0x13, 7},
		"alike nothing":        {1, 0xa2, 1, 1, 1, 8, 3, 1, 'a'},
		"successor of nothing": {1, 0xc2, 1, 1, 1, 1, 'a'},
		"alike cancel":         {2, 0x03, 1, 1, 1, 7, 0x33, 7},
		"sequence wraps":       {2, 0x03, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 7, 0x13, 7},
	} {
		var d CommandDecoder
		if got, err := d.Decode(b, nil); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, b := range map[string][]byte{
		"next of nothing":      {1, 9, 0x13, 0x02, 7},
		"same as nothing":      {1, 9, 0x23, 0x02, 1, 1},
		"same as no job":       {2, 9, 0x01, 0x01, 1, 1, 1, 0x33, 0x02},
		"successor of nothing": {1, 9, 0x43, 0x02, 1, 1},
		"both":                 {2, 9, 0x03, 0x02, 1, 1, 7, 0x73, 0x02},
		"same without a job":   {2, 9, 0x03, 0x02, 1, 1, 7, 0x31, 0x01, 5},
		"flag without meaning": {1, 9, 0x83, 0x02, 1, 1, 7},
		"number zero":          {1, 0, 0x03, 0x02, 1, 1, 7},
		"number wraps":         {1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x03, 0x02, 1, 1, 7},
	} {
		if got, err := DecodeEvents(b, false, nil); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestJobsThatDifferArePackedInFull changes every field of a specification that
// crosses the seam, one at a time.
func TestJobsThatDifferArePackedInFull(t *testing.T) {
	for name, change := range map[string]func(*core.JobSpec){
		"nothing": func(*core.JobSpec) {},
		"name":    func(s *core.JobSpec) { s.Name = "other" },
		"seq":     func(s *core.JobSpec) { s.Seq = 77 },
		"entry":   func(s *core.JobSpec) { s.Entry = "other" },
		"grid":    func(s *core.JobSpec) { s.Grid[2]++ },
		"group":   func(s *core.JobSpec) { s.Group[2]++ },
		"bits":    func(s *core.JobSpec) { s.Args[1].Bits++ },
		"args":    func(s *core.JobSpec) { s.Args = s.Args[1:] },
		"after":   func(s *core.JobSpec) { s.After = s.After[1:] },
		"timeout": func(s *core.JobSpec) { s.Timeout++ },
		"credits": func(s *core.JobSpec) { s.Credits++ },
		"flush":   func(s *core.JobSpec) { s.Flush = false },
		"wasm":    func(s *core.JobSpec) { s.Kernels[core.FormatWasm] = core.DigestOf([]byte("x")) },
		"opencl":  func(s *core.JobSpec) { delete(s.Kernels, core.FormatOpenCL) },
		"format":  func(s *core.JobSpec) { s.Kernels["own"] = core.DigestOf([]byte("x")) },
		"formats": func(s *core.JobSpec) { s.Kernels = map[string]core.Digest{"own": {1}} },
	} {
		want := sampleCommands()[1:3]
		change(want[1].JobSpec)
		for range 2 {
			var d CommandDecoder
			got, err := d.Decode(encode(t, want), nil)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v, commands differ (-sent +received):\n%s", name, err, diff)
			}
			// And the other way round.
			want = []core.Command{want[1], want[0]}
		}
	}
}

func TestBatchesTakeWhatMayBeSent(t *testing.T) {
	var commands CommandBatch
	c := core.Command{Kind: core.CommandDestroy, Entity: 1, Epoch: 1, Seq: 1}
	for !commands.Full() {
		if err := commands.Append(&c); err != nil {
			t.Fatal(err)
		}
	}
	if commands.Count() != BatchCount || commands.Append(&core.Command{}) == nil || commands.Count() != BatchCount {
		t.Errorf("%d commands in a batch", commands.Count())
	}
	var d CommandDecoder
	if got, err := d.Decode(commands.Body(), nil); err != nil || len(got) != BatchCount {
		t.Errorf("%d commands came, %v", len(got), err)
	}
	commands.Reset()
	if commands.Full() || commands.Body() != nil {
		t.Error("a batch is not empty after Reset")
	}
	large := NewEventBatch(make([]byte, 0, 16))
	e := core.BackendEvent{Kind: core.EventMessageDone, Seq: 1, Entity: 1, Epoch: 1, Command: 1, Reply: make([]byte, PayloadMax)}
	large.Append(&e)
	if !large.Full() || large.Count() != 1 {
		t.Error("a batch of a mebibyte takes more")
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

func sampleBackend() core.BackendDescription {
	return core.BackendDescription{
		Name: "guc", Version: "1.2", Engines: []string{"wasm"}, ConfigSchema: []byte(` {"type": "object"}`),
		Messages: []core.MessageType{{Kind: core.MessageBackend, Name: "trace", Doc: "Starts a trace."}, {Kind: core.MessageBackend + 7, Name: "slpc"}},
		Level:    core.LevelPortable,
	}
}

func TestBackendDescriptionRoundTrips(t *testing.T) {
	for _, want := range []core.BackendDescription{sampleBackend(), {Name: "bare", Level: core.LevelJobs}} {
		b, err := proto.Marshal(FromBackendDescription(want))
		if err != nil {
			t.Fatal(err)
		}
		var m apiv1.HelloReply
		if err := proto.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		got, err := ToBackendDescription(&m)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v, descriptions differ (-sent +received):\n%s", err, diff)
		}
	}
}

// TestHelloGoldenBytes: the fields stay where they are; an older reader skips
// those it does not know.
func TestHelloGoldenBytes(t *testing.T) {
	want := append([]byte{
		0x10, 1, 0x1a, 3, 'g', 'u', 'c', 0x22, 3, '1', '.', '2', 0x2a, 4, 'w', 'a', 's', 'm',
		0x32, 19}, ` {"type": "object"}`...)
	want = append(append(want, 0x3a, 27, 0x08, 0x80, 0x08, 0x12, 5), "trace"...)
	want = append(append(want, 0x1a, 15), "Starts a trace."...)
	want = append(append(want, 0x3a, 9, 0x08, 0x87, 0x08, 0x12, 4), "slpc"...)
	want = append(want, 0x40, 5)
	got, err := proto.MarshalOptions{Deterministic: true}.Marshal(FromBackendDescription(sampleBackend()))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v\n% x, want\n% x", err, got, want)
	}
	opened := &apiv1.DeviceOpened{Held: []*apiv1.HeldEntity{{Entity: 5, Epoch: 2, Applied: 9}}, Acked: 300}
	want = []byte{0x12, 6, 0x08, 5, 0x10, 2, 0x18, 9, 0x18, 0xac, 0x02}
	if got, err := (proto.MarshalOptions{Deterministic: true}).Marshal(opened); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v, % x, want % x", err, got, want)
	}
}

func TestBadBackendDescriptionsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*core.BackendDescription){
		"no name":          func(d *core.BackendDescription) { d.Name = "" },
		"no level":         func(d *core.BackendDescription) { d.Level = 0 },
		"high level":       func(d *core.BackendDescription) { d.Level = core.LevelPortable + 1 },
		"long version":     func(d *core.BackendDescription) { d.Version = strings.Repeat("1", NameMax+1) },
		"engines":          func(d *core.BackendDescription) { d.Engines = make([]string, FormatsMax+1) },
		"schema cut":       func(d *core.BackendDescription) { d.ConfigSchema = []byte(`{"type":`) },
		"schema no object": func(d *core.BackendDescription) { d.ConfigSchema = []byte(`true`) },
		"schema blank":     func(d *core.BackendDescription) { d.ConfigSchema = []byte(" ") },
		"schema large": func(d *core.BackendDescription) {
			d.ConfigSchema = []byte(`{"a":"` + strings.Repeat("a", SchemaMax) + `"}`)
		},
		"kind of ours": func(d *core.BackendDescription) { d.Messages[0].Kind = core.MessageBarrier },
		"kind twice":   func(d *core.BackendDescription) { d.Messages[1].Kind = d.Messages[0].Kind },
		"name twice":   func(d *core.BackendDescription) { d.Messages[1].Name = d.Messages[0].Name },
		"nameless":     func(d *core.BackendDescription) { d.Messages[1].Name = "" },
		"long doc":     func(d *core.BackendDescription) { d.Messages[1].Doc = strings.Repeat("d", MessageDocMax+1) },
		"many": func(d *core.BackendDescription) {
			d.Messages = nil
			for n := range MessageTypesMax + 1 {
				d.Messages = append(d.Messages, core.MessageType{Kind: core.MessageBackend + core.MessageKind(n), Name: strconv.Itoa(n)})
			}
		},
	} {
		d := sampleBackend()
		change(&d)
		if got, err := ToBackendDescription(FromBackendDescription(d)); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
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
