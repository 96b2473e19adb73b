package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/spf13/cobra"
)

// Exit codes.
const (
	// ExitDone: everything completed.
	ExitDone = 0
	// ExitFailed: something failed.
	ExitFailed = 1
	// ExitUsage: the command line or a file is wrong.
	ExitUsage = 2
	// ExitUnreachable: the daemon cannot be reached.
	ExitUnreachable = 3
	// ExitNotFound: there is nothing of that name.
	ExitNotFound = 4
	// ExitSuspended: a run was interrupted and can go on.
	ExitSuspended = 5
)

// ExitError carries an exit code, and a hint for the person.
type ExitError struct {
	Code int
	// Hint is one line without `hint:`; empty when there is nothing to add.
	Hint string
	// Err is what is printed; nil prints nothing.
	Err error
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Err }

// hinter is an error that knows what to do about it.
type hinter interface{ Hint() string }

// ExitCode returns the exit code for an error: that of an ExitError, 2 for bad
// files and settings, 4 for what was not found, otherwise 1; 0 for nil.
func ExitCode(err error) int {
	var exit *ExitError
	var file *configs.FileError
	var setting *configs.SettingError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &file), errors.As(err, &setting):
		return ExitUsage
	case errors.Is(err, core.ErrNotFound):
		return ExitNotFound
	}
	return ExitFailed
}

// PrintError writes `gpuwm: <what>: <why>` and, where there is one, a `hint:`
// line. Problems with a file come one a line, each with its hint.
func PrintError(w io.Writer, err error) {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) && exit.Err == nil {
		return
	}
	var file *configs.FileError
	if errors.As(err, &file) {
		for _, p := range file.Problems {
			printOne(w, p.String(), p.Hint)
		}
		if file.More > 0 {
			printOne(w, fmt.Sprintf("%s: %d more problems", file.Problems[0].File, file.More), "")
		}
		return
	}
	hint := ""
	var h hinter
	switch {
	case exit != nil && exit.Hint != "":
		hint = exit.Hint
	case errors.As(err, &h):
		hint = h.Hint()
	}
	printOne(w, err.Error(), hint)
}

func printOne(w io.Writer, message, hint string) {
	fmt.Fprintf(w, "gpuwm: %s\n", flatten(message))
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", flatten(hint))
	}
}

// flatten keeps an error from breaking the form of one line, or the terminal.
func flatten(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\r' || r == '\t':
			return ' '
		case r < ' ' || r == 0x7f:
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
}

// usageError gives an error of the command line its code and hint.
func usageError(root *cobra.Command, err error) error {
	var exit *ExitError
	var setting *configs.SettingError
	if errors.As(err, &exit) || errors.As(err, &setting) {
		return err
	}
	return &ExitError{Code: ExitUsage, Hint: root.Name() + " --help lists verbs and flags", Err: fmt.Errorf("usage: %w", err)}
}
