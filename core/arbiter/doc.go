// Package arbiter decides who holds the scarce slots of a device whose host,
// not its firmware, must choose: more entities want to execute than the device
// has slots (or address spaces) for. It is a pure, deterministic state machine
// with no goroutine, clock or log; a driver's tick calls it from one goroutine.
//
// # The rule
//
// Everybody has a virtual time: the GPU time it used, multiplied by its stride
// (1 for high, 4 for normal, 32 for low: the inverse of the weights 32, 8 and
// 1). Who has least gets the next slot, so that over time everybody who wants
// to execute gets GPU time in proportion to its weight.
//
//   - Ties go to the higher priority, then to who has waited longer.
//   - The floor is the least virtual time of all runnable entities; it never
//     falls. An entity that was idle comes back with its own virtual time or the
//     floor, whichever is later: sleeping earns no credit, and a lead over
//     the others stays until they have caught up with it. A newcomer starts a
//     quantum (of a high entity) after the floor, so that a stream of
//     short-lived entities cannot keep the floor where it is and starve the others.
//   - Who holds a slot keeps it (moving costs) until its turn is used up and
//     somebody waits with less virtual time, or somebody waits with so much less
//     that it could use a whole turn and still be behind. Within MinRun of its
//     grant nobody is preempted. One Pick preempts MovesMax holders at most.
//     An entity whose moves are expensive gets longer turns (Moved).
//   - An idle holder keeps its slot while nobody else wants it.
//   - No slot stays empty while a runnable entity fits it and an address space is left.
//   - Who shares an address space needs one between them (Share). When somebody needs it, all
//     who hold slots in it go together, once each of them would have to; until then nobody behind
//     who needs it gets a slot, or newcomers would keep the space for ever.
//
// # Bounds
//
// Weights can ask for more than there is: one entity cannot use two slots.
// Who holds its slot all the time although it is behind gets all it can use
// and is owed nothing; it is never further behind the first of the waiting than
// window = 8 quanta of a low entity. Nobody's lead over the floor passes debt =
// 16 quanta of a low entity, whatever is charged. While nobody waits, use harms
// nobody: then the floor rises twice as fast as a low entity's virtual
// time, and leads fade.
//
// Starvation bound: let e begin to wait with the lead D over the floor (D ≤
// debt), beside entities i with strides s(i), on S slots that everybody fits,
// with Pick called at least every P. T is the longest time somebody stays
// once it is behind e: one turn and the Picks that MovesMax makes it wait,
// T = turn + P × (1 + ⌈S/MovesMax⌉), where turn = Quantum (4 × Quantum at most, if
// moves are expensive). Then e holds a slot after at most
//
//	Σi (D/s(i) + T) / S + T
//
// because each i can use D/s(i) before its virtual time passes that of e, and
// then at most its present turn. Whoever becomes runnable while e waits counts in the sum.
//
// # What the caller must keep
//
// Charge what the holders used before Wake and before Pick; a driver that
// cannot measure charges the time on the slot. Whoever cannot execute (empty,
// blocked) must be Idle, or it holds a slot without paying for it. Times given to
// Pick must not go back. Call Pick when somebody wakes, idles or leaves,
// and at least every quantum while Waiting is not zero; otherwise no tick is needed.
//
// Rejected: strict levels (a busy high entity would starve everybody else for
// days, and jobs here last that long); round robin by count of turns (who yields
// early loses); keeping the lead over the minimum through any idle time, as
// the Linux scheduler does (a low entity would pay again at each wake for what the others
// have long had back); moving an entity between slots (costs, and gains nothing).
package arbiter
