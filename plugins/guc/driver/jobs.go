package driver

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// job is one job in a ring.
type job struct {
	id      core.JobID
	credits uint32
	// first is the first workgroup to execute, count how many from there on; 0
	// means that all are done.
	first, count uint64
	seqno        uint32
	slot         uint32
	// start is where its program lies in the ring, in bytes.
	start   uint32
	started bool
	// skip says that its program has no batch, because no workgroup is left.
	skip bool
	// cancel asks for it to be taken out.
	cancel bool
}

// jobRef is what Progress needs of a job.
type jobRef struct {
	id                       core.JobID
	first, count, descriptor uint64
}

// dispatched is where the firmware finds a job's dispatch descriptor.
func (q *queue) dispatched(j *job) host.Slot { return host.SlotAt(q.slots, j.slot) }

// accept puts a job at the end of the ring. Errors wrap core.ErrClosed,
// core.ErrOversize, core.ErrFull, core.ErrExists, core.ErrNotFound or core.ErrInvalid.
func (q *queue) accept(r sdk.Job) error {
	spec := r.Spec
	if q.lost || q.destroy {
		return fmt.Errorf("context is being torn down: %w", core.ErrClosed)
	}
	total, valid := hw.Workgroups(spec.Grid)
	if !valid || r.First > total {
		return fmt.Errorf("first workgroup %d of grid %v: %w", r.First, spec.Grid, core.ErrInvalid)
	}
	credits := max(spec.Credits, 1)
	if credits > q.d.config.Credits {
		return fmt.Errorf("%d credits, the ring has %d: %w", credits, q.d.config.Credits, core.ErrOversize)
	}
	taken := credits
	for _, j := range q.jobs {
		taken += j.credits
		if j.id == spec.ID {
			return fmt.Errorf("job %d is in the ring: %w", spec.ID, core.ErrExists)
		}
	}
	if taken > q.d.config.Credits {
		return fmt.Errorf("ring: %w", core.ErrFull)
	}
	if err := q.lay(); err != nil {
		return err
	}
	j := &job{id: spec.ID, credits: credits, first: r.First, count: total - r.First, skip: r.First == total, slot: q.slotsFree[len(q.slotsFree)-1]}
	if err := q.describe(j, r); err != nil {
		return err
	}
	q.slotsFree = q.slotsFree[:len(q.slotsFree)-1]
	q.seqno++
	j.seqno = q.seqno
	q.jobs = append(q.jobs, j)
	q.emit(j)
	return nil
}

// describe writes the job's dispatch descriptor and arguments.
func (q *queue) describe(j *job, r sdk.Job) error {
	if j.count == 0 {
		return nil
	}
	dispatch, args, err := q.d.memory.Dispatch(r, q.buffers, q.d.config.Formats)
	if err != nil {
		return err
	}
	dispatch.First, dispatch.Count = j.first, j.count
	return host.WriteDispatch(q.d.config.Arena, q.dispatched(j), dispatch, args)
}

// emit writes the job's program at the ring's tail, around the end if need be.
func (q *queue) emit(j *job) {
	var program [abi.JobDwords]uint32
	j.start = q.tail
	for _, dw := range (abi.JobProgram{
		LRC: q.lrc, Seqno: j.seqno, Batch: q.dispatched(j).Virtual, Skip: j.skip,
	}).Append(program[:0]) {
		q.store(q.lrc+uint64(q.tail), dw)
		q.tail = (q.tail + 4) % abi.RingSize
	}
}

// publish tells the firmware's next look at the context about all jobs.
func (q *queue) publish() {
	q.published = len(q.jobs)
	q.store(q.register(abi.RegRingTail), q.tail)
	if q.published > 0 {
		q.d.active[q] = struct{}{}
	}
}

// takeOut removes the jobs that are to be cancelled. It is called only while the
// firmware sees nothing of the ring: the ring is then written anew from the first job on.
func (q *queue) takeOut() {
	if !q.cancelling() {
		return
	}
	start := q.jobs[0].start
	var kept []*job
	for _, j := range q.jobs {
		switch usage, finished := q.usage(j); {
		case !j.cancel:
			// What came to its end before its seqno was written must not start again.
			j.skip = j.skip || finished
			kept = append(kept, j)
		case finished:
			q.start(j)
			q.report.Completed(j.id, usage)
			q.slotsFree = append(q.slotsFree, j.slot)
		default:
			q.report.Cancelled(j.id, usage)
			q.slotsFree = append(q.slotsFree, j.slot)
		}
	}
	q.jobs, q.published, q.tail = kept, 0, start
	for _, j := range kept {
		q.emit(j)
	}
	if q.state.off() {
		q.store(q.register(abi.RegRingHead), start)
		q.store(q.register(abi.RegRingTail), start)
	}
	delete(q.d.active, q)
	q.noteStarted()
}

func (q *queue) cancelling() bool {
	return slices.ContainsFunc(q.jobs, func(j *job) bool { return j.cancel })
}

// usage reads how far a job has come, and whether that is its end.
func (q *queue) usage(j *job) (sdk.Usage, bool) {
	report, err := q.readReport(j)
	if err != nil {
		q.d.log.Warn("job report unreadable", "entity", q.entity, "job", j.id, "error", err)
		return sdk.Usage{Done: j.first}, false
	}
	return usageOf(j.first, report), j.count == 0 || report.Status == hw.StatusDone && report.Done == j.count
}

func usageOf(first uint64, r hw.Report) sdk.Usage {
	return sdk.Usage{Done: first + r.Done, Executed: r.Executed, ExecutedTime: r.ExecutedTime}
}

func (q *queue) readReport(j *job) (hw.Report, error) {
	if j.count == 0 {
		return hw.Report{Status: hw.StatusDone}, nil
	}
	return hw.ReadReport(q.d.config.Arena, q.dispatched(j).Device, j.count)
}

// poll keeps looking while something is awaited, because an interrupt may be
// missing and a start raises none.
func (d *Driver) poll() {
	if d.polling || d.failed() || d.phase != phaseUp || len(d.active) == 0 && d.awaited == 0 && len(d.ct.tracked) == 0 {
		return
	}
	d.polling = true
	d.loop.After(d.config.Timeouts.Poll, func() {
		d.polling = false
		d.look = true
		d.loop.LookAgain()
	})
}

// scan looks for started and finished jobs in the status pages.
func (d *Driver) scan() {
	// In the order of ids, so that runs are repeatable.
	queues := make([]*queue, 0, len(d.active))
	for q := range d.active {
		queues = append(queues, q)
	}
	slices.SortFunc(queues, func(a, b *queue) int { return int(a.id) - int(b.id) })
	for _, q := range queues {
		if d.stopped() {
			return
		}
		d.scanQueue(q)
		if d.look {
			q.observe()
		}
		q.settle()
	}
	d.look = false
}

// scanQueue reports what started and what finished, in order. A seqno without its
// work means that the firmware contradicts itself.
func (d *Driver) scanQueue(q *queue) {
	if q.published == 0 {
		return
	}
	started := q.load(q.status(abi.PPHWSPStartSeqno))
	finished := q.load(q.status(abi.PPHWSPSeqno))
	for q.published > 0 && !d.failed() {
		j := q.jobs[0]
		if abi.Passed(started, j.seqno) {
			q.start(j)
		}
		if !abi.Passed(finished, j.seqno) {
			return
		}
		usage, done := q.usage(j)
		if !done {
			d.reset(fmt.Errorf("guc_id %d: seqno %d was written, but job %d is not done", q.id, int32(finished), j.id))
			return
		}
		q.complete(j, usage)
	}
	if q.published == 0 {
		delete(d.active, q)
	}
}

// complete reports the first job as done and takes it out.
func (q *queue) complete(j *job, usage sdk.Usage) {
	q.start(j)
	q.jobs = q.jobs[1:]
	q.published = max(q.published-1, 0)
	q.slotsFree = append(q.slotsFree, j.slot)
	q.noteStarted()
	q.d.resets.row = 0
	q.d.sign()
	q.report.Completed(j.id, usage)
}

// start reports the job's start, once.
func (q *queue) start(j *job) {
	if j.started {
		return
	}
	j.started = true
	q.noteStarted()
	q.report.Started(j.id)
}

// noteStarted refreshes what Progress reads.
func (q *queue) noteStarted() {
	var refs []jobRef
	for _, j := range q.jobs {
		if j.started {
			refs = append(refs, jobRef{id: j.id, first: j.first, count: j.count, descriptor: q.dispatched(j).Device})
		}
	}
	q.progress.Lock()
	q.progress.started = refs
	q.progress.Unlock()
}

func (q *queue) status(offset uint64) uint64 { return q.lrc + abi.PPHWSPOffset + offset }

func (q *queue) register(index uint64) uint64 { return q.lrc + abi.RegisterOffset + 4*index }

// load and store access the LRC, which lies in the arena by construction.
func (q *queue) load(address uint64) uint32 {
	v, err := q.d.config.Arena.Load32(address)
	if err != nil {
		q.d.fail(fmt.Errorf("read LRC: %w", err))
	}
	return v
}

func (q *queue) store(address uint64, v uint32) {
	if err := q.d.config.Arena.Store32(address, v); err != nil {
		q.d.fail(fmt.Errorf("write LRC: %w", err))
	}
}
