package sdk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// Serve is the whole of a plugin executable's main, after its flags. It returns
// when the process should end: a host asked for it, SIGTERM came, or the lease
// ran out. Started by hand it prints what the executable is, and exits with 1.
func Serve(b Backend) {
	// A dead host must not kill the process at its next line of output.
	signal.Ignore(syscall.SIGPIPE, syscall.SIGHUP)
	lease, err := leaseTime(os.Getenv(wire.EnvLease))
	lines := newLogRing(logLevel(os.Getenv(wire.EnvLogLevel)))
	log := lines.logger("")
	if err != nil {
		log.Warn("lease not understood", "lease", lease, "error", err)
	}
	started := os.Getenv(wire.CookieKey) == wire.CookieValue
	if started {
		// What still goes to the inherited pipes (a panic of the runtime, the
		// C library) is dropped rather than waited for when nobody reads.
		_ = syscall.SetNonblock(1, true)
		_ = syscall.SetNonblock(2, true)
	}
	s := newServer(b, os.Getenv(wire.EnvInstance), lease, lines, log)
	s.captured = func() { captureOutput(lines) }
	s.fatal = func(why string) {
		fmt.Fprintln(rawStderr{}, why)
		os.Exit(2)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	var running struct {
		sync.Mutex
		server *grpc.Server
	}
	go func() {
		select {
		case <-term:
			log.Info("signal received", "signal", "SIGTERM")
			s.shutdown()
		case <-s.ended:
		}
		<-s.ended
		running.Lock()
		defer running.Unlock()
		if running.server != nil {
			stopServer(running.server)
		}
	}()
	ballast := make([]byte, ballastBytes)
	defer runtime.KeepAlive(ballast)
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: handshake(),
		VersionedPlugins: map[int]plugin.PluginSet{
			wire.Protocol: {wire.PluginName: &servedPlugin{server: s}},
		},
		Logger: log,
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			running.Lock()
			defer running.Unlock()
			running.server = grpc.NewServer(append(opts, serverOptions()...)...)
			return running.server
		},
	})
	s.shutdown()
}

// UsageFile is where the engines of this process count executed workgroups
// (package core/usage); empty when the host did not ask for it.
func UsageFile() string { return os.Getenv(wire.EnvUsageFile) }

func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(wire.MessageMax), grpc.MaxSendMsgSize(wire.MessageMax)}
}

// stopServer lets calls in flight return their replies, for stopBound.
func stopServer(g *grpc.Server) {
	force := time.AfterFunc(stopBound, g.Stop)
	defer force.Stop()
	g.GracefulStop()
}

func leaseTime(text string) (time.Duration, error) {
	if text == "" {
		return defaultLease, nil
	}
	d, err := time.ParseDuration(text)
	if err == nil && d <= 0 {
		err = errors.New("not positive")
	}
	if err != nil {
		return defaultLease, err
	}
	return d, nil
}

func logLevel(text string) hclog.Level {
	if l := hclog.LevelFromString(text); l != hclog.NoLevel {
		return l
	}
	return hclog.Info
}

func handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion: wire.Protocol, MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue,
	}
}

// captureOutput points the process's standard output and error at a pipe that
// is always read, so that a backend's print never blocks. go-plugin has set
// its own pipes by now, which are read only while a host listens.
func captureOutput(lines *logRing) {
	for _, f := range []struct {
		name string
		file **os.File
	}{{"stdout", &os.Stdout}, {"stderr", &os.Stderr}} {
		r, w, err := os.Pipe()
		if err != nil {
			lines.add(hclog.Warn, "", "output not captured: "+err.Error())
			continue
		}
		*f.file = w
		go lines.drain(f.name, r)
	}
}

// rawStderr writes to the descriptor the process was started with.
type rawStderr struct{}

// Write implements io.Writer.
func (rawStderr) Write(b []byte) (int, error) { return syscall.Write(2, b) }

// servedPlugin registers the server with go-plugin.
type servedPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	server *server
}

// GRPCServer implements plugin.GRPCPlugin.
func (p *servedPlugin) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	apiv1.RegisterBackendServer(g, p.server)
	return nil
}

// GRPCClient implements plugin.GRPCPlugin; a plugin is never a host.
func (p *servedPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("not a host")
}
