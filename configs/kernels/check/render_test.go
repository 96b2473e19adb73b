package check

import (
	"bytes"
	"testing"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/plugins/engine"
	"github.com/gpuwm/gpuwm/plugins/engine/wasm"
)

// picture renders 160 × 120 pixels in tiles that do not divide the height.
func picture(t *testing.T, cores int) []byte {
	t.Helper()
	const width, height = 160, 120
	seg := segments(t, width*height*4)
	run(t, cores, engine.Dispatch{Kernel: kernel(t, "render"), Entry: "render", Grid: [3]uint32{10, 8, 1}, Group: [3]uint32{16, 16, 1},
		Args: []engine.Arg{buffer(seg[0]), scalar(width), scalar(height), scalar(2)}, Segments: seg, Space: 1})
	return bytes.Clone(seg[0].Bytes[:width*height*4])
}

func TestRenderIsTheSameOnEveryMachine(t *testing.T) {
	one, all := picture(t, 1), picture(t, 0)
	if !bytes.Equal(one, all) {
		t.Error("one core and all cores render different pictures")
	}
	// The digest is that of the first machine: any other must agree, bit for bit.
	const want = "9949ec94702b42debd028fa30e76d6a3dc05801d4b44ebb6a2e9340ca4cc16e0"
	if got := core.DigestOf(one).String(); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	colours := make(map[[4]byte]int)
	for i := 0; i < len(one); i += 4 {
		colours[[4]byte(one[i:])]++
		if one[i+3] != 255 {
			t.Fatalf("pixel %d is not opaque", i/4)
		}
	}
	if len(colours) < 2000 {
		t.Errorf("only %d colours: that is no picture of the scene", len(colours))
	}
}

// TestDeclarations: the kernels declare what the examples pass.
func TestDeclarations(t *testing.T) {
	b := core.Arg{Kind: core.ArgBuffer}
	u32, u64 := core.Arg{Kind: core.ArgU32}, core.Arg{Kind: core.ArgU64}
	for _, c := range []struct {
		kernel, entry string
		args          []core.Arg
	}{
		{"mersenne", "factor", []core.Arg{b, b, u32, u32, u64, u32}},
		{"render", "render", []core.Arg{b, u32, u32, u32}},
	} {
		in, err := wasm.Inspect(kernel(t, c.kernel).Code)
		if err != nil {
			t.Fatal(err)
		}
		if err := in.CheckJob(c.entry, c.args, 4<<20); err != nil {
			t.Error(err)
		}
		if err := in.CheckJob(c.entry, c.args[1:], 4<<20); err == nil {
			t.Errorf("%s takes too few arguments", c.kernel)
		}
		if !in.Cores {
			t.Errorf("%s runs on one core only", c.kernel)
		}
	}
}
