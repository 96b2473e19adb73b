// Package wasm is the embedded engine: it executes WebAssembly kernels on the
// cores of this machine, compiled to native code by wazero.
//
// # Kernel contract
//
// A kernel is a module that imports `env.memory` (shared, with a maximum),
// exports `__heap_base`, exports `__stack_pointer` when it keeps a stack in
// memory, and exports entry points
//
//	entry(args: i32, group_x: i32, group_y: i32, group_z: i32)
//
// that are called once per workgroup, on any core, in any order. args points to
// 8-byte slots, one per argument (a buffer's address, or the scalar's bits in
// the low bytes), then the grid as three u32, then the workgroup size as three
// u32. It imports nothing else. A module that has a memory of its own and
// exports it works too, on one core. So does a module with a mutable i32 global
// and no exported `__stack_pointer`: that may be the pointer of a stack that its
// workers would share.
//
// A custom section `gpuwm` may declare the arguments of entries, one line per
// entry: `name kind kind …` with the kinds buffer, u32, i32, f32, u64, i64, f64.
// Then a job with other arguments is refused at submit.
//
// # Memory
//
// Each pair of address space and kernel gets a linear memory of its own:
//
//	0            data, the first worker's stack, as the module wants it
//	base         arguments (64 KiB); base is the larger of __heap_base and the initial size
//	             per further worker: guard (64 KiB), stack
//	             guard (64 KiB)
//	             the buffers that the arguments name, at multiples of 64 KiB
//
// The address range of its maximum is reserved without memory behind it, and
// the buffers' files are mapped over it, so that the host and every kernel of the
// space see the same bytes. Where there is no file, buffers are copied in at
// the start and out at the end.
//
// # The Go runtime and native code
//
// Native code of a kernel has no preemption points. The garbage collector's
// stop of the world therefore waits for every running workgroup, and freezes the
// process meanwhile: for ever, if a workgroup never ends. So the collector is
// switched off while an engine is open, and collections are made here, when all
// workers stand between two workgroups (gate.go). The scheduler is given
// processors beyond the machine's cores, so that workers never starve the
// goroutines of the plugin; the operating system shares the cores. While a
// workgroup does not end the heap grows: at a limit Config.Failed is called.
// Callers must not stop the world by other means while kernels run
// (runtime.ReadMemStats, runtime.GOMAXPROCS, debug.SetGCPercent).
//
// Rejected: WithCloseOnContextDone, which makes kernels 4 to 10 times slower.
package wasm
