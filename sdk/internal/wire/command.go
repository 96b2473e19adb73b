package wire

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/gpuwm/gpuwm/core"
)

// Codes on the wire; the index is the code, 0 is none.
var (
	argKinds   = [...]core.ArgKind{"", core.ArgBuffer, core.ArgU32, core.ArgI32, core.ArgF32, core.ArgU64, core.ArgI64, core.ArgF64}
	priorities = [...]core.Priority{"", core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
)

// workgroupsMax bounds the workgroups of one job, so that sums cannot overflow.
const workgroupsMax = math.MaxInt64

// The first byte of a command or event is its kind and these flags, which refer
// to the item before it in the same batch.
const (
	kindMask = 0x0f
	// isNext, of a command: same entity and epoch, sequence number one higher;
	// of an event: same entity and epoch.
	isNext = 0x10
	// isAlike, of a run: but for numbers and name the specification is that of
	// the last run before it.
	isAlike = 0x20
	// isSuccessor, of a run: the job and its sequence number are one higher than
	// those of the last run before it; of an event: the job is.
	isSuccessor = 0x40
	// isFresh, of a run: nothing of the job was done before.
	isFresh = 0x80
	// isSame, of an event: the job is that of the event before it.
	isSame = 0x20
)

// CommandBatch packs commands into one message body. The zero value is an empty
// batch; one goroutine uses it at a time.
type CommandBatch struct {
	body   []byte
	count  int
	entity core.EntityID
	epoch  core.Epoch
	seq    core.CommandSeq
	// job is the specification of the last run, jobID and jobSeq its numbers.
	job      *core.JobSpec
	jobID    core.JobID
	jobSeq   core.JobSeq
	programs programs
	scratch  []byte
}

// Full reports whether no more fits; Append must not be called then.
func (b *CommandBatch) Full() bool { return b.count >= BatchCount || len(b.body) >= BatchBytes }

// Count returns how many commands are in the batch.
func (b *CommandBatch) Count() int { return b.count }

// Size returns the bytes of the body so far.
func (b *CommandBatch) Size() int { return len(b.body) }

// Body returns the message body, valid until Reset. Nothing may be appended after it.
func (b *CommandBatch) Body() []byte { return putBatchCount(b.body, b.count) }

// Reset empties the batch and keeps its memory.
func (b *CommandBatch) Reset() {
	*b = CommandBatch{body: b.body[:0], scratch: b.scratch}
}

// Append packs c. An error says that c breaks a limit of the seam; the batch is
// then unchanged.
func (b *CommandBatch) Append(c *core.Command) error {
	if b.count == 0 {
		b.body = append(b.body[:0], 0, 0)
	}
	old := len(b.body)
	if err := b.command(c); err != nil {
		b.body = b.body[:old]
		return err
	}
	b.count++
	b.entity, b.epoch, b.seq = c.Entity, c.Epoch, c.Seq
	return nil
}

func (b *CommandBatch) command(c *core.Command) error {
	head, out := byte(c.Kind), b.body
	var has programs
	next := b.count > 0 && c.Entity == b.entity && c.Epoch == b.epoch && c.Seq == b.seq+1
	if next {
		head |= isNext
	}
	if c.Kind == core.CommandRun {
		if c.JobSpec == nil {
			return fmt.Errorf("encode run: no specification: %w", core.ErrInvalid)
		}
		has = programsOf(c.JobSpec.Kernels)
		head |= b.runFlags(c, &has)
	}
	out = append(out, head)
	if !next {
		out = binary.AppendUvarint(out, uint64(c.Entity))
		out = binary.AppendUvarint(out, uint64(c.Epoch))
		out = binary.AppendUvarint(out, uint64(c.Seq))
	}
	switch c.Kind {
	case core.CommandCreate:
		if c.EntitySpec == nil {
			return fmt.Errorf("encode create: no specification: %w", core.ErrInvalid)
		}
		out = binary.AppendUvarint(out, uint64(c.Generation))
		spec, err := proto.Marshal(FromEntitySpec(c.EntitySpec))
		if err != nil {
			return fmt.Errorf("encode create: %w", err)
		}
		out = appendBlob(out, spec)
	case core.CommandRun:
		if head&isSuccessor == 0 {
			out = binary.AppendUvarint(out, uint64(c.Job))
			out = binary.AppendUvarint(out, uint64(c.JobSpec.Seq))
		}
		if head&isFresh == 0 {
			out = binary.AppendUvarint(out, c.First)
			out = binary.AppendUvarint(out, uint64(c.ExecutedTime))
		}
		out = appendStr(out, c.JobSpec.Name)
		if head&isAlike == 0 {
			var err error
			if out, err = b.appendJob(out, c.JobSpec); err != nil {
				return fmt.Errorf("encode run: %w", err)
			}
		}
	case core.CommandCancel:
		out = binary.AppendUvarint(out, uint64(c.Job))
	case core.CommandMessage:
		code := slices.Index(priorities[:], c.Properties.Priority)
		if code < 0 || len(c.Payload) > PayloadMax {
			return fmt.Errorf("encode message: priority or payload: %w", core.ErrInvalid)
		}
		out = binary.AppendUvarint(out, uint64(c.Message))
		out = append(out, byte(code))
		out = binary.AppendUvarint(out, uint64(c.Properties.Checkpoint))
		out = appendBlob(out, c.Payload)
	case core.CommandDestroy:
	default:
		return fmt.Errorf("encode command kind %d: %w", c.Kind, core.ErrInvalid)
	}
	if c.Kind == core.CommandRun {
		b.job, b.jobID, b.jobSeq, b.programs = c.JobSpec, c.Job, c.JobSpec.Seq, has
	}
	b.body = out
	return nil
}

// runFlags says what of a run need not be packed.
func (b *CommandBatch) runFlags(c *core.Command, programs *programs) (flags byte) {
	if c.First == 0 && c.ExecutedTime == 0 {
		flags |= isFresh
	}
	if b.job == nil {
		return flags
	}
	if c.Job == b.jobID+1 && c.JobSpec.Seq == b.jobSeq+1 {
		flags |= isSuccessor
	}
	if !b.programs.others && *programs == b.programs && alikeJobs(b.job, c.JobSpec) {
		flags |= isAlike
	}
	return flags
}

// alikeJobs reports whether two jobs differ in nothing that crosses the seam but
// kernels, numbers and name.
func alikeJobs(a, b *core.JobSpec) bool {
	return a.Entry == b.Entry && a.Grid == b.Grid && a.Group == b.Group && a.Timeout == b.Timeout &&
		a.Credits == b.Credits && a.Flush == b.Flush && slices.Equal(a.Args, b.Args) &&
		slices.Equal(a.After, b.After)
}

// programs are the kernels of a job, in a form that is quick to compare. Only
// the formats of the project are looked up, because iterating over a map costs
// more than the rest of a job.
type programs struct {
	wasm, opencl       core.Digest
	hasWasm, hasOpenCL bool
	// others are kernels in other formats; jobs that have some are never alike.
	others bool
}

func programsOf(kernels map[string]core.Digest) (p programs) {
	known := 0
	if p.wasm, p.hasWasm = kernels[core.FormatWasm]; p.hasWasm {
		known++
	}
	if known < len(kernels) {
		if p.opencl, p.hasOpenCL = kernels[core.FormatOpenCL]; p.hasOpenCL {
			known++
		}
	}
	p.others = known < len(kernels)
	return p
}

// appendJob packs what jobs may have in common.
func (b *CommandBatch) appendJob(out []byte, s *core.JobSpec) ([]byte, error) {
	if len(s.Kernels) > FormatsMax || len(s.Args) > ArgsMax || len(s.After) > AfterMax {
		return out, fmt.Errorf("job %d: too many kernels, arguments or dependencies: %w", s.ID, core.ErrInvalid)
	}
	raw := binary.AppendUvarint(b.scratch[:0], uint64(len(s.Kernels)))
	raw = appendKernels(raw, s.Kernels)
	out = appendBlob(out, raw)
	out = appendStr(out, s.Entry)
	for _, v := range s.Grid {
		out = binary.AppendUvarint(out, uint64(v))
	}
	for _, v := range s.Group {
		out = binary.AppendUvarint(out, uint64(v))
	}
	raw = binary.AppendUvarint(raw[:0], uint64(len(s.Args)))
	for i := range s.Args {
		code := slices.Index(argKinds[:], s.Args[i].Kind)
		if code <= 0 {
			return out, fmt.Errorf("job %d: argument kind %q: %w", s.ID, s.Args[i].Kind, core.ErrInvalid)
		}
		raw = append(raw, byte(code))
		if s.Args[i].Kind == core.ArgBuffer {
			raw = appendStr(raw, s.Args[i].Buffer)
		} else {
			raw = binary.AppendUvarint(raw, s.Args[i].Bits)
		}
	}
	out = appendBlob(out, raw)
	b.scratch = raw
	out = binary.AppendUvarint(out, uint64(len(s.After)))
	for _, id := range s.After {
		out = binary.AppendUvarint(out, uint64(id))
	}
	out = binary.AppendUvarint(out, uint64(s.Timeout))
	out = binary.AppendUvarint(out, uint64(s.Credits))
	if s.Flush {
		return append(out, 1), nil
	}
	return append(out, 0), nil
}

// appendKernels packs the kernels sorted by format.
func appendKernels(b []byte, kernels map[string]core.Digest) []byte {
	for _, format := range slices.Sorted(maps.Keys(kernels)) {
		d := kernels[format]
		b = append(appendStr(b, format), d[:]...)
	}
	return b
}
