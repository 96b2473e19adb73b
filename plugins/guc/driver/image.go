package driver

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
)

// backendName marks the private part of images.
const backendName = "guc"

// Save implements sdk.Entity. The source reads device memory: it is good until
// the next method is called, and an error after the device was closed.
func (q *queue) Save(ctx context.Context) (core.ImageSource, error) {
	header := core.ImageHeader{Version: core.ImageVersion, Entity: q.entity, Backend: backendName}
	err := q.d.loop.Call(ctx, "save", func(done func(error)) {
		if q.lost || q.destroy {
			done(fmt.Errorf("context is being torn down: %w", core.ErrClosed))
			return
		}
		if !q.suspend || !q.state.held() {
			done(&core.TransitionError{Noun: "guc context", From: q.state.String(), Event: "save"})
			return
		}
		for _, j := range q.jobs {
			usage, _ := q.usage(j)
			header.Jobs = append(header.Jobs, core.ImageJob{
				Job: j.id, Cursor: usage.Done, Executed: usage.Executed, ExecutedTime: usage.ExecutedTime,
			})
		}
		header.Private = q.private().encode()
		done(nil)
	})
	if err != nil {
		return nil, err
	}
	return q.d.memory.Image(header, q.buffers)
}

// privateState is what the next life of the context goes on with: the seqno, so
// that it never repeats one, and the timestamps.
type privateState struct {
	seqno        uint32
	jobTimestamp uint32
	timestamp    uint64
	// head and tail are the ring registers, kept for whoever looks at an image.
	head, tail uint32
}

// The private part of an image, little endian:
//
//	offset size field
//	0x00   4    magic, "GUCP"
//	0x04   4    version, 1
//	0x08   4    last seqno handed out
//	0x0c   4    job timestamp of the status page
//	0x10   8    context timestamp
//	0x18   4    ring head, bytes
//	0x1c   4    ring tail, bytes
const (
	privateMagic   = 'G' | 'U'<<8 | 'C'<<16 | 'P'<<24
	privateVersion = 1
	privateSize    = 0x20
)

func (q *queue) private() privateState {
	if !q.laid() {
		return q.last
	}
	return privateState{
		seqno:        q.seqno,
		jobTimestamp: q.load(q.status(abi.PPHWSPJobTimestamp)),
		timestamp:    q.timestamp(),
		head:         q.load(q.register(abi.RegRingHead)) & abi.RingHeadMask % abi.RingSize,
		tail:         q.load(q.register(abi.RegRingTail)) & abi.RingTailMask % abi.RingSize,
	}
}

// timestamp returns the context's timestamp in microseconds. The context image has it in two words
// that no load reads as one, and the firmware may be between its two stores. So the low one
// alone is read, and the high one counted here: looks are far less than 2^32 µs of execution apart.
func (q *queue) timestamp() uint64 {
	q.ticks += uint64(q.load(q.register(abi.RegTimestampLo)) - uint32(q.ticks))
	return q.ticks
}

func (p privateState) encode() []byte {
	b := make([]byte, 0, privateSize)
	for _, v := range []uint32{privateMagic, privateVersion, p.seqno, p.jobTimestamp} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, p.timestamp)
	b = binary.LittleEndian.AppendUint32(b, p.head)
	return binary.LittleEndian.AppendUint32(b, p.tail)
}

// decodePrivate accepts exactly what encode produces; errors wrap core.ErrCorrupt.
func decodePrivate(b []byte) (privateState, error) {
	le := binary.LittleEndian
	if len(b) != privateSize || le.Uint32(b) != privateMagic || le.Uint32(b[4:]) != privateVersion {
		return privateState{}, fmt.Errorf("private image of %d bytes: %w", len(b), core.ErrCorrupt)
	}
	p := privateState{
		seqno: le.Uint32(b[8:]), jobTimestamp: le.Uint32(b[0xc:]), timestamp: le.Uint64(b[0x10:]),
		head: le.Uint32(b[0x18:]), tail: le.Uint32(b[0x1c:]),
	}
	if p.head >= abi.RingSize || p.tail >= abi.RingSize || p.head%4 != 0 || p.tail%abi.RingTailAlign != 0 {
		return privateState{}, fmt.Errorf("private image: ring at %#x to %#x: %w", p.head, p.tail, core.ErrCorrupt)
	}
	return p, nil
}
