package fw

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// queueState is where a work queue stands.
type queueState uint8

// The states and what may follow.
const (
	// queueIdle has no items; then ready or blocked.
	queueIdle queueState = iota
	// queueReady has a command at its head and waits for the pipe; then running.
	queueReady
	// queueBlocked is held by a barrier; then whatever its next item makes it.
	queueBlocked
	// queueRunning has its command on the pipe; then idle, ready, blocked, stored or stopped.
	queueRunning
	// queueStored has its command half done in memory and waits for the pipe; then running.
	queueStored
	// queueStopped had a channel error; then, after RecoverChannel, as after a command.
	queueStopped
)

// String names the state.
func (s queueState) String() string {
	return [...]string{"idle", "ready", "blocked", "running", "stored", "stopped"}[s]
}

// workQueue is one compute work queue as the firmware knows it.
type workQueue struct {
	va    abi.VA
	info  abi.QueueInfo
	level uint32
	slot  uint32
	state queueState
	ring  hw.Words // RingState
	items uint32
	// read, done and write are indices: fetched, finished, given by the host.
	read, done, write uint32
	// since is when it became ready, serial its place among equals.
	since  time.Duration
	serial uint64
	// barrier holds it while it is blocked; held says that the plan does.
	barrier abi.Barrier
	held    bool
	// current is the command at its head, last the one retired before.
	current, last *command
	lastValue     uint32
	// errors counts its channel errors, noted is what its QueueInfo says.
	errors uint32
	noted  noted
}

// newQueue reads a QueueInfo, once.
func (f *Firmware) newQueue(m *abi.RunWorkQueue, level uint32) (*workQueue, error) {
	if len(f.queues) >= queuesMax {
		return nil, fmt.Errorf("more than %d queues", queuesMax)
	}
	q := &workQueue{va: m.Queue, level: level, slot: m.Slot, noted: noted{slot: anySlot}}
	if err := f.decode(m.Queue, &q.info, "queue info"); err != nil {
		return nil, err
	}
	var err error
	if q.ring, err = f.words(q.info.RingState, abi.RingStateSize); err != nil {
		return nil, err
	}
	q.items = q.ring.Load(abi.RingStateItems)
	q.done, q.read = q.ring.Load(abi.RingStateDone), q.ring.Load(abi.RingStateRead)
	if q.items < 2 || q.items > abi.QueueItems || q.read != q.done || q.read >= q.items {
		return nil, fmt.Errorf("queue %d: read %d done %d of %d items", q.info.UUID, q.read, q.done, q.items)
	}
	if _, err := f.bytes(q.info.Ring, uint64(q.items)*abi.QueueItemSize); err != nil {
		return nil, err
	}
	q.write = q.read
	if err := f.openContext(&q.info); err != nil {
		return nil, fmt.Errorf("queue %d: %w", q.info.UUID, err)
	}
	f.queues[q.va] = q
	f.order = append(f.order, q)
	return q, nil
}

// extend takes a new write index.
func (f *Firmware) extend(q *workQueue, level uint32, m *abi.RunWorkQueue) {
	ahead := func(i uint32) uint32 { return (i + q.items - q.done) % q.items }
	if m.Write >= q.items || ahead(m.Write) < ahead(q.write) {
		f.misuse("queue %d: write index %d, was %d, done %d of %d", q.info.UUID, m.Write, q.write, q.done, q.items)
		return
	}
	if given := q.ring.Load(abi.RingStateWrite); given >= q.items || ahead(m.Write) > ahead(given) {
		f.misuse("queue %d: write index %d, the ring has %d of %d", q.info.UUID, m.Write, given, q.items)
		return
	}
	if level != q.level || m.Slot != q.slot {
		if !q.idle() {
			f.log(abi.LogWarn, fmt.Sprintf("queue %d: level %d slot %d, was %d and %d, while it is %s", q.info.UUID, level, m.Slot, q.level, q.slot, q.state))
			f.counters.Misuses++
		}
		q.level, q.slot = level, m.Slot
	}
	q.write = m.Write
	if q.state == queueIdle {
		f.advance(q)
	}
	f.note(q)
}

// idle reports whether the queue has nothing to do.
func (q *workQueue) idle() bool { return q.state == queueIdle }

// setState changes where a queue stands.
func (f *Firmware) setState(q *workQueue, s queueState) {
	if q.state != s {
		f.say("QUEUE", "uuid=%d slot=%d %s -> %s", q.info.UUID, q.slot, q.state, s)
	}
	q.state = s
	f.note(q)
}

// advance looks at the head of a queue that runs nothing: it passes barriers
// that hold no longer, and leaves the queue idle, blocked or ready.
func (f *Firmware) advance(q *workQueue) {
	for f.phase == phaseReady {
		if q.read == q.write {
			f.setState(q, queueIdle)
			return
		}
		item, err := f.load64(q.info.Ring + abi.VA(q.read*abi.QueueItemSize))
		if err != nil {
			f.stopBad(q, err)
			return
		}
		va := abi.VA(item)
		head, err := f.object(va, abi.CommandHead, "command")
		if err != nil {
			f.stopBad(q, err)
			return
		}
		switch tag := abi.Tag(head); tag {
		case abi.TagBarrier:
			q.barrier, q.held = abi.Barrier{}, false
			if err := f.decode(va, &q.barrier, "barrier"); err != nil {
				f.stopBad(q, err)
				return
			}
			q.fetch()
			if f.injectBarrier(q) || !f.passed(q) {
				f.setState(q, queueBlocked)
				f.sayBarrier("waits", q)
				return
			}
			f.passBarrier(q)
		case abi.TagRunCompute:
			f.serial++
			q.since, q.serial = f.cfg.Clock.Now(), f.serial
			f.setState(q, queueReady)
			return
		default:
			f.stopBad(q, fmt.Errorf("%s is not modelled", tag))
			return
		}
	}
}

// fetch moves the read index.
func (q *workQueue) fetch() {
	q.read = (q.read + 1) % q.items
	q.ring.Store(abi.RingStateRead, q.read)
}

// finish moves the done index.
func (q *workQueue) finish() {
	q.done = (q.done + 1) % q.items
	q.ring.Store(abi.RingStateDone, q.done)
}

// passed reports whether a queue's barrier holds no longer.
func (f *Firmware) passed(q *workQueue) bool {
	if q.held {
		return false
	}
	now, err := f.load32(q.barrier.WaitStamp)
	return err == nil && abi.Passed(now, q.barrier.WaitValue)
}

func (f *Firmware) passBarrier(q *workQueue) {
	f.counters.Barriers++
	f.sayBarrier("passes", q)
	q.finish()
}

func (f *Firmware) sayBarrier(what string, q *workQueue) {
	b := q.barrier
	f.say("BARRIER", "uuid=%d %s: %s", q.info.UUID, what, lazy{f.abi, &b})
}

// anySlot stands for a stamp that is no slot's.
const anySlot = ^uint32(0)

// recheck looks again at the queues that wait for the stamp of a slot.
func (f *Firmware) recheck(slot uint32) {
	for _, q := range f.order {
		if q.state != queueBlocked || f.cfg.RecheckBySlot && slot != anySlot && q.barrier.WaitSlot != slot {
			continue
		}
		if f.passed(q) {
			f.passBarrier(q)
			f.advance(q)
		}
	}
}

// stopBad handles a head that can't be read: the host must not do that.
func (f *Firmware) stopBad(q *workQueue, err error) {
	f.misuse("queue %d: %v", q.info.UUID, err)
	if f.cfg.Lenient {
		f.channelError(q, abi.ChannelUnknown, q.lastValue+abi.StampStep)
	}
}

// channelError stops a queue at the command with this value.
func (f *Firmware) channelError(q *workQueue, kind abi.ChannelErrorType, value uint32) {
	f.counters.ChannelErrors++
	q.errors++
	f.setState(q, queueStopped)
	f.event(&abi.ChannelError{Error: uint32(kind), Pipe: uint32(abi.PipeCompute), Slot: q.slot, Value: value}, uint64(q.info.UUID))
}

// recoverChannel lets a stopped queue go on: the command that failed is retired
// as if it had finished.
func (f *Firmware) recoverChannel(m *abi.RecoverChannel) {
	q := f.queues[m.Queue]
	if q == nil || q.state != queueStopped || m.Pipe != uint32(abi.PipeCompute) {
		f.misuse("RecoverChannel: queue %#x is not stopped", uint64(m.Queue))
		return
	}
	if c := q.current; c != nil {
		if c.rc.Meta.Value != m.Value {
			f.log(abi.LogWarn, fmt.Sprintf("RecoverChannel: value %#x, want %#x", m.Value, c.rc.Meta.Value))
		}
		f.retireDead(c)
		return
	}
	q.fetch()
	q.finish()
	f.advance(q)
}

// forgetQueues drops the queues of a context and what only they used.
func (f *Firmware) forgetQueues(context abi.VA) {
	f.order = slices.DeleteFunc(f.order, func(q *workQueue) bool {
		if q.info.Context != context {
			return false
		}
		if q.last != nil {
			delete(f.notifiers, q.last.rc.Notifier)
			q.last = nil
		}
		delete(f.queues, q.va)
		return true
	})
}
