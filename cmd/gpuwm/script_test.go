package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/rogpeppe/go-internal/testscript"
)

// kernels are linked into k/ of every script.
var kernels = []string{
	"../../configs/kernels/mersenne.wasm", "../../configs/data/exponents.bin", "../../configs/data/factors.csv",
	"../../plugins/engine/wasm/testdata/basic.wasm", "../../plugins/engine/wasm/testdata/faults.wasm",
	"../../plugins/engine/wasm/testdata/own.wasm",
}

// TestScripts runs testdata/script/*.txtar with the real executables. Besides
// the commands of testscript there are:
//
//	gpuwm CODE ARG...          run gpuwm to its end, which must have that exit code
//	start NAME ARG...          start gpuwm in the background
//	hold NAME POINT ARG...     the same, and wait until it has stopped itself at a crash point; SIGCONT lets it go on
//	held NAME                  wait until it has stopped itself again; POINT may be several with commas between them
//	hold-plugin NAME DIR POINT ARG...   the same for the plugin that works for a data directory
//	go-on DIR                  SIGCONT to the plugins of a data directory
//	await NAME REGEXP          wait until a line of its standard error matches, from the last match on
//	printed NAME REGEXP        wait until its standard output matches
//	signal NAME SIGNAL...      INT, TERM, HUP, KILL or CONT
//	insist NAME SIGNAL         send a signal again and again until the end
//	end NAME CODE              wait for its end; CODE may be `killed`; stdout and stderr are then its own
//	job FILE JOB CONDITION...  check a job in JSON output: state=completed executed>=100 error~regexp
//	plugins DIR COUNT          so many plugin processes work for a data directory
//	plugin-pid DIR NAME        put the pid of the one plugin into a variable
//	kill-plugins DIR           SIGKILL
//	same FILE FILE             byte for byte
//	u64 FILE INDEX VALUE       a little-endian word of a file
//	count FILE NUMBER REGEXP   so many matches
//	turns LOG ENTITY JOB ENTITY JOB   the two worked side by side
//
// What must happen in the middle of a job is done while a process is held:
// whoever awaits a line only may come when the job is over.
func TestScripts(t *testing.T) {
	gpuwm := binary(t, gpuwmBinary)
	crash := binary(t, crashBinary)
	plugin := binary(t, pluginBinary)
	agx, mali := binary(t, agxBinary), binary(t, maliBinary)
	tool := toolchain(t)
	testscript.Run(t, testscript.Params{
		Dir:                "testdata/script",
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			runtime, err := runtimeDir()
			if err != nil {
				return err
			}
			env.Vars = append(append(env.Vars, environment(home, runtime)...), "EXECUTABLE="+gpuwm, "CRASH="+crash, "PLUGIN="+plugin, "PLUGIN_AGX="+agx, "PLUGIN_MALI="+mali)
			env.Vars = append(env.Vars, tool...)
			started := &background{processes: make(map[string]*process)}
			env.Values[started.key()] = started
			env.Defer(func() { started.clean(env.WorkDir) })
			return linkKernels(env.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"gpuwm": cmdGpuwm, "start": cmdStart, "hold": cmdHold, "held": cmdHeld, "hold-plugin": cmdHoldPlugin, "go-on": cmdGoOn, "await": cmdAwait, "printed": cmdPrinted, "signal": cmdSignal, "insist": cmdInsist, "end": cmdEnd, "job": cmdJob,
			"plugins": cmdPlugins, "plugin-pid": cmdPluginPID, "kill-plugins": cmdKillPlugins, "same": cmdSame, "u64": cmdU64,
			"count": cmdCount, "turns": cmdTurns,
		},
	})
}

// toolchain is what scripts that build a module need of the environment: the
// caches as they are, no network, and this checkout as SOURCE.
func toolchain(t *testing.T) []string {
	t.Helper()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	vars := []string{"SOURCE=" + source, "GOPROXY=off", "GOFLAGS="}
	for _, name := range []string{"GOCACHE", "GOMODCACHE"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		vars = append(vars, name+"="+strings.TrimSpace(string(out)))
	}
	return vars
}

func linkKernels(work string) error {
	dir := filepath.Join(work, "k")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for _, k := range kernels {
		path, err := filepath.Abs(k)
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(dir, filepath.Base(k))); err != nil {
			return err
		}
	}
	return nil
}

// background are the processes of one script.
type background struct {
	mu        sync.Mutex
	processes map[string]*process
}

type backgroundKey struct{}

func (*background) key() any { return backgroundKey{} }

// clean ends what a script has left behind.
func (b *background) clean(work string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.processes {
		p.kill()
	}
	_, _ = killPlugins(work)
}

func (b *background) add(name string, p *process) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.processes[name] = p
}

func of(ts *testscript.TestScript, name string) *process {
	b := ts.Value(backgroundKey{}).(*background)
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.processes[name]
	if p == nil {
		ts.Fatalf("nothing was started as %s", name)
	}
	return p
}

// want checks the form of a command: no negation, and at least so many arguments.
func want(ts *testscript.TestScript, neg bool, args []string, count int, usage string) {
	if neg || len(args) < count {
		ts.Fatalf("usage: %s", usage)
	}
}

// launch starts gpuwm; with points, it or its plugin stops there.
func launch(ts *testscript.TestScript, name, points string, args []string) *process {
	var env []string
	path := ts.Getenv("EXECUTABLE")
	if points != "" {
		path = ts.Getenv("CRASH")
		env = append(env, "GPUWM_STOP="+points)
	}
	for _, v := range []string{"PATH", "HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR",
		"GPUWM_DATA_DIR", "GPUWM_OUTPUT", "GPUWM_OUTPUT_DIR", "GPUWM_LOG_LEVEL", "GPUWM_LOG_FORMAT", "GPUWM_CONFIG", "GPUWM_RESTART"} {
		if value := ts.Getenv(v); value != "" {
			env = append(env, v+"="+value)
		}
	}
	p, err := start(path, ts.MkAbs("."), env, args, nil)
	ts.Check(err)
	ts.Value(backgroundKey{}).(*background).add(name, p)
	return p
}

func finish(ts *testscript.TestScript, p *process, want string) {
	code, err := p.end()
	ts.Check(err)
	_, _ = ts.Stdout().Write([]byte(p.stdout.String()))
	_, _ = ts.Stderr().Write([]byte(p.stderr()))
	got := strconv.Itoa(code)
	if code < 0 {
		got = "killed"
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s\n%s%s", got, want, p.stdout.String(), p.stderr())
	}
}

func cmdGpuwm(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "gpuwm CODE ARG...")
	finish(ts, launch(ts, "gpuwm", "", args[1:]), args[0])
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "start NAME ARG...")
	launch(ts, args[0], "", args[1:])
}

func cmdHold(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "hold NAME POINT ARG...")
	ts.Check(launch(ts, args[0], args[1], args[2:]).held())
}

func cmdHeld(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "held NAME")
	ts.Check(of(ts, args[0]).held())
}

func cmdHoldPlugin(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 4, "hold-plugin NAME DIR POINT ARG...")
	p, dir := launch(ts, args[0], args[2], args[3:]), ts.MkAbs(args[1])
	ts.Check(p.until("plugin stopped", func() bool { return slices.ContainsFunc(plugins(dir), stopped) }))
}

func cmdGoOn(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "go-on DIR")
	for _, pid := range plugins(ts.MkAbs(args[0])) {
		ts.Check(syscall.Kill(pid, syscall.SIGCONT))
	}
}

func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "await NAME REGEXP")
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	ts.Check(of(ts, args[0]).await(pattern))
}

func cmdPrinted(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "printed NAME REGEXP")
	pattern, err := regexp.Compile(args[1])
	ts.Check(err)
	p := of(ts, args[0])
	ts.Check(p.until("printed "+args[1], func() bool { return pattern.MatchString(p.stdout.String()) }))
}

func signalNamed(ts *testscript.TestScript, name string) os.Signal {
	signals := map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL, "CONT": syscall.SIGCONT}
	s, known := signals[name]
	if !known {
		ts.Fatalf("unknown signal %s", name)
	}
	return s
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "signal NAME SIGNAL...")
	for _, name := range args[1:] {
		ts.Check(of(ts, args[0]).cmd.Process.Signal(signalNamed(ts, name)))
	}
}

func cmdInsist(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "insist NAME SIGNAL")
	p, s := of(ts, args[0]), signalNamed(ts, args[1])
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for {
		select {
		case <-tick.C:
			_ = p.cmd.Process.Signal(s) // it may have ended just now
		case <-p.done:
			return
		case <-limit:
			return // end tells where it hangs
		}
	}
}

func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "end NAME CODE")
	finish(ts, of(ts, args[0]), args[1])
}

func cmdJob(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "job FILE JOB CONDITION...")
	jobs, err := parseJobs(ts.ReadFile(args[0]))
	ts.Check(err)
	i := slices.IndexFunc(jobs, func(j cli.JobView) bool { return j.Name == args[1] })
	if i < 0 {
		ts.Fatalf("no job %s in %s", args[1], args[0])
	}
	ts.Check(checkJob(jobs[i], args[2:]))
}

func cmdPlugins(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "plugins DIR COUNT")
	if pids := plugins(ts.MkAbs(args[0])); strconv.Itoa(len(pids)) != args[1] {
		ts.Fatalf("plugin processes %v of %s, want %s", pids, args[0], args[1])
	}
}

func cmdPluginPID(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "plugin-pid DIR NAME")
	pids := plugins(ts.MkAbs(args[0]))
	if len(pids) != 1 {
		ts.Fatalf("plugin processes %v of %s, want one", pids, args[0])
	}
	ts.Setenv(args[1], strconv.Itoa(pids[0]))
}

func cmdKillPlugins(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 1, "kill-plugins DIR")
	n, err := killPlugins(ts.MkAbs(args[0]))
	ts.Check(err)
	if n == 0 {
		ts.Fatalf("no plugin works for %s", args[0])
	}
}

func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 2, "same FILE FILE")
	a, b := []byte(ts.ReadFile(args[0])), []byte(ts.ReadFile(args[1]))
	if !bytes.Equal(a, b) {
		ts.Fatalf("%s and %s differ: %s", args[0], args[1], difference(a, b))
	}
}

// difference says where two files differ first.
func difference(a, b []byte) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("byte %d is %#x and %#x", i, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d and %d bytes", len(a), len(b))
}

func cmdU64(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "u64 FILE INDEX VALUE")
	index, err := strconv.Atoi(args[1])
	ts.Check(err)
	content := ts.ReadFile(args[0])
	if len(content) < 8*index+8 {
		ts.Fatalf("%s has %d bytes", args[0], len(content))
	}
	var got uint64
	for i := range 8 {
		got |= uint64(content[8*index+i]) << (8 * i)
	}
	if strconv.FormatUint(got, 10) != args[2] {
		ts.Fatalf("word %d of %s is %d, want %s", index, args[0], got, args[2])
	}
}

func cmdCount(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 3, "count FILE NUMBER REGEXP")
	pattern, err := regexp.Compile("(?m)" + args[2])
	ts.Check(err)
	if n := len(pattern.FindAllString(ts.ReadFile(args[0]), -1)); strconv.Itoa(n) != args[1] {
		ts.Fatalf("%d matches of %q in %s, want %s", n, args[2], args[0], args[1])
	}
}

func cmdTurns(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, args, 5, "turns LOG ENTITY JOB ENTITY JOB")
	ts.Check(tookTurns(ts.ReadFile(args[0]), args[1], args[2], args[3], args[4]))
}

// lines splits text without its last end of line.
func lines(text string) []string { return strings.Split(strings.TrimRight(text, "\n"), "\n") }
