package configs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gpuwm/gpuwm/core"
)

// kernelMax bounds the bytes of one kernel file.
const kernelMax = 64 << 20

// writable is the access mode bit for writing.
const writable = 2

// resultNameMax bounds the name of a result file: beside it, for a while, is one
// whose name is longer (output.TemporaryPath), and Linux takes 255 bytes.
const resultNameMax = 255 - len(".") - len(".gpuwm-part")

// files reads the inputs that a deployment names and looks at its output
// places. Each file is read once.
type files struct {
	*problems
	dir, outputDir string
	kernels        map[string][]byte
	inputs         map[string]BufferInit
	// outputs and read map paths to the line that names them.
	outputs, read map[string]int
	// places remembers directories that were looked at.
	places map[string]string
}

func newFiles(dir, outputDir string, p *problems) *files {
	return &files{
		problems: p, dir: dir, outputDir: outputDir,
		kernels: map[string][]byte{}, inputs: map[string]BufferInit{},
		outputs: map[string]int{}, read: map[string]int{}, places: map[string]string{},
	}
}

// path returns the absolute path of an input named in the file.
func (f *files) path(v *value) string {
	if filepath.IsAbs(v.text) {
		return filepath.Clean(v.text)
	}
	return filepath.Join(f.dir, v.text)
}

// open opens an input; it must be a regular file that is not empty.
func (f *files) open(path string) (*os.File, int64, error) {
	// Looking before opening keeps a named pipe from blocking.
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("not a regular file")
	}
	if info.Size() == 0 {
		return nil, 0, errors.New("the file is empty")
	}
	file, err := os.Open(path)
	return file, info.Size(), err
}

// reason is an error of the file system without the path, which the message has already.
func reason(err error) string {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// pathHint is what to look at when an input is missing.
func pathHint(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "paths are relative to the file"
	}
	return ""
}

// kernel returns the bytes of a kernel file.
func (f *files) kernel(v *value) ([]byte, bool) {
	path := f.path(v)
	if code, ok := f.kernels[path]; ok {
		return code, true
	}
	code, err := f.readKernel(path)
	if err != nil {
		f.add(v.node, pathHint(err), "kernel file %s: %s", shorten(v.text), reason(err))
		return nil, false
	}
	f.kernels[path] = code
	f.noteRead(path, v)
	return code, true
}

func (f *files) readKernel(path string) ([]byte, error) {
	file, size, err := f.open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if size > kernelMax {
		return nil, fmt.Errorf("longer than %s", formatSize(kernelMax))
	}
	return io.ReadAll(io.LimitReader(file, kernelMax))
}

// input returns length and digest of a buffer's file.
func (f *files) input(v *value) (BufferInit, bool) {
	path := f.path(v)
	if init, ok := f.inputs[path]; ok {
		return init, true
	}
	init, err := f.digest(path)
	if err != nil {
		f.add(v.node, pathHint(err), "input file %s: %s", shorten(v.text), reason(err))
		return BufferInit{}, false
	}
	f.inputs[path] = init
	f.noteRead(path, v)
	return init, true
}

func (f *files) digest(path string) (BufferInit, error) {
	file, size, err := f.open(path)
	if err != nil {
		return BufferInit{}, err
	}
	defer file.Close()
	if size > bufferMax {
		return BufferInit{}, fmt.Errorf("longer than %s", formatSize(bufferMax))
	}
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(file, bufferMax))
	if err != nil {
		return BufferInit{}, err
	}
	return BufferInit{Path: path, Length: uint64(n), Digest: core.Digest(h.Sum(nil))}, nil
}

// noteRead remembers an input, so that no save overwrites it.
func (f *files) noteRead(path string, v *value) {
	path = realPath(path)
	if f.read[path] == 0 {
		f.read[path] = v.node.Line
	}
	if line, taken := f.outputs[path]; taken {
		f.add(v.node, "", "%s is also a result file, in line %d", shorten(v.text), line)
	}
}

// output returns the absolute path of a result file, after looking whether it
// could be written. It creates nothing.
func (f *files) output(v *value) (string, bool) {
	base, err := filepath.Abs(f.outputDir)
	if err != nil {
		f.add(v.node, "", "output directory: %v", err)
		return "", false
	}
	path := filepath.Clean(v.text)
	if !filepath.IsAbs(path) {
		// The output directory itself is reported once, by its own name.
		if bad, seen := f.place(base); bad != "" {
			if !seen {
				f.add(v.node, outputDirHint(base), "output directory %s: %s", f.outputDirShown(), bad)
			}
			return "", false
		}
		path = filepath.Join(base, path)
	}
	parent := filepath.Dir(path)
	if bad, seen := f.place(parent); bad != "" {
		if !seen {
			f.add(v.node, "create the directory first", "result file %s: its directory: %s", shorten(v.text), bad)
		}
		return "", false
	}
	if n := len(filepath.Base(path)); n > resultNameMax {
		f.add(v.node, "", "result file %s: its name has %d bytes, at most %d will do", shorten(v.text), n, resultNameMax)
		return "", false
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f.add(v.node, "", "result file %s: something that is not a regular file is in its place", shorten(v.text))
		return "", false
	}
	real := realPath(path)
	if line, taken := f.outputs[real]; taken {
		f.add(v.node, "", "result file %s: already written by the save in line %d", shorten(v.text), line)
		return "", false
	}
	f.outputs[real] = v.node.Line
	if line, taken := f.read[real]; taken {
		f.add(v.node, "", "result file %s: would overwrite the input of line %d", shorten(v.text), line)
		return "", false
	}
	return path, true
}

func (f *files) outputDirShown() string {
	if f.outputDir == "" {
		return "."
	}
	return f.outputDir
}

// outputDirHint says what to do about an output directory that cannot be written.
func outputDirHint(dir string) string {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "create it, or choose another one with --output-dir"
	}
	return "choose another one with --output-dir"
}

// place says what keeps files from being created in a directory, empty for
// nothing, and whether it was said before.
func (f *files) place(dir string) (bad string, seen bool) {
	bad, seen = f.places[dir]
	if seen {
		return bad, true
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		bad = reason(err)
	case !info.IsDir():
		bad = "not a directory"
	default:
		if err := syscall.Access(dir, writable); err != nil {
			bad = err.Error()
		}
	}
	f.places[dir] = bad
	return bad, false
}

// realPath resolves the links in the directory of a path, and of the path when it exists.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}
