package wire

import (
	"bytes"
	"math"
	"math/bits"

	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
)

// slabJobs is how many specifications are allocated together. A job that lives
// long keeps its slab, so a slab is smaller than a batch: 32 × 184 bytes.
const slabJobs = 32

// CommandDecoder unpacks batches of commands. Specifications never change, so
// jobs in a row that name the same kernels or arguments share them. The zero
// value is ready; one goroutine uses it.
type CommandDecoder struct {
	kernelsRaw, argsRaw []byte
	kernels             map[string]core.Digest
	args                []core.Arg
	entry               string
	slab                []core.JobSpec
	// names are those of the batch's jobs, one behind the other; ends says where
	// each ends. They become one string.
	names []byte
	ends  []int
}

// Decode unpacks a batch behind out. The commands keep nothing of b.
func (d *CommandDecoder) Decode(b []byte, out []core.Command) ([]core.Command, error) {
	r := reader{b: b}
	n := r.items("count of commands")
	begin := len(out)
	out = extend(out, n)
	d.names, d.ends = d.names[:0], d.ends[:0]
	var before, run *core.Command
	for i := 0; i < n && r.err == nil; i++ {
		c := &out[begin+i]
		d.command(&r, c, before, run)
		before = c
		if c.Kind == core.CommandRun {
			run = c
		}
	}
	if err := r.end("batch of commands"); err != nil {
		return nil, err
	}
	d.nameJobs(out[begin:])
	return out, nil
}

// nameJobs gives the jobs of a batch their names.
func (d *CommandDecoder) nameJobs(commands []core.Command) {
	names, from, n := string(d.names), 0, 0
	for i := range commands {
		if s := commands[i].JobSpec; s != nil {
			s.Name = names[from:d.ends[n]]
			from = d.ends[n]
			n++
		}
	}
}

// command unpacks one command. before is the one before it in the batch, run the
// last run; nil when there is none.
func (d *CommandDecoder) command(r *reader, c, before, run *core.Command) {
	head := r.byte("command kind")
	c.Kind = core.CommandKind(head & kindMask)
	if head&isNext != 0 {
		if before == nil {
			r.fail("command without another before it")
			return
		}
		c.Entity, c.Epoch, c.Seq = before.Entity, before.Epoch, before.Seq+1
		if c.Seq == 0 {
			r.fail("command sequence")
		}
	} else {
		c.Entity = core.EntityID(r.id("command entity"))
		c.Epoch = core.Epoch(r.id("command epoch"))
		c.Seq = core.CommandSeq(r.id("command sequence"))
	}
	if c.Kind != core.CommandRun && head&(isAlike|isSuccessor|isFresh) != 0 || run == nil && head&(isAlike|isSuccessor) != 0 {
		r.fail("command flags")
		return
	}
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
		d.run(r, head, c, run)
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

// run unpacks a run; last is the last one before it, if the flags refer to it.
func (d *CommandDecoder) run(r *reader, head byte, c, last *core.Command) {
	if len(d.slab) == 0 {
		d.slab = make([]core.JobSpec, slabJobs)
	}
	s := &d.slab[0]
	d.slab = d.slab[1:]
	var seq core.JobSeq
	if head&isSuccessor != 0 {
		c.Job, seq = last.Job+1, last.JobSpec.Seq+1
		if c.Job == 0 {
			r.fail("run job")
		}
	} else {
		c.Job, seq = core.JobID(r.id("run job")), core.JobSeq(r.uvarint("job sequence"))
	}
	if head&isFresh == 0 {
		c.First = r.uvarint("run first")
		c.ExecutedTime = r.duration("run executed time")
	}
	d.names = append(d.names, r.text("job name", NameMax)...)
	d.ends = append(d.ends, len(d.names))
	if head&isAlike != 0 {
		*s = *last.JobSpec
	} else {
		d.job(r, s)
	}
	s.ID, s.Entity, s.Seq = c.Job, c.Entity, seq
	c.JobSpec = s
	if c.First != 0 && c.First > s.Workgroups() {
		r.fail("run first")
	}
}

// job unpacks what jobs may have in common.
func (d *CommandDecoder) job(r *reader, s *core.JobSpec) {
	s.Kernels = d.kernelsOf(r, r.blob("kernels", FormatsMax*(NameMax+64)))
	if entry := r.text("entry", NameMax); string(entry) != d.entry {
		d.entry = string(entry)
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
