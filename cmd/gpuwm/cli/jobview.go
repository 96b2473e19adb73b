package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// States of a job that are not outcomes, as a person sees them; the outcomes
// are the final phases of core.
const (
	StateQueued     = "queued"
	StateBlocked    = "blocked"
	StateRunning    = "running"
	StateSuspending = "suspending"
	StateSuspended  = "suspended"
	StateResuming   = "resuming"
)

// JobView is a job as it is shown. Its JSON form is stable.
type JobView struct {
	Name    string     `json:"name"`
	ID      core.JobID `json:"id"`
	Entity  string     `json:"entity"`
	Device  string     `json:"device"`
	Backend string     `json:"backend"`
	State   string     `json:"state"`
	Cause   core.Cause `json:"cause"`
	Error   string     `json:"error"`
	// Progress counts workgroups.
	Progress JobProgress `json:"progress"`
	// Executed counts the workgroups that engines ran for the job in all,
	// repeats after a restore included.
	Executed  uint64 `json:"executed"`
	Submitted Time   `json:"submitted"`
	Started   Time   `json:"started"`
	Finished  Time   `json:"finished"`
}

// JobProgress is how many of a job's workgroups are done.
type JobProgress struct {
	Done  uint64 `json:"done"`
	Total uint64 `json:"total"`
}

// Time is an instant in JSON: RFC 3339 in UTC, or null for "not yet".
type Time core.Instant

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return json.Marshal(core.Instant(t).Time().Format(time.RFC3339Nano))
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*t = 0
		return nil
	}
	var at time.Time
	if err := json.Unmarshal(b, &at); err != nil {
		return err
	}
	*t = Time(core.At(at))
	return nil
}

// Final reports whether the job has its outcome.
func (j JobView) Final() bool { return core.JobPhase(j.State).Final() }

// outcome returns the exit code of a run with these jobs: 1 when one failed,
// else 5 when one has no outcome yet, else 0.
func outcome(jobs []JobView) int {
	code := ExitDone
	for _, j := range jobs {
		switch {
		case j.Final() && j.State != string(core.JobCompleted):
			return ExitFailed
		case !j.Final():
			code = ExitSuspended
		}
	}
	return code
}

// PrintJobs writes jobs as a table or as a JSON array.
func PrintJobs(w io.Writer, output string, jobs []JobView) error {
	if output == OutputJSON {
		if jobs == nil {
			jobs = []JobView{}
		}
		return printJSON(w, jobs)
	}
	rows := make([][]string, len(jobs))
	for i, j := range jobs {
		why := j.Error
		if why == "" {
			why = string(j.Cause)
		}
		rows[i] = []string{
			j.Name, j.Entity, j.Device, j.State,
			fmt.Sprintf("%d/%d", j.Progress.Done, j.Progress.Total),
			took(j), why,
		}
	}
	return printTable(w, []string{"NAME", "ENTITY", "DEVICE", "STATE", "PROGRESS", "TIME", "ERROR"}, rows)
}

// took is the time from start to end, empty for a job that has not both.
func took(j JobView) string {
	if j.Started == 0 || j.Finished == 0 || j.Finished < j.Started {
		return ""
	}
	return formatDuration(core.Instant(j.Finished).Sub(core.Instant(j.Started)))
}

// printJSON writes v indented.
func printJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	return out.Encode(v)
}

// printTable writes aligned columns, without blanks at the ends of lines.
func printTable(w io.Writer, header []string, rows [][]string) error {
	var b strings.Builder
	tab := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(tab, "\t")
			}
			fmt.Fprint(tab, flatten(cell))
		}
		fmt.Fprint(tab, "\n")
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}
