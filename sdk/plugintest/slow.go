package plugintest

import (
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

const (
	// slowTime is what one workgroup of a calibrated job takes.
	slowTime = 3 * time.Millisecond
	// calibrated is how many workgroups are measured, and for how long at least.
	calibrateGroups = 8
	calibrateTime   = 8 * time.Millisecond
	spinFirst       = 1 << 10
	spinMax         = 1 << 31
	// spinGrowth is by how much it grows while the measure is too short.
	spinGrowth = 8
	// middleGroups is the length of a job that is caught in the middle and then goes
	// on to its end; catches is how often it is tried.
	middleGroups = 48
	catches      = 5
	// foreverGroups is a job that is ended before its end.
	foreverGroups = 1 << 16
)

// spin measures once how many rounds of the entry slow take slowTime.
func (p *probe) spin() uint32 {
	if p.kit.spin != 0 {
		return p.kit.spin
	}
	l := p.present()
	e := p.entity(l, calibrateGroups)
	// What a first job pays for once is not the measure of its rounds.
	warm := e.job("slow", [3]uint32{calibrateGroups, 1, 1}, buffer(cellsName), u32(1), u32(1))
	e.l.send(warm)
	e.completed(warm.Job)
	for spin := uint64(spinFirst); spin < spinMax; spin *= spinGrowth {
		c := e.job("slow", [3]uint32{calibrateGroups, 1, 1}, buffer(cellsName), u32(1), u32(uint32(spin)))
		e.l.send(c)
		e.started(c.Job)
		began := time.Now()
		e.completed(c.Job)
		if took := time.Since(began); took >= calibrateTime {
			p.kit.spin = uint32(min(max(spin*uint64(slowTime)*calibrateGroups/uint64(took), 1), spinMax))
			e.destroy()
			return p.kit.spin
		}
	}
	p.failf("the entry slow takes no longer with %d rounds than with %d: nothing can be caught in the middle", uint64(spinMax), spinFirst)
	return 0
}

// present is the newest session of the check, opened if there is none.
func (p *probe) present() *line {
	for _, l := range slices.Backward(p.lines) {
		if !l.left && l.in == p.in && l.device == deviceName {
			return l
		}
	}
	return p.open(deviceName)
}

// slow is a run of the entry slow over n workgroups.
func (e *life) slow(n int, seed uint32) core.Command {
	spin := e.p.spin()
	return e.job("slow", [3]uint32{uint32(n), 1, 1}, buffer(cellsName), u32(seed), u32(spin))
}

// forever starts a job that does not end by itself while the check lasts, and
// returns when it has started.
func (e *life) forever(seed uint32) core.JobID {
	c := e.slow(foreverGroups, seed)
	e.l.send(c)
	e.started(c.Job)
	return c.Job
}

// caught is a job that was suspended between its first and its last workgroup.
type caught struct {
	*life
	run   core.Command
	image picture
	// before are the cells before the job, cursor how many workgroups are done.
	before []uint32
	cursor uint64
	// executed is how many workgroups the engine ran for it so far.
	executed uint64
	seed     uint32
}

// catch suspends an entity in the middle of a job. The kit may be too slow for that
// once; then it takes a longer job.
func (p *probe) catch(l *line) caught {
	for try, groups := 0, middleGroups; try < catches; try, groups = try+1, groups*2 {
		c := caught{before: counted(groups), seed: 77}
		c.life = p.filled(l, c.before)
		c.run = c.slow(groups, c.seed)
		l.send(c.run)
		c.started(c.run.Job)
		c.suspend()
		c.image = c.life.image()
		for _, j := range c.image.header.Jobs {
			if j.Job == c.run.Job {
				c.cursor, c.executed = j.Cursor, j.Executed
				if c.cursor < uint64(groups) {
					return c
				}
			}
		}
		c.destroy()
	}
	p.failf("no job could be caught in the middle, the longest had %d workgroups", middleGroups<<(catches-1))
	return caught{}
}

// after are the cells once the job has completed.
func (c *caught) after() []uint32 { return mixed(c.before, c.seed, 0, uint64(len(c.before))) }

// rest is the run command of the job from its cursor on, for a life.
func (c *caught) rest(e *life) core.Command {
	run := e.command(core.CommandRun)
	run.Job, run.JobSpec, run.First = c.run.Job, c.run.JobSpec, c.cursor
	return run
}

// same fails unless cells are what they must be.
func (p *probe) same(when string, got, want []uint32) {
	if len(got) != len(want) {
		p.failf("%s the buffer has %d cells; it must have %d", when, len(got), len(want))
	}
	wrong, first := 0, -1
	for i := range got {
		if got[i] != want[i] {
			if wrong++; first < 0 {
				first = i
			}
		}
	}
	if wrong > 0 {
		p.failf("%s %d of %d cells are wrong, the first is cell %d: %s", when, wrong, len(want), first, fmt.Sprintf("%#x, want %#x", got[first], want[first]))
	}
}
