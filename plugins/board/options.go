package board

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// Option is one option of a device in a deployment file. Set takes its text.
type Option struct {
	Name string
	Set  func(text string) error
}

// Parse checks a specification's engine and options; what is not in the list is
// unknown. It returns the engine's name, wasm unless given. Errors wrap core.ErrInvalid.
func Parse(spec core.DeviceSpec, options ...Option) (engine string, err error) {
	switch spec.Engine {
	case "", wasm.Name:
		engine = wasm.Name
	case testengine.Name:
		engine = testengine.Name
	default:
		return "", fmt.Errorf("engine %q, want %s or %s: %w", spec.Engine, wasm.Name, testengine.Name, core.ErrInvalid)
	}
	names := make([]string, 0, len(spec.Options))
	for name := range spec.Options {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		at := slices.IndexFunc(options, func(o Option) bool { return o.Name == name })
		if at < 0 {
			known := make([]string, len(options))
			for i, o := range options {
				known[i] = o.Name
			}
			return "", fmt.Errorf("option %s: %w: unknown; there are %s", name, core.ErrInvalid, strings.Join(known, ", "))
		}
		if err := options[at].Set(spec.Options[name]); err != nil {
			return "", fmt.Errorf("option %s: %w: %w", name, core.ErrInvalid, err)
		}
	}
	return engine, nil
}

// Duration is an option with a unit, within bounds.
func Duration(name string, to *time.Duration, least, most time.Duration) Option {
	return Option{name, func(text string) error {
		d, err := time.ParseDuration(text)
		if err == nil && (d < least || d > most) {
			err = fmt.Errorf("%s, want %s to %s", d, least, most)
		}
		*to = d
		return err
	}}
}

// Number is an option that counts, within bounds.
func Number(name string, to *int, least, most uint64) Option {
	return Option{name, func(text string) error {
		n, err := strconv.ParseUint(text, 10, 31)
		if err == nil && (n < least || n > most) {
			err = fmt.Errorf("%d, want %d to %d", n, least, most)
		}
		*to = int(n)
		return err
	}}
}

// Faults is an option with a fault plan in a vendor's words. Each opening of the
// device has a plan of its own, which counts from the beginning.
func Faults(name string, to **hw.Faults, words hw.Vocabulary) Option {
	return Option{name, func(text string) error {
		plan, err := hw.ParsePlan(text)
		if err == nil {
			*to, err = hw.NewFaults(plan, words)
		}
		return err
	}}
}

// CheckLeave refuses a hang deadline with which a suspend or destroy, which takes at
// most leave, could take longer than the SDK waits: a hang would then be reported
// as a plugin that is silent. Errors wrap core.ErrInvalid.
func CheckLeave(hang, leave time.Duration) error {
	over := leave - sdk.LeaveBoundMax
	if over <= 0 {
		return nil
	}
	return fmt.Errorf("option hang-deadline: %w: %s, want at most %s with these options: a suspend must be over within %s",
		core.ErrInvalid, hang, hang-over, sdk.LeaveBoundMax)
}

// Word is an option that is one of a few words.
func Word(name string, to *string, words ...string) Option {
	return Option{name, func(text string) error {
		if !slices.Contains(words, text) {
			return fmt.Errorf("%q, want %s", text, strings.Join(words, " or "))
		}
		*to = text
		return nil
	}}
}
