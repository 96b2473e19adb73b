package output

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
)

// pausing is a source that calls f before it ends.
type pausing struct {
	io.Reader
	f func()
}

func (p *pausing) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n == 0 && p.f != nil {
		p.f()
		p.f = nil
	}
	return n, err
}

// TestTwoWritersOfOneFile: the second is told, and the first one's bytes arrive.
func TestTwoWritersOfOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	spec := core.SaveSpec{Path: path, Format: core.SaveRaw}
	var second error
	err := Write(spec, &pausing{strings.NewReader("first"), func() {
		second = Write(spec, strings.NewReader("the second one"))
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(second, core.ErrBusy) || !strings.Contains(second.Error(), "another run writes this file") {
		t.Errorf("second writer: %v", second)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "first" {
		t.Errorf("%q, %v", b, err)
	}
	if err := Write(spec, strings.NewReader("next")); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
