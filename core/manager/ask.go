package manager

import (
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

// durable is a request to a device whose answer is still to come.
type durable struct {
	device  *device
	answers chan error
}

// refusedError is the answer to a request that was right and is not on record.
type refusedError struct{ error }

// Unwrap returns what the store said.
func (e refusedError) Unwrap() error { return e.error }

// requestDurable has f run in the loop of d, and does not wait: the answer comes when everything decided
// by then is committed, or with the reason why it is not.
func requestDurable(d *device, f func() error) *durable {
	r := &durable{d, make(chan error, 1)}
	if !d.do(func() {
		err := f()
		d.whenCommitted(func(failed error) {
			if err == nil && failed != nil {
				err = refusedError{failed}
			}
			r.answers <- err
		})
	}) {
		r.answers <- errStopped
	}
	return r
}

// wait waits for the answer.
func (r *durable) wait(ctx context.Context) error {
	select {
	case err := <-r.answers:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.device.stopped:
		return errStopped
	}
}
