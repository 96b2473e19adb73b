// Package house holds the rules of the repository as tests: what may import
// what, how long a file may be, which names must be unique, and which parts of
// the papers are made from the code. It has no code of its own.
package house
