package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
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

	"golang.org/x/sys/unix"
)

// patience bounds every wait for a process under test. It only ends tests that
// hang; nothing is measured with it.
const patience = 90 * time.Second

// buildDir is where the executables under test are built.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gpuwm-build")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	pin()
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// coresMax is for how many cores the jobs of these tests have work: with more they
// would be over before what is to happen in their middle.
const coresMax = 2

// pin leaves this process, and those that it starts, that many of the cores that it may use.
func pin() {
	var may, own unix.CPUSet
	if unix.SchedGetaffinity(0, &may) != nil {
		return
	}
	for core := 0; own.Count() < coresMax && core < len(may)*bits.UintSize; core++ {
		if may.IsSet(core) {
			own.Set(core)
		}
	}
	threads, _ := os.ReadDir("/proc/self/task")
	for _, thread := range threads {
		if id, err := strconv.Atoi(thread.Name()); err == nil {
			_ = unix.SchedSetaffinity(id, &own) // it may have ended just now
		}
	}
}

// The executables under test, built when first needed.
var (
	gpuwmBinary  = builder("gpuwm", "github.com/gpuwm/gpuwm/cmd/gpuwm")
	crashBinary  = builder("gpuwm-crash", "-tags", "crashpoints", "github.com/gpuwm/gpuwm/cmd/gpuwm")
	pluginBinary = builder("gpuwm-guc", "github.com/gpuwm/gpuwm/plugins/guc/cmd/gpuwm-guc")
	agxBinary    = builder("gpuwm-agx", "github.com/gpuwm/gpuwm/plugins/agx/cmd/gpuwm-agx")
	maliBinary   = builder("gpuwm-mali", "github.com/gpuwm/gpuwm/plugins/mali/cmd/gpuwm-mali")
)

func builder(name string, args ...string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		path := filepath.Join(buildDir, name)
		out, err := exec.Command("go", append([]string{"build", "-o", path}, args...)...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
		return path, nil
	})
}

func binary(t testing.TB, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// output is what a process has printed so far.
type output struct {
	mu   sync.Mutex
	text []byte
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text)
}

// process is one gpuwm under test.
type process struct {
	cmd    *exec.Cmd
	stdout output
	// done is closed when the process has ended and its output is complete.
	done chan struct{}
	mu   struct {
		sync.Mutex
		lines   []string
		changed chan struct{} // closed at the next line
	}
	// seen counts the lines that await has passed.
	seen int
}

// start starts path in dir; env is the whole environment. watch, if not nil,
// sees every line of standard error before anybody else.
func start(path, dir string, env, args []string, watch func(string)) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.mu.changed = make(chan struct{})
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout = dir, env, &p.stdout
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		p.read(stderr, watch)
		_ = p.cmd.Wait() // the exit code is in ProcessState
	}()
	return p, nil
}

func (p *process) read(stderr io.Reader, watch func(string)) {
	in := bufio.NewReader(stderr)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			if watch != nil {
				watch(line)
			}
			p.mu.Lock()
			p.mu.lines = append(p.mu.lines, line)
			close(p.mu.changed)
			p.mu.changed = make(chan struct{})
			p.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// await returns when a line of standard error, behind those it has passed
// before, matches.
func (p *process) await(pattern *regexp.Regexp) error {
	limit := time.After(patience)
	for ended := false; ; {
		p.mu.Lock()
		lines, changed := p.mu.lines, p.mu.changed
		p.mu.Unlock()
		for p.seen < len(lines) {
			p.seen++
			if pattern.MatchString(lines[p.seen-1]) {
				return nil
			}
		}
		if ended {
			return fmt.Errorf("process ended before a line matched %q:\n%s", pattern, p.stderr())
		}
		select {
		case <-changed:
		case <-p.done:
			ended = true
		case <-limit:
			return fmt.Errorf("no line matched %q within %s:\n%s", pattern, patience, p.stderr())
		}
	}
}

// until returns when the condition holds, which it looks at again and again: no
// event tells it.
func (p *process) until(what string, holds func() bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("process ended before: %s\n%s", what, p.stderr())
		case <-limit:
			return fmt.Errorf("not within %s: %s\n%s", patience, what, p.stderr())
		}
	}
	return nil
}

// held returns when the process has stopped itself.
func (p *process) held() error {
	return p.until("gpuwm stopped", func() bool { return stopped(p.cmd.Process.Pid) })
}

// stopped reports whether a process was stopped by a signal.
func stopped(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false // gone
	}
	// The name before the state is in parentheses and may hold any.
	_, rest, _ := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	return strings.HasPrefix(rest, "T")
}

// stderr returns all lines so far.
func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.mu.lines, "\n") + "\n"
}

// end waits for the end and returns the exit code, or -1 for an end by SIGKILL.
func (p *process) end() (int, error) {
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // shows where it hangs
		select {
		case <-p.done:
		case <-time.After(patience):
			_ = p.cmd.Process.Kill()
		}
		return 0, fmt.Errorf("process did not end within %s:\n%s", patience, p.stderr())
	}
	if code := p.cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		return 0, fmt.Errorf("process ended by %v:\n%s", p.cmd.ProcessState, p.stderr())
	}
	return -1, nil
}

// kill ends the process, if it still runs, and waits for it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// plugins returns the pids of the plugin processes that work for a data
// directory. Zombies have no environment, so they do not count.
func plugins(dataDir string) []int {
	var pids []int
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range environs {
		environ, err := os.ReadFile(name)
		if err != nil {
			continue // gone, or somebody else's
		}
		if bytes.Contains(append([]byte{0}, environ...), []byte("\x00GPUWM_USAGE_FILE="+dataDir+"/")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// killPlugins ends the plugin processes of a data directory with SIGKILL and
// waits until they are gone.
func killPlugins(dataDir string) (int, error) {
	pids := plugins(dataDir)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return 0, err
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for slices.ContainsFunc(plugins(dataDir), func(pid int) bool { return slices.Contains(pids, pid) }) {
		select {
		case <-tick.C:
		case <-limit:
			return 0, fmt.Errorf("plugins %v outlive SIGKILL", pids)
		}
	}
	return len(pids), nil
}

// runtimeDir makes a directory for sockets, whose paths must be short.
func runtimeDir() (string, error) { return os.MkdirTemp(buildDir, "s") }

// environment is that of a process under test: nothing of the tester's own
// settings, and directories below home and runtime.
func environment(home, runtime string, more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_RUNTIME_DIR=" + runtime,
		"XDG_STATE_HOME=" + filepath.Join(home, "state"), "XDG_CONFIG_HOME=" + filepath.Join(home, "config"),
		"XDG_CACHE_HOME=" + filepath.Join(home, "cache"),
	}, more...)
}
