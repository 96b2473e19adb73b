package plugintest

import (
	"encoding/binary"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// malformed is one way in which a batch of commands breaks its format.
type malformed struct {
	name, doc string
	make      func(e *life) []byte
}

// packed encodes commands; what the encoder does not check may be wrong in them.
func packed(commands ...core.Command) []byte {
	var b wire.CommandBatch
	for i := range commands {
		if err := b.Append(&commands[i]); err != nil {
			panic(err) // a slip of the kit
		}
	}
	return b.Body()
}

// changed is a batch of one run that was altered before it was packed.
func changed(change func(c *core.Command)) func(*life) []byte {
	return func(e *life) []byte {
		c := e.mix(8, 1)
		spec := *c.JobSpec
		c.JobSpec = &spec
		change(&c)
		return packed(c)
	}
}

// head packs the count of a batch and the beginning of its first command.
func head(count uint64, kind byte, e *life) []byte {
	b := binary.AppendUvarint(nil, count)
	b = append(b, kind)
	for _, v := range []uint64{uint64(e.id), uint64(e.epoch), uint64(e.seq + 1)} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

var malformations = []malformed{
	{"nothing", "a count of 0", func(*life) []byte { return []byte{0} }},
	{"too-many", "more than 256 commands", func(e *life) []byte {
		b := binary.AppendUvarint(nil, wire.BatchCount+1)
		one := head(1, byte(core.CommandDestroy), e)[1:]
		for range wire.BatchCount + 1 {
			b = append(b, one...)
		}
		return b
	}},
	{"cut-off", "bytes that are missing at its end", func(e *life) []byte { b := packed(e.mix(8, 1)); return b[:len(b)-1] }},
	{"goes-on", "bytes that are left over", func(e *life) []byte { return append(packed(e.mix(8, 1)), 0) }},
	{"unknown-kind", "a command of an unknown kind", func(e *life) []byte { return head(1, 15, e) }},
	{"reference-to-nothing", "a first command that refers to the one before it", func(*life) []byte { return []byte{1, byte(core.CommandDestroy) | 0x10} }},
	{"job-like-no-other", "a first run whose specification is that of the last run", func(e *life) []byte {
		return append(head(1, byte(core.CommandRun)|0x20|0x80, e), 9, 9, 1, 'j')
	}},
	{"flags-of-a-run", "a cancel with the flags of a run", func(e *life) []byte { return append(head(1, byte(core.CommandCancel)|0x80, e), 1) }},
	{"entity-0", "an entity 0", changed(func(c *core.Command) { c.Entity = 0 })},
	{"epoch-0", "an epoch 0", changed(func(c *core.Command) { c.Epoch = 0 })},
	{"sequence-0", "a sequence number 0", changed(func(c *core.Command) { c.Seq = 0 })},
	{"job-0", "a job 0", changed(func(c *core.Command) { c.Job = 0 })},
	{"text", "a name that is not UTF-8", changed(func(c *core.Command) { c.JobSpec.Name = "\xff" })},
	{"grid-0", "a grid without workgroups", changed(func(c *core.Command) { c.JobSpec.Grid[1] = 0 })},
	{"grid-overflow", "a grid of more workgroups than can be counted", changed(func(c *core.Command) {
		c.JobSpec.Grid = [3]uint32{1<<32 - 1, 1<<32 - 1, 1<<32 - 1}
	})},
	{"credits-0", "a job without credits", changed(func(c *core.Command) { c.JobSpec.Credits = 0 })},
	{"first-beyond-grid", "a first workgroup beyond the grid", changed(func(c *core.Command) { c.First = 9 })},
	{"long-number", "a number of more than 64 bits", func(e *life) []byte {
		b := binary.AppendUvarint(nil, 1)
		b = append(b, byte(core.CommandDestroy))
		return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 1)
	}},
	{"long-text", "a name of more than 1024 bytes", changed(func(c *core.Command) {
		c.JobSpec.Name = string(make([]byte, wire.NameMax+1))
	})},
	{"huge-length", "a length beyond the end", func(e *life) []byte {
		b := append(head(1, byte(core.CommandMessage), e), byte(core.MessageBarrier), 0, 0)
		return binary.AppendUvarint(b, 1<<62)
	}},
	{"specification", "an entity's specification that is none", func(e *life) []byte {
		return append(head(1, byte(core.CommandCreate), e), 1, 3, 0xff, 0xff, 0xff)
	}},
}

// malformedChecks: each ends the session with an error, and nothing else.
var malformedChecks = func() []check {
	var list []check
	for _, m := range malformations {
		list = append(list, check{
			name: "malformed-" + m.name, level: core.LevelJobs, run: m.check,
			doc: "a batch with " + m.doc + " ends the session with an error; the process and the entity live",
		})
	}
	return list
}()

func (m malformed) check(p *probe) {
	l := p.open(deviceName)
	e := p.entity(l, 8)
	bad := m.make(e)
	l.raw(bad)
	what := "a batch with " + m.doc
	err := l.broken(what)
	if err == nil {
		p.failf("%s ended the session without an error", what)
	}
	p.refusedWith(what, err, core.ErrCorrupt, core.ErrInvalid)
	p.alive(what)
	e.on(p.open(deviceName))
	e.seq++ // what was malformed may have been counted
	e.completed(e.run(8, 2))
}
