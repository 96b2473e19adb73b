package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// traceOf reads a trace to its end.
func (r *rig) traceOf(m *apiv1.TraceRequest) (lines []*apiv1.TraceLine, messages int, err error) {
	stream, err := r.client.Trace(r.t.Context(), m)
	for err == nil {
		var reply *apiv1.TraceReply
		if reply, err = stream.Recv(); err == nil {
			lines, messages = append(lines, reply.GetLines()...), messages+1
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return lines, messages, wire.FromStatus(err)
}

// traceBubble has a device that keeps so many lines, with one entity, and ran jobs.
func traceBubble(t *testing.T, keep, jobs int, f func(t *testing.T, r *rig, l *line)) {
	synctest.Test(t, func(t *testing.T) {
		r, done := newRigOf(t, &memory.Backend{TraceLines: keep})
		defer done()
		l := r.open(1)
		l.create(1, 1, 1)
		for n := range uint64(jobs) {
			l.send(runCommand(1, 1, 2+n, 2+n, memory.Instant))
			l.expect(core.EventStarted)
			l.expect(core.EventCompleted)
		}
		f(t, r, l)
	})
}

func TestTraceOfWhatIsKept(t *testing.T) {
	const jobs = 300
	traceBubble(t, 1000, jobs, func(t *testing.T, r *rig, _ *line) {
		lines, messages, err := r.traceOf(&apiv1.TraceRequest{Device: "d0"})
		if err != nil || len(lines) != jobs || messages != 2 {
			t.Fatalf("%d lines in %d messages, %v", len(lines), messages, err)
		}
		for i, line := range lines {
			if line.GetNumber() != uint64(i+1) || line.GetKind() != "RUN" || line.GetText() != fmt.Sprintf("job %d instant", i+2) {
				t.Errorf("line %d: %v", i, line)
			}
		}
		lines, _, err = r.traceOf(&apiv1.TraceRequest{Device: "d0", After: jobs - 2})
		if err != nil || len(lines) != 2 || lines[0].GetNumber() != jobs-1 {
			t.Errorf("after %d: %v, %v", jobs-2, lines, err)
		}
		lines, messages, err = r.traceOf(&apiv1.TraceRequest{Device: "d0", After: jobs + 10})
		if err != nil || len(lines) != 0 || messages != 0 {
			t.Errorf("after the last: %v, %v", lines, err)
		}
	})
}

// TestTraceShowsTheGap: what was dropped is missing, and the numbers say so.
func TestTraceShowsTheGap(t *testing.T) {
	traceBubble(t, 5, 12, func(t *testing.T, r *rig, _ *line) {
		lines, _, err := r.traceOf(&apiv1.TraceRequest{Device: "d0", After: 3})
		if err != nil || len(lines) != 5 || lines[0].GetNumber() != 8 || lines[4].GetNumber() != 12 {
			t.Errorf("%v, %v", lines, err)
		}
	})
}

// TestTraceIsFollowed: lines come as they are made, and the last ones when the device
// closes; then the stream ends.
func TestTraceIsFollowed(t *testing.T) {
	traceBubble(t, 100, 2, func(t *testing.T, r *rig, l *line) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := r.client.Trace(ctx, &apiv1.TraceRequest{Device: "d0", After: 1, Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		next := func(want uint64) {
			t.Helper()
			m, err := stream.Recv()
			if err != nil || len(m.GetLines()) != 1 || m.GetLines()[0].GetNumber() != want {
				t.Fatalf("%v, %v, want line %d", m, err, want)
			}
		}
		next(2)
		for n := range uint64(3) {
			l.send(runCommand(1, 1, 10+n, 10+n, memory.Instant))
			next(3 + n)
		}
		l.cancel()
		r.server.Shutdown()
		if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("after the device was closed: %v", err)
		}
	})
}

// TestTraceThatIsNot: devices that keep none, or are not open.
func TestTraceThatIsNot(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, _, err := r.traceOf(&apiv1.TraceRequest{Device: "d0"})
		mustBe(t, "device that is not open", err, core.ErrNotFound)
		l := r.open(1)
		defer l.cancel()
		_, _, err = r.traceOf(&apiv1.TraceRequest{Device: "d0", Follow: true})
		mustBe(t, "device without a trace", err, core.ErrUnsupported)
	})
}

func TestLinesOfTraceAreLines(t *testing.T) {
	for _, tc := range []struct {
		in    string
		limit int
		want  string
	}{
		{"as it is", 100, "as it is"}, {"two\nlines\r", 100, "two lines "}, {"\x00\x1b[31m", 100, "  [31m"}, {"a\xffb", 100, "a?b"},
		{"0123456789", 8, "01234567"}, {"012345é9", 8, "012345é"}, {"0123456é", 8, "0123456"}, {"", 8, ""},
	} {
		if got := sdk.OneLine(tc.in, tc.limit); got != tc.want {
			t.Errorf("%q became %q, want %q", tc.in, got, tc.want)
		}
	}
}
