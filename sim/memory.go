package sim

import (
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// memory is what an entity's buffers stand for: who wrote to them, how many
// workgroups, in the order of the writing.
type memory []written

type written struct {
	job core.JobID
	seq core.JobSeq
	n   uint64
}

func (m memory) clone() memory { return slices.Clone(m) }

// of returns how many workgroups of a job were written.
func (m memory) of(id core.JobID) uint64 {
	for _, e := range m {
		if e.job == id {
			return e.n
		}
	}
	return 0
}

// add writes n workgroups, and reports whether their turn has come: nothing
// later was written, and no more than the job has.
func (m *memory) add(spec *core.JobSpec, n uint64) bool {
	if last := len(*m) - 1; last >= 0 {
		e := &(*m)[last]
		if e.job == spec.ID {
			e.n += n
			return e.n <= spec.Workgroups()
		}
		if e.seq >= spec.Seq {
			return false
		}
	}
	*m = append(*m, written{spec.ID, spec.Seq, n})
	return n <= spec.Workgroups()
}
