package configs

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

// addJob builds a job but for what it awaits.
func (b *builder) addJob(v *value) {
	j := &jobDraft{v: v, order: len(b.jobOrder)}
	j.job.Position = Position{v.node.Line, v.node.Column}
	spec := &j.job.Spec
	spec.Credits = 1
	name, named := b.claim("job", v)
	spec.Name = name
	if entity := v.get("entity"); entity != nil {
		j.owner = b.entities[entity.text]
		if j.owner == nil {
			b.add(entity.node, b.didYouMean(entity.text, b.entityNames()), "%s: there is no entity %q", j.title(), entity.text)
		}
	}
	b.kernels(j)
	spec.Grid = b.extent(v, "grid", "workgroups")
	spec.Group = b.extent(v, "group", "work-items in a workgroup")
	b.args(j)
	b.timeout(j)
	b.jobOrder = append(b.jobOrder, j)
	if named {
		b.jobs[name] = j
	}
	if j.owner == nil {
		b.jobless = true
	} else {
		j.seq = len(j.owner.jobs)
		j.owner.jobs = append(j.owner.jobs, j)
	}
}

func (b *builder) entityNames() []string {
	names := make([]string, 0, len(b.order))
	for _, e := range b.order {
		if e.entity.Spec.Name != "" {
			names = append(names, e.entity.Spec.Name)
		}
	}
	return names
}

// kernels reads the files of the job's kernel.
func (b *builder) kernels(j *jobDraft) {
	k := j.v.get("kernel")
	if k == nil {
		return
	}
	j.job.Spec.Entry = k.word("entry", "")
	j.job.Spec.Kernels = map[string]core.Digest{}
	j.job.Kernels = map[string]core.Kernel{}
	present := false
	for _, format := range kernelFormats {
		present = present || k.has(format)
		path := k.get(format)
		if path == nil {
			continue
		}
		if code, ok := b.files.kernel(path); ok {
			kernel := core.Kernel{Digest: core.DigestOf(code), Format: format, Code: code}
			j.job.Spec.Kernels[format], j.job.Kernels[format] = kernel.Digest, kernel
		}
	}
	if !present {
		b.add(k.node, "", "kernel: needs a program: %s", strings.Join(kernelFormats, " or "))
	}
}

// extent reads grid or group; its product must fit a signed 64-bit number.
func (b *builder) extent(v *value, key, what string) [3]uint32 {
	out := [3]uint32{1, 1, 1}
	got := v.get(key)
	if got == nil {
		return out
	}
	product := uint64(1)
	over := false
	for i, item := range got.items {
		out[i] = uint32(item.number)
		high, low := bits.Mul64(product, item.number)
		over = over || high != 0 || low > math.MaxInt64
		product = low
	}
	if over {
		b.add(got.node, "", "%s: more than 2^63-1 %s", key, what)
	}
	return out
}

// args reads the arguments; a buffer must belong to the job's entity.
func (b *builder) args(j *jobDraft) {
	for _, v := range j.v.list("args") {
		kind := v.order[0]
		got := v.get(kind)
		if got == nil {
			continue
		}
		a := core.Arg{Kind: core.ArgKind(kind), Bits: got.number}
		if a.Kind == core.ArgBuffer {
			a = core.Arg{Kind: core.ArgBuffer, Buffer: got.text}
			b.checkBuffer(j, got)
		}
		j.job.Spec.Args = append(j.job.Spec.Args, a)
	}
}

func (b *builder) checkBuffer(j *jobDraft, got *value) {
	if j.owner == nil || j.owner.unnamed {
		return
	}
	var known []string
	for _, s := range j.owner.entity.Spec.Buffers {
		known = append(known, s.Name)
	}
	if !slices.Contains(known, got.text) {
		b.add(got.node, b.didYouMean(got.text, known), "%s: %s has no buffer %q", j.title(), j.owner.title(), got.text)
	}
}

// timeout applies the rule that only compute jobs have one.
func (b *builder) timeout(j *jobDraft) {
	if j.owner == nil {
		return
	}
	switch j.owner.entity.Spec.Mode {
	case core.ModeCompute:
		j.job.Spec.Timeout = j.v.duration("timeout", defaultTimeout)
	case core.ModeLongRunning:
		if j.v.has("timeout") {
			b.add(j.v.at("timeout"), "remove it, or use mode: compute", "%s: timeout is for mode compute only, %s is long-running", j.title(), j.owner.title())
		}
	}
}

// duration returns the duration of a key, or the default.
func (v *value) duration(key, absent string) time.Duration {
	if got := v.get(key); got != nil {
		return time.Duration(got.number)
	}
	d, problem := parseDuration(absent)
	if problem != nil {
		panic("configs: default of " + key + ": " + problem.message)
	}
	return d
}

// checkKernels lets the environment inspect the job's kernels.
func (b *builder) checkKernels(j *jobDraft) {
	spec := &j.job.Spec
	k := j.v.get("kernel")
	if b.env.KernelCheck == nil || spec.Entry == "" || len(spec.Args) != len(j.v.listAll("args")) {
		return
	}
	for _, format := range kernelFormats {
		kernel, ok := j.job.Kernels[format]
		if !ok {
			continue
		}
		bufferBytes := j.namedBytes()
		about := fmt.Sprintf("%s %s %q %d", format, kernel.Digest, spec.Entry, bufferBytes)
		for _, a := range spec.Args {
			about += " " + string(a.Kind)
		}
		err, known := b.checked[about]
		if !known {
			err = b.env.KernelCheck(format, kernel.Code, spec.Entry, spec.Args, bufferBytes)
			b.checked[about] = err
		}
		if err != nil {
			b.add(k.at(format), "", "%s: kernel %s: %v", j.title(), k.get(format).text, err)
		}
	}
}

// bufferUnit is what an engine rounds the size of a mapped buffer up to.
const bufferUnit = 64 * kib

// namedBytes sums the buffers that the arguments name, each once and rounded up.
func (j *jobDraft) namedBytes() uint64 {
	if j.owner == nil {
		return 0
	}
	named := map[string]bool{}
	for _, a := range j.job.Spec.Args {
		named[a.Buffer] = a.Kind == core.ArgBuffer
	}
	sum := uint64(0)
	for _, b := range j.owner.entity.Spec.Buffers {
		if named[b.Name] {
			sum += (b.Size + bufferUnit - 1) / bufferUnit * bufferUnit
		}
	}
	return sum
}

// listAll returns the items of a list key, good and bad.
func (v *value) listAll(key string) []*value {
	if got := v.keys[key]; got != nil {
		return got.items
	}
	return nil
}
