//go:build !crashpoints

// Package crash names the places in the code where a test may kill the
// process. In an ordinary build Point does nothing and costs nothing; with the
// build tag `crashpoints` the environment chooses a point (see crash_on.go).
package crash

// Point marks a place where a crash must be survivable. name is
// `<package>.<what>.<before|after|mid>` and unique in the project.
func Point(string) {}

// Keep is called with a directory that is about to be removed. It reports
// whether a test has taken it away instead, which happens with the build tag only.
func Keep(string) bool { return false }
