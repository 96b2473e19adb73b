package store

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gpuwm/gpuwm/core"
	bolt "go.etcd.io/bbolt"
)

// clock sums the time of the two sides of a benchmark.
type clock struct{ ours, floor time.Duration }

func measure(sum *time.Duration, f func()) {
	start := time.Now()
	f()
	*sum += time.Since(start)
}

// BenchmarkDurableSubmit compares 64 clients that submit one job each and wait,
// against the same bytes through a bare group commit.
func BenchmarkDurableSubmit(b *testing.B) {
	const clients, rounds = 64, 50
	db := openStore(b, b.TempDir())
	bare := newBareGroup(b)
	var c clock
	var next core.JobID = 1
	w := &core.Write{NextJob: 1 << 40}
	for id := core.EntityID(1); id <= clients; id++ {
		w.Entities, w.EntityStates = append(w.Entities, entitySpec(id)), append(w.EntityStates, entityState(id))
	}
	mustCommit(b, db, w)
	run := func(first core.JobID, submit func(*core.Write, func(error))) {
		var wait sync.WaitGroup
		for client := range clients {
			wait.Go(func() {
				done := make(chan error, 1)
				for round := range rounds {
					entity, job := core.EntityID(client+1), first+core.JobID(client*rounds+round)
					submit(&core.Write{Jobs: []*core.JobSpec{jobSpec(entity, job, core.JobSeq(job))},
						JobStates: []core.JobState{jobState(entity, job)}}, func(err error) { done <- err })
					if err := <-done; err != nil {
						b.Error(err)
					}
				}
			})
		}
		wait.Wait()
	}
	n := 0
	for b.Loop() {
		measure(&c.ours, func() { run(next, db.Commit) })
		prepared := make(map[core.JobID][]op, clients*rounds)
		for i := range core.JobID(clients * rounds) {
			entity, job := core.EntityID(i/rounds+1), next+i
			ops, _, err := encodeWrite(&core.Write{Jobs: []*core.JobSpec{jobSpec(entity, job, core.JobSeq(job))},
				JobStates: []core.JobState{jobState(entity, job)}})
			if err != nil {
				b.Fatal(err)
			}
			prepared[job] = ops
		}
		measure(&c.floor, func() {
			run(next, func(w *core.Write, done func(error)) { bare.in <- bareWrite{prepared[w.Jobs[0].ID], done} })
		})
		next += clients * rounds
		n += clients * rounds
	}
	b.ReportMetric(float64(n)/c.ours.Seconds(), "submits/s")
	b.ReportMetric(float64(n)/c.floor.Seconds(), "floor/s")
	b.ReportMetric(c.floor.Seconds()/c.ours.Seconds(), "ratio")
}

type bareWrite struct {
	ops  []op
	done func(error)
}

// bareGroup is the floor: a goroutine that drains its channel into one transaction.
type bareGroup struct{ in chan bareWrite }

func newBareGroup(b *testing.B) *bareGroup {
	file, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, fileOptions(time.Second))
	if err != nil {
		b.Fatal(err)
	}
	err = file.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte(bucketJobSpecs))
		_, err2 := tx.CreateBucket([]byte(bucketJobStates))
		return errors.Join(err, err2)
	})
	if err != nil {
		b.Fatal(err)
	}
	g := &bareGroup{in: make(chan bareWrite, groupMax)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for w := range g.in {
			group := []bareWrite{w}
			for len(g.in) > 0 && len(group) < groupMax {
				group = append(group, <-g.in)
			}
			err := file.Update(func(tx *bolt.Tx) error {
				specs, states := tx.Bucket([]byte(bucketJobSpecs)), tx.Bucket([]byte(bucketJobStates))
				for _, w := range group {
					if err := errors.Join(specs.Put(w.ops[0].key, w.ops[0].value), states.Put(w.ops[1].key, w.ops[1].value)); err != nil {
						return err
					}
				}
				return nil
			})
			for _, w := range group {
				w.done(err)
			}
		}
	}()
	b.Cleanup(func() { close(g.in); <-ended; _ = file.Close() })
	return g
}

// imageBytes is the size of the images of the benchmarks.
const imageBytes = 128 << 20

// chunksOf lists the chunks of m with their digests.
func chunksOf(m *memory) (refs []core.ChunkRef, chunks [][]byte) {
	_ = m.each(func(ref core.ChunkRef, data []byte) error {
		refs, chunks = append(refs, ref), append(chunks, data)
		return nil
	})
	return refs, chunks
}

func putAll(b *testing.B, im *Images, gen core.Generation, m *memory, refs []core.ChunkRef, chunks [][]byte) {
	w, err := im.Begin(1, gen)
	if err != nil {
		b.Fatal(err)
	}
	for i, ref := range refs {
		data := chunks[i]
		if w.Has(ref.Digest) {
			data = nil
		}
		if err := w.Put(ref, data); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(m.header); err != nil {
		b.Fatal(err)
	}
}

// putBare puts the chunks under their digests in transactions of the same size.
func putBare(b *testing.B, file *bolt.DB, refs []core.ChunkRef, chunks [][]byte, hash bool) {
	for at := 0; at < len(refs); at += batchSize / core.ChunkSize {
		err := file.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte("chunks"))
			for i := at; err == nil && i < min(len(refs), at+batchSize/core.ChunkSize); i++ {
				if hash && core.DigestOf(chunks[i]) != refs[i].Digest {
					b.Error("digest differs")
				}
				err = bucket.Put(refs[i].Digest[:], chunks[i])
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkImageWrite compares a first image with the same chunks put into a
// bare bbolt file, with and without the digests that the store verifies.
func BenchmarkImageWrite(b *testing.B) {
	m := newMemory(1, seeded(), imageBytes)
	refs, chunks := chunksOf(m)
	var ours, bare, hashed time.Duration
	n := 0
	for b.Loop() {
		dir := b.TempDir()
		im, err := OpenImages(dir)
		if err != nil {
			b.Fatal(err)
		}
		measure(&ours, func() { putAll(b, im, 1, m, refs, chunks) })
		for _, floor := range []struct {
			sum  *time.Duration
			hash bool
		}{{&bare, false}, {&hashed, true}} {
			measure(floor.sum, func() {
				file, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, fileOptions(time.Second))
				if err != nil {
					b.Fatal(err)
				}
				putBare(b, file, refs, chunks, floor.hash)
				if err := file.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
		n++
	}
	report(b, n, ours, bare, hashed)
}

func report(b *testing.B, n int, ours, bare, hashed time.Duration) {
	mib := float64(n) * imageBytes / (1 << 20)
	b.ReportMetric(mib/ours.Seconds(), "MiB/s")
	b.ReportMetric(mib/bare.Seconds(), "floor-MiB/s")
	b.ReportMetric(mib/hashed.Seconds(), "hashed-floor-MiB/s")
	b.ReportMetric(bare.Seconds()/ours.Seconds(), "ratio")
	b.ReportMetric(hashed.Seconds()/ours.Seconds(), "ratio-hashed")
}

// BenchmarkImageRead compares reading from the page cache with copying the same
// chunks out of a bare bbolt file, with and without verifying their digests.
func BenchmarkImageRead(b *testing.B) {
	m := newMemory(1, seeded(), imageBytes)
	refs, chunks := chunksOf(m)
	im, err := OpenImages(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	putAll(b, im, 1, m, refs, chunks)
	file, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, fileOptions(time.Second))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	putBare(b, file, refs, chunks, false)
	var ours, bare, hashed time.Duration
	n := 0
	buffer := make([]byte, core.ChunkSize)
	for b.Loop() {
		measure(&ours, func() {
			r, err := im.Open(1, 1)
			if err != nil {
				b.Fatal(err)
			}
			err = r.Chunks(func(core.ChunkRef, []byte) error { return nil })
			if err := errors.Join(err, r.Close()); err != nil {
				b.Fatal(err)
			}
		})
		read := func(hash bool) func() {
			return func() {
				for _, ref := range refs {
					_ = file.View(func(tx *bolt.Tx) error {
						copy(buffer, tx.Bucket([]byte("chunks")).Get(ref.Digest[:]))
						if hash && core.DigestOf(buffer) != ref.Digest {
							b.Error("digest differs")
						}
						return nil
					})
				}
			}
		}
		measure(&bare, read(false))
		measure(&hashed, read(true))
		n++
	}
	report(b, n, ours, bare, hashed)
}

// BenchmarkImageReadCold is BenchmarkImageRead after the page cache forgot both
// files: what a resume after a reboot costs.
func BenchmarkImageReadCold(b *testing.B) {
	m := newMemory(1, seeded(), imageBytes)
	refs, chunks := chunksOf(m)
	im, err := OpenImages(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	putAll(b, im, 1, m, refs, chunks)
	path := filepath.Join(b.TempDir(), "bare.db")
	open := func() *bolt.DB {
		file, err := bolt.Open(path, 0o600, fileOptions(time.Second))
		if err != nil {
			b.Fatal(err)
		}
		return file
	}
	file := open()
	putBare(b, file, refs, chunks, false)
	if err := file.Close(); err != nil {
		b.Fatal(err)
	}
	var ours, bare, hashed time.Duration
	n := 0
	buffer := make([]byte, core.ChunkSize)
	for b.Loop() {
		forget(b, im.path(1))
		measure(&ours, func() {
			if _, err := readMemory(im, 1, 1); err != nil {
				b.Fatal(err)
			}
		})
		for _, floor := range []struct {
			sum  *time.Duration
			hash bool
		}{{&bare, false}, {&hashed, true}} {
			forget(b, path)
			measure(floor.sum, func() {
				file := open()
				for _, ref := range refs {
					_ = file.View(func(tx *bolt.Tx) error {
						copy(buffer, tx.Bucket([]byte("chunks")).Get(ref.Digest[:]))
						if floor.hash && core.DigestOf(buffer) != ref.Digest {
							b.Error("digest differs")
						}
						return nil
					})
				}
				_ = file.Close()
			})
		}
		n++
	}
	report(b, n, ours, bare, hashed)
}

// forget drops a closed file from the page cache.
func forget(b *testing.B, path string) {
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	const dontNeed = 4 // POSIX_FADV_DONTNEED
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0); errno != 0 {
		b.Fatal(errno)
	}
	_ = f.Close()
}

// BenchmarkSecondImage changes one chunk in a hundred, and compares the bytes
// written with those in the changed chunks, for the store and for chunks under
// their place in a plain bucket.
func BenchmarkSecondImage(b *testing.B) {
	m := newMemory(1, seeded(), imageBytes)
	refs, chunks := chunksOf(m)
	im, err := OpenImages(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	f, err := im.acquire(1, true)
	if err != nil {
		b.Fatal(err)
	}
	defer f.release()
	putAll(b, im, 1, m, refs, chunks)
	file, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, fileOptions(time.Second))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	putBare(b, file, refs, chunks, false)
	start, bareStart := written(f), file.Stats().TxStats.PageAlloc
	gen, logical := core.Generation(1), 0
	for b.Loop() {
		gen++
		var changed []int
		for i := int(gen) % 100; i < len(chunks); i += 100 {
			chunks[i][gen%core.ChunkSize]++
			changed = append(changed, i)
			logical += len(chunks[i])
		}
		old := refs
		refs, chunks = chunksOf(m)
		putAll(b, im, gen, m, refs, chunks)
		if err := im.Retain(1, gen); err != nil {
			b.Fatal(err)
		}
		err := file.Update(func(tx *bolt.Tx) error {
			bucket := tx.Bucket([]byte("chunks"))
			for _, i := range changed {
				if err := errors.Join(bucket.Delete(old[i].Digest[:]), bucket.Put(refs[i].Digest[:], chunks[i])); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(written(f)-start)/float64(logical), "written/changed")
	b.ReportMetric(float64(file.Stats().TxStats.PageAlloc-bareStart)/float64(logical), "plain-written/changed")
}

// BenchmarkLoad opens and loads a store of 10,000 entities with 100,000 jobs.
func BenchmarkLoad(b *testing.B) {
	const entities, jobs = 10_000, 10
	dir := b.TempDir()
	db, err := Open(dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	for id := core.EntityID(1); id <= entities; id++ {
		db.Commit(entityWrite(id, core.JobID((id-1)*jobs+1), core.JobID(id*jobs)), nil)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		db, err := Open(dir, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if s := mustLoad(b, db); len(s.Entities) != entities || s.NextJob != entities*jobs+1 {
			b.Fatalf("%d entities", len(s.Entities))
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
