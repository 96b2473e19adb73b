package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// testRole tells the test binary what to be instead of the tests.
const testRole = "GPUWM_TEST_ROLE"

// testCredits sets the credits of the test plugin's entities.
const testCredits = "GPUWM_TEST_CREDITS"

func TestMain(m *testing.M) {
	switch role := os.Getenv(testRole); {
	case role == "orphan":
		// A process with the instance's name and nothing else.
		select {}
	case role == "garbage":
		_, _ = os.Stdout.WriteString(string(bytes.Repeat([]byte("x"), 100_000)) + "\n")
		select {}
	case role == "elsewhere":
		_, _ = os.Stdout.WriteString("1|1|tcp|127.0.0.1:1|grpc|\n")
		select {}
	case role == "mute":
		select {}
	case role == "bare":
		serveBare()
	case role == "host":
		hostProcess()
	case os.Getenv(wire.CookieKey) == wire.CookieValue:
		if role == "noisy" {
			_, _ = os.Stderr.WriteString("{\"@message\": 1, \"@level\": 7}\n\x1b[31m\x00" + string(bytes.Repeat([]byte("y"), 200_000)) + "\n")
		}
		credits, _ := strconv.Atoi(os.Getenv(testCredits))
		backend := &memory.Backend{Credits: uint32(credits)}
		if role == "traced" {
			backend.TraceLines = traceLinesKept
		}
		sdk.Serve(backend)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// hostProcess starts a plugin, prints its record and dies without letting go.
func hostProcess() {
	// The plugin inherits it, and must not become a host itself.
	_ = os.Unsetenv(testRole)
	l, err := NewLauncher(testConfig(os.Getenv("GPUWM_TEST_DIR"), io.Discard))
	if err == nil {
		var prepared, record core.InstanceRecord
		if prepared, err = l.Prepare("memory", nil); err == nil {
			if _, record, err = l.Start(context.Background(), prepared); err == nil {
				err = writeRecord(os.Stdout, record)
			}
		}
	}
	if err != nil {
		_, _ = os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func testConfig(dir string, log io.Writer) Config {
	return Config{
		Executables: map[string]Command{"memory": {Path: "/proc/self/exe"}},
		Dir:         dir,
		Env:         []string{testRole, testCredits},
		Log:         hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Debug}),
	}
}

// syncBuffer is a buffer that two goroutines may use.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// bench is one launcher with a running plugin process.
type bench struct {
	t      testing.TB
	l      *Launcher
	log    *syncBuffer
	inst   *Instance
	record core.InstanceRecord
	events chan core.BackendEvent
}

func newLauncher(t testing.TB, change func(*Config)) (*Launcher, *syncBuffer) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	c := testConfig(filepath.Join(t.TempDir(), "instances"), log)
	c.Executables["memory"] = Command{Path: exe}
	if change != nil {
		change(&c)
	}
	l, err := NewLauncher(c)
	if err != nil {
		t.Fatal(err)
	}
	return l, log
}

func start(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, events: make(chan core.BackendEvent, 4096)}
	b.l, b.log = newLauncher(t, change)
	prepared, err := b.l.Prepare("memory", []core.DeviceSpec{{Name: "d0"}})
	if err != nil {
		t.Fatal(err)
	}
	if b.inst, b.record, err = b.l.Start(t.Context(), prepared); err != nil {
		t.Fatal(err, b.log)
	}
	t.Cleanup(func() {
		if err := b.l.End(context.Background(), b.record); err != nil {
			t.Error(err)
		}
		b.inst.Detach()
		if _, err := startTicks(b.record.Process.PID); !errors.Is(err, core.ErrGone) {
			t.Errorf("process is there after End: %v", err)
		}
		if err := b.l.Discard(b.record); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Dir(b.record.Address)); !os.IsNotExist(err) {
			t.Errorf("directory of sockets after Discard: %v", err)
		}
	})
	return b
}

// open opens a session that puts every event into b.events.
func (b *bench) open(session core.Session) *Link {
	b.t.Helper()
	k, err := b.inst.Open(b.t.Context(), core.DeviceSpec{Name: "d0", Backend: "memory", Engine: "none"}, session, b.put)
	if err != nil {
		b.t.Fatal(err)
	}
	return k
}

func (b *bench) put(events []core.BackendEvent) {
	for _, e := range events {
		if e.Kind != core.EventProgress {
			b.events <- e
		}
	}
}

// expect waits for the next event and checks its kind.
func (b *bench) expect(kind core.BackendEventKind) core.BackendEvent {
	b.t.Helper()
	select {
	case e := <-b.events:
		if e.Kind != kind {
			b.t.Fatalf("event %+v, want kind %d", e, kind)
		}
		return e
	case <-time.After(30 * time.Second):
		b.t.Fatalf("no event of kind %d; log:\n%s", kind, b.log)
	}
	panic("unreachable")
}

var testKernel = core.Kernel{Digest: core.DigestOf([]byte("code")), Format: core.FormatWasm, Code: []byte("code")}

func createCommand(entity core.EntityID, epoch core.Epoch, seq core.CommandSeq, size uint64) core.Command {
	return core.Command{Kind: core.CommandCreate, Entity: entity, Epoch: epoch, Seq: seq, Generation: 1, EntitySpec: &core.EntitySpec{
		ID: entity, Name: "e" + strconv.Itoa(int(entity)), Mode: core.ModeLongRunning, OnFailure: core.OnFailureStop,
		Buffers: []core.BufferSpec{{Name: "b", Size: size}},
	}}
}

func runCommand(entity core.EntityID, epoch core.Epoch, seq core.CommandSeq, job core.JobID, entry string) core.Command {
	return core.Command{Kind: core.CommandRun, Entity: entity, Epoch: epoch, Seq: seq, Job: job, JobSpec: &core.JobSpec{
		ID: job, Entity: entity, Seq: core.JobSeq(job), Name: "job", Entry: entry, Credits: 1,
		Kernels: map[string]core.Digest{core.FormatWasm: testKernel.Digest},
		Grid:    [3]uint32{16, 1, 1}, Group: [3]uint32{1, 1, 1}, Args: []core.Arg{{Kind: core.ArgBuffer, Buffer: "b"}},
	}}
}

func message(entity core.EntityID, epoch core.Epoch, seq core.CommandSeq, kind core.MessageKind) core.Command {
	return core.Command{Kind: core.CommandMessage, Entity: entity, Epoch: epoch, Seq: seq, Message: kind}
}

func image(entity core.EntityID, content []byte) core.ImageSource {
	return sdk.BufferImage(core.ImageHeader{
		Version: core.ImageVersion, Entity: entity, Backend: "memory", Private: []byte("private"),
		Buffers: []core.BufferSpec{{Name: "b", Size: uint64(len(content))}},
	}, [][]byte{content})
}

// create brings entity 1 onto the device with the content and the test's kernel.
func (b *bench) create(k *Link, epoch core.Epoch, seq core.CommandSeq, content []byte) {
	b.t.Helper()
	if !k.Send([]core.Command{createCommand(1, epoch, seq, uint64(len(content)))}) {
		b.t.Fatal("link down")
	}
	if err := b.inst.PutImage(b.t.Context(), "d0", 1, epoch, image(1, content)); err != nil {
		b.t.Fatal(err)
	}
	if err := b.inst.PutKernel(b.t.Context(), "d0", testKernel); err != nil {
		b.t.Fatal(err)
	}
	b.expect(core.EventApplied)
}

// sink is an image that was received.
type sink struct {
	have    map[core.Digest][]byte
	content [][]byte
	puts    int
	nils    int
}

func (s *sink) Has(d core.Digest) bool { return s.have[d] != nil }

func (s *sink) Put(ref core.ChunkRef, data []byte) error {
	s.puts++
	if data == nil {
		s.nils++
		data = s.have[ref.Digest]
	}
	for len(s.content) <= ref.Buffer {
		s.content = append(s.content, nil)
	}
	s.content[ref.Buffer] = append(s.content[ref.Buffer], data...)
	if s.have == nil {
		s.have = map[core.Digest][]byte{}
	}
	s.have[ref.Digest] = bytes.Clone(data)
	return nil
}

// carrier starts a process that carries an instance's name in its environment.
func carrier(t *testing.T, instance string) *exec.Cmd {
	t.Helper()
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), testRole+"=orphan", wire.EnvInstance+"="+instance)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(unix.SIGKILL); _ = cmd.Wait() })
	return cmd
}
