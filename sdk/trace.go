package sdk

import (
	"fmt"
	"strings"
	"unicode"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Trace implements the service. A reader is no host: it does not keep the process
// alive. One that is slower than the messages misses some, and sees the gap.
func (s *server) Trace(r *apiv1.TraceRequest, stream apiv1.Backend_TraceServer) error {
	d, err := s.device(r.GetDevice())
	if err != nil {
		return wire.ToStatus(err, 0)
	}
	tracer, ok := d.dev.(Tracer)
	if !ok {
		return wire.ToStatus(fmt.Errorf("trace of device %s: %w", d.spec.Name, core.ErrUnsupported), 0)
	}
	over := false
	for after := r.GetAfter(); ; {
		var lines []core.TraceLine
		var more <-chan struct{}
		_ = d.guard("trace", func() error { lines, more = tracer.Trace(after); return nil })
		for len(lines) > 0 {
			part := lines[:min(len(lines), traceLinesMax)]
			lines, after = lines[len(part):], part[len(part)-1].Number
			if err := stream.Send(&apiv1.TraceReply{Lines: traceLines(part)}); err != nil {
				return err
			}
		}
		if !r.GetFollow() || over {
			return nil
		}
		select {
		case <-more:
		case <-stream.Context().Done():
			return nil
		case <-d.ctx.Done():
			over = true // after what was said until then
		}
	}
}

func traceLines(lines []core.TraceLine) []*apiv1.TraceLine {
	out := make([]*apiv1.TraceLine, len(lines))
	for i, l := range lines {
		out[i] = &apiv1.TraceLine{
			Number: l.Number, Kind: oneLine(l.Kind, wire.TraceKindMax), Text: oneLine(l.Text, wire.TraceTextMax),
		}
	}
	return out
}

// oneLine makes s fit one line of at most limit bytes.
func oneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
