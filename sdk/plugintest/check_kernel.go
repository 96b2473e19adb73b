package plugintest

import (
	"bytes"
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var kernelChecks = []check{
	{name: "kernel-loads", level: core.LevelJobs, run: kernelLoads,
		doc: "PutKernel takes a kernel, and takes it again"},
	{name: "kernel-in-pieces", level: core.LevelJobs, need: anInstance, run: kernelInPieces,
		doc: "a kernel may come in any number of pieces"},
	{name: "kernel-comes-after-its-job", level: core.LevelJobs, need: anInstance, run: kernelAfterJob,
		doc: "a job waits for its kernel, which may be uploaded after the run command"},
	{name: "kernel-digest-is-checked", level: core.LevelJobs, run: kernelDigest,
		doc: "code that is not that of its digest is refused as corrupt"},
	{name: "kernel-size-is-checked", level: core.LevelJobs, run: kernelSize,
		doc: "code that goes on after its size, or ends before it, is refused as corrupt"},
	{name: "kernel-header-is-checked", level: core.LevelJobs, run: kernelHeaderChecked,
		doc: "a header without a digest of 32 bytes, of more than 64 MiB, or none at all, is refused as invalid, an empty piece as corrupt"},
	{name: "kernel-stays-over-sessions", level: core.LevelJobs, run: kernelStays,
		doc: "a kernel stays on its device when the session ends"},
	{name: "kernel-of-unknown-device", level: core.LevelJobs, run: kernelUnknownDevice,
		doc: "a kernel for a device that is not open is refused as not found"},
	{name: "bad-kernel-refuses-its-jobs", level: core.LevelJobs, run: badKernel,
		doc: "a kernel that cannot be loaded is refused as invalid, and so is a job that names it, with the cause kernel"},
	{name: "foreign-format-refuses-the-job", level: core.LevelJobs, run: foreignFormat,
		doc: "a job without a kernel in a format of the device is refused with the cause kernel"},
}

func kernelLoads(p *probe) {
	l := p.open(deviceName)
	for range 2 {
		if err := p.putKernel(l, p.kernelHeader(l, p.kit.kernel), p.kit.kernel.Code); err != nil {
			p.failf("PutKernel: %v", err)
		}
	}
}

func kernelInPieces(p *probe) {
	l := p.open(deviceName)
	code := p.kit.kernel.Code
	third := len(code) / 3
	if err := p.putKernel(l, p.kernelHeader(l, p.kit.kernel), nil, code[:third], code[third:third+1], code[third+1:]); err != nil {
		p.failf("a kernel of which no byte comes with the header, and the rest in three pieces: %v", err)
	}
	p.in.loaded[l.device] = true
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
}

func kernelAfterJob(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	p.in.loaded[l.device] = true // not yet
	job := e.run(8, 1)
	if err := p.putKernel(l, p.kernelHeader(l, p.kit.kernel), p.kit.kernel.Code); err != nil {
		p.failf("PutKernel after the run: %v", err)
	}
	e.completed(job)
}

func kernelDigest(p *probe) {
	l := p.open(deviceName)
	code := bytes.Clone(p.kit.kernel.Code)
	code[len(code)-1] ^= 1
	p.refusedWith("code with another digest", p.putKernel(l, p.kernelHeader(l, p.kit.kernel), code), core.ErrCorrupt)
}

func kernelSize(p *probe) {
	l := p.open(deviceName)
	h := p.kernelHeader(l, p.kit.kernel)
	p.refusedWith("a kernel that goes on after its end", p.putKernel(l, h, p.kit.kernel.Code, []byte{1}), core.ErrCorrupt)
	p.refusedWith("a kernel that ends before its size", p.putKernel(l, h, p.kit.kernel.Code[:len(p.kit.kernel.Code)-1]), core.ErrCorrupt)
	p.alive("a kernel that broke off")
}

func kernelHeaderChecked(p *probe) {
	l := p.open(deviceName)
	short := p.kernelHeader(l, p.kit.kernel)
	short.Digest = short.Digest[:31]
	p.refusedWith("a digest of 31 bytes", p.putKernel(l, short, p.kit.kernel.Code), core.ErrInvalid)
	p.refusedWith("a kernel without a header", p.putKernel(l, nil, p.kit.kernel.Code), core.ErrInvalid)
	huge := p.kernelHeader(l, p.kit.kernel)
	for _, size := range []uint64{wire.KernelMax + 1, 1 << 62} {
		huge.Size = size
		p.refusedWith(fmt.Sprintf("a kernel of %d bytes", size), p.putKernel(l, huge, p.kit.kernel.Code), core.ErrInvalid)
	}
	code := p.kit.kernel.Code
	p.refusedWith("a kernel with an empty piece", p.putKernel(l, p.kernelHeader(l, p.kit.kernel), code[:1], nil, code[1:]), core.ErrCorrupt)
}

func kernelStays(p *probe) {
	first := p.open(deviceName)
	p.load(first)
	first.close()
	e := p.entity(p.open(deviceName), 8)
	e.completed(e.run(8, 1))
}

func kernelUnknownDevice(p *probe) {
	l := p.open(deviceName)
	h := p.kernelHeader(l, p.kit.kernel)
	h.Device = "no-such-device"
	p.refusedWith("a kernel for a device that is not open", p.putKernel(l, h, p.kit.kernel.Code), core.ErrNotFound)
}

func badKernel(p *probe) {
	l := p.open(deviceName)
	code := []byte("no kernel of any format\n")
	bad := core.Kernel{Format: p.kit.kernel.Format, Code: code, Digest: core.DigestOf(code)}
	for range 2 { // It may be tried again.
		p.refusedWith("code that is no "+bad.Format, p.putKernel(l, p.kernelHeader(l, bad), code), core.ErrInvalid)
	}
	e := p.entity(l, 8)
	c := e.mix(8, 1)
	c.JobSpec.Kernels = map[string]core.Digest{bad.Format: bad.Digest}
	l.send(c)
	if got := e.refused("a job whose kernel was refused", c.Seq); got.Cause != core.CauseKernel || got.Job != c.Job {
		p.failf("the refusal is %s; its cause must be %q and its job %d", tell(&got), core.CauseKernel, c.Job)
	}
	e.completed(e.run(8, 2))
}

func foreignFormat(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	c := e.mix(8, 1)
	c.JobSpec.Kernels = map[string]core.Digest{"no-such-format": p.kit.kernel.Digest}
	l.send(c)
	if got := e.refused("a job without a kernel for the device", c.Seq); got.Cause != core.CauseKernel {
		p.failf("the refusal is %s; its cause must be %q", tell(&got), core.CauseKernel)
	}
	e.completed(e.run(8, 2))
}
