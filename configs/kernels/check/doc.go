// Package check tests the kernels of the examples, in the directory above, by
// running them through the wasm engine. It is a package of its own since a Go
// package cannot stand beside C sources.
//
// After a change to a source, rebuild all kernels of the repository, those of the
// engine's tests included (needs clang-14 and lld-14):
//
//	go generate ./configs/kernels/...
//
// `configs/kernels/build --check` proves that the committed modules come from
// the sources.
package check

//go:generate ../build
