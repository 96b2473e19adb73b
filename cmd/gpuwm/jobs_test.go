package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
)

// parseJobs decodes what `run -o json` printed, strictly: standard output
// holds nothing else.
func parseJobs(stdout string) ([]cli.JobView, error) {
	var jobs []cli.JobView
	in := json.NewDecoder(strings.NewReader(stdout))
	in.DisallowUnknownFields()
	if err := in.Decode(&jobs); err != nil {
		return nil, fmt.Errorf("standard output is no array of jobs: %w\n%s", err, stdout)
	}
	if rest := strings.TrimSpace(stdout[in.InputOffset():]); rest != "" {
		return nil, fmt.Errorf("standard output goes on after the array: %q", rest)
	}
	return jobs, nil
}

// jobField returns one field of a job as text.
func jobField(j cli.JobView, name string) (string, error) {
	switch name {
	case "state":
		return j.State, nil
	case "cause":
		return string(j.Cause), nil
	case "error":
		return j.Error, nil
	case "entity":
		return j.Entity, nil
	case "device":
		return j.Device, nil
	case "backend":
		return j.Backend, nil
	case "done":
		return strconv.FormatUint(j.Progress.Done, 10), nil
	case "total":
		return strconv.FormatUint(j.Progress.Total, 10), nil
	case "executed":
		return strconv.FormatUint(j.Executed, 10), nil
	}
	return "", fmt.Errorf("a job has no field %q to check", name)
}

// condition is `field=text`, `field~regexp`, `field>=number`, `field<number` and so on.
var condition = regexp.MustCompile(`^([a-z]+)(>=|<=|=|~|<|>)(.*)$`)

// checkJob checks conditions on the fields of a job.
func checkJob(j cli.JobView, conditions []string) error {
	for _, c := range conditions {
		m := condition.FindStringSubmatch(c)
		if m == nil {
			return fmt.Errorf("bad condition %q", c)
		}
		got, err := jobField(j, m[1])
		if err != nil {
			return err
		}
		holds := false
		switch m[2] {
		case "=":
			holds = got == m[3]
		case "~":
			holds, err = regexp.MatchString(m[3], got)
		default:
			holds, err = compareNumbers(got, m[2], m[3])
		}
		if err != nil {
			return fmt.Errorf("condition %q: %w", c, err)
		}
		if !holds {
			return fmt.Errorf("job %s: %s is %q, want %s", j.Name, m[1], got, c)
		}
	}
	return nil
}

func compareNumbers(got, operator, want string) (bool, error) {
	a, err := strconv.ParseUint(got, 10, 64)
	if err != nil {
		return false, err
	}
	b, err := strconv.ParseUint(want, 10, 64)
	if err != nil {
		return false, err
	}
	switch operator {
	case ">=":
		return a >= b, nil
	case "<=":
		return a <= b, nil
	case "<":
		return a < b, nil
	}
	return a > b, nil
}
