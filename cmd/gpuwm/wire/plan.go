package wire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/configs"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
)

// plan is what a run does with the entities on record. A run is known by the
// names of its entities and the digest of their jobs, kernels and inputs:
// unfinished and the same continues, unfinished and changed is an error, and
// finished starts anew. The entities of one run belong together: they continue
// or are forgotten all at once.
type plan struct {
	deployment *configs.Deployment
	restart    bool
	wanted     map[string]*configs.Entity
}

// restartHint is what to do about an unfinished run that cannot continue.
const restartHint = "--restart forgets the unfinished run and starts anew"

func newPlan(d *configs.Deployment, restart bool) *plan {
	p := &plan{deployment: d, restart: restart, wanted: make(map[string]*configs.Entity)}
	for i := range d.Entities {
		p.wanted[d.Entities[i].Spec.Name] = &d.Entities[i]
	}
	return p
}

// hold says which entities on record must not run when the manager starts: those
// of other files, those that are to be replaced, and those that are to move.
func (p *plan) hold(rec *core.EntityRecord) bool {
	e := p.wanted[rec.Spec.Name]
	return e == nil || p.restart || e.Spec.Identity != rec.Spec.Identity || e.Spec.Run != rec.Spec.Run ||
		!slices.Contains(e.Candidates, rec.Spec.Device)
}

// carryOut brings the records in line with the deployment and starts what is to run.
func (p *plan) carryOut(ctx context.Context, r *runner) error {
	entities, err := r.manager.Entities(ctx)
	if err != nil {
		return err
	}
	ours := p.ours(entities)
	finished := true
	for i := range entities {
		e := &entities[i]
		if !ours[e.Spec.ID] || e.Finished() {
			continue
		}
		finished = false
		if !p.restart {
			if err := p.continues(e); err != nil {
				return err
			}
		}
	}
	if p.restart || finished {
		err = p.anew(ctx, r, entities, ours)
		if errors.Is(err, errInterrupted) {
			return errInterrupted // wherever it was
		}
		return err
	}
	return p.goOn(ctx, r, entities)
}

// ours returns the entities on record that have the name of a wanted one, with
// all that belong to a run with one of these.
func (p *plan) ours(entities []manager.EntityView) map[core.EntityID]bool {
	runs := make(map[core.Digest]bool)
	for i := range entities {
		if p.wanted[entities[i].Spec.Name] != nil {
			runs[entities[i].Spec.Run] = true
		}
	}
	delete(runs, core.Digest{}) // of a record that does not tell its run
	ours := make(map[core.EntityID]bool)
	for i := range entities {
		if e := &entities[i]; runs[e.Spec.Run] || p.wanted[e.Spec.Name] != nil {
			ours[e.Spec.ID] = true
		}
	}
	return ours
}

// continues returns an error if an unfinished entity of the run on record cannot
// go on with the deployment as it is now.
func (p *plan) continues(e *manager.EntityView) error {
	want := p.wanted[e.Spec.Name]
	var err error
	switch {
	case want == nil:
		err = fmt.Errorf("entity %s has an unfinished run, and is not in the file any more", e.Spec.Name)
	case want.Spec.Identity != e.Spec.Identity:
		err = fmt.Errorf("entity %s has an unfinished run, and its jobs, kernels or inputs have changed since", e.Spec.Name)
	case want.Spec.Run != e.Spec.Run:
		err = fmt.Errorf("entity %s has an unfinished run, and the file had other entities beside it then", e.Spec.Name)
	default:
		return nil
	}
	return &cli.ExitError{Code: cli.ExitUsage, Hint: restartHint, Err: err}
}

// anew replaces what is on record of the deployment's run by its entities.
func (p *plan) anew(ctx context.Context, r *runner, entities []manager.EntityView, ours map[core.EntityID]bool) error {
	var old []core.EntityID
	for i := range entities {
		e := &entities[i]
		if !ours[e.Spec.ID] {
			taken, err := p.replaces(e, entities)
			if err != nil {
				return err
			}
			if !taken {
				continue
			}
		}
		if err := r.awayNow(ctx, e); err != nil {
			return err
		}
		old = append(old, e.Spec.ID)
	}
	if r.signals.asked() {
		return errInterrupted
	}
	return p.create(ctx, r, old, p.deployment.Entities)
}

// replaces reports whether an entity of another run makes room for the
// deployment: a name of its is needed, and its run is finished.
func (p *plan) replaces(e *manager.EntityView, entities []manager.EntityView) (bool, error) {
	name := p.clash(e)
	if name == "" {
		return false, nil
	}
	for i := range entities {
		if other := &entities[i]; other.Spec.Run == e.Spec.Run && !other.Finished() {
			return false, &cli.ExitError{
				Code: cli.ExitUsage, Hint: "finish that run first, or use another --data-dir",
				Err: fmt.Errorf("the name %s is taken by the unfinished run of entity %s", name, e.Spec.Name),
			}
		}
	}
	return true, nil
}

// clash returns a name that both the entity with its jobs and the deployment use.
func (p *plan) clash(e *manager.EntityView) string {
	names := map[string]bool{e.Spec.Name: true}
	for k := range e.Jobs {
		names[e.Jobs[k].Spec.Name] = true
	}
	for i := range p.deployment.Entities {
		want := &p.deployment.Entities[i]
		if names[want.Spec.Name] {
			return want.Spec.Name
		}
		for k := range want.Jobs {
			if names[want.Jobs[k].Spec.Name] {
				return want.Jobs[k].Spec.Name
			}
		}
	}
	return ""
}

// create creates entities in place of the old ones.
func (p *plan) create(ctx context.Context, r *runner, old []core.EntityID, entities []configs.Entity) error {
	load := make(map[string]int)
	var created []manager.NewEntity
	for i := range entities {
		e := &entities[i]
		n := manager.NewEntity{Spec: e.Spec, Image: initialImage{
			specs: e.Spec.Buffers, inits: e.Buffers, interrupted: r.signals.asked,
		}}
		n.Spec.Device = leastLoaded(e.Candidates, load)
		known := make(map[core.Digest]bool)
		for k := range e.Jobs {
			j := &e.Jobs[k]
			n.Jobs = append(n.Jobs, manager.NewJob{Spec: j.Spec, After: j.After})
			for _, kernel := range j.Kernels {
				if !known[kernel.Digest] {
					known[kernel.Digest] = true
					n.Kernels = append(n.Kernels, kernel)
				}
			}
		}
		created = append(created, n)
	}
	ids, err := r.manager.Replace(ctx, old, created)
	for _, id := range ids {
		r.ids[id] = true
	}
	return roomy(err)
}

// leastLoaded chooses among the devices that fit the one that has fewest
// entities of the deployment, the first of them.
func leastLoaded(candidates []string, load map[string]int) string {
	best := candidates[0]
	for _, c := range candidates[1:] {
		if load[c] < load[best] {
			best = c
		}
	}
	load[best]++
	return best
}

// goOn continues an unfinished run where it is, or on another device if the file says so now.
func (p *plan) goOn(ctx context.Context, r *runner, entities []manager.EntityView) error {
	byName := make(map[string]*manager.EntityView)
	for i := range entities {
		byName[entities[i].Spec.Name] = &entities[i]
	}
	for i := range p.deployment.Entities {
		want := &p.deployment.Entities[i]
		e := byName[want.Spec.Name]
		if e == nil || e.Spec.Identity != want.Spec.Identity {
			return &cli.ExitError{
				Code: cli.ExitUsage, Hint: restartHint,
				Err: fmt.Errorf("the file has an unfinished run on record, and entity %s is not part of it as it is now", want.Spec.Name),
			}
		}
		r.ids[e.Spec.ID] = true
	}
	for i := range p.deployment.Entities {
		if r.signals.asked() {
			return nil // all of it is on record, and follow suspends it
		}
		want := &p.deployment.Entities[i]
		if err := p.update(ctx, r, byName[want.Spec.Name], want); err != nil {
			return err
		}
	}
	return nil
}

// update takes over what may change of a run and lets it run.
func (p *plan) update(ctx context.Context, r *runner, e *manager.EntityView, want *configs.Entity) error {
	spec := e.Spec
	spec.OnFailure, spec.Properties, spec.Saves = want.Spec.OnFailure, want.Spec.Properties, want.Spec.Saves
	if !slices.Contains(want.Candidates, spec.Device) {
		if err := r.awayNow(ctx, e); err != nil {
			return err
		}
		spec.Device = want.Candidates[0]
	}
	if err := r.manager.Update(ctx, spec); err != nil {
		return err
	}
	if timeouts := changedTimeouts(e, want); len(timeouts) > 0 {
		if err := r.manager.Retime(ctx, spec.ID, timeouts); err != nil {
			return err
		}
	}
	if e.Finished() || r.signals.asked() {
		return nil
	}
	return r.manager.SetGoal(ctx, spec.ID, core.GoalRun)
}

// changedTimeouts returns the timeouts that the file gives to unfinished jobs now.
// The jobs on record are those of the file, in the same order: so says the identity.
func changedTimeouts(e *manager.EntityView, want *configs.Entity) map[core.JobID]time.Duration {
	changed := make(map[core.JobID]time.Duration)
	for k := range e.Jobs {
		job := &e.Jobs[k]
		if timeout := want.Jobs[k].Spec.Timeout; timeout != job.Spec.Timeout && !job.State.Phase.Final() {
			changed[job.Spec.ID] = timeout
		}
	}
	return changed
}

// awayNow takes an entity off its device, for good or for a move.
func (r *runner) awayNow(ctx context.Context, e *manager.EntityView) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopMax, core.ErrDeadline)
	defer cancel()
	if e.State.Goal == core.GoalRun {
		if err := r.manager.SetGoal(ctx, e.Spec.ID, core.GoalSuspend); err != nil {
			return err
		}
	}
	return r.manager.WaitAway(ctx, e.Spec.ID)
}
