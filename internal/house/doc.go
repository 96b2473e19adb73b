// Package house holds the rules of the repository as tests: what may import
// what, how long a file may be, which names must be unique, what must not be
// named at all, and what the papers must say. It has no code of its own.
package house
