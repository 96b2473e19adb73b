// Package plugintest is the conformance kit: it proves that a plugin keeps every
// promise of the backend seam (api/v1/backend.proto). Run tests any executable, in
// any language, over the real handshake; Test runs the same checks as subtests on a
// backend in the test's own process, through real gRPC.
//
// Levels, each with those below it: 1 jobs, 2 in-band messages and properties,
// 3 suspend and images, 4 recovery, 5 portable images. A check has a name, the
// promise in a line, a deadline of its own and a fresh entity, and judges one thing
// only; a plugin that fails a check is ended, and the next one meets a new process.
// A skipped check says why and does not count as passed.
//
// The kit speaks the protocol itself, over connections of its own, because most of
// what it sends is what a proper host never sends. Package host only starts, adopts
// and ends the processes. There is no assertion on time; every wait has a bound,
// Config.Patience.
//
// # Kernels
//
// To see what a device computes the kit brings kernels, as wasm and as OpenCL C. A
// backend without kernels of its own takes the format "conformance" instead: its
// code is the line Code, and the backend carries out the entries itself. With the
// workgroup w = x + gx*(y + gy*z) of a grid, and cells an array of u32:
//
//	mix(buffer cells, u32 seed)             cells[w] = cells[w]*33 + seed + w, modulo 2^32
//	slow(buffer cells, u32 seed, u32 spin)  the same, after spin rounds of work
//	trap(buffer cells, u32 seed, u32 at)    as mix; workgroup `at` faults instead
//	args(buffer out, u32, i32, f32, u64, i64, f64)
//	                                        out = twelve u64: the bits of the six scalars in the
//	                                        low bytes, the grid, the group; little endian
//	sum(buffer cells, buffer out)           out[w] = out[w] + cells[w]
//
// Each workgroup executes once. mix does not commute between jobs of different
// seeds, so that order, loss and doubling of workgroups show.
package plugintest
