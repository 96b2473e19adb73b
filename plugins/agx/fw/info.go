package fw

import "github.com/gpuwm/gpuwm/plugins/agx/abi"

// noted is what stands in a QueueInfo of what the firmware keeps there. The host must not read it: it is for
// whoever looks at memory.
type noted struct{ slot, read, busy, errors, pending uint32 }

// note writes it, as far as it has changed.
func (f *Firmware) note(q *workQueue) {
	now := noted{slot: q.slot, read: q.read, errors: q.errors, pending: (q.write + q.items - q.done) % q.items}
	if q.state == queueRunning {
		now.busy = 1
	}
	if now == q.noted {
		return
	}
	q.noted = now
	for _, field := range [...]struct {
		name  string
		value uint32
	}{
		{"gpu_rptr1", now.read}, {"gpu_rptr2", now.read}, {"gpu_rptr3", now.read}, {"event_id", now.slot},
		{"busy", now.busy}, {"error_count", now.errors}, {"pending", now.pending},
	} {
		off, _, _ := f.abi.Offset(&q.info, field.name)
		f.storeOwn(q.va+abi.VA(off), field.value)
	}
}

// storeOwn writes a word of an object that is the firmware's: memory, and what it has of it in its cache.
func (f *Firmware) storeOwn(va abi.VA, v uint32) {
	if f.store32(va, v) != nil {
		return // It was read from there.
	}
	b, err := f.bytes(va, 4)
	if line, held := f.cache.lines[va&^(lineSize-1)]; held && err == nil {
		copy(line[va%lineSize:], b)
	}
}
