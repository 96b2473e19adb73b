package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
)

// End ends the process on record and everything it started, and returns when
// they are verifiably gone: first by request, then by SIGTERM, then by SIGKILL,
// within the launcher's bounds. When ctx ends it goes on to SIGKILL at once. A
// record of a process that never started, or is gone, is no error; nor is one
// that came with a copy of another data directory, whose process is left alone.
func (l *Launcher) End(ctx context.Context, record core.InstanceRecord) error {
	crash.Point("host.end.before")
	if record.Instance == "" {
		return fmt.Errorf("end an instance without a name: %w", core.ErrInvalid)
	}
	if l.foreign(record) {
		l.log.Warn("instance belongs to another data directory", "instance", record.Instance)
		return nil
	}
	if record.Process.PID != 0 {
		p, err := openProcess(record)
		switch {
		case err == nil:
			err = l.endProcess(ctx, p, record)
			p.close()
			if err != nil {
				return fmt.Errorf("end instance %s: %w", record.Instance, err)
			}
		case !errors.Is(err, core.ErrGone):
			return fmt.Errorf("end instance %s: %w", record.Instance, err)
		}
	}
	if err := l.sweep(ctx, record.Instance); err != nil {
		return fmt.Errorf("end instance %s: %w", record.Instance, err)
	}
	l.mu.Lock()
	live := l.mu.live[record.Instance]
	l.mu.Unlock()
	if live != nil {
		live.Detach()
	}
	crash.Point("host.end.after")
	return nil
}

// endProcess ends one verified process.
func (l *Launcher) endProcess(ctx context.Context, p *process, record core.InstanceRecord) error {
	if record.Address != "" && ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, l.config.Bounds.Shutdown)
		err := requestShutdown(bounded, record)
		if err == nil {
			err = p.wait(bounded)
		}
		cancel()
		if err == nil {
			return nil
		}
		l.log.Warn("plugin does not end", "plugin", record.Backend, "instance", record.Instance, "error", err)
	}
	return l.terminate(ctx, p)
}

// requestShutdown asks over a connection of its own, because the caller may
// have none.
func requestShutdown(ctx context.Context, record core.InstanceRecord) error {
	conn, err := grpc.NewClient("unix:"+record.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = apiv1.NewBackendClient(conn).Shutdown(ctx, &apiv1.ShutdownRequest{})
	return err
}

// terminate sends SIGTERM, then SIGKILL, and waits for the end.
func (l *Launcher) terminate(ctx context.Context, p *process) error {
	if ctx.Err() == nil {
		if err := p.signal(unix.SIGTERM); err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, l.config.Bounds.Term)
		err := p.wait(bounded)
		cancel()
		if err == nil {
			return nil
		}
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	if err := p.waitFor(l.config.Bounds.Kill); err != nil {
		return fmt.Errorf("process %d after SIGKILL: %w", p.pid, core.ErrDeadline)
	}
	return nil
}

// sweep ends every process that carries the instance's name, and returns when
// several scans have found none.
func (l *Launcher) sweep(ctx context.Context, instance string) error {
	deadline := time.Now().Add(l.config.Bounds.Term + l.config.Bounds.Kill)
	for clean := 0; clean < scansClean; {
		found, err := find(instance)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			clean++
			pause(scanEvery)
			continue
		}
		clean = 0
		for _, p := range found {
			l.log.Info("ending unrecorded process", "instance", instance, "pid", p.pid)
			err = errors.Join(err, l.terminate(ctx, p))
			p.close()
		}
		if err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes of instance %s keep coming: %w", instance, core.ErrDeadline)
		}
	}
	return nil
}

// pause waits for d.
func pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}
