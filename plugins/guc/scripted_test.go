package guc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	testengine "github.com/gpuwm/gpuwm/plugins/engine/test"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// scripted is an engine in virtual time. A kernel is a text such as
// `workgroup=1ms trap=7`: every workgroup takes that long and adds its hash to
// a word of the first buffer; trap and hang name a workgroup that misbehaves,
// broken one at which the engine itself fails; stuck says that a hanging one can't be aborted.
// `trap at 7`, as the test engine has it, is the same.
type scripted struct {
	clock *hw.VirtualClock
	// executed counts the workgroups run, by job.
	executed map[core.JobID]uint64
}

func newScripted(clock *hw.VirtualClock) *scripted {
	return &scripted{clock: clock, executed: map[core.JobID]uint64{}}
}

func (s *scripted) Name() string                    { return "scripted" }
func (s *scripted) Formats() []string               { return []string{testengine.Format} }
func (s *scripted) Check(core.Kernel, string) error { return nil }
func (s *scripted) Forget(uint64)                   {}
func (s *scripted) Close() error                    { return nil }

func (s *scripted) Start(d engine.Dispatch, notify func()) (engine.Execution, error) {
	x := &scriptRun{engine: s, dispatch: d, notify: notify, begun: s.clock.Now(), trap: -1, hang: -1, broken: -1}
	for _, field := range strings.Fields(strings.ReplaceAll(string(d.Kernel.Code), " at ", "=")) {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "workgroup":
			x.each, _ = time.ParseDuration(value)
		case "trap":
			x.trap, _ = strconv.ParseInt(value, 10, 64)
		case "hang":
			x.hang, _ = strconv.ParseInt(value, 10, 64)
		case "broken":
			x.broken, _ = strconv.ParseInt(value, 10, 64)
		case "stuck":
			x.stuck = true
		default:
			return nil, &core.FaultError{Cause: core.CauseKernel, Detail: "no script: " + field}
		}
	}
	s.clock.AfterFunc(x.each, x.step)
	return x, nil
}

type scriptRun struct {
	engine      *scripted
	dispatch    engine.Dispatch
	notify      func()
	begun       time.Duration
	each        time.Duration
	trap, hang  int64
	broken      int64
	stuck       bool
	done        uint64
	stop, ended bool
	err         error
	took        time.Duration
}

// step ends one workgroup.
func (x *scriptRun) step() {
	at := int64(x.dispatch.First + x.done)
	switch {
	case x.ended || at == x.hang:
		return
	case at == x.trap:
		x.end(&core.FaultError{Cause: core.CauseTrap, Detail: fmt.Sprintf("trap in workgroup %d", at)})
		return
	case at == x.broken:
		x.end(errors.New("no memory"))
		return
	}
	mixInto(x.dispatch.Segments[0].Bytes, x.dispatch.Job, uint64(at))
	x.engine.executed[x.dispatch.Job]++
	x.done++
	if x.done == x.dispatch.Count || x.stop {
		x.end(nil)
		return
	}
	x.engine.clock.AfterFunc(x.each, x.step)
}

// mixInto is what one workgroup computes: not commutative within a word, so that
// order and repetition show.
func mixInto(b []byte, job core.JobID, at uint64) {
	word := b[at%16*8:]
	v := binary.LittleEndian.Uint64(word)
	binary.LittleEndian.PutUint64(word, v*0x9E3779B97F4A7C15+uint64(job)<<32+at+1)
}

func (x *scriptRun) end(err error) {
	x.ended, x.err, x.took = true, err, x.engine.clock.Now()-x.begun
	x.notify()
}

func (x *scriptRun) Stop() { x.stop = true }

// Abort ends a hanging execution.
func (x *scriptRun) Abort() {
	if !x.ended && !x.stuck {
		x.end(nil)
	}
}

func (x *scriptRun) Progress() (uint64, time.Duration) {
	if x.ended {
		return x.done, x.took
	}
	return x.done, x.engine.clock.Now() - x.begun
}

func (x *scriptRun) Result() engine.Result {
	return engine.Result{Done: x.done, Executed: x.took, Err: x.err}
}
