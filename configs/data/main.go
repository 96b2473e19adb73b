// Command data makes configs/data/exponents.bin, the input buffer of
// configs/mersenne.yaml, of configs/data/exponents.txt: each exponent as a
// little-endian u64. Run it from the top of the repository:
//
//	go run ./configs/data
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const directory = "configs/data"

func main() {
	if err := run(directory); err != nil {
		fmt.Fprintln(os.Stderr, "data:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "exponents.txt"))
	if err != nil {
		return err
	}
	exponents, err := parse(string(text))
	if err != nil {
		return fmt.Errorf("exponents.txt: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "exponents.bin"), encode(exponents), 0o644)
}

// parse reads one number a line; empty lines and those that begin with # do not count.
func parse(text string) ([]uint64, error) {
	var exponents []uint64
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		exponents = append(exponents, p)
	}
	return exponents, nil
}

func encode(exponents []uint64) []byte {
	var b []byte
	for _, p := range exponents {
		b = binary.LittleEndian.AppendUint64(b, p)
	}
	return b
}
