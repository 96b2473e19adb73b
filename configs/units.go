package configs

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

const (
	durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	sizePattern     = `^[0-9]+(B|KiB|MiB|GiB)$`
)

var (
	durationRule = regexp.MustCompile(durationPattern)
	sizeRule     = regexp.MustCompile(sizePattern)
	bareNumber   = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)
	wholeNumber  = regexp.MustCompile(`^[-+]?([0-9]+|0x[0-9a-fA-F]+)$`)
	decimalSize  = regexp.MustCompile(`^([0-9]+) ?([kKMG])(i?[bB])?$`)
)

// unitError is a problem with a number or its unit, and what to write instead.
type unitError struct{ message, hint string }

func (e *unitError) Error() string { return e.message }

// parseDuration reads a duration such as 1h30m. It wraps nothing.
func parseDuration(s string) (time.Duration, *unitError) {
	if bareNumber.MatchString(s) {
		return 0, &unitError{fmt.Sprintf("%q has no unit", s), fmt.Sprintf("write for instance %ss, %sms or %sm", s, s, s)}
	}
	if !durationRule.MatchString(s) {
		return 0, &unitError{fmt.Sprintf("%q is not a duration", shorten(s)), "units are ns, us, ms, s, m, h: for instance 30s or 1h30m"}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, &unitError{fmt.Sprintf("%q is out of range", shorten(s)), ""}
	}
	return d, nil
}

// parseSize reads a size such as 64KiB, in bytes.
func parseSize(s string) (uint64, *unitError) {
	if bareNumber.MatchString(s) {
		return 0, &unitError{fmt.Sprintf("%q has no unit", s), "units are B, KiB, MiB, GiB"}
	}
	if m := decimalSize.FindStringSubmatch(s); m != nil && !sizeRule.MatchString(s) {
		return 0, &unitError{fmt.Sprintf("%q is not a size", s), fmt.Sprintf("did you mean %s%siB?", m[1], strings.ToUpper(m[2]))}
	}
	if !sizeRule.MatchString(s) {
		return 0, &unitError{fmt.Sprintf("%q is not a size", shorten(s)), "a whole number with B, KiB, MiB or GiB: for instance 64KiB"}
	}
	digits := strings.TrimRight(s, "BKMGi")
	shift := map[string]uint{"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}[s[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > math.MaxUint64>>shift {
		return 0, &unitError{fmt.Sprintf("%q is out of range", shorten(s)), ""}
	}
	return n << shift, nil
}

// formatSize writes n with the largest unit that divides it.
func formatSize(n uint64) string {
	for _, u := range []struct {
		name  string
		shift uint
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if n != 0 && n&(1<<u.shift-1) == 0 {
			return strconv.FormatUint(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatUint(n, 10) + "B"
}

// parseWhole splits a whole number into sign and magnitude.
func parseWhole(s string) (negative bool, magnitude uint64, problem *unitError) {
	if !wholeNumber.MatchString(s) {
		return false, 0, &unitError{fmt.Sprintf("%q is not a whole number", shorten(s)), "write it in decimal, or in hexadecimal as 0x1f"}
	}
	digits := strings.TrimLeft(s, "+-")
	if len(digits) > 1 && digits[0] == '0' && digits[1] != 'x' {
		return false, 0, &unitError{fmt.Sprintf("%q starts with a zero", shorten(s)), "write it without, so that nobody reads it as octal"}
	}
	n, err := strconv.ParseUint(digits, 0, 64)
	if err != nil {
		return false, 0, &unitError{fmt.Sprintf("%s is out of range", shorten(s)), ""}
	}
	return strings.HasPrefix(s, "-"), n, nil
}

// parseArg reads the value of a scalar argument into its bits, which stand in
// the low bytes: 32-bit kinds leave the upper half zero.
func parseArg(kind core.ArgKind, s string) (uint64, *unitError) {
	switch kind {
	case core.ArgF32, core.ArgF64:
		return parseFloat(kind, s)
	}
	negative, n, problem := parseWhole(s)
	if problem != nil {
		return 0, problem
	}
	width := uint(8 * kind.Size())
	signed := kind == core.ArgI32 || kind == core.ArgI64
	low, high := "0", strconv.FormatUint(math.MaxUint64>>(64-width), 10)
	fits := n <= math.MaxUint64>>(64-width) && (!negative || n == 0)
	if signed {
		bound := uint64(1) << (width - 1)
		low, high = "-"+strconv.FormatUint(bound, 10), strconv.FormatUint(bound-1, 10)
		fits = n < bound || negative && n == bound
	}
	if !fits {
		return 0, &unitError{fmt.Sprintf("%s does not fit %s", s, kind), fmt.Sprintf("%s goes from %s to %s", kind, low, high)}
	}
	if negative {
		n = -n
	}
	return n & (math.MaxUint64 >> (64 - width)), nil
}

func parseFloat(kind core.ArgKind, s string) (uint64, *unitError) {
	special := map[string]float64{".inf": math.Inf(1), "+.inf": math.Inf(1), "-.inf": math.Inf(-1), ".nan": math.NaN()}
	bits := 8 * kind.Size()
	f, found := special[strings.ToLower(s)]
	if !found {
		if strings.ContainsAny(s, "_xXpP") {
			return 0, &unitError{fmt.Sprintf("%q is not a decimal number", shorten(s)), ""}
		}
		var err error
		if f, err = strconv.ParseFloat(s, bits); err != nil {
			return 0, &unitError{fmt.Sprintf("%s does not fit %s", shorten(s), kind), ""}
		}
	}
	if bits == 32 {
		return uint64(math.Float32bits(float32(f))), nil
	}
	return math.Float64bits(f), nil
}
