package sdk_test

import (
	"fmt"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/sdk"
	"github.com/gpuwm/gpuwm/sdk/internal/memory"
)

// The main of a plugin is one call. Started by hand it says what it is; a host
// starts it with the environment that the handshake needs.
func ExampleServe() {
	main := func() { sdk.Serve(&memory.Backend{}) }
	_ = main
}

// A backend hands out its entity's memory as an image.
func ExampleBufferImage() {
	found := make([]byte, core.ChunkSize+4)
	found[core.ChunkSize] = 7
	image := sdk.BufferImage(core.ImageHeader{
		Version: core.ImageVersion, Entity: 1,
		Buffers: []core.BufferSpec{{Name: "found", Size: uint64(len(found))}},
	}, [][]byte{found})
	_ = image.Chunks(func(ref core.ChunkRef, data []byte) error {
		fmt.Printf("chunk %d of %s: %d bytes, zero: %v\n", ref.Index, image.Header().Buffers[ref.Buffer].Name, ref.Size, data == nil)
		return nil
	})
	// Output:
	// chunk 0 of found: 262144 bytes, zero: true
	// chunk 1 of found: 4 bytes, zero: false
}
