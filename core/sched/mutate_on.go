//go:build mutations

package sched

import "sync/atomic"

// mutant is the one planted mistake that is switched on.
var mutant atomic.Pointer[string]

// SetMutant switches one planted mistake on, and the one before off; empty means none.
func SetMutant(name string) { mutant.Store(&name) }

func mutated(name string) bool {
	m := mutant.Load()
	return m != nil && *m == name
}
