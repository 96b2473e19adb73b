//go:build mutations

package arbiter

// mutant is the one planted mistake that is switched on; tests set it.
var mutant string

func mutated(name string) bool { return mutant == name }
