package device

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
)

// Option is one option of a device: its name, and what takes its value.
type Option struct {
	Name string
	Set  func(text string) error
}

// Limits that all backends share.
const (
	// DurationMax bounds quanta and deadlines.
	DurationMax = 100 * time.Second
	// HangMin is the shortest hang deadline.
	HangMin  = 10 * time.Millisecond
	coresMax = 1 << 16
)

// Parse checks engine and options of a device against those that there are.
// Errors wrap core.ErrInvalid.
func (c *Common) Parse(spec core.DeviceSpec, options []Option) error {
	switch spec.Engine {
	case "", wasm.Name:
		c.Engine = wasm.Name
	case testengine.Name:
		c.Engine = testengine.Name
	default:
		return fmt.Errorf("engine %q, want %s or %s: %w", spec.Engine, wasm.Name, testengine.Name, core.ErrInvalid)
	}
	options = append([]Option{{"cores", Number(&c.Cores, 0, coresMax)}}, options...)
	for _, name := range slices.Sorted(maps.Keys(spec.Options)) {
		at := slices.IndexFunc(options, func(o Option) bool { return o.Name == name })
		if at < 0 {
			var known []string
			for _, o := range options {
				known = append(known, o.Name)
			}
			return fmt.Errorf("option %s: %w: unknown; there are %s", name, core.ErrInvalid, strings.Join(known, ", "))
		}
		if err := options[at].Set(spec.Options[name]); err != nil {
			return fmt.Errorf("option %s: %w: %w", name, core.ErrInvalid, err)
		}
	}
	return nil
}

// Duration takes a duration within bounds.
func Duration(to *time.Duration, least, most time.Duration) func(string) error {
	return func(text string) error {
		d, err := time.ParseDuration(text)
		if err == nil && (d < least || d > most) {
			err = fmt.Errorf("%s, want %s to %s", d, least, most)
		}
		*to = d
		return err
	}
}

// Number takes a whole number within bounds.
func Number(to *int, least, most uint64) func(string) error {
	return func(text string) error {
		n, err := strconv.ParseUint(text, 10, 64)
		if err == nil && (n < least || n > most) {
			err = fmt.Errorf("%d, want %d to %d", n, least, most)
		}
		*to = int(n)
		return err
	}
}
