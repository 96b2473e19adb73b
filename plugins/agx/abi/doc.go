// Package abi encodes and decodes the wire formats between a host and the
// firmware of Apple's AGX GPUs: mailbox messages, rings and their state blocks,
// the messages in them, the structures that work queues and commands are made
// of, microsequences, the crash log and the MMU fault register.
//
// The interface changes with every firmware. It is therefore data: For returns
// the ABI of a generation and a firmware version, with the layout of every
// structure as a table of named fields (layouts.go, queues.go, commands.go, ops.go).
// Decode and Encode work on any Object through its table, so that a version is
// added without code. A field of size 0 does not exist in that version.
//
// The sources are the public Asahi driver (drivers/gpu/drm/asahi), m1n1 and the
// Asahi documentation; a number that none of them gives is marked "ours" where
// it stands. No text and no code of them is copied.
//
// # Addresses
//
// A firmware address (VA) has its memory class in the upper 32 bits and the
// device address in the lower 32 (ours: it stands for the page tables of
// context 0), so that everything the firmware is to see lies in the first 4 GiB
// of device memory. What a job sees lies behind the address space of its slot in
// the context table.
//
// # Not modelled
//
// Vertex and fragment work, the tiler heap (GrowTVB), blits, performance
// counters, the contents of statistics and KTrace messages, FwCtl. Their numbers are reserved and named.
//
// The package knows bytes only: it holds no state but the position in a ring,
// starts nothing, and imports nothing of this project. Both sides use it, so
// nothing in it may say what a side does with a message. Everything is little
// endian. Decoding never panics, allocates no more than a structure's size, and
// accepts exactly what encoding can produce.
package abi
