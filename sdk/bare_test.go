package sdk_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	apiv1 "github.com/gpuwm/gpuwm/api/v1"
	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
	"github.com/gpuwm/gpuwm/sdk/internal/wire"
)

// bareBackend is the memory backend whose entities can do no more than sdk.Entity.
type bareBackend struct{ memory.Backend }

// bareDevice is its device.
type bareDevice struct{ sdk.Device }

// bareEntity hides the other methods of what it embeds.
type bareEntity struct{ sdk.Entity }

func (b *bareBackend) Open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (sdk.Device, error) {
	d, err := b.Backend.Open(ctx, spec, log, failed)
	return bareDevice{d}, err
}

func (d bareDevice) Create(ctx context.Context, spec *core.EntitySpec, image core.ImageSource, report sdk.Reporter) (sdk.Entity, error) {
	e, err := d.Device.Create(ctx, spec, image, report)
	return bareEntity{e}, err
}

// TestBareEntity: what an entity has no method for is refused as unsupported, and the
// entity goes on; a barrier needs no method.
func TestBareEntity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, done := newRigOf(t, &bareBackend{})
		defer done()
		l := r.open(1)
		l.create(1, 1, 1)
		for seq, kind := range []core.MessageKind{
			core.MessageSuspend, core.MessageResume, core.MessageSetProperties, memory.Reverse, core.MessageBackend - 1,
		} {
			l.send(message(1, 1, uint64(seq)+2, kind))
			e := l.expect(core.EventRefused)
			if e.Cause != core.CauseRefused || !strings.Contains(e.Error, core.ErrUnsupported.Error()) {
				t.Errorf("message %d: %+v", kind, e)
			}
		}
		l.send(message(1, 1, 7, core.MessageBarrier))
		l.expect(core.EventMessageDone)
		l.send(runCommand(1, 1, 8, 7, memory.Instant))
		l.expect(core.EventStarted)
		l.expect(core.EventCompleted)

		// Without a Suspender nothing is ever suspended, so there is no image either.
		stream, err := r.client.GetImage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{Device: "d0", Session: 1, Entity: 1, Epoch: 1}})
		_, err = stream.Recv()
		mustBe(t, "image", wire.FromStatus(err), core.ErrInvalid)

		// Nor samples.
		l.send(runCommand(1, 1, 9, 8, memory.Slow))
		l.expect(core.EventStarted)
		l.send(command(core.CommandDestroy, 1, 1, 10, 0))
		if e := l.expect(core.EventDestroyed); e.Job != 0 || len(l.progress) != 0 {
			t.Errorf("%+v, samples %v", e, l.progress)
		}
	})
}

// stillEntity can be suspended and not saved.
type stillEntity struct {
	bareEntity
	sdk.Suspender
}

type stillBackend struct{ memory.Backend }

type stillDevice struct{ sdk.Device }

func (b *stillBackend) Open(ctx context.Context, spec core.DeviceSpec, log hclog.Logger, failed func(error)) (sdk.Device, error) {
	d, err := b.Backend.Open(ctx, spec, log, failed)
	return stillDevice{d}, err
}

func (d stillDevice) Create(ctx context.Context, spec *core.EntitySpec, image core.ImageSource, report sdk.Reporter) (sdk.Entity, error) {
	e, err := d.Device.Create(ctx, spec, image, report)
	if err != nil {
		return nil, err
	}
	return stillEntity{bareEntity{e}, e.(sdk.Suspender)}, nil
}

// TestEntityThatIsNoSaver: an image of a suspended entity is refused as unsupported.
func TestEntityThatIsNoSaver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, done := newRigOf(t, &stillBackend{})
		defer done()
		l := r.open(1)
		l.create(1, 1, 1)
		l.send(message(1, 1, 2, core.MessageSuspend))
		l.expect(core.EventMessageDone)
		stream, err := r.client.GetImage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(&apiv1.GetImageRequest{Target: &apiv1.ImageTarget{Device: "d0", Session: 1, Entity: 1, Epoch: 1}})
		_, err = stream.Recv()
		if err = wire.FromStatus(err); !errors.Is(err, core.ErrUnsupported) {
			t.Errorf("image: %v", err)
		}
	})
}
