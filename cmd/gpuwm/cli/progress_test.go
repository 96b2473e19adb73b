package cli

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// screen is a progress with a clock that the test moves.
type screen struct {
	*Progress
	out   bytes.Buffer
	now   time.Time
	width int
}

func newScreen(terminal bool) *screen {
	s := &screen{now: time.Unix(1000, 0), width: 80}
	s.Progress = NewProgress(&s.out, ProgressOptions{Terminal: terminal, Width: func() int { return s.width }, Now: func() time.Time { return s.now }})
	return s
}

// take returns what was written since, with escapes made visible.
func (s *screen) take() string {
	out := strings.ReplaceAll(s.out.String(), "\x1b", "^")
	s.out.Reset()
	return out
}

func (s *screen) expect(t *testing.T, want string) {
	t.Helper()
	if got := s.take(); got != want {
		t.Errorf("wrote\n%s\nwant\n%s", got, want)
	}
}

func TestPlainLines(t *testing.T) {
	s := newScreen(false)
	s.Update(Update{"j", StateQueued, 0, 1000})
	s.expect(t, "j: queued\n")
	s.Update(Update{"j", StateRunning, 0, 1000})
	s.expect(t, "j: running 0/1000 0%\n")
	for i := range uint64(49) {
		s.now = s.now.Add(100 * time.Millisecond)
		s.Update(Update{"j", StateRunning, i + 1, 1000})
	}
	s.expect(t, "")
	s.now = s.now.Add(100 * time.Millisecond)
	s.Update(Update{"j", StateRunning, 50, 1000})
	s.expect(t, "j: running 50/1000 5% 10.0/s eta 1m35s\n")
	s.Update(Update{"j", StateSuspending, 51, 1000})
	s.Update(Update{"j", StateSuspended, 52, 1000})
	s.Update(Update{"j", StateSuspended, 52, 1000})
	s.expect(t, "j: suspending 51/1000 5%\nj: suspended 52/1000 5% in 5.0s\n")
	s.Close()
	s.Update(Update{"j", StateRunning, 60, 1000})
	s.expect(t, "")
}

func TestRateAfterResumeAndRestore(t *testing.T) {
	s := newScreen(false)
	// The first sample of a resumed job is no work of this run.
	s.Update(Update{"j", StateRunning, 900, 1000})
	s.now = s.now.Add(5 * time.Second)
	s.Update(Update{"j", StateRunning, 910, 1000})
	// A restore puts the cursor back: the rate starts anew.
	s.now = s.now.Add(5 * time.Second)
	s.Update(Update{"j", StateRunning, 400, 1000})
	s.now = s.now.Add(5 * time.Second)
	s.Update(Update{"j", StateRunning, 500, 1000})
	s.expect(t, "j: running 900/1000 90%\n"+
		"j: running 910/1000 91% 2.0/s eta 45s\n"+
		"j: running 400/1000 40%\n"+
		"j: running 500/1000 50% 20.0/s eta 25s\n")
}

func TestBars(t *testing.T) {
	s := newScreen(true)
	s.width = 60
	s.Update(Update{"sieve", StateRunning, 0, 200})
	s.expect(t, "sieve [>                                       ]   0% 0/200\n")
	s.now = s.now.Add(50 * time.Millisecond)
	s.Update(Update{"sieve", StateRunning, 1, 200})
	s.expect(t, "") // too soon
	s.now = s.now.Add(1950 * time.Millisecond)
	s.Update(Update{"sieve", StateRunning, 100, 200})
	s.expect(t, "\r^[1A^[Jsieve [===========>          ]  50% 100/200 50.0/s eta 2.0s\n")
	s.Update(Update{"b", StateResuming, 3, 4})
	s.expect(t, "\r^[1A^[Jsieve [===========>          ]  50% 100/200 50.0/s eta 2.0s\nb     [========================>        ]  75% 3/4 resuming\n")
	fmt.Fprintln(s, "a log line")
	s.expect(t, "\r^[2A^[Ja log line\nsieve [===========>          ]  50% 100/200 50.0/s eta 2.0s\nb     [========================>        ]  75% 3/4 resuming\n")
	s.Update(Update{"sieve", "completed", 200, 200})
	s.expect(t, "\r^[2A^[Jsieve: completed 200/200 100% in 2.0s\nb [===========================>         ]  75% 3/4 resuming\n")
	s.Close()
	s.Close()
	s.expect(t, "\r^[1A^[J")
	fmt.Fprintln(s, "after")
	s.expect(t, "after\n")
}

// TestBarsFit draws at every width: no line may wrap, or redrawing would fail.
func TestBarsFit(t *testing.T) {
	for width := 1; width < 200; width++ {
		s := newScreen(true)
		s.width = width
		for i := range 12 {
			s.Update(Update{fmt.Sprintf("job-with-a-long-name-%d", i), StateRunning, 1, 1 << 63})
			s.now = s.now.Add(time.Second)
		}
		s.take()
		s.Update(Update{"job-with-a-long-name-0", StateRunning, 1 << 62, 1 << 63})
		frame := s.take()
		lines := strings.Split(strings.TrimSuffix(frame[strings.LastIndex(frame, "^[J")+3:], "\n"), "\n")
		if len(lines) != barsMax+1 {
			t.Fatalf("width %d: %d lines", width, len(lines))
		}
		for _, l := range lines {
			if len(l) > max(1, width-1) {
				t.Errorf("width %d: %d columns: %q", width, len(l), l)
			}
		}
	}
}

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 9900 * time.Millisecond: "9.9s", 59 * time.Second: "59s", 61 * time.Second: "1m01s", 3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d02h", -1: "0.0s",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for r, want := range map[float64]string{0.0123: "0.012", 1: "1.0", 99.94: "99.9", 1234: "1234", 12345: "12.3k", 1e7: "10.0M", 2.5e9: "2.5G"} {
		if got := formatRate(r); got != want {
			t.Errorf("%v: %s, want %s", r, got, want)
		}
	}
	if got := formatSeconds(1e30); got != "ages" {
		t.Error(got)
	}
}

func TestProgressIsSafeForManyGoroutines(t *testing.T) {
	s := newScreen(true)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for k := range uint64(100) {
				s.Update(Update{fmt.Sprint("j", i), StateRunning, k, 100})
				fmt.Fprintln(s, "line")
			}
		})
	}
	all.Wait()
	s.Close()
	if strings.Count(s.take(), "line\n") != 400 {
		t.Error("lines were lost")
	}
}
