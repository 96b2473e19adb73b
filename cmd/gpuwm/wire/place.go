package wire

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/core"
)

// placed gives an error of opening the data directory the hint that helps.
func placed(err error) error {
	hint := ""
	switch {
	case errors.Is(err, core.ErrBusy):
		hint = "wait for that process, or use another --data-dir"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		hint = "use a --data-dir that can be written"
	default:
		return roomy(err)
	}
	return &cli.ExitError{Code: cli.ExitFailed, Hint: hint, Err: err}
}

// roomy gives an error of writing there its hint when there is no room.
func roomy(err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return &cli.ExitError{Code: cli.ExitFailed, Hint: "make room there, or use another --data-dir", Err: err}
}
