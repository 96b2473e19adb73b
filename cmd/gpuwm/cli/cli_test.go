package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
)

const goodFile = `version: 1
entities: [{name: e, mode: long-running, buffers: [{name: b, size: 4KiB, save: out.raw}]}]
jobs: [{name: j, entity: e, kernel: {wasm: k.wasm, entry: main}, grid: [4, 1, 1], args: [{buffer: b}]}]
`

// bench is a command line with surroundings of its own.
type bench struct {
	t      *testing.T
	dir    string
	app    App
	env    map[string]string
	stdout bytes.Buffer
	stderr bytes.Buffer
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), env: map[string]string{}}
	b.env["HOME"] = b.dir
	b.write("good.yaml", goodFile)
	b.write("k.wasm", "\x00asm")
	b.app = App{
		Lookup: func(name string) (string, bool) { v, ok := b.env[name]; return v, ok },
		Environment: func(*configs.Settings) configs.Env {
			return configs.Env{Backends: []configs.BackendInfo{{Name: "guc", Engines: []configs.EngineInfo{{Name: "wasm", Formats: []string{"wasm"}}}}}}
		},
	}
	return b
}

func (b *bench) write(name, content string) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// run runs a command line; @ stands for the directory.
func (b *bench) run(line string) int {
	b.t.Helper()
	b.stdout.Reset()
	b.stderr.Reset()
	return Main(b.app, strings.Fields(strings.ReplaceAll(line, "@", b.dir)), strings.NewReader(""), &b.stdout, &b.stderr)
}

// want runs a command line and compares code and both outputs.
func (b *bench) want(line string, code int, stdout, stderr string) {
	b.t.Helper()
	got := b.run(line)
	if got != code {
		b.t.Errorf("%s: exit code %d, want %d; stderr:\n%s", line, got, code, b.stderr.String())
	}
	for _, c := range []struct{ name, got, want string }{{"stdout", b.stdout.String(), stdout}, {"stderr", b.stderr.String(), stderr}} {
		if diff := cmp.Diff(strings.ReplaceAll(c.want, "@", b.dir), c.got); diff != "" {
			b.t.Errorf("%s: %s (-want +got):\n%s", line, c.name, diff)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	b := newBench(t)
	const general = "hint: gpuwm --help lists verbs and flags\n"
	b.want("rnu x", 2, "", "gpuwm: usage: unknown verb \"rnu\"\nhint: did you mean \"run\"?\n")
	b.want("config chekc", 2, "", "gpuwm: usage: unknown verb \"chekc\"\nhint: did you mean \"check\"?\n")
	b.want("config", 2, "", "gpuwm: usage: config: needs a verb: check, schema, show\n"+general)
	b.want("run", 2, "", "gpuwm: usage: run: needs FILE\n"+general)
	b.want("run a b", 2, "", "gpuwm: usage: run: takes FILE only, and \"b\" is too much\n"+general)
	b.want("version x", 2, "", "gpuwm: usage: version: takes nothing, and \"x\" is too much\n"+general)
	b.want("run --out x", 2, "", "gpuwm: usage: unknown flag --out\n"+general)
	b.want("run --restrat x", 2, "", "gpuwm: usage: unknown flag --restrat\nhint: did you mean --restart?\n")
	b.want("run x --data-dir", 2, "", "gpuwm: usage: --data-dir: needs a value\n"+general)
	b.want("run -q", 2, "", "gpuwm: usage: unknown flag -q\n"+general)
	b.want("run --nope x", 2, "", "gpuwm: usage: unknown flag --nope\n"+general)
	b.want("version -o xml", 2, "", "gpuwm: usage: --output xml: must be one of table, json\n"+general)
	b.env["GPUWM_OUTPUT"] = "yaml"
	b.want("version", 2, "", "gpuwm: environment GPUWM_OUTPUT: must be one of table, json\n")
}

func TestHelp(t *testing.T) {
	b := newBench(t)
	for _, line := range []string{"", "--help", "help", "run --help"} {
		if code := b.run(line); code != 0 || !strings.Contains(b.stdout.String(), "--data-dir") || b.stderr.Len() > 0 {
			t.Errorf("%q: code %d\n%s%s", line, code, b.stdout.String(), b.stderr.String())
		}
	}
}

func TestConfigCheck(t *testing.T) {
	b := newBench(t)
	b.want("config check @/good.yaml --output-dir @", 0, "@/good.yaml: ok: 1 device, 1 entity, 1 job\n", "")
	b.write("bad.yaml", strings.Replace(goodFile, "size: 4KiB", "sise: 4", 1))
	problems := "gpuwm: @/bad.yaml:2:52: buffer \"b\" has neither size nor file\nhint: give it a size such as 64KiB, or a file\n" +
		"gpuwm: @/bad.yaml:2:62: unknown key \"sise\" in buffer\nhint: did you mean \"size\"?\n"
	b.want("config check @/bad.yaml --output-dir @", 2, "", problems)
	b.want("config check @/none.yaml", 2, "", "gpuwm: read deployment file: open @/none.yaml: no such file or directory\n")
	if code := b.run("config check -o json @/bad.yaml --output-dir @"); code != 2 {
		t.Errorf("exit code %d", code)
	}
	var result checkResult
	if err := json.Unmarshal(b.stdout.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	if result.OK || len(result.Problems) != 2 || result.Problems[1].Line != 2 || result.Problems[1].Column != 62 {
		t.Errorf("result %+v", result)
	}
	if code := b.run("config check -o json @/good.yaml --output-dir @"); code != 0 || !strings.Contains(b.stdout.String(), `"problems": []`) {
		t.Errorf("exit code %d, %s", code, b.stdout.String())
	}
}

func TestConfiguredBackendIsKnown(t *testing.T) {
	b := newBench(t)
	b.write("own.yaml", strings.Replace(goodFile, "entities:", "devices: [{name: d, backend: own}]\nentities:", 1))
	if code := b.run("config check @/own.yaml --output-dir @"); code != 2 || !strings.Contains(b.stderr.String(), `no backend "own"`) {
		t.Errorf("code %d, %s", code, b.stderr.String())
	}
	plugin := b.write("plugin", "x")
	if err := os.Chmod(plugin, 0o755); err != nil {
		t.Fatal(err)
	}
	b.write("config.yaml", "plugins: {own: {path: plugin}}\n")
	b.want("config check @/own.yaml --output-dir @ --config @/config.yaml", 0, "@/own.yaml: ok: 1 device, 1 entity, 1 job\n", "")
}

func TestConfigShowAndSchema(t *testing.T) {
	b := newBench(t)
	b.env["GPUWM_LOG_LEVEL"] = "debug"
	b.want("config show --data-dir /data", 0, `SETTING     VALUE             ORIGIN
data-dir    /data             flag --data-dir
socket      /data/gpuwm.sock  default
log-level   debug             environment GPUWM_LOG_LEVEL
log-format  text              default
`, "")
	b.env["GPUWM_LOG_LEVEL"] = "loud"
	b.want("config show", 2, "", "gpuwm: environment GPUWM_LOG_LEVEL: unknown word \"loud\"\nhint: known: trace, debug, info, warn, error, off\n")
	b.want("config show --config @/none", 2, "", "gpuwm: read configuration file: open @/none: no such file or directory\n")
	b.want("config schema", 0, string(configs.Schema()), "")
}

func TestVersion(t *testing.T) {
	b := newBench(t)
	if code := b.run("version"); code != 0 || !strings.HasPrefix(b.stdout.String(), "gpuwm ") || !strings.Contains(b.stdout.String(), "go1.") {
		t.Errorf("code %d: %s", code, b.stdout.String())
	}
	b.env["GPUWM_OUTPUT"] = "json"
	var v VersionView
	if code := b.run("version"); code != 0 || json.Unmarshal(b.stdout.Bytes(), &v) != nil || !strings.HasPrefix(v.Go, "go1.") {
		t.Errorf("code %d: %s", code, b.stdout.String())
	}
}

func TestRunPassesTheRequest(t *testing.T) {
	b := newBench(t)
	var got RunRequest
	b.app.Run = func(_ context.Context, r RunRequest) ([]JobView, error) {
		got = r
		fmt.Fprintln(r.Progress, "a log line")
		r.Progress.Update(Update{Job: "j", State: StateRunning, Done: 1, Total: 4})
		return []JobView{{Name: "j", State: "completed"}}, nil
	}
	b.write("config.yaml", "engines: {wasm: {cores: 3}}\n")
	b.env["GPUWM_RESTART"] = "true"
	b.env["GPUWM_OUTPUT_DIR"] = b.dir
	b.env["GPUWM_CONFIG"] = filepath.Join(b.dir, "config.yaml")
	b.want("run @/good.yaml --data-dir @/data", 0,
		"NAME  ENTITY  DEVICE  STATE      PROGRESS  TIME  ERROR\nj                     completed  0/0\n",
		"a log line\nj: running 1/4 25%\n")
	if !got.Restart || got.Settings.DataDir != filepath.Join(b.dir, "data") ||
		got.Deployment.Entities[0].Spec.Saves[0].Path != filepath.Join(b.dir, "out.raw") || got.Deployment.Devices[0].Options["cores"] != "3" {
		t.Errorf("request %+v", got)
	}
	if entries, err := os.ReadDir(filepath.Join(b.dir, "data")); err == nil {
		t.Errorf("the data directory was created: %v", entries)
	}
	b.env["GPUWM_RESTART"] = "maybe"
	if code := b.run("run @/good.yaml"); code != 2 {
		t.Errorf("bad GPUWM_RESTART: code %d, %s", code, b.stderr.String())
	}
}

func TestRunOutcomes(t *testing.T) {
	job := func(name, state string) JobView {
		return JobView{Name: name, State: state, Progress: JobProgress{3, 4}}
	}
	held := fmt.Errorf("data directory: %w: process 12", core.ErrBusy)
	for name, c := range map[string]struct {
		jobs   []JobView
		err    error
		code   int
		stderr string
	}{
		"completed":        {[]JobView{job("a", "completed")}, nil, 0, ""},
		"none":             {nil, nil, 0, ""},
		"suspended":        {[]JobView{job("a", "completed"), job("b", "suspended"), job("c", "queued")}, nil, 5, "gpuwm: run @/good.yaml: suspended: b at 3 of 4, c at 3 of 4\nhint: the same command goes on from here: gpuwm run @/good.yaml --output json --output-dir @\n"},
		"failed first":     {[]JobView{job("a", "suspended"), job("b", "failed"), job("c", "cancelled")}, nil, 1, "gpuwm: run @/good.yaml: b failed, c cancelled\n"},
		"timed-out":        {[]JobView{job("a", "timed-out")}, nil, 1, "gpuwm: run @/good.yaml: a timed-out\n"},
		"error":            {nil, held, 1, "gpuwm: run @/good.yaml: data directory: held by another process: process 12\n"},
		"error with code":  {nil, &ExitError{Code: ExitUsage, Hint: "use --restart", Err: errors.New("changed\nsince")}, 2, "gpuwm: run @/good.yaml: changed since\nhint: use --restart\n"},
		"silent with jobs": {[]JobView{job("a", "suspended")}, &ExitError{Code: ExitSuspended}, 5, ""},
		"not found":        {nil, fmt.Errorf("device d: %w", core.ErrNotFound), 4, "gpuwm: run @/good.yaml: device d: not found\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.app.Run = func(context.Context, RunRequest) ([]JobView, error) { return c.jobs, c.err }
			if code := b.run("run -o json @/good.yaml --output-dir @"); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if diff := cmp.Diff(strings.ReplaceAll(c.stderr, "@", b.dir), b.stderr.String()); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
			var back []JobView
			if err := json.Unmarshal(b.stdout.Bytes(), &back); err != nil || back == nil || len(back) != len(c.jobs) {
				t.Errorf("stdout %q: %v", b.stdout.String(), err)
			}
		})
	}
}

// TestHintIsTheSameCommand: a shell makes the same words of it, without
// --restart and without what the environment says.
func TestHintIsTheSameCommand(t *testing.T) {
	b := newBench(t)
	b.app.Run = func(context.Context, RunRequest) ([]JobView, error) {
		return []JobView{{Name: "a", State: "suspended"}}, nil
	}
	odd := b.write("it's a $file.yaml", goodFile)
	b.env["GPUWM_OUTPUT_DIR"] = b.dir
	args := []string{"run", "--restart", odd, "--data-dir", b.dir + "/a b", "-o", "json", "--log-level=debug"}
	if code := Main(b.app, args, strings.NewReader(""), &b.stdout, &b.stderr); code != ExitSuspended {
		t.Fatalf("exit code %d: %s", code, b.stderr.String())
	}
	_, hint, found := strings.Cut(b.stderr.String(), "goes on from here: ")
	if !found {
		t.Fatalf("no hint: %s", b.stderr.String())
	}
	words, err := exec.Command("sh", "-c", "printf '%s\n' "+hint).Output()
	want := strings.Join([]string{"gpuwm", "run", odd, "--data-dir", b.dir + "/a b", "--log-level", "debug", "--output", "json"}, "\n") + "\n"
	if diff := cmp.Diff(want, string(words)); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	t.Chdir(b.dir)
	b.write("-x.yaml", goodFile)
	b.want("run -- -x.yaml", 5, "NAME  ENTITY  DEVICE  STATE      PROGRESS  TIME  ERROR\na                     suspended  0/0\n",
		"gpuwm: run -x.yaml: suspended: a at 0 of 0\nhint: the same command goes on from here: gpuwm run ./-x.yaml\n")
}

// TestFailedOutput: jobs that cannot be printed are an error of a run that completed.
func TestFailedOutput(t *testing.T) {
	b := newBench(t)
	b.app.Run = func(context.Context, RunRequest) ([]JobView, error) {
		return []JobView{{Name: "a", State: "completed"}}, nil
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	defer writer.Close()
	code := Main(b.app, []string{"run", b.dir + "/good.yaml", "--output-dir", b.dir}, strings.NewReader(""), writer, &b.stderr)
	if code != ExitFailed || !strings.Contains(b.stderr.String(), "print jobs: ") || !strings.Contains(b.stderr.String(), "broken pipe") {
		t.Errorf("exit code %d: %s", code, b.stderr.String())
	}
}

func TestBadFilesDoNotRun(t *testing.T) {
	b := newBench(t)
	b.app.Run = func(context.Context, RunRequest) ([]JobView, error) {
		t.Error("a bad file was run")
		return nil, nil
	}
	b.write("bad.yaml", "version: 2\n")
	if code := b.run("run @/bad.yaml"); code != 2 || b.stdout.Len() > 0 || strings.Count(b.stderr.String(), "gpuwm: ") != 3 {
		t.Errorf("exit code %d, %s%s", code, b.stdout.String(), b.stderr.String())
	}
	b.write("config.yaml", "data-dri: x\n")
	b.want("run @/good.yaml --config @/config.yaml", 2, "", "gpuwm: @/config.yaml:1:1: unknown key \"data-dri\" in configuration\nhint: did you mean \"data-dir\"?\n")
}

func TestJobJSON(t *testing.T) {
	at := core.At(time.Date(2031, 2, 3, 4, 5, 6, 7000, time.FixedZone("X", 3600)))
	var out bytes.Buffer
	jobs := []JobView{{
		Name: "j", ID: 7, Entity: "e", Device: "guc0", Backend: "guc", State: "failed", Cause: core.CauseTrap, Error: "a < b",
		Progress: JobProgress{1, 2}, Executed: 18446744073709551615, Submitted: Time(at), Started: Time(at.Add(time.Second)),
	}}
	if err := PrintJobs(&out, OutputJSON, jobs); err != nil {
		t.Fatal(err)
	}
	want := `[
  {
    "name": "j",
    "id": 7,
    "entity": "e",
    "device": "guc0",
    "backend": "guc",
    "state": "failed",
    "cause": "trap",
    "error": "a < b",
    "progress": {
      "done": 1,
      "total": 2
    },
    "executed": 18446744073709551615,
    "submitted": "2031-02-03T03:05:06.000007Z",
    "started": "2031-02-03T03:05:07.000007Z",
    "finished": null
  }
]
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var back []JobView
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || cmp.Diff(jobs, back) != "" {
		t.Errorf("read back: %v, %+v", err, back)
	}
}

func TestJobTable(t *testing.T) {
	var out bytes.Buffer
	err := PrintJobs(&out, OutputTable, []JobView{
		{Name: "a", Entity: "e", Device: "guc0", State: "completed", Progress: JobProgress{4, 4}, Started: 1, Finished: Time(core.Instant(1).Add(83 * time.Second))},
		{Name: "longer", Entity: "e", Device: "guc0", State: "cancelled", Cause: core.CauseEarlier, Progress: JobProgress{0, 4}},
		{Name: "c", Entity: "e", Device: "guc0", State: "failed", Error: "trap:\n\x1b[2Junreachable", Progress: JobProgress{0, 4}},
	})
	want := `NAME    ENTITY  DEVICE  STATE      PROGRESS  TIME   ERROR
a       e       guc0    completed  4/4       1m23s
longer  e       guc0    cancelled  0/4              earlier-job
c       e       guc0    failed     0/4              trap: ?[2Junreachable
`
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nwant:\n%s", err, out.String(), want)
	}
}
