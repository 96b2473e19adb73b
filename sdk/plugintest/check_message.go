package plugintest

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var messageChecks = []check{
	{name: "barrier-is-answered", level: core.LevelMessages, run: barrierAnswered,
		doc: "a barrier is answered with message-done, for its command, without a reply"},
	{name: "message-keeps-its-place", level: core.LevelMessages, run: keepsPlace,
		doc: "a message is answered after every command before it was carried out: it overtakes no job"},
	{name: "messages-are-in-order", level: core.LevelMessages, run: messagesInOrder,
		doc: "messages of an entity are answered in the order in which they were sent"},
	{name: "message-is-answered-once", level: core.LevelMessages, run: answeredOnce,
		doc: "a message has one answer"},
	{name: "messages-pass-executing-jobs", level: core.LevelMessages, run: messagesPass,
		doc: "a message does not wait until the jobs before it have ended"},
	{name: "set-properties-is-answered", level: core.LevelMessages, run: propertiesAnswered,
		doc: "set-properties takes every priority and any checkpoint interval"},
	{name: "set-properties-while-busy", level: core.LevelMessages, run: propertiesBusy,
		doc: "set-properties is carried out while a job executes, which goes on"},
	{name: "unknown-message-is-refused", level: core.LevelMessages, run: unknownMessage,
		doc: "a message of an unknown kind below 1024 is refused, with cause and sentence; the entity goes on"},
	{name: "undeclared-message-is-refused", level: core.LevelMessages, run: undeclaredMessage,
		doc: "a message of the backend's own kinds that it does not declare is refused"},
	{name: "own-messages-are-answered", level: core.LevelMessages, run: ownMessages,
		doc: "each message that the backend declares is answered, or refused with a cause"},
	{name: "payload-of-1MiB-crosses", level: core.LevelMessages, run: payloadCrosses,
		doc: "a message may carry a payload of 1 MiB"},
	{name: "reply-is-bounded", level: core.LevelMessages, run: replyBounded,
		doc: "a reply is at most 1 MiB"},
	{name: "message-needs-an-entity", level: core.LevelMessages, run: messageNeedsEntity,
		doc: "a message for an entity that was never created is refused"},
	{name: "message-takes-no-credits", level: core.LevelMessages, run: messageNoCredits,
		doc: "messages are taken while the ring is full"},
	{name: "malformed-message-kind-0", level: core.LevelMessages, run: malformedMessage("the kind 0", func(e *life) []byte {
		return packed(e.message(0))
	}), doc: "a message of kind 0 ends the session with an error"},
	{name: "malformed-priority", level: core.LevelMessages, run: malformedMessage("an unknown priority", func(e *life) []byte {
		return append(head(1, byte(core.CommandMessage), e), byte(core.MessageSetProperties), 4, 0, 0)
	}), doc: "an unknown priority ends the session with an error"},
	{name: "malformed-checkpoint", level: core.LevelMessages, run: malformedMessage("a checkpoint interval beyond 2^63 ns", func(e *life) []byte {
		b := append(head(1, byte(core.CommandMessage), e), byte(core.MessageSetProperties), 1)
		return append(binary.AppendUvarint(b, 1<<63), 0)
	}), doc: "a duration beyond 2^63 ns ends the session with an error"},
	{name: "malformed-payload", level: core.LevelMessages, run: malformedMessage("a payload of more than 1 MiB", func(e *life) []byte {
		b := append(head(1, byte(core.CommandMessage), e), byte(core.MessageBarrier), 0, 0)
		b = binary.AppendUvarint(b, wire.PayloadMax+1)
		return append(b, make([]byte, wire.PayloadMax+1)...)
	}), doc: "a payload of more than 1 MiB ends the session with an error"},
}

func malformedMessage(doc string, make func(*life) []byte) func(*probe) {
	return malformed{doc: "a message with " + doc, make: make}.check
}

func barrierAnswered(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	if got := e.ask(core.MessageBarrier); len(got.Reply) != 0 {
		p.failf("a barrier was answered with a reply of %d bytes", len(got.Reply))
	}
}

// keepsPlace sends a job that is refused before the barrier: the refusal shows that
// the command was carried out.
func keepsPlace(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	for range 4 {
		bad, barrier := e.wrongBuffer(), e.message(core.MessageBarrier)
		e.l.send(bad, barrier)
		e.done(barrier.Seq)
		e.refused("a job with an unknown buffer", bad.Seq)
		var order []core.CommandSeq
		for _, b := range e.own() {
			if b.Command == bad.Seq || b.Command == barrier.Seq {
				order = append(order, b.Command)
			}
		}
		if !slices.Equal(order, []core.CommandSeq{bad.Seq, barrier.Seq}) {
			p.failf("command %d, a barrier, was answered before command %d, a run", barrier.Seq, bad.Seq)
		}
	}
}

// several sends messages of two kinds at once and returns their numbers.
func several(p *probe) (*life, []core.CommandSeq) {
	e := p.entity(p.open(deviceName), 8)
	var batch []core.Command
	var want []core.CommandSeq
	for n := range 10 {
		kind := core.MessageBarrier
		if n%2 == 1 {
			kind = core.MessageSetProperties
		}
		c := e.message(kind)
		c.Properties = core.Properties{Priority: core.PriorityNormal}
		batch, want = append(batch, c), append(want, c.Seq)
	}
	e.l.send(batch...)
	e.done(want[len(want)-1])
	return e, want
}

func answersOf(e *life) (list []core.CommandSeq) {
	for _, b := range e.own() {
		if b.Kind == core.EventMessageDone {
			list = append(list, b.Command)
		}
	}
	return list
}

func messagesInOrder(p *probe) {
	e, _ := several(p)
	if got := answersOf(e); !slices.IsSorted(got) {
		p.failf("messages were answered in the order %v of their commands", got)
	}
}

func answeredOnce(p *probe) {
	e, want := several(p)
	e.destroy()
	count := make(map[core.CommandSeq]int)
	for _, seq := range answersOf(e) {
		count[seq]++
	}
	for _, seq := range want {
		if count[seq] != 1 {
			p.failf("the message of command %d was answered %d times", seq, count[seq])
		}
	}
}

func messagesPass(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	e.barrier()
	e.none("the job was to execute meanwhile", func(b *core.BackendEvent) bool { return b.Kind == core.EventCompleted })
	e.cancel(job)
	e.ended(job)
}

func (e *life) setProperties(properties core.Properties) {
	c := e.message(core.MessageSetProperties)
	c.Properties = properties
	e.l.send(c)
	e.done(c.Seq)
}

func propertiesAnswered(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	for _, priority := range []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh} {
		for _, interval := range []time.Duration{0, time.Second, 1<<63 - 1} {
			e.setProperties(core.Properties{Priority: priority, Checkpoint: interval})
		}
		e.completed(e.run(8, 1))
	}
}

func propertiesBusy(p *probe) {
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	for _, priority := range []core.Priority{core.PriorityHigh, core.PriorityLow, core.PriorityNormal} {
		e.setProperties(core.Properties{Priority: priority})
	}
	e.none("the job was to execute meanwhile", func(b *core.BackendEvent) bool { return b.Job == job && b.Kind != core.EventStarted })
	e.cancel(job)
	e.ended(job)
}

func refusedMessage(p *probe, kinds ...core.MessageKind) {
	e := p.entity(p.open(deviceName), 8)
	for _, kind := range kinds {
		c := e.message(kind)
		e.l.send(c)
		if got := e.refused("a message of an unknown kind", c.Seq); got.Cause != core.CauseRefused || got.Error == "" {
			p.failf("message %d was answered with %s; it wants the cause %q and a sentence", kind, tell(&got), core.CauseRefused)
		}
	}
	e.completed(e.run(8, 1))
}

func unknownMessage(p *probe) { refusedMessage(p, 5, core.MessageBackend-1) }

func undeclaredMessage(p *probe) {
	kind := core.MessageKind(1<<32 - 1)
	for slices.ContainsFunc(p.kit.description.Messages, func(t core.MessageType) bool { return t.Kind == kind }) {
		kind--
	}
	refusedMessage(p, kind)
}

// declared sends each message that the backend declares.
func declared(p *probe, payload []byte) (list []core.BackendEvent) {
	if len(p.kit.description.Messages) == 0 {
		p.skipf("the backend declares no messages of its own")
	}
	e := p.entity(p.open(deviceName), 8)
	for _, t := range p.kit.description.Messages {
		c := e.message(t.Kind)
		c.Payload = payload
		e.l.send(c)
		got := e.answer("the answer to message "+t.Name, c.Seq)
		if got.Kind != core.EventMessageDone && (got.Kind != core.EventRefused || got.Cause == core.CauseNone) {
			p.failf("message %s was answered with %s", t.Name, tell(&got))
		}
		list = append(list, got)
	}
	e.barrier()
	return list
}

func ownMessages(p *probe) { declared(p, []byte("kit")) }

// payloadCrosses does not need a message that the backend has: a refusal shows that it
// arrived.
func payloadCrosses(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	c := e.message(core.MessageBackend - 1)
	c.Payload = make([]byte, wire.PayloadMax)
	e.l.send(c)
	e.refused("a message of an unknown kind with a payload of 1 MiB", c.Seq)
	e.completed(e.run(8, 1))
}

func replyBounded(p *probe) {
	for _, got := range declared(p, make([]byte, wire.PayloadMax)) {
		if len(got.Reply) > wire.PayloadMax {
			p.failf("a reply has %d bytes", len(got.Reply))
		}
	}
}

func messageNeedsEntity(p *probe) {
	l := p.open(deviceName)
	e := p.life(l, p.spec(), 1, 0)
	c := e.message(core.MessageBarrier)
	l.send(c)
	e.refused("a message for an entity that is not there", c.Seq)
}

func messageNoCredits(p *probe) {
	const most = 1024
	if p.kit.device.Credits > most {
		p.skipf("the rings of the device hold %d jobs", p.kit.device.Credits)
	}
	e := p.entity(p.open(deviceName), foreverGroups)
	job := e.forever(1)
	var batch []core.Command
	for n := range p.kit.device.Credits - 1 {
		batch = append(batch, e.mix(1, n))
	}
	e.l.send(batch...)
	e.setProperties(core.Properties{Priority: core.PriorityLow})
	e.barrier()
	e.cancel(job)
	e.ended(job)
}
