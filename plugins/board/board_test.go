package board_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/board"
)

func TestParse(t *testing.T) {
	var d time.Duration
	var n int
	var w string
	options := []board.Option{board.Duration("long", &d, time.Millisecond, time.Second), board.Number("many", &n, 1, 9), board.Word("which", &w, "a", "b")}
	spec := core.DeviceSpec{Options: map[string]string{"long": "20ms", "many": "3", "which": "b"}}
	if engine, err := board.Parse(spec, options...); err != nil || engine != "wasm" || d != 20*time.Millisecond || n != 3 || w != "b" {
		t.Errorf("%s, %v: %s %d %s", engine, err, d, n, w)
	}
	for _, bad := range []core.DeviceSpec{
		{Engine: "steam"}, {Options: map[string]string{"long": "20"}}, {Options: map[string]string{"long": "2s"}}, {Options: map[string]string{"long": "1us"}},
		{Options: map[string]string{"many": "0"}}, {Options: map[string]string{"many": "x"}}, {Options: map[string]string{"which": "c"}}, {Options: map[string]string{"other": "1"}},
	} {
		if _, err := board.Parse(bad, options...); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
