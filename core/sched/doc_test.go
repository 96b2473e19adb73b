package sched

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	repository = "../.."
	pageOfDocs = "docs/scheduler.md"
)

// tables are the tables of the page with how many rows each has.
var tables = []struct {
	heading string
	rows    int
}{
	{"## The rules", 102},
	{"## The improvements", 18},
	{"## The topics", 26},
	{"## The scenarios", 11},
	{"## What the kernel's tests leave out", 19},
}

// hazards are the rules that are true of the kernel and regretted there.
var hazards = []int{6, 9, 46, 58, 59, 71, 72}

// ruleRow is one row of a table.
type ruleRow struct {
	number                  int
	text, status, why, test string
}

// TestDocumentedRules holds the page to its word: every number once and in
// order, legal statuses, opposites of hazards only, a reason or a test for each
// row, and no test that does not exist.
func TestDocumentedRules(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, pageOfDocs))
	if err != nil {
		t.Fatal(err)
	}
	exists := testsOfRepository(t)
	quoted := regexp.MustCompile("`([^`]+)`")
	for i, table := range tables {
		rows := rowsOf(t, string(page), table.heading)
		if len(rows) != table.rows {
			t.Errorf("%s: %d rows, want %d", table.heading, len(rows), table.rows)
		}
		for k, row := range rows {
			bad := func(what string) { t.Errorf("%s, row %d: %s", table.heading, row.number, what) }
			if row.number != k+1 {
				bad("out of order, want number " + strconv.Itoa(k+1))
			}
			hazard := i == 0 && slices.Contains(hazards, row.number)
			if marked := strings.Contains(row.text, "(hazard)"); marked != hazard {
				bad("wrongly marked as hazard or not")
			}
			names := quoted.FindAllStringSubmatch(row.test, -1)
			switch row.status {
			case "holds":
				if hazard {
					bad("a hazard holds")
				}
			case "opposite":
				if !hazard {
					bad("the opposite of what is no hazard")
				}
			case "replaced":
			case "void":
				if row.why == "" {
					bad("void without a reason")
				}
			default:
				bad("status " + row.status)
			}
			if row.status != "void" && len(names) == 0 {
				bad("no test")
			}
			if (row.status == "replaced" || row.status == "opposite") && row.why == "" {
				bad("no reason")
			}
			if strings.TrimSpace(quoted.ReplaceAllString(row.test, "")) != "" {
				bad("tests cannot be read: " + row.test)
			}
			for _, n := range names {
				if !exists[n[1]] {
					bad("no test " + n[1])
				}
			}
		}
	}
}

// rowsOf reads the table under a heading.
func rowsOf(t *testing.T, page, heading string) []ruleRow {
	t.Helper()
	_, section, ok := strings.Cut(page, heading+"\n")
	if !ok {
		t.Fatalf("no heading %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []ruleRow
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 2 || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| no.") {
			continue
		}
		if len(cells) != 7 {
			t.Errorf("%s: %d cells in %q", heading, len(cells)-2, line)
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		n, err := strconv.Atoi(cells[1])
		if err != nil {
			t.Errorf("%s: %v", heading, err)
			continue
		}
		rows = append(rows, ruleRow{n, cells[2], cells[3], cells[4], cells[5]})
	}
	return rows
}

// testsOfRepository finds every test function: those of this package by name,
// the others as directory.Name.
func testsOfRepository(t *testing.T) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		in, err := filepath.Rel(repository, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			found[filepath.ToSlash(in)+"."+f.Name.Name] = true
			if in == filepath.Join("core", "sched") {
				found[f.Name.Name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
