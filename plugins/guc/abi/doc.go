// Package abi encodes and decodes the wire formats between a host and Intel's
// GuC firmware: the MMIO mailbox, the command transport buffers (CTB), the
// HXG messages inside them, key-length-value lists, and the part of a logical
// ring context (LRC) that both sides read and write.
//
// The source of every number is the public ABI headers of the Xe driver,
// kernel 7.0 (abi/guc_*_abi.h, xe_guc_fwif.h, xe_lrc_layout.h and the MI command headers). No text
// and no code of them is copied.
//
// The package knows bytes only: it holds no state but the position in a ring,
// starts nothing, and imports nothing of this project. Both sides use it, so
// nothing in it may say what a side does with a message. Words are 32 bits
// ("dword", dw), little endian in memory. Decoding never panics, allocates no
// more than its input holds, and accepts exactly what encoding can produce.
package abi
