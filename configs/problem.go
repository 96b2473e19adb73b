package configs

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// problemsMax bounds how many problems of one file are reported.
const problemsMax = 100

// problemsKept bounds how many are kept before sorting, so that a hostile file
// cannot take memory without end.
const problemsKept = 100 * problemsMax

// Position is a place in a file; both count from 1.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Problem is one thing wrong with a file.
type Problem struct {
	File string `json:"file"`
	Position
	// Message is one sentence without a full stop.
	Message string `json:"message"`
	// Hint says what to do about it; empty when there is nothing to add.
	Hint string `json:"hint,omitempty"`
}

// String returns `file:line:column: message`.
func (p Problem) String() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// FileError is returned when a file was read but is not right. It holds every
// problem, sorted by position, at most problemsMax of them.
type FileError struct {
	Problems []Problem
	// More counts the problems that were left out.
	More int
}

// Error implements error: one problem a line, its hint on the next.
func (e *FileError) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
		if p.Hint != "" {
			b.WriteString("\nhint: " + p.Hint)
		}
	}
	if e.More > 0 {
		fmt.Fprintf(&b, "\nand %d more problems", e.More)
	}
	return b.String()
}

// problems collects what is wrong with one file.
type problems struct {
	file  string
	found []Problem
	more  int
}

// add notes a problem at a node; a nil node means the start of the file.
func (p *problems) add(n *yaml.Node, hint, format string, args ...any) {
	at := Position{1, 1}
	if n != nil && n.Line > 0 {
		at = Position{n.Line, n.Column}
	}
	p.addAt(at, hint, format, args...)
}

func (p *problems) addAt(at Position, hint, format string, args ...any) {
	if len(p.found) >= problemsKept {
		p.more++
		return
	}
	p.found = append(p.found, Problem{File: p.file, Position: at, Message: oneLine(fmt.Sprintf(format, args...)), Hint: oneLine(hint)})
}

// err returns nil when nothing is wrong, and a *FileError otherwise.
func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	sorted := slices.Clone(p.found)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	// An alias may bring the same node here several times.
	sorted = slices.Compact(sorted)
	more := p.more
	if len(sorted) > problemsMax {
		more += len(sorted) - problemsMax
		sorted = sorted[:problemsMax]
	}
	return &FileError{Problems: sorted, More: more}
}

// oneLine keeps text from the file from breaking the form of a message.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\r' || r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// shorten bounds a quotation from the file.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// Nearest returns the candidate closest to word, if one is close enough to be
// a slip of the fingers: at most a third of the letters differ.
func Nearest(word string, candidates []string) (string, bool) {
	if len(word) > 64 {
		return "", false
	}
	best, distance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := levenshtein(strings.ToLower(word), strings.ToLower(c)); d < distance && d < len(c) {
			best, distance = c, d
		}
	}
	return best, best != ""
}

// didYouMean returns the hint for a misspelt word, or lists the choice when
// nothing is close and the list is short.
func didYouMean(word string, candidates []string) string {
	if best, ok := Nearest(word, candidates); ok {
		return fmt.Sprintf("did you mean %q?", best)
	}
	if n := len(candidates); n > 0 && n <= 16 {
		return "known: " + strings.Join(candidates, ", ")
	}
	return ""
}

// didYouMean is the hint for a misspelt word. A file with a great many problems
// gets no more of them: each costs a look at every candidate.
func (p *problems) didYouMean(word string, candidates []string) string {
	if len(p.found) >= problemsMax {
		return ""
	}
	return didYouMean(word, candidates)
}

// levenshtein counts the letters to insert, delete or replace.
func levenshtein(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			change := diagonal
			if x[i] != y[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(y)]
}
