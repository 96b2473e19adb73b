package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/gpuwm/gpuwm/cmd/gpuwm/cli"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/manager"
	"github.com/gpuwm/gpuwm/sdk/host"
	"github.com/gpuwm/gpuwm/store"
	"github.com/hashicorp/go-hclog"
)

// Bounds of a run without a daemon.
const (
	// runLease is how long a plugin lives on when its gpuwm is gone.
	runLease = time.Minute
	// progressInterval is how often the progress is looked at.
	progressInterval = 200 * time.Millisecond
	// stopMax bounds the end of a run after everything is suspended or done, and
	// killMax that after a second signal.
	stopMax = 2 * time.Minute
	killMax = 20 * time.Second
	// closeMax bounds the closing of the store, which writes nothing then.
	closeMax = 10 * time.Second
)

// runner is one run of a deployment.
type runner struct {
	request cli.RunRequest
	log     hclog.Logger
	manager *manager.Manager
	signals *interrupts
	// ids are the entities of this deployment.
	ids map[core.EntityID]bool
	// closing are those that were asked to close.
	closing map[core.EntityID]bool
	// answers are those to the asked requests, which nobody waits for: signals
	// are heard meanwhile.
	answers chan error
	asked   int
}

// Run runs a deployment to its end, or until a signal suspends it. It returns
// the jobs as they are then, also beside an error. Signals are heard all the
// time: the first one suspends, or ends a run that is not on record yet; the
// second one cancels ctx, which every wait obeys.
func Run(ctx context.Context, request cli.RunRequest) ([]cli.JobView, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	ctx, kill := context.WithCancelCause(ctx)
	defer kill(nil)
	r := &runner{
		request: request, log: newLogger(request.Settings, request.Progress), ids: make(map[core.EntityID]bool),
		closing: make(map[core.EntityID]bool), answers: make(chan error),
		signals: &interrupts{suspend: make(chan struct{}), kill: kill, messages: request.Progress},
	}
	go r.signals.listen(ctx, signals)

	dir := request.Settings.DataDir
	db, err := within(ctx, func() (*store.DB, error) { return store.Open(dir, store.Options{}) })
	if err != nil {
		return nil, placed(fmt.Errorf("open data directory: %w", err))
	}
	defer func() {
		bound, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeMax, core.ErrDeadline)
		defer cancel()
		_, _ = within(bound, func() (struct{}, error) { return struct{}{}, db.Close() })
	}()
	r.log.Debug("data directory opened", "path", dir)
	host, err := newLauncher(request.Settings, r.log)
	if err != nil {
		return nil, roomy(err)
	}
	r.manager = manager.New(manager.Config{
		Store: db, Images: db.Images(), Launcher: launcher{host},
		Output: writeOutput, Log: r.log, Devices: request.Deployment.Devices,
	})
	return r.run(ctx)
}

func newLauncher(s settingsOf, log hclog.Logger) (*host.Launcher, error) {
	commands, err := executables(s)
	if err != nil {
		return nil, err
	}
	return host.NewLauncher(host.Config{Executables: commands, Dir: instancesDir(s), Lease: runLease, Log: log})
}

func (r *runner) run(ctx context.Context) ([]cli.JobView, error) {
	plan := newPlan(r.request.Deployment, r.request.Restart)
	events := r.manager.Subscribe()
	defer events.Close()
	err := r.manager.Start(ctx, plan.hold)
	if err == nil {
		err = plan.carryOut(ctx, r)
	}
	if err == nil {
		err = r.follow(ctx, events)
	}
	return r.end(ctx, err)
}

// end stops everything after the run has ended by err, and returns the jobs as
// they are then. A second signal, before or meanwhile, ends the plugins at once.
func (r *runner) end(ctx context.Context, err error) ([]cli.JobView, error) {
	end, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), stopMax, core.ErrDeadline)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(killMax, cancel)
		if err := r.manager.Kill(); err != nil {
			r.log.Error("plugin not ended", "error", err)
		}
	})()
	if ctx.Err() != nil {
		r.leave(end)
	}
	jobs, viewErr := r.jobs(end)
	stopErr := r.manager.Stop(end, false)
	if errors.Is(err, errKilled) && len(jobs) > 0 && viewErr == nil {
		err = nil // the jobs say it: they are suspended with their last image
	}
	return jobs, errors.Join(err, viewErr, stopErr)
}

// leave waits, while the plugins are being killed, until the records know that
// nothing runs any more, so that the jobs are shown as the next run finds them.
func (r *runner) leave(ctx context.Context) {
	ids, err := r.running(ctx)
	if err == nil {
		err = r.manager.SetGoals(ctx, ids, core.GoalSuspend)
	}
	for id := range r.ids {
		err = errors.Join(err, r.manager.WaitAway(ctx, id))
	}
	if err != nil {
		r.log.Error("entity not off its device", "error", err)
	}
}

// follow shows the progress until everything has ended or is suspended.
func (r *runner) follow(ctx context.Context, events *manager.Subscription) error {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	signalled := r.signals.suspend
	for {
		settled, err := r.look(ctx, signalled == nil)
		if err != nil || settled && r.asked == 0 {
			return err
		}
		select {
		case <-events.C:
		case <-ticker.C:
		case <-signalled:
			signalled = nil // heard: never ready again
			ids, err := r.running(ctx)
			if err != nil {
				return err
			}
			r.ask(ctx, ids, core.GoalSuspend)
		case err := <-r.answers:
			r.asked--
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ask asks for a goal; the answer comes to follow. A commit that fails does not
// end it, only ctx does.
func (r *runner) ask(ctx context.Context, ids []core.EntityID, goal core.Goal) {
	if len(ids) == 0 {
		return
	}
	r.asked++
	go func() {
		select {
		case r.answers <- r.manager.SetGoals(ctx, ids, goal):
		case <-ctx.Done():
		}
	}()
}

// look updates the progress and reports whether nothing will happen any more.
func (r *runner) look(ctx context.Context, suspending bool) (bool, error) {
	entities, err := r.manager.Entities(ctx)
	if err != nil {
		return false, err
	}
	settled := true
	var finished []core.EntityID
	for i := range entities {
		e := &entities[i]
		if !r.ids[e.Spec.ID] {
			settled = settled && e.State.Residency == core.Away
			continue
		}
		done := e.Settled()
		if suspending {
			done = e.State.Residency == core.Away
		}
		if !suspending && e.Finished() && e.State.Goal == core.GoalRun && !r.closing[e.Spec.ID] {
			r.closing[e.Spec.ID] = true
			finished = append(finished, e.Spec.ID)
		}
		settled = settled && done && e.State.Residency == core.Away
		for k := range e.Jobs {
			v := view(e, &e.Jobs[k])
			r.request.Progress.Update(cli.Update{
				Job: v.Name, State: v.State, Done: v.Progress.Done, Total: v.Progress.Total,
			})
		}
	}
	r.ask(ctx, finished, core.GoalClose)
	return settled, nil
}

// running returns the entities that are to be asked off their devices.
func (r *runner) running(ctx context.Context) ([]core.EntityID, error) {
	entities, err := r.manager.Entities(ctx)
	if err != nil {
		return nil, err
	}
	var ids []core.EntityID
	for i := range entities {
		e := &entities[i]
		if e.State.Goal == core.GoalRun && !r.closing[e.Spec.ID] {
			ids = append(ids, e.Spec.ID)
		}
	}
	return ids, nil
}

// jobs returns the jobs of the deployment, in the order of their identifiers.
func (r *runner) jobs(ctx context.Context) ([]cli.JobView, error) {
	entities, err := r.manager.Entities(ctx)
	if err != nil {
		return nil, err
	}
	var jobs []cli.JobView
	for i := range entities {
		e := &entities[i]
		if !r.ids[e.Spec.ID] {
			continue
		}
		if e.State.Goal == core.GoalSuspend && e.State.Cause != core.CauseNone && e.State.Cause != core.CauseUser {
			fmt.Fprintf(r.request.Progress, "entity %s is suspended: %s: %s\n", e.Spec.Name, e.State.Cause, e.State.Error)
		}
		for k := range e.Jobs {
			jobs = append(jobs, view(e, &e.Jobs[k]))
		}
	}
	slices.SortFunc(jobs, func(a, b cli.JobView) int { return int(a.ID) - int(b.ID) })
	return jobs, nil
}

// view is a job as it is shown. Why an entity was suspended is told by its
// unfinished jobs.
func view(e *manager.EntityView, j *manager.JobView) cli.JobView {
	v := cli.JobView{
		Name: j.Spec.Name, ID: j.Spec.ID, Entity: j.Entity, Device: j.Device, Backend: j.Backend,
		State: j.Visible, Cause: j.State.Cause, Error: j.State.Error,
		Progress: cli.JobProgress{Done: j.Done, Total: j.Spec.Workgroups()}, Executed: j.Executed,
		Submitted: cli.Time(j.State.Submitted), Started: cli.Time(j.State.Started), Finished: cli.Time(j.State.Finished),
	}
	if !j.State.Phase.Final() && e.State.Goal == core.GoalSuspend && v.Cause == core.CauseNone {
		v.Cause, v.Error = e.State.Cause, e.State.Error
	}
	return v
}
