package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

// Codes on the wire; the index is the code, 0 is none.
var (
	argKinds   = [...]core.ArgKind{"", core.ArgBuffer, core.ArgU32, core.ArgI32, core.ArgF32, core.ArgU64, core.ArgI64, core.ArgF64}
	priorities = [...]core.Priority{"", core.PriorityLow, core.PriorityNormal, core.PriorityHigh}
)

// workgroupsMax bounds the workgroups of one job, so that sums cannot overflow.
const workgroupsMax = math.MaxInt64

// CommandEncoder packs commands. The zero value is ready; one goroutine uses it.
type CommandEncoder struct {
	scratch []byte
}

// Append packs c behind b. An error says that c breaks a limit of the seam; b
// is then returned unchanged.
func (e *CommandEncoder) Append(b []byte, c *core.Command) ([]byte, error) {
	old := b
	b = append(b, byte(c.Kind))
	b = binary.AppendUvarint(b, uint64(c.Entity))
	b = binary.AppendUvarint(b, uint64(c.Epoch))
	b = binary.AppendUvarint(b, uint64(c.Seq))
	var err error
	switch c.Kind {
	case core.CommandCreate:
		if c.EntitySpec == nil {
			return old, fmt.Errorf("encode create: no specification: %w", core.ErrInvalid)
		}
		b = binary.AppendUvarint(b, uint64(c.Generation))
		var spec []byte
		if spec, err = proto.Marshal(FromEntitySpec(c.EntitySpec)); err == nil {
			b = appendBlob(b, spec)
		}
	case core.CommandRun:
		if c.JobSpec == nil {
			return old, fmt.Errorf("encode run: no specification: %w", core.ErrInvalid)
		}
		b = binary.AppendUvarint(b, uint64(c.Job))
		b = binary.AppendUvarint(b, c.First)
		b = binary.AppendUvarint(b, uint64(c.ExecutedTime))
		b, err = e.appendJob(b, c.JobSpec)
	case core.CommandCancel:
		b = binary.AppendUvarint(b, uint64(c.Job))
	case core.CommandMessage:
		code := slices.Index(priorities[:], c.Properties.Priority)
		if code < 0 || len(c.Payload) > PayloadMax {
			return old, fmt.Errorf("encode message: priority or payload: %w", core.ErrInvalid)
		}
		b = binary.AppendUvarint(b, uint64(c.Message))
		b = append(b, byte(code))
		b = binary.AppendUvarint(b, uint64(c.Properties.Checkpoint))
		b = appendBlob(b, c.Payload)
	case core.CommandDestroy:
	default:
		return old, fmt.Errorf("encode command kind %d: %w", c.Kind, core.ErrInvalid)
	}
	if err != nil {
		return old, fmt.Errorf("encode command: %w", err)
	}
	return b, nil
}

func (e *CommandEncoder) appendJob(b []byte, s *core.JobSpec) ([]byte, error) {
	if len(s.Kernels) > FormatsMax || len(s.Args) > ArgsMax || len(s.After) > AfterMax {
		return b, fmt.Errorf("job %d: too many kernels, arguments or dependencies: %w", s.ID, core.ErrInvalid)
	}
	b = binary.AppendUvarint(b, uint64(s.Seq))
	b = appendStr(b, s.Name)
	raw := binary.AppendUvarint(e.scratch[:0], uint64(len(s.Kernels)))
	raw = appendKernels(raw, s.Kernels)
	b = appendBlob(b, raw)
	b = appendStr(b, s.Entry)
	for _, v := range s.Grid {
		b = binary.AppendUvarint(b, uint64(v))
	}
	for _, v := range s.Group {
		b = binary.AppendUvarint(b, uint64(v))
	}
	raw = binary.AppendUvarint(raw[:0], uint64(len(s.Args)))
	for i := range s.Args {
		code := slices.Index(argKinds[:], s.Args[i].Kind)
		if code <= 0 {
			return b, fmt.Errorf("job %d: argument kind %q: %w", s.ID, s.Args[i].Kind, core.ErrInvalid)
		}
		raw = append(raw, byte(code))
		if s.Args[i].Kind == core.ArgBuffer {
			raw = appendStr(raw, s.Args[i].Buffer)
		} else {
			raw = binary.AppendUvarint(raw, s.Args[i].Bits)
		}
	}
	b = appendBlob(b, raw)
	e.scratch = raw
	b = binary.AppendUvarint(b, uint64(len(s.After)))
	for _, id := range s.After {
		b = binary.AppendUvarint(b, uint64(id))
	}
	b = binary.AppendUvarint(b, uint64(s.Timeout))
	b = binary.AppendUvarint(b, uint64(s.Credits))
	if s.Flush {
		return append(b, 1), nil
	}
	return append(b, 0), nil
}

// appendKernels packs the kernels sorted by format. The formats of the project
// are looked up, because iterating over a map costs more than the rest of a job.
func appendKernels(b []byte, kernels map[string]core.Digest) []byte {
	opencl, hasOpenCL := kernels[core.FormatOpenCL]
	wasm, hasWasm := kernels[core.FormatWasm]
	known := 0
	for _, has := range [...]bool{hasOpenCL, hasWasm} {
		if has {
			known++
		}
	}
	if known < len(kernels) {
		for _, format := range slices.Sorted(maps.Keys(kernels)) {
			d := kernels[format]
			b = append(appendStr(b, format), d[:]...)
		}
		return b
	}
	if hasOpenCL {
		b = append(appendStr(b, core.FormatOpenCL), opencl[:]...)
	}
	if hasWasm {
		b = append(appendStr(b, core.FormatWasm), wasm[:]...)
	}
	return b
}

// CommandDecoder unpacks batches of commands. Specifications never change, so
// jobs in a row that name the same kernels or arguments share them. The zero
// value is ready; one goroutine uses it.
type CommandDecoder struct {
	kernelsRaw, argsRaw []byte
	kernels             map[string]core.Digest
	args                []core.Arg
	entry               string
}

// Decode unpacks a batch behind out. The commands keep nothing of b.
func (d *CommandDecoder) Decode(b []byte, out []core.Command) ([]core.Command, error) {
	r := reader{b: b}
	n := r.count("count of commands", BatchCount)
	out = slices.Grow(out, n)
	for i := 0; i < n && r.err == nil; i++ {
		out = append(out, core.Command{})
		d.command(&r, &out[len(out)-1])
	}
	if err := r.end("batch of commands"); err != nil {
		return nil, err
	}
	return out, nil
}

func (d *CommandDecoder) command(r *reader, c *core.Command) {
	c.Kind = core.CommandKind(r.byte("command kind"))
	c.Entity = core.EntityID(r.id("command entity"))
	c.Epoch = core.Epoch(r.id("command epoch"))
	c.Seq = core.CommandSeq(r.id("command sequence"))
	switch c.Kind {
	case core.CommandCreate:
		c.Generation = core.Generation(r.uvarint("generation"))
		var spec apiv1.EntitySpec
		if err := proto.Unmarshal(r.blob("entity specification", MessageMax), &spec); err != nil {
			r.fail("entity specification")
			return
		}
		var err error
		if c.EntitySpec, err = ToEntitySpec(c.Entity, &spec); err != nil && r.err == nil {
			r.err = err
		}
	case core.CommandRun:
		c.Job = core.JobID(r.id("run job"))
		c.First = r.uvarint("run first")
		c.ExecutedTime = r.duration("run executed time")
		c.JobSpec = d.job(r)
		if r.err == nil {
			c.JobSpec.ID, c.JobSpec.Entity = c.Job, c.Entity
			if c.First > c.JobSpec.Workgroups() {
				r.fail("run first")
			}
		}
	case core.CommandCancel:
		c.Job = core.JobID(r.id("cancel job"))
	case core.CommandMessage:
		c.Message = core.MessageKind(r.within("message kind", math.MaxUint32))
		if c.Message == 0 {
			r.fail("message kind")
		}
		c.Properties = properties(r)
		if p := r.blob("message payload", PayloadMax); len(p) > 0 {
			c.Payload = bytes.Clone(p)
		}
	case core.CommandDestroy:
	default:
		r.fail("command kind")
	}
}

func properties(r *reader) core.Properties {
	code := r.byte("priority")
	if int(code) >= len(priorities) {
		r.fail("priority")
		return core.Properties{}
	}
	return core.Properties{Priority: priorities[code], Checkpoint: r.duration("checkpoint")}
}

func (d *CommandDecoder) job(r *reader) *core.JobSpec {
	s := &core.JobSpec{}
	s.Seq = core.JobSeq(r.uvarint("job sequence"))
	s.Name = r.str("job name", NameMax)
	s.Kernels = d.kernelsOf(r, r.blob("kernels", FormatsMax*(NameMax+64)))
	if entry := r.blob("entry", NameMax); string(entry) != d.entry {
		sub := reader{b: appendBlob(nil, entry)}
		d.entry = sub.str("entry", NameMax)
		if sub.err != nil {
			r.fail("entry")
		}
	}
	s.Entry = d.entry
	for i := range s.Grid {
		s.Grid[i] = uint32(r.within("grid", math.MaxUint32))
	}
	for i := range s.Group {
		s.Group[i] = uint32(r.within("group", math.MaxUint32))
	}
	if volume(s.Grid) == 0 || volume(s.Group) == 0 {
		r.fail("grid or group")
	}
	s.Args = d.argsOf(r, r.blob("arguments", ArgsMax*(NameMax+16)))
	if n := r.count("dependencies", AfterMax); n > 0 {
		s.After = make([]core.JobID, n)
		for i := range s.After {
			s.After[i] = core.JobID(r.id("dependency"))
		}
	}
	s.Timeout = r.duration("timeout")
	s.Credits = uint32(r.within("credits", math.MaxUint32))
	flush := r.byte("flush")
	if s.Credits == 0 || flush > 1 {
		r.fail("credits or flush")
	}
	s.Flush = flush == 1
	return s
}

// volume returns the product of the three, 0 when it is 0 or beyond workgroupsMax.
func volume(g [3]uint32) uint64 {
	hi, lo := bits.Mul64(uint64(g[0])*uint64(g[1]), uint64(g[2]))
	if hi != 0 || lo > workgroupsMax {
		return 0
	}
	return lo
}

func (d *CommandDecoder) kernelsOf(r *reader, raw []byte) map[string]core.Digest {
	if r.err != nil || (d.kernels != nil && bytes.Equal(raw, d.kernelsRaw)) {
		return d.kernels
	}
	sub := reader{b: raw}
	n := sub.count("count of kernels", FormatsMax)
	kernels := make(map[string]core.Digest, n)
	for range n {
		format := sub.str("kernel format", NameMax)
		kernels[format] = sub.digest("kernel digest")
	}
	if sub.end("kernels") != nil || len(kernels) != n {
		r.fail("kernels")
		return nil
	}
	d.kernels, d.kernelsRaw = kernels, append(d.kernelsRaw[:0], raw...)
	return kernels
}

func (d *CommandDecoder) argsOf(r *reader, raw []byte) []core.Arg {
	if r.err != nil || (d.args != nil && bytes.Equal(raw, d.argsRaw)) {
		return d.args
	}
	sub := reader{b: raw}
	n := sub.count("count of arguments", ArgsMax)
	var args []core.Arg
	for range n {
		code := sub.byte("argument kind")
		if code == 0 || int(code) >= len(argKinds) {
			sub.fail("argument kind")
			break
		}
		a := core.Arg{Kind: argKinds[code]}
		if a.Kind == core.ArgBuffer {
			a.Buffer = sub.str("argument buffer", NameMax)
		} else {
			a.Bits = sub.uvarint("argument bits")
		}
		args = append(args, a)
	}
	if sub.end("arguments") != nil {
		r.fail("arguments")
		return nil
	}
	d.args, d.argsRaw = args, append(d.argsRaw[:0], raw...)
	return args
}
