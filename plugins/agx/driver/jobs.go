package driver

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/host"
	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/sdk"
)

// job is one job of an entity, from Run to its end.
type job struct {
	id      core.JobID
	credits uint32
	// first is the first workgroup to execute here, left how many are not cut into commands
	// yet, total all from first on.
	first, left, total uint64
	// retired are those of commands that were retired, and what they took.
	retired, executed uint64
	took              time.Duration
	// commands counts those in the ring.
	commands int
	started  bool
	// cancel asks for it to be taken out at the next command boundary.
	cancel   bool
	key      rateKey
	dispatch hw.Dispatch
	args     []hw.Arg
}

// next is the first workgroup of the next command.
func (j *job) next() uint64 { return j.first + j.total - j.left }

// jobRef is what Progress needs of a started job: what was retired, and the
// descriptor of the command at the head of the ring if that is one of its.
type jobRef struct {
	id         core.JobID
	usage      sdk.Usage
	descriptor uint64
	count      uint64
}

// accept puts a job behind the others. Errors wrap core.ErrClosed,
// core.ErrOversize, core.ErrFull, core.ErrExists, core.ErrNotFound or core.ErrInvalid.
func (q *queue) accept(r sdk.Job) error {
	spec := r.Spec
	if q.lost || q.destroy {
		return fmt.Errorf("work queue is being torn down: %w", core.ErrClosed)
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
	j := &job{id: spec.ID, credits: credits, first: r.First, left: total - r.First, total: total - r.First}
	if j.total > 0 {
		if err := q.lay(); err != nil {
			return err
		}
		var err error
		if j.dispatch, j.args, err = q.d.memory.Dispatch(r, q.buffers, q.d.config.Formats); err != nil {
			return err
		}
		whole := j.dispatch
		whole.First, whole.Count = j.first, j.total
		if err := host.CheckDispatch(whole, j.args); err != nil {
			return err
		}
		j.key = rateOf(spec, j.dispatch.Digest)
	}
	q.jobs = append(q.jobs, j)
	return nil
}

// takeOut reports the ends of jobs that have no command in the ring: those that are to be cancelled, and
// those at the front that have nothing left to do.
func (q *queue) takeOut() {
	if !q.state.alive() || q.destroy {
		return
	}
	before := len(q.jobs)
	q.jobs = slices.DeleteFunc(q.jobs, func(j *job) bool {
		if !j.cancel || j.commands > 0 || j.left == 0 {
			return false
		}
		q.report.Cancelled(j.id, q.usage(j))
		return true
	})
	for len(q.jobs) > 0 && q.jobs[0].left == 0 && q.jobs[0].commands == 0 {
		j := q.jobs[0]
		q.jobs = q.jobs[1:]
		q.start(j)
		q.report.Completed(j.id, q.usage(j))
	}
	if len(q.jobs) != before {
		q.note()
	}
}

// usage is how far a job has come by what was retired, and by the command at the head of the ring.
func (q *queue) usage(j *job) sdk.Usage {
	u := sdk.Usage{Done: j.first + j.retired, Executed: j.executed, ExecutedTime: j.took}
	if len(q.commands) == 0 || q.commands[0].job != j {
		return u
	}
	return q.d.add(u, host.SlotAt(q.slots, q.commands[0].slot).Device, q.commands[0].count)
}

// add adds what the firmware wrote of a command that is under way.
func (d *Driver) add(u sdk.Usage, descriptor, count uint64) sdk.Usage {
	r, err := hw.ReadReport(d.config.Arena, descriptor, count)
	if err != nil {
		return u
	}
	return sdk.Usage{Done: u.Done + r.Done, Executed: u.Executed + r.Executed, ExecutedTime: u.ExecutedTime + r.ExecutedTime}
}

// start reports the job's start, once.
func (q *queue) start(j *job) {
	if !j.started {
		j.started = true
		q.report.Started(j.id)
	}
}

// note refreshes what Progress reads.
func (q *queue) note() {
	var refs []jobRef
	for _, j := range q.jobs {
		if !j.started {
			continue
		}
		ref := jobRef{id: j.id, usage: sdk.Usage{Done: j.first + j.retired, Executed: j.executed, ExecutedTime: j.took}}
		if len(q.commands) > 0 && q.commands[0].job == j {
			ref.descriptor, ref.count = host.SlotAt(q.slots, q.commands[0].slot).Device, q.commands[0].count
		}
		refs = append(refs, ref)
	}
	q.progress.Lock()
	q.progress.refs = refs
	q.progress.Unlock()
}
