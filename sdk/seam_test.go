package sdk_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server and a client over an in-memory connection.
type rig struct {
	t       *testing.T
	server  *sdk.TestServer
	backend *memory.Backend
	client  apiv1.BackendClient
	calls   calls
	fatal   chan string
}

// calls are what the backend was told, per entity.
type calls struct {
	mu   sync.Mutex
	list []string
}

func (c *calls) add(entity core.EntityID, _ core.Epoch, call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, fmt.Sprintf("%d %s", entity, call))
}

func (c *calls) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.list...)
}

// newRig must be called inside a bubble when the test is about time; close it
// before the bubble ends.
func newRig(t *testing.T) (*rig, func()) {
	t.Helper()
	b := &memory.Backend{}
	r, done := newRigOf(t, b)
	r.backend, b.Calls = b, r.calls.add
	return r, done
}

// newRigOf is newRig for a backend of the test's own.
func newRigOf(t *testing.T, b sdk.Backend) (*rig, func()) {
	t.Helper()
	r := &rig{t: t, fatal: make(chan string, 1)}
	r.server = sdk.NewTestServer(b, leaseOfTests, func(why string) { r.fatal <- why; select {} })
	listener := bufconn.Listen(1 << 20)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(wire.MessageMax))
	r.server.Register(g)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:bufconn",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.client = apiv1.NewBackendClient(conn)
	return r, func() {
		r.server.Shutdown()
		_ = conn.Close()
		g.Stop()
		<-served
	}
}

// line is one session as a host sees it.
type line struct {
	r        *rig
	stream   apiv1.Backend_SessionClient
	cancel   context.CancelFunc
	opened   *apiv1.DeviceOpened
	pending  []core.BackendEvent
	progress []core.BackendEvent
}

func (r *rig) tryOpen(session, acked uint64) (*line, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := r.client.Session(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	_ = stream.Send(&apiv1.SessionRequest{Open: &apiv1.OpenDevice{
		Spec: &apiv1.DeviceSpec{Name: "d0", Engine: "none"}, Session: session, Acked: acked,
	}})
	m, err := stream.Recv()
	if err != nil {
		cancel()
		return nil, wire.FromStatus(err)
	}
	return &line{r: r, stream: stream, cancel: cancel, opened: m.GetOpened()}, nil
}

func (r *rig) open(session uint64) *line {
	r.t.Helper()
	l, err := r.tryOpen(session, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func (l *line) send(commands ...core.Command) {
	l.r.t.Helper()
	for len(commands) > 0 {
		var b wire.CommandBatch
		for len(commands) > 0 && !b.Full() {
			if err := b.Append(&commands[0]); err != nil {
				l.r.t.Fatal(err)
			}
			commands = commands[1:]
		}
		if err := l.stream.Send(&apiv1.SessionRequest{Commands: b.Body()}); err != nil {
			return
		}
	}
}

func (l *line) ack(seq core.EventSeq) { _ = l.stream.Send(&apiv1.SessionRequest{Ack: uint64(seq)}) }

// receive takes one message apart.
func (l *line) receive() error {
	m, err := l.stream.Recv()
	if err != nil {
		return wire.FromStatus(err)
	}
	if b := m.GetEvents(); len(b) > 0 {
		if l.pending, err = wire.DecodeEvents(b, false, l.pending); err != nil {
			return err
		}
	}
	if b := m.GetProgress(); len(b) > 0 {
		if l.progress, err = wire.DecodeEvents(b, true, l.progress); err != nil {
			return err
		}
	}
	return nil
}

func (l *line) next() core.BackendEvent {
	l.r.t.Helper()
	for len(l.pending) == 0 {
		if err := l.receive(); err != nil {
			l.r.t.Fatal(err)
		}
	}
	e := l.pending[0]
	l.pending = l.pending[1:]
	return e
}

func (l *line) expect(kind core.BackendEventKind) core.BackendEvent {
	l.r.t.Helper()
	e := l.next()
	if e.Kind != kind {
		l.r.t.Fatalf("event %+v, want kind %d", e, kind)
	}
	return e
}

// broken waits until the session ends and returns why.
func (l *line) broken() error {
	for {
		if err := l.receive(); err != nil {
			return err
		}
	}
}

var kernel = []byte("code")

func (r *rig) putKernel(code []byte, digest core.Digest) error {
	stream, err := r.client.PutKernel(context.Background())
	if err != nil {
		return err
	}
	_ = stream.Send(&apiv1.PutKernelRequest{Header: &apiv1.KernelHeader{
		Device: "d0", Session: 1 << 40, Digest: digest[:], Format: core.FormatWasm, Size: uint64(len(code)),
	}, Code: code})
	_, err = stream.CloseAndRecv()
	return wire.FromStatus(err)
}

// putImage sends an image; damage may change each message.
func (r *rig) putImage(entity, epoch uint64, content []byte, damage func(n int, m *apiv1.PutImageRequest)) error {
	stream, err := r.client.PutImage(context.Background())
	if err != nil {
		return err
	}
	h := core.ImageHeader{Version: 1, Entity: core.EntityID(entity), Buffers: []core.BufferSpec{{Name: "b", Size: uint64(len(content))}}}
	header, err := wire.FromImageHeader(h)
	if err != nil {
		return err
	}
	n := 0
	send := func(m *apiv1.PutImageRequest) {
		if damage != nil {
			damage(n, m)
		}
		n++
		_ = stream.Send(m)
	}
	send(&apiv1.PutImageRequest{Target: &apiv1.ImageTarget{Device: "d0", Session: 1 << 40, Entity: entity, Epoch: epoch}, Header: header})
	order := wire.NewSequence(h.Buffers)
	err = sdk.BufferImage(h, [][]byte{content}).Chunks(func(ref core.ChunkRef, data []byte) error {
		name := wire.Name{ChunkRef: ref, Zero: data == nil}
		refs := wire.PutCount(wire.AppendName(nil, name), 1)
		send(&apiv1.PutImageRequest{Names: &apiv1.ChunkNames{Refs: refs}, Data: data})
		return order.Next(name)
	})
	if err != nil {
		return err
	}
	trailer, err := order.Trailer()
	if err != nil {
		return err
	}
	send(&apiv1.PutImageRequest{Trailer: trailer})
	_, err = stream.CloseAndRecv()
	return wire.FromStatus(err)
}

// create brings an entity onto the device.
func (l *line) create(entity, epoch, seq uint64) {
	l.r.t.Helper()
	l.send(createCommand(entity, epoch, seq))
	if err := l.r.putImage(entity, epoch, []byte{1, 2, 3}, nil); err != nil {
		l.r.t.Fatal(err)
	}
	l.expect(core.EventApplied)
	if err := l.r.putKernel(kernel, core.DigestOf(kernel)); err != nil {
		l.r.t.Fatal(err)
	}
}

func createCommand(entity, epoch, seq uint64) core.Command {
	return core.Command{Kind: core.CommandCreate, Entity: core.EntityID(entity), Epoch: core.Epoch(epoch), Seq: core.CommandSeq(seq),
		EntitySpec: &core.EntitySpec{Name: "e", Mode: core.ModeCompute, Buffers: []core.BufferSpec{{Name: "b", Size: 3}}}}
}

func runCommand(entity, epoch, seq, job uint64, entry string) core.Command {
	return core.Command{Kind: core.CommandRun, Entity: core.EntityID(entity), Epoch: core.Epoch(epoch), Seq: core.CommandSeq(seq),
		Job: core.JobID(job), JobSpec: &core.JobSpec{
			ID: core.JobID(job), Name: "j", Entry: entry, Credits: 1, Kernels: map[string]core.Digest{core.FormatWasm: core.DigestOf(kernel)},
			Grid: [3]uint32{16, 1, 1}, Group: [3]uint32{1, 1, 1},
		}}
}

func command(kind core.CommandKind, entity, epoch, seq, job uint64) core.Command {
	return core.Command{Kind: kind, Entity: core.EntityID(entity), Epoch: core.Epoch(epoch), Seq: core.CommandSeq(seq), Job: core.JobID(job)}
}

func message(entity, epoch, seq uint64, kind core.MessageKind) core.Command {
	c := command(core.CommandMessage, entity, epoch, seq, 0)
	c.Message = kind
	return c
}

func mustBe(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}
