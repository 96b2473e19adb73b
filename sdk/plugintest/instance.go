package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/host"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

const (
	// leaseUsual outlives every check, leaseShort is the shortest there is.
	leaseUsual = time.Minute
	leaseShort = time.Second
	// pollEvery is how often a process is looked at while its end is awaited.
	pollEvery = 10 * time.Millisecond
	// pluginKey is how the launcher knows the plugin.
	pluginKey = "plugin"
	// inProcessName is the instance name of a backend in this process.
	inProcessName = "in-process"
)

// instance is a running plugin and the kit's connection to it.
type instance struct {
	kit    *kit
	name   string
	conn   *grpc.ClientConn
	client apiv1.BackendClient
	// launcher, host, record and process are of a process.
	launcher *host.Launcher
	host     *host.Instance
	record   core.InstanceRecord
	process  *os.Process
	// server and listener are of a backend in this process.
	server   service
	listener *bufconn.Listener
	served   chan struct{}
	// sessions and acked are the last session and acknowledged event by device.
	sessions map[string]core.Session
	acked    map[string]core.EventSeq
	// loaded says that the kit's kernels are on the device.
	loaded map[string]bool
}

// service is a plugin in this process.
type service interface {
	Server() *grpc.Server
	Stop()
}

// StartError is why a plugin did not start.
type StartError struct {
	// Path is the executable, What a sentence, Hint what to do about it.
	Path, What, Hint string
	Err              error
}

// Error implements error.
func (e *StartError) Error() string { return fmt.Sprintf("start %s: %s", e.Path, e.What) }

// Unwrap returns the cause.
func (e *StartError) Unwrap() error { return e.Err }

// executable says what is wrong with a path, if anything.
func executable(path string) error {
	const bit = 0o111
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &StartError{Path: path, What: "there is no such file", Err: errors.Join(core.ErrNotFound, err)}
	case err != nil:
		return &StartError{Path: path, What: "cannot be looked at", Err: err}
	case info.IsDir():
		return &StartError{Path: path, What: "it is a directory", Hint: "name the plugin's executable", Err: core.ErrInvalid}
	case info.Mode()&bit == 0:
		return &StartError{Path: path, What: "it is not executable", Hint: "chmod +x " + path, Err: core.ErrInvalid}
	}
	return nil
}

func (k *kit) start(ctx context.Context, lease time.Duration) (*instance, error) {
	in := &instance{
		kit: k, sessions: make(map[string]core.Session), acked: make(map[string]core.EventSeq), loaded: make(map[string]bool),
	}
	var err error
	if k.config.Backend != nil {
		in.name, in.listener, in.served = inProcessName, bufconn.Listen(1<<20), make(chan struct{})
		in.server = sdk.NewInProcess(k.config.Backend(), in.name)
		if k.config.wrap != nil {
			in.server = k.config.wrap(in.server)
		}
		go func() { defer close(in.served); _ = in.server.Server().Serve(in.listener) }()
	} else if err = in.launch(ctx, lease); err != nil {
		return nil, err
	}
	if err = in.dial(); err != nil {
		return nil, errors.Join(err, in.end())
	}
	return in, nil
}

func (in *instance) launch(ctx context.Context, lease time.Duration) error {
	c := in.kit.config
	var err error
	in.launcher, err = host.NewLauncher(host.Config{
		Executables: map[string]host.Command{pluginKey: c.Command}, Dir: filepath.Join(in.kit.dir, "instances"),
		Lease: lease, Log: c.Log, Env: c.Env, Bounds: host.Bounds{Start: c.Start},
	})
	if err != nil {
		return err
	}
	prepared, err := in.launcher.Prepare(pluginKey, nil)
	if err != nil {
		return err
	}
	began := time.Now()
	if in.host, in.record, err = in.launcher.Start(ctx, prepared); err != nil {
		if ctx.Err() == nil {
			err = notStarted(c, time.Since(began), err)
		}
		return errors.Join(err, in.launcher.Discard(prepared))
	}
	in.name = in.record.Instance
	in.process, err = os.FindProcess(in.record.Process.PID)
	return err
}

// notStarted says what kept the executable from becoming a plugin.
func notStarted(c Config, took time.Duration, err error) error {
	e := &StartError{Path: c.Command.Path, Err: err}
	var path *fs.PathError
	switch {
	case errors.As(err, &path) && path.Op == "fork/exec":
		e.What = "the system does not execute it: " + path.Err.Error()
		e.Hint = "a program must be for this machine; a script names its interpreter in the first line, as #!/usr/bin/python3"
	case took >= c.Start:
		e.What = fmt.Sprintf("no handshake within %v", c.Start)
		e.Hint = "a plugin prints go-plugin's handshake line on standard output as soon as it listens"
	default:
		why, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "start plugin "+pluginKey+": "), "\n")
		e.What = "it ended, or printed something else, before the handshake (" + strings.TrimRight(why, ": ") + ")"
		e.Hint = "a plugin prints go-plugin's handshake line first, on standard output, and goes on running; --log-level debug shows what it printed"
	}
	return e
}

// dial makes a fresh connection.
func (in *instance) dial() error {
	target := "unix:" + in.record.Address
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MessageMax)),
	}
	if in.server != nil {
		target = "passthrough:in-process"
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return in.listener.DialContext(ctx) }))
	}
	var err error
	if in.conn, err = grpc.NewClient(target, options...); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	in.client = apiv1.NewBackendClient(in.conn)
	return nil
}

// hello asks who serves.
func (in *instance) hello(ctx context.Context) (core.BackendDescription, error) {
	ctx, cancel := context.WithTimeout(ctx, in.kit.config.Patience)
	defer cancel()
	m, err := in.client.Hello(ctx, &apiv1.HelloRequest{})
	if err != nil {
		return core.BackendDescription{}, wire.FromStatus(err)
	}
	return wire.ToBackendDescription(m)
}

// hostDies is what the plugin sees when its host is killed: every connection breaks,
// the pipes of its output too. A new host connects, and adopts the process.
func (in *instance) hostDies(ctx context.Context) error {
	_ = in.conn.Close()
	if in.host != nil {
		in.host.Detach()
		var err error
		if in.host, err = in.launcher.Adopt(ctx, in.record); err != nil {
			return err
		}
	}
	return in.dial()
}

// leave lets go of the process for good.
func (in *instance) leave() {
	_ = in.conn.Close()
	if in.host != nil {
		in.host.Detach()
	}
}

// kill ends the process with SIGKILL and returns when it is gone.
func (in *instance) kill() error {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return in.launcher.End(now, in.record)
}

// gone returns nil when the process has ended by itself in time.
func (in *instance) gone(ctx context.Context, bound time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		// Signal 0 asks only whether the process is there.
		if err := in.process.Signal(syscall.Signal(0)); err != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the process is there after %v", bound)
		}
	}
}

// end ends the instance, whatever its state, and removes what is left of it.
func (in *instance) end() error {
	if in.conn != nil {
		_ = in.conn.Close()
	}
	if in.server != nil {
		in.server.Stop()
		<-in.served
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), in.kit.config.Patience)
	defer cancel()
	err := in.launcher.End(ctx, in.record)
	if in.host != nil {
		in.host.Detach()
	}
	return errors.Join(err, in.launcher.Discard(in.record))
}
