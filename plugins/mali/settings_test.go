package mali

import (
	"errors"
	"strings"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/mali/fw"
	"github.com/gpuwm/gpuwm/sdk"
)

// TestSettingsRanges: what is out of range is refused with a sentence that says what the range is.
func TestSettingsRanges(t *testing.T) {
	for options, says := range map[[2]string]string{
		{"quantum", "9ms"}: "want 10ms to 1m40s", {"hang-deadline", "101s"}: "want 10ms to 1m40s", {"hang-deadline", "76001ms"}: "want at most 1m16s with these options",
		{"min-run", "101s"}: "want 0s to 1m40s", {"faults", "g2h drop"}: "no point", {"slice", "1s"}: "unknown; there are",
	} {
		err := CheckOptions(map[string]string{options[0]: options[1]})
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), options[0]) {
			t.Errorf("%s: %v", options, err)
		}
	}
	s, err := parseSettings(core.DeviceSpec{Options: map[string]string{"hang-deadline": "76s", "faults": "run nth=9 hang"}})
	if err != nil || s.leaveBound() != sdk.LeaveBoundMax || s.firmware(fw.Config{}).Faults == nil {
		t.Errorf("%s, %v", s.leaveBound(), err)
	}
}
