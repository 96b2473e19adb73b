package manager

import (
	"cmp"
	"context"
	"errors"
)

// errStopped is returned to who asks a loop that has ended.
var errStopped = errors.New("manager has stopped")

// ask has f run in the device's loop and waits for its answer.
func ask[T any](ctx context.Context, d *device, f func() (T, error)) (T, error) {
	return askBy(ctx, d, d.do, f)
}

// read is ask for what only looks: it is answered also while the schedulers are
// made anew.
func read[T any](ctx context.Context, d *device, f func() (T, error)) (T, error) {
	return askBy(ctx, d, d.post, f)
}

func askBy[T any](ctx context.Context, d *device, post func(func()) bool, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	var none T
	if !post(func() {
		v, err := f()
		answers <- answer{v, err}
	}) {
		return none, errStopped
	}
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-d.stopped:
		select {
		case a := <-answers: // its last act
			return a.value, a.err
		default:
			return none, errStopped
		}
	}
}

// askDurable is ask, answered when everything decided by then is committed, or
// with the reason why it is not.
func askDurable(ctx context.Context, d *device, f func() error) error {
	answers := make(chan error, 1)
	if !d.do(func() {
		err := f()
		d.whenCommitted(func(failed error) { answers <- cmp.Or(err, failed) })
	}) {
		return errStopped
	}
	select {
	case err := <-answers:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-d.stopped:
		return errStopped
	}
}
