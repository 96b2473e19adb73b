package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

var nameRegexp = regexp.MustCompile(namePattern)

// decodeScalar reads text, a word or a number into v, and reports whether it fits.
func (d *decoder) decodeScalar(n *yaml.Node, s *shape, what string, v *value) bool {
	switch s.kind {
	case kindName, kindText, kindWord:
		return d.decodeText(n, s, what, v)
	case kindDuration, kindSize:
		return d.decodeUnit(n, s, what, v)
	}
	return d.decodeNumber(n, s, what, v)
}

func (d *decoder) decodeText(n *yaml.Node, s *shape, what string, v *value) bool {
	// A word may look like a number: 13.5.
	if n.ShortTag() != "!!str" && (s.kind != kindWord || !slices.Contains(s.words, n.Value)) {
		hint, is := "", describe(n)
		switch {
		case s.kind != kindWord:
			hint = fmt.Sprintf("quote it if it is meant as text: %q", shorten(n.Value))
		case is == "a number":
			is = shorten(n.Value) // Some words are numbers too.
		}
		d.add(n, hint, "%s: must be %s, this is %s", what, s.wants(), is)
		return false
	}
	v.text = n.Value
	switch {
	case s.kind == kindName && !nameRegexp.MatchString(v.text):
		d.add(n, nameRule, "%s: %q is not a name", what, shorten(v.text))
		return false
	case s.kind == kindText && (v.text == "" || slices.Contains([]byte(v.text), 0)):
		d.add(n, "", "%s: must not be empty or hold a zero byte", what)
		return false
	case s.kind == kindWord && !slices.Contains(s.words, v.text):
		d.add(n, d.didYouMean(v.text, s.words), "%s: unknown word %q", what, shorten(v.text))
		return false
	}
	return true
}

func (d *decoder) decodeUnit(n *yaml.Node, s *shape, what string, v *value) bool {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float":
	default:
		d.add(n, "", "%s: must be %s, this is %s", what, s.wants(), describe(n))
		return false
	}
	var problem *unitError
	format := formatSize
	if s.kind == kindSize {
		v.number, problem = parseSize(n.Value)
	} else {
		var t time.Duration
		t, problem = parseDuration(n.Value)
		v.number = uint64(t)
		format = func(x uint64) string { return time.Duration(x).String() }
	}
	if problem != nil {
		d.add(n, problem.hint, "%s: %s", what, problem.message)
		return false
	}
	return d.inRange(n, s, what, v.number, format)
}

func (d *decoder) inRange(n *yaml.Node, s *shape, what string, got uint64, format func(uint64) string) bool {
	switch {
	case got >= s.min && got <= s.max:
		return true
	case s.min == s.max:
		d.add(n, "", "%s: must be %s, this is %s", what, format(s.min), format(got))
	case got < s.min:
		d.add(n, "", "%s: must be at least %s, this is %s", what, format(s.min), format(got))
	default:
		d.add(n, "", "%s: must be at most %s, this is %s", what, format(s.max), format(got))
	}
	return false
}

func (d *decoder) decodeNumber(n *yaml.Node, s *shape, what string, v *value) bool {
	if tag := n.ShortTag(); tag != "!!int" && tag != "!!float" {
		d.add(n, "", "%s: must be %s, this is %s", what, s.wants(), describe(n))
		return false
	}
	if s.kind == kindNumber {
		bits, problem := parseArg(s.arg, n.Value)
		if problem != nil {
			d.add(n, problem.hint, "%s: %s", what, problem.message)
		}
		v.number = bits
		return problem == nil
	}
	negative, whole, problem := parseWhole(n.Value)
	if problem != nil {
		d.add(n, problem.hint, "%s: %s", what, problem.message)
		return false
	}
	if negative && whole > 0 {
		d.add(n, "", "%s: must be at least %d, this is %s", what, s.min, n.Value)
		return false
	}
	v.number = whole
	return d.inRange(n, s, what, whole, func(x uint64) string { return strconv.FormatUint(x, 10) })
}
