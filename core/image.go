package core

import "time"

// ImageVersion is the version of the portable part that this release writes.
const ImageVersion = 1

// ChunkSize is how many bytes of a buffer one chunk of an image holds; the
// last chunk of a buffer may be shorter. 256 KiB is where bbolt's throughput peaks.
const ChunkSize = 256 << 10

// ImageJob is the progress of one unfinished job inside an image.
type ImageJob struct {
	Job JobID `json:"job"`
	// Cursor is how many workgroups are done, counted in linear order, x fastest.
	Cursor uint64 `json:"cursor"`
	// Executed counts workgroups that the engine ran for the job in this epoch.
	Executed     uint64        `json:"executed"`
	ExecutedTime time.Duration `json:"executed_time"`
}

// ImageHeader is the first thing in an image; all of it is portable but Backend and Private.
type ImageHeader struct {
	Version int          `json:"version"`
	Entity  EntityID     `json:"entity"`
	Buffers []BufferSpec `json:"buffers"`
	Jobs    []ImageJob   `json:"jobs"`
	// Backend names who wrote Private; only the same backend reads it.
	Backend string `json:"backend,omitempty"`
	Private []byte `json:"private,omitempty"`
}

// ChunkRef names one chunk: Index counts chunks of ChunkSize within Buffer,
// which indexes ImageHeader.Buffers.
type ChunkRef struct {
	Buffer int
	Index  uint64
	Size   int
	Digest Digest
}

// ImageSource is an image that can be read once or more, in any order of calls,
// by one goroutine. Chunks come in buffer order, then index order, and are
// valid only during the call. A chunk that is all zeroes may come with data == nil.
type ImageSource interface {
	Header() ImageHeader
	Chunks(func(ref ChunkRef, data []byte) error) error
}

// ImageSink receives an image. Has says that the chunk's bytes are already
// known, so that only its name need be sent; Put is called once per chunk in
// buffer and index order, with data == nil when Has was true. data is the
// caller's again after the call.
type ImageSink interface {
	Has(Digest) bool
	Put(ref ChunkRef, data []byte) error
}

// HeaderChecker is implemented by an ImageSink that knows what it is to receive.
// CheckHeader is called once, before the first Has and Put; an error ends the
// transfer.
type HeaderChecker interface {
	CheckHeader(ImageHeader) error
}
