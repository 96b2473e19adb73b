// Package fw emulates a Mali GPU with the command stream frontend: the
// microcontroller and its firmware, the MMU, the command streams and their
// endpoints, behind device memory, registers, doorbells and interrupts. It owns
// the slots and what runs on them; kernels run on an engine.Engine.
//
// One Firmware is one state machine without locks: everything happens in
// Step, on one goroutine, and time stands still in it. Run is the thin shell around
// it for real time; a test or a simulator calls Step itself, after each move of a virtual clock.
//
// The firmware touches the host only through hw.Arena and hw.Ports. Whatever it
// reads there is checked first: bad bytes become a fault of the stream they
// belong to, a refused request, or a line in Violations, never a panic.
//
// # How a host brings it up
//
// It loads Image into memory, maps its sections for the MCU in address space 0
// (one more mapping has ring pages and suspend buffers), gives the L2 cache power,
// and writes MCU_CONTROL. After each store to a register it raises the doorbell line. The
// data section tells a fast restart from a slow one: the host's image has 0 there,
// the firmware writes whether it runs or was halted; only from halted memory a restart without a
// reload works.
//
// # Choices where the interface is silent
//
//   - TRANSTAB holds the device address of an address space table (package hw).
//     It is read by UPDATE, FLUSH_PT, FLUSH_MEM and UNLOCK, and cached meanwhile. An access
//     through a disabled address space waits for Config.Stall, then it is a bus fault.
//   - The shader program that SPD names has as its binary a dispatch descriptor
//     (package hw), read when RUN_COMPUTE is issued. r37 to r39 are its grid with r34 to r36
//     zero, or a box that is its range; r33 is its workgroup; anything else is
//     DATA_INVALID. A descriptor whose report says that it is done is passed over.
//   - At most one dispatch of a stream has endpoints, in order; four can be issued.
//     A dispatch takes as many endpoints as it has tasks, its group may have and are free; who
//     loses them to a stronger one stops at the next workgroup. Equals take turns.
//   - A trap is IMPRECISE, a kernel that cannot be loaded INVALID_ENC, memory ADDR_RANGE;
//     an engine that fails without blaming the kernel is a fatal ENDPOINT_FAULT.
//   - A TERMINATE is acknowledged when its executions have ended: at once if the
//     engine can abort, else at the next workgroup, so that nothing writes memory behind an
//     acknowledgement.
//   - STATE of a stream is acknowledged as STOP when its group leaves.
//   - PROGRESS_WAIT waits for at least the value. A branch at the level of the ring
//     is an invalid instruction, as a jump is.
//   - A reset that an execution outlasts never says that it is done, and the MCU
//     does not boot meanwhile. TIMESTAMP and CYCLE_COUNT are of the last Step.
//   - An event that is lost leaves nothing to acknowledge: the stream goes on.
//   - OpenPoints lists the choices that can be switched.
//
// # Suspend
//
// A suspend stops at a workgroup boundary (or, with Config.WholeDispatches, at the end of
// dispatches), completes what was issued, and writes the image: see suspend.go. It keeps the
// next workgroup of each dispatch, and no slot, address space, priority or moment, so that the
// group can be resumed elsewhere, later, and after PowerOff.
//
// # Faults
//
// Config.Faults says what goes wrong, by count (package hw; Vocabulary has the
// words). It outlives the firmware: after a reset a fault does not come again.
//
// Not modelled: tiler, fragments and heaps (their instructions are invalid, or
// only take time with Config.GraphicsLite), protected mode (PROTM_ENTER is never
// acknowledged, PROT_REGION waits for ever), performance counters (acknowledged), SLEEP,
// the power-off timer, page tables, instruction tracing, and what interface 4.0 changed: the
// 64-bit EP_REQ and the STATE field of GLB_REQ.
package fw
