package plugintest

import (
	"testing"

	"github.com/gpuwm/gpuwm/sdk"
)

// Test runs the kit on a backend in this process, through real gRPC, up to the level
// that it declares. Each check is a subtest; those that need a process are skipped.
// backend is called for each instance that a check wants.
func Test(t *testing.T, backend func() sdk.Backend) {
	t.Helper()
	TestConfig(t, Config{Backend: backend})
}

// TestConfig is Test with everything that can be chosen, also an executable.
func TestConfig(t *testing.T, c Config) {
	t.Helper()
	k, err := newKit(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
	for _, check := range k.checks() {
		t.Run(check.name, func(t *testing.T) {
			if check.need&aMinute != 0 && c.Slow {
				t.Parallel() // They wait, each for itself.
			}
			switch result := k.do(t.Context(), check); {
			case result.Skipped:
				t.Skip(result.Reason)
			case !result.OK:
				t.Errorf("%s\npromise: %s", result.Reason, result.Doc)
			}
		})
	}
}
