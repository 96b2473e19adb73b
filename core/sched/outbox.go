package sched

import "github.com/gpuwm/gpuwm/core"

// Outbox owns the rule "persist, then act": what a batch lets out leaves only
// when that batch and all before it are committed, in order. It is pure; the
// daemon, the tests and the simulator drive the same code.
type Outbox struct {
	commands queue[core.Command]
	effects  queue[Effect]
	notices  queue[Notice]
	acks     queue[core.EventSeq]
	// durable are the batches with states to commit that are not committed yet,
	// last is the last batch added.
	durable []uint64
	last    uint64
}

// queue holds things of one kind with the batch that each waits for.
type queue[T any] struct {
	items []T
	seqs  []uint64
}

func (q *queue[T]) add(seq uint64, items ...T) {
	for range items {
		q.seqs = append(q.seqs, seq)
	}
	q.items = append(q.items, items...)
}

// release lets out, in order, what waits for batches up to until.
func (q *queue[T]) release(until uint64, to func(*T)) {
	n := 0
	for n < len(q.items) && q.seqs[n] <= until {
		to(&q.items[n])
		n++
	}
	if n == 0 {
		return
	}
	rest := copy(q.items, q.items[n:])
	clear(q.items[rest:])
	q.items = q.items[:rest]
	q.seqs = q.seqs[:copy(q.seqs, q.seqs[n:])]
}

func (q *queue[T]) empty() {
	clear(q.items)
	q.items, q.seqs = q.items[:0], q.seqs[:0]
}

// Sink takes what leaves. What it is given is valid during the call.
type Sink interface {
	Command(*core.Command)
	Effect(*Effect)
	Notice(*Notice)
	Ack(core.EventSeq)
}

// Add takes over what a batch lets out. A batch without states to commit counts
// as committed as soon as all before it are. Batches must come in order.
func (o *Outbox) Add(b *Batch) {
	if b.NewSession {
		o.commands.empty()
		o.acks.empty()
	}
	o.commands.add(b.Seq, b.Commands...)
	o.effects.add(b.Seq, b.Effects...)
	o.notices.add(b.Seq, b.Notices...)
	if b.Ack != 0 {
		o.acks.add(b.Seq, b.Ack)
	}
	if b.Durable() {
		o.durable = append(o.durable, b.Seq)
	}
	o.last = b.Seq
}

// Committed says that batch seq, and so all before it, are on disk.
func (o *Outbox) Committed(seq uint64) {
	n := 0
	for n < len(o.durable) && o.durable[n] <= seq {
		n++
	}
	o.durable = o.durable[:copy(o.durable, o.durable[n:])]
}

// Release lets out all that may leave: commands, then effects, then notices,
// then acknowledgements, each kind in the order of the batches. The sink must
// not call back into the outbox.
func (o *Outbox) Release(to Sink) {
	until := o.last
	if len(o.durable) > 0 {
		until = o.durable[0] - 1
	}
	o.commands.release(until, to.Command)
	o.effects.release(until, to.Effect)
	o.notices.release(until, to.Notice)
	o.acks.release(until, func(seq *core.EventSeq) { to.Ack(*seq) })
}

// Waiting returns how many things wait for a commit.
func (o *Outbox) Waiting() int {
	return len(o.commands.items) + len(o.effects.items) + len(o.notices.items) + len(o.acks.items)
}
