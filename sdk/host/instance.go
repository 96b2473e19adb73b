package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Instance is a running plugin process that this host is attached to. Its
// methods may be called from any goroutine.
type Instance struct {
	launcher    *Launcher
	record      core.InstanceRecord
	description core.BackendDescription
	log         hclog.Logger
	conn        *grpc.ClientConn
	client      apiv1.BackendClient
	process     *process
	detach      func()

	// ctx ends when the instance is gone or was let go.
	ctx    context.Context
	cancel context.CancelCauseFunc
	gone   chan struct{}
	once   sync.Once
	// running are the goroutines of the instance.
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		// sessions are the last sessions opened, by device; acked the last
		// events acknowledged.
		sessions map[string]core.Session
		acked    map[string]core.EventSeq
	}
}

// dialed is what go-plugin returns for our plugin: its connection.
type dialed struct {
	plugin.NetRPCUnsupportedPlugin
}

// GRPCServer implements plugin.GRPCPlugin; a host serves nothing.
func (dialed) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return errors.New("not a plugin") }

// GRPCClient implements plugin.GRPCPlugin.
func (dialed) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

func (l *Launcher) clientConfig() *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig:  handshakeConfig(),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
		SkipHostEnv:      true,
		StartTimeout:     l.config.Bounds.Start,
		GRPCDialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(wire.MessageMax), grpc.MaxCallSendMsgSize(wire.MessageMax),
		)},
	}
}

func pluginSet() plugin.PluginSet { return plugin.PluginSet{wire.PluginName: dialed{}} }

// launch starts the child and attaches to it. The record it returns has what is
// known, also after an error.
func (l *Launcher) launch(ctx context.Context, c *child) (*Instance, core.InstanceRecord, error) {
	config := l.clientConfig()
	config.VersionedPlugins = map[int]plugin.PluginSet{wire.Protocol: pluginSet()}
	config.RunnerFunc = c.runnerFunc
	client := plugin.NewClient(config)
	var addr net.Addr
	started := make(chan error, 1)
	go func() {
		var err error
		addr, err = client.Start()
		started <- err
	}()
	var err error
	select {
	case err = <-started:
	case <-ctx.Done():
		// Letting go of its output ends go-plugin's wait for the handshake.
		c.detach()
		<-started
		err = fmt.Errorf("no handshake: %w", errors.Join(core.ErrDeadline, context.Cause(ctx)))
	}
	if err != nil {
		return nil, c.record, err
	}
	record := c.record
	record.Network, record.Address = addr.Network(), addr.String()
	record.ProtocolVersion = client.NegotiatedVersion()
	inst, err := l.attach(ctx, client, record, c.process, c.detach)
	return inst, record, err
}

// reattach connects to a verified process that an earlier host started. It
// takes over p.
func (l *Launcher) reattach(ctx context.Context, p *process, record core.InstanceRecord) (*Instance, error) {
	if record.ProtocolVersion != wire.Protocol {
		p.close()
		return nil, fmt.Errorf("protocol %d of the plugin: %w", record.ProtocolVersion, core.ErrUnsupported)
	}
	a := &adopted{process: p, over: make(chan struct{})}
	config := l.clientConfig()
	config.Plugins = pluginSet()
	config.Reattach = &plugin.ReattachConfig{
		Protocol: plugin.ProtocolGRPC, ProtocolVersion: record.ProtocolVersion,
		Addr:         &net.UnixAddr{Net: record.Network, Name: record.Address},
		ReattachFunc: func() (runner.AttachedRunner, error) { return a, nil },
	}
	inst, err := l.attach(ctx, plugin.NewClient(config), record, p, a.detach)
	if err != nil {
		a.detach()
		p.close()
	}
	return inst, err
}

// attach makes the connection, checks who answers, and starts watching it.
func (l *Launcher) attach(ctx context.Context, client *plugin.Client, record core.InstanceRecord, p *process, detach func()) (*Instance, error) {
	protocol, err := client.Client()
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	raw, err := protocol.Dispense(wire.PluginName)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	i := &Instance{
		launcher: l, record: record, conn: raw.(*grpc.ClientConn), process: p, detach: detach,
		log: l.log.With("plugin", record.Backend, "instance", record.Instance), gone: make(chan struct{}),
	}
	i.client = apiv1.NewBackendClient(i.conn)
	i.ctx, i.cancel = context.WithCancelCause(context.Background())
	i.mu.sessions = make(map[string]core.Session)
	i.mu.acked = make(map[string]core.EventSeq)
	hello, err := i.client.Hello(ctx, &apiv1.HelloRequest{})
	if err == nil {
		i.description, err = checkHello(record, hello)
	}
	if err != nil {
		i.cancel(err)
		_ = i.conn.Close()
		return nil, fmt.Errorf("hello: %w", wire.FromStatus(err))
	}
	l.attached(i)
	i.running.Go(i.watch)
	i.running.Go(i.checkHealth)
	return i, nil
}

func checkHello(record core.InstanceRecord, m *apiv1.HelloReply) (core.BackendDescription, error) {
	var d core.BackendDescription
	if m.GetInstance() != record.Instance {
		return d, fmt.Errorf("instance %q answers for %q: %w", wire.Cut(m.GetInstance()), record.Instance, core.ErrStale)
	}
	if m.GetProtocol() != wire.Protocol {
		return d, fmt.Errorf("protocol %d of the plugin: %w", m.GetProtocol(), core.ErrUnsupported)
	}
	return wire.ToBackendDescription(m)
}

// Describe returns what the backend declares of itself.
func (i *Instance) Describe() core.BackendDescription { return i.description }

// Gone is closed when the process, or every way to talk to it, has ended, and
// also after Detach.
func (i *Instance) Gone() <-chan struct{} { return i.gone }

// Detach lets go without ending the process. It returns when nothing of the
// instance runs here any more; a repeat does nothing.
func (i *Instance) Detach() {
	i.release(errors.New("detached"))
	i.running.Wait()
}

// release ends everything on this side, once.
func (i *Instance) release(cause error) {
	i.once.Do(func() {
		i.cancel(cause)
		_ = i.conn.Close()
		i.detach()
		i.launcher.detached(i)
		close(i.gone)
	})
}

// lost is release for an instance that did not answer any more.
func (i *Instance) lost(cause error) {
	if i.ctx.Err() == nil {
		i.log.Warn("plugin gone", "error", cause)
	}
	i.release(fmt.Errorf("%w: %w", core.ErrGone, cause))
}

// watch follows the log stream; its end is the first sign of a death.
func (i *Instance) watch() {
	defer i.process.close()
	var after uint64
	for i.ctx.Err() == nil {
		before := after
		err := i.followLogs(&after)
		if i.ctx.Err() != nil {
			return
		}
		// A stream that ends while the process answers is opened again, if it
		// had brought something; otherwise the peer plays with us.
		if healthErr := i.health(); healthErr != nil || after == before {
			i.lost(errors.Join(err, healthErr))
			return
		}
	}
}

func (i *Instance) followLogs(after *uint64) error {
	stream, err := i.client.Logs(i.ctx, &apiv1.LogsRequest{After: *after})
	if err != nil {
		return wire.FromStatus(err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return wire.FromStatus(err)
		}
		for _, line := range m.GetLines() {
			if n := line.GetNumber(); n > *after {
				if n > *after+1 && *after > 0 {
					i.log.Warn("plugin log lines dropped", "count", n-*after-1)
				}
				*after = n
			}
			i.logLine(line)
		}
	}
}

// logLine repeats a line of the plugin's log here.
func (i *Instance) logLine(line *apiv1.LogLine) {
	level := hclog.LevelFromString(line.GetLevel())
	if level == hclog.NoLevel || level == hclog.Off {
		level = hclog.Info
	}
	text := line.GetText()
	if len(text) > lineMax {
		text = text[:lineMax]
		for !utf8.ValidString(text) && len(text) > lineMax-utf8.UTFMax {
			text = text[:len(text)-1]
		}
	}
	log := i.log
	if name := printable(line.GetLogger()); name != "" && len(name) <= wire.NameMax {
		log = log.Named(name)
	}
	log.Log(level, printable(text))
}

// checkHealth notices an instance that is stopped: its streams do not break.
func (i *Instance) checkHealth() {
	tick := time.NewTicker(i.launcher.config.Bounds.HealthEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := i.health(); err != nil && i.ctx.Err() == nil {
				i.lost(fmt.Errorf("health: %w", err))
				return
			}
		case <-i.ctx.Done():
			return
		}
	}
}

func (i *Instance) health() error {
	ctx, cancel := context.WithTimeout(i.ctx, i.launcher.config.Bounds.Health)
	defer cancel()
	_, err := i.client.Health(ctx, &apiv1.HealthRequest{})
	return wire.FromStatus(err)
}
