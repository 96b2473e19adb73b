package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/gpuwm/gpuwm/core"
	"github.com/gpuwm/gpuwm/core/crash"
	bolt "go.etcd.io/bbolt"
)

// The buckets and keys of an image file; doc.go shows what is in them.
const (
	imageMeta        = "meta"
	imageKernels     = "kernels"
	imageChunks      = "chunks"
	imageGenerations = "generations"
	imageSchema      = 1
)

var (
	keySchema = []byte("schema")
	keyHeader = []byte("header")
	keyTable  = []byte("table")
	keyChunk  = []byte("d")
)

// imageChunksMax bounds the chunks of one image: 4 TiB of buffers.
const imageChunksMax = 4 << 40 / core.ChunkSize

// zeroChunk is the digest of a whole chunk of zeroes.
var zeroChunk = core.DigestOf(make([]byte, core.ChunkSize))

// zeroDigest returns the digest of size zeroes, 1 to core.ChunkSize.
func zeroDigest(size int) core.Digest {
	if size == core.ChunkSize {
		return zeroChunk
	}
	return core.DigestOf(make([]byte, size))
}

func createImage(tx *bolt.Tx) error {
	for _, name := range []string{imageMeta, imageKernels, imageChunks, imageGenerations} {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return err
		}
	}
	return tx.Bucket([]byte(imageMeta)).Put(keySchema, strconv.AppendInt(nil, imageSchema, 10))
}

func checkImageSchema(tx *bolt.Tx) error {
	for _, name := range []string{imageMeta, imageKernels, imageChunks, imageGenerations} {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("bucket %s is missing: %w", name, core.ErrCorrupt)
		}
	}
	text := tx.Bucket([]byte(imageMeta)).Get(keySchema)
	schema, err := strconv.Atoi(string(text))
	if err != nil || schema < 1 {
		return fmt.Errorf("schema %q: %w", text, core.ErrCorrupt)
	}
	return checkSchema(schema, schema, imageSchema)
}

// generation is the decoded record of one: header, and the digest of each chunk
// in buffer and index order.
type generation struct {
	header core.ImageHeader
	table  []byte
}

// chunkCount returns how many chunks hold size bytes.
func chunkCount(size uint64) uint64 {
	n := size / core.ChunkSize
	if size%core.ChunkSize != 0 {
		n++
	}
	return n
}

// refs calls f for every chunk in order.
func (g *generation) refs(f func(ref core.ChunkRef) error) error {
	at := 0
	for i, b := range g.header.Buffers {
		for index := range chunkCount(b.Size) {
			ref := core.ChunkRef{Buffer: i, Index: index, Size: int(min(b.Size-index*core.ChunkSize, core.ChunkSize))}
			at += copy(ref.Digest[:], g.table[at:])
			if err := f(ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// imageChunkTotal returns the chunks that buffers make, false beyond the bound.
func imageChunkTotal(buffers []core.BufferSpec) (uint64, bool) {
	var total uint64
	for _, b := range buffers {
		n := chunkCount(b.Size)
		if n > imageChunksMax || total+n > imageChunksMax {
			return 0, false
		}
		total += n
	}
	return total, true
}

// encodeGeneration returns the two values of a generation.
func encodeGeneration(g *generation) (header, table []byte, err error) {
	header, err = json.Marshal(&g.header)
	if err != nil {
		return nil, nil, err
	}
	return sealDigest(header), sealDigest(bytes.Clone(g.table)), nil
}

// decodeGeneration reads what encodeGeneration wrote; it copies what it keeps.
// Errors wrap core.ErrCorrupt.
func decodeGeneration(header, table []byte) (*generation, error) {
	g := new(generation)
	text, err := unsealDigest(header)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := json.Unmarshal(text, &g.header); err != nil {
		return nil, fmt.Errorf("header: %w: %w", err, core.ErrCorrupt)
	}
	digests, err := unsealDigest(table)
	if err != nil {
		return nil, fmt.Errorf("chunk table: %w", err)
	}
	total, ok := imageChunkTotal(g.header.Buffers)
	if !ok || uint64(len(digests)) != total*sha256.Size {
		return nil, fmt.Errorf("chunk table: %d bytes: %w", len(digests), core.ErrCorrupt)
	}
	g.table = bytes.Clone(digests)
	return g, nil
}

func sealDigest(value []byte) []byte {
	d := core.DigestOf(value)
	return append(value, d[:]...)
}

func unsealDigest(sealed []byte) ([]byte, error) {
	n := len(sealed) - sha256.Size
	if n < 0 {
		return nil, fmt.Errorf("%d bytes: %w", len(sealed), core.ErrCorrupt)
	}
	if core.DigestOf(sealed[:n]) != core.Digest(sealed[n:]) {
		return nil, fmt.Errorf("digest differs: %w", core.ErrCorrupt)
	}
	return sealed[:n], nil
}

func generationKey(gen core.Generation) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(gen))
}

// readGeneration returns core.ErrNotFound when there is no gen.
func readGeneration(tx *bolt.Tx, gen core.Generation) (*generation, error) {
	b := tx.Bucket([]byte(imageGenerations)).Bucket(generationKey(gen))
	if b == nil {
		return nil, fmt.Errorf("generation %d: %w", gen, core.ErrNotFound)
	}
	g, err := decodeGeneration(b.Get(keyHeader), b.Get(keyTable))
	if err != nil {
		return nil, fmt.Errorf("generation %d: %w", gen, err)
	}
	return g, nil
}

// chunkSize returns the size of a stored chunk, 0 when there is none. It stands in
// the sequence number of the chunk's bucket, which is in the parent's page: the
// chunk itself need not be touched.
func chunkSize(tx *bolt.Tx, d core.Digest) int {
	b := tx.Bucket([]byte(imageChunks)).Bucket(d[:])
	if b == nil {
		return 0
	}
	return int(b.Sequence())
}

// putChunk writes a chunk into a bucket of its own.
func putChunk(tx *bolt.Tx, d core.Digest, data []byte) error {
	b, err := tx.Bucket([]byte(imageChunks)).CreateBucketIfNotExists(d[:])
	if err != nil {
		return err
	}
	if err := b.SetSequence(uint64(len(data))); err != nil {
		return err
	}
	return b.Put(keyChunk, data)
}

// readChunk verifies the bytes of ref against its digest and returns a copy in
// buffer, which holds core.ChunkSize.
func readChunk(tx *bolt.Tx, ref core.ChunkRef, buffer []byte) ([]byte, error) {
	b := tx.Bucket([]byte(imageChunks)).Bucket(ref.Digest[:])
	if b == nil {
		return nil, fmt.Errorf("bytes are missing: %w", core.ErrCorrupt)
	}
	stored := b.Get(keyChunk)
	if len(stored) != ref.Size {
		return nil, fmt.Errorf("%d bytes, want %d: %w", len(stored), ref.Size, core.ErrCorrupt)
	}
	data := buffer[:copy(buffer, stored)]
	if core.DigestOf(data) != ref.Digest {
		return nil, fmt.Errorf("digest differs: %w", core.ErrCorrupt)
	}
	return data, nil
}

// retain drops all generations but gen, and with sweep all chunks but gen's.
func (f *imageFile) retain(gen core.Generation, sweep bool) error {
	crash.Point("store.image.retain.before")
	err := f.update(func(tx *bolt.Tx) error {
		kept, err := readGeneration(tx, gen)
		if err != nil {
			return err
		}
		generations := tx.Bucket([]byte(imageGenerations))
		for _, key := range keysWithPrefix(generations, nil) {
			if bytes.Equal(key, generationKey(gen)) {
				continue
			}
			if err := generations.DeleteBucket(key); err != nil {
				return err
			}
		}
		if !sweep {
			return nil
		}
		return sweepChunks(tx, kept)
	})
	if err == nil {
		crash.Point("store.image.retain.after")
	}
	return err
}

// sweepChunks frees the chunks that kept does not name.
func sweepChunks(tx *bolt.Tx, kept *generation) error {
	used := make(map[core.Digest]bool, len(kept.table)/sha256.Size)
	for d := kept.table; len(d) > 0; d = d[sha256.Size:] {
		used[core.Digest(d[:sha256.Size])] = true
	}
	chunks := tx.Bucket([]byte(imageChunks))
	var unused []core.Digest
	c := chunks.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if len(k) != sha256.Size {
			return fmt.Errorf("chunk key of %d bytes: %w", len(k), core.ErrCorrupt)
		}
		if !used[core.Digest(k)] {
			unused = append(unused, core.Digest(k))
		}
	}
	for _, d := range unused {
		if err := chunks.DeleteBucket(d[:]); err != nil {
			return err
		}
	}
	return nil
}

func putKernel(tx *bolt.Tx, k core.Kernel) error {
	value := append([]byte{byte(len(k.Format))}, k.Format...)
	return tx.Bucket([]byte(imageKernels)).Put(k.Digest[:], append(value, k.Code...))
}

// decodeKernel copies a kernel. Errors wrap core.ErrCorrupt.
func decodeKernel(digest, value []byte) (core.Kernel, error) {
	if len(digest) != sha256.Size || len(value) == 0 || len(value) < 1+int(value[0]) {
		return core.Kernel{}, fmt.Errorf("kernel %x of %d bytes: %w", digest, len(value), core.ErrCorrupt)
	}
	n := 1 + int(value[0])
	k := core.Kernel{Digest: core.Digest(digest), Format: string(value[1:n]), Code: bytes.Clone(value[n:])}
	if core.DigestOf(k.Code) != k.Digest {
		return core.Kernel{}, fmt.Errorf("kernel %s: digest differs: %w", k.Digest, core.ErrCorrupt)
	}
	return k, nil
}

func (f *imageFile) kernel(d core.Digest) (k core.Kernel, err error) {
	err = f.view(func(tx *bolt.Tx) error {
		value := tx.Bucket([]byte(imageKernels)).Get(d[:])
		if value == nil {
			return fmt.Errorf("kernel %s: %w", d, core.ErrNotFound)
		}
		k, err = decodeKernel(d[:], value)
		return err
	})
	return k, err
}
