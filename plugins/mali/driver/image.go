package driver

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// backendName marks the private part of images.
const backendName = "mali"

// Save implements sdk.Entity. The source reads device memory: it is good until
// the next method is called, and an error after the device was closed.
func (e *entity) Save(ctx context.Context) (core.ImageSource, error) {
	header := core.ImageHeader{Version: core.ImageVersion, Entity: e.id, Backend: backendName}
	err := e.d.loop.Call(ctx, "save", func(done func(error)) {
		if e.buried || e.destroy {
			done(e.errGone())
			return
		}
		if !e.suspended || !e.state.off() || e.slot != nil || len(e.suspendWaits) > 0 {
			done(&core.TransitionError{Noun: "mali group", From: e.state.String(), Event: "save"})
			return
		}
		for _, j := range e.queues[0].jobs {
			usage, _ := j.work.usage()
			header.Jobs = append(header.Jobs, core.ImageJob{
				Job: j.id, Cursor: usage.Done, Executed: usage.Executed, ExecutedTime: usage.ExecutedTime,
			})
		}
		p, err := e.private()
		header.Private = p.encode()
		done(err)
	})
	if err != nil {
		return nil, err
	}
	return e.d.memory.Image(header, e.buffers)
}

// privateState is what the next life of the group goes on with: the count of its sync
// object, and, of a job that was suspended in its middle, everything that the
// firmware needs to go on in the same stream.
type privateState struct {
	seqno uint64
	// job is the one in flight, 0 for none; start is where its entry begins, extract how far
	// the stream is, count how many workgroups its descriptor has from first on, done how many are done.
	job                              core.JobID
	start, extract, first, count, at uint64
	// index is its slot; credits says how the memory was laid out.
	index, credits uint32
	suspend        []byte
}

// The private part of an image, little endian:
//
//	offset size field
//	0x00   4    magic, "MALP"
//	0x04   4    version, 1
//	0x08   8    jobs counted by the sync object
//	0x10   8    job in flight, 0 for none; then all that follows is 0
//	0x18   8    start of its ring entry, bytes
//	0x20   8    EXTRACT
//	0x28   8    first workgroup of its descriptor
//	0x30   8    workgroups of its descriptor
//	0x38   8    workgroups done of them
//	0x40   4    slot
//	0x44   4    credits
//	0x48   4    size of the suspend buffer
//	0x4c   4    reserved, 0
//	0x50   ...  suspend buffer
const (
	privateMagic   = 'M' | 'A'<<8 | 'L'<<16 | 'P'<<24
	privateVersion = 1
	privateHeader  = 0x50
)

// private is what is to be saved of the group now.
func (e *entity) private() (privateState, error) {
	if e.inherited != nil {
		return *e.inherited, nil
	}
	if e.slots == 0 {
		return privateState{}, nil
	}
	q := e.queues[0]
	p := privateState{seqno: q.count()}
	j := e.first()
	if e.state != suspended || e.dirty || j == nil || !j.work.begun() {
		return p, nil
	}
	report, err := j.work.report()
	if err != nil {
		return p, nil
	}
	b, err := e.d.config.Arena.Bytes(e.group.suspend, e.d.iface.suspendSize)
	if err != nil {
		return p, err
	}
	p.job, p.start, p.extract = j.id, j.start, q.from()
	p.first, p.count, p.at = j.work.first, j.work.count, report.Done
	p.index, p.credits, p.suspend = j.work.index, e.d.config.Credits, b
	return p, nil
}

// inherit takes over what an earlier life left in an image of this backend.
func (e *entity) inherit(d *Driver, header core.ImageHeader) {
	if header.Backend != backendName || len(header.Private) == 0 {
		return
	}
	p, err := decodePrivate(header.Private)
	if err != nil {
		d.log.Warn("private image ignored", "entity", e.id, "error", err)
		return
	}
	e.inherited = &p
}

// adopt goes on where an earlier life was suspended if w is the job that was in flight
// then, at the same cursor; otherwise only the count of its sync object is kept. Memory is laid out.
func (e *entity) adopt(w *work) {
	p, q, d := e.inherited, e.queues[0], e.d
	e.inherited = nil
	q.seqno = p.seqno
	d.store64(q.sync, p.seqno)
	fits := p.job != 0 && p.job == w.spec.Spec.ID && w.first == p.first+p.at && w.count == p.count-p.at && w.count > 0 &&
		p.credits == d.config.Credits && uint64(len(p.suspend)) == d.iface.suspendSize && e.state == created
	if !fits {
		if p.job != 0 {
			d.log.Info("private image not used", "entity", e.id, "job", w.spec.Spec.ID)
		}
		return
	}
	buffer, err := d.config.Arena.Bytes(e.group.suspend, d.iface.suspendSize)
	if err != nil {
		return
	}
	copy(buffer, p.suspend)
	for i, free := range e.slotsFree {
		if free == p.index { // The next job takes the last one.
			last := len(e.slotsFree) - 1
			e.slotsFree[i], e.slotsFree[last] = e.slotsFree[last], e.slotsFree[i]
		}
	}
	w.first, w.count = p.first, p.count
	w.restored = p.at
	q.insert, q.begin = p.start, p.extract
	e.advance(adoptImage)
}

// restore puts back how far the firmware was with an adopted job.
func (w *work) restore() error {
	if w.restored == 0 {
		return nil
	}
	return hw.WriteReport(w.d.config.Arena, w.slot.Device, hw.Report{Status: hw.StatusPreempted, Done: w.restored})
}

func (p privateState) encode() []byte {
	b := make([]byte, 0, privateHeader+len(p.suspend))
	for _, v := range []uint32{privateMagic, privateVersion} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, v := range []uint64{p.seqno, uint64(p.job), p.start, p.extract, p.first, p.count, p.at} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, v := range []uint32{p.index, p.credits, uint32(len(p.suspend)), 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, p.suspend...)
}

// decodePrivate accepts exactly what encode produces; errors wrap core.ErrCorrupt.
func decodePrivate(b []byte) (privateState, error) {
	le := binary.LittleEndian
	bad := func(what string) (privateState, error) {
		return privateState{}, fmt.Errorf("private image of %d bytes: %s: %w", len(b), what, core.ErrCorrupt)
	}
	if len(b) < privateHeader || le.Uint32(b) != privateMagic || le.Uint32(b[4:]) != privateVersion || le.Uint32(b[0x4c:]) != 0 {
		return bad("header")
	}
	p := privateState{
		seqno: le.Uint64(b[8:]), job: core.JobID(le.Uint64(b[0x10:])), start: le.Uint64(b[0x18:]), extract: le.Uint64(b[0x20:]),
		first: le.Uint64(b[0x28:]), count: le.Uint64(b[0x30:]), at: le.Uint64(b[0x38:]),
		index: le.Uint32(b[0x40:]), credits: le.Uint32(b[0x44:]),
	}
	if size := le.Uint32(b[0x48:]); uint64(size) != uint64(len(b)-privateHeader) || size > suspendMax {
		return bad("size")
	}
	if len(b) > privateHeader {
		p.suspend = b[privateHeader:]
	}
	switch {
	case p.job == 0 && (p.start|p.extract|p.first|p.count|p.at != 0 || p.index|p.credits != 0 || p.suspend != nil):
		return bad("no job, but its state")
	case p.job != 0 && (p.start%jobBytes != 0 || p.extract%8 != 0 || p.extract < p.start || p.extract-p.start > jobBytes ||
		p.at > p.count || p.first+p.count < p.first || p.credits == 0 || p.credits > uint32(CreditsMax) || p.index >= p.credits || p.start > 1<<62):
		return bad("state of the job")
	}
	return p, nil
}
