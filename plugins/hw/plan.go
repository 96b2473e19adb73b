package hw

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The limits of a plan, so that hostile text costs nothing.
const (
	// PlanRulesMax bounds the rules of a plan, PlanTextMax its text in bytes.
	PlanRulesMax = 256
	PlanTextMax  = 64 << 10
	// wordMax bounds one word of a rule.
	wordMax = 64
)

// ErrPlan is returned when a plan's text or a rule is malformed, or names what
// the vendor's Vocabulary does not have.
var ErrPlan = errors.New("invalid fault plan")

// Plan is an ordered list of faults that an emulated device is to have. It counts
// occurrences and never looks at the time, so that a plan and a seed repeat a
// run exactly. Faults carries it out.
//
// Its text has one rule after the other, with `;` or a line end between them:
//
//	POINT[/NAME] [id=N] [nth=N] [times=N] ACTION[=VALUE]
//
//	POINT   where in the device, in the vendor's words: "g2h"
//	NAME    which of the things that pass there: "SCHED_CONTEXT_MODE_DONE"; all unless given
//	id      only those about this context, queue or group; all unless given
//	nth     the first one that is hit, counted from 1 (default) over those that match
//	times   how many are hit from there on, 1 (default) or more; "always"
//	ACTION  what is done: "drop"; VALUE is its argument: "delay=5ms", "fail=0x100"
//
// The words stand in this order. Numbers are decimal or 0x.
type Plan []Rule

// Rule is one fault.
type Rule struct {
	Point, Name string
	// ID holds when HasID.
	ID    uint64
	HasID bool
	// Nth is at least 1. Times 0 means always.
	Nth, Times uint64
	Action     string
	Value      string
}

// ParsePlan reads a plan's text; empty rules are passed over. Errors wrap ErrPlan.
func ParsePlan(text string) (Plan, error) {
	if len(text) > PlanTextMax {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrPlan, len(text), PlanTextMax)
	}
	var p Plan
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '\n' }) {
		words := strings.FieldsFunc(part, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' })
		if len(words) == 0 {
			continue
		}
		r, err := parseRule(words)
		if err != nil {
			return nil, fmt.Errorf("%w: rule %d: %w", ErrPlan, len(p)+1, err)
		}
		if p = append(p, r); len(p) > PlanRulesMax {
			return nil, fmt.Errorf("%w: more than %d rules", ErrPlan, PlanRulesMax)
		}
	}
	return p, nil
}

// always is the Times of a rule that never ends.
const always = "always"

func parseRule(words []string) (Rule, error) {
	r := Rule{Nth: 1, Times: 1}
	if len(words) < 2 {
		return r, fmt.Errorf("%q has no action", words[0])
	}
	var named, valued bool
	r.Point, r.Name, named = strings.Cut(words[0], "/")
	last := len(words) - 1
	r.Action, r.Value, valued = strings.Cut(words[last], "=")
	for _, w := range []struct {
		word string
		must bool
	}{{r.Point, true}, {r.Name, named}, {r.Action, true}, {r.Value, valued}} {
		if w.must && !plainWord(w.word) {
			return r, fmt.Errorf("%q is no word", w.word)
		}
	}
	if _, key := keys[r.Action]; key {
		return r, fmt.Errorf("%q has no action", words[last])
	}
	before := -1
	for _, word := range words[1:last] {
		key, value, _ := strings.Cut(word, "=")
		order, known := keys[key]
		if !known || order <= before {
			return r, fmt.Errorf("%q: want id=, nth=, times= in this order, then the action", word)
		}
		before = order
		if key == "times" && value == always {
			r.Times = 0
			continue
		}
		n, err := parseNumber(value)
		if err != nil || order > 0 && n == 0 {
			return r, fmt.Errorf("%q: want a number", word)
		}
		switch key {
		case "id":
			r.ID, r.HasID = n, true
		case "nth":
			r.Nth = n
		default:
			r.Times = n
		}
	}
	return r, nil
}

// keys are the words before the action, and their order.
var keys = map[string]int{"id": 0, "nth": 1, "times": 2}

// parseNumber reads a decimal or 0x number without signs and underscores.
func parseNumber(text string) (uint64, error) {
	if hex, ok := strings.CutPrefix(text, "0x"); ok {
		return strconv.ParseUint(hex, 16, 64)
	}
	return strconv.ParseUint(text, 10, 64)
}

// plainWord reports whether a word needs no quoting.
func plainWord(word string) bool {
	if word == "" || len(word) > wordMax {
		return false
	}
	for i := range len(word) {
		c := word[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// String is the rule's text; ParsePlan reads it back as the same rule.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(r.Point)
	if r.Name != "" {
		b.WriteString("/" + r.Name)
	}
	if r.HasID {
		fmt.Fprintf(&b, " id=%d", r.ID)
	}
	if r.Nth != 1 {
		fmt.Fprintf(&b, " nth=%d", r.Nth)
	}
	switch r.Times {
	case 0:
		b.WriteString(" times=" + always)
	case 1:
	default:
		fmt.Fprintf(&b, " times=%d", r.Times)
	}
	b.WriteString(" " + r.Action)
	if r.Value != "" {
		b.WriteString("=" + r.Value)
	}
	return b.String()
}

// String is the plan's text on one line.
func (p Plan) String() string {
	rules := make([]string, len(p))
	for i, r := range p {
		rules[i] = r.String()
	}
	return strings.Join(rules, "; ")
}
