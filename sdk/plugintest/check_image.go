package plugintest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var imageChecks = []check{
	{name: "image-needs-a-suspended-entity", level: core.LevelImages, run: imageNeedsSuspended,
		doc: "GetImage of an entity that is not suspended is refused as invalid"},
	{name: "image-needs-an-entity", level: core.LevelImages, run: imageNeedsEntity,
		doc: "GetImage of an unknown entity is refused as not found, of another epoch as stale"},
	{name: "image-of-a-lost-entity", level: core.LevelImages, run: imageOfLost,
		doc: "an entity that was lost is not saved: GetImage is refused as gone"},
	{name: "image-describes-its-entity", level: core.LevelImages, run: imageDescribes,
		doc: "an image has version 1, its entity, the entity's buffers in order, and the backend's name"},
	{name: "image-lists-unfinished-jobs", level: core.LevelImages, run: imageLists,
		doc: "an image lists the jobs in the ring, each once, with cursor and counts, and no others"},
	{name: "image-cursor-is-a-prefix", level: core.LevelImages, run: imagePrefix,
		doc: "the workgroups below a job's cursor are done, the others have left no trace"},
	{name: "image-names-are-in-order", level: core.LevelImages, run: imageAbout(aboutNames, aboutOrder),
		doc: "chunks are named in windows of 1 to 16, each once, in buffer order, then index order"},
	{name: "image-bytes-match-their-digests", level: core.LevelImages, run: imageAbout(aboutBytes),
		doc: "the bytes of every chunk are those of its digest"},
	{name: "image-trailer-matches", level: core.LevelImages, run: imageAbout(aboutTrailer),
		doc: "the trailer has the count of the chunks and the digest over their names"},
	{name: "image-comes-to-its-end", level: core.LevelImages, run: imageAbout(aboutEnd),
		doc: "an image has all its chunks and its trailer, and the call ends without an error"},
	{name: "image-holds-the-buffers", level: core.LevelImages, run: imageHolds,
		doc: "an image has the bytes that were uploaded, of buffers that no job wrote to"},
	{name: "image-sends-what-is-wanted", level: core.LevelImages, run: imageWanted,
		doc: "only the chunks that the host wants are sent"},
	{name: "image-repeats", level: core.LevelImages, run: imageRepeats,
		doc: "an image of a suspended entity can be taken again, and is the same"},
	{name: "image-broken-off-by-the-host", level: core.LevelImages, run: imageBrokenOff,
		doc: "a host that breaks off an image leaves the entity as it was"},
	{name: "image-does-not-delay-control", level: core.LevelImages, run: imageAside,
		doc: "while an image stalls, commands of other entities are carried out"},
	{name: "image-with-a-wrong-answer", level: core.LevelImages, run: imageWrongAnswer,
		doc: "an answer for another number of chunks ends the image with an error"},
	{name: "image-restores", level: core.LevelImages, run: imageRestores,
		doc: "an entity that is created from its own image in a later epoch continues, with the same output"},
	{name: "image-restores-an-idle-entity", level: core.LevelImages, run: imageRestoresIdle,
		doc: "an image without unfinished jobs restores the buffers"},
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

func imageNeedsSuspended(p *probe) {
	e := p.entity(p.open(deviceName), 8)
	_, err := e.tryImage(nil)
	p.refusedWith("GetImage of an entity that runs", err, core.ErrInvalid)
	e.suspend()
	e.image()
	e.resume()
	_, err = e.tryImage(nil)
	p.refusedWith("GetImage of a resumed entity", err, core.ErrInvalid)
}

func imageNeedsEntity(p *probe) {
	l := p.open(deviceName)
	_, err := p.getImage(l, uint64(l.number), 1<<40, 1, nil)
	p.refusedWith("GetImage of an unknown entity", err, core.ErrNotFound)
	e := p.entity(l, 8)
	e.suspend()
	_, err = p.getImage(l, uint64(l.number), e.id, e.epoch+1, nil)
	p.refusedWith("GetImage of another epoch", err, core.ErrStale)
}

func imageOfLost(p *probe) {
	e := p.entity(p.open(deviceName), 16)
	trapped(p, e)
	_, err := e.tryImage(nil)
	p.refusedWith("GetImage of a lost entity", err, core.ErrGone)
}

func imageDescribes(p *probe) {
	c := p.catch(p.open(deviceName))
	h := c.image.header
	switch {
	case h.Version != core.ImageVersion, h.Entity != c.id:
		p.failf("it has version %d and entity %d; it must be %d and %d", h.Version, h.Entity, core.ImageVersion, c.id)
	case !slices.Equal(h.Buffers, c.spec.Buffers):
		p.failf("it has the buffers %v; the entity has %v", h.Buffers, c.spec.Buffers)
	case h.Backend != p.kit.description.Name:
		p.failf("it is of backend %q; this is %q", h.Backend, p.kit.description.Name)
	}
}

func imageLists(p *probe) {
	l := p.open(deviceName)
	c := p.catch(l)
	waits := c.life.run(8, 1)
	c.barrier()
	jobs := c.life.image().header.Jobs
	if len(jobs) != 2 || jobs[0].Job != c.run.Job || jobs[1].Job != waits {
		p.failf("it lists %v; in the ring are jobs %d and %d", jobs, c.run.Job, waits)
	}
	if j := jobs[0]; j.Executed != j.Cursor || j.Executed == 0 {
		p.failf("job %d ran from workgroup 0 to %d, and %d were executed", j.Job, j.Cursor, j.Executed)
	}
	if j := jobs[1]; j.Cursor != 0 || j.Executed != 0 {
		p.failf("job %d has not started, and its cursor is %d, with %d executed", j.Job, j.Cursor, j.Executed)
	}
	c.resume()
	c.completed(waits)
	c.suspend()
	if left := c.life.image().header.Jobs; len(left) != 0 {
		p.failf("after the end of all jobs it lists %v", left)
	}
}

func imagePrefix(p *probe) {
	c := p.catch(p.open(deviceName))
	p.same("with the cursor at "+itoa(c.cursor), toCells(c.image.buffers[0]), mixed(c.before, c.seed, 0, c.cursor))
}

// largeChunks is more than two windows.
const largeChunks = 2*wire.WindowChunks + 4

// large creates an entity with a buffer of many chunks, some of them zero, and a
// small one, and returns what is in them.
func large(p *probe, l *line) (*life, [][]byte) {
	big := make([]byte, largeChunks*core.ChunkSize-77)
	random := rand.NewChaCha8([32]byte{4})
	_, _ = random.Read(big)
	clear(big[3*core.ChunkSize : 6*core.ChunkSize])
	content := [][]byte{big, toBytes(counted(8)), {1, 2, 3}}
	e := p.life(l, p.spec(
		core.BufferSpec{Name: "big", Size: uint64(len(big))}, core.BufferSpec{Name: cellsName, Size: 32}, core.BufferSpec{Name: "three", Size: 3},
	), 1, 0)
	e.create(e.fresh(content))
	return e, content
}

// imageAbout looks at some faults of a large image.
func imageAbout(about ...string) func(*probe) {
	return func(p *probe) {
		e, _ := large(p, p.open(deviceName))
		e.suspend()
		i, err := e.tryImage(nil)
		if err != nil {
			p.failf("GetImage: %v", err)
		}
		for _, what := range about {
			if what != aboutEnd && i.faults[aboutEnd] != "" {
				p.skipf("the image does not come to its end: %s", i.faults[aboutEnd])
			}
			if fault := i.faults[what]; fault != "" {
				p.failf("%s", fault)
			}
		}
	}
}

func imageHolds(p *probe) {
	e, content := large(p, p.open(deviceName))
	e.completed(e.run(8, 1))
	e.suspend()
	i, err := e.tryImage(nil)
	if err != nil {
		p.failf("GetImage: %v", err)
	}
	content[1] = toBytes(mixed(toCells(content[1]), 1, 0, 8))
	for n, b := range e.spec.Buffers {
		got, want := i.buffers[n], content[n]
		for at := 0; at < len(want) && at < len(got); at += core.ChunkSize {
			// Whether bytes are those of their digest is another check's.
			if end := min(at+core.ChunkSize, len(want)); i.faults[aboutBytes] == "" && !slices.Equal(got[at:min(end, len(got))], want[at:end]) {
				p.failf("buffer %s differs from what it must hold after byte %d", b.Name, at)
			}
		}
	}
}

func imageWanted(p *probe) {
	e, _ := large(p, p.open(deviceName))
	e.suspend()
	wanted := 0
	i, err := e.tryImage(func(n int) bool {
		if n%5 == 0 {
			wanted++
		}
		return n%5 == 0
	})
	if err != nil {
		p.failf("GetImage: %v", err)
	}
	if i.faults[aboutNames] != "" || i.sent != wanted {
		p.failf("%d chunks were wanted and %d came; %s", wanted, i.sent, i.faults[aboutNames])
	}
}

func imageRepeats(p *probe) {
	c := p.catch(p.open(deviceName))
	again := c.life.image()
	if !slices.Equal(again.header.Jobs, c.image.header.Jobs) {
		p.failf("the first lists the jobs %v, the second %v", c.image.header.Jobs, again.header.Jobs)
	}
	p.same("in the second image", toCells(again.buffers[0]), toCells(c.image.buffers[0]))
}

// begun opens a GetImage call and returns it after its header and first window.
func begun(ctx context.Context, e *life) apiv1.Backend_GetImageClient {
	stream, err := e.l.in.client.GetImage(ctx)
	if err == nil {
		_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{
			Device: e.l.device, Session: uint64(e.l.number), Entity: uint64(e.id), Epoch: uint64(e.epoch),
		}})
		for range 2 {
			if err == nil {
				_, err = stream.Recv()
			}
		}
	}
	if err != nil {
		e.p.failf("GetImage: %v", err)
	}
	return stream
}

func imageBrokenOff(p *probe) {
	e, content := large(p, p.open(deviceName))
	e.suspend()
	ctx, cancel := context.WithCancel(p.ctx)
	begun(ctx, e)
	cancel()
	e.resume()
	e.completed(e.run(8, 1))
	e.suspend()
	p.same("after an image that the host broke off", toCells(e.smallImage().buffers[1]), mixed(toCells(content[1]), 1, 0, 8))
}

// smallImage is an image of a large entity of which only the small buffers are wanted.
func (e *life) smallImage() picture {
	i, err := e.tryImage(func(n int) bool { return n >= largeChunks })
	if err != nil {
		e.p.failf("GetImage: %v", err)
	}
	return i
}

func imageAside(p *probe) {
	l := p.open(deviceName)
	e, _ := large(p, l)
	other := p.entity(l, 8)
	e.suspend()
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	begun(ctx, e)
	other.completed(other.run(8, 1))
	other.suspend()
	other.image()
	cancel()
	e.resume()
}

func imageWrongAnswer(p *probe) {
	e, _ := large(p, p.open(deviceName))
	e.suspend()
	ctx, cancel := p.bound()
	defer cancel()
	stream := begun(ctx, e)
	_ = stream.Send(&apiv1.GetImageRequest{Want: []byte{1}})
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	p.refusedWith("an answer for one chunk of a window", err, core.ErrCorrupt, core.ErrInvalid)
	e.resume()
	e.completed(e.run(8, 1))
}

// restored destroys a caught entity and continues it in a later epoch from an image.
func (c *caught) restored(p *probe, l *line, from picture) {
	if !c.over && c.l.in == l.in {
		c.destroy()
	}
	next := c.again(l)
	next.create(from)
	run := c.rest(next)
	p.load(l)
	l.send(run)
	groups := uint64(len(c.before))
	if got := next.completed(run.Job); got.Done != groups || got.Executed != groups-c.cursor {
		p.failf("continued at workgroup %d of %d, the job completed with %d done and %d executed", c.cursor, groups, got.Done, got.Executed)
	}
	next.suspend()
	p.same("after the job was continued at workgroup "+itoa(c.cursor), next.cells(), c.after())
	next.resume()
}

func imageRestores(p *probe) {
	l := p.open(deviceName)
	c := p.catch(l)
	c.restored(p, l, c.image)
}

func imageRestoresIdle(p *probe) {
	l := p.open(deviceName)
	before := counted(8)
	e := p.filled(l, before)
	e.completed(e.run(8, 1))
	e.suspend()
	from := e.image()
	e.destroy()
	next := e.again(l)
	next.create(from)
	next.completed(next.run(8, 2))
	next.suspend()
	p.same("after a restore and one more job", next.cells(), mixed(mixed(before, 1, 0, 8), 2, 0, 8))
}
