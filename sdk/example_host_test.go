package sdk_test

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// exampleHost is as much of a host as the example needs: it speaks the protocol
// with a backend in this process and prints the events.
type exampleHost struct {
	server *sdk.TestServer
	grpc   *grpc.Server
	conn   *grpc.ClientConn
	client apiv1.BackendClient
	stream apiv1.Backend_SessionClient
	device string
	seq    core.CommandSeq
	kernel map[string]core.Digest
	events []core.BackendEvent
	served chan struct{}
}

// must stops an example that cannot go on.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func newExampleHost(b sdk.Backend) *exampleHost {
	h := &exampleHost{grpc: grpc.NewServer(), served: make(chan struct{})}
	h.server = sdk.NewTestServer(b, time.Hour, func(why string) { panic(why) })
	h.server.Register(h.grpc)
	listener := bufconn.Listen(1 << 16)
	go func() { defer close(h.served); _ = h.grpc.Serve(listener) }()
	var err error
	h.conn, err = grpc.NewClient("passthrough:bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	h.client = apiv1.NewBackendClient(h.conn)
	return h
}

func (h *exampleHost) close() {
	h.server.Shutdown()
	_ = h.conn.Close()
	h.grpc.Stop()
	<-h.served
}

// open opens a device and its session.
func (h *exampleHost) open(device string) string {
	var err error
	h.stream, err = h.client.Session(context.Background())
	must(err)
	must(h.stream.Send(&apiv1.SessionRequest{Open: &apiv1.OpenDevice{Spec: &apiv1.DeviceSpec{Name: device}, Session: 1}}))
	m, err := h.stream.Recv()
	must(err)
	h.device = device
	return fmt.Sprintf("%s takes %s", m.GetOpened().GetDescription().GetName(), m.GetOpened().GetDescription().GetFormats()[0])
}

func (h *exampleHost) putKernel(format, code string) {
	digest := core.DigestOf([]byte(code))
	stream, err := h.client.PutKernel(context.Background())
	must(err)
	must(stream.Send(&apiv1.PutKernelRequest{
		Header: &apiv1.KernelHeader{Device: h.device, Session: 1, Digest: digest[:], Format: format, Size: uint64(len(code))},
		Code:   []byte(code),
	}))
	_, err = stream.CloseAndRecv()
	must(err)
	h.kernel = map[string]core.Digest{format: digest}
}

// command sends one command; the epoch is always 1.
func (h *exampleHost) command(c core.Command) {
	h.seq++
	c.Epoch, c.Seq = 1, h.seq
	var b wire.CommandBatch
	must(b.Append(&c))
	must(h.stream.Send(&apiv1.SessionRequest{Commands: b.Body()}))
}

// create makes an entity with buffers of zeroes.
func (h *exampleHost) create(entity core.EntityID, buffers ...core.BufferSpec) {
	h.command(core.Command{Kind: core.CommandCreate, Entity: entity, EntitySpec: &core.EntitySpec{
		ID: entity, Name: "e", Mode: core.ModeCompute, Buffers: buffers,
	}})
	header := core.ImageHeader{Version: core.ImageVersion, Entity: entity, Buffers: buffers}
	m, err := wire.FromImageHeader(header)
	must(err)
	stream, err := h.client.PutImage(context.Background())
	must(err)
	must(stream.Send(&apiv1.PutImageRequest{Target: h.target(entity), Header: m}))
	order := wire.NewSequence(buffers)
	for i, b := range buffers {
		n := wire.Name{ChunkRef: core.ChunkRef{Buffer: i, Size: int(b.Size), Digest: wire.ZeroDigest(int(b.Size))}, Zero: true}
		must(order.Next(n))
		must(stream.Send(&apiv1.PutImageRequest{Names: &apiv1.ChunkNames{Refs: wire.PutCount(wire.AppendName(nil, n), 1)}}))
	}
	trailer, err := order.Trailer()
	must(err)
	must(stream.Send(&apiv1.PutImageRequest{Trailer: trailer}))
	_, err = stream.CloseAndRecv()
	must(err)
	h.await(core.EventApplied)
}

func (h *exampleHost) target(entity core.EntityID) *apiv1.ImageTarget {
	return &apiv1.ImageTarget{Device: h.device, Session: 1, Entity: uint64(entity), Epoch: 1}
}

func (h *exampleHost) run(entity core.EntityID, spec core.JobSpec) {
	spec.Kernels = h.kernel
	h.command(core.Command{Kind: core.CommandRun, Entity: entity, Job: spec.ID, JobSpec: &spec})
}

func (h *exampleHost) message(entity core.EntityID, kind core.MessageKind) {
	h.command(core.Command{Kind: core.CommandMessage, Entity: entity, Message: kind})
	h.await(core.EventMessageDone)
}

func (h *exampleHost) destroy(entity core.EntityID) {
	h.command(core.Command{Kind: core.CommandDestroy, Entity: entity})
	h.await(core.EventDestroyed)
}

// image reads the one chunk of a suspended entity.
func (h *exampleHost) image(entity core.EntityID) []byte {
	stream, err := h.client.GetImage(context.Background())
	must(err)
	must(stream.Send(&apiv1.GetImageRequest{Target: h.target(entity)}))
	for {
		m, err := stream.Recv()
		must(err)
		if m.GetNames() != nil {
			must(stream.Send(&apiv1.GetImageRequest{Want: []byte{1}}))
		}
		if data := m.GetData(); data != nil {
			must(stream.CloseSend())
			return data
		}
	}
}

// await prints events until one of that kind came.
func (h *exampleHost) await(kind core.BackendEventKind) {
	for {
		for len(h.events) == 0 {
			m, err := h.stream.Recv()
			must(err)
			if b := m.GetEvents(); len(b) > 0 {
				h.events, err = wire.DecodeEvents(b, false, nil)
				must(err)
			}
		}
		e := h.events[0]
		h.events = h.events[1:]
		fmt.Println(exampleEvent(&e))
		if e.Kind == kind {
			return
		}
	}
}

func exampleEvent(e *core.BackendEvent) string {
	switch e.Kind {
	case core.EventApplied:
		return "applied"
	case core.EventRefused:
		return fmt.Sprintf("refused job %d: %s", e.Job, e.Cause)
	case core.EventStarted:
		return fmt.Sprintf("started job %d", e.Job)
	case core.EventCompleted:
		return fmt.Sprintf("completed job %d: %d of %d", e.Job, e.Done, e.Executed)
	case core.EventMessageDone:
		if len(e.Reply) > 0 {
			return fmt.Sprintf("message done, reply %x", e.Reply)
		}
		return "message done"
	case core.EventDestroyed:
		return "destroyed"
	}
	return fmt.Sprintf("event %d", e.Kind)
}
