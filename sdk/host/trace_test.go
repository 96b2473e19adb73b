package host

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
)

// traceLinesKept is how many lines the test plugin keeps in the role "traced".
const traceLinesKept = 4

// startTraced starts a plugin with a trace and an entity on its device.
func startTraced(t *testing.T) (*bench, *Link) {
	t.Helper()
	t.Setenv(testRole, "traced")
	b := start(t, nil)
	k := b.open(1)
	b.create(k, 1, 1, []byte{1, 2, 3})
	return b, k
}

// run runs jobs from one number on and waits for their ends.
func (b *bench) run(k *Link, from, count uint64) {
	b.t.Helper()
	for n := from; n < from+count; n++ {
		k.Send([]core.Command{runCommand(1, 1, core.CommandSeq(n), core.JobID(n), memory.Instant)})
		b.expect(core.EventStarted)
		b.expect(core.EventCompleted)
	}
}

// TestTraceOfAnotherHostsPlugin: the lines that are kept, of whichever instance has
// the device, beside the session of its host.
func TestTraceOfAnotherHostsPlugin(t *testing.T) {
	b, k := startTraced(t)
	b.run(k, 2, traceLinesKept+3)
	var lines []core.TraceLine
	collect := func(line core.TraceLine) error { lines = append(lines, line); return nil }
	if err := Trace(t.Context(), b.l.config.Dir, "d0", false, collect); err != nil {
		t.Fatal(err)
	}
	if len(lines) != traceLinesKept || lines[0].Number != 4 || lines[3].Kind != "RUN" || lines[3].Text != "job 8 instant" {
		t.Errorf("lines %+v", lines)
	}
	if err := Trace(t.Context(), b.l.config.Dir, "d1", false, collect); !errors.Is(err, core.ErrNotFound) {
		t.Errorf("device that is not open: %v", err)
	}
	// The session was not disturbed.
	b.run(k, 20, 1)
}

// TestTraceIsFollowedToTheEnd: until the reader has enough, its context ends, or the
// plugin does.
func TestTraceIsFollowedToTheEnd(t *testing.T) {
	b, k := startTraced(t)
	b.run(k, 2, 1)
	enough := errors.New("enough")
	n := uint64(0)
	err := Trace(t.Context(), b.l.config.Dir, "d0", true, func(line core.TraceLine) error {
		if n++; line.Number != n {
			t.Errorf("line %d, want %d", line.Number, n)
		}
		if n == 3 {
			return enough
		}
		b.run(k, 2+n, 1)
		return nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("a reader that has enough: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	err = Trace(ctx, b.l.config.Dir, "d0", true, func(core.TraceLine) error { cancel(enough); return nil })
	if !errors.Is(err, enough) {
		t.Errorf("a reader whose context ended: %v", err)
	}
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		ended <- Trace(t.Context(), b.l.config.Dir, "d0", true, func(core.TraceLine) error {
			if first {
				close(begun)
			}
			first = false
			return nil
		})
	}()
	<-begun
	if err := b.l.End(t.Context(), b.record); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("when the plugin ended: %v", err)
	}
}

// TestTraceThatIsNotKept: no directory, no instance, no trace.
func TestTraceThatIsNotKept(t *testing.T) {
	none := func(line core.TraceLine) error { t.Errorf("line %+v", line); return nil }
	for _, dir := range []string{filepath.Join(t.TempDir(), "nothing"), t.TempDir()} {
		if err := Trace(t.Context(), dir, "d0", false, none); !errors.Is(err, core.ErrNotFound) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	b := start(t, nil)
	b.open(1)
	if err := Trace(t.Context(), b.l.config.Dir, "d0", false, none); !errors.Is(err, core.ErrUnsupported) {
		t.Errorf("backend without a trace: %v", err)
	}
}
