package plugintest

import (
	"context"
	"strings"
	"time"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var createChecks = []check{
	{name: "create-is-answered", level: core.LevelJobs, run: createAnswered,
		doc: "a create is answered with applied, for its entity, epoch and command"},
	{name: "image-comes-before-create", level: core.LevelJobs, run: imageBefore,
		doc: "the image may be uploaded before the create command; the call ends when the create has read it"},
	{name: "image-comes-after-create", level: core.LevelJobs, run: imageAfter,
		doc: "the image may be uploaded after the create command"},
	{name: "create-twice-is-refused", level: core.LevelJobs, run: createTwice,
		doc: "a second create of a living epoch is refused, and the entity goes on"},
	{name: "create-with-several-buffers", level: core.LevelJobs, run: createSeveral,
		doc: "buffers of any size are taken, also of one byte, of a chunk and a byte, and all zero"},
	{name: "damaged-image-is-refused", level: core.LevelJobs, run: imageDamaged,
		doc: "an image with a flipped byte is refused as corrupt, and its create with the cause image"},
	{name: "image-trailer-is-checked", level: core.LevelJobs, run: imageTrailer,
		doc: "an image whose trailer has another count or digest is refused as corrupt"},
	{name: "incomplete-image-is-refused", level: core.LevelJobs, run: imageIncomplete,
		doc: "an image that lacks a chunk, or breaks off, is refused"},
	{name: "zero-chunk-is-checked", level: core.LevelJobs, run: imageZero,
		doc: "a chunk that is named zero with another digest is refused as corrupt"},
	{name: "image-target-is-checked", level: core.LevelJobs, run: imageTarget,
		doc: "an image for epoch 0, or of another entity than its target, is refused as invalid"},
	{name: "image-version-is-checked", level: core.LevelJobs, run: imageVersion,
		doc: "an image of a newer format is refused"},
	{name: "refused-create-leaves-nothing", level: core.LevelJobs, run: createRefused,
		doc: "after a refused create the entity can be created in its next epoch"},
	{name: "refused-create-ends-its-epoch", level: core.LevelJobs, run: createEndsEpoch,
		doc: "after a refused create no command of its epoch is answered, and no image of it taken"},
	{name: "image-sent-again-replaces", level: core.LevelJobs, run: imageAgain,
		doc: "an image that is sent again before its create replaces the first, which is refused as stale"},
	{name: "upload-does-not-delay-control", level: core.LevelJobs, run: uploadAside,
		doc: "while an upload stalls, commands of other entities are carried out"},
	{name: "kernel-upload-does-not-delay-control", level: core.LevelJobs, run: kernelAside,
		doc: "while the upload of a kernel stalls, commands are carried out"},
	{name: "specification-is-taken", level: core.LevelJobs, run: specificationTaken,
		doc: "every mode, policy and priority of an entity is taken, names of 1024 bytes, and a job's timeout, dependencies and flush"},
	{name: "too-much-memory-is-refused", level: core.LevelJobs, run: tooMuchMemory,
		doc: "an entity with larger buffers than the device declares is refused, without waiting for its image"},
	{name: "too-many-waiting-commands", level: core.LevelJobs, run: tooManyWaiting,
		doc: "a session that lets more than 2 x credits + 256 commands of an entity wait ends as full; the entity stays"},
	{name: "commands-wait-for-create", level: core.LevelJobs, run: commandsWait,
		doc: "commands that follow a create at once are carried out after it"},
}

func createAnswered(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	e.none("an event that nothing asked for", func(b *core.BackendEvent) bool { return b.Kind != core.EventApplied })
}

// empty is an entity that was not created, with the image for it.
func empty(p *probe, l *line, n int) (*life, picture) {
	e := p.life(l, p.spec(core.BufferSpec{Name: cellsName, Size: 4 * uint64(n)}), 1, 0)
	return e, e.fresh([][]byte{toBytes(counted(n))})
}

func imageBefore(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	uploaded := make(chan error, 1)
	sent := make(chan struct{})
	go func() {
		uploaded <- p.putImage(l, e.id, e.epoch, from, func(n int, _ *apiv1.PutImageRequest) bool {
			if n == 1 {
				close(sent)
			}
			return true
		})
	}()
	<-sent
	c := e.createCommand()
	l.send(c)
	e.applied(c.Seq)
	if err := <-uploaded; err != nil {
		p.failf("PutImage before the create: %v", err)
	}
	e.completed(e.run(8, 1))
}

func imageAfter(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	p.poll("the create that waits for its image counts as pending in Health", func() bool { return p.pending() > 0 })
	if err := e.upload(from); err != nil {
		p.failf("PutImage after the create: %v", err)
	}
	e.applied(c.Seq)
	e.completed(e.run(8, 1))
}

func createTwice(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	c := e.createCommand()
	l.send(c)
	e.refused("a second create", c.Seq)
	e.completed(e.run(8, 1))
}

func createSeveral(p *probe) {
	l := p.open(deviceName)
	e := p.life(l, p.spec(
		core.BufferSpec{Name: "byte", Size: 1}, core.BufferSpec{Name: cellsName, Size: 32},
		core.BufferSpec{Name: "odd", Size: core.ChunkSize + 1}, core.BufferSpec{Name: "zero", Size: 2 * core.ChunkSize},
	), 1, 0)
	odd := make([]byte, core.ChunkSize+1)
	odd[core.ChunkSize] = 7
	e.create(e.fresh([][]byte{{1}, toBytes(counted(8)), odd, make([]byte, 2*core.ChunkSize)}))
	e.completed(e.run(8, 1))
}

func createEndsEpoch(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	if err := p.putImage(l, e.id, e.epoch, from, func(_ int, m *apiv1.PutImageRequest) bool {
		if m.GetTrailer() != nil {
			m.Trailer.Chunks++
		}
		return true
	}); err == nil {
		p.failf("a damaged image was taken")
	}
	e.refused("a create with a damaged image", c.Seq)
	p.refusedWith("an image for an epoch whose create was refused", e.upload(from), core.ErrStale)
	again := e.createCommand()
	l.send(again)
	next := e.again(l)
	next.create(from)
	next.completed(next.run(8, 1))
	e.none("after the refused create", func(b *core.BackendEvent) bool { return b.Command == again.Seq })
}

func imageAgain(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	const sends = 2
	answers := make(chan error, sends)
	for range sends {
		go func() { answers <- e.upload(from) }()
	}
	// Either is the first; it is refused before the create comes.
	p.refusedWith("an image that was sent again", <-answers, core.ErrStale)
	c := e.createCommand()
	l.send(c)
	if err := <-answers; err != nil {
		p.failf("the image that replaced another one was refused: %v", wire.FromStatus(err))
	}
	e.applied(c.Seq)
	e.completed(e.run(8, 1))
}

// refusedImage uploads a damaged image for a create, which must be refused too.
func refusedImage(p *probe, what string, want []error, damage func(n int, m *apiv1.PutImageRequest) bool) {
	l := p.open(deviceName)
	const cells = core.ChunkSize/4 + 8 // two chunks
	e, from := empty(p, l, cells)
	c := e.createCommand()
	l.send(c)
	err := p.putImage(l, e.id, e.epoch, from, damage)
	if want == nil {
		if err == nil {
			p.failf("%s was taken", what)
		}
	} else {
		p.refusedWith(what, err, want...)
	}
	if got := e.refused("a create with "+what, c.Seq); got.Cause != core.CauseImage {
		p.failf("the create with %s was answered with %s; the cause must be %q", what, tell(&got), core.CauseImage)
	}
}

func imageDamaged(p *probe) {
	refusedImage(p, "an image with a flipped byte", []error{core.ErrCorrupt}, func(n int, m *apiv1.PutImageRequest) bool {
		if n == 2 {
			m.Data = append([]byte{m.GetData()[0] ^ 1}, m.GetData()[1:]...)
		}
		return true
	})
}

func imageTrailer(p *probe) {
	refusedImage(p, "an image with another count in its trailer", []error{core.ErrCorrupt}, func(_ int, m *apiv1.PutImageRequest) bool {
		if m.GetTrailer() != nil {
			m.Trailer.Chunks++
		}
		return true
	})
	refusedImage(p, "an image with another digest in its trailer", []error{core.ErrCorrupt}, func(_ int, m *apiv1.PutImageRequest) bool {
		if m.GetTrailer() != nil {
			m.Trailer.Digest[0] ^= 1
		}
		return true
	})
}

func imageIncomplete(p *probe) {
	refusedImage(p, "an image whose second chunk has no name", []error{core.ErrCorrupt}, func(n int, m *apiv1.PutImageRequest) bool {
		if n == 2 {
			m.Names = nil
		}
		return true
	})
	refusedImage(p, "an image that breaks off", nil, func(n int, _ *apiv1.PutImageRequest) bool { return n < 2 })
}

func imageZero(p *probe) {
	refusedImage(p, "a chunk that is called zero and is not", []error{core.ErrCorrupt}, func(n int, m *apiv1.PutImageRequest) bool {
		if refs := m.GetNames().GetRefs(); n == 1 {
			refs[len(refs)-1] = 1
		}
		return true
	})
}

func imageTarget(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	p.refusedWith("an image for epoch 0", p.putImage(l, e.id, 0, from, nil), core.ErrInvalid)
	p.refusedWith("an image of another entity", p.putImage(l, e.id+1<<32, 1, from, nil), core.ErrInvalid)
}

func imageVersion(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	from.header.Version = core.ImageVersion + 1
	p.refusedWith("an image of a newer format", p.putImage(l, e.id, e.epoch, from, nil), core.ErrCorrupt, core.ErrUnsupported, core.ErrInvalid)
}

func createRefused(p *probe) {
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	c := e.createCommand()
	l.send(c)
	_ = p.putImage(l, e.id, e.epoch, from, func(_ int, m *apiv1.PutImageRequest) bool {
		if m.GetTrailer() != nil {
			m.Trailer.Chunks++
		}
		return true
	})
	e.refused("a create with a damaged image", c.Seq)
	next := e.again(l)
	next.create(from)
	next.completed(next.run(8, 1))
}

func uploadAside(p *probe) {
	l := p.open(deviceName)
	const cells = core.ChunkSize // four chunks
	waits, from := empty(p, l, cells)
	c := waits.createCommand()
	l.send(c)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	waits.stalled(ctx, from, 2)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
	cancel()
	waits.refused("a create whose image broke off", c.Seq)
}

func commandsWait(p *probe) {
	l := p.open(deviceName)
	p.load(l)
	e, from := empty(p, l, 8)
	create, run := e.createCommand(), e.mix(8, 1)
	l.send(create, run)
	if err := e.upload(from); err != nil {
		p.failf("PutImage: %v", err)
	}
	e.applied(create.Seq)
	e.completed(run.Job)
	if own := e.own(); own[0].Kind != core.EventApplied {
		p.failf("before the answer to create came %s", tell(&own[0]))
	}
}

func kernelAside(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	p.load(l)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stream, err := p.in.client.PutKernel(ctx)
	if err != nil {
		p.failf("PutKernel: %v", err)
	}
	code := make([]byte, 64)
	h := p.kernelHeader(l, core.Kernel{Format: p.kit.kernel.Format, Code: code, Digest: core.DigestOf(code)})
	_ = stream.Send(&apiv1.PutKernelRequest{Header: h, Code: code[:1]})
	e.completed(e.run(8, 1))
}

// specificationTaken creates entities of every kind.
func specificationTaken(p *probe) {
	l := p.open(deviceName)
	long := strings.Repeat("\u00e9", wire.NameMax/2)
	for _, mode := range []core.Mode{core.ModeCompute, core.ModeLongRunning} {
		for _, priority := range []core.Priority{core.PriorityLow, core.PriorityNormal, core.PriorityHigh} {
			e, from := empty(p, l, 8)
			e.spec.Mode, e.spec.OnFailure = mode, core.OnFailureContinue
			e.spec.Properties = core.Properties{Priority: priority, Checkpoint: time.Hour}
			e.spec.Name, e.spec.Identity = long, core.DigestOf([]byte(long))
			e.create(from)
			c := e.mix(8, 1)
			c.JobSpec.Name, c.JobSpec.Timeout, c.JobSpec.Flush, c.JobSpec.After = long, time.Hour, true, []core.JobID{1, 1 << 60}
			l.send(c)
			e.completed(c.Job)
			e.destroy()
		}
	}
}

// tooMuchMemory leaves the image unsent: nobody shall wait for it.
func tooMuchMemory(p *probe) {
	most := p.kit.device.MemoryMax
	if most == 0 || most >= wire.BufferMax {
		p.skipf("the device declares no bound of memory")
	}
	l := p.open(deviceName)
	e := p.life(l, p.spec(core.BufferSpec{Name: "huge", Size: most + 1}), 1, 0)
	c := e.createCommand()
	l.send(c)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	stream, err := p.in.client.PutImage(ctx)
	if err != nil {
		p.failf("PutImage: %v", err)
	}
	header, err := wire.FromImageHeader(e.fresh(nil).header)
	if err != nil {
		panic(err) // a slip of the kit
	}
	_ = stream.Send(&apiv1.PutImageRequest{Header: header, Target: &apiv1.ImageTarget{
		Device: l.device, Session: uint64(l.number), Entity: uint64(e.id), Epoch: uint64(e.epoch),
	}})
	e.refused("a create with more memory than the device has", c.Seq)
}

func tooManyWaiting(p *probe) {
	const slack = 256
	l := p.open(deviceName)
	e, from := empty(p, l, 8)
	create := e.createCommand()
	l.send(create)
	var cancels []core.Command
	for range 2*l.describe().Credits + slack + 1 {
		c := e.command(core.CommandCancel)
		c.Job = 1
		cancels = append(cancels, c)
	}
	l.send(cancels...)
	p.refusedWith("one command of an entity more than may wait", l.broken("one command of an entity more than may wait"), core.ErrFull)
	e.on(p.open(deviceName))
	if err := e.upload(from); err != nil {
		p.failf("PutImage after a session that was full: %v", err)
	}
	e.applied(create.Seq)
}
