package configs

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reference is the paper whose tables of keys come from the tables of this package.
const reference = "../docs/deployment.md"

// TestReference compares the tables of the paper with those that the decoder
// uses; -rewrite writes them anew.
func TestReference(t *testing.T) {
	b, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, part := range []struct {
		name string
		root *shape
	}{{"deployment", deploymentShape}, {"settings", settingsShape}} {
		begin, end := "<!-- keys of "+part.name+": begin -->\n", "<!-- keys of "+part.name+": end -->"
		before, rest, ok := strings.Cut(text, begin)
		have, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s: the marks %q and %q are missing", reference, begin, end)
		}
		want := keyTables(part.root)
		if have == want {
			continue
		}
		if !*rewrite {
			t.Errorf("%s: the keys of %s are not those of the code (-want +have):\n%s\nwrite them anew: go test ./configs -run TestReference -rewrite",
				reference, part.name, cmp.Diff(want, have))
		}
		text = before + begin + want + end + after
	}
	if *rewrite {
		if err := os.WriteFile(reference, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// keyTables writes a table for the map and one for each map below it, in the
// order in which they are met.
func keyTables(root *shape) string {
	var b strings.Builder
	done := make(map[*shape]bool)
	next := []*shape{root}
	for len(next) > 0 {
		s := next[0]
		next = next[1:]
		if done[s] || len(s.keys) == 0 {
			continue
		}
		done[s] = true
		fmt.Fprintf(&b, "\n**%s**\n\n| key | value | default | meaning |\n|---|---|---|---|\n", s.noun)
		for _, k := range s.keys {
			fallback := "–"
			switch {
			case k.required:
				fallback = "required"
			case k.fallback != "":
				fallback = "`" + k.fallback + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.name, takes(k.shape), fallback, k.doc)
			next = append(next, below(k.shape)...)
		}
	}
	b.WriteString("\n")
	return b.String()
}

// takes says what a place may hold, closer than wants does.
func takes(s *shape) string {
	switch s.kind {
	case kindMap, kindSingle:
		if s.elem != nil {
			return "map with one key of your choice: " + takes(s.elem)
		}
		return "map: " + s.noun
	case kindDict:
		return "map by name: " + takes(s.elem)
	case kindList:
		if s.min == s.max {
			return fmt.Sprintf("%d × %s", s.min, takes(s.elem))
		}
		return "list of " + takes(s.elem)
	case kindWord:
		return "`" + strings.Join(s.words, "` `") + "`"
	case kindInt:
		if s.min == s.max {
			return fmt.Sprintf("`%d`", s.min)
		}
		return fmt.Sprintf("whole number, %d to %d", s.min, s.max)
	case kindDuration:
		return "duration with unit"
	case kindSize:
		return "size with unit"
	case kindNumber:
		return "number, " + string(s.arg)
	case kindChoice:
		words := make([]string, len(s.choices))
		for i, c := range s.choices {
			words[i] = takes(c)
		}
		return strings.Join(words, ", or ")
	}
	return strings.TrimPrefix(s.wants(), "a ")
}

// below returns the maps with keys that a value may contain.
func below(s *shape) []*shape {
	var found []*shape
	switch {
	case len(s.keys) > 0:
		found = append(found, s)
	case s.elem != nil:
		found = below(s.elem)
	}
	for _, c := range s.choices {
		found = append(found, below(c)...)
	}
	return found
}
