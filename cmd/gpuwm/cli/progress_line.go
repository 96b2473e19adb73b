package cli

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

const (
	// rateWindow is how far back the rate looks.
	rateWindow = 15 * time.Second
	// rateSpacing is the time between two kept samples, so that there are at most 16.
	rateSpacing = time.Second
	// barMin and barMax bound the width of the bar itself, in columns.
	barMin, barMax = 10, 40
)

// sample is how much was done at a time.
type sample struct {
	at   time.Time
	done uint64
}

// rate is a moving average of workgroups per second.
type rate struct {
	samples []sample
	last    sample
}

// add takes a measurement. A cursor that went back, after a restore, starts anew.
func (r *rate) add(now time.Time, done uint64) {
	if done < r.last.done {
		r.samples = r.samples[:0]
	}
	r.last = sample{now, done}
	if n := len(r.samples); n == 0 || now.Sub(r.samples[n-1].at) >= rateSpacing {
		r.samples = append(r.samples, r.last)
	}
	for len(r.samples) > 1 && now.Sub(r.samples[0].at) > rateWindow {
		r.samples = r.samples[1:]
	}
}

// perSecond returns the rate, 0 while it is not known.
func (r *rate) perSecond() float64 {
	if len(r.samples) == 0 {
		return 0
	}
	first := r.samples[0]
	took := r.last.at.Sub(first.at)
	if took < rateSpacing || r.last.done <= first.done {
		return 0
	}
	return float64(r.last.done-first.done) / took.Seconds()
}

// active reports whether the job gets a bar.
func (l *jobLine) active() bool {
	switch l.State {
	case StateRunning, StateSuspending, StateResuming:
		return true
	}
	return false
}

// percent is how much is done, rounded down: 100 means all.
func (l *jobLine) percent() uint64 {
	if l.Total == 0 {
		return 0
	}
	high, low := bits.Mul64(min(l.Done, l.Total), 100)
	q, _ := bits.Div64(high, low, l.Total)
	return q
}

// speed is rate and estimated time to the end, empty while not known.
func (l *jobLine) speed() string {
	perSecond := l.rate.perSecond()
	if perSecond == 0 {
		return ""
	}
	out := formatRate(perSecond) + "/s"
	if l.Done < l.Total {
		out += " eta " + formatSeconds(float64(l.Total-l.Done)/perSecond)
	}
	return out
}

// plain is the line about a job for files and pipes.
func (l *jobLine) plain(now time.Time) string {
	out := fmt.Sprintf("%s: %s", l.Job, l.State)
	if l.State == StateQueued || l.State == StateBlocked {
		return out
	}
	out += fmt.Sprintf(" %d/%d %d%%", l.Done, l.Total, l.percent())
	if speed := l.speed(); speed != "" {
		out += " " + speed
	}
	if !l.active() && !l.began.IsZero() {
		out += " in " + formatDuration(now.Sub(l.began))
	}
	return out
}

// bar is the line about a job for terminals: at most width columns.
func (l *jobLine) bar(column, width int) string {
	column = min(column, max(4, width/4))
	head := fmt.Sprintf("%-*s ", column, truncate(l.Job, column))
	tail := fmt.Sprintf(" %3d%% %d/%d", l.percent(), l.Done, l.Total)
	if l.State != StateRunning {
		tail += " " + l.State
	} else if speed := l.speed(); speed != "" {
		tail += " " + speed
	}
	room := min(width-len(head)-len(tail)-2, barMax)
	if room < barMin {
		return truncate(head+strings.TrimLeft(tail, " "), width)
	}
	filled := 0
	if l.Total > 0 {
		filled = int(float64(min(l.Done, l.Total)) / float64(l.Total) * float64(room))
	}
	filled = min(filled, room)
	tip := ""
	if filled < room {
		tip = ">"
	}
	return head + "[" + strings.Repeat("=", filled) + tip + strings.Repeat(" ", room-filled-len(tip)) + "]" + tail
}

// truncate cuts to width columns.
func truncate(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(0, width)])
	}
	return s
}

// formatRate writes a rate with about three digits.
func formatRate(perSecond float64) string {
	switch {
	case perSecond >= 1e9:
		return strconv.FormatFloat(perSecond/1e9, 'f', 1, 64) + "G"
	case perSecond >= 1e6:
		return strconv.FormatFloat(perSecond/1e6, 'f', 1, 64) + "M"
	case perSecond >= 1e4:
		return strconv.FormatFloat(perSecond/1e3, 'f', 1, 64) + "k"
	case perSecond >= 100:
		return strconv.FormatFloat(perSecond, 'f', 0, 64)
	case perSecond >= 1:
		return strconv.FormatFloat(perSecond, 'f', 1, 64)
	}
	return strconv.FormatFloat(perSecond, 'g', 2, 64)
}

// formatSeconds writes an estimate; beyond what a duration holds it is "ages".
func formatSeconds(seconds float64) string {
	if seconds >= math.MaxInt64/float64(time.Second) {
		return "ages"
	}
	return formatDuration(time.Duration(seconds * float64(time.Second)))
}

// formatDuration writes a duration with its two largest units.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
}
