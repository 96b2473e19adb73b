package host

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// hostile is a plugin that says what the test wants.
type hostile struct {
	apiv1.UnimplementedBackendServer
	opened *apiv1.DeviceOpened
	replay []*apiv1.SessionReply
	image  []*apiv1.GetImageReply
}

func (h *hostile) Session(stream apiv1.Backend_SessionServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	_ = stream.Send(&apiv1.SessionReply{Opened: h.opened})
	for _, m := range h.replay {
		_ = stream.Send(m)
	}
	<-stream.Context().Done()
	return nil
}

func (h *hostile) GetImage(stream apiv1.Backend_GetImageServer) error {
	for _, m := range h.image {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// attachTo returns an instance that talks to s in memory.
func attachTo(t *testing.T, s apiv1.BackendServer) *Instance {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	apiv1.RegisterBackendServer(g, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = g.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:plugin", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	l, _ := newLauncher(t, nil)
	i := &Instance{launcher: l, log: hclog.NewNullLogger(), conn: conn, client: apiv1.NewBackendClient(conn),
		detach: func() {}, gone: make(chan struct{})}
	i.ctx, i.cancel = context.WithCancelCause(context.Background())
	i.mu.sessions, i.mu.acked = map[string]core.Session{}, map[string]core.EventSeq{}
	t.Cleanup(func() { i.Detach(); g.Stop(); <-served })
	return i
}

func described() *apiv1.DeviceOpened {
	return &apiv1.DeviceOpened{Description: &apiv1.DeviceDescription{Name: "d0", Granularity: "workgroup", Credits: 1}}
}

func TestLinesOfAHostilePlugin(t *testing.T) {
	event := func(seq core.EventSeq) []byte {
		e := core.BackendEvent{Kind: core.EventStarted, Seq: seq, Entity: 1, Epoch: 1, Job: 1}
		var b wire.EventBatch
		b.Append(&e)
		return b.Body()
	}
	for name, replay := range map[string][]*apiv1.SessionReply{
		"garbage":          {{Events: []byte{1, 2, 3}}},
		"described twice":  {{Opened: described()}},
		"gap at the start": {{Events: event(2)}},
		"gap":              {{Events: event(1)}, {Events: event(3)}},
		"numbered sample":  {{Progress: event(1)}},
		"same event again": {{Events: event(1)}, {Events: event(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			i := attachTo(t, &hostile{opened: described(), replay: replay})
			k, err := i.Open(t.Context(), core.DeviceSpec{Name: "d0"}, 1, func([]core.BackendEvent) {})
			if err != nil {
				t.Fatal(err)
			}
			<-k.Down()
			if err := context.Cause(k.ctx); !errors.Is(err, core.ErrCorrupt) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestDescriptionsOfAHostilePlugin(t *testing.T) {
	for name, change := range map[string]func(*apiv1.DeviceOpened){
		"nothing":     func(o *apiv1.DeviceOpened) { o.Description = nil },
		"other name":  func(o *apiv1.DeviceOpened) { o.Description.Name = "d1" },
		"granularity": func(o *apiv1.DeviceOpened) { o.Description.Granularity = "atom" },
		"credits":     func(o *apiv1.DeviceOpened) { o.Description.Credits = 0 },
		"entity 0":    func(o *apiv1.DeviceOpened) { o.Held = []*apiv1.HeldEntity{{Epoch: 1}} },
		"held twice": func(o *apiv1.DeviceOpened) {
			o.Held = []*apiv1.HeldEntity{{Entity: 1, Epoch: 1}, {Entity: 1, Epoch: 2}}
		},
	} {
		o := described()
		change(o)
		i := attachTo(t, &hostile{opened: o})
		if _, err := i.Open(t.Context(), core.DeviceSpec{Name: "d0"}, 1, nil); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStartOfTheEvents: the events of a session begin where the plugin was told.
func TestStartOfTheEvents(t *testing.T) {
	for _, tc := range []struct {
		told, says core.EventSeq
		ok         bool
	}{
		{0, 0, true}, {0, 7, true}, {5, 5, true},
		{5, 4, false}, {5, 6, false}, {5, 0, false}, {0, 1<<64 - 1, false},
	} {
		o := described()
		o.Acked = uint64(tc.says)
		e := core.BackendEvent{Kind: core.EventStarted, Seq: tc.says + 1, Entity: 1, Epoch: 1, Job: 1}
		var b wire.EventBatch
		b.Append(&e)
		i := attachTo(t, &hostile{opened: o, replay: []*apiv1.SessionReply{{Events: b.Body()}}})
		if tc.told != 0 {
			i.mu.acked["d0"] = tc.told
		}
		got := make(chan core.EventSeq, 1)
		_, err := i.Open(t.Context(), core.DeviceSpec{Name: "d0"}, 1, func(events []core.BackendEvent) { got <- events[0].Seq })
		if !tc.ok {
			if !errors.Is(err, core.ErrCorrupt) {
				t.Errorf("%+v: %v", tc, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%+v: %v", tc, err)
		}
		if seq := <-got; seq != tc.says+1 {
			t.Errorf("%+v: event %d", tc, seq)
		}
	}
}

func TestDamagedImagesFromAPlugin(t *testing.T) {
	content := []byte{1, 2, 3}
	ref := wire.Name{ChunkRef: core.ChunkRef{Size: 3, Digest: core.DigestOf(content)}}
	order := wire.NewSequence([]core.BufferSpec{{Name: "b", Size: 3}})
	if err := order.Next(ref); err != nil {
		t.Fatal(err)
	}
	trailer, err := order.Trailer()
	if err != nil {
		t.Fatal(err)
	}
	header := &apiv1.GetImageReply{Header: &apiv1.ImageHeader{Version: 1, Entity: 1, Buffers: []*apiv1.BufferSpec{{Name: "b", Size: 3}}}}
	names := &apiv1.GetImageReply{Names: &apiv1.ChunkNames{Refs: wire.PutCount(wire.AppendName(nil, ref), 1)}}
	end := &apiv1.GetImageReply{Trailer: trailer}
	good := []*apiv1.GetImageReply{header, names, {Data: content}, end}
	for name, replies := range map[string][]*apiv1.GetImageReply{
		"byte flipped": {header, names, {Data: []byte{1, 2, 4}}, end},
		"no trailer":   {header, names, {Data: content}},
		"no chunks":    {header, end},
		"chunk twice":  {header, names, {Data: content}, names, {Data: content}, end},
		"empty window": {header, {}, end},
		"entity":       {{Header: &apiv1.ImageHeader{Version: 1, Entity: 2}}, {Trailer: &apiv1.Trailer{}}},
		"goes on":      append(slices.Clone(good), end),
	} {
		i := attachTo(t, &hostile{image: replies})
		if _, err := i.GetImage(t.Context(), "d0", 1, 1, &sink{}); !errors.Is(err, core.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	i := attachTo(t, &hostile{image: good})
	s := &sink{}
	if _, err := i.GetImage(t.Context(), "d0", 1, 1, s); err != nil || !bytes.Equal(s.content[0], content) {
		t.Errorf("undamaged: %v, %v", s.content, err)
	}
}

// particular is a sink that takes one list of buffers only.
type particular struct {
	sink
	buffers []core.BufferSpec
}

func (p *particular) CheckHeader(h core.ImageHeader) error {
	if !slices.Equal(h.Buffers, p.buffers) {
		return core.ErrCorrupt
	}
	return nil
}

// TestImagesOfOtherBuffersFromAPlugin: the sink says which buffers an image has,
// and nothing of another one reaches it.
func TestImagesOfOtherBuffersFromAPlugin(t *testing.T) {
	want := []core.BufferSpec{{Name: "b", Size: 3}}
	for name, have := range map[string][]core.BufferSpec{
		"the same":   want,
		"other name": {{Name: "c", Size: 3}},
		"larger":     {{Name: "b", Size: 4}},
		"one more":   {{Name: "b", Size: 3}, {Name: "c", Size: 1 << 40}},
		"none":       nil,
	} {
		var refs []byte
		order := wire.NewSequence(have)
		header := &apiv1.ImageHeader{Version: 1, Entity: 1}
		for n, b := range have {
			header.Buffers = append(header.Buffers, &apiv1.BufferSpec{Name: b.Name, Size: b.Size})
			size := min(b.Size, core.ChunkSize)
			name := wire.Name{ChunkRef: core.ChunkRef{Buffer: n, Size: int(size), Digest: core.DigestOf(wire.Zeroes[:size])}, Zero: true}
			refs = wire.AppendName(refs, name)
			if err := order.Next(name); err != nil {
				t.Fatal(err)
			}
		}
		replies := []*apiv1.GetImageReply{{Header: header}}
		if len(have) > 0 {
			replies = append(replies, &apiv1.GetImageReply{Names: &apiv1.ChunkNames{Refs: wire.PutCount(refs, len(have))}})
		}
		if trailer, err := order.Trailer(); err == nil {
			replies = append(replies, &apiv1.GetImageReply{Trailer: trailer})
		}
		i := attachTo(t, &hostile{image: replies})
		s := &particular{buffers: want}
		_, err := i.GetImage(t.Context(), "d0", 1, 1, s)
		if name == "the same" {
			if err != nil || s.puts != 1 {
				t.Errorf("%s: %v, %d puts", name, err, s.puts)
			}
		} else if !errors.Is(err, core.ErrCorrupt) || s.puts != 0 {
			t.Errorf("%s: %v, %d puts", name, err, s.puts)
		}
	}
}

func TestLargeImageBothWays(t *testing.T) {
	b := start(t, nil)
	k := b.open(1)
	// More than two windows, zeroes among them, and a short last chunk.
	content := make([]byte, 40*core.ChunkSize+77)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	clear(content[3*core.ChunkSize : 6*core.ChunkSize])
	b.create(k, 1, 1, content)
	k.Send([]core.Command{message(1, 1, 2, core.MessageSuspend)})
	b.expect(core.EventMessageDone)
	s := &sink{}
	for round := range 2 {
		s.content, s.puts, s.nils = nil, 0, 0
		h, err := b.inst.GetImage(t.Context(), "d0", 1, 1, s)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(s.content[0], content) || h.Entity != 1 || string(h.Private) != "private" {
			t.Errorf("round %d: content differs or header is %+v", round, h)
		}
		// The second time the sink has them all.
		if s.puts != 41 || round == 1 && s.nils != 41 {
			t.Errorf("round %d: %d puts, %d without bytes", round, s.puts, s.nils)
		}
	}
	src := sdk.BufferImage(core.ImageHeader{Version: core.ImageVersion, Entity: 2, Buffers: []core.BufferSpec{{Name: "b", Size: 9}}}, [][]byte{make([]byte, 8)})
	if err := b.inst.PutImage(t.Context(), "d0", 2, 1, src); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("image that does not fit its header: %v", err)
	}
}
