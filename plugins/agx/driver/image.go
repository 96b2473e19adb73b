package driver

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
)

// backendName marks the private part of images.
const backendName = "agx"

// Save implements sdk.Entity. The source reads device memory: it is good until
// the next method is called, and an error after the device was closed.
func (q *queue) Save(ctx context.Context) (core.ImageSource, error) {
	header := core.ImageHeader{Version: core.ImageVersion, Entity: q.entity, Backend: backendName}
	err := q.d.loop.Call(ctx, "save", func(done func(error)) {
		if err := q.torn(); err != nil {
			done(err)
			return
		}
		if q.state != suspended || !q.suspend {
			done(&core.TransitionError{Noun: "agx work queue", From: q.state.String(), Event: "save"})
			return
		}
		for _, j := range q.jobs {
			u := q.usage(j)
			header.Jobs = append(header.Jobs, core.ImageJob{Job: j.id, Cursor: u.Done, Executed: u.Executed, ExecutedTime: u.ExecutedTime})
		}
		header.Private = privateState{value: q.value, slot: q.slot, counter: q.counter, eventSeq: q.eventSeq}.encode()
		done(nil)
	})
	if err != nil {
		return nil, err
	}
	return q.d.memory.Image(header, q.buffers)
}

// inherit takes over what an earlier life left in an image of this backend: its sequences go on. The
// stamp does not, because it is the event slot's and not the queue's.
func (q *queue) inherit(header core.ImageHeader) {
	if header.Backend != backendName || len(header.Private) == 0 {
		return
	}
	earlier, err := decodePrivate(header.Private)
	if err != nil {
		q.d.log.Warn("private image ignored", "entity", q.entity, "error", err)
		return
	}
	q.value, q.counter, q.eventSeq = earlier.value, earlier.counter, earlier.eventSeq
}

// privateState is what an image keeps of a work queue.
type privateState struct {
	// value is the stamp it had come to, slot the event slot it had; for whoever looks at an image.
	value, slot uint32
	// counter and eventSeq are the sequences in its commands.
	counter, eventSeq uint64
}

// The private part of an image, little endian:
//
//	offset size field
//	0x00   4    magic, "AGXP"
//	0x04   4    version, 1
//	0x08   4    stamp base: the last value handed out
//	0x0c   4    event slot
//	0x10   8    counter of the last command
//	0x18   8    next event sequence
const (
	privateMagic   = 'A' | 'G'<<8 | 'X'<<16 | 'P'<<24
	privateVersion = 1
	privateBytes   = 0x20
)

func (p privateState) encode() []byte {
	b := make([]byte, 0, privateBytes)
	for _, v := range []uint32{privateMagic, privateVersion, p.value, p.slot} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	b = binary.LittleEndian.AppendUint64(b, p.counter)
	return binary.LittleEndian.AppendUint64(b, p.eventSeq)
}

// decodePrivate accepts exactly what encode produces; errors wrap core.ErrCorrupt.
func decodePrivate(b []byte) (privateState, error) {
	le := binary.LittleEndian
	if len(b) != privateBytes || le.Uint32(b) != privateMagic || le.Uint32(b[4:]) != privateVersion {
		return privateState{}, fmt.Errorf("private image of %d bytes: %w", len(b), core.ErrCorrupt)
	}
	return privateState{value: le.Uint32(b[8:]), slot: le.Uint32(b[0xc:]), counter: le.Uint64(b[0x10:]), eventSeq: le.Uint64(b[0x18:])}, nil
}
