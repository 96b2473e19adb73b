//go:build !mutations

package arbiter

// mutated reports whether a planted mistake is switched on: never in a build
// without the tag mutations, so that the compiler leaves it out.
func mutated(string) bool { return false }
