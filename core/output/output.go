// Package output writes the bytes of a buffer to a result file, in the format
// that the deployment file asks for. A result file appears whole or not at
// all: it is written beside its place, synced, and renamed.
//
// The temporary name is fixed (see TemporaryPath), not random: what a crash
// leaves behind is overwritten by the next write and renamed, so that no
// rubbish gathers. Hence at most one writer per path at a time, which the
// caller ensures: a deployment has no two saves to one path.
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
			_ = f.Close()
			_ = os.Remove(part)
		}
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
	if err := f.Close(); err != nil {
		return err
	}
	crash.Point("output.rename.before")
	if err := os.Rename(part, spec.Path); err != nil {
		return err
	}
	crash.Point("output.rename.after")
	return syncDirectory(filepath.Dir(spec.Path))
}

// create opens an empty regular file. What else may be in its place is left as
// it is and refused: a link must not lead the bytes elsewhere, and a named pipe
// must not block.
func create(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: something that is not a regular file is in its place", path)
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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
