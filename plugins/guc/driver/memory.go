package driver

import (
	"errors"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/host"
)

// placement is all the device memory of one entity.
type placement struct {
	buffers []host.Buffer
	// lrc and table lie in the GGTT, slots holds the dispatch descriptors; 0 before the first job.
	lrc, table, slots uint64
}

// lay allocates what an entity's jobs need, and writes its address space table.
// Errors wrap core.ErrFull; nothing of it stays allocated then.
func (d *Driver) lay(p *placement) (err error) {
	laid := placement{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.unplace(laid))
		}
	}()
	size := uint64(d.config.Credits) * host.SlotSize
	if laid.lrc, err = d.memory.Low(abi.LRCSize, "LRC"); err != nil {
		return err
	}
	if laid.slots, err = d.memory.High(size, "dispatch descriptors"); err != nil {
		return err
	}
	if laid.table, err = d.memory.Map(p.buffers, laid.slots, size); err != nil {
		return err
	}
	p.lrc, p.table, p.slots = laid.lrc, laid.table, laid.slots
	return nil
}

// unplace frees the memory of an entity. The firmware must not know any of it any more.
func (d *Driver) unplace(p placement) error {
	return errors.Join(d.memory.FreeLow(p.lrc), d.memory.FreeLow(p.table), d.memory.FreeHigh(p.slots), d.memory.Unplace(p.buffers))
}
