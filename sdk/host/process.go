package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	// pollEvery bounds one wait in poll(2), so that a context is noticed.
	pollEvery = 50 * time.Millisecond
	// exitMax bounds the wait for a process that is ending already.
	exitMax = 10 * time.Second
	// environMax bounds what is read of a process's environment.
	environMax = 1 << 20
	// scansClean is how many scans in a row must find nothing: a child that was
	// forked before its parent died shows its name only after its exec.
	scansClean = 3
	scanEvery  = 20 * time.Millisecond
)

// process is a process pinned by a pidfd: what is signalled through it is what
// was verified, whatever becomes of the pid.
type process struct {
	pid int
	fd  int
}

// openProcess opens the process on record if it is the one that was started:
// same boot, same start time, same executable, and not a zombie. core.ErrGone
// says that it verifiably is not there any more.
func openProcess(record core.InstanceRecord) (*process, error) {
	want := record.Process
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if boot != want.BootID {
		return nil, fmt.Errorf("process %d was before the last boot: %w", want.PID, core.ErrGone)
	}
	p, err := pin(want.PID)
	if err != nil {
		return nil, err
	}
	ticks, err := startTicks(want.PID)
	if err == nil && ticks != want.StartTicks {
		err = fmt.Errorf("process %d is another one: %w", want.PID, core.ErrGone)
	}
	if err == nil {
		err = verifyExecutable(p, record)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// verifyExecutable compares the digest of the running executable. It was
// replaced by exec when it differs; the instance's name then tells whose it is.
// A process that has none is being taken apart by the system: its memory goes
// first, and only then does it become a zombie.
func verifyExecutable(p *process, record core.InstanceRecord) error {
	got, err := digestFile(procPath(record.Process.PID, "exe"))
	if errors.Is(err, fs.ErrNotExist) {
		if waited := p.waitFor(exitMax); waited != nil {
			return fmt.Errorf("process %d is ending: %w", record.Process.PID, waited)
		}
		return fmt.Errorf("process %d has ended: %w", record.Process.PID, core.ErrGone)
	}
	if err != nil {
		if _, alive := startTicks(record.Process.PID); alive != nil {
			return alive
		}
		return fmt.Errorf("executable of process %d: %w", record.Process.PID, err)
	}
	if got != record.Process.Executable && !carries(record.Process.PID, record.Instance) {
		return fmt.Errorf("process %d runs another executable: %w", record.Process.PID, core.ErrInvalid)
	}
	return nil
}

// pin opens a pidfd. core.ErrGone says that there is no such process.
func pin(pid int) (*process, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("process %d: %w", pid, core.ErrInvalid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("process %d: %w", pid, core.ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pid: pid, fd: fd}, nil
}

func (p *process) close() { _ = unix.Close(p.fd) }

// signal sends sig; a process that has ended is no error.
func (p *process) signal(sig unix.Signal) error {
	if err := unix.PidfdSendSignal(p.fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.pid, err)
	}
	return nil
}

// wait returns nil when the process has ended, as a zombie or altogether, and
// the cause of ctx when that comes first.
func (p *process) wait(ctx context.Context) error {
	for {
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(pollEvery/time.Millisecond))
		if n > 0 && fds[0].Revents != 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", p.pid, err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// waitFor is wait with a bound.
func (p *process) waitFor(bound time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	return p.wait(ctx)
}

// identify reads the identity of a running process.
func identify(pid int) (core.ProcessIdentity, error) {
	id := core.ProcessIdentity{PID: pid}
	var err error
	if id.BootID, err = bootID(); err != nil {
		return id, err
	}
	if id.StartTicks, err = startTicks(pid); err != nil {
		return id, err
	}
	if id.Executable, err = digestFile(procPath(pid, "exe")); err != nil {
		return id, fmt.Errorf("executable of process %d: %w", pid, err)
	}
	return id, nil
}

func procPath(pid int, file string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), file)
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// startTicks reads when the process started, in clock ticks since boot.
// core.ErrGone says that it is not there, or dead and not yet reaped.
func startTicks(pid int) (uint64, error) {
	b, err := os.ReadFile(procPath(pid, "stat"))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return 0, fmt.Errorf("process %d: %w", pid, core.ErrGone)
	}
	if err != nil {
		return 0, fmt.Errorf("read state of process %d: %w", pid, err)
	}
	return parseStat(pid, b)
}

// parseStat takes state (field 3) and start time (field 22) from a stat line;
// the name in field 2 may hold anything, also spaces and parentheses.
func parseStat(pid int, b []byte) (uint64, error) {
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	// Field 3 is the first one after the name.
	const state, start = 0, 22 - 3
	if len(fields) <= start || len(fields[state]) != 1 {
		return 0, fmt.Errorf("state of process %d: %w", pid, core.ErrCorrupt)
	}
	switch fields[state][0] {
	case 'Z', 'X', 'x':
		return 0, fmt.Errorf("process %d is dead: %w", pid, core.ErrGone)
	}
	ticks, err := strconv.ParseUint(string(fields[start]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("start of process %d: %w", pid, core.ErrCorrupt)
	}
	return ticks, nil
}

func digestFile(path string) (d core.Digest, err error) {
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return d, err
	}
	return core.Digest(h.Sum(nil)), nil
}

// carries says whether the process was started with the instance's name.
func carries(pid int, instance string) bool {
	f, err := os.Open(procPath(pid, "environ"))
	if err != nil {
		return false
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, environMax))
	want := wire.EnvInstance + "=" + instance
	for entry := range bytes.SplitSeq(b, []byte{0}) {
		if string(entry) == want {
			return true
		}
	}
	return false
}

// find lists the processes that carry the instance's name: the plugin, and
// whatever it started. This process is never among them.
func find(instance string) ([]*process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []*process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !carries(pid, instance) {
			continue
		}
		p, err := pin(pid)
		if err != nil {
			continue
		}
		// The pid may have changed hands before it was pinned.
		if _, err := startTicks(pid); err != nil || !carries(pid, instance) {
			p.close()
			continue
		}
		found = append(found, p)
	}
	return found, nil
}
