package sched

import (
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// Outbox owns the rule "persist, then act": what a batch lets out leaves only
// when that batch and all before it are committed, in order. It is pure; the
// daemon, the tests and the simulator drive the same code.
type Outbox struct {
	items []item
	// durable are the batches with states to commit that are not committed yet,
	// last is the last batch added.
	durable []uint64
	last    uint64
}

// item is one thing that waits for batch seq.
type item struct {
	seq     uint64
	command core.Command
	effect  Effect
	notice  Notice
	ack     core.EventSeq
	what    itemKind
}

type itemKind uint8

const (
	itemCommand itemKind = iota
	itemEffect
	itemNotice
	itemAck
)

// Sink takes what leaves.
type Sink interface {
	Command(core.Command)
	Effect(Effect)
	Notice(Notice)
	Ack(core.EventSeq)
}

// Add takes over what a batch lets out. A batch without states to commit counts
// as committed as soon as all before it are. Batches must come in order.
func (o *Outbox) Add(b *Batch) {
	if b.NewSession {
		o.items = slices.DeleteFunc(o.items, func(it item) bool {
			return it.what == itemCommand || it.what == itemAck
		})
	}
	for i := range b.Commands {
		o.items = append(o.items, item{seq: b.Seq, what: itemCommand, command: b.Commands[i]})
	}
	for i := range b.Effects {
		o.items = append(o.items, item{seq: b.Seq, what: itemEffect, effect: b.Effects[i]})
	}
	for i := range b.Notices {
		o.items = append(o.items, item{seq: b.Seq, what: itemNotice, notice: b.Notices[i]})
	}
	if b.Ack != 0 {
		o.items = append(o.items, item{seq: b.Seq, what: itemAck, ack: b.Ack})
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

// Release lets out all that may leave.
func (o *Outbox) Release(to Sink) {
	until := o.last
	if len(o.durable) > 0 {
		until = o.durable[0] - 1
	}
	n := 0
	for n < len(o.items) && o.items[n].seq <= until {
		switch it := &o.items[n]; it.what {
		case itemCommand:
			to.Command(it.command)
		case itemEffect:
			to.Effect(it.effect)
		case itemNotice:
			to.Notice(it.notice)
		case itemAck:
			to.Ack(it.ack)
		}
		n++
	}
	rest := copy(o.items, o.items[n:])
	clear(o.items[rest:])
	o.items = o.items[:rest]
}

// Waiting returns how many things wait for a commit.
func (o *Outbox) Waiting() int { return len(o.items) }
