package wire

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
)

// signalled returns interrupts and the context that they end.
func signalled(t *testing.T, messages io.Writer) (*interrupts, context.Context) {
	ctx, kill := context.WithCancelCause(t.Context())
	t.Cleanup(func() { kill(nil) })
	return &interrupts{suspend: make(chan struct{}), kill: kill, messages: messages}, ctx
}

// TestSignalsCloseTogetherAreOne: the second one counts when it comes half a
// second after the first or later.
func TestSignalsCloseTogetherAreOne(t *testing.T) {
	var messages strings.Builder
	i, ctx := signalled(t, &messages)
	begun := time.Unix(1000, 0)
	if i.asked() {
		t.Error("asked to suspend before any signal")
	}
	for _, c := range []struct {
		after  time.Duration
		killed bool
	}{{0, false}, {0, false}, {sameSignal - 1, false}, {sameSignal, true}, {2 * sameSignal, true}} {
		i.take(syscall.SIGTERM, begun.Add(c.after))
		if !i.asked() || (ctx.Err() != nil) != c.killed {
			t.Errorf("after %s: suspend %v, kill %v", c.after, i.asked(), ctx.Err())
		}
	}
	if !errors.Is(context.Cause(ctx), errKilled) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	want := "terminated: suspending; once more ends at once, with the last image\nterminated: ending at once, with the last image\n"
	if messages.String() != want {
		t.Errorf("messages %q", messages.String())
	}
}

// TestSignalsEndAWait: what hangs is left behind at the second signal.
func TestSignalsEndAWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, ctx := signalled(t, io.Discard)
		signals := make(chan os.Signal, 2)
		go i.listen(ctx, signals)
		hang := make(chan struct{})
		defer close(hang)
		go func() {
			signals <- syscall.SIGINT
			<-i.suspend
			<-time.After(sameSignal)
			signals <- syscall.SIGINT
		}()
		_, err := within(ctx, func() (int, error) { <-hang; return 0, nil })
		if !errors.Is(err, errKilled) {
			t.Errorf("error %v", err)
		}
	})
}

// TestInitialImageStopsBetweenChunks: a signal ends the writing of a large one.
func TestInitialImageStopsBetweenChunks(t *testing.T) {
	chunks := 0
	image := initialImage{
		specs: []core.BufferSpec{{Name: "b", Size: 100 * core.ChunkSize}}, inits: make([]configs.BufferInit, 1),
		interrupted: func() bool { return chunks == 3 },
	}
	err := image.Chunks(func(core.ChunkRef, []byte) error { chunks++; return nil })
	if !errors.Is(err, errInterrupted) || chunks != 3 {
		t.Errorf("%d chunks, error %v", chunks, err)
	}
}
