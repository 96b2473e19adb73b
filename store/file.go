package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// pageSize is fixed, so that a file made on a machine with pages of 64 KiB does
// not waste a quarter of the space of a chunk.
const pageSize = 4096

// lockTries and lockPause bound the wait for a lock whose holder is dead: 2 s.
const (
	lockTries = 100
	lockPause = 20 * time.Millisecond
)

// damagedMax bounds how many damaged copies of one file are kept.
const damagedMax = 1000

// takeLock locks dir for this process. start says since when or by what.
func takeLock(dir, start string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := lock(f); err != nil {
		defer func() { _ = f.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
		}
		who := holder(f)
		if who == "" {
			who = "a process that is just starting"
		}
		return nil, fmt.Errorf("lock data directory %s: held by %s: %w", dir, who, core.ErrBusy)
	}
	text := fmt.Sprintf("pid %d, %s\n", os.Getpid(), start)
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	return f, nil
}

// lock takes the lock of f. While the holder on record is dead it is tried again,
// up to lockTries times: a child that the holder was starting when it was killed
// has the lock until it becomes another program.
func lock(f *os.File) error {
	for tries := 1; ; tries++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || tries == lockTries {
			return err
		}
		var pid int
		if n, _ := fmt.Sscanf(holder(f), "pid %d,", &pid); n != 1 || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return err
		}
		<-time.After(lockPause)
	}
}

// holder returns what the process that has the lock wrote about itself.
func holder(f *os.File) string {
	text := make([]byte, 256)
	n, _ := f.ReadAt(text, 0)
	return strings.TrimSpace(string(text[:n]))
}

// guarded runs f, which calls only bbolt and decoders, and turns a panic over a
// damaged page, or a fault beyond the end of a cut file, into core.ErrCorrupt.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v: %w", p, core.ErrCorrupt)
		}
	}()
	return f()
}

// createFile makes a bbolt file with the content init writes. It appears under
// its name only when it is whole and on disk.
func createFile(path string, init func(*bolt.Tx) error) error {
	temporary := path + ".tmp"
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	db, err := bolt.Open(temporary, 0o600, fileOptions(time.Second))
	if err != nil {
		return err
	}
	err = db.Update(init)
	if err == nil {
		err = db.Sync()
	}
	if e := db.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(temporary)
		return err
	}
	return replaceFile(temporary, path)
}

// openFile opens an existing bbolt file. Errors wrap core.ErrCorrupt when the
// bytes are to blame, fs.ErrNotExist when there is none, core.ErrBusy when
// another process has it open for longer than timeout.
func openFile(path string, timeout time.Duration) (*bolt.DB, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: not a regular file: %w", path, core.ErrInvalid)
	}
	if info.Size() < 2*pageSize {
		return nil, fmt.Errorf("open %s: only %d bytes: %w", path, info.Size(), core.ErrCorrupt)
	}
	var db *bolt.DB
	var file *os.File
	options := fileOptions(timeout)
	options.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	err = guarded(func() error {
		db, err = bolt.Open(path, 0o600, options)
		if err != nil {
			return err
		}
		return db.View(func(tx *bolt.Tx) error {
			if tx.Size() > info.Size() {
				return fmt.Errorf("cut from %d to %d bytes: %w", tx.Size(), info.Size(), core.ErrCorrupt)
			}
			return nil
		})
	})
	switch {
	case err == nil:
		return db, nil
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum):
		err = fmt.Errorf("%w: %w", err, core.ErrCorrupt)
	case errors.Is(err, berrors.ErrTimeout):
		err = fmt.Errorf("open in another process: %w", core.ErrBusy)
	}
	if db != nil {
		_ = guarded(db.Close)
	} else if file != nil {
		_ = file.Close() // a panic in bolt.Open leaves it open, and locked
	}
	return nil, fmt.Errorf("open %s: %w", path, err)
}

func fileOptions(timeout time.Duration) *bolt.Options {
	return &bolt.Options{Timeout: timeout, PageSize: pageSize, FreelistType: bolt.FreelistMapType}
}

// moveAside renames path to `<path>.damaged-<n>` and returns n.
func moveAside(path string) (int, error) {
	n, err := freeNumber(path)
	if err != nil {
		return 0, err
	}
	if err := os.Rename(path, damagedName(path, n)); err != nil {
		return 0, fmt.Errorf("set aside: %w", err)
	}
	return n, syncDirectory(filepath.Dir(path))
}

// keepAside gives the file path the further name `<path>.damaged-<n>`, after it
// has renamed beside, if there is such, to the same n. path stays until it is
// replaced, so that a crash never leaves its place empty; after one, the same n
// serves again. between is called between the steps.
func keepAside(path, beside string, between func()) (int, error) {
	paths := []string{path}
	if beside != "" {
		paths = append(paths, beside)
	}
	n, err := freeNumber(paths...)
	if err != nil {
		return 0, err
	}
	if beside != "" {
		if err := os.Rename(beside, damagedName(beside, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("set aside: %w", err)
		}
		between()
	}
	err = os.Link(path, damagedName(path, n))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = copyFile(path, damagedName(path, n)) // a file system without links
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("keep %s: %w", path, err)
	}
	if err := syncDirectory(filepath.Dir(path)); err != nil {
		return 0, err
	}
	between()
	return n, nil
}

// copyFile copies a file to a new name, where it appears whole.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(to+".tmp", to)
	}
	return err
}

// freeNumber returns the least n for which no path that exists would take the
// place of something else.
func freeNumber(paths ...string) (int, error) {
	for n := 1; n <= damagedMax; n++ {
		taken := false
		for _, p := range paths {
			there, err := os.Lstat(damagedName(p, n))
			if err != nil {
				continue
			}
			present, err := os.Lstat(p)
			taken = taken || err == nil && !os.SameFile(there, present)
		}
		if !taken {
			return n, nil
		}
	}
	return 0, fmt.Errorf("set %s aside: %d damaged copies already", paths[0], damagedMax)
}

// asides returns how many files of that name were set aside.
func asides(path string) int {
	n := 0
	for n < damagedMax {
		if _, err := os.Lstat(damagedName(path, n+1)); err != nil {
			break
		}
		n++
	}
	return n
}

func damagedName(path string, n int) string { return fmt.Sprintf("%s.damaged-%d", path, n) }

// replaceFile renames from to to and makes that durable.
func replaceFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(to))
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}

// makeDirectory makes dir and what is missing above it, and has the entries of
// all that it made put on disk by sync.
func makeDirectory(dir string, sync func(string) error) error {
	var missing []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range missing {
		// Not every directory above may be read, or can be synced.
		err := sync(filepath.Dir(d))
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
	return nil
}
