package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
)

func writeRecord(w io.Writer, r core.InstanceRecord) error { return json.NewEncoder(w).Encode(r) }

func TestJobGoesThroughAProcess(t *testing.T) {
	b := start(t, nil)
	if d := b.inst.Describe(); d.Name != "memory" {
		t.Errorf("described as %+v", d)
	}
	k := b.open(1)
	if k.Describe().Name != "d0" || len(k.Entities()) != 0 {
		t.Errorf("%+v holds %v", k.Describe(), k.Entities())
	}
	b.create(k, 1, 1, []byte{1, 2, 3})
	k.Send([]core.Command{runCommand(1, 1, 2, 7, memory.Fill), message(1, 1, 3, core.MessageSuspend)})
	b.expect(core.EventStarted)
	if e := b.expect(core.EventCompleted); e.Job != 7 || e.Done != 16 || e.Executed != 16 {
		t.Errorf("completed: %+v", e)
	}
	if e := b.expect(core.EventMessageDone); e.Cost <= 0 || e.Command != 3 {
		t.Errorf("suspended: %+v", e)
	}
	s := &sink{}
	h, err := b.inst.GetImage(t.Context(), "d0", 1, 1, s)
	if err != nil || string(h.Private) != "private" || !bytes.Equal(s.content[0], []byte{2, 3, 4}) {
		t.Errorf("image %+v, %v, %v", h, s.content, err)
	}
}

func TestHostDiesAndTheNextAdopts(t *testing.T) {
	dir := t.TempDir()
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), testRole+"=host", "GPUWM_TEST_DIR="+dir)
	out, _ := cmd.Output()
	var record core.InstanceRecord
	if err := json.Unmarshal(out, &record); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := NewLauncher(testConfig(dir, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	inst, err := l.Adopt(t.Context(), record)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, l: l, log: &syncBuffer{}, inst: inst, record: record, events: make(chan core.BackendEvent, 64)}
	k := b.open(1)
	b.create(k, 1, 1, []byte{1})

	// Let go, and adopt again: the entity and its unacknowledged event are there.
	inst.Detach()
	<-k.Down()
	if k.Send([]core.Command{message(1, 1, 2, core.MessageSuspend)}) {
		t.Error("a link that is down took a command")
	}
	if b.inst, err = l.Adopt(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	k = b.open(2)
	if e := b.expect(core.EventApplied); e.Seq != 1 {
		t.Errorf("event came again as %+v", e)
	}
	if held := k.Entities(); len(held) != 1 || held[0] != (HeldEntity{1, 1, 1}) {
		t.Errorf("held: %v", held)
	}
	if err := l.End(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	<-b.inst.Gone()
	if _, err := l.Adopt(t.Context(), record); !errors.Is(err, core.ErrGone) {
		t.Errorf("adopt after the end: %v", err)
	}
	if err := l.End(t.Context(), record); err != nil {
		t.Errorf("second end: %v", err)
	}
	if err := l.Discard(record); err != nil {
		t.Error(err)
	}
}

func TestPluginKilledIsNoticed(t *testing.T) {
	b := start(t, nil)
	k := b.open(1)
	if err := syscall.Kill(b.record.Process.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-b.inst.Gone()
	<-k.Down()
	if _, err := b.inst.Open(t.Context(), core.DeviceSpec{Name: "d0"}, 2, b.put); err == nil {
		t.Error("a dead instance opened a session")
	}
}

func TestStoppedPluginIsNoticedAndEnded(t *testing.T) {
	b := start(t, func(c *Config) {
		c.Bounds = Bounds{Health: time.Second, HealthEvery: 50 * time.Millisecond, Shutdown: 100 * time.Millisecond, Term: 100 * time.Millisecond}
	})
	if err := syscall.Kill(b.record.Process.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-b.inst.Gone()
	if err := b.l.End(t.Context(), b.record); err != nil {
		t.Fatal(err)
	}
	if _, err := openProcess(b.record); !errors.Is(err, core.ErrGone) {
		t.Errorf("after End: %v", err)
	}
}

func TestEndOfACancelledContextStillEnds(t *testing.T) {
	b := start(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.l.End(ctx, b.record); err != nil {
		t.Fatal(err)
	}
}

func TestPreparedRecordFindsItsProcess(t *testing.T) {
	l, _ := newLauncher(t, nil)
	record, err := l.Prepare("memory", nil)
	if err != nil {
		t.Fatal(err)
	}
	bystander := carrier(t, record.Instance+"0")
	cmd := carrier(t, record.Instance)
	if _, err := l.Adopt(t.Context(), record); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("adopt of a prepared record: %v", err)
	}
	if err := l.End(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if _, err := startTicks(cmd.Process.Pid); !errors.Is(err, core.ErrGone) {
		t.Errorf("the process lives: %v", err)
	}
	if _, err := startTicks(bystander.Process.Pid); err != nil {
		t.Errorf("another instance's process was ended: %v", err)
	}
	if err := l.Discard(record); err != nil {
		t.Error(err)
	}
}

func TestIdentityIsVerified(t *testing.T) {
	b := start(t, nil)
	for name, change := range map[string]func(*core.InstanceRecord){
		"start time": func(r *core.InstanceRecord) { r.Process.StartTicks++ },
		"boot":       func(r *core.InstanceRecord) { r.Process.BootID = "other" },
	} {
		r := b.record
		change(&r)
		if _, err := b.l.Adopt(t.Context(), r); !errors.Is(err, core.ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
		// End must not touch the process of that pid, whose name is another.
		r.Instance = "0123456789abcdef"
		if err := b.l.End(t.Context(), r); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := b.inst.health(); err != nil {
			t.Errorf("%s: another process was ended: %v", name, err)
		}
	}
	r := b.record
	r.Process.Executable[0]++
	r.Instance = "0123456789abcdef"
	if err := b.l.End(t.Context(), r); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("executable: %v", err)
	}
	if _, err := b.l.Adopt(t.Context(), r); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("executable: %v", err)
	}
}

func TestOutputOfAPluginCannotHurt(t *testing.T) {
	t.Setenv(testRole, "noisy")
	b := start(t, nil)
	k := b.open(1)
	b.create(k, 1, 1, []byte{1})
	// Twenty thousand lines more than any pipe holds.
	k.Send([]core.Command{runCommand(1, 1, 2, 1, memory.Print)})
	b.expect(core.EventStarted)
	b.expect(core.EventCompleted)
	if strings.ContainsAny(b.log.String(), "\x00\x1b") {
		t.Error("control characters reach the log")
	}
}

func TestPanicOfABackendIsLogged(t *testing.T) {
	b := start(t, nil)
	k := b.open(1)
	b.create(k, 1, 1, []byte{1})
	k.Send([]core.Command{runCommand(1, 1, 2, 1, memory.Panic)})
	<-b.inst.Gone()
	if err := b.l.End(t.Context(), b.record); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool {
		return strings.Contains(b.log.String(), "backend panicked in run of device d0: asked for")
	})
}

// waitBound bounds waitUntil; it says only that something hangs.
const waitBound = 30 * time.Second

// waitUntil polls.
func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(time.Millisecond), time.NewTimer(waitBound)
	defer tick.Stop()
	defer limit.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("did not happen within %s", waitBound)
		}
	}
}

func TestBadPluginsDoNotStart(t *testing.T) {
	for _, role := range []string{"garbage", "elsewhere", "mute"} {
		t.Run(role, func(t *testing.T) {
			t.Setenv(testRole, role)
			l, _ := newLauncher(t, func(c *Config) { c.Bounds.Start = 500 * time.Millisecond })
			record, err := l.Prepare("memory", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Start(t.Context(), record); err == nil {
				t.Fatal("it started")
			}
			if left, err := find(record.Instance); len(left) != 0 || err != nil {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if err := l.Discard(record); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExecutableMustHaveItsDigest(t *testing.T) {
	exe, _ := os.Executable()
	right, err := digestFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	start(t, func(c *Config) { c.Executables["memory"] = Command{Path: exe, Digest: &right} })
	wrong := right
	wrong[3]++
	l, _ := newLauncher(t, func(c *Config) { c.Executables["memory"] = Command{Path: exe, Digest: &wrong} })
	record, err := l.Prepare("memory", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Start(t.Context(), record); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("wrong digest: %v", err)
	}
}

func TestLeaseEndsAnAbandonedPlugin(t *testing.T) {
	b := start(t, func(c *Config) { c.Lease = time.Second })
	p, err := openProcess(b.record)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	b.inst.Detach()
	if err := p.waitFor(time.Minute); err != nil {
		t.Fatal("the process outlived its lease")
	}
}

func TestLongDataDirectory(t *testing.T) {
	start(t, func(c *Config) { c.Dir = filepath.Join(c.Dir, strings.Repeat("a-long-name/", 20)) })
}

func TestDiscardRemovesOnlyItsOwn(t *testing.T) {
	l, _ := newLauncher(t, nil)
	other := t.TempDir()
	for _, r := range []core.InstanceRecord{
		{Instance: filepath.Base(other), Directory: other}, {Instance: "", Directory: l.config.Dir}, {Instance: "..", Directory: l.config.Dir + "/.."},
	} {
		if err := l.Discard(r); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%v: %v", r.Directory, err)
		}
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

func TestStatLines(t *testing.T) {
	tail := " 1 1 1 0 -1 4194560 1 0 0 0 1 1 0 0 20 0 1 0 4242 1 1"
	if ticks, err := parseStat(1, []byte("1 (a) b) (c) S"+tail)); ticks != 4242 || err != nil {
		t.Error(ticks, err)
	}
	if _, err := parseStat(1, []byte("1 (a) Z"+tail)); !errors.Is(err, core.ErrGone) {
		t.Errorf("zombie: %v", err)
	}
	for _, bad := range []string{"", "1 (a)", "1 (a) S 1 2", "1 (a) S" + strings.Replace(tail, "4242", "x", 1)} {
		if _, err := parseStat(1, []byte(bad)); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestPluginsInheritNoSecrets: only variables that are named arrive.
func TestPluginsInheritNoSecrets(t *testing.T) {
	for _, name := range []string{"GPUWM_API_TOKEN", "GPUWM_CRASHED", "GOAUTH", "GOPROXY", "SECRET", "PATHS"} {
		t.Setenv(name, "secret")
	}
	for _, name := range []string{"LANG", "GOTRACEBACK", "GPUWM_CRASH"} {
		t.Setenv(name, "welcome")
	}
	b := start(t, nil)
	environ, err := os.ReadFile("/proc/" + strconv.Itoa(b.record.Process.PID) + "/environ")
	if err != nil {
		t.Fatal(err)
	}
	for entry := range strings.SplitSeq(string(environ), "\x00") {
		if strings.HasSuffix(entry, "=secret") {
			t.Errorf("%s arrives", entry)
		}
	}
	if n := strings.Count(string(environ), "=welcome"); n != 3 {
		t.Errorf("%d of 3 variables arrive", n)
	}
}
