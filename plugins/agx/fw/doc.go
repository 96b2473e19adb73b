// Package fw emulates the firmware of an AGX GPU's coprocessor and the compute
// pipe under it, behind device memory, a mailbox and two signal lines. It owns
// the handshake, the rings, the choice of what runs, and the execution of
// commands; kernels run on an engine.Engine.
//
// One Firmware is one state machine without locks: everything happens in
// Step, on one goroutine. Run is the thin shell around it for real time; a test
// or a simulator calls Step itself, after each move of a virtual clock.
//
// The firmware touches the host only through hw.Arena, hw.Registers, two hw.FIFO
// and two lines. Whatever it reads there is checked first: bad bytes become a
// crash of the firmware, a channel error or a fault of the GPU, never a panic.
//
// # What runs
//
// A work queue's commands start and end in order. A command that was started runs
// to its end, is ended by the watchdog, or dies in a fault: there is no
// preemption unless OpenPoints.ComputePreempt and the command allow it, and the
// host makes commands short. The strongest level goes first;
// inside a level, who has waited longest. The compute stream of a command names a
// dispatch descriptor (package hw), through the VM of its slot; kernel and
// argument addresses inside it are of the same VM.
//
// # How work ends badly
//
//   - An address that is not mapped, a trap, memory beyond the limits: the GPU
//     halts with a valid fault register that names the VM.
//   - A malformed descriptor, a kernel that does not load, a failure of the
//     engine: channel error DMKill of the queue. The descriptor's report says which.
//   - The watchdog: the GPU halts with a Timeout that names the event slot. What
//     else was running leaves at the end of a workgroup and is reported as
//     preempted. What cannot be taken off in Config.HaltGrace makes the firmware
//     crash: the device has to be given up. pending_stamps and the event are
//     there before, and the culprit's report too.
//   - What the host must not do (an index out of range, a queue that is new twice,
//     a malformed command): the firmware crashes, unless it is lenient.
//   - A crash is for good. RUN does not help; only a new Firmware does.
//
// # Memory
//
// What lies in private memory is read once and kept by lines until a
// DestroyContext flushes them; when memory no longer agrees, the checker counts a
// violation, and the firmware goes on with what it had. The last command of a queue is
// looked at once more after its completion was told.
//
// # Choices where the sources are silent
//
// OpenPoints lists those that can be switched. Others: the system endpoints'
// buffers are all asked for in one form; IOP_PWR_ACK comes when all system
// endpoints are started and have their buffers; several Flags of one pass are several
// events and one RX message; rings are not looked at while the GPU is halted;
// DestroyContext of a queue that is not idle, or that does not repeat the context's
// indices, is misuse; so is a RunWorkQueue beyond the ring's own write index; the
// GPU is off until the first message that needs it.
//
// # Faults
//
// Config.Faults says what goes wrong, by count (package hw; Vocabulary has the
// words). It outlives the firmware.
//
// Not modelled: vertex, fragment and blit work, the tiler heap, soft faults but by
// the plan, KTrace, FwCtl, contents of statistics but for the GPU's power,
// frequencies, the handoff page, syslog lines.
package fw
