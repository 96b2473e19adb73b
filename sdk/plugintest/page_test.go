package plugintest

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// contractPage is what a plugin must do, coverPage which check looks at which sentence.
const (
	contractPage = "../../docs/plugin-protocol.md"
	coverPage    = "../../docs/conformance.md"
)

var (
	blocks    = regexp.MustCompile("(?s)```.*?```")
	spaces    = regexp.MustCompile(`\s+`)
	checkName = regexp.MustCompile("`([a-zA-Z0-9-]+)`")
)

func readPage(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// flat makes a text one line, so that words are found across the ends of lines.
func flat(s string) string { return spaces.ReplaceAllString(s, " ") }

// TestEveryPromiseHasACheck holds the page of checks against the contract and the kit.
func TestEveryPromiseHasACheck(t *testing.T) {
	contract := readPage(t, contractPage)
	missing := make(map[string]bool)
	for _, c := range all() {
		missing[c.name] = true
	}
	known := len(missing)
	var promises []string
	for line := range strings.Lines(readPage(t, coverPage)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 2 || strings.HasPrefix(line, "| promise") {
			continue
		}
		words, checks := strings.TrimPrefix(cells[0], "| "), strings.TrimSuffix(cells[1], " |")
		if promises = append(promises, words); !strings.Contains(flat(contract), words) {
			t.Errorf("%s does not say: %s", contractPage, words)
		}
		checks, why, excused := strings.Cut(checks, "–")
		names := checkName.FindAllStringSubmatch(checks, -1)
		if len(names) == 0 && (!excused || strings.TrimSpace(why) == "") {
			t.Errorf("nothing checks, and nothing says why: %s", words)
		}
		for _, name := range names {
			if _, ok := missing[name[1]]; !ok {
				t.Errorf("there is no check %s (%s)", name[1], words)
			}
			missing[name[1]] = false
		}
	}
	if len(missing) != known {
		t.Errorf("%d checks, the page has %d", known, len(missing))
	}
	for name, absent := range missing {
		if absent {
			t.Errorf("%s has no row for the check %s", coverPage, name)
		}
	}
	covered(t, contract, promises)
}

// covered fails for each paragraph of the contract from which no promise was taken.
func covered(t *testing.T, contract string, promises []string) {
	t.Helper()
	_, rules, begins := strings.Cut(contract, "## 1. The process")
	rules, _, ends := strings.Cut(rules, "## 8. ")
	if !begins || !ends {
		t.Fatalf("%s has other sections", contractPage)
	}
	for paragraph := range strings.SplitSeq(blocks.ReplaceAllString(rules, ""), "\n\n") {
		text, found := flat(strings.TrimSpace(paragraph)), false
		if text == "" || strings.HasPrefix(text, "#") || exempt[firstWords(text)] {
			continue
		}
		for _, words := range promises {
			found = found || strings.Contains(text, words)
		}
		if !found {
			t.Errorf("no promise was taken from the paragraph %q", firstWords(text))
		}
	}
}

// firstWords names a paragraph.
func firstWords(s string) string {
	const count = 5
	words := strings.Fields(s)
	return strings.Join(words[:min(count, len(words))], " ")
}

// exempt are the paragraphs that bind the host, or explain.
var exempt = map[string]bool{
	"**Start.** The host executes the": true,
	"A refused device, \"device is":    true,
}
