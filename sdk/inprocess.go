package sdk

import (
	"os"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// InProcess serves a backend without a process of its own. It is for tests: the
// conformance kit runs on one, through real gRPC (package plugintest). There is no
// handshake, standard output is not captured, and a panic of the backend stays one.
type InProcess struct {
	server *server
	grpc   *grpc.Server
}

// NewInProcess prepares the service of b; instance is the name it answers with.
// Serve its Server on a listener of the caller's.
func NewInProcess(b Backend, instance string) *InProcess {
	lines := newLogRing(hclog.Debug)
	lease, _ := leaseTime(os.Getenv(wire.EnvLease)) // the default when it is not understood
	p := &InProcess{
		server: newServer(b, instance, lease, lines, lines.logger("")),
		grpc:   grpc.NewServer(serverOptions()...),
	}
	apiv1.RegisterBackendServer(p.grpc, p.server)
	return p
}

// Server is what the caller serves on a listener.
func (p *InProcess) Server() *grpc.Server { return p.grpc }

// Ended is closed when a process would end: after Shutdown, which a host may ask
// for too, or when the lease ran out.
func (p *InProcess) Ended() <-chan struct{} { return p.server.ended }

// Stop closes the devices and ends the service. It may be called again.
func (p *InProcess) Stop() {
	p.server.shutdown()
	stopServer(p.grpc)
}
