package plugintest

import (
	"bytes"
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

var sessionChecks = []check{
	{name: "session-describes-the-device", level: core.LevelJobs, run: sessionDescribes,
		doc: "the first reply of a session describes the device: its name, a granularity, at least one format and one credit"},
	{name: "session-needs-a-number", level: core.LevelJobs, run: sessionNeedsNumber,
		doc: "a session with number 0 is refused as invalid"},
	{name: "session-begins-with-open", level: core.LevelJobs, run: sessionBeginsWithOpen,
		doc: "a session whose first message does not open the device is refused"},
	{name: "session-opens-once", level: core.LevelJobs, run: sessionOpensOnce,
		doc: "a second open in a session ends it with an error"},
	{name: "device-needs-a-name", level: core.LevelJobs, run: deviceNeedsName,
		doc: "a device without a name is refused"},
	{name: "unknown-engine-is-refused", level: core.LevelJobs, run: unknownEngine,
		doc: "a device with an engine that the plugin does not declare is refused as invalid"},
	{name: "device-opens-again", level: core.LevelJobs, run: deviceOpensAgain,
		doc: "a later session of the same device finds the same device"},
	{name: "device-keeps-its-specification", level: core.LevelJobs, run: deviceKeeps,
		doc: "an open device is refused as exists with another engine or option, and goes on"},
	{name: "refused-device-leaves-its-name", level: core.LevelJobs, need: anInstance, run: deviceLeavesName,
		doc: "after a specification was refused another one can have its name"},
	{name: "session-ends-with-its-host", level: core.LevelJobs, run: sessionEnds,
		doc: "when the host closes its half, the plugin ends the session without an error"},
	{name: "same-session-takes-over", level: core.LevelJobs, run: sameSession,
		doc: "a session with the number of the present one takes over; the older stream ends as stale"},
	{name: "bulk-calls-need-a-session", level: core.LevelJobs, run: bulkNeedsSession,
		doc: "PutKernel and PutImage with session 0 are refused as stale"},
	{name: "devices-are-separate", level: core.LevelJobs, need: anInstance, run: devicesSeparate,
		doc: "two devices work at once, each numbers its own events from 1"},
	{name: "message-of-16MiB-crosses", level: core.LevelJobs, need: muchData, run: messageCrosses,
		doc: "messages of up to 16 MiB are received"},
	{name: "larger-message-is-refused", level: core.LevelJobs, need: muchData, run: messageTooLarge,
		doc: "a message beyond 16 MiB is refused, and the process lives"},
	{name: "errors-carry-detail", level: core.LevelJobs, run: errorsCarryDetail,
		doc: "every error status has a sentence, and an ErrorDetail with a reason of the closed set, to which code, retryable and epoch fit"},
}

func sessionDescribes(p *probe) {
	d := p.open(deviceName).describe()
	if d.Name != deviceName {
		p.failf("it describes device %q; %q was opened", d.Name, deviceName)
	}
	if len(d.Formats) == 0 {
		p.failf("it takes no kernel format")
	}
}

func sessionNeedsNumber(p *probe) {
	_, err := p.tryOpen(deviceName, 0, 0, nil)
	p.refusedWith("session 0", err, core.ErrInvalid)
}

func sessionBeginsWithOpen(p *probe) {
	_, err := p.tryOpen(deviceName, 1, 0, func(m *apiv1.SessionRequest) { m.Open = nil })
	p.refusedWith("a session without an open", err, core.ErrInvalid)
	p.alive("a session without an open")
}

func sessionOpensOnce(p *probe) {
	l := p.open(deviceName)
	_ = l.stream.Send(&apiv1.SessionRequest{Open: &apiv1.OpenDevice{
		Spec: &apiv1.DeviceSpec{Name: deviceName, Engine: p.kit.config.Engine}, Session: uint64(l.number),
	}})
	p.refusedWith("a second open", l.broken("a second open"), core.ErrInvalid)
	p.alive("a second open")
}

func deviceNeedsName(p *probe) {
	_, err := p.tryOpen("", 1, 0, nil)
	p.refusedWith("a device without a name", err, core.ErrCorrupt, core.ErrInvalid)
}

func unknownEngine(p *probe) {
	_, err := p.tryOpen("kit-engine", 1, 0, func(m *apiv1.SessionRequest) { m.GetOpen().GetSpec().Engine = "no-such-engine-of-the-kit" })
	p.refusedWith("a device with an unknown engine", err, core.ErrInvalid)
}

func deviceOpensAgain(p *probe) {
	first := p.open(deviceName)
	first.close()
	second := p.open(deviceName)
	if a, b := first.opened.GetDescription(), second.opened.GetDescription(); !proto.Equal(a, b) {
		p.failf("its description was %v, and is %v", a, b)
	}
}

func deviceKeeps(p *probe) {
	l := p.open(deviceName)
	for what, change := range map[string]func(*apiv1.DeviceSpec){
		"engine": func(s *apiv1.DeviceSpec) { s.Engine = "no-such-engine-of-the-kit" },
		"option": func(s *apiv1.DeviceSpec) { s.Options = map[string]string{"no-such-option-of-the-kit": "1"} },
	} {
		p.in.sessions[deviceName]++
		_, err := p.tryOpen(deviceName, p.in.sessions[deviceName], 0, func(m *apiv1.SessionRequest) { change(m.GetOpen().GetSpec()) })
		p.refusedWith("an open device with another "+what, err, core.ErrExists)
	}
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
}

func deviceLeavesName(p *probe) {
	const name = "kit-free"
	_, err := p.tryOpen(name, 1, 0, func(m *apiv1.SessionRequest) { m.GetOpen().GetSpec().Engine = "no-such-engine-of-the-kit" })
	p.refusedWith("a device with an unknown engine", err, core.ErrInvalid)
	l := p.open(name)
	e := p.entity(l, 8)
	e.completed(e.run(8, 1))
}

func sessionEnds(p *probe) {
	l := p.open(deviceName)
	_ = l.stream.CloseSend()
	if err := l.broken("the host closed its half"); err != nil {
		p.failf("the host closed its half, and the session ended with: %v", wire.FromStatus(err))
	}
}

func sameSession(p *probe) {
	first := p.open(deviceName)
	e := p.entity(first, 8)
	second, err := p.tryOpen(deviceName, first.number, 0, nil)
	if err != nil {
		p.failf("a session with the number of the present one was refused: %v", wire.FromStatus(err))
	}
	p.refusedWith("the older of two sessions of one number", first.broken("another session of its number"), core.ErrStale)
	e.on(second)
	e.completed(e.run(8, 1))
}

func bulkNeedsSession(p *probe) {
	l := p.open(deviceName)
	h := p.kernelHeader(l, p.kit.kernel)
	h.Session = 0
	p.refusedWith("a kernel for session 0", p.putKernel(l, h, p.kit.kernel.Code), core.ErrStale)
	e, from := empty(p, l, 8)
	p.refusedWith("an image for session 0", p.putImage(l, e.id, e.epoch, from, func(_ int, m *apiv1.PutImageRequest) bool {
		if t := m.GetTarget(); t != nil {
			t.Session = 0
		}
		return true
	}), core.ErrStale)
}

func devicesSeparate(p *probe) {
	for _, device := range []string{deviceName, "kit1"} {
		l := p.open(device)
		e := p.entity(l, 8)
		e.completed(e.run(8, 1))
		if first := l.history()[0]; first.Seq != 1 {
			p.failf("the first event of device %s has number %d; it must be 1", device, first.Seq)
		}
	}
}

// upTo uploads size bytes of a kernel in one message under a wrong digest.
func upTo(p *probe, size int) error {
	l := p.present()
	ctx, cancel := p.bound()
	defer cancel()
	stream, err := p.in.client.PutKernel(ctx, grpc.MaxCallSendMsgSize(2*wire.MessageMax))
	if err != nil {
		return err
	}
	code := bytes.Repeat([]byte{1}, size)
	h := p.kernelHeader(l, core.Kernel{Format: p.kit.kernel.Format, Code: code, Digest: core.DigestOf(nil)})
	_ = stream.Send(&apiv1.PutKernelRequest{Header: h, Code: code})
	_, err = stream.CloseAndRecv()
	return err
}

func messageCrosses(p *probe) {
	const room = 4 << 10 // for the rest of the message
	p.refusedWith("a kernel with a wrong digest in a message of nearly 16 MiB", upTo(p, wire.MessageMax-room), core.ErrCorrupt)
}

func messageTooLarge(p *probe) {
	if err := upTo(p, wire.MessageMax+1); err == nil {
		p.failf("a message beyond 16 MiB was taken")
	}
	p.alive("a message beyond 16 MiB")
}

// reasons are the closed set of a plugin, with code and whether it may be tried again.
var reasons = map[string]struct {
	code      codes.Code
	retryable bool
}{
	"closed": {codes.FailedPrecondition, false}, "full": {codes.ResourceExhausted, true}, "oversize": {codes.OutOfRange, false},
	"not-found": {codes.NotFound, false}, "exists": {codes.AlreadyExists, false}, "invalid": {codes.InvalidArgument, false},
	"unsupported": {codes.Unimplemented, false}, "stale": {codes.Aborted, false}, "corrupt": {codes.DataLoss, false},
	"gone": {codes.Unavailable, true}, "deadline": {codes.DeadlineExceeded, true}, "busy": {codes.Aborted, true},
}

// errorsCarryDetail makes a few errors and looks at their details.
func errorsCarryDetail(p *probe) {
	l := p.open(deviceName)
	elsewhere := p.kernelHeader(l, p.kit.kernel)
	elsewhere.Device = "no-such-device"
	_, opened := p.tryOpen(deviceName, 0, 0, nil)
	_, got := p.getImage(l, uint64(l.number), 1<<40, 7, nil)
	for what, err := range map[string]error{
		"session 0":                              opened,
		"PutKernel with a wrong digest":          p.putKernel(l, p.kernelHeader(l, core.Kernel{Format: p.kit.kernel.Format, Code: []byte{1}}), []byte{1}),
		"PutKernel to a device that is not open": p.putKernel(l, elsewhere, p.kit.kernel.Code),
		"PutImage for epoch 0":                   p.putImage(l, 1, 0, picture{header: core.ImageHeader{Version: 1, Entity: 1}}, nil),
		"GetImage of no entity in epoch 7":       got,
	} {
		if err == nil {
			p.failf("%s was taken", what)
		}
		d := detailOf(err)
		if d == nil {
			p.failf("the error of %s carries no ErrorDetail: %v", what, err)
		}
		means, ok := reasons[d.GetReason()]
		switch epoch := uint64(strings.Count(what, "epoch 7")) * 7; {
		case !ok:
			p.failf("the error of %s has the reason %q, which is none of the closed set", what, d.GetReason())
		case status.Code(err) != means.code:
			p.failf("the error of %s has the reason %q and the code %s; it must be %s", what, d.GetReason(), status.Code(err), means.code)
		case d.GetRetryable() != means.retryable:
			p.failf("the error of %s has the reason %q, retryable: %t", what, d.GetReason(), d.GetRetryable())
		case d.GetEpoch() != epoch:
			p.failf("the error of %s is of epoch %d, the call was of epoch %d", what, d.GetEpoch(), epoch)
		case status.Convert(err).Message() == "":
			p.failf("the error of %s has no sentence", what)
		}
	}
}

// stalled begins an upload and leaves it open after its first messages.
func (e *life) stalled(ctx context.Context, from picture, messages int) {
	stop := make(chan struct{})
	go func() {
		_ = e.p.putImageIn(ctx, e.l, e.id, e.epoch, from, func(n int, _ *apiv1.PutImageRequest) bool {
			if n == messages {
				close(stop)
				<-ctx.Done()
				return false
			}
			return true
		})
	}()
	<-stop
}
