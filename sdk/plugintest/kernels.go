package plugintest

import (
	_ "embed"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/gpuwm/gpuwm/core"
)

// Format is the kernel format of backends that carry out the entries themselves,
// and Code is all of its code.
const (
	Format = "conformance"
	Code   = "gpuwm conformance 1\n"
)

var (
	//go:embed kernels/conformance.wasm
	wasmCode []byte
	//go:embed kernels/conformance.cl
	openCLCode []byte
)

// kernelFor returns the kit's kernels in the first format of the device that it has.
func kernelFor(formats []string) (core.Kernel, error) {
	known := map[string][]byte{core.FormatWasm: wasmCode, core.FormatOpenCL: openCLCode, Format: []byte(Code)}
	for _, f := range formats {
		if code, ok := known[f]; ok {
			return core.Kernel{Digest: core.DigestOf(code), Format: f, Code: code}, nil
		}
	}
	return core.Kernel{}, fmt.Errorf("the device takes kernels as %q, the kit has wasm, opencl and %s: "+
		"let the device take the format %s too and carry out its entries (package plugintest): %w",
		strings.Join(formats, ", "), Format, Format, core.ErrUnsupported)
}

// mixed returns cells after the workgroups from first to before end of a job of
// that seed.
func mixed(cells []uint32, seed uint32, first, end uint64) []uint32 {
	out := append([]uint32(nil), cells...)
	for w := first; w < end; w++ {
		out[w] = out[w]*33 + seed + uint32(w)
	}
	return out
}

// counted returns n cells that differ from each other and from zero.
func counted(n int) []uint32 {
	cells := make([]uint32, n)
	for i := range cells {
		cells[i] = uint32(i)*2654435761 + 1
	}
	return cells
}

func toBytes(cells []uint32) []byte {
	b := make([]byte, 0, 4*len(cells))
	for _, c := range cells {
		b = binary.LittleEndian.AppendUint32(b, c)
	}
	return b
}

func toCells(b []byte) []uint32 {
	cells := make([]uint32, len(b)/4)
	for i := range cells {
		cells[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return cells
}

func u32(v uint32) core.Arg { return core.Arg{Kind: core.ArgU32, Bits: uint64(v)} }

func buffer(name string) core.Arg { return core.Arg{Kind: core.ArgBuffer, Buffer: name} }
