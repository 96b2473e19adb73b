package wire

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

// reasons is the closed set of errors as it crosses the seam.
var reasons = []struct {
	err       error
	name      string
	code      codes.Code
	retryable bool
}{
	{core.ErrClosed, "closed", codes.FailedPrecondition, false},
	{core.ErrFull, "full", codes.ResourceExhausted, true},
	{core.ErrOversize, "oversize", codes.OutOfRange, false},
	{core.ErrNotFound, "not-found", codes.NotFound, false},
	{core.ErrExists, "exists", codes.AlreadyExists, false},
	{core.ErrInvalid, "invalid", codes.InvalidArgument, false},
	{core.ErrLongRunningFence, "long-running-fence", codes.FailedPrecondition, false},
	{core.ErrCycle, "cycle", codes.FailedPrecondition, false},
	{core.ErrUnsupported, "unsupported", codes.Unimplemented, false},
	{core.ErrStale, "stale", codes.Aborted, false},
	{core.ErrCorrupt, "corrupt", codes.DataLoss, false},
	{core.ErrGone, "gone", codes.Unavailable, true},
	{core.ErrDeadline, "deadline", codes.DeadlineExceeded, true},
	{core.ErrBusy, "busy", codes.Aborted, true},
}

// ToStatus turns an error into a status with details for the wire. epoch is
// the epoch it is about, 0 for none. nil stays nil.
func ToStatus(err error, epoch core.Epoch) error {
	if err == nil {
		return nil
	}
	detail := &apiv1.ErrorDetail{Epoch: uint64(epoch)}
	code := codes.Unknown
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			detail.Reason, detail.Retryable, code = r.name, r.retryable, r.code
			break
		}
	}
	if detail.Reason == "" {
		if errors.Is(err, context.DeadlineExceeded) {
			detail.Reason, detail.Retryable, code = "deadline", true, codes.DeadlineExceeded
		} else if errors.Is(err, context.Canceled) {
			code = codes.Canceled
		}
	}
	var fault *core.FaultError
	if errors.As(err, &fault) {
		detail.Guilty = true
		detail.Fault = &apiv1.Fault{
			Cause: string(fault.Cause), Entity: uint64(fault.Entity), Job: uint64(fault.Job), Detail: Cut(fault.Detail),
		}
	}
	st, detailErr := status.New(code, Cut(err.Error())).WithDetails(protoadapt.MessageV1Of(detail))
	if detailErr != nil {
		return status.Error(code, Cut(err.Error()))
	}
	return st.Err()
}

// RemoteError is an error that came over the seam. errors.Is finds the member
// of the closed set it stands for, errors.As its *core.FaultError.
type RemoteError struct {
	Sentence  string
	Guilty    bool
	Retryable bool
	Epoch     core.Epoch
	causes    []error
}

// Error implements error.
func (e *RemoteError) Error() string { return e.Sentence }

// Unwrap returns what errors.Is and errors.As look through.
func (e *RemoteError) Unwrap() []error { return e.causes }

// FromStatus turns the error of a call into one of ours. A broken connection is
// core.ErrGone, a deadline core.ErrDeadline, whatever the peer says of them.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	out := &RemoteError{Sentence: Cut(st.Message())}
	for _, d := range st.Details() {
		detail, ok := d.(*apiv1.ErrorDetail)
		if !ok {
			continue
		}
		out.Guilty, out.Retryable, out.Epoch = detail.GetGuilty(), detail.GetRetryable(), core.Epoch(detail.GetEpoch())
		for _, r := range reasons {
			if r.name == detail.GetReason() {
				out.causes = append(out.causes, r.err)
			}
		}
		if f := detail.GetFault(); f != nil {
			out.causes = append(out.causes, &core.FaultError{
				Cause: toCause(f.GetCause()), Entity: core.EntityID(f.GetEntity()), Job: core.JobID(f.GetJob()), Detail: Cut(f.GetDetail()),
			})
		}
		return out
	}
	switch st.Code() {
	case codes.Unavailable:
		return fmt.Errorf("%s: %w", out.Sentence, core.ErrGone)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%s: %w", out.Sentence, core.ErrDeadline)
	case codes.Canceled:
		return fmt.Errorf("%s: %w", out.Sentence, context.Canceled)
	case codes.ResourceExhausted:
		return fmt.Errorf("%s: %w", out.Sentence, core.ErrInvalid)
	}
	return out
}

// toCause keeps the set of causes closed.
func toCause(s string) core.Cause {
	for _, c := range causes {
		if string(c) == s {
			return c
		}
	}
	return core.CauseRefused
}
