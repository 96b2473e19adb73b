package core

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// EntityID identifies an entity within one data directory. Never reused, never zero.
type EntityID uint64

// JobID identifies a job within one data directory. Never reused, never zero.
type JobID uint64

// JobSeq is the place of a job in its entity's stream, starting at 1. The
// scheduled and the finished fence of a job carry it.
type JobSeq uint64

// Epoch numbers the incarnations of an entity's life on a plugin: it rises
// each time the entity is created on an instance. Replies that carry an
// older epoch are stale and dropped.
type Epoch uint64

// Session numbers the connections of a data directory to plugins. A plugin
// drops commands of lower sessions than the highest one it has seen.
type Session uint64

// CommandSeq numbers the commands of one entity, starting at 1 and rising over
// all its epochs. A command is idempotent under (entity, epoch, sequence).
type CommandSeq uint64

// EventSeq numbers the durable events of one device of one instance, from 1.
type EventSeq uint64

// MessageID identifies an in-band message within its entity.
type MessageID uint64

// Generation numbers the images of an entity. 0 means "no image yet"; the
// first image, which holds the initial buffers, is generation 1.
type Generation uint64

// Instant is a point in time in nanoseconds since the Unix epoch; 0 means "not yet".
type Instant int64

// At converts a wall-clock time.
func At(t time.Time) Instant { return Instant(t.UnixNano()) }

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Time returns the wall-clock time, the zero Time for 0.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

// Digest is a SHA-256 sum, the only digest of the project.
type Digest [sha256.Size]byte

// DigestOf returns the digest of b.
func DigestOf(b []byte) Digest { return sha256.Sum256(b) }

// String returns the digest in lower-case hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText writes the hexadecimal form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads the hexadecimal form.
func (d *Digest) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(d) {
		return fmt.Errorf("digest: %d hexadecimal digits, want %d", len(text), 2*len(d))
	}
	if _, err := hex.Decode(d[:], text); err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	return nil
}
