// Package output writes the bytes of a buffer to a result file, in the format
// that the deployment file asks for. A result file appears whole or not at
// all: it is written beside its place, synced, and renamed.
//
// The temporary name is fixed (see TemporaryPath), not random: what a crash
// leaves behind is overwritten by the next write and renamed, so that no
// rubbish gathers. Hence one writer per path at a time: a deployment has no two
// saves to one path, and a lock keeps two runs apart.
package output

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
)

// writeBuffer is how many bytes are gathered before they are written.
const writeBuffer = 256 << 10

// Write writes the bytes of a buffer, read from src to its end, as spec says,
// and returns when the file and its directory entry are on disk. The same
// bytes always give the same file. An error leaves an existing file as it was.
// Errors wrap core.ErrInvalid when spec and bytes do not fit each other.
// It blocks on the disk and may be called from any goroutine.
func Write(spec core.SaveSpec, src io.Reader) error {
	if err := write(spec, src); err != nil {
		return fmt.Errorf("write result file %s: %w", spec.Path, err)
	}
	return nil
}

// TemporaryPath is where the bytes of a result file are gathered.
func TemporaryPath(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".gpuwm-part")
}

func write(spec core.SaveSpec, src io.Reader) (err error) {
	encode := encoders[spec.Format]
	if encode == nil {
		return fmt.Errorf("%w: format %q", core.ErrInvalid, spec.Format)
	}
	part := TemporaryPath(spec.Path)
	f, err := create(part)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
		_ = f.Close() // last: with it goes the lock; the bytes are synced
	}()
	w := bufio.NewWriterSize(f, writeBuffer)
	if err := encode(w, spec, src); err != nil {
		return err
	}
	crash.Point("output.write.mid")
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	crash.Point("output.rename.before")
	if err := os.Rename(part, spec.Path); err != nil {
		return err
	}
	crash.Point("output.rename.after")
	return syncDirectory(filepath.Dir(spec.Path))
}

// createTries bounds how often create begins again because another writer has
// just renamed what it had opened.
const createTries = 100

// create opens an empty regular file and locks it. What else may be in its place
// is left as it is and refused: a link must not lead the bytes elsewhere, and a
// named pipe must not block.
func create(path string) (*os.File, error) {
	for range createTries {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
		if err != nil {
			return nil, err
		}
		own, err := lock(f, path)
		if err == nil && own {
			err = f.Truncate(0)
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if own {
			return f, nil
		}
		_ = f.Close()
	}
	return nil, fmt.Errorf("%s: %w", path, core.ErrBusy)
}

// lock locks f and reports whether it still is what stands at path.
func lock(f *os.File, path string) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, fmt.Errorf("%s: something that is not a regular file is in its place", path)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, fmt.Errorf("another run writes this file: %w", core.ErrBusy)
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
		// A file system without locks.
	case err != nil:
		return false, err
	}
	present, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(info, present), err
}

// syncDirectory makes a rename durable. File systems that cannot do that for
// directories say EINVAL, which is not the caller's concern.
func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if closed := d.Close(); err == nil {
		err = closed
	}
	if errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}
