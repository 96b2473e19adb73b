package sdk

import (
	"time"

	"google.golang.org/grpc"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
)

// The limits that tests reach.
const (
	EventsMax  = eventsMax
	ImageWait  = imageWait
	KernelWait = kernelWait
	CallGrace  = callGrace
	Control    = controlBound
	RunBound   = runBound
	LaneSlack  = laneSlack
	FirstLease = firstLease

	LeaveBound = leaveBound
)

// OneLine makes a text fit a line of trace.
var OneLine = oneLine

// TestServer is the plugin's side without a process.
type TestServer struct{ s *server }

// NewTestServer returns a server that fatal is told of instead of exiting.
func NewTestServer(b Backend, lease time.Duration, fatal func(string)) *TestServer {
	lines := newLogRing(logLevel("debug"))
	s := newServer(b, "test", lease, lines, lines.logger(""))
	s.fatal = fatal
	return &TestServer{s}
}

// Register registers the service.
func (t *TestServer) Register(g *grpc.Server) { apiv1.RegisterBackendServer(g, t.s) }

// Ended is closed when the process would end.
func (t *TestServer) Ended() <-chan struct{} { return t.s.ended }

// Shutdown closes the devices.
func (t *TestServer) Shutdown() { t.s.shutdown() }

// Lanes returns how many entities a device has a lane for.
func (t *TestServer) Lanes(device string) int {
	d, err := t.s.device(device)
	if err != nil {
		return -1
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.lanes)
}
