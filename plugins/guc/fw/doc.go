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
//   - OpenPoints lists the choices that can be switched.
//
// # Life
//
// The host resets, loads and powers the device through registers (package abi).
// A reset asks the engines to stop, aborts those that can be aborted, and ends
// when they are empty; an engine that outlasts Config.ResetGrace makes it fail,
// and the host has to give the device up. D3hot is entered when nothing is on
// an engine. How a load ended is told by the load status.
//
// # Save and restore
//
// The device is one function; VF_CONTROL and SAVE_RESTORE_VF name it by
// Config.Function. Owner and guest share the rings: while the function is
// paused, only the owner's actions work, the guest's are refused. A snapshot has
// the context table, policies, and where the rings lie; memory is the host's
// business. After a restore and a resume the rings of the snapshot replace those
// in use, nothing is read or written, and SW_INT_0 stands in the interrupt source
// register, until RESFIX_START and RESFIX_DONE with the same marker.
//
// # Faults
//
// Config.Faults says what goes wrong, by count (package hw; Vocabulary has the
// words). It outlives the firmware: after a reset a fault does not come again.
//
// Not modelled: multi-LRC and work queues, multi-queue groups, doorbells per
// context, scheduling between functions, page faults, logs, power management but
// for the device's states, relays. Their opcodes are answered with "not
// supported", others with "unknown action".
package fw
