package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	// handshakeMax bounds go-plugin's line on standard output.
	handshakeMax = 4096
	// lineMax bounds one line of a plugin's output; the rest is the next line.
	lineMax = 8 << 10
)

// child is a plugin process that was started here. It is go-plugin's runner,
// so that environment, standard streams, session and end are ours.
type child struct {
	launcher *Launcher
	command  Command
	record   core.InstanceRecord
	sockets  string
	log      hclog.Logger
	env      []string

	process *process
	// first is standard output up to the end of the handshake line.
	first *io.PipeReader
	// over is closed when the process ended or the host let go of it.
	over chan struct{}

	mu struct {
		sync.Mutex
		detached bool
		// pipes are closed by detach, or at once when they come after it.
		pipes []io.Closer
	}
}

var _ runner.Runner = (*child)(nil)

func newChild(l *Launcher, command Command, record core.InstanceRecord, sockets string) *child {
	return &child{
		launcher: l, command: command, record: record, sockets: sockets,
		log: l.log.With("plugin", record.Backend, "instance", record.Instance), over: make(chan struct{}),
	}
}

// runnerFunc hands the child to go-plugin; cmd carries only its environment.
func (c *child) runnerFunc(_ hclog.Logger, cmd *exec.Cmd, tmpDir string) (runner.Runner, error) {
	// go-plugin made a directory for sockets; ours is found from the record.
	_ = os.Remove(tmpDir)
	c.environment(cmd.Env)
	return c, nil
}

// envAllowed are the variables that a plugin inherits: what a process needs to
// find its way, what Go's runtime reads, and the plan of crashes of package
// core/crash. No pattern: a daemon's environment may hold secrets under any name,
// GPUWM_... and GO... among them.
var envAllowed = []string{
	"PATH", "HOME", "TMPDIR", "LANG", "TZ", "XDG_RUNTIME_DIR",
	"GOTRACEBACK", "GODEBUG", "GOMAXPROCS", "GOMEMLIMIT", "GOCOVERDIR",
	"GPUWM_CRASH", "GPUWM_CRASH_ONCE", "GPUWM_STOP",
}

// environment sets the child's variables: those allowed, then those of the
// handshake, then the launcher's own, so that later ones win.
func (c *child) environment(handshake []string) {
	allowed := append(append([]string(nil), envAllowed...), c.launcher.config.Env...)
	var env []string
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		for _, pattern := range allowed {
			prefix, wild := strings.CutSuffix(pattern, "*")
			if name == pattern || wild && strings.HasPrefix(name, prefix) {
				env = append(env, entry)
				break
			}
		}
	}
	env = append(env, handshake...)
	env = append(env, c.launcher.pluginEnv(c.record)...)
	c.env = append(env, plugin.EnvUnixSocketDir+"="+c.sockets)
}

// Start implements runner.Runner.
func (c *child) Start(context.Context) error {
	cmd := exec.Command(c.command.Path, c.command.Args...)
	cmd.Env = c.env
	cmd.Dir = c.record.Directory
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// Pipes of our own: those of exec.Cmd would be closed by Wait.
	outR, outW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(fmt.Errorf("pipe: %w", err), outR.Close(), outW.Close())
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	err = cmd.Start()
	_ = outW.Close()
	_ = errW.Close()
	if err != nil {
		return errors.Join(err, outR.Close(), errR.Close())
	}
	first, w := io.Pipe()
	c.first = first
	c.own(lastWords{outR}, lastWords{errR}, first)
	go func() {
		defer errR.Close()
		c.logLines("stderr", errR)
	}()
	go c.readOutput(outR, w)
	// One goroutine waits for the child as long as it lives, so that it leaves
	// no zombie.
	reaped := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(reaped)
		c.detach()
	}()
	c.record.Process, err = identify(cmd.Process.Pid)
	if err == nil {
		c.process, err = pin(cmd.Process.Pid)
	}
	if err == nil && c.command.Digest != nil && *c.command.Digest != c.record.Process.Executable {
		err = fmt.Errorf("executable %s changed while it was started: %w", c.command.Path, core.ErrInvalid)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		<-reaped
	}
	return err
}

// readOutput gives the first line to go-plugin and logs the rest.
func (c *child) readOutput(out io.ReadCloser, first *io.PipeWriter) {
	defer out.Close()
	in := bufio.NewReaderSize(out, handshakeMax)
	line, err := in.ReadSlice('\n')
	_, _ = first.Write(line)
	_ = first.CloseWithError(io.EOF)
	if err == nil || errors.Is(err, bufio.ErrBufferFull) {
		c.logLines("stdout", in)
	}
}

// logLines logs what the process prints before its log stream is up, or when it
// crashes. The bytes may be anything.
func (c *child) logLines(from string, r io.Reader) {
	in := bufio.NewReaderSize(r, lineMax)
	for {
		line, err := in.ReadSlice('\n')
		if text := strings.TrimSpace(printable(string(line))); text != "" {
			c.log.Info("plugin output", "stream", from, "line", text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// printable replaces what could confuse a terminal or a log.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !strconv.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// detach lets go: the pipes are closed, when they are empty, and go-plugin's goroutines end. The
// process is not touched. Idempotent.
func (c *child) detach() {
	c.mu.Lock()
	pipes, first := c.mu.pipes, !c.mu.detached
	c.mu.pipes, c.mu.detached = nil, true
	c.mu.Unlock()
	if first {
		close(c.over)
	}
	for _, p := range pipes {
		_ = p.Close()
	}
}

// lastWordsMax is how long output is read after the letting go: what a process
// said at its end, a panic perhaps, is still in the pipe then. One that is let
// go alive, or whose pipe somebody else holds, is not listened to any longer.
const lastWordsMax = 2 * time.Second

// lastWords lets a pipe be read to its end, within a bound; who reads closes it.
type lastWords struct{ pipe *os.File }

// Close implements io.Closer.
func (w lastWords) Close() error { return w.pipe.SetReadDeadline(time.Now().Add(lastWordsMax)) }

// own hands pipes to detach.
func (c *child) own(pipes ...io.Closer) {
	c.mu.Lock()
	c.mu.pipes = append(c.mu.pipes, pipes...)
	late := c.mu.detached
	c.mu.Unlock()
	if late {
		c.detach()
	}
}

// Wait implements runner.AttachedRunner.
func (c *child) Wait(context.Context) error {
	<-c.over
	return nil
}

// Kill implements runner.AttachedRunner; go-plugin calls it when the handshake
// fails. It returns at once, End waits.
func (c *child) Kill(context.Context) error {
	if c.process == nil {
		return nil
	}
	return c.process.signal(syscall.SIGKILL)
}

// Stdout implements runner.Runner.
func (c *child) Stdout() io.ReadCloser { return c.first }

// Stderr implements runner.Runner: go-plugin gets nothing to parse.
func (c *child) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name implements runner.Runner.
func (c *child) Name() string { return c.command.Path }

// ID implements runner.AttachedRunner.
func (c *child) ID() string { return strconv.Itoa(c.record.Process.PID) }

// Diagnose implements runner.Runner.
func (c *child) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.AddrTranslator. An address elsewhere than in
// the directory that the plugin was given is refused.
func (c *child) PluginToHost(network, address string) (string, string, error) {
	if network != "unix" || filepath.Dir(filepath.Clean(address)) != c.sockets {
		return "", "", fmt.Errorf("address %s %q: %w", network, printable(address), core.ErrInvalid)
	}
	return network, filepath.Clean(address), nil
}

// HostToPlugin implements runner.AddrTranslator.
func (c *child) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// adopted is a process that an earlier host started.
type adopted struct {
	process *process
	over    chan struct{}
	once    sync.Once
}

var _ runner.AttachedRunner = (*adopted)(nil)

func (a *adopted) detach() { a.once.Do(func() { close(a.over) }) }

// Wait implements runner.AttachedRunner.
func (a *adopted) Wait(context.Context) error {
	<-a.over
	return nil
}

// Kill implements runner.AttachedRunner. It is never needed: End ends processes.
func (a *adopted) Kill(context.Context) error { return nil }

// ID implements runner.AttachedRunner.
func (a *adopted) ID() string { return strconv.Itoa(a.process.pid) }

// PluginToHost implements runner.AddrTranslator.
func (a *adopted) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (a *adopted) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

func handshakeConfig() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion: wire.Protocol, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue,
	}
}
