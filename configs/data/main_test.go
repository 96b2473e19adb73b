package main

import (
	"bytes"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
)

func TestBinaryComesFromTheText(t *testing.T) {
	text, err := os.ReadFile("exponents.txt")
	if err != nil {
		t.Fatal(err)
	}
	exponents, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	committed, err := os.ReadFile("exponents.bin")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, encode(exponents)) {
		t.Error("exponents.bin is not made of exponents.txt: go run ./configs/data")
	}
	for _, p := range exponents {
		if !new(big.Int).SetUint64(p).ProbablyPrime(20) {
			t.Errorf("%d is no prime", p)
		}
	}
}

func TestParseRefusesWords(t *testing.T) {
	if _, err := parse("67\nsixty\n"); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("%v", err)
	}
}

// TestFactorsDivide: every line of factors.csv is true.
func TestFactorsDivide(t *testing.T) {
	text, err := os.ReadFile("factors.csv")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if lines[0] != "p,factor" || len(lines) < 50 {
		t.Fatalf("%d lines, the first is %q", len(lines), lines[0])
	}
	for _, line := range lines[1:] {
		var p, q uint64
		if _, err := fmt.Sscanf(line, "%d,%d", &p, &q); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		factor := new(big.Int).SetUint64(q)
		power := new(big.Int).Exp(big.NewInt(2), new(big.Int).SetUint64(p), factor)
		if power.Cmp(big.NewInt(1)) != 0 || !factor.ProbablyPrime(20) {
			t.Errorf("%d is no prime factor of 2^%d - 1", q, p)
		}
	}
}
