package driver

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

func TestIDs(t *testing.T) {
	s := idSet{limit: abi.GUCIDMax}
	for want := range abi.GUCID(abi.GUCIDMax) {
		if id, err := s.take(); err != nil || id != want {
			t.Fatalf("id %d, %v, want %d", id, err, want)
		}
	}
	if _, err := s.take(); !errors.Is(err, core.ErrFull) {
		t.Errorf("one id too many: %v", err)
	}
	s.give(1000)
	if id, err := s.take(); err != nil || id != 1000 {
		t.Errorf("id %d, %v, want 1000 again", id, err)
	}
}

// config is that of a device without a firmware.
func config(t *testing.T) Config {
	t.Helper()
	arena, err := hw.NewArena(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { arena.Close() })
	registers, err := hw.NewRegisters(arena, abi.RegWindows[:]...)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Arena: arena, Clock: hw.NewVirtualClock(),
		Ports: hw.Ports{Registers: registers, Doorbell: hw.NewLine(), Interrupt: hw.NewLine()}}
}

func TestConfig(t *testing.T) {
	good := config(t)
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"no arena":   func(c *Config) { c.Arena = nil },
		"no clock":   func(c *Config) { c.Clock = nil },
		"credits":    func(c *Config) { c.Credits = CreditsMax + 1 },
		"entities":   func(c *Config) { c.EntitiesMax = abi.GUCIDMax + 1 },
		"quantum":    func(c *Config) { c.Quantum = 101 * time.Second },
		"preemption": func(c *Config) { c.Preemption = time.Nanosecond },
	} {
		bad := good
		spoil(&bad)
		if _, err := New(bad); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzPrivate(f *testing.F) {
	f.Add(privateState{seqno: abi.FirstSeqno, jobTimestamp: 7, timestamp: 1 << 40, head: 80, tail: 160}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePrivate(b)
		if err != nil {
			if !errors.Is(err, core.ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(p.encode(), b) {
			t.Fatalf("%x encodes again as %x", b, p.encode())
		}
	})
}
