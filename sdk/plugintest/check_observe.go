package plugintest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var observeChecks = []check{
	{name: "health-answers", level: core.LevelJobs, run: healthAnswers,
		doc: "Health answers, and nothing is pending when everything was carried out"},
	{name: "health-counts-what-waits", level: core.LevelJobs, run: healthCounts,
		doc: "Health counts commands that wait"},
	{name: "health-answers-while-busy", level: core.LevelJobs, run: healthBusy,
		doc: "Health answers while a job executes"},
	{name: "log-lines-are-numbered", level: core.LevelJobs, run: logsNumbered,
		doc: "lines of the log have numbers that rise by one, a time, a level, and one line of text of at most 8 KiB"},
	{name: "logs-go-on-after-a-number", level: core.LevelJobs, run: logsAfter,
		doc: "Logs after a number has only later lines; the stream stays open"},
	{name: "trace-is-numbered", level: core.LevelJobs, run: traceNumbered,
		doc: "lines of trace have rising numbers, a kind of at most 64 bytes, a text of one line; or Trace is refused as unsupported"},
	{name: "trace-goes-on-after-a-number", level: core.LevelJobs, run: traceAfter,
		doc: "Trace after a number has only later lines"},
	{name: "trace-follows", level: core.LevelJobs, run: traceFollows,
		doc: "with follow, lines come as they are made"},
	{name: "trace-needs-no-session", level: core.LevelJobs, run: traceAlone,
		doc: "Trace answers without a session of its device, and ends none"},
	{name: "trace-needs-an-open-device", level: core.LevelJobs, run: traceUnknown,
		doc: "Trace of a device that is not open is refused as not found"},
}

func healthAnswers(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	e.completed(e.run(8, 1))
	p.poll("nothing is pending once everything was answered", func() bool { return p.pending() == 0 })
}

func healthCounts(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	p.poll("a create that waits for its image is pending", func() bool { return p.pending() > 0 })
	if err := e.upload(from); err != nil {
		p.failf("PutImage: %v", err)
	}
	e.applied(c.Seq)
	p.poll("nothing is pending once the create was answered", func() bool { return p.pending() == 0 })
}

func healthBusy(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	for range 5 {
		p.alive("the start of a long job")
	}
	e.none("the job was to execute meanwhile", func(b *core.BackendEvent) bool { return b.Kind == core.EventCompleted })
	e.cancel(job)
	e.ended(job)
}

// logged reads lines after a number until some have come, or the log has none.
func logged(p *probe, after uint64) []*apiv1.LogLine {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stream, err := p.in.client.Logs(ctx, &apiv1.LogsRequest{After: after})
	if err != nil {
		p.failf("Logs: %v", err)
	}
	type received struct {
		m   *apiv1.LogsReply
		err error
	}
	got := make(chan received, 1)
	go func() {
		m, err := stream.Recv()
		got <- received{m, err}
	}()
	// What is kept is sent before Health has answered a few times.
	for range 5 {
		p.alive("opening Logs")
	}
	select {
	case r := <-got:
		if r.err != nil {
			p.failf("the stream of log lines ended: %v", r.err)
		}
		return r.m.GetLines()
	default:
		return nil
	}
}

// logLevels are the levels of a line, and logLineMax the bytes of its text.
var logLevels = []string{"trace", "debug", "info", "warn", "error"}

const logLineMax = 8 << 10

// oneLine reports whether a text is one line without control characters.
func oneLine(s string, most int) bool {
	return fits(s, most) && !strings.ContainsFunc(s, unicode.IsControl)
}

// fits reports whether a text is one line.
func fits(s string, most int) bool {
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsAny(s, "\r\n")
}

func logsNumbered(p *probe) {
	bringUp(p)
	var last uint64
	for _, line := range logged(p, 0) {
		n := line.GetNumber()
		switch {
		case n <= last || last != 0 && n != last+1:
			p.failf("after line %d came line %d", last, n)
		case !slices.Contains(logLevels, line.GetLevel()):
			p.failf("line %d has the level %q; it is one of %q", n, line.GetLevel(), logLevels)
		case line.GetTime() == 0:
			p.failf("line %d has no time", n)
		case !fits(line.GetText(), logLineMax):
			p.failf("the text of line %d is not one line of at most %d bytes: %.80q", n, logLineMax, line.GetText())
		}
		last = n
	}
}

func logsAfter(p *probe) {
	bringUp(p)
	lines := logged(p, 0)
	if len(lines) < 2 {
		p.skipf("the plugin has logged %d lines", len(lines))
	}
	first := lines[0].GetNumber()
	for _, line := range logged(p, first) {
		if line.GetNumber() <= first {
			p.failf("after line %d was asked for, line %d came", first, line.GetNumber())
		}
	}
}

// traced reads the trace that is kept, after a number.
func traced(p *probe, after uint64) []*apiv1.TraceLine {
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := p.in.client.Trace(ctx, &apiv1.TraceRequest{Device: deviceName, After: after})
	var lines []*apiv1.TraceLine
	for err == nil {
		var m *apiv1.TraceReply
		if m, err = stream.Recv(); err == nil {
			lines = append(lines, m.GetLines()...)
		}
	}
	if errors.Is(wire.FromStatus(err), core.ErrUnsupported) {
		p.skipf("the device keeps no trace")
	}
	if !errors.Is(err, io.EOF) {
		p.failf("Trace: %v", err)
	}
	return lines
}

func traceNumbered(p *probe) {
	bringUp(p)
	lines := traced(p, 0)
	if len(lines) == 0 {
		p.failf("a device that keeps a trace has none after a job")
	}
	var last uint64
	for _, line := range lines {
		switch {
		case line.GetNumber() <= last:
			p.failf("after line %d came line %d", last, line.GetNumber())
		case line.GetKind() == "" || len(line.GetKind()) > wire.TraceKindMax:
			p.failf("line %d has the kind %q", line.GetNumber(), line.GetKind())
		case !oneLine(line.GetText(), wire.TraceTextMax) || !oneLine(line.GetKind(), wire.TraceKindMax):
			p.failf("the text of line %d is not one line of at most %d bytes", line.GetNumber(), wire.TraceTextMax)
		}
		last = line.GetNumber()
	}
}

func traceAfter(p *probe) {
	bringUp(p)
	lines := traced(p, 0)
	middle := lines[len(lines)/2].GetNumber()
	rest := traced(p, middle)
	if len(rest) == 0 && middle != lines[len(lines)-1].GetNumber() {
		p.failf("no line came after line %d, and there are later ones", middle)
	}
	for _, line := range rest {
		if line.GetNumber() <= middle {
			p.failf("after line %d was asked for, line %d came", middle, line.GetNumber())
		}
	}
}

func traceFollows(p *probe) {
	l := bringUp(p)
	lines := traced(p, 0)
	last := lines[len(lines)-1].GetNumber()
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := p.in.client.Trace(ctx, &apiv1.TraceRequest{Device: deviceName, After: last, Follow: true})
	if err != nil {
		p.failf("Trace: %v", err)
	}
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	m, err := stream.Recv()
	if err != nil {
		p.failf("no line came while a job ran: %v", err)
	}
	if n := m.GetLines()[0].GetNumber(); n <= last {
		p.failf("after line %d was asked for, line %d came", last, n)
	}
}

func traceAlone(p *probe) {
	l := bringUp(p)
	l.close()
	traced(p, 0)
	l = p.open(deviceName)
	traced(p, 0)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
}

func traceUnknown(p *probe) {
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := p.in.client.Trace(ctx, &apiv1.TraceRequest{Device: "no-such-device"})
	if err == nil {
		_, err = stream.Recv()
	}
	p.refusedWith("Trace of a device that is not open", err, core.ErrNotFound, core.ErrUnsupported)
}
