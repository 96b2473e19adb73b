package fw

import (
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// command is one compute command from its fetch to its end.
type command struct {
	q  *workQueue
	va abi.VA
	rc abi.RunCompute
	// image and sequence are what was read of it; at is the next operation.
	image, sequence []byte
	at              uint32
	run             *run
	started         bool
	watchAt         time.Duration
	sampleAt        time.Duration
	// storeBy is until when its context has to be stored, restart where it starts over then.
	storeBy time.Duration
	restart uint32
	// dead: a halt ended it; it is retired after the resume.
	dead bool
	// faultInfo and nobody are what the plan adds to its time-out.
	faultInfo, nobody bool
}

// schedule starts commands while the pipe has room: the strongest level first,
// inside a level who has waited longest.
func (f *Firmware) schedule() bool {
	worked := false
	for len(f.running) < f.cfg.Width && !f.halt.active && !f.stalled() && f.injected.doom == nil && f.phase == phaseReady {
		q := f.pick()
		if q == nil {
			break
		}
		worked = true
		if !f.power.on {
			f.powerOn()
			if !f.power.on {
				break
			}
		}
		f.start(q)
	}
	if f.cfg.ComputePreempt && len(f.running) == f.cfg.Width && !f.halt.active {
		if q := f.pick(); q != nil {
			worked = f.preempt(q) || worked
		}
	}
	return worked && f.power.on
}

// pick returns the queue whose command goes next.
func (f *Firmware) pick() *workQueue {
	now := f.cfg.Clock.Now()
	var best *workQueue
	bestLevel := 0
	for _, q := range f.order {
		if q.state != queueReady && q.state != queueStored {
			continue
		}
		level := int(q.level)
		if f.cfg.Promote > 0 && now-q.since >= f.cfg.Promote {
			level = -1
		}
		if best == nil || level < bestLevel || level == bestLevel && q.serial < best.serial {
			best, bestLevel = q, level
		}
	}
	return best
}

// start fetches the command at the head of a queue and runs its sequence up to
// where it waits for the pipe.
func (f *Firmware) start(q *workQueue) {
	if q.state == queueStored {
		f.restore(q)
		return
	}
	item, err := f.load64(q.info.Ring + abi.VA(q.read*abi.QueueItemSize))
	if err != nil {
		f.stopBad(q, err)
		return
	}
	c := &command{q: q, va: abi.VA(item), watchAt: never, sampleAt: never, storeBy: never}
	if err := f.readCommand(c); err != nil {
		f.stopBad(q, err)
		return
	}
	q.fetch()
	q.current = c
	f.counters.Started++
	f.say("CMD", "uuid=%d slot=%d value=%#x starts in vm %d", q.info.UUID, q.slot, c.rc.Meta.Value, c.rc.VMSlot)
	f.onPipe(c)
}

// onPipe executes a command from where its sequence stands.
func (f *Firmware) onPipe(c *command) {
	f.running = append(f.running, c)
	f.setState(c.q, queueRunning)
	c.watchAt = f.cfg.Clock.Now() + f.watchdog()
	f.sequence(c)
}

// offPipe takes a command off the pipe.
func (f *Firmware) offPipe(c *command) {
	f.running = slices.DeleteFunc(f.running, func(x *command) bool { return x == c })
}

// readCommand reads a RunCompute and its microsequence.
func (f *Firmware) readCommand(c *command) error {
	size := f.abi.Size(&c.rc)
	image, err := f.object(c.va, size, "RunCompute")
	if err != nil {
		return err
	}
	if err := f.abi.Decode(image, &c.rc); err != nil {
		return err
	}
	c.image = image
	if c.rc.SequenceSize > abi.SequenceMax {
		return &abi.WireError{What: "RunCompute", Reason: "microsequence is too long"}
	}
	if c.sequence, err = f.object(c.rc.Sequence, c.rc.SequenceSize, "microsequence"); err != nil {
		return err
	}
	if c.rc.VMSlot == 0 || c.rc.VMSlot >= abi.ContextSlots {
		return &abi.WireError{What: "RunCompute", Reason: "vm slot is out of range"}
	}
	if c.rc.Meta.Slot != c.q.slot {
		return &abi.WireError{What: "RunCompute", Reason: "stamp slot is not the queue's event slot"}
	}
	for _, va := range []abi.VA{c.rc.Meta.Stamp, c.rc.Meta.FwStamp} {
		if _, err := f.words(va, abi.StampSize); err != nil {
			return err
		}
	}
	_, err = f.notifierOf(c.rc.Notifier)
	return err
}

// watchdog is how long a command may run.
func (f *Firmware) watchdog() time.Duration {
	if f.cfg.Watchdog > 0 {
		return f.cfg.Watchdog
	}
	interval := f.global(abi.GlobalProgressCheckCL)
	if interval == 0 {
		interval = abi.GlobalProgressCheckCL.Default()
	}
	return time.Duration(interval) * f.cfg.WatchdogUnit
}

// watch samples progress and halts the GPU when a command's time is over.
func (f *Firmware) watch() bool {
	now := f.cfg.Clock.Now()
	for _, c := range f.running {
		if now >= c.sampleAt {
			f.sample(c)
			c.sampleAt = now + f.cfg.SampleInterval
		}
		if now >= c.watchAt && f.cfg.WatchdogByProgress && c.run.moved() {
			c.watchAt = now + f.watchdog()
		}
		if now >= min(c.watchAt, c.storeBy) {
			f.timeout(c)
			return true
		}
	}
	return false
}
