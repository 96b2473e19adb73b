package agx

import (
	"errors"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/agx/driver"
	"github.com/gpuwm/gpuwm/plugins/rig"
	"github.com/gpuwm/gpuwm/sdk"
)

// small is an entity without buffers, whose jobs are counted.
type small struct {
	rig.Entity
	given, ended int
}

func (s *small) Started(core.JobID)              {}
func (s *small) Completed(core.JobID, sdk.Usage) { s.ended++ }
func (s *small) Cancelled(core.JobID, sdk.Usage) {}
func (s *small) Lost(bool, core.JobID, sdk.Usage, core.Cause, string) {
	s.ended = -1
}

// smalls are many of them.
type smalls struct {
	w    *world
	list []*small
	jobs core.JobID
}

func (m *smalls) create() *small {
	s := &small{}
	m.list = append(m.list, s)
	spec := &core.EntitySpec{ID: core.EntityID(len(m.list)), Name: "e", Mode: core.ModeLongRunning, Properties: core.Properties{Priority: core.PriorityNormal}}
	made, err := m.w.driver.Create(background, spec, rig.Zeroes(nil), s)
	m.w.OK(err)
	s.Entity = made.(rig.Entity)
	return s
}

func (m *smalls) run(s *small) error {
	m.jobs++
	j := m.w.Job(m.jobs, 3, "workgroup=100us")
	j.Spec.Args = nil
	err := s.Run(background, j)
	if err == nil {
		s.given++
	}
	return err
}

func (m *smalls) over() bool {
	for _, s := range m.list {
		if s.given != s.ended {
			return false
		}
	}
	return true
}

// TestMemoryRunsOut: an entity takes all the memory that its work needs when its first job is accepted, so that one too many
// is refused and nobody else notices; and little of it, because rings are shallow.
func TestMemoryRunsOut(t *testing.T) {
	w := testWorld(t, setup{arena: 64 << 20, driver: func(c *driver.Config) { c.EventSlots, c.VMSlots, c.GarbageObjects = 5, 4, 1<<20 }})
	w.Light = true
	before, m := w.driver.State(), &smalls{w: w}
	w.Still = true
	var last *small
	for {
		last = m.create()
		if err := m.run(last); errors.Is(err, core.ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if len(m.list) < 300 {
		t.Errorf("no memory for the work of entity %d", len(m.list))
	}
	w.Still = false
	w.Until("all jobs", m.over)
	for _, s := range m.list {
		w.OK(s.SetProperties(background, core.Properties{Priority: core.PriorityHigh}))
		for range 3 {
			if s != last {
				w.OK(m.run(s))
			}
		}
	}
	w.Until("all jobs again", m.over)
	if err := m.run(last); !errors.Is(err, core.ErrFull) {
		t.Errorf("the last one: %v", err)
	}
	for _, s := range m.list[:2] {
		w.OK(s.Destroy(background))
	}
	w.OK(m.run(last))
	w.Until("the last job", m.over)
	for _, s := range m.list {
		w.OK(s.Destroy(background))
	}
	w.law.quiet()
	if after := w.driver.State(); after.High != before.High || after.Low+64<<10 < before.Low {
		t.Errorf("memory is gone: %+v, was %+v", after, before)
	}
}
