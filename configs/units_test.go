package configs

import (
	"math"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1h30m": 90 * time.Minute, "20ms": 20 * time.Millisecond, "1.5h": 90 * time.Minute,
		"5us": 5 * time.Microsecond, "5µs": 5 * time.Microsecond, "7ns": 7, "0s": 0,
	} {
		if got, problem := parseDuration(s); problem != nil || got != want {
			t.Errorf("%s: %v %v, want %v", s, got, problem, want)
		}
	}
	for _, s := range []string{"", "0", "5", "-5s", "+5s", "5 s", "s", "1d", "1h30", "9999999999h", "1:30", "5S"} {
		if got, problem := parseDuration(s); problem == nil {
			t.Errorf("%q gave %v", s, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for s, want := range map[string]uint64{"0B": 0, "40000B": 40000, "64KiB": 64 << 10, "4MiB": 4 << 20, "3GiB": 3 << 30, "17179869183GiB": 17179869183 << 30} {
		got, problem := parseSize(s)
		if problem != nil || got != want {
			t.Errorf("%s: %d %v, want %d", s, got, problem, want)
		}
		if again, problem := parseSize(formatSize(got)); problem != nil || again != got {
			t.Errorf("%s: written as %s", s, formatSize(got))
		}
	}
	for _, s := range []string{"", "64", "KiB", "-1KiB", "1.5KiB", "4MB", "4 MiB", "4mib", "1TiB", "17179869184GiB", "99999999999999999999B"} {
		if got, problem := parseSize(s); problem == nil {
			t.Errorf("%q gave %d", s, got)
		}
	}
}

func TestParseArg(t *testing.T) {
	for _, c := range []struct {
		kind core.ArgKind
		text string
		bits uint64
		ok   bool
	}{
		{core.ArgU32, "0", 0, true}, {core.ArgU32, "4294967295", math.MaxUint32, true}, {core.ArgU32, "0xfFfFfFfF", math.MaxUint32, true},
		{core.ArgU32, "4294967296", 0, false}, {core.ArgU32, "-1", 0, false}, {core.ArgU32, "-0", 0, true}, {core.ArgU32, "1.0", 0, false},
		{core.ArgI32, "-2147483648", 0x80000000, true}, {core.ArgI32, "2147483647", 0x7fffffff, true}, {core.ArgI32, "-1", math.MaxUint32, true},
		{core.ArgI32, "2147483648", 0, false}, {core.ArgI32, "-2147483649", 0, false},
		{core.ArgU64, "18446744073709551615", math.MaxUint64, true}, {core.ArgU64, "9007199254740993", 1<<53 + 1, true},
		{core.ArgU64, "18446744073709551616", 0, false}, {core.ArgU64, "1_000", 0, false}, {core.ArgU64, "010", 0, false}, {core.ArgU64, "0b1", 0, false},
		{core.ArgI64, "-9223372036854775808", 1 << 63, true}, {core.ArgI64, "-0x1", math.MaxUint64, true}, {core.ArgI64, "9223372036854775808", 0, false},
		{core.ArgF32, "0.5", 0x3f000000, true}, {core.ArgF32, "1", 0x3f800000, true}, {core.ArgF32, "-.inf", 0xff800000, true}, {core.ArgF32, "1e39", 0, false},
		{core.ArgF64, "1e308", math.Float64bits(1e308), true}, {core.ArgF64, ".Inf", math.Float64bits(math.Inf(1)), true}, {core.ArgF64, "0x1p3", 0, false},
	} {
		got, problem := parseArg(c.kind, c.text)
		if (problem == nil) != c.ok || c.ok && got != c.bits {
			t.Errorf("%s %s: %#x %v, want %#x %v", c.kind, c.text, got, problem, c.bits, c.ok)
		}
	}
}

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"entites": "entities", "jbos": "jobs", "Jobs": "jobs", "zzz": "", "": ""} {
		if got, ok := Nearest(word, []string{"entities", "jobs", "version"}); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v, want %q", word, got, ok, want)
		}
	}
}
