// Package fw emulates Intel's GuC firmware and the engines under it, behind
// device memory, registers, a doorbell and an interrupt. It owns the context
// table, the choice of what runs, and the execution of ring commands; kernels
// run on an engine.Engine.
//
// One Firmware is one state machine without locks: everything happens in
// Step, on one goroutine. Run is the thin shell around it for real time; a test
// or a simulator calls Step itself, after each move of a virtual clock.
//
// The firmware touches the host only through hw.Arena and hw.Ports. Whatever it
// reads there is checked first: bad bytes become a failure reply, a status
// bit, or a fault of the context they belong to, never a panic.
//
// # Choices where the interface is silent
//
//   - A batch address names a dispatch descriptor (package hw). With the PPGTT
//     bit it is looked up in the address space table whose device address
//     stands in PDP0 of the context image; without, it is a device address.
//     The kernel and argument addresses inside it are of the same kind. Buffer
//     arguments always are GPU virtual addresses of mappings that are not private.
//   - A context that was preempted keeps its ring head at the batch; the next
//     switch-in reads the descriptor's firmware half and starts the rest.
//   - Before its first policies a context has Defaults.
//   - Levels of priority are strict. A context that made room for a stronger
//     one goes back to the front of its level, one whose quantum expired to the
//     end; each switch-in begins a new quantum.
//   - The context timestamp counts microseconds.
//   - A fault of the kernel is reported as 0x8002 and 0x1008, an address that is
//     not mapped as 0x6000. Order of a forced disable: 0x8002, 0x1008, 0x1002.
//   - The mailbox is looked at when the notify register reads 0, which is what
//     the host writes; the firmware sets it to 1 when it has looked. Its answer
//     raises the interrupt too.
//   - A broken H2G ring (STATUS set) silences both rings until the host
//     registers them again; the mailbox stays alive and contexts go on.
//
// Not modelled: multi-LRC and work queues, multi-queue groups, doorbells per
// context, functions (VF), page faults, logs, power management, relays. Their
// opcodes are answered with "not supported", others with "unknown action".
package fw
