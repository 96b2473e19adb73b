package driver

import (
	"github.com/gpuwm/gpuwm/plugins/agx/abi"
)

// private is the memory that the firmware caches. What is freed there may still be in
// its cache, so it becomes garbage, and is used again only after a
// DestroyContext that was sent later has been consumed.
type private struct {
	// blocks are free command blocks.
	blocks  []uint64
	garbage []garbage
	// count is how many blocks there are, shares how many queues rely on one of them.
	count, shares uint64
	// objects and bytes are those of the garbage.
	objects, bytes uint64
	flushing       bool
	// flushes counts the flushes that only flush.
	flushes uint64
}

// garbage is one freed piece.
type garbage struct {
	address, size uint64
	// block says that it is a command block, otherwise it goes back to the allocator.
	block bool
}

// A command block holds the two objects of a command: RunCompute, and its microsequence.
const (
	blockSize      = 0x800
	sequenceOffset = 0x400
	blockObjects   = 2
	slabSize       = 64 << 10
)

// blocksBeside is what there is beside one block of each queue, which the firmware may touch once more: the next
// command has one then, at the latest after a flush.
const blocksBeside = 1

// reserveBlocks makes sure that one more queue comes on. Errors wrap core.ErrFull.
func (d *Driver) reserveBlocks() error {
	p := &d.private
	for p.count < p.shares+1+blocksBeside {
		if err := d.addBlocks(); err != nil {
			return err
		}
	}
	p.shares++
	return nil
}

// addBlocks makes new command blocks. Errors wrap core.ErrFull.
func (d *Driver) addBlocks() error {
	p := &d.private
	slab, err := d.memory.Low(slabSize, "commands")
	if err != nil {
		return err
	}
	for at := uint64(slabSize); at > 0; at -= blockSize {
		p.blocks = append(p.blocks, slab+at-blockSize)
		p.count++
	}
	return nil
}

// takeBlock returns a free command block. Errors wrap core.ErrFull; a flush is under way then.
func (d *Driver) takeBlock() (uint64, error) {
	p := &d.private
	if len(p.blocks) == 0 {
		if err := d.addBlocks(); err != nil {
			d.flushPrivate()
			return 0, err
		}
	}
	block := p.blocks[len(p.blocks)-1]
	p.blocks = p.blocks[:len(p.blocks)-1]
	return block, nil
}

// discard makes pieces garbage.
func (d *Driver) discard(pieces ...garbage) {
	p := &d.private
	for _, g := range pieces {
		p.garbage = append(p.garbage, g)
		p.bytes += g.size
		p.objects++
		if g.block {
			p.objects += blockObjects - 1
		}
	}
}

// dropBlock frees a command block; too much garbage makes the driver flush.
func (d *Driver) dropBlock(block uint64) {
	p := &d.private
	d.discard(garbage{block, blockSize, true})
	if p.objects >= d.config.GarbageObjects || p.bytes >= d.config.GarbageBytes {
		d.flushPrivate()
	}
}

// flushPrivate makes the firmware drop its cache.
func (d *Driver) flushPrivate() {
	p := &d.private
	if p.flushing || len(p.garbage) == 0 || d.loop.Failure() != nil {
		return
	}
	p.flushing = true
	p.flushes++
	collect := d.collector()
	d.control(abi.Flush(), func() {
		p.flushing = false
		collect()
	})
}

// collector returns what makes all present garbage usable again; it is called once a
// DestroyContext that was sent after this has been consumed.
func (d *Driver) collector() func() {
	p := &d.private
	taken := p.garbage
	p.garbage, p.objects, p.bytes = nil, 0, 0
	return func() {
		for _, g := range taken {
			if g.block {
				p.blocks = append(p.blocks, g.address)
			} else if err := d.memory.FreeLow(g.address); err != nil {
				d.log.Error("device memory leaked", "error", err)
			}
		}
	}
}
