package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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
	// stopMax bounds the end of a run after everything is suspended or done.
	stopMax = 2 * time.Minute
)

// errKilled is why a run ends at the second signal.
var errKilled = errors.New("ended by a second signal")

// runner is one run of a deployment.
type runner struct {
	request cli.RunRequest
	log     hclog.Logger
	manager *manager.Manager
	// ids are the entities of this deployment.
	ids map[core.EntityID]bool
}

// Run runs a deployment to its end, or until a signal suspends it. It returns
// the jobs as they are then, also beside an error.
func Run(ctx context.Context, request cli.RunRequest) ([]cli.JobView, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	s := request.Settings
	log := newLogger(s, request.Progress)
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	db, err := store.Open(s.DataDir, store.Options{})
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	defer db.Close()
	r := &runner{request: request, log: log, ids: make(map[core.EntityID]bool)}
	host, err := newLauncher(s, log)
	if err != nil {
		return nil, err
	}
	r.manager = manager.New(manager.Config{
		Store: db, Images: db.Images(), Launcher: launcher{host},
		Output: writeOutput, Log: log, Devices: request.Deployment.Devices,
	})
	return r.run(ctx, signals)
}

func newLauncher(s settingsOf, log hclog.Logger) (*host.Launcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	executables := make(map[string]host.Command)
	for _, name := range builtinNames() {
		executables[name] = host.Command{Path: self, Args: []string{"plugin", "serve", name}}
	}
	for name, p := range s.Plugins {
		cmd := host.Command{Path: p.Path}
		if p.Digest != (core.Digest{}) {
			cmd.Digest = &p.Digest
		}
		executables[name] = cmd
	}
	return host.NewLauncher(host.Config{
		Executables: executables, Dir: filepath.Join(s.DataDir, "instances"), Lease: runLease, Log: log,
	})
}

func (r *runner) run(ctx context.Context, signals <-chan os.Signal) ([]cli.JobView, error) {
	plan := newPlan(r.request.Deployment, r.request.Restart)
	events := r.manager.Subscribe()
	defer events.Close()
	if err := r.manager.Start(ctx, plan.hold); err != nil {
		return nil, err
	}
	err := plan.carryOut(ctx, r)
	if err == nil {
		err = r.follow(ctx, events, signals)
	}
	if errors.Is(err, errKilled) {
		r.kill()
	}
	jobs, viewErr := r.jobs(context.Background())
	stopCtx, cancel := context.WithTimeout(context.Background(), stopMax)
	defer cancel()
	err = errors.Join(err, viewErr, r.manager.Stop(stopCtx, false))
	if errors.Is(err, errKilled) {
		err = nil // the jobs say it: they are suspended with their last image
	}
	return jobs, err
}

// kill ends the plugins at once and waits until the records know it, so that
// the jobs are shown as they will be found by the next run.
func (r *runner) kill() {
	if err := r.manager.Kill(); err != nil {
		r.log.Error("plugin not ended", "error", err)
		return
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), stopMax, core.ErrDeadline)
	defer cancel()
	for id := range r.ids {
		if err := r.manager.WaitAway(ctx, id); err != nil {
			r.log.Error("entity not off its device", "entity", id, "error", err)
		}
	}
}

// follow shows the progress until everything has ended or is suspended.
func (r *runner) follow(ctx context.Context, events *manager.Subscription, signals <-chan os.Signal) error {
	ticker := time.NewTicker(progressInterval)
	defer ticker.Stop()
	suspending := false
	for {
		settled, err := r.look(ctx, suspending)
		if err != nil || settled {
			return err
		}
		select {
		case <-events.C:
		case <-ticker.C:
		case sig := <-signals:
			if suspending {
				return errKilled
			}
			suspending = true
			fmt.Fprintf(r.request.Progress, "%s: suspending; once more ends at once, with the last image\n", sig)
			if err := r.suspend(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// look updates the progress and reports whether nothing will happen any more.
func (r *runner) look(ctx context.Context, suspending bool) (bool, error) {
	entities, err := r.manager.Entities(ctx)
	if err != nil {
		return false, err
	}
	settled := true
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
		if !suspending && e.Finished() && e.State.Goal == core.GoalRun {
			if err := r.manager.SetGoal(ctx, e.Spec.ID, core.GoalClose); err != nil {
				return false, err
			}
		}
		settled = settled && done && e.State.Residency == core.Away
		for k := range e.Jobs {
			v := view(e, &e.Jobs[k])
			r.request.Progress.Update(cli.Update{
				Job: v.Name, State: v.State, Done: v.Progress.Done, Total: v.Progress.Total,
			})
		}
	}
	return settled, nil
}

// suspend asks every entity off its device.
func (r *runner) suspend(ctx context.Context) error {
	entities, err := r.manager.Entities(ctx)
	if err != nil {
		return err
	}
	for i := range entities {
		if e := &entities[i]; e.State.Goal == core.GoalRun {
			if err := r.manager.SetGoal(ctx, e.Spec.ID, core.GoalSuspend); err != nil {
				return err
			}
		}
	}
	return nil
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
