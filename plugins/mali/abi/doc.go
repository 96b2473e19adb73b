// Package abi encodes and decodes what a host and Arm's command stream frontend
// (Mali CSF, Valhall generation 10) say to each other: registers, the global,
// group (CSG) and stream (CS) interface blocks in shared memory, ring pages, sync
// objects, the container of a firmware image, and the instructions and
// descriptors that compute work needs.
//
// The source of every number is public: the panthor kernel driver (its firmware
// interface and register headers, 2026), the register headers of Arm's own
// kernel driver where panthor names less, and Mesa's description of the v10
// instruction set. No text and no code of them is copied. What is ours says so.
//
// Not modelled: tiler, heap growth, fragment work, protected mode, performance
// counters. Their opcodes and bits have names, and the firmware answers them.
//
// The package knows bytes only: it holds no state, starts nothing, and imports
// nothing of this project. Both sides use it, so nothing in it may say what a
// side does with a message. Everything is little endian in memory. Decoding never
// panics and accepts exactly what encoding can produce. Offsets are bytes.
package abi
