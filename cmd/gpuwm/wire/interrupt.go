package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// sameSignal is how close to the first a signal is the same one: who ends a
// process group (a shell, timeout) often tells its members one by one too.
const sameSignal = 500 * time.Millisecond

var (
	// errKilled is why a run ends at the second signal.
	errKilled = errors.New("ended by a second signal")
	// errInterrupted is why a run ends at the first one, when there is nothing to suspend yet.
	errInterrupted = errors.New("interrupted before anything of this run was on record")
)

// interrupts is what signals ask of a run. One goroutine reads them, so that
// they are heard whatever the run waits for.
type interrupts struct {
	// suspend is closed at the first signal.
	suspend chan struct{}
	// kill ends the context of the run at the second, with errKilled.
	kill context.CancelCauseFunc
	// messages says what will happen.
	messages io.Writer
	// first is when the first signal came.
	first  time.Time
	killed bool
}

// listen reads signals until the run's context ends.
func (i *interrupts) listen(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case s := <-signals:
			i.take(s, time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// take takes one signal. It acts before it writes: nobody may be reading.
func (i *interrupts) take(s os.Signal, at time.Time) {
	switch {
	case i.first.IsZero():
		i.first = at
		close(i.suspend)
		fmt.Fprintf(i.messages, "%s: suspending; once more ends at once, with the last image\n", s)
	case !i.killed && at.Sub(i.first) >= sameSignal:
		i.killed = true
		i.kill(errKilled)
		fmt.Fprintf(i.messages, "%s: ending at once, with the last image\n", s)
	}
}

// asked reports whether the first signal has come.
func (i *interrupts) asked() bool {
	select {
	case <-i.suspend:
		return true
	default:
		return false
	}
}

// within runs f beside and waits for it until ctx ends. Then f is left behind:
// for the end of the program only.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		v, err := f()
		answers <- answer{v, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}
