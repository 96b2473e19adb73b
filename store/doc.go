// Package store keeps what must survive a crash: the records of entities, jobs
// and plugin instances in one bbolt file, and the images of entities in one
// bbolt file each. It decides nothing; it refuses what would break its own
// invariants, and it never stops a start because of damaged bytes: they are
// set aside and reported.
//
// The rule its caller keeps: Load, then Commit; and after a Commit that failed,
// Load again. A write may build on an earlier one, so after one that was not
// committed none later is, until Load was called.
//
// # The data directory
//
//	lock                   flock of the process that holds the directory, with its pid
//	state.db               the records
//	state.db.schema-<n>    copy made before a migration from schema n
//	state.db.damaged-<n>   a file that could not be read any more
//	state.db.suspect       says that a write met damage: the next Open rebuilds state.db
//	images/                the images that belong to state.db
//	images.damaged-<n>     the images that belonged to state.db.damaged-<n>,
//	                       or to one that was missing
//	images/<id>.img        the image file of an entity, id in 16 hexadecimal digits
//	images/<id>.img.damaged-<n>
//
// # state.db, schema 1
//
//	meta/            schema, compatible (lowest release schema that reads it), created
//	entity_specs/    entity                -> EntitySpec
//	entity_states/   entity                -> EntityState
//	job_specs/       entity, job           -> JobSpec
//	job_states/      entity, job           -> JobState
//	instances/       instance name         -> InstanceRecord
//	counters/        session, next_entity, next_job -> number
//	quarantine/      rising number         -> bucket, key, value and reason of a bad record
//
// Keys are big endian, 8 bytes a number, so that the jobs of an entity stand
// together and go together with it. Values are JSON followed by its CRC-32C
// (4 bytes, big endian): bbolt does not check its pages, and a flipped bit in a
// cursor would otherwise be believed. Unknown JSON members are ignored, so that
// the previous release reads what this one wrote. An entity one of whose records
// is bad is set aside whole, with its jobs: a stream of jobs with a hole would
// compute something else. Its image file stays.
//
// # images/<id>.img, schema 1
//
//	meta/                        schema
//	kernels/                     digest -> length of format (1 byte), format, code
//	chunks/<digest>/             one bucket a chunk: sequence number = size, key "d" -> bytes
//	generations/<generation>/    header -> JSON of core.ImageHeader, its SHA-256
//	                             table  -> digests in buffer and index order, their SHA-256
//
// Why a bucket for every chunk: bbolt rewrites a leaf page whole, and keeps two
// to four values in one however large they are. With plain keys, by digest or by
// place, a changed chunk of 256 KiB costs up to 1 MiB of writing, and dropping
// it as much again. A nested bucket has a root page of its own, so that a chunk
// is written once and freed without touching another; the price is 64 bytes in
// the parent. Chunks are named by content: a generation holds 32 bytes for an
// unchanged chunk, chunks of zeroes are not stored at all, and there are no
// reference counts to go wrong: Retain frees what its generation does not name,
// also what a crash left behind.
//
// A generation exists from the transaction on that writes its header and table;
// earlier transactions only add chunks that nothing names yet. Each of them is
// synced: without that a power cut could leave both meta pages pointing at pages
// that were never written, and take the older generations along.
//
// A file never shrinks; freed pages are used again by the next generation.
package store
