package driver

import (
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// work is what the firmware knows of a queue: QueueInfo, ring, notifier and
// context. It is made with the first job, and anew for another priority, which is fixed in it.
type work struct {
	// private and shared are where both halves lie.
	private, shared uint64
	level           uint32
	// known says that the firmware was told of it.
	known bool
	// write is the next item of the ring, kicked how far the firmware was told.
	write, kicked uint32
	// threshold counts the notifications that commands in the ring were announced with.
	threshold uint64
	// told is the number of the last message in the pipe that names it, deaf since when it has to
	// be read for the work queue to end; looking says that it is looked at.
	told    uint64
	deaf    time.Duration
	looking bool
}

// The private half: QueueInfo, Notifier, ring, the firmware's scratch.
const (
	notifierOffset = 0x100
	ringOffset     = 0x200
	scratchOffset  = ringOffset + abi.QueueItems*abi.QueueItemSize
	privateSize    = scratchOffset + abi.QueueScratchSize
)

// The shared half: RingState, GpuContext, NotifierList, threshold, and the
// timestamps of each command slot.
const (
	contextOffset   = 0x080
	listOffset      = 0x100
	thresholdOffset = 0x140
	timesOffset     = 0x200
	timesSize       = 16
	sharedSize      = timesOffset + abi.OutstandingMax*timesSize
)

// levels are the firmware's; 0 is left to nobody, as the vendor's driver does.
var levels = map[core.Priority]uint32{core.PriorityLow: 3, core.PriorityNormal: 2, core.PriorityHigh: 1}

func (w *work) queueInfo() abi.VA    { return abi.Address(abi.ClassPrivate, w.private) }
func (w *work) notifier() abi.VA     { return abi.Address(abi.ClassPrivate, w.private+notifierOffset) }
func (w *work) context() abi.VA      { return abi.Address(abi.ClassShared, w.shared+contextOffset) }
func (w *work) list() abi.VA         { return abi.Address(abi.ClassShared, w.shared+listOffset) }
func (w *work) word(i uint32) uint64 { return w.shared + 4*uint64(i) }

// layWork makes the firmware's objects of a queue. Errors wrap core.ErrFull.
func (d *Driver) layWork(uuid, level uint32) (*work, error) {
	private, err := d.memory.Low(privateSize, "work queue")
	if err != nil {
		return nil, err
	}
	shared, err := d.memory.Low(sharedSize, "ring state")
	if err != nil {
		return nil, errors.Join(err, d.memory.FreeLow(private))
	}
	return d.fillWork(private, shared, uuid, level), nil
}

// fillWork makes a new work queue in memory that the firmware does not know, or has forgotten.
func (d *Driver) fillWork(private, shared uint64, uuid, level uint32) *work {
	w := &work{private: private, shared: shared, level: level}
	for _, part := range [][2]uint64{{private, privateSize}, {shared, sharedSize}} {
		bytes, err := d.config.Arena.Bytes(part[0], part[1])
		d.must(err)
		clear(bytes)
	}
	d.encode(w.shared+contextOffset, abi.NewGpuContext())
	d.encode(w.shared+listOffset, &abi.NotifierList{Next: w.list()})
	d.store32(w.word(abi.RingStateItems), abi.QueueItems)
	d.encode(w.private+notifierOffset, &abi.Notifier{Threshold: abi.Address(abi.ClassShared, w.shared+thresholdOffset), Generation: uuid})
	d.encode(w.private, &abi.QueueInfo{
		RingState: abi.Address(abi.ClassShared, w.shared), Ring: abi.Address(abi.ClassPrivate, w.private+ringOffset),
		NotifierList: w.list(), Scratch: abi.Address(abi.ClassPrivate, w.private+scratchOffset),
		EventSlot: -1, Priority: abi.ComputePriority(level), UUID: uuid, Context: w.context(),
	})
	return w
}

// full reports whether the next item would overwrite one that the firmware has not done with.
func (d *Driver) full(w *work) bool {
	return (w.write+1)%abi.QueueItems == d.load32(w.word(abi.RingStateDone))%abi.QueueItems
}

// push writes a command's address into the ring; the firmware is told with the next kick.
func (d *Driver) push(w *work, command abi.VA) {
	d.store64(w.private+ringOffset+uint64(w.write)*abi.QueueItemSize, uint64(command))
	w.write = (w.write + 1) % abi.QueueItems
}

// heard reports whether the firmware has read every message in the pipe that names the work queue. It looks
// at device control before the pipes, so that a reminder could otherwise come after DestroyContext. If it has not,
// settle is called again until it has, or the device is given up.
func (q *queue) heard() bool {
	d, w := q.d, q.work
	if w == nil || !w.known || d.pipes[w.level].read(d.lay.pipes[w.level]) >= w.told {
		return true
	}
	if w.looking {
		return false
	}
	now := d.config.Clock.Now()
	if w.deaf == 0 {
		w.deaf = now
		d.ring(abi.DoorbellKick)
	}
	if now-w.deaf > d.config.Timeouts.Control {
		d.fail(fmt.Errorf("pipe %d is not read in %s", w.level, d.config.Timeouts.Control))
		return false
	}
	w.looking = true
	d.loop.After(controlLook, func() {
		w.looking = false
		q.settle()
	})
	return false
}

// endContext makes the firmware forget a work queue of which nothing is in the ring, and calls done. Everything
// that was freed before is usable then.
func (d *Driver) endContext(w *work, done func()) {
	var context abi.GpuContext
	if bytes, err := d.config.Arena.Bytes(w.shared+contextOffset, uint64(d.abi.Size(&context))); err == nil {
		if err := d.abi.Decode(bytes, &context); err != nil {
			d.log.Warn("gpu context malformed", "error", err)
		}
	}
	collect := d.collector()
	d.control(&abi.DestroyContext{
		Unk23: abi.GpuContextUnk23, Index0: context.Index0, Index1: context.Index1, Unk4: context.Unk4, Context: w.context(),
	}, func() {
		collect()
		done()
	})
}
