package output_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image/color"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/output"
)

// save writes b and returns the file, after checking that nothing else is left.
func save(t *testing.T, spec core.SaveSpec, b []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	spec.Path = filepath.Join(dir, "result")
	// One byte at a time: encoders must not depend on how much a read returns.
	if err := output.Write(spec, iotest.OneByteReader(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("directory holds %v (%v), want the result only", entries, err)
	}
	got, err := os.ReadFile(spec.Path)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRawAndText(t *testing.T) {
	b := []byte("hello\x00rest\x00")
	if got := save(t, core.SaveSpec{Format: core.SaveRaw}, b); !bytes.Equal(got, b) {
		t.Errorf("raw: %q", got)
	}
	if got := save(t, core.SaveSpec{Format: core.SaveText}, b); string(got) != "hello" {
		t.Errorf("text: %q", got)
	}
	if got := save(t, core.SaveSpec{Format: core.SaveText}, []byte("no end")); string(got) != "no end" {
		t.Errorf("text without NUL: %q", got)
	}
}

func TestCSV(t *testing.T) {
	columns := []core.Column{
		{Name: "a", Kind: core.ArgU32}, {Name: "b", Kind: core.ArgI32}, {Name: "c", Kind: core.ArgF32},
		{Name: "d", Kind: core.ArgU64}, {Name: "e", Kind: core.ArgI64}, {Name: "f, g", Kind: core.ArgF64},
	}
	row := func(a uint32, b int32, c float32, d uint64, e int64, f float64) []byte {
		var buf bytes.Buffer
		for _, v := range []any{a, b, c, d, e, f} {
			_ = binary.Write(&buf, binary.LittleEndian, v)
		}
		return buf.Bytes()
	}
	var b []byte
	b = append(b, row(1, -2, 0.1, math.MaxUint64, math.MinInt64, 1e300)...)
	b = append(b, row(0, 0, 0, 0, 0, 0)...)
	b = append(b, row(0, 0, 0, 0, 7, 0)...)
	b = append(b, 1, 2, 3) // not a whole row
	want := "a,b,c,d,e,\"f, g\"\n" +
		"1,-2,0.1,18446744073709551615,-9223372036854775808,1e+300\n" +
		"0,0,0,0,7,0\n"
	if got := save(t, core.SaveSpec{Format: core.SaveCSV, Columns: columns}, b); string(got) != want {
		t.Errorf("csv:\n%s\nwant:\n%s", got, want)
	}
}

func TestCSVOfManyChunks(t *testing.T) {
	spec := core.SaveSpec{Format: core.SaveCSV, Path: filepath.Join(t.TempDir(), "r"), Columns: []core.Column{{Name: "n", Kind: core.ArgU64}, {Name: "m", Kind: core.ArgU32}}}
	const rows = 20_000
	var b []byte
	for i := range uint64(rows) {
		b = binary.LittleEndian.AppendUint64(b, i+1)
		b = binary.LittleEndian.AppendUint32(b, uint32(i))
	}
	if err := output.Write(spec, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(spec.Path)
	if lines := bytes.Count(got, []byte("\n")); lines != rows+1 || !bytes.HasSuffix(got, []byte("\n20000,19999\n")) {
		t.Errorf("%d lines, end %q", lines, got[len(got)-20:])
	}
}

func TestPictures(t *testing.T) {
	spec := core.SaveSpec{Format: core.SavePNG, Width: 2, Height: 1, Pixel: "rgba8"}
	pixels := []byte{1, 2, 3, 255, 200, 100, 50, 128}
	first := save(t, spec, pixels)
	if !bytes.Equal(first, save(t, spec, pixels)) {
		t.Error("the same pixels gave two different files")
	}
	img, err := png.Decode(bytes.NewReader(first))
	if err != nil {
		t.Fatal(err)
	}
	if got := color.NRGBAModel.Convert(img.At(1, 0)); got != (color.NRGBA{200, 100, 50, 128}) {
		t.Errorf("pixel 1: %v", got)
	}
	spec.Format = core.SavePPM
	if got := save(t, spec, pixels); string(got) != "P6\n2 1\n255\n\x01\x02\x03\xc8\x64\x32" {
		t.Errorf("ppm: %q", got)
	}
}

func TestErrorLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "result")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		spec core.SaveSpec
		src  io.Reader
		want error
	}{
		"short picture": {core.SaveSpec{Format: core.SavePNG, Width: 2, Height: 2, Pixel: "rgba8"}, strings.NewReader("few"), core.ErrInvalid},
		"pixel":         {core.SaveSpec{Format: core.SavePPM, Width: 1, Height: 1, Pixel: "rgb565"}, strings.NewReader("abcd"), core.ErrInvalid},
		"huge":          {core.SaveSpec{Format: core.SavePNG, Width: math.MaxUint32, Height: math.MaxUint32, Pixel: "rgba8"}, strings.NewReader("abcd"), core.ErrInvalid},
		"no columns":    {core.SaveSpec{Format: core.SaveCSV}, strings.NewReader("abcd"), core.ErrInvalid},
		"kind":          {core.SaveSpec{Format: core.SaveCSV, Columns: []core.Column{{Name: "a", Kind: "buffer"}}}, strings.NewReader("abcdefgh"), core.ErrInvalid},
		"format":        {core.SaveSpec{Format: "gif"}, strings.NewReader("abcd"), core.ErrInvalid},
		"read raw":      {core.SaveSpec{Format: core.SaveRaw}, iotest.ErrReader(broken), broken},
		"read text":     {core.SaveSpec{Format: core.SaveText}, iotest.ErrReader(broken), broken},
		"read csv":      {core.SaveSpec{Format: core.SaveCSV, Columns: []core.Column{{Name: "a", Kind: "u32"}}}, iotest.ErrReader(broken), broken},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.Path = path
			err := output.Write(c.spec, c.src)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v, want %v with the path", err, c.want)
			}
			got, _ := os.ReadFile(path)
			entries, _ := os.ReadDir(dir)
			if string(got) != "old" || len(entries) != 1 {
				t.Errorf("file %q, directory %v", got, entries)
			}
		})
	}
}

func TestLeftoverOfACrashIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result")
	if err := os.WriteFile(output.TemporaryPath(path), bytes.Repeat([]byte("x"), 100), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := output.Write(core.SaveSpec{Path: path, Format: core.SaveRaw}, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "new" {
		t.Errorf("file %q", got)
	}
}

func TestLinkInTheTemporaryPlaceIsRefused(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "result"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, output.TemporaryPath(path)); err != nil {
		t.Fatal(err)
	}
	if err := output.Write(core.SaveSpec{Path: path, Format: core.SaveRaw}, strings.NewReader("new")); err == nil {
		t.Error("wrote through a link")
	}
	if got, _ := os.ReadFile(victim); string(got) != "precious" {
		t.Errorf("the link's target holds %q", got)
	}
}

// TestPipeInTheTemporaryPlaceIsRefused: neither with a reader nor without one
// does it hang, and the pipe stays.
func TestPipeInTheTemporaryPlaceIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result")
	if err := syscall.Mkfifo(output.TemporaryPath(path), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		return output.Write(core.SaveSpec{Path: path, Format: core.SaveRaw}, strings.NewReader("new"))
	}
	if err := write(); err == nil {
		t.Error("wrote into a pipe that nobody reads")
	}
	reader, err := os.OpenFile(output.TemporaryPath(path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := write(); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("wrote into a pipe: %v", err)
	}
	if info, err := os.Lstat(output.TemporaryPath(path)); err != nil || info.Mode().Type() != os.ModeNamedPipe {
		t.Errorf("the pipe is %v, %v", info, err)
	}
}
