package sdk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// logRing keeps the last log lines, numbered, until a host reads them. Writing
// never blocks; when it is full the oldest line goes.
type logRing struct {
	level hclog.Level
	mu    struct {
		sync.Mutex
		lines []*apiv1.LogLine // a ring once it is full
		last  uint64
		more  chan struct{}
	}
}

func newLogRing(level hclog.Level) *logRing {
	r := &logRing{level: level}
	r.mu.more = make(chan struct{})
	return r
}

// add numbers a line and keeps it.
func (r *logRing) add(level hclog.Level, logger, text string) {
	if len(text) > logLineBytes {
		text = text[:logLineBytes]
	}
	line := &apiv1.LogLine{
		Time: time.Now().UnixNano(), Level: level.String(),
		Logger: strings.ToValidUTF8(logger, "?"), Text: strings.ToValidUTF8(text, "?"),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.last++
	line.Number = r.mu.last
	if len(r.mu.lines) < logLinesMax {
		r.mu.lines = append(r.mu.lines, line)
	} else {
		r.mu.lines[(line.Number-1)%logLinesMax] = line
	}
	close(r.mu.more)
	r.mu.more = make(chan struct{})
}

// since returns up to a batch of lines after that number, and a channel that is
// closed when there are more.
func (r *logRing) since(after uint64) ([]*apiv1.LogLine, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.mu.last - uint64(len(r.mu.lines)) + 1
	var out []*apiv1.LogLine
	for n := max(after+1, first); n <= r.mu.last && len(out) < wire.BatchCount; n++ {
		out = append(out, r.mu.lines[(n-1)%logLinesMax])
	}
	return out, r.mu.more
}

// Accept implements hclog.SinkAdapter.
func (r *logRing) Accept(name string, level hclog.Level, msg string, args ...any) {
	if level < r.level {
		return
	}
	var b strings.Builder
	b.WriteString(msg)
	for i := 0; i+1 < len(args); i += 2 {
		fmt.Fprintf(&b, " %v=%v", args[i], quoted(args[i+1]))
	}
	r.add(level, name, b.String())
}

func quoted(v any) any {
	if s := fmt.Sprint(v); s == "" || strings.ContainsAny(s, " \t\n\"=") {
		return fmt.Sprintf("%q", s)
	}
	return v
}

// logger returns a logger that writes to the ring only.
func (r *logRing) logger(name string) hclog.Logger {
	log := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: name, Output: io.Discard, Level: hclog.Off})
	log.RegisterSink(r)
	return log
}

// drain turns what is written to f into lines until it ends; logger names it.
func (r *logRing) drain(logger string, f io.Reader) {
	in := bufio.NewReaderSize(f, logLineBytes)
	for {
		line, err := in.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			r.add(hclog.Info, logger, text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
