package configs

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/output"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// testEnv stands for two backends and an engine that takes modules with one
// entry of at most two declared arguments and 1 GiB.
func testEnv(outputDir string) Env {
	wasm := EngineInfo{Name: "wasm", Formats: []string{core.FormatWasm}}
	opencl := EngineInfo{Name: "opencl", Formats: []string{core.FormatOpenCL}, Argument: true}
	return Env{
		OutputDir: outputDir,
		Backends: []BackendInfo{
			{Name: "guc", Engines: []EngineInfo{wasm}},
			{Name: "mali", Engines: []EngineInfo{wasm, opencl}},
		},
		KernelCheck: func(format string, code []byte, entry string, args []core.Arg, bufferBytes uint64) error {
			switch {
			case format != core.FormatWasm:
				return nil
			case !strings.HasPrefix(string(code), "\x00asm"):
				return fmt.Errorf("%w: not a wasm module", core.ErrInvalid)
			case entry != "main1":
				return fmt.Errorf("%w: no entry %q, it has main1", core.ErrInvalid, entry)
			case len(args) == 3:
				return fmt.Errorf("%w: takes 2 arguments, not 3", core.ErrInvalid)
			case bufferBytes > gib:
				return fmt.Errorf("%w: buffers of %d bytes, it holds %d", core.ErrInvalid, bufferBytes, gib)
			}
			return nil
		},
	}
}

func load(t *testing.T, path string) *Deployment {
	t.Helper()
	d, err := Load(path, testEnv(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestBadFiles compares the messages for each bad sample with the golden file
// beside it, and looks that nothing was created.
func TestBadFiles(t *testing.T) {
	samples, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(samples) == 0 {
		t.Fatal("no samples", err)
	}
	for _, sample := range samples {
		t.Run(strings.TrimSuffix(filepath.Base(sample), ".yaml"), func(t *testing.T) {
			content, err := os.ReadFile(sample)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			env := testEnv(dir)
			if first, _, _ := strings.Cut(string(content), "\n"); strings.HasPrefix(first, "# output-dir: ") {
				env.OutputDir = strings.TrimPrefix(first, "# output-dir: ")
			}
			before := tree(t, "testdata") + tree(t, dir)
			d, err := Load(sample, env)
			if after := tree(t, "testdata") + tree(t, dir); after != before {
				t.Errorf("files changed:\n%s\nwere:\n%s", after, before)
			}
			var bad *FileError
			if d != nil || !errors.As(err, &bad) {
				t.Fatalf("got %v, %v; want a FileError", d, err)
			}
			for _, p := range bad.Problems {
				if p.File != sample || p.Line < 1 || p.Column < 1 || p.Message == "" {
					t.Errorf("incomplete problem: %+v", p)
				}
			}
			golden := strings.TrimSuffix(sample, ".yaml") + ".golden"
			got := err.Error() + "\n"
			if *rewrite {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("messages differ (-want +got); go test ./configs -run TestBadFiles -rewrite\n%s", diff)
			}
		})
	}
}

func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		// Golden files may be rewritten by this very test.
		if filepath.Ext(path) != ".golden" && !info.IsDir() {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestLoadFull(t *testing.T) {
	out := t.TempDir()
	d, err := Load("testdata/good/full.yaml", testEnv(out))
	if err != nil {
		t.Fatal(err)
	}
	wantDevices := []core.DeviceSpec{
		{Name: "g0", Backend: "guc", Engine: "wasm", Options: map[string]string{"quantum": "20ms", "hang-deadline": "1m30s", "cores": "2", "instances": "1"}},
		{Name: "g1", Backend: "guc", Engine: "wasm"},
		{Name: "m0", Backend: "mali", Engine: "opencl:0"},
	}
	if diff := cmp.Diff(wantDevices, d.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	render := d.Entities[0]
	want := core.EntitySpec{
		Name: "render", Device: "g0", Mode: core.ModeLongRunning, OnFailure: core.OnFailureContinue,
		Properties: core.Properties{Priority: core.PriorityHigh, Checkpoint: 5 * time.Second},
		Buffers:    []core.BufferSpec{{Name: "image", Size: 16 << 10}, {Name: "found", Size: 64 << 10}, {Name: "scene", Size: 16}, {Name: "padded", Size: 1 << 10}},
		Saves: []core.SaveSpec{
			{Buffer: "image", Path: filepath.Join(out, "image.png"), Format: core.SavePNG, Width: 64, Height: 64, Pixel: "rgba8"},
			{Buffer: "found", Path: filepath.Join(out, "found.csv"), Format: core.SaveCSV, AtCheckpoint: true,
				Columns: []core.Column{{Name: "p", Kind: core.ArgU64}, {Name: "factor", Kind: core.ArgU64}}},
			{Buffer: "padded", Path: filepath.Join(out, "padded.raw"), Format: core.SaveRaw},
		},
		Run: render.Spec.Run, Identity: render.Spec.Identity,
	}
	if diff := cmp.Diff(want, render.Spec); diff != "" {
		t.Errorf("entity (-want +got):\n%s", diff)
	}
	digest := core.DigestOf([]byte("0123456789abcdef"))
	file, _ := filepath.Abs("testdata/files/in.bin")
	wantInit := BufferInit{Path: file, Length: 16, Digest: digest}
	if diff := cmp.Diff([]BufferInit{{}, {}, wantInit, wantInit}, render.Buffers); diff != "" {
		t.Errorf("initial buffers (-want +got):\n%s", diff)
	}
	job := render.Jobs[0]
	negativeTwo := int32(-2)
	wantArgs := []core.Arg{
		{Kind: core.ArgBuffer, Buffer: "image"}, {Kind: core.ArgBuffer, Buffer: "scene"},
		{Kind: core.ArgU32, Bits: math.MaxUint32}, {Kind: core.ArgF32, Bits: uint64(math.Float32bits(0.5))},
		{Kind: core.ArgI32, Bits: uint64(uint32(negativeTwo))}, {Kind: core.ArgU64, Bits: 1<<53 + 1},
		{Kind: core.ArgI64, Bits: 1 << 63}, {Kind: core.ArgF64, Bits: math.Float64bits(1e300)},
	}
	if diff := cmp.Diff(wantArgs, job.Spec.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	if job.Spec.Grid != [3]uint32{128, 128, 1} || job.Spec.Group != [3]uint32{8, 8, 1} || job.Spec.Timeout != 0 || job.Spec.Credits != 1 ||
		!job.Spec.Flush || job.Spec.Entry != "main1" || !reflect.DeepEqual(job.After, []string{"one"}) {
		t.Errorf("job %+v after %v", job.Spec, job.After)
	}
	if len(job.Kernels) != 2 || job.Kernels[core.FormatWasm].Digest != job.Spec.Kernels[core.FormatWasm] ||
		core.DigestOf(job.Kernels[core.FormatOpenCL].Code) != job.Spec.Kernels[core.FormatOpenCL] {
		t.Errorf("kernels %v, digests %v", job.Kernels, job.Spec.Kernels)
	}
	sums := d.Entities[1]
	if !reflect.DeepEqual(sums.Candidates, []string{"g1", "m0"}) || sums.Spec.OnFailure != core.OnFailureStop || sums.Spec.Properties.Checkpoint != 0 {
		t.Errorf("entity %+v candidates %v", sums.Spec, sums.Candidates)
	}
	if one, two := sums.Jobs[0].Spec, sums.Jobs[1].Spec; one.Name != "one" || one.Flush || !two.Flush ||
		one.Timeout != 90*time.Minute || two.Timeout != time.Minute || one.Group != [3]uint32{1, 1, 1} {
		t.Errorf("jobs %+v %+v", one, two)
	}
	if last := d.Entities[2]; last.Jobs[0].Spec.Flush || !reflect.DeepEqual(last.Candidates, []string{"m0"}) {
		t.Errorf("entity without saves %+v", last)
	}
}

func TestDefaults(t *testing.T) {
	d := load(t, "testdata/good/short.yaml")
	want := []core.DeviceSpec{{Name: "guc0", Backend: "guc", Engine: "wasm"}, {Name: "mali0", Backend: "mali", Engine: "wasm"}}
	if diff := cmp.Diff(want, d.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
	e := d.Entities[0]
	if !reflect.DeepEqual(e.Candidates, []string{"guc0", "mali0"}) || e.Spec.Device != "guc0" {
		t.Errorf("candidates %v, device %s", e.Candidates, e.Spec.Device)
	}
	if e.Spec.Properties != (core.Properties{Priority: core.PriorityNormal, Checkpoint: 30 * time.Second}) {
		t.Errorf("properties %+v", e.Spec.Properties)
	}
}

func TestAliases(t *testing.T) {
	d := load(t, "testdata/good/aliases.yaml")
	if got := d.Entities[1].Jobs[0].Spec.Grid; got != [3]uint32{1, 2, 3} {
		t.Errorf("grid %v", got)
	}
}

// TestIdentity changes one thing at a time and looks whether it is another run.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	base := `version: 1
devices: [{name: a, backend: guc}, {name: b, backend: mali}]
entities: [{name: e, device: a, mode: compute, priority: low, buffers: [{name: x, size: 4KiB, save: out}, {name: y, file: in.bin}]}, {name: f, mode: compute}]
jobs: [{name: i, entity: f, kernel: {wasm: k.wasm, entry: main1}, grid: [1, 1, 1]}, {name: j, entity: e, kernel: {wasm: k.wasm, entry: main1}, grid: [1, 2, 1], args: [{u32: 1}], timeout: 5s}]
`
	identityOf := func(text, input, kernel string) core.Digest {
		t.Helper()
		for name, content := range map[string]string{"d.yaml": text, "in.bin": input, "k.wasm": "\x00asm" + kernel} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d, err := Load(filepath.Join(dir, "d.yaml"), testEnv(dir))
		if err != nil {
			t.Fatal(err)
		}
		return d.Entities[0].Spec.Identity
	}
	first := identityOf(base, "input", "kernel")
	for change, same := range map[string]bool{
		"device: a=>device: b": true, "priority: low=>priority: high": true, "save: out=>save: {path: other, format: text}": true,
		"timeout: 5s=>timeout: 6s": true, "name: e,=>name: e, ": true,
		"size: 4KiB=>size: 8KiB": false, "name: x=>name: z": false, "[1, 2, 1]=>[2, 1, 1]": false, "u32: 1=>u32: 2": false,
		"u32: 1=>i32: 1": false, "name: j=>name: k": false, "mode: compute, priority=>mode: long-running, priority": false,
		"timeout: 5s=>after: [i]": false, "priority: low=>on-failure: continue": true,
	} {
		from, to, _ := strings.Cut(change, "=>")
		text := strings.Replace(base, from, to, 1)
		if strings.Contains(to, "long-running") {
			text = strings.Replace(text, ", timeout: 5s", "", 1)
		}
		if text == base && !strings.HasSuffix(to, " ") {
			t.Errorf("%s: changes nothing", change)
		}
		if got := identityOf(text, "input", "kernel"); (got == first) != same {
			t.Errorf("%s: same identity %v, want %v", change, got == first, same)
		}
	}
	if identityOf(base, "INPUT", "kernel") == first {
		t.Error("another input, same identity")
	}
	if identityOf(base, "input", "KERNEL") == first {
		t.Error("another kernel, same identity")
	}
}

// TestRunOfAFile: all entities of a file carry the digest of all their names, in
// whatever order they stand.
func TestRunOfAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "k.wasm"), []byte("\x00asm"), 0o644); err != nil {
		t.Fatal(err)
	}
	runOf := func(names ...string) core.Digest {
		t.Helper()
		text := "version: 1\nentities:\n"
		for _, n := range names {
			text += "  - {name: " + n + ", mode: compute}\n"
		}
		text += "jobs:\n"
		for _, n := range names {
			text += "  - {name: j" + n + ", entity: " + n + ", kernel: {wasm: k.wasm, entry: main1}, grid: [1, 1, 1]}\n"
		}
		path := filepath.Join(dir, "d.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		d, err := Load(path, testEnv(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range d.Entities {
			if e.Spec.Run != d.Entities[0].Spec.Run || e.Spec.Run == (core.Digest{}) {
				t.Errorf("entity %s of %v: run %s", e.Spec.Name, names, e.Spec.Run)
			}
		}
		return d.Entities[0].Spec.Run
	}
	first := runOf("a", "b")
	if runOf("b", "a") != first {
		t.Error("another order, another run")
	}
	if runOf("a") == first || runOf("a", "b", "c") == first || runOf("ab") == first {
		t.Error("other entities, the same run")
	}
}

// TestLongResultName: the temporary name beside a result file must fit too.
func TestLongResultName(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "k.wasm"), []byte("\x00asm"), 0o644); err != nil {
		t.Fatal(err)
	}
	for length, good := range map[int]bool{resultNameMax: true, resultNameMax + 1: false} {
		name := strings.Repeat("x", length)
		err := os.WriteFile(output.TemporaryPath(filepath.Join(dir, name)), nil, 0o644)
		if (err == nil) != good {
			t.Errorf("temporary file for a name of %d bytes: %v", length, err)
		}
		path := filepath.Join(dir, "d.yaml")
		text := "version: 1\nentities: [{name: e, mode: compute, buffers: [{name: b, size: 4KiB, save: " + name + "}]}]\n" +
			"jobs: [{name: j, entity: e, kernel: {wasm: k.wasm, entry: main1}, grid: [1, 1, 1]}]\n"
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, testEnv(dir)); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "bytes, at most") {
			t.Errorf("name of %d bytes: %v", length, err)
		}
	}
}

func TestProblemsAreBoundedAndSorted(t *testing.T) {
	text := "version: 1\njobs: []\nentities:\n" + strings.Repeat("  - {name: -, mode: x}\n", 500)
	_, err := parse("f.yaml", "/f.yaml", []byte(text), Env{})
	var bad *FileError
	if !errors.As(err, &bad) {
		t.Fatal(err)
	}
	if len(bad.Problems) != problemsMax || bad.More != 1001-problemsMax {
		t.Errorf("%d problems and %d more", len(bad.Problems), bad.More)
	}
	for i := 1; i < len(bad.Problems); i++ {
		if a, b := bad.Problems[i-1], bad.Problems[i]; a.Line > b.Line || a.Line == b.Line && a.Column > b.Column {
			t.Errorf("%v before %v", a, b)
		}
	}
	if !strings.HasSuffix(err.Error(), "\nand 901 more problems") {
		t.Error("the rest is not mentioned")
	}
}

func TestMissingFile(t *testing.T) {
	_, err := Load("testdata/no-such-file.yaml", Env{})
	if bad := (*FileError)(nil); err == nil || errors.As(err, &bad) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// FuzzLoad: no content panics, and what is refused says where.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.yaml"} {
		samples, _ := filepath.Glob(pattern)
		for _, s := range samples {
			content, err := os.ReadFile(s)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	dir, err := filepath.Abs("testdata/good/fuzz.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		d, err := parse("fuzz.yaml", dir, content, testEnv("testdata"))
		if (d == nil) == (err == nil) {
			t.Fatalf("deployment %v, error %v", d, err)
		}
		var bad *FileError
		if err != nil && (!errors.As(err, &bad) || len(bad.Problems) == 0 || len(bad.Problems) > problemsMax) {
			t.Fatalf("error %v", err)
		}
		s := &Settings{File: "fuzz.yaml", origins: map[string]string{}}
		_, _ = s.readFile(content)
	})
}
