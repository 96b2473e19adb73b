package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// TestNobodyReadsStandardError: a run goes on to its end and prints its results.
func TestNobodyReadsStandardError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.app.Run = func(_ context.Context, r RunRequest) ([]JobView, error) {
			for i := range 1000 {
				fmt.Fprintln(r.Progress, strings.Repeat("x", 4096))
				r.Progress.Update(Update{Job: fmt.Sprint("j", i), State: StateRunning, Done: 1, Total: 4})
			}
			return []JobView{{Name: "j", State: "completed"}}, nil
		}
		unread, stderr := io.Pipe()
		defer func() { _ = unread.Close() }()
		var stdout bytes.Buffer
		ended := make(chan int)
		go func() {
			ended <- Main(b.app, []string{"run", b.dir + "/good.yaml"}, strings.NewReader(""), &stdout, stderr)
		}()
		if code := <-ended; code != ExitDone || !strings.Contains(stdout.String(), "completed") {
			t.Errorf("code %d: %s", code, stdout.String())
		}
	})
}

// TestSpoolDropsAndCounts: what has room comes in order, and the rest is counted
// where it is missing.
func TestSpoolDropsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, write := io.Pipe()
		s := newSpool(write)
		line := strings.Repeat("x", 1023) + "\n"
		for range spoolMax/len(line) + 10 {
			_, _ = s.Write([]byte(line))
			synctest.Wait()
		}
		got := make(chan string)
		go func() {
			text, _ := io.ReadAll(read)
			got <- string(text)
		}()
		synctest.Wait()
		_, _ = s.Write([]byte("after\n"))
		s.close(spoolFlush)
		_ = write.Close()
		text := <-got
		lines := strings.Count(text, line)
		if want := fmt.Sprintf("%s%d lines were dropped: nobody was reading\nafter\n", line, 9); !strings.HasSuffix(text, want) {
			t.Errorf("%d lines, then %q", lines, text[max(0, len(text)-100):])
		}
		if lines != spoolMax/len(line)+1 {
			t.Errorf("%d lines were kept", lines)
		}
	})
}
