package sched

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// message is one message of the backend's own kind. It is not recorded: who
// sent it waits for the answer, and gets an error when there can be none.
type message struct {
	id      core.MessageID
	kind    core.MessageKind
	payload []byte
	barrier Barrier
	// after is the last job submitted before it, seq its command once sent.
	after core.JobSeq
	seq   core.CommandSeq
}

func (m *message) state() string {
	if m.seq != 0 {
		return messageSent
	}
	return messageWaiting
}

// message queues a message. Messages of an entity are sent one at a time, in
// order, whether jobs are blocked or not, and are held while the entity is off
// the device.
func (c *Core) message(e *entity, ev *Event) error {
	switch {
	case e.state.Closed || e.state.Banned || e.state.Goal == core.GoalClose:
		return fmt.Errorf("message to entity %s: %w", e.spec.Name, core.ErrClosed)
	case ev.Message < core.MessageBackend:
		return fmt.Errorf("message kind %d is not the backend's own: %w", ev.Message, core.ErrInvalid)
	case len(e.messages) >= c.config.MessagesMax:
		return fmt.Errorf("%d messages wait for entity %s: %w", len(e.messages), e.spec.Name, core.ErrFull)
	}
	e.messages = append(e.messages, &message{
		id: ev.MessageID, kind: ev.Message, payload: ev.Payload, barrier: ev.Barrier, after: e.last,
	})
	c.touch(e)
	return nil
}

// sendMessage sends the next message if its time has come.
func (c *Core) sendMessage(e *entity) {
	if len(e.messages) == 0 || e.state.Residency != core.Resident {
		return
	}
	m := e.messages[0]
	if m.seq != 0 || m.barrier == BarrierAfter && !mutated("message-overtakes-job") && e.first < len(e.jobs) && e.jobs[e.first].spec.Seq <= m.after {
		return
	}
	controlled("message", MessageTransitions, m.state(), messageSent)
	m.seq = c.command(e, core.Command{Kind: core.CommandMessage, Message: m.kind, Payload: m.payload})
	c.expectReply(e)
	c.record(e)
}

// expectReply bounds the wait for the answer to a message, unless an older one
// is under way.
func (c *Core) expectReply(e *entity) {
	if e.replyBy == 0 {
		e.replyBy = c.now.Add(c.config.Answer)
	}
}

// gotReply ends that wait; while others are under way they get it anew. Of one that
// leaves only the barrier is waited for: its end answers the rest.
func (c *Core) gotReply(e *entity) {
	e.replyBy = 0
	message := e.state.PropertiesPending != 0 || len(e.messages) > 0 && e.messages[0].seq != 0
	if e.haltSeq != 0 || message && e.state.Residency != core.Leaving {
		c.expectReply(e)
	}
	c.touch(e)
}

// messageBefore reports whether a message has to be answered before j is sent.
func (e *entity) messageBefore(j *job) bool {
	if mutated("job-overtakes-message") {
		return false
	}
	for _, m := range e.messages {
		if m.barrier == BarrierBefore && j.spec.Seq > m.after {
			return true
		}
	}
	return false
}

// replied takes the answer to the message under way, if ev is that.
func (c *Core) replied(e *entity, ev *core.BackendEvent) bool {
	if len(e.messages) == 0 || e.messages[0].seq == 0 || e.messages[0].seq != ev.Command {
		return false
	}
	c.answer(e, ev.Reply, ev.Error)
	return true
}

// answer ends the first message.
func (c *Core) answer(e *entity, reply []byte, why string) {
	m := e.messages[0]
	controlled("message", MessageTransitions, m.state(), messageAnswered)
	e.messages = e.messages[1:]
	c.gotReply(e)
	c.out.Notices = append(c.out.Notices, Notice{
		Kind: MessageReplied, Entity: e.spec.ID, Message: m.id, Reply: reply, Error: why,
	})
	c.touch(e)
}

// messagesAway: the entity left its instance. Whether the message under way took
// effect nobody can tell; those not sent wait for the next.
func (c *Core) messagesAway(e *entity) {
	if mutated("lose-message") && len(e.messages) > 0 {
		e.messages = e.messages[1:]
	}
	if len(e.messages) > 0 && e.messages[0].seq != 0 {
		c.answer(e, nil, "entity left its instance before the answer")
	}
}

func (c *Core) failMessages(e *entity, why string) {
	for len(e.messages) > 0 {
		c.answer(e, nil, why)
	}
}
