package hw

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// NoID is the id of what is about no context, queue or group; no id= matches it.
const NoID = ^uint64(0)

// ValueKind is what stands behind the "=" of an action.
type ValueKind uint8

// The kinds. An optional value may be left out.
const (
	ValueNone ValueKind = iota
	ValueNumber
	ValueDuration
	ValueDurationOptional
)

// String is what follows the name of an action of this kind.
func (k ValueKind) String() string {
	return [...]string{"", "=NUMBER", "=DURATION", "[=DURATION]"}[k]
}

// FaultAction is one action of a vendor's vocabulary.
type FaultAction struct {
	Name string
	Kind ValueKind
	// Samples are values that RandomPlan draws from; needed unless Kind is ValueNone.
	Samples []string
	// Text says in a sentence what it does.
	Text string
}

// FaultPoint is one place of a device where faults can be.
type FaultPoint struct {
	Name string
	// Names are what passes there; a rule may name one of them or none.
	Names []string
	// IDs says that what passes there is about a context, queue or group.
	IDs     bool
	Actions []FaultAction
	// Text says in a sentence what passes there.
	Text string
}

// Vocabulary is what a vendor's plans can say.
type Vocabulary []FaultPoint

// Table shows the vocabulary as two tables in Markdown: the points with their
// actions, and the actions, both in the order of the vocabulary.
func (v Vocabulary) Table() string {
	var points, actions strings.Builder
	points.WriteString("| point | what passes there | actions |\n|---|---|---|\n")
	actions.WriteString("\n| action | what it does |\n|---|---|\n")
	seen := map[string]bool{}
	for _, p := range v {
		names := make([]string, len(p.Actions))
		for i, a := range p.Actions {
			names[i] = a.Name
			if !seen[a.Name] {
				fmt.Fprintf(&actions, "| `%s%s` | %s |\n", a.Name, a.Kind, a.Text)
			}
			seen[a.Name] = true
		}
		fmt.Fprintf(&points, "| `%s` | %s | %s |\n", p.Name, p.Text, strings.Join(names, ", "))
	}
	return points.String() + actions.String()
}

// Check reports what a plan says that the vocabulary does not have. Errors wrap ErrPlan.
func (v Vocabulary) Check(p Plan) error {
	for i, r := range p {
		if err := v.check(r); err != nil {
			return fmt.Errorf("%w: rule %d, %q: %w", ErrPlan, i+1, r, err)
		}
	}
	return nil
}

func (v Vocabulary) check(r Rule) error {
	at := slices.IndexFunc(v, func(p FaultPoint) bool { return p.Name == r.Point })
	if at < 0 {
		return fmt.Errorf("no point %q", r.Point)
	}
	p := v[at]
	if r.Name != "" && !slices.Contains(p.Names, r.Name) {
		return fmt.Errorf("nothing called %q at %s", r.Name, p.Name)
	}
	if r.HasID && !p.IDs {
		return fmt.Errorf("no ids at %s", p.Name)
	}
	if r.Nth == 0 {
		return fmt.Errorf("nth counts from 1")
	}
	at = slices.IndexFunc(p.Actions, func(a FaultAction) bool { return a.Name == r.Action })
	if at < 0 {
		return fmt.Errorf("no action %q at %s", r.Action, p.Name)
	}
	kind := p.Actions[at].Kind
	if r.Value == "" && (kind == ValueNone || kind == ValueDurationOptional) {
		return nil
	}
	switch kind {
	case ValueNone:
		return fmt.Errorf("%s takes no value", r.Action)
	case ValueNumber:
		if _, err := parseNumber(r.Value); err != nil {
			return fmt.Errorf("%s takes a number", r.Action)
		}
	default:
		if d, err := time.ParseDuration(r.Value); err != nil || d < 0 {
			return fmt.Errorf("%s takes a duration", r.Action)
		}
	}
	return nil
}

// Number is the value of an action that takes one; 0 otherwise.
func (r Rule) Number() uint64 {
	n, err := parseNumber(r.Value)
	if err != nil {
		return 0
	}
	return n
}

// Duration is the value of an action that takes one; missing unless given.
func (r Rule) Duration(missing time.Duration) time.Duration {
	d, err := time.ParseDuration(r.Value)
	if err != nil {
		return missing
	}
	return d
}

// Faults carries a plan out: it counts what passes and says what is to be done
// to it. It outlives the firmware that it is injected into, so that a fault does
// not come again after a reload or a restart. Its methods may be called from
// any goroutine. A nil Faults has no faults.
type Faults struct {
	mu struct {
		sync.Mutex
		rules    []RuleCount
		disarmed bool
		watch    func(Hit)
	}
}

// Hit is one thing that a rule was done to: what it is called at the rule's point, and the id
// that it is about, NoID for nothing in particular.
type Hit struct {
	Rule Rule
	Name string
	ID   uint64
}

// Watch makes f hear of every hit from now on, before the fault is carried out and on the goroutine that met it.
func (f *Faults) Watch(hear func(Hit)) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.watch = hear
}

// RuleCount is what became of one rule.
type RuleCount struct {
	Rule
	// Seen counts what matched it, Fired what it was done to.
	Seen, Fired uint64
}

// Spent reports whether the rule will do nothing any more, whatever happens.
func (r RuleCount) Spent() bool { return r.Times > 0 && r.Fired >= r.Times }

// NewFaults makes a plan ready. Errors wrap ErrPlan.
func NewFaults(p Plan, v Vocabulary) (*Faults, error) {
	if err := v.Check(p); err != nil {
		return nil, err
	}
	f := &Faults{}
	for _, r := range p {
		f.mu.rules = append(f.mu.rules, RuleCount{Rule: r})
	}
	return f, nil
}

// Meet counts one thing that passes a point and returns the rules that hit it,
// in the plan's order. id is NoID when it is about nothing in particular.
func (f *Faults) Meet(point, name string, id uint64) []Rule {
	if f == nil {
		return nil
	}
	hit, watch := f.hits(point, name, id)
	if watch != nil {
		for _, r := range hit {
			watch(Hit{Rule: r, Name: name, ID: id})
		}
	}
	return hit
}

// hits counts for Meet, and returns who is to hear of it.
func (f *Faults) hits(point, name string, id uint64) (hit []Rule, watch func(Hit)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.disarmed {
		return nil, nil
	}
	for i := range f.mu.rules {
		r := &f.mu.rules[i]
		if r.Point != point || r.Name != "" && r.Name != name || r.HasID && (id == NoID || r.ID != id) {
			continue
		}
		r.Seen++
		if r.Seen >= r.Nth && !r.Spent() {
			r.Fired++
			hit = append(hit, r.Rule)
		}
	}
	return hit, f.mu.watch
}

// Counts returns what became of each rule so far.
func (f *Faults) Counts() []RuleCount {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mu.rules)
}

// Fired counts what all rules were done to.
func (f *Faults) Fired() uint64 {
	sum := uint64(0)
	for _, r := range f.Counts() {
		sum += r.Fired
	}
	return sum
}

// Spent reports whether no rule will do anything any more.
func (f *Faults) Spent() bool {
	if f == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.disarmed || !slices.ContainsFunc(f.mu.rules, func(r RuleCount) bool { return !r.Spent() })
}

// Disarm ends the plan: no rule hits any more.
func (f *Faults) Disarm() {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.disarmed = true
}

// The bounds of what RandomPlan draws.
const (
	randomIDs   = 6
	randomNth   = 6
	randomTimes = 3
)

// RandomPlan draws rules from a vocabulary; the same arguments give the same
// plan. All of its rules end.
func RandomPlan(seed uint64, rules int, v Vocabulary) Plan {
	random := rand.New(rand.NewPCG(seed, uint64(rules)))
	var p Plan
	for range min(max(rules, 0), PlanRulesMax) {
		point := v[random.IntN(len(v))]
		r := Rule{Point: point.Name, Nth: 1 + random.Uint64N(randomNth), Times: 1}
		if len(point.Names) > 0 && random.IntN(4) > 0 {
			r.Name = point.Names[random.IntN(len(point.Names))]
		}
		if point.IDs && random.IntN(4) == 0 {
			r.ID, r.HasID = random.Uint64N(randomIDs), true
		}
		if random.IntN(4) == 0 {
			r.Times = 1 + random.Uint64N(randomTimes)
		}
		action := point.Actions[random.IntN(len(point.Actions))]
		r.Action = action.Name
		if len(action.Samples) > 0 {
			r.Value = action.Samples[random.IntN(len(action.Samples))]
		}
		p = append(p, r)
	}
	return p
}
