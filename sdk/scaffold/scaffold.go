// Package scaffold writes the module of a new plugin: a complete small backend
// that builds against a checkout of gpuwm and passes the conformance kit. It reads
// two files of the checkout, writes one directory, and asks no network: the
// module has the requirements and sums of the checkout, so that its module cache
// has everything.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuwm/gpuwm/core"
)

// Module is the module that plugins build against.
const Module = "github.com/gpuwm/gpuwm"

// nameMax bounds the name of a backend, in bytes.
const nameMax = 32

// validName is a backend's name: it becomes a word in files, and part of a path.
var validName = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

//go:embed module
var module embed.FS

// Errors of Write, besides those of the file system.
var (
	// ErrName is returned when the name cannot be one of a backend.
	ErrName = fmt.Errorf("not a name: %w", core.ErrInvalid)
	// ErrSource is returned when there is no checkout of gpuwm to build against.
	ErrSource = fmt.Errorf("no checkout of gpuwm: %w", core.ErrNotFound)
)

// Write writes the module of the plugin name to dir, which must not exist
// (core.ErrExists), and returns its files, sorted. source is a checkout of gpuwm;
// when it is empty, that is looked for from the working directory upwards. After
// an error nothing is left behind.
func Write(name, dir, source string) ([]string, error) {
	if !validName.MatchString(name) || len(name) > nameMax {
		return nil, fmt.Errorf("plugin %q: %w", name, ErrName)
	}
	source, required, err := findSource(source)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("directory %s: %w", dir, core.ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	files, err := render(name)
	if err != nil {
		return nil, err
	}
	files["go.mod"] = []byte(fmt.Sprintf("module gpuwm-%s\n%s\nrequire %s v0.0.0\n\nreplace %s => %s\n", name, required, Module, Module, quoted(source)))
	if files["go.sum"], err = os.ReadFile(filepath.Join(source, "go.sum")); err != nil {
		return nil, fmt.Errorf("sums of the checkout: %w", err)
	}
	return write(dir, files)
}

// render fills in the templates. Their names end with .tmpl so that no tool
// takes them for sources of this module.
func render(name string) (map[string][]byte, error) {
	entries, err := module.ReadDir("module")
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte, len(entries)+2)
	for _, entry := range entries {
		b, err := module.ReadFile("module/" + entry.Name())
		if err != nil {
			return nil, err
		}
		target := strings.TrimSuffix(entry.Name(), ".tmpl")
		if target == "gitignore" {
			target = ".gitignore"
		}
		files[target] = []byte(strings.ReplaceAll(string(b), "@NAME@", name))
	}
	return files, nil
}

// write puts the files beside dir first, so that dir is complete or absent.
func write(dir string, files map[string][]byte) (names []string, err error) {
	beside, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".gpuwm-new-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(beside))
		}
	}()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(beside, name), content, 0o644); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	if err := os.Chmod(beside, 0o755); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, os.Rename(beside, dir)
}

// findSource returns the checkout to build against and what its go.mod says after
// the name of the module.
func findSource(source string) (string, string, error) {
	if source != "" {
		top, err := filepath.Abs(source)
		if err != nil {
			return "", "", err
		}
		if rest, ok := requirements(top); ok {
			return top, rest, nil
		}
		return "", "", fmt.Errorf("directory %s: %w", source, ErrSource)
	}
	from, err := os.Getwd()
	if err != nil {
		return "", "", err
	}
	for top := from; ; top = filepath.Dir(top) {
		if rest, ok := requirements(top); ok {
			return top, rest, nil
		}
		if top == filepath.Dir(top) {
			return "", "", fmt.Errorf("above %s: %w", from, ErrSource)
		}
	}
}

// requirements reads the go.mod in dir; ok says that it is gpuwm's.
func requirements(dir string) (rest string, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(b), "module "+Module+"\n")
}

// quoted writes a path as a go.mod wants it.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t\"'`(),;[]{}") || strings.Contains(path, "//") {
		return strconv.Quote(path)
	}
	return path
}
