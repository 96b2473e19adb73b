package driver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
	"github.com/gpuwm/gpuwm/sdk"
)

// What stands in a slot behind descriptor and arguments: the descriptors of the
// shader program and of local storage, then the job's command stream.
const (
	shaderOffset  = hw.DispatchSize + hw.ArgsMax*hw.ArgSize
	storageOffset = shaderOffset + 64
	streamOffset  = storageOffset + 64
)

// work is what an entity's job is about.
type work struct {
	d    *Driver
	spec sdk.Job
	// first is the first workgroup of the descriptor, count how many from there on; 0
	// means that all are done.
	first, count uint64
	index        uint32
	slot         host.Slot
	credits      uint32
	// earlier is what was executed in this epoch under an earlier descriptor, or, negative,
	// what the report counts of an earlier epoch.
	earlierGroups int64
	earlierTime   time.Duration
	started       bool
	cancel        bool
	// sampled is the time in execution that the report last said, sampledAt when it was new, running that it
	// said so then.
	sampled, sampledAt time.Duration
	running            bool
	// restored is how many workgroups an earlier life had done of the descriptor.
	restored uint64
}

// report reads how far the job is.
func (w *work) report() (hw.Report, error) {
	if w.count == 0 {
		return hw.Report{Status: hw.StatusDone}, nil
	}
	return hw.ReadReport(w.d.config.Arena, w.slot.Device, w.count)
}

func (w *work) usageOf(r hw.Report) sdk.Usage {
	return sdk.Usage{Done: w.first + r.Done, Executed: uint64(max(int64(r.Executed)+w.earlierGroups, 0)),
		ExecutedTime: max(r.ExecutedTime+w.earlierTime, 0)}
}

// usage reads how far the job is, and whether that is its end.
func (w *work) usage() (sdk.Usage, bool) {
	report, err := w.report()
	if err != nil {
		w.d.log.Warn("job report unreadable", "job", w.spec.Spec.ID, "error", err)
		return sdk.Usage{Done: w.first}, false
	}
	return w.usageOf(report), w.count == 0 || report.Status == hw.StatusDone && report.Done == w.count
}

// progress is a number that changes with every end of a workgroup, and whether the job is on an endpoint.
func (w *work) progress() (mark uint64, executing bool) {
	report, err := w.report()
	if err != nil {
		return 0, false
	}
	return report.Executed, report.Status == hw.StatusRunning
}

// begun reports whether the job was begun and is not over.
func (w *work) begun() bool {
	report, err := w.report()
	return err != nil || report.Status != hw.StatusIdle && report.Status != hw.StatusDone
}

// faulted reports whether its own descriptor is evidence against the job; blame is what it says.
func (w *work) faulted() bool {
	report, err := w.report()
	return err == nil && report.Status == hw.StatusFault
}

func (w *work) blame() (core.Cause, string) {
	report, _ := w.report()
	return host.FaultCause(report.Cause), report.Detail
}

// accept puts a job at the end of the ring. Errors wrap core.ErrClosed,
// core.ErrOversize, core.ErrFull, core.ErrExists, core.ErrNotFound or core.ErrInvalid.
func (e *entity) accept(r sdk.Job) error {
	if e.buried || e.destroy || !e.alive() {
		return e.errGone()
	}
	total, valid := hw.Workgroups(r.Spec.Grid)
	if !valid || r.First > total {
		return fmt.Errorf("first workgroup %d of grid %v: %w", r.First, r.Spec.Grid, core.ErrInvalid)
	}
	w := &work{d: e.d, spec: r, first: r.First, count: total - r.First, credits: max(r.Spec.Credits, 1)}
	if w.credits > e.d.config.Credits {
		return fmt.Errorf("%d credits, the ring has %d: %w", w.credits, e.d.config.Credits, core.ErrOversize)
	}
	taken := w.credits
	for _, j := range e.queues[0].jobs {
		taken += j.work.credits
		if j.id == r.Spec.ID {
			return fmt.Errorf("job %d is in the ring: %w", j.id, core.ErrExists)
		}
	}
	if taken > e.d.config.Credits {
		return fmt.Errorf("ring: %w", core.ErrFull)
	}
	if err := e.layOut(); err != nil {
		return err
	}
	if e.inherited != nil {
		e.adopt(w)
	}
	if !e.queues[0].room() {
		return fmt.Errorf("ring: %w", core.ErrFull)
	}
	w.index = e.slotsFree[len(e.slotsFree)-1]
	w.slot = host.SlotAt(e.slots, w.index)
	if err := e.describe(w); err != nil {
		return err
	}
	e.slotsFree = e.slotsFree[:len(e.slotsFree)-1]
	e.append(w)
	return nil
}

// describe writes everything of a job but its entry in the ring.
func (e *entity) describe(w *work) error {
	if w.count > 0 {
		dispatch, args, err := e.d.memory.Dispatch(w.spec, e.buffers, e.d.config.Formats)
		if err != nil {
			return err
		}
		dispatch.First, dispatch.Count = w.first, w.count
		if err := host.WriteDispatch(e.d.config.Arena, w.slot, dispatch, args); err != nil {
			return err
		}
	}
	if err := w.restore(); err != nil {
		return err
	}
	b, err := e.d.config.Arena.Bytes(w.slot.Device, host.SlotSize)
	if err != nil {
		return err
	}
	clear(b[shaderOffset:])
	abi.ShaderProgram{Stage: abi.StageCompute, Binary: w.slot.Virtual}.Encode(b[shaderOffset:])
	abi.LocalStorage{}.Encode(b[storageOffset:])
	for i, instruction := range e.stream(w) {
		binary.LittleEndian.PutUint64(b[streamOffset+i*abi.InstructionSize:], instruction.Encode())
	}
	return nil
}

// stream is the job's command stream: one dispatch of the grid, with endpoint work
// counted on scoreboard entry 1. A job without a workgroup left only waits.
func (e *entity) stream(w *work) []abi.Instruction {
	const entry = 1
	wait := abi.Instruction{Op: abi.OpWait, Mask: 1 << entry}
	if w.count == 0 {
		return []abi.Instruction{wait}
	}
	group, grid := w.spec.Spec.Group, w.spec.Spec.Grid
	// The dispatch descriptor has the true size; r33 holds what fits there.
	size := abi.WorkgroupSize{X: min(group[0], abi.WorkgroupSizeMax), Y: min(group[1], abi.WorkgroupSizeMax), Z: min(group[2], abi.WorkgroupSizeMax)}
	list := []abi.Instruction{
		{Op: abi.OpSetSBEntry, Endpoint: entry, Other: 0},
		{Op: abi.OpMove48, Dest: abi.Selected(abi.RegisterSPD, 0), Imm: w.slot.Virtual + shaderOffset},
		{Op: abi.OpMove48, Dest: abi.Selected(abi.RegisterTSD, 0), Imm: w.slot.Virtual + storageOffset},
		{Op: abi.OpMove48, Dest: abi.Selected(abi.RegisterSRT, 0)},
		{Op: abi.OpMove48, Dest: abi.Selected(abi.RegisterFAU, 0)},
		{Op: abi.OpMove32, Dest: abi.RegisterAttribute},
		{Op: abi.OpMove32, Dest: abi.RegisterGroupSize, Imm: uint64(size.Encode())},
	}
	for i := range uint8(3) {
		list = append(list, abi.Instruction{Op: abi.OpMove32, Dest: abi.RegisterOffset + i},
			abi.Instruction{Op: abi.OpMove32, Dest: abi.RegisterSize + i, Imm: uint64(grid[i])})
	}
	return append(list, abi.Instruction{Op: abi.OpRunCompute, Increment: 1}, wait)
}

// append puts a described job into the ring.
func (e *entity) append(w *work) {
	size := uint64(len(e.stream(w)) * abi.InstructionSize)
	e.queues[0].emit(&job{id: w.spec.Spec.ID, work: w, stream: Stream{Address: w.slot.Virtual + streamOffset, Size: size}})
}

// completed implements owner.
func (e *entity) completed(j *job, fault *evidence) {
	w := j.work
	usage, done := w.usage()
	e.start(w)
	if w.faulted() {
		cause, detail := w.blame()
		fault = &evidence{job: j, queue: e.queues[0], cause: cause, detail: detail}
	}
	switch {
	case fault != nil:
		e.condemn(fault)
	case !done:
		// The firmware contradicts itself, which is no evidence against anybody.
		e.condemn(&evidence{cause: core.CauseDevice, detail: fmt.Sprintf("job %d was counted and is not done", j.id)})
	default:
		e.executed += usage.ExecutedTime
		e.slotsFree = append(e.slotsFree, w.index)
		e.noteStarted()
		e.report.Completed(j.id, usage)
	}
}

// watchStart reports the start of the first job, and what is done of it shows that the group lives.
func (e *entity) watchStart() {
	if w := e.queues[0].jobs[0].work; !w.started {
		if report, err := w.report(); err == nil && report.Status != hw.StatusIdle && (report.Status != hw.StatusPreempted || e.slot != nil) {
			e.start(w)
		}
	}
}

// start reports a job's start, once.
func (e *entity) start(w *work) {
	if w.started {
		return
	}
	w.started = true
	e.noteStarted()
	e.report.Started(w.spec.Spec.ID)
}

// noteStarted refreshes what Progress reads.
func (e *entity) noteStarted() {
	var list []work
	for _, j := range e.queues[0].jobs {
		if j.work.started {
			list = append(list, *j.work)
		}
	}
	e.progress.Lock()
	e.progress.started = list
	e.progress.Unlock()
}

// hideStarted empties what Progress reads.
func (e *entity) hideStarted() {
	e.progress.Lock()
	e.progress.started = nil
	e.progress.Unlock()
}

// measured implements owner. A job that is on an endpoint now may have executed longer than its report says.
func (e *entity) measured() (time.Duration, bool) {
	total := e.executed
	for _, j := range e.queues[0].jobs {
		report, err := j.work.report()
		if err != nil {
			continue
		}
		w, now := j.work, e.d.now()
		// Time off the endpoint does not count, however long ago the last look was.
		if running := report.Status == hw.StatusRunning; w.sampled != report.ExecutedTime || !running || !w.running {
			w.sampled, w.sampledAt, w.running = report.ExecutedTime, now, running
		}
		total += w.usageOf(report).ExecutedTime + now - w.sampledAt
	}
	return total, true
}

// died implements owner.
func (e *entity) died(blame *evidence) {
	id, usage, cause, detail, guilty := core.JobID(0), sdk.Usage{}, core.CauseDevice, "group was terminated", false
	if blame != nil {
		cause, detail = blame.cause, blame.detail
		if guilty = blame.job != nil && cause != core.CauseDevice; guilty {
			id = blame.job.id
			usage, _ = blame.job.work.usage()
			e.start(blame.job.work)
		}
	}
	e.queues[0].jobs = nil
	e.noteStarted()
	if !e.destroy {
		e.d.log.Warn("entity lost", "entity", e.id, "job", id, "cause", cause, "detail", detail)
		e.report.Lost(guilty, id, usage, cause, detail)
	}
	host.Answer(&e.suspendWaits, fmt.Errorf("%s: %w", detail, core.ErrClosed))
}

// vacated implements owner: jobs that are to be cancelled leave, and who waits for the suspend is answered.
func (e *entity) vacated() {
	if e.taking {
		e.taking = false
		if err := e.takeOut(); err != nil {
			e.condemn(&evidence{cause: core.CauseDevice, detail: err.Error()})
			return
		}
	}
	if e.suspended {
		host.Answer(&e.suspendWaits, nil)
	}
}

// takeOut starts the group anew with what is left of its jobs: what is done is complete, what is
// to be cancelled leaves, and the others go on at their cursors.
func (e *entity) takeOut() error {
	e.inherited = nil
	jobs := e.queues[0].jobs
	if !e.restart() {
		return errors.New("group can't be started anew")
	}
	var kept []*work
	for _, j := range jobs {
		w := j.work
		usage, finished := w.usage()
		switch {
		case finished:
			e.start(w)
			e.executed += usage.ExecutedTime
			e.report.Completed(j.id, usage)
			e.slotsFree = append(e.slotsFree, w.index)
		case w.cancel:
			e.executed += usage.ExecutedTime
			e.report.Cancelled(j.id, usage)
			e.slotsFree = append(e.slotsFree, w.index)
		default:
			kept = append(kept, w)
		}
	}
	e.hideStarted() // Until their descriptors begin at the cursors: who asks meanwhile would see less than before.
	for _, w := range kept {
		report, err := w.report()
		if err != nil {
			return err
		}
		w.first, w.count = w.first+report.Done, w.count-report.Done
		w.restored = 0
		w.earlierGroups += int64(report.Executed)
		w.earlierTime += report.ExecutedTime
		if err := e.describe(w); err != nil {
			return err
		}
		e.append(w)
	}
	e.noteStarted()
	return nil
}
