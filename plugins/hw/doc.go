// Package hw is what the emulated devices share: device memory (Arena,
// Allocator), registers, the two signal lines and what stands behind a mailbox
// (Registers, Line, Ports, FIFO), a
// clock that tests can own (Clock), the dispatch descriptor and the address
// space table through which work is named in device memory, a trace of decoded
// firmware messages that can be followed (Trace), what goes wrong on
// purpose, counted, in a text that replays it (Plan, Faults), and the shell that
// steps an emulated firmware (Stepper).
//
// Host driver and firmware emulator meet in these things and in nothing else.
// Everything but the signal lines lies in one memory file, so that the two
// sides may live in two processes: no Go pointer crosses.
//
// The package knows no vendor, starts nothing but the reader of a pipe line,
// and imports nothing of ours. Addresses are offsets into the arena and are
// called device addresses; a GPU virtual address is what an address space
// table turns into one. All multi-byte values are little endian.
package hw
