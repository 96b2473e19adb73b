package host

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	"github.com/gpuwm/gpuwm/core/usage"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Command says how the plugin of a backend is executed.
type Command struct {
	Path string
	Args []string
	// Digest, when set, is what the executable must be.
	Digest *core.Digest
}

// Config is what a launcher needs.
type Config struct {
	// Executables are the plugins by backend.
	Executables map[string]Command
	// Dir holds one directory for each instance; it is made with mode 0700.
	Dir string
	// Lease is how long a plugin lives without a host; at least a second, a
	// minute when zero.
	Lease time.Duration
	// Log receives what the launcher does and the log lines of the plugins.
	Log hclog.Logger
	// Env are the names of environment variables that plugins inherit besides
	// those of envAllowed; a name may end with *.
	Env []string
	// Bounds, where not zero, replace the defaults.
	Bounds Bounds
}

// Bounds are how long the launcher waits for a process.
type Bounds struct {
	// Start bounds handshake and hello, 30 s by default.
	Start time.Duration
	// Health is the deadline of one health call, and HealthEvery the interval;
	// 20 s and 5 s. An instance that misses the deadline counts as gone.
	Health, HealthEvery time.Duration
	// Shutdown bounds the orderly end, 10 s; Term the time between SIGTERM and
	// SIGKILL, 3 s; Kill the time until a killed process must be gone, 10 s.
	Shutdown, Term, Kill time.Duration
}

func (b Bounds) filled() Bounds {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&b.Start, 30*time.Second)
	set(&b.Health, 20*time.Second)
	set(&b.HealthEvery, 5*time.Second)
	set(&b.Shutdown, 10*time.Second)
	set(&b.Term, 3*time.Second)
	set(&b.Kill, 10*time.Second)
	return b
}

const (
	leaseDefault = time.Minute
	leaseMin     = time.Second
	// nameBytes is how many random bytes name an instance, in hexadecimal.
	nameBytes = 8
	// usageName and socketsName are inside an instance's directory; the second
	// is a link to the short directory that holds its socket.
	usageName   = "usage"
	socketsName = "sockets"
	// socketDirPrefix begins the name of such a directory.
	socketDirPrefix = "gpuwm-"
	// socketDirMax leaves room for go-plugin's file name (6 letters and up to
	// 10 digits, a slash) in the 108 bytes of a socket's address, its final 0 included.
	socketDirMax = 108 - 1 - 17
)

// Launcher starts, adopts and ends plugin processes. Its methods may be called
// from any goroutine.
type Launcher struct {
	config Config
	log    hclog.Logger
	mu     struct {
		sync.Mutex
		// live are the instances this launcher is attached to, by name.
		live map[string]*Instance
	}
}

// NewLauncher checks the configuration and makes the directory.
func NewLauncher(c Config) (*Launcher, error) {
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	if c.Lease == 0 {
		c.Lease = leaseDefault
	}
	if c.Lease < leaseMin {
		return nil, fmt.Errorf("lease of %v: less than %v: %w", c.Lease, leaseMin, core.ErrInvalid)
	}
	if c.Dir == "" {
		return nil, fmt.Errorf("directory of instances is not set: %w", core.ErrInvalid)
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return nil, fmt.Errorf("directory of instances: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of instances: %w", err)
	}
	executables := make(map[string]Command, len(c.Executables))
	for backend, command := range c.Executables {
		// A plugin runs in its instance's directory, so that its path must not
		// depend on ours.
		if command.Path, err = filepath.Abs(command.Path); err != nil {
			return nil, fmt.Errorf("executable of backend %s: %w", backend, err)
		}
		executables[backend] = command
	}
	c.Executables = executables
	c.Bounds = c.Bounds.filled()
	l := &Launcher{config: c, log: c.Log}
	l.mu.live = make(map[string]*Instance)
	return l, nil
}

// Prepare makes the record of an instance that is about to be started: a fresh
// name and its directory.
func (l *Launcher) Prepare(backend string, devices []core.DeviceSpec) (core.InstanceRecord, error) {
	if _, known := l.config.Executables[backend]; !known {
		return core.InstanceRecord{}, fmt.Errorf("plugin of backend %q: %w", backend, core.ErrNotFound)
	}
	var random [nameBytes]byte
	if _, err := rand.Read(random[:]); err != nil {
		return core.InstanceRecord{}, fmt.Errorf("name an instance: %w", err)
	}
	name := hex.EncodeToString(random[:])
	dir := filepath.Join(l.config.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return core.InstanceRecord{}, fmt.Errorf("make directory of instance: %w", err)
	}
	return core.InstanceRecord{Backend: backend, Instance: name, Directory: dir, Devices: devices}, nil
}

// Start starts the process of a prepared record and returns the record
// completed with its identity and address. ctx bounds the start, not the life.
func (l *Launcher) Start(ctx context.Context, prepared core.InstanceRecord) (*Instance, core.InstanceRecord, error) {
	command, known := l.config.Executables[prepared.Backend]
	if !known {
		return nil, prepared, fmt.Errorf("plugin of backend %q: %w", prepared.Backend, core.ErrNotFound)
	}
	if command.Digest != nil {
		if got, err := digestFile(command.Path); err != nil || got != *command.Digest {
			return nil, prepared, fmt.Errorf("executable %s: digest %s is not the configured %s: %w",
				command.Path, got, command.Digest, errors.Join(core.ErrInvalid, err))
		}
	}
	sockets, err := makeSocketDir(prepared)
	if err != nil {
		return nil, prepared, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.config.Bounds.Start)
	defer cancel()
	crash.Point("host.start.before")
	c := newChild(l, command, prepared, sockets)
	inst, record, err := l.launch(ctx, c)
	if err != nil {
		c.detach()
		if c.process != nil {
			c.process.close()
		}
		if endErr := l.End(context.WithoutCancel(ctx), record); endErr != nil {
			err = errors.Join(err, endErr)
		}
		return nil, prepared, fmt.Errorf("start plugin %s: %w", prepared.Backend, err)
	}
	crash.Point("host.start.after")
	return inst, record, nil
}

// Adopt attaches to the process on record after verifying its identity.
// core.ErrGone means that it is verifiably not running any more. A record that
// was never completed can't be adopted, only ended.
func (l *Launcher) Adopt(ctx context.Context, record core.InstanceRecord) (*Instance, error) {
	crash.Point("host.adopt.before")
	if record.Process.PID == 0 || record.Address == "" {
		return nil, fmt.Errorf("adopt instance %s: its start was not recorded: %w", record.Instance, core.ErrInvalid)
	}
	if l.foreign(record) {
		return nil, fmt.Errorf("adopt instance %s: it belongs to another data directory: %w", record.Instance, core.ErrGone)
	}
	if l.moved(record) {
		// Its directory is not where it believes: ended, and begun anew here.
		return nil, fmt.Errorf("adopt instance %s: its data directory was moved: %w", record.Instance, core.ErrInvalid)
	}
	p, err := openProcess(record)
	if err != nil {
		return nil, fmt.Errorf("adopt instance %s: %w", record.Instance, err)
	}
	ctx, cancel := context.WithTimeout(ctx, l.config.Bounds.Start)
	defer cancel()
	inst, err := l.reattach(ctx, p, record)
	if err != nil {
		return nil, fmt.Errorf("adopt instance %s: %w", record.Instance, err)
	}
	return inst, nil
}

// Outdated reports whether the executable of the record's backend is now another
// than its process was started from. What can't be read is not outdated: there
// would be nothing to start in its place.
func (l *Launcher) Outdated(record core.InstanceRecord) bool {
	command, known := l.config.Executables[record.Backend]
	if !known {
		return false
	}
	digest, err := digestFile(command.Path)
	return err == nil && digest != record.Process.Executable
}

// Usage reads how many workgroups the engines of the instance ran.
func (l *Launcher) Usage(record core.InstanceRecord) (map[usage.Key]uint64, error) {
	record = l.located(record)
	if err := l.owns(record); err != nil {
		return nil, err
	}
	return usage.Read(filepath.Join(record.Directory, usageName))
}

// Discard removes what is left of an ended instance on disk. The sockets of one
// that lives stay: its directory here came with a copy of another data directory.
func (l *Launcher) Discard(record core.InstanceRecord) error {
	record = l.located(record)
	if err := l.owns(record); err != nil {
		return err
	}
	if err := discardSockets(record); err != nil {
		return fmt.Errorf("discard instance %s: %w", record.Instance, err)
	}
	if crash.Keep(record.Directory) {
		return nil
	}
	if err := os.RemoveAll(record.Directory); err != nil {
		return fmt.Errorf("discard instance %s: %w", record.Instance, err)
	}
	return nil
}

// discardSockets removes the directory of an instance's sockets, unless a process
// of that name lives.
func discardSockets(record core.InstanceRecord) error {
	sockets, err := os.Readlink(filepath.Join(record.Directory, socketsName))
	if err != nil || filepath.Base(sockets) != socketDirPrefix+record.Instance {
		return nil
	}
	living, err := find(record.Instance)
	for _, p := range living {
		p.close()
	}
	if err != nil || len(living) > 0 {
		return err
	}
	return os.RemoveAll(sockets)
}

// Sweep removes what crashes left of instances that keep does not know: a
// directory is made before its instance is on record, and no process before that.
func (l *Launcher) Sweep(keep func(instance string) bool) error {
	entries, err := os.ReadDir(l.config.Dir)
	if err != nil {
		return fmt.Errorf("sweep instances: %w", err)
	}
	for _, entry := range entries {
		rec := core.InstanceRecord{Instance: entry.Name(), Directory: filepath.Join(l.config.Dir, entry.Name())}
		if keep(rec.Instance) || l.owns(rec) != nil {
			continue
		}
		if err := l.Discard(rec); err != nil {
			return err
		}
	}
	return nil
}

// foreign says whether the record came with a copy of another data directory,
// which its process still serves.
func (l *Launcher) foreign(record core.InstanceRecord) bool {
	return record.Directory != "" && !l.holds(record.Directory) && !l.moved(record)
}

// moved says whether the launcher's directory had another place when the record
// was made: where its instance was, there is no directory of instances any more.
func (l *Launcher) moved(record core.InstanceRecord) bool {
	if record.Directory == "" || l.holds(record.Directory) {
		return false
	}
	_, err := os.Stat(filepath.Dir(record.Directory))
	return errors.Is(err, fs.ErrNotExist)
}

// located returns the record with the directory that it has now.
func (l *Launcher) located(record core.InstanceRecord) core.InstanceRecord {
	if l.moved(record) {
		record.Directory = filepath.Join(l.config.Dir, filepath.Base(record.Directory))
	}
	return record
}

// holds says whether dir stands, or would stand, in the launcher's directory,
// whatever path leads there.
func (l *Launcher) holds(dir string) bool {
	parent := filepath.Dir(dir)
	if parent == l.config.Dir {
		return true
	}
	theirs, err := os.Stat(parent)
	if err != nil {
		return false
	}
	ours, err := os.Stat(l.config.Dir)
	return err == nil && os.SameFile(theirs, ours)
}

// owns says whether the record's directory is one that Prepare made here, so
// that a damaged record cannot make us read or remove something else.
func (l *Launcher) owns(record core.InstanceRecord) error {
	name, err := hex.DecodeString(record.Instance)
	if err != nil || len(name) != nameBytes || filepath.Base(record.Directory) != record.Instance ||
		!l.holds(record.Directory) {
		return fmt.Errorf("directory %s of instance %q is not in %s: %w",
			record.Directory, record.Instance, l.config.Dir, core.ErrInvalid)
	}
	return nil
}

// makeSocketDir makes a directory whose path is short enough for a socket, and
// leaves a link to it in the instance's directory. Its name follows from the
// instance, so that a crash leaves nothing that the record does not find.
func makeSocketDir(record core.InstanceRecord) (string, error) {
	var why error
	for _, base := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		dir := filepath.Join(base, socketDirPrefix+record.Instance)
		if !filepath.IsAbs(base) || len(dir) > socketDirMax {
			continue
		}
		link := filepath.Join(record.Directory, socketsName)
		if err := os.Symlink(dir, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("link to directory of sockets: %w", err)
		}
		// An existing directory is refused: somebody else may have made it.
		if err := os.Mkdir(dir, 0o700); err != nil {
			_ = os.Remove(link)
			why = err
			continue
		}
		return dir, nil
	}
	return "", fmt.Errorf("directory for sockets shorter than %d bytes: %w", socketDirMax, errors.Join(core.ErrInvalid, why))
}

func (l *Launcher) attached(i *Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.live[i.record.Instance] = i
}

func (l *Launcher) detached(i *Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.live[i.record.Instance] == i {
		delete(l.mu.live, i.record.Instance)
	}
}

// pluginEnv are the variables every plugin gets from the launcher itself.
func (l *Launcher) pluginEnv(record core.InstanceRecord) []string {
	return []string{
		wire.EnvInstance + "=" + record.Instance,
		wire.EnvLease + "=" + l.config.Lease.String(),
		wire.EnvUsageFile + "=" + filepath.Join(record.Directory, usageName),
		wire.EnvLogLevel + "=" + l.log.GetLevel().String(),
	}
}
