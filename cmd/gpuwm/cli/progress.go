package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	// redrawInterval is the least time between two drawings of the bars.
	redrawInterval = 100 * time.Millisecond
	// lineInterval is the least time between two plain lines about one job.
	lineInterval = 5 * time.Second
	// barsMax bounds the bars on the screen; further jobs are counted.
	barsMax = 8
	// lineWidth is assumed when the terminal does not tell its own.
	lineWidth = 80
)

// Update is the present state of one job, for the progress.
type Update struct {
	Job string
	// State is that of JobView.
	State string
	// Done and Total count workgroups.
	Done, Total uint64
}

// Progress shows what the jobs are doing: bars that are redrawn in place on a
// terminal, plain lines otherwise. It starts no goroutine; it draws inside
// Update and Write, which may be called from any goroutine, and at most ten
// times a second. The caller sends updates as often as it likes, at least once
// a second for a live picture.
type Progress struct {
	options ProgressOptions
	mu      struct {
		sync.Mutex
		jobs  map[string]*jobLine
		order []*jobLine
		// drawn counts the lines on the screen that are redrawn in place.
		drawn     int
		lastDrawn time.Time
		closed    bool
	}
	w io.Writer
}

// ProgressOptions are the surroundings of a Progress.
type ProgressOptions struct {
	// Terminal chooses bars; otherwise plain lines.
	Terminal bool
	// Width returns the columns of the terminal, 0 for unknown.
	Width func() int
	Now   func() time.Time
}

// jobLine is what is known of one job.
type jobLine struct {
	Update
	rate rate
	// lastLine is when a plain line was written.
	lastLine time.Time
	// began is when the job was first seen running.
	began time.Time
}

// NewProgress returns a progress that writes to w.
func NewProgress(w io.Writer, options ProgressOptions) *Progress {
	p := &Progress{w: w, options: options}
	p.mu.jobs = map[string]*jobLine{}
	return p
}

// progressOptions looks at what standard error is.
func (c *command) progressOptions() ProgressOptions {
	options := ProgressOptions{Now: c.app.Now, Width: func() int { return 0 }}
	f, ok := c.stderr.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return options
	}
	if name, _ := c.app.Lookup("TERM"); name == "dumb" {
		return options
	}
	options.Terminal = true
	options.Width = func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return 0
		}
		return width
	}
	return options
}

// Update takes the present state of a job. Unchanged states cost little.
func (p *Progress) Update(u Update) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return
	}
	now := p.options.Now()
	line := p.mu.jobs[u.Job]
	if line == nil {
		line = &jobLine{}
		p.mu.jobs[u.Job] = line
		p.mu.order = append(p.mu.order, line)
	}
	changed := line.State != u.State
	line.Update = u
	if u.State == StateRunning {
		if line.began.IsZero() {
			line.began = now
		}
		line.rate.add(now, u.Done)
	} else {
		line.rate = rate{}
	}
	if p.options.Terminal {
		p.updateBars(line, changed, now)
		return
	}
	if changed || u.State == StateRunning && now.Sub(line.lastLine) >= lineInterval {
		line.lastLine = now
		fmt.Fprintln(p.w, line.plain(now))
	}
}

// updateBars redraws when it is time, and leaves a lasting line behind for a
// job that has ended.
func (p *Progress) updateBars(line *jobLine, changed bool, now time.Time) {
	var b strings.Builder
	if changed && !line.active() && line.State != StateQueued && line.State != StateBlocked {
		p.erase(&b)
		fmt.Fprintln(&b, line.plain(now))
	} else if !changed && now.Sub(p.mu.lastDrawn) < redrawInterval {
		return
	} else {
		p.erase(&b)
	}
	p.draw(&b, now)
	_, _ = io.WriteString(p.w, b.String())
}

// Write passes log lines and messages through without tearing the bars. It
// implements io.Writer; each call should hold whole lines.
func (p *Progress) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.options.Terminal || p.mu.drawn == 0 {
		return p.w.Write(text)
	}
	var b strings.Builder
	p.erase(&b)
	b.Write(text)
	if !strings.HasSuffix(b.String(), "\n") {
		b.WriteByte('\n')
	}
	p.draw(&b, p.options.Now())
	if _, err := io.WriteString(p.w, b.String()); err != nil {
		return 0, err
	}
	return len(text), nil
}

// Close takes the bars off the screen. Later updates are ignored, later
// writes still pass. It may be called twice.
func (p *Progress) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return
	}
	p.mu.closed = true
	var b strings.Builder
	p.erase(&b)
	_, _ = io.WriteString(p.w, b.String())
}

// erase moves to the first of the drawn lines and clears them all. The cursor may
// stand behind a ^C that the terminal has echoed.
func (p *Progress) erase(b *strings.Builder) {
	if p.mu.drawn > 0 {
		fmt.Fprintf(b, "\r\x1b[%dA\x1b[J", p.mu.drawn)
		p.mu.drawn = 0
	}
}

// draw writes the bars of the active jobs and counts their lines.
func (p *Progress) draw(b *strings.Builder, now time.Time) {
	if p.mu.closed {
		return
	}
	p.mu.lastDrawn = now
	width := p.options.Width()
	if width <= 0 {
		width = lineWidth
	}
	var active []*jobLine
	column := 0
	for _, line := range p.mu.order {
		if line.active() {
			active = append(active, line)
			if len(active) <= barsMax {
				column = max(column, len(line.Job))
			}
		}
	}
	more := len(active) - barsMax
	for _, line := range active[:min(len(active), barsMax)] {
		fmt.Fprintln(b, line.bar(column, width-1))
		p.mu.drawn++
	}
	if more > 0 {
		fmt.Fprintln(b, truncate(fmt.Sprintf("and %d more jobs", more), width-1))
		p.mu.drawn++
	}
}
