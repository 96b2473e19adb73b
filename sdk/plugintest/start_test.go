package plugintest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/host"
)

// TestWhatCannotBeTested: the kit says why it can't begin, and what to do.
func TestWhatCannotBeTested(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		command host.Command
		says    string
	}{
		{"not there", host.Command{Path: filepath.Join(t.TempDir(), "nothing")}, "no such file"},
		{"directory", host.Command{Path: t.TempDir()}, "directory"},
		{"plain file", host.Command{Path: plain}, "not executable"},
		{"no program", host.Command{Path: empty}, "does not execute it"},
		{"mute", self(t, "mute"), "no handshake within"},
		{"quits", self(t, "quits"), "before the handshake"},
		{"babbles", self(t, "babbles"), "before the handshake"},
	} {
		config := Config{Command: tc.command}
		if tc.name == "mute" {
			config.Start = time.Second
		}
		_, err := Run(t.Context(), config)
		var start *StartError
		if !errors.As(err, &start) || !strings.Contains(start.What, tc.says) {
			t.Errorf("%s: %v, want a start error that says %q", tc.name, err, tc.says)
		}
		if missing := errors.Is(err, core.ErrNotFound); missing != (tc.name == "not there") {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// TestBrokenOff: who ends the kit learns that, and nothing about the plugin.
func TestBrokenOff(t *testing.T) {
	t.Parallel()
	stop := errors.New("stop")
	for name, after := range map[string]int{"at once": 0, "in the middle": 20} {
		ctx, cancel := context.WithCancelCause(t.Context())
		config := Config{Backend: good, Progress: func(r Result) {
			if after--; after == 0 {
				cancel(stop)
			}
			if !r.OK && !r.Skipped {
				t.Errorf("%s: %s failed: %s", name, r.Name, r.Reason)
			}
		}}
		if after == 0 {
			config = Config{Command: self(t, "mute")}
			cancel(stop)
		}
		if report, err := Run(ctx, config); err == nil || err.Error() != stop.Error() || report.Failed() > 0 {
			t.Errorf("%s: %v, %d failed", name, err, report.Failed())
		}
	}
}

// TestWhatDoesNotFit: a level, an engine and a format that are none.
func TestWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	if _, err := Run(t.Context(), Config{Backend: good, Level: core.LevelPortable + 1}); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("level: %v", err)
	}
	if _, err := Run(t.Context(), Config{Backend: good, Engine: "other"}); err == nil || !strings.Contains(err.Error(), `"other"`) {
		t.Errorf("engine: %v", err)
	}
	if _, err := kernelFor([]string{"spirv"}); !errors.Is(err, core.ErrUnsupported) || !strings.Contains(err.Error(), Format) {
		t.Errorf("format: %v", err)
	}
}

// TestChecksAreMany: each has a name of its own, a promise and a level.
func TestChecksAreMany(t *testing.T) {
	const least = 60
	names := make(map[string]bool)
	last := 0
	for _, c := range all() {
		if c.name == limitChecks[0].name || c.name == waitChecks[0].name {
			last = 0 // They stand behind the others, whatever their level.
		}
		switch {
		case names[c.name], c.doc == "", c.run == nil, strings.ToLower(c.name) != c.name && c.name != "message-of-16MiB-crosses" && c.name != "payload-of-1MiB-crosses":
			t.Errorf("check %q: twice, or without a promise", c.name)
		case c.level < max(last, core.LevelJobs), c.level > core.LevelPortable:
			t.Errorf("check %s has level %d after %d", c.name, c.level, last)
		}
		names[c.name], last = true, c.level
	}
	if len(names) < least {
		t.Errorf("%d checks, want %d", len(names), least)
	}
}
