package sched

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
)

var rewrite = flag.Bool("rewrite", false, "write the traces and diagrams as they are now")

// TestScripts runs testdata/*.txt. A line that begins with "> " is an
// instruction, one with "# " a remark; the lines below an instruction are the
// whole trace of what it led to. `go test ./core/sched -run Scripts -rewrite`
// writes the traces anew; read the difference before you commit it.
func TestScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) < 20 {
		t.Fatalf("%d scripts: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got, problems := runScript(string(want), nil)
			if len(problems) > 0 {
				t.Errorf("invariants: %s", strings.Join(problems, "\n"))
			}
			if got == string(want) {
				return
			}
			if *rewrite {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s\nreplay: go test ./core/sched -run Scripts/%s\naccept: the same with -rewrite",
				firstDifference(string(want), got), strings.TrimSuffix(filepath.Base(path), ".txt"))
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf("line %d:\nwant %s\ngot  %s", i+1,
				strings.Join(w[min(i, len(w)):min(i+4, len(w))], "\n     "),
				strings.Join(g[min(i, len(g)):min(i+4, len(g))], "\n     "))
		}
	}
	return ""
}

// script drives a world by instructions and writes what happens.
type script struct {
	*world
	text strings.Builder
	jobs map[string]core.JobID
	// manual: batches stay uncommitted until `commit` says so.
	manual bool
}

func runScript(text string, seen *coverage) (string, []string) {
	s := &script{world: newWorld(1), jobs: make(map[string]core.JobID)}
	s.seen = seen
	s.now = core.Instant(time.Second)
	s.config = Config{Credits: 3, MinRun: -1, QueueMax: 4, Answer: time.Second, LossesMax: 3, Retry: 10 * time.Millisecond, ReplayMax: 40 * time.Millisecond}
	s.core = New(s.config)
	s.print = func(format string, args ...any) { fmt.Fprintf(&s.text, "    "+format+"\n", args...) }
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, "> "):
			s.text.WriteString(line + "\n")
			s.instruct(strings.Fields(line[2:]))
			if !s.manual {
				for len(s.pending) > 0 {
					s.commit()
				}
			}
		case line == "" || strings.HasPrefix(line, "#"):
			s.text.WriteString(line + "\n")
		}
	}
	return s.text.String(), s.problems
}

// instruct carries out one line.
func (s *script) instruct(words []string) {
	args := words[1:]
	at := func(i int) string {
		if i < len(args) && !strings.Contains(args[i], "=") {
			return args[i]
		}
		return ""
	}
	named := func(key, otherwise string) string {
		for _, a := range args {
			if v, ok := strings.CutPrefix(a, key+"="); ok {
				return v
			}
		}
		return otherwise
	}
	switch words[0] {
	case "manual":
		s.manual = true
	case "commit":
		s.commit()
	case "config":
		s.config.Credits = uint32(number(named("credits", "3")))
		s.config.FaultsMax = uint32(number(named("faults", "3")))
		s.config.ReplayJobsMax = int(number(named("replay-jobs", "10000")))
		s.core = New(s.config)
	case "entity":
		s.entity(args, named)
	case "submit":
		s.submitJob(args, named)
	case "cancel":
		s.event(Event{Kind: EventCancel, Entity: s.jobEntity(at(0)), Job: s.jobs[at(0)]})
	case "goal":
		s.event(Event{Kind: EventGoal, Entity: entityNumber(at(0)), Goal: core.Goal(at(1))})
	case "properties":
		s.event(Event{Kind: EventProperties, Entity: entityNumber(at(0)), Properties: core.Properties{
			Priority: core.Priority(at(1)), Checkpoint: duration(named("checkpoint", "0s"))}})
	case "forget":
		s.event(Event{Kind: EventForget, Entity: entityNumber(at(0))})
	case "signal":
		s.event(Event{Kind: EventSignal, Fence: fence(at(0)), Error: strings.Join(args[1:], " ")})
	case "tick":
		s.now = s.now.Add(duration(at(0)))
		s.event(Event{Kind: EventTick})
	case "flush":
		s.event(Event{Kind: EventFlush, Entity: entityNumber(at(0))})
	case "retime":
		s.event(Event{Kind: EventTimeout, Entity: s.jobEntity(at(0)), Job: s.jobs[at(0)], By: duration(at(1))})
	case "image-claims":
		s.claims = map[core.JobID]uint64{s.jobs[at(0)]: uint64(number(at(1)))}
	case "image-lacks":
		s.lacks = s.jobs[at(0)]
	case "fail-saves":
		s.failSave = at(0) == "on"
	case "fail-output":
		s.outputError = strings.Join(args, " ")
	case "visible":
		s.visible(entityNumber(at(0)))
	case "crash":
		s.printf("crash")
		s.crashDaemon()
	default:
		s.device(words[0], args, at)
	}
}

// device carries out a line about the instance.
func (s *script) device(word string, args []string, at func(int) string) {
	switch word {
	case "up":
		s.startInstance()
	case "reconnect":
		s.connect()
	case "gone":
		s.killInstance()
		s.call()
	case "take":
		for range number(or(at(0), "1")) {
			s.take()
		}
	case "deliver":
		for range number(or(at(0), "1")) {
			s.deliver()
		}
	case "answer":
		s.call()
	case "settle":
		s.settleAll()
	case "run", "run-quietly":
		s.executeUpTo(entityNumber(at(0)), uint64(number(at(1))), word == "run")
	case "lost":
		s.fault(entityNumber(at(0)), at(1) == "guilty")
	case "lose-entity":
		s.loseEntity(entityNumber(at(0)), at(1) == "guilty", s.jobs[at(2)])
	case "refuse":
		s.refuse()
	case "device-failed":
		s.report(core.BackendEvent{Kind: core.EventDeviceHealth, Error: strings.Join(args, " ")})
	case "stale":
		s.event(Event{Kind: EventBackend, Backend: &core.BackendEvent{Kind: core.EventDestroyed, Entity: entityNumber(at(0)), Epoch: 99}})
	case "rogue-cancelled":
		s.event(Event{Kind: EventBackend, Backend: &core.BackendEvent{
			Kind: core.EventCancelled, Entity: s.jobEntity(at(0)), Epoch: s.entities[s.jobEntity(at(0))].Epoch, Job: s.jobs[at(0)]}})
	default:
		s.problem("unknown instruction %s", word)
	}
}

// settleAll lets commands, events and answers pass until nothing moves; no
// workgroup runs.
func (s *script) settleAll() {
	for range 100 {
		before := s.text.Len()
		s.take()
		s.deliver()
		s.call()
		for !s.manual && len(s.pending) > 0 {
			s.commit()
		}
		if s.text.Len() == before && (s.instance == nil || len(s.instance.queue) == 0) {
			return
		}
	}
	s.problem("does not settle")
}

func (s *script) event(ev Event) { _ = s.step(ev) }

func (s *script) entity(args []string, named func(string, string) string) {
	id := entityNumber(args[0])
	spec := core.EntitySpec{ID: id, Name: args[0], Mode: core.Mode(named("mode", "compute")), OnFailure: core.OnFailure(named("on-failure", "stop"))}
	spec.Properties.Checkpoint = duration(named("checkpoint", "0s"))
	state := core.EntityState{ID: id, Goal: core.GoalRun, Residency: core.Away, Generation: 1}
	s.specs[id], s.entities[id] = spec, state
	s.images[id] = map[core.Generation]image{1: {mem: map[core.JobID]uint64{}}}
	s.event(Event{Kind: EventRestore, Record: &core.EntityRecord{Spec: spec, State: state}})
}

func (s *script) submitJob(args []string, named func(string, string) string) {
	entity := entityNumber(args[0])
	name := args[1]
	seq := core.JobSeq(1)
	for _, j := range s.jobSpecs {
		if j.Entity == entity && j.Seq >= seq {
			seq = j.Seq + 1
		}
	}
	seq = core.JobSeq(number(named("seq", strconv.Itoa(int(seq)))))
	spec := &core.JobSpec{
		ID: core.JobID(len(s.jobSpecs) + 1), Entity: entity, Seq: seq, Name: name,
		Grid: [3]uint32{uint32(number(named("n", "10"))), 1, 1}, Credits: uint32(number(named("credits", "1"))),
		Timeout: duration(named("timeout", "0s")), QueueTimeout: duration(named("queue", "0s")), Flush: slices.Contains(args, "file"),
	}
	ev := Event{Kind: EventSubmit, Spec: spec, OnRecord: slices.Contains(args, "on-record"), Unmet: named("unmet", "")}
	if f := named("after", ""); f != "" {
		for _, one := range strings.Split(f, ",") {
			spec.Depends = append(spec.Depends, core.Dependency{Fence: fence(one)})
		}
	}
	if f := named("long-running", ""); f != "" {
		ev.LongRunning = []core.Fence{fence(f)}
	}
	s.jobs[name], s.jobSpecs[spec.ID] = spec.ID, spec
	if err := s.step(ev); err != nil {
		delete(s.jobSpecs, spec.ID)
		delete(s.jobs, name)
	}
}

func (s *script) jobEntity(name string) core.EntityID {
	if j := s.jobSpecs[s.jobs[name]]; j != nil {
		return j.Entity
	}
	return 1
}

// visible prints the states that a user sees.
func (s *script) visible(entity core.EntityID) {
	state := s.entities[entity]
	front := true
	for _, id := range s.jobsOf(entity) {
		j := s.world.jobs[id]
		s.printf("j%d is shown as %s", id, Visible(&state, &j, front))
		front = front && j.Phase.Final()
	}
}

// refuse has the instance refuse its next command.
func (s *script) refuse() {
	in := s.instance
	if in == nil || len(in.queue) == 0 {
		s.problem("nothing to refuse")
		return
	}
	c := in.queue[0]
	in.queue = in.queue[1:]
	if d := in.entities[c.Entity]; d != nil {
		d.applied = c.Seq
	} else {
		in.entities[c.Entity] = &onDevice{epoch: c.Epoch, applied: c.Seq, mem: map[core.JobID]uint64{}}
	}
	s.report(core.BackendEvent{Kind: core.EventRefused, Entity: c.Entity, Epoch: c.Epoch, Command: c.Seq, Job: c.Job, Error: "no room"})
}

// loseEntity loses an entity whatever it does at the moment.
func (s *script) loseEntity(id core.EntityID, guilty bool, job core.JobID) {
	d := s.instance.entities[id]
	d.ring, d.suspended, d.lost = nil, true, true
	s.report(core.BackendEvent{Kind: core.EventEntityLost, Entity: id, Epoch: d.epoch, Job: job, Guilty: guilty, Error: "context lost"})
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

func entityNumber(s string) core.EntityID { return core.EntityID(number(strings.TrimPrefix(s, "e"))) }

// fence reads entity:sequence.
func fence(s string) core.Fence {
	timeline, seq, _ := strings.Cut(s, ":")
	return core.Fence{Timeline: entityNumber(timeline), Seq: core.JobSeq(number(seq))}
}

func (w *world) printf(format string, args ...any) {
	if w.print != nil {
		w.print(format, args...)
	}
}

// printBatch writes what a step decided and must be committed.
func (w *world) printBatch(err error) {
	if w.print == nil {
		return
	}
	if err != nil {
		w.printf("error: %v", err)
	}
	for i := range w.batch.Entities {
		w.printf("decide %d: %s", w.batch.Seq, entityText(&w.batch.Entities[i]))
	}
	for i := range w.batch.Jobs {
		w.printf("decide %d: %s", w.batch.Seq, jobText(&w.batch.Jobs[i]))
	}
}

// coverage counts the changes of state that worlds went through.
type coverage struct {
	residency map[core.EntityID]core.Residency
	phase     map[core.JobID]core.JobPhase
	entities  map[[2]core.Residency]int
	jobs      map[[2]core.JobPhase]int
}

func newCoverage() *coverage {
	return &coverage{entities: map[[2]core.Residency]int{}, jobs: map[[2]core.JobPhase]int{}}
}

// world begins another world.
func (v *coverage) world() *coverage {
	v.residency, v.phase = map[core.EntityID]core.Residency{}, map[core.JobID]core.JobPhase{}
	return v
}

// batch reads the changes off the notices: every change makes one. A change
// that a crash undid is counted from the state it happened in, as the notices
// before it say; such a pair may not be in the tables and does no harm.
func (v *coverage) batch(b *Batch) {
	if v == nil {
		return
	}
	for i := range b.Notices {
		switch n := &b.Notices[i]; n.Kind {
		case EntityChanged:
			from := v.residency[n.Entity]
			if from == "" {
				from = core.Away
			}
			v.entities[[2]core.Residency{from, n.State}]++
			v.residency[n.Entity] = n.State
		case JobChanged:
			from := v.phase[n.Job]
			if from == "" {
				from = core.JobHeld
			}
			v.jobs[[2]core.JobPhase{from, n.Phase}]++
			v.phase[n.Job] = n.Phase
		}
	}
}

// TestTransitionsCovered requires that every row of the tables is reached by
// the scripts or the random worlds: a row that nothing reaches is not true.
func TestTransitionsCovered(t *testing.T) {
	seen := newCoverage()
	paths, _ := filepath.Glob("testdata/*.txt")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		runScript(string(text), seen.world())
	}
	for seed := range uint64(200) {
		w := newWorld(seed)
		w.seen = seen.world()
		w.build()
		for range 400 {
			w.now += core.Instant(w.rand.IntN(int(2 * time.Millisecond)))
			w.act()
		}
		w.heal()
	}
	for _, row := range Transitions {
		if seen.entities[[2]core.Residency{row.From, row.To}] == 0 {
			t.Errorf("no script and no seed reaches %s -> %s (%s)", row.From, row.To, row.On)
		}
	}
	for _, row := range JobTransitions {
		if seen.jobs[[2]core.JobPhase{row.From, row.To}] == 0 {
			t.Errorf("no script and no seed reaches %s -> %s (%s)", row.From, row.To, row.On)
		}
	}
}
