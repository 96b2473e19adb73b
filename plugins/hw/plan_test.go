package hw

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

var words = Vocabulary{
	{Name: "out", Text: "a message", Names: []string{"DONE", "LOST"}, IDs: true, Actions: []FaultAction{
		{Name: "drop", Text: "loses it"}, {Name: "fail", Text: "refuses", Kind: ValueNumber, Samples: []string{"0x100"}},
		{Name: "delay", Kind: ValueDuration, Samples: []string{"1ms", "2s"}},
		{Name: "hold", Kind: ValueDurationOptional, Samples: []string{"1ms"}}}},
	{Name: "load", Actions: []FaultAction{{Name: "fail", Kind: ValueNumber, Samples: []string{"113"}}}},
}

func TestPlanText(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "",
		" ;\n\t; ":                  "",
		"out drop":                  "out drop",
		"out/DONE id=7 nth=2 drop":  "out/DONE id=7 nth=2 drop",
		"out id=0x10 nth=1 drop":    "out id=16 drop",
		"out times=always drop":     "out times=always drop",
		"out times=1 drop;":         "out drop",
		"out times=3\tfail=0x100\n": "out times=3 fail=0x100",
		"out drop\n\nload fail=1":   "out drop; load fail=1",
		"out id=0 delay=1.5ms":      "out id=0 delay=1.5ms",
	} {
		p, err := ParsePlan(text)
		if err != nil || p.String() != want {
			t.Errorf("%q: %q, %v, want %q", text, p, err, want)
		}
		if err := words.Check(p); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, bad := range []string{
		"out", "out nth=1", "out nth=0 drop", "out times=0 drop", "out id=x drop", "out id= drop", "out id=-1 drop", "out nth=+1 drop",
		"out nth=2 id=1 drop", "out id=1 id=1 drop", "out drop drop", "/DONE drop", "out/ drop", "out drop=", "out =1", "o,t drop",
		"out drop=a/b", "out nth=99999999999999999999 drop", "out id=1_0 drop",
		strings.Repeat("out drop;", PlanRulesMax+1), strings.Repeat(" ", PlanTextMax+1), "out " + strings.Repeat("a", 65),
	} {
		if p, err := ParsePlan(bad); !errors.Is(err, ErrPlan) {
			t.Errorf("%.40q was taken: %v, %v", bad, p, err)
		}
	}
	for _, bad := range []string{
		"in drop", "out/ELSE drop", "load id=1 fail=1", "out fly", "out drop=1", "out fail", "out fail=1ms", "out delay", "out delay=7",
		"out delay=-1s", "out hold=x", "load/DONE fail=1",
	} {
		p, err := ParsePlan(bad)
		if err != nil {
			t.Errorf("%q: %v", bad, err)
		}
		if _, err := NewFaults(p, words); !errors.Is(err, ErrPlan) {
			t.Errorf("%q was taken: %v", bad, err)
		}
	}
}

func TestVocabularyTable(t *testing.T) {
	want := "| point | what passes there | actions |\n|---|---|---|\n| `out` | a message | drop, fail, delay, hold |\n| `load` |  | fail |\n" +
		"\n| action | what it does |\n|---|---|\n| `drop` | loses it |\n| `fail=NUMBER` | refuses |\n| `delay=DURATION` |  |\n| `hold[=DURATION]` |  |\n"
	if got := words.Table(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func mustFaults(t *testing.T, text string) *Faults {
	t.Helper()
	p, err := ParsePlan(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFaults(p, words)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFaultsCount(t *testing.T) {
	f := mustFaults(t, "out/DONE id=7 nth=2 times=2 drop; out nth=6 times=always hold; load fail=113")
	got := ""
	for _, at := range []struct {
		name string
		id   uint64
	}{{"DONE", 7}, {"DONE", 8}, {"LOST", 7}, {"DONE", 7}, {"DONE", NoID}, {"DONE", 7}, {"DONE", 7}, {"LOST", 1}} {
		got += "."
		for _, r := range f.Meet("out", at.name, at.id) {
			got += r.Action
		}
	}
	if want := "....drop..drophold.hold.hold"; got != want {
		t.Errorf("hits %s, want %s", got, want)
	}
	if c := f.Counts()[0]; c.Seen != 4 || c.Fired != 2 || !c.Spent() || f.Fired() != 5 || f.Spent() {
		t.Errorf("count %+v, %d in all, spent %t", c, f.Fired(), f.Spent())
	}
	if hit := f.Meet("load", "", NoID); len(hit) != 1 || hit[0].Number() != 113 || hit[0].Duration(time.Second) != time.Second {
		t.Errorf("load: %v", hit)
	}
	f.Disarm()
	if hit := f.Meet("out", "DONE", 7); hit != nil || !f.Spent() {
		t.Errorf("disarmed: %v", hit)
	}
	var none *Faults
	none.Disarm()
	if none.Meet("out", "DONE", 7) != nil || !none.Spent() || none.Fired() != 0 {
		t.Error("nil has faults")
	}
	if d := (Rule{Value: "3ms"}).Duration(0); d != 3*time.Millisecond {
		t.Error(d)
	}
}

func TestFaultsAreWatched(t *testing.T) {
	f, err := NewFaults(Plan{{Point: "out", Name: "DONE", Nth: 2, Times: 1, Action: "drop"}}, words)
	if err != nil {
		t.Fatal(err)
	}
	var heard []Hit
	f.Watch(func(h Hit) {
		f.Fired() // Whoever hears may ask.
		heard = append(heard, h)
	})
	for id := range uint64(3) {
		f.Meet("out", "DONE", id)
	}
	if len(heard) != 1 || heard[0].Rule.Action != "drop" || heard[0].Name != "DONE" || heard[0].ID != 1 {
		t.Errorf("heard %+v", heard)
	}
	var none *Faults
	none.Watch(func(Hit) {})
}

func TestRandomPlanIsLegalAndRepeats(t *testing.T) {
	different := map[string]bool{}
	for seed := range uint64(200) {
		p := RandomPlan(seed, 5, words)
		if err := words.Check(p); err != nil || len(p) != 5 {
			t.Fatal(err)
		}
		if again := RandomPlan(seed, 5, words); !reflect.DeepEqual(p, again) {
			t.Fatalf("seed %d: %s, then %s", seed, p, again)
		}
		back, err := ParsePlan(p.String())
		if err != nil || !reflect.DeepEqual(p, back) {
			t.Fatalf("%s read back as %s, %v", p, back, err)
		}
		for _, r := range p {
			if r.Times == 0 {
				t.Fatalf("%s never ends", r)
			}
		}
		different[p.String()] = true
	}
	if len(different) < 190 {
		t.Errorf("%d different plans", len(different))
	}
}

func FuzzParsePlan(f *testing.F) {
	f.Add("out/DONE id=7 nth=2 times=always delay=1ms; load fail=0x71")
	f.Add("a/b;c d=e")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePlan(text)
		if err != nil {
			if !errors.Is(err, ErrPlan) {
				t.Errorf("error %v", err)
			}
			return
		}
		back, err := ParsePlan(p.String())
		if err != nil && len(p.String()) <= PlanTextMax || err == nil && !reflect.DeepEqual(p, back) {
			t.Errorf("%q read back as %q, %v", p, back, err)
		}
		_ = words.Check(p)
	})
}
